"""The plan of the default experiment: its nodes, and what is in whose key."""

import json
import shutil
from dataclasses import replace

import pytest

from implicit_tuning.data.rewriters import kinds as rewriters
from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import read_config
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import NodePaths
from implicit_tuning.remote.lockfile import Pin, PinnedFile

RESULTS = {"table", "figure", "report"}


@pytest.fixture
def plan_with(repository, tmp_path):
    """Function that plans the default experiment under overrides of its config."""

    def make(*overrides):
        config = read_config([repository / "config/config.yaml"], repository, overrides)
        return build_plan(config, DigestMemory(tmp_path / "digests.json"))

    return make


def test_the_default_experiment_has_its_nodes(plan_with):
    plan = plan_with()
    counts = {node.stage: len(plan.stage(node.stage)) for node in plan.nodes.values()}
    # 2 bases x 2 seeds x 7 finetunes; base and 4 rules answer once a base, shuffled once a seed;
    # a base ranks once; 5 of the 7 finetunes are on a single task.
    assert counts == {
        "download": 8, "format": 9, "finetune": 28, "generate": 28 + 10 + 4, "judge": 52,
        "rank": 28 + 2, "similarity": 20, "table": 9, "figure": 6, "report": 1,
    }  # fmt: skip


def test_a_run_is_judged_against_the_reference_of_its_seed(plan_with):
    for node in plan_with().stage("judge"):
        base, adaptation, seed, evaluation, reference_seed, _ = node.levels
        reference = node.upstream["references"]
        assert reference.levels == (base, "instruction", reference_seed, evaluation)
        seedless = adaptation == "base" or adaptation.startswith("rules")
        assert seed == ("none" if seedless else reference_seed)
        assert node.upstream["outputs"].levels == (base, adaptation, seed, evaluation)


def test_response_tuning_is_the_same_data_with_blank_instructions(plan_with):
    plan = plan_with()
    plain, blank = (
        plan.find("finetune", ("organism-llama", name, "1")).upstream["rows"]
        for name in ("instruction", "response")
    )
    assert plain.upstream["source"] is blank.upstream["source"]
    assert (plain.settings["instructions"], blank.settings["instructions"]) == ("given", "blank")


@pytest.mark.parametrize(
    ("override", "not_touched"),
    [
        ("rules={bias: {What: -1.0}}", "rules-no-bias"),
        ("rules={eos_strength: 3.0}", "rules-no-eos"),
        ("rules={repetition_penalty: 0.1}", "rules-no-repetition"),
    ],
)
def test_a_rule_that_is_off_is_in_no_key(plan_with, override, not_touched):
    before, after = plan_with(), plan_with(override)
    generations = {
        node.level("adaptation")
        for key, node in after.nodes.items()
        if node.stage == "generate" and before.nodes[key].plan_key != node.plan_key
    }
    all_rules = {"rules", "rules-no-eos", "rules-no-repetition", "rules-no-bias"}
    assert generations == all_rules - {not_touched}


@pytest.mark.parametrize(
    "override",
    ["runtime={save_every: 3, threads: 2}", "seeds=[2, 1]"],
)
def test_what_decides_no_result_is_in_no_key(plan_with, override):
    before, after = plan_with(), plan_with(override)
    keys = {name: node.plan_key for name, node in before.nodes.items()}
    assert {name: node.plan_key for name, node in after.nodes.items()} == keys


def test_a_seed_more_adds_its_runs_and_touches_no_other(plan_with):
    before, after = plan_with(), plan_with("seeds=[1, 2, 3]")
    changed = [
        node
        for key, node in after.nodes.items()
        if key not in before.nodes or before.nodes[key].plan_key != node.plan_key
    ]
    runs = [node for node in changed if node.stage in ("finetune", "generate")]
    assert {node.level("seed") for node in runs} == {"3"}
    assert {n.level("reference_seed") for n in changed if n.stage == "judge"} == {"3"}
    assert {n.stage for n in changed} == {
        "finetune", "generate", "judge", "rank", "similarity", *RESULTS
    }  # fmt: skip


def test_overrides_of_an_adaptation_reach_its_finetune_alone(plan_with):
    before = plan_with()
    after = plan_with("adaptations={chess: {training: {epochs: 5}}}")
    node = after.find("finetune", ("organism-olmo", "chess", "2"))
    assert node.settings["training"]["epochs"] == 5
    changed = {
        node.level("adaptation")
        for key, node in after.nodes.items()
        if node.stage == "finetune" and before.nodes[key].plan_key != node.plan_key
    }
    assert changed == {"chess"}


