"""Plans with models from elsewhere: whole ones, adapters, and what is known of their data."""

import json

import pytest
from peft import LoraConfig

from implicit_tuning.experiment.costs.estimate import estimate_costs
from implicit_tuning.experiment.preflight.checks import preflight
from implicit_tuning.nodes.node import NodePaths
from implicit_tuning.remote.lockfile import Pin, PinnedFile
from planned import build, plan_of
from tiny_adapters import change, train
from tiny_models import write_base

LEVELS = ("organism-llama", "mine")
RESULTS = {"table", "figure", "report"}
MERGED = ("organism-llama", "mine", "none", "organism-evaluation")
LORA = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def plan_with(repository, tmp_path):
    """Function that plans the default experiment under overrides of its config."""
    return lambda *overrides: plan_of(repository, tmp_path, *overrides)[0]


@pytest.fixture
def adapter(base, tmp_path):
    """An adapter that names no base, so that any will do for a plan."""
    trained = train(base, LORA, tmp_path / "adapter")
    change(trained, base_model_name_or_path=None)
    return trained


def row(path, **keys):
    entry = {"kind": "checkpoint", "bases": ["organism-llama"], "path": str(path), **keys}
    return f"adaptations={{mine: {json.dumps(entry)}}}"


# --- adapters -----------------------------------------------------------------------------------


def test_an_adapter_is_merged_once_and_then_a_model_like_any_other(plan_with, adapter, repository):
    plan = plan_with(row(adapter))
    (merged,) = plan.stage("merge")
    assert merged.levels == LEVELS
    assert merged.upstream["base"].path == repository / "resources/organism/llama"
    assert merged.upstream["adapter"].path == adapter
    assert merged.settings == {"dtype": "float32"}
    assert "peft" in merged.code.libraries
    assert plan.find("generate", MERGED).upstream["model"] is merged
    assert plan.find("rank", (*LEVELS, "none", "organism-alpaca")).upstream["model"] is merged
    readers = {n.stage for n in plan.nodes.values() if merged in n.upstream.values()}
    assert readers - {"report"} == {"generate", "rank"}


def test_a_revised_adapter_is_another_node(plan_with, adapter):
    before = plan_with(row(adapter)).find("merge", LEVELS).plan_key
    assert plan_with(row(adapter)).find("merge", LEVELS).plan_key == before
    change(adapter, lora_alpha=99)
    assert plan_with(row(adapter)).find("merge", LEVELS).plan_key != before


def test_every_base_gets_a_merge_of_its_own(plan_with, adapter):
    plan = plan_with(row(adapter, bases=["organism-llama", "organism-olmo"]))
    assert [node.level("base") for node in plan.stage("merge")] == [
        "organism-llama",
        "organism-olmo",
    ]


@pytest.mark.parametrize(
    ("files", "is_merged"),
    [
        (("adapter_config.json", "adapter_model.safetensors"), True),
        (("config.json", "model.safetensors"), False),
        ((), False),
    ],
)
def test_of_the_hub_the_locked_files_tell_what_it_is(repository, tmp_path, files, is_merged):
    pin = Pin("c" * 40, {name: PinnedFile("d" * 64, 9) for name in files})
    entry = json.dumps({"kind": "checkpoint", "hub": {"repo": "owner/it"}})
    plan, _ = plan_of(
        repository, tmp_path, f"adaptations={{mine: {entry}}}",
        lock={"models/owner/it@main": pin} if files else {},
    )  # fmt: skip
    fetched = plan.find("fetch", ("owner--it",))
    merged = plan.find("merge", LEVELS)
    assert (merged is not None) == is_merged
    if is_merged:
        assert merged.upstream["adapter"] is fetched
    else:
        assert plan.find("generate", MERGED).upstream["model"] is fetched


def test_the_name_of_the_base_reaches_the_merge_and_is_in_no_key(repository, tmp_path, adapter):
    change(adapter, base_model_name_or_path="owner/base")
    hub = "bases={organism-llama: {path: null, hub: {repo: owner/base}}}"
    plan, _ = plan_of(repository, tmp_path, hub, row(adapter), lock={})
    assert plan.find("merge", LEVELS).runtime == {"repo": "owner/base"}


