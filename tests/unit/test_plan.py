"""The plan of the default experiment: its nodes, and what is in whose key."""

import json
import shutil

import pytest

from implicit_tuning.config import read_config
from implicit_tuning.digests import DigestMemory
from implicit_tuning.plan import build_plan


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
    # 2 bases x 2 seeds x 7 finetunes; base and 4 rules answer once a base, shuffled once a seed.
    assert counts == {
        "download": 7, "format": 8, "finetune": 28, "generate": 28 + 10 + 4, "judge": 52,
        "table": 3, "figure": 2,
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
    assert (plain.settings["blank_instruction"], blank.settings["blank_instruction"]) == (0, 1)


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
        node.levels[1]
        for key, node in after.nodes.items()
        if node.stage == "generate" and before.nodes[key].plan_key != node.plan_key
    }
    all_rules = {"rules", "rules-no-eos", "rules-no-repetition", "rules-no-bias"}
    assert generations == all_rules - {not_touched}


@pytest.mark.parametrize(
    "override",
    ["runtime={save_every: 3, threads: 2}", "experiment=other", "seeds=[2, 1]"],
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
    assert {node.levels[2] for node in runs} == {"3"}
    assert {n.levels[4] for n in changed if n.stage == "judge"} == {"3"}
    assert {n.stage for n in changed} == {"finetune", "generate", "judge", "table", "figure"}


def test_overrides_of_an_adaptation_reach_its_finetune_alone(plan_with):
    before = plan_with()
    after = plan_with("adaptations={chess: {training: {epochs: 5}}}")
    node = after.find("finetune", ("organism-olmo", "chess", "2"))
    assert node.settings["training"]["epochs"] == 5
    changed = {
        node.levels[1]
        for key, node in after.nodes.items()
        if node.stage == "finetune" and before.nodes[key].plan_key != node.plan_key
    }
    assert changed == {"chess"}


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
    assert changed_stages(without, calibrated) == {"table", "figure"}
    assert calibrated.nodes["table", ("loss",)].plan_key == (
        without.nodes["table", ("loss",)].plan_key
    )
    file.write_text('{"other": 1}')
    again = judged_by(plan_with, calibration=str(file))
    assert changed_stages(calibrated, again) == {"table", "figure"}


@pytest.mark.parametrize("entry", [{"both_orders": True}, {"length_controlled": True}])
def test_ways_to_use_verdicts_rejudge_from_the_same_cache(plan_with, entry):
    before, after = judged_by(plan_with), judged_by(plan_with, **entry)
    assert changed_stages(before, after) == {"judge", "table", "figure"}
    for one, other in zip(before.stage("judge"), after.stage("judge"), strict=True):
        assert one.cache_key == other.cache_key != other.plan_key


def test_every_comparison_has_a_cache_of_its_own_that_outlives_changed_runs(plan_with):
    before, after = plan_with(), plan_with("training={epochs: 3}")
    keys = [node.cache_key for node in before.stage("judge")]
    assert len(set(keys)) == len(keys) == 52
    assert [node.cache_key for node in after.stage("judge")] == keys
    other_kind = judged_by(plan_with)
    assert not {node.cache_key for node in other_kind.stage("judge")} & set(keys)


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
    assert changed_stages(before, after) == {"judge", "table", "figure"}

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