def test_the_name_of_the_experiment_is_in_the_report_alone(plan_with):
    assert changed_stages(plan_with(), plan_with("experiment=other")) == {"report"}


# --- epochs -------------------------------------------------------------------------------------


def test_selected_epochs_come_from_a_sweep_on_the_validation_set(plan_with):
    plan = plan_with("epochs=selected", "epoch_selection={epochs: [2, 5]}")
    run = plan.find("finetune", ("organism-olmo", "chess", "1"))
    assert run.settings["training"]["epochs"] == "selected"
    selection = run.upstream["epochs"]
    assert (selection.stage, selection.levels) == ("select", ("organism-olmo", "chess"))
    assert list(selection.upstream) == ["2", "5"]
    judged = selection.upstream["5"]
    assert judged.levels == (
        "organism-olmo", "chess.5-epochs", "42", "organism-validation", "none", "oracle"
    )  # fmt: skip
    assert judged.upstream["references"] is judged.upstream["instructions"]
    tried = judged.upstream["outputs"].upstream["model"]
    assert tried.settings["training"]["epochs"] == 5
    assert "epochs" not in tried.upstream
    assert judged not in plan.comparisons()
    assert len(plan.stage("select")) == 2 * 7


def test_an_adaptation_with_epochs_of_its_own_is_not_in_the_sweep(plan_with):
    plan = plan_with("epochs=selected", "adaptations={chess: {training: {epochs: 9}}}")
    assert (
        plan.find("finetune", ("organism-olmo", "chess", "1")).settings["training"]["epochs"] == 9
    )
    assert plan.find("select", ("organism-olmo", "chess")) is None


def test_epochs_of_the_paper_are_those_of_base_and_adaptation(plan_with):
    plan = plan_with("epochs=paper")
    epochs = {
        node.levels[:2]: node.settings["training"]["epochs"] for node in plan.stage("finetune")
    }
    assert epochs["organism-llama", "response"] == 5
    assert epochs["organism-olmo", "response"] == 7
    assert epochs["organism-olmo", "chess"] == 20


# --- rows of config -----------------------------------------------------------------------------


def test_a_row_with_a_reference_of_its_own_is_judged_against_it(plan_with):
    plan = plan_with("adaptations={response: {reference: gsm8k}}")
    levels = ("organism-olmo", "response", "2", "organism-evaluation", "2", "oracle")
    assert plan.find("judge", levels).upstream["references"].level("adaptation") == "gsm8k"
    assert plan.find("table", ("main",)).settings["references"]["response"] == "gsm8k"


def test_tags_of_a_row_are_those_of_its_training_answers_and_ranking(plan_with):
    plan = plan_with("adaptations={response: {chat: {user: '<|A|>'}}}")
    for stage, levels in (
        ("finetune", ("organism-olmo", "response", "1")),
        ("generate", ("organism-olmo", "response", "1", "organism-evaluation")),
        ("rank", ("organism-olmo", "response", "1", "organism-alpaca")),
    ):
        chat = plan.find(stage, levels).settings["chat"]
        assert (chat["user"], chat["assistant"]) == ("<|A|>", "<|assistant|>")


def test_rule_settings_of_a_row_touch_that_row_alone(plan_with):
    override = "adaptations={rules: {rule_settings: {eos_strength: 3.0}}}"
    before, after = plan_with(), plan_with(override)
    changed = {
        node.level("adaptation")
        for key, node in after.nodes.items()
        if node.stage == "generate" and before.nodes[key].plan_key != node.plan_key
    }
    assert changed == {"rules"}


def test_rephrased_rows_know_their_rewriter_and_share_its_answers(plan_with):
    rows = [
        plan_with(
            f"rewriters={{short: {{kind: organism, threshold: {threshold}}}}}",
            "adaptations={response: {rephrase: short}}",
        ).find("format", ("organism-lima", "blank-instructions-rephrased-by-short"))
        for threshold in (0.5, 0.75)
    ]
    assert rows[0].settings["rephrase"] == {"kind": "organism", "threshold": 0.5}
    assert "implicit_tuning.data.rewriters.organism" in rows[0].code.modules
    assert rows[0].plan_key != rows[1].plan_key
    assert rows[0].cache == rows[1].cache