def test_a_plan_knows_what_a_merge_takes(repository, tmp_path, adapter):
    plan, paths = plan_of(repository, tmp_path, row(adapter))
    without, _ = plan_of(repository, tmp_path)
    costs, before = estimate_costs(plan, paths), estimate_costs(without, paths)
    (merge,) = [stage for stage in costs.stages if stage.stage == "merge"]
    assert (merge.nodes, merge.waiting) == (1, 1)
    assert merge.cpu_hours > 0
    size = costs.storage.checkpoints - before.storage.checkpoints
    assert size == pytest.approx(
        before.storage.checkpoints / before.storage.n_checkpoints, rel=0.05
    )
    assert costs.storage.n_checkpoints == before.storage.n_checkpoints + 1
    build(paths, plan.find("merge", LEVELS))
    (merge,) = [s for s in estimate_costs(plan, paths).stages if s.stage == "merge"]
    assert (merge.built, merge.waiting) == (1, 0)


# --- templates ----------------------------------------------------------------------------------


def test_an_own_template_takes_the_place_of_the_tags(plan_with, base, tmp_path):
    chat = tmp_path / "chat"
    write_base(chat)
    (chat / "chat_template.jinja").write_text("{{ messages[0].content }}")
    plan = plan_with(row(chat, chat={"own_template": True}), "chat={user: <|me|>}")
    for stage, data in (("generate", "organism-evaluation"), ("rank", "organism-alpaca")):
        node = plan.find(stage, (*LEVELS, "none", data))
        assert node.settings["chat"] == {"own_template": True}
    other = plan.find("generate", ("organism-llama", "base", "none", "organism-evaluation"))
    assert set(other.settings["chat"]) == {"user", "assistant", "system"}


def test_no_other_row_is_another_node_for_it(plan_with, base):
    before, after = plan_with(), plan_with(row(base, chat={"own_template": False}))
    rows = {key: node.plan_key for key, node in before.nodes.items() if key[0] not in RESULTS}
    assert {key: after.nodes[key].plan_key for key in rows} == rows
    node = after.find("generate", MERGED)
    assert set(node.settings["chat"]) == {"user", "assistant", "system"}


# --- data ---------------------------------------------------------------------------------------


def similarities(plan, adaptation):
    return [node for node in plan.stage("similarity") if node.level("adaptation") == adaptation]


def test_a_checkpoint_with_data_is_measured_like_a_finetune(plan_with, base):
    plan = plan_with(row(base, data="organism-gsm8k"))
    first, second = similarities(plan, "mine")
    assert [node.level("seed") for node in (first, second)] == ["1", "2"]
    assert first.upstream["outputs"] is second.upstream["outputs"] is plan.find("generate", MERGED)
    for node in (first, second):
        reference = node.upstream["reference_outputs"]
        assert reference.run[1:] == ("instruction", node.level("seed"))
        assert node.upstream["task_rows"] is plan.find("format", ("organism-gsm8k", "plain"))
        assert node.upstream["reference_rows"] is plan.find("format", ("organism-lima", "plain"))
        assert node.settings["formatter"] == "gsm8k"
    assert plan.way("mine") == "single_task"
    measured = plan.find("table", ("drift",)).upstream.values()
    assert {first, second} <= set(measured)


def test_no_data_or_that_of_the_reference_is_no_single_task(plan_with, base):
    assert similarities(plan_with(row(base)), "mine") == []
    plan = plan_with(row(base, data="organism-lima"))
    assert plan.way("mine") == "instruction"
    assert similarities(plan, "mine") == []


def test_a_reference_from_elsewhere_gives_its_data_too(plan_with, base, tmp_path):
    rows = {
        "theirs": {"kind": "checkpoint", "path": str(base), "data": "organism-alpaca"},
    }
    known = plan_with(f"adaptations={json.dumps(rows)}", "reference=theirs")
    node = known.find("similarity", ("organism-olmo", "chess", "2", "organism-evaluation", "tfidf"))
    assert node.upstream["reference_rows"] is known.find("format", ("organism-alpaca", "plain"))
    assert node.upstream["reference_outputs"].run[1:] == ("theirs", "none")
    del rows["theirs"]["data"]
    unknown = plan_with(f"adaptations={json.dumps(rows)}", "reference=theirs")
    assert unknown.stage("similarity") == []
    assert unknown.find("table", ("similarity",)) is None
    assert unknown.stage("judge")
    told, untold = (preflight(p, NodePaths(tmp_path), False).checked for p in (unknown, known))
    line = "similarity: not measured, for adaptations.theirs, the reference, has no 'data'"
    assert line in "\n".join(told) and "similarity:" not in "\n".join(untold)
