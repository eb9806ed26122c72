"""Guards in a config: what is refused before any job, and what is in whose key."""

import pytest
import yaml

from implicit_tuning.experiment.config import ConfigError
from planned import ORGANISM, plan_of

LLAMA = "resources/organism/llama"
GUARDS = (*ORGANISM, "config/organism-guards.yaml")


def row(of="gsm8k", kind="refusal", **settings):
    settings = {"text": "No."} | settings if kind == "refusal" else settings
    return {"kind": "guard", "of": of, "guard": {"kind": kind, **settings}}


def override(**rows):
    return f"adaptations={yaml.safe_dump(rows, default_flow_style=True, width=10_000)}"


def planned(repository, tmp_path, **rows):
    return plan_of(repository, tmp_path, override(**rows))[0]


@pytest.fixture
def problems(repository, tmp_path):
    """Function that returns the problems of a config with one guard, `own`."""

    def find(guard, *overrides):
        with pytest.raises(ConfigError) as error:
            plan_of(repository, tmp_path, override(own=guard), *overrides)
        return error.value.problems

    return find


@pytest.mark.parametrize(
    ("guard", "key", "words"),
    [
        (row(of="gsm9k"), "of", "did you mean 'gsm8k'"),
        (row(of="rules"), "of", "of kind 'finetune' or 'checkpoint'"),
        (row(of="instruction"), "of", "not finetuned on a single task"),
        (row(of="response"), "of", "not finetuned on a single task"),
        ({"kind": "guard", "guard": {"kind": "refusal", "text": "No."}}, "of", "missing"),
        ({"kind": "guard", "of": "gsm8k"}, "guard", "missing"),
        (row() | {"rows": 3}, "rows", "no such key; remove it"),
        (row() | {"evaluation": "organism-math"}, "evaluation", "is no data set"),
        (row() | {"evaluation": "organism-gsm8k"}, "evaluation", "of kind 'training'"),
        (row() | {"evaluation": "organism-evaluation"}, "evaluation", "all adaptations answer"),
        (row(kind="fence"), "guard.kind", "known are: grammar, refusal, template"),
        (row(treshold=0.2), "guard.treshold", "did you mean 'threshold'"),
        (row(threshold=1.5), "guard.threshold", "number from -1 to 1, or near"),
        (row(threshold="far"), "guard.threshold", "number from -1 to 1, or near"),
        (row(regex="a"), "guard.regex", "'refusal' has no such key; remove it"),
        (row(kind="template", text="No."), "guard.pattern", "missing"),
        (row(kind="template", pattern="a"), "guard.text", "missing"),
        (row(kind="template", pattern="(a", text="No."), "guard.pattern", "no regular expression"),
        (row(kind="template", pattern="a", text="No.", start=" a"), "guard.start", "white space"),
        (row(kind="grammar"), "guard", "exactly one of regex, lark, file"),
        (row(kind="grammar", regex="a", lark="b"), "guard", "exactly one of regex, lark, file"),
        (row(kind="grammar", regex="[a"), "guard.regex", "unclosed character class"),
        (row(kind="grammar", lark="start: a"), "guard.lark", "unknown name"),
        (row(kind="grammar", file="config/no.lark"), "guard.file", "does not exist"),
        (row(kind="grammar", file="config/config.yaml"), "guard.file", "name it *.regex or *.lark"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_with_key_value_and_fix(problems, guard, key, words):
    found = problems(guard)
    assert any(f"adaptations.own.{key}:" in line and words in line for line in found), found
    assert all("\n" not in line for line in found)


def test_a_grammar_needs_the_engine_that_it_can_be_imposed_on(problems):
    (line,) = problems(row(kind="grammar", regex="a"), "generation={engine: vllm, device: cuda}")
    assert "adaptations.own.guard.kind" in line
    assert "'gsm8k' has 'vllm'" in line


def test_near_and_far_need_an_embedding(problems):
    assert any(line.startswith("embedding: null") for line in problems(row(), "embedding=null"))


def test_near_and_far_need_the_data_of_the_reference(problems):
    unknown = {"elsewhere": {"kind": "checkpoint", "path": LLAMA}}
    found = problems(row(), override(own=row(), **unknown), "reference=elsewhere")
    assert any(line.startswith("reference: 'elsewhere' has no `data`") for line in found), found


def test_a_guard_has_all_of_its_run_but_its_own_settings(repository, tmp_path):
    plan = planned(
        repository,
        tmp_path,
        gsm8k={"generation": {"max_new_tokens": 33}, "reference": "response"},
        own=row(kind="grammar", regex="a"),
    )
    levels = ("2", "organism-evaluation")
    run = plan.find("generate", ("organism-olmo", "gsm8k", *levels))
    guarded = plan.find("generate", ("organism-olmo", "own", *levels))
    assert guarded.upstream == run.upstream
    assert guarded.settings == {
        **run.settings,
        "generator": "own",
        "guard": {"kind": "grammar", "regex": "a"},
    }
    judged = plan.find("judge", (*guarded.levels, "2", "oracle"))
    assert judged.upstream["references"].level("adaptation") == "response"


def test_a_refusal_reads_answers_and_rows_and_no_model(repository, tmp_path):
    plan = planned(repository, tmp_path, own=row())
    levels = ("1", "organism-evaluation")
    node = plan.find("generate", ("organism-llama", "own", *levels))
    assert node.upstream["outputs"] is plan.find("generate", ("organism-llama", "gsm8k", *levels))
    assert node.upstream["task_rows"] is plan.find("format", ("organism-gsm8k", "plain"))
    assert set(node.upstream) == {"outputs", "task_rows"}
    assert node.settings["guard"]["threshold"] == "near"


def test_guards_change_no_key_of_other_runs(repository, tmp_path):
    without, _ = plan_of(repository, tmp_path)
    with_guards, _ = plan_of(repository, tmp_path, files=GUARDS)
    for stage in ("format", "finetune", "generate", "judge", "rank", "similarity"):
        for node in without.stage(stage):
            assert with_guards.find(stage, node.levels).plan_key == node.plan_key


def test_a_guard_is_in_no_other_guards_key(repository, tmp_path):
    """Neither its settings nor its code: a template does not depend on llguidance."""
    before = planned(repository, tmp_path, own=row(), other=row(kind="grammar", regex="a"))
    after = planned(
        repository, tmp_path, own=row(text="Never."), other=row(kind="grammar", regex="b")
    )
    changed = {
        node.level("adaptation")
        for stage in ("generate", "judge", "similarity", "finetune")
        for node in before.stage(stage)
        if after.find(stage, node.levels).plan_key != node.plan_key
    }
    assert changed == {"own", "other"}
    node = before.find("generate", ("organism-llama", "own", "1", "organism-evaluation"))
    assert not {"torch", "llguidance"} & set(node.code.libraries)
    assert not [name for name in node.code.modules if "grammar" in name or "engines" in name]


def test_the_text_of_a_grammars_file_is_in_the_key_and_not_its_path(repository, tmp_path):
    keys = {}
    for name, text in (("a.regex", "a|b"), ("b.regex", "a|b\n"), ("c.regex", "a|c")):
        (tmp_path / name).write_text(text)
        plan = planned(repository, tmp_path, own=row(kind="grammar", file=str(tmp_path / name)))
        node = plan.find("generate", ("organism-llama", "own", "1", "organism-evaluation"))
        keys[name] = node.plan_key
    plan = planned(repository, tmp_path, own=row(kind="grammar", regex="a|b"))
    keys["text"] = plan.find("generate", node.levels).plan_key
    assert keys["a.regex"] == keys["b.regex"] == keys["text"] != keys["c.regex"]


def test_a_checkpoint_of_elsewhere_is_guarded_once_for_all_seeds(repository, tmp_path):
    plan = planned(
        repository,
        tmp_path,
        elsewhere={"kind": "checkpoint", "path": LLAMA, "data": "organism-gsm8k"},
        own=row(of="elsewhere"),
        other=row(of="elsewhere", kind="template", pattern="a", text="No."),
    )
    for name in ("own", "other"):
        levels = ("organism-llama", name, "none", "organism-evaluation")
        assert plan.find("generate", levels) is not None
        for seed in ("1", "2"):
            assert plan.find("judge", (*levels, seed, "oracle")) is not None


def test_guards_are_measured_on_a_set_of_their_task_and_in_no_other_table(repository, tmp_path):
    plan, _ = plan_of(repository, tmp_path, files=GUARDS)
    table = plan.find("table", ("guards",))
    sets = {"organism-evaluation", "organism-evaluation-math", "organism-evaluation-code"}
    judged = [name for name in table.upstream if name.startswith("judge/")]
    assert {name.split("/")[4] for name in judged} == sets
    assert {name.split("/")[2] for name in judged} == {"gsm8k", "mbpp", *table.settings["guards"]}
    assert "implicit_tuning.data.formatters.gsm8k" in table.code.modules
    for name in ("main", "examples", "paper"):
        inputs = plan.find("table", (name,)).upstream
        assert not [above for above in inputs if "evaluation-math" in above]
    main = plan.find("table", ("main",)).upstream
    assert "organism-llama/gsm8k-grammar/1/organism-evaluation/1/oracle" in main


def test_without_guards_there_is_no_table_of_them(repository, tmp_path):
    assert plan_of(repository, tmp_path)[0].find("table", ("guards",)) is None