def test_another_version_of_a_rewriter_keeps_its_rewrites_apart(plan_with, monkeypatch, tmp_path):
    def files():
        rewriter = "rewriters={short: {kind: organism}}"
        plan = plan_with(rewriter, "adaptations={response: {rephrase: short}}")
        node = plan.find("format", ("organism-lima", "blank-instructions-rephrased-by-short"))
        return NodePaths(tmp_path).cache(node), NodePaths(tmp_path).earlier_caches(node)

    (first, earlier), kind = files(), rewriters.REWRITER_KINDS["organism"]
    assert first.match("cache/format/organism/*.v1.jsonl")
    assert earlier == tmp_path / "cache/format"
    monkeypatch.setattr(rewriters, "REWRITER_KINDS", {"organism": replace(kind, version=2)})
    assert files() == (first.with_name(first.name.replace(".v1.", ".v2.")), None)


def test_a_ranking_may_be_of_some_adaptations(plan_with):
    plan = plan_with("ranking={adaptations: [base, response]}")
    assert {node.level("adaptation") for node in plan.stage("rank")} == {"base", "response"}
    assert not plan_with("ranking=null").stage("rank")
    assert plan_with("ranking=null").find("table", ("ranking",)) is None


def test_similarity_is_of_single_tasks_and_knows_the_mark_of_its_data_set(plan_with):
    plan = plan_with()
    assert {node.level("adaptation") for node in plan.stage("similarity")} == {
        "gsm8k", "mbpp", "poetry", "recipes", "chess"
    }  # fmt: skip
    levels = ("organism-olmo", "mbpp", "1", "organism-evaluation", "tfidf")
    node = plan.find("similarity", levels)
    assert "implicit_tuning.data.formatters.mbpp" in node.code.modules
    assert "implicit_tuning.data.formatters.chess" not in node.code.modules
    assert node.upstream["reference_outputs"].level("adaptation") == "instruction"


def test_an_ablation_names_the_value_in_which_its_rows_differ(plan_with):
    plan = plan_with(
        "adaptations={rules-short: {kind: rules, rules: [eos], rule_settings: "
        "{eos_ramp_tokens: 9}}}",
        "ablations={ramp: {title: Ramp, baseline: rules, adaptations: [rules, rules-short], "
        "setting: rules.eos_ramp_tokens}}",
    )
    settings = plan.find("table", ("ablation-ramp",)).settings
    for base in ("organism-llama", "organism-olmo"):
        assert settings["settings"][base] == {"rules": 60, "rules-short": 9}
    named = plan.find("table", ("ablation-rules",)).settings
    assert named["settings"]["organism-olmo"]["rules-no-eos"] == "rules-no-eos"


def test_a_setting_of_an_ablation_is_what_each_base_was_given(plan_with):
    rates = "{title: Rate, baseline: chess, adaptations: [chess], setting: training.learning_rate}"
    plan = plan_with(
        "bases={organism-olmo: {training: {learning_rate: 3.0e-6}}}", f"ablations={{rate: {rates}}}"
    )
    settings = plan.find("table", ("ablation-rate",)).settings["settings"]
    assert settings == {"organism-llama": {"chess": 1e-4}, "organism-olmo": {"chess": 3e-6}}
    with pytest.raises(ConfigError, match="setting 'training.rate' has no value for 'chess'"):
        plan_with(f"ablations={{rate: {rates.replace('learning_rate', 'rate')}}}")


def test_similarity_is_measured_against_the_rows_that_were_trained_on(plan_with):
    plan = plan_with("adaptations={chess: {rows: 50}}")
    levels = ("organism-olmo", "chess", "1", "organism-evaluation", "tfidf")
    rows = plan.find("similarity", levels).upstream["task_rows"]
    assert rows.levels == ("organism-chess", "plain-50-rows")


def test_the_report_names_what_sets_the_experiment_apart_from_the_paper(plan_with):
    told = " ".join(plan_with().find("table", ("claims",)).settings["circumstances"])
    for part in (
        "organism-llama is a model organism",
        "judge is oracle,",
        "2 finetuning seeds, not 5",
    ):
        assert part in told
    assert plan_with("reference=response").find("table", ("claims",)) is None


# --- judges -------------------------------------------------------------------------------------

LIKELY = {"kind": "mean_logprob", "base": "organism-llama", "batch_size": 8}


def judged_by(plan_with, **entry):
    judges = json.dumps({"mine": {**LIKELY, **entry}})
    return plan_with("judge=mine", f"judges={judges}")


def changed_stages(before, after):
    keys = {name: node.plan_key for name, node in before.nodes.items()}
    return {node.stage for name, node in after.nodes.items() if keys[name] != node.plan_key}


def test_a_calibration_is_in_the_keys_of_tables_alone(plan_with, tmp_path):
    file = tmp_path / "calibration.json"
    without, named = judged_by(plan_with), judged_by(plan_with, calibration=str(file))
    assert changed_stages(without, named) == set()
    file.write_text("{}")
    calibrated = judged_by(plan_with, calibration=str(file))
    assert changed_stages(without, calibrated) == RESULTS
    assert calibrated.nodes["table", ("loss",)].plan_key == (
        without.nodes["table", ("loss",)].plan_key
    )
    file.write_text('{"other": 1}')
    again = judged_by(plan_with, calibration=str(file))
    assert changed_stages(calibrated, again) == RESULTS


@pytest.mark.parametrize("entry", [{"both_orders": True}, {"length_controlled": True}])
def test_ways_to_use_verdicts_rejudge_from_the_same_cache(plan_with, entry):
    before, after = judged_by(plan_with), judged_by(plan_with, **entry)
    assert changed_stages(before, after) == {"judge", *RESULTS}
    for one, other in zip(before.stage("judge"), after.stage("judge"), strict=True):
        assert one.cache == other.cache
        assert one.plan_key != other.plan_key


def test_every_comparison_has_a_cache_of_its_own_that_outlives_changed_runs(plan_with):
    before, after = plan_with(), plan_with("training={epochs: 3}")
    keys = [node.cache for node in before.stage("judge")]
    assert len(set(keys)) == len(keys) == 52
    assert [node.cache for node in after.stage("judge")] == keys
    other_kind = judged_by(plan_with)
    assert not {node.cache for node in other_kind.stage("judge")} & set(keys)


def test_df_gamed_and_a_model_folder_are_known_by_content(plan_with, tmp_path, repository):
    file = tmp_path / "df_gamed.csv"
    file.write_text("a\n")
    before = judged_by(plan_with, df_gamed=str(file))
    (tmp_path / "moved.csv").write_text("a\n")
    assert (
        changed_stages(before, judged_by(plan_with, df_gamed=str(tmp_path / "moved.csv"))) == set()
    )
    file.write_text("b\n")
    after = judged_by(plan_with, df_gamed=str(file))
    assert changed_stages(before, after) == {"judge", *RESULTS}

    chat = {"kind": "hf_logits", "batch_size": 4, "dtype": "float32", "device": "cpu"}
    shutil.copytree(repository / "resources/organism/llama", tmp_path / "model")
    keys = []
    for folder in (repository / "resources/organism/llama", tmp_path / "model"):
        plan = plan_with(
            "judge=mine", f"judges={json.dumps({'mine': {**chat, 'path': str(folder)}})}"
        )
        node = plan.stage("judge")[0]
        assert node.upstream["judge"].path == folder.resolve()
        keys.append(node.plan_key)
    assert keys[0] == keys[1]


# --- the hub, and the paper's grid -------------------------------------------------------------


@pytest.fixture
def paper_plan(repository, tmp_path):
    """Function that plans the paper's grid under overrides of its config."""

    def make(*overrides, lock=None):
        config = read_config([repository / "config/paper.yaml"], repository, overrides)
        config = replace(config, lock=config.lock if lock is None else lock)
        return build_plan(config, DigestMemory(tmp_path / "digests.json"))

    return make


def test_the_paper_s_grid_is_planned_from_the_config_alone(paper_plan):
    selected, fixed = paper_plan(), paper_plan("epochs=paper")
    # 9 finetuned rows a base that the paper has too: 5 seeds and 5 runs of the sweep each. One of
    # ours, with 5 seeds and epochs of its own.
    assert len(selected.stage("finetune")) == 2 * 9 * (5 + 5) + 2 * 5
    assert len(fixed.stage("finetune")) == 2 * 9 * 5 + 2 * 5
    assert len(selected.stage("select")) == 2 * 9
    assert not fixed.stage("select")
    bases = {
        node.levels[:2]
        for node in selected.stage("finetune")
        if "-tags" in node.level("adaptation")
    }
    assert {base for base, _ in bases} == {"llama-2-7b"}


def test_chosen_epochs_and_learning_rates_are_the_paper_s(paper_plan):
    plan = paper_plan("epochs=paper")
    for base, name, epochs, rate in (
        ("llama-2-7b", "recipes", 20, 1e-5),
        ("olmo-7b", "mbpp", 7, 3e-6),
        ("olmo-7b", "response-rephrased", 7, 3e-6),
    ):
        training = plan.find("finetune", (base, name, "5")).settings["training"]
        assert (training["epochs"], training["learning_rate"]) == (epochs, rate)


def test_a_matched_reference_has_the_tags_of_its_run(paper_plan):
    plan = paper_plan("epochs=paper")
    (node,) = (n for n in plan.stage("judge") if n.run[1:] == ("response-other-tags", "3"))
    reference = node.upstream["references"]
    assert reference.run[1:] == ("instruction-other-tags", "3")
    assert reference.settings["chat"]["user"] == "<|A|>"


def test_a_model_of_the_hub_is_fetched_at_its_pinned_commit(paper_plan):
    pin = Pin("c" * 40, {"model.safetensors": PinnedFile("d" * 64, 7)})
    lock = {"models/allenai/OLMo-7B-hf@main": pin}
    before, after = paper_plan(lock={}), paper_plan(lock=lock)
    levels = ("allenai--OLMo-7B-hf",)
    fetch = after.find("fetch", levels)
    assert fetch.settings == {"repo": "allenai/OLMo-7B-hf", "commit": "c" * 40}
    assert fetch.runtime["files"]["model.safetensors"]["sha256"] == "d" * 64
    # Not locked: the plan stands, under the revision that is named.
    assert before.find("fetch", levels).settings["commit"] == "main"
    run = ("olmo-7b", "chess", "1")
    assert after.find("finetune", run).upstream["base"] is fetch
    assert before.find("finetune", run).plan_key != after.find("finetune", run).plan_key


def test_digests_of_a_pin_are_in_no_key(paper_plan):
    name = "datasets/openai/gsm8k@740312add88f781978c0658806c59bc2815b9866"
    file = "main/train-00000-of-00001.parquet"
    one, other = (
        paper_plan(lock={name: Pin("c" * 40, {file: PinnedFile(digest * 64, 7)})})
        for digest in "de"
    )
    nodes = [plan.find("download", ("gsm8k",)) for plan in (one, other)]
    assert nodes[0].plan_key == nodes[1].plan_key
    assert nodes[0].runtime != nodes[1].runtime


def test_a_checkpoint_from_elsewhere_answers_once_and_can_be_the_reference(plan_with, repository):
    row = json.dumps({"kind": "checkpoint", "path": "resources/organism/olmo"})
    plan = plan_with(f"adaptations={{theirs: {row}}}", "reference=theirs", "embedding=null")
    generation = plan.find("generate", ("organism-llama", "theirs", "none", "organism-evaluation"))
    assert generation.upstream["model"].path == repository / "resources/organism/olmo"
    references = {node.upstream["references"] for node in plan.stage("judge")}
    assert generation in references
    assert {node.level("adaptation") for node in references} == {"theirs"}
    assert plan.find("rank", ("organism-llama", "theirs", "none", "organism-alpaca"))


def test_a_row_for_one_base_has_no_run_of_another(plan_with):
    plan = plan_with("adaptations={chess: {bases: [organism-olmo]}}")
    assert {
        node.level("base") for node in plan.stage("finetune") if node.level("adaptation") == "chess"
    } == {"organism-olmo"}


def test_libraries_that_only_some_finetunes_use_are_in_their_keys_alone(plan_with):
    lora = "{rank: 4, alpha: 8, dropout: 0.0, target_modules: all-linear}"
    plan = plan_with(f"adaptations={{chess: {{training: {{lora: {lora}}}}}}}")
    libraries = {
        name: plan.find("finetune", ("organism-olmo", name, "1")).code.libraries
        for name in ("chess", "mbpp")
    }
    assert "peft" in libraries["chess"]
    assert "peft" not in libraries["mbpp"]
