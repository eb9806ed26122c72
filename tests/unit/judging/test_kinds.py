"""The registry of judges: what config refuses, what stands in whose key, and that rows are true."""

import json

import pytest
import yaml

from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import read_config
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.judging.kinds import (
    COMPARISON,
    FILES,
    JUDGE_KINDS,
    OWN_MODEL,
    comparison_settings,
    identity_settings,
    read_kinds,
    runtime_settings,
    with_kinds,
)
from implicit_tuning.nodes.code import PACKAGE, module_path
from implicit_tuning.nodes.digests import DigestMemory

SERVED = {"kind": "openai", "model": "judge-1", "base_url": "http://localhost:8000/v1"}


@pytest.fixture
def judge_keys(repository, tmp_path):
    """Function that returns the keys of all comparisons under one more judge."""

    def keys(**entry):
        config = read_with(repository, {**SERVED, **entry})
        plan = build_plan(config, DigestMemory(tmp_path / "digests.json"))
        return [node.plan_key for node in plan.stage("judge")]

    return keys


def read_with(repository, entry):
    overrides = ["judge=mine", f"judges={json.dumps({'mine': entry})}"]
    return read_config([repository / "tests/fixtures/smallest.yaml"], repository, overrides)


def entry_keys(schema):
    return schema["properties"]["judges"]["additionalProperties"]["properties"]


def test_a_kind_is_a_module_that_declares_it_and_makes_its_judge():
    assert set(JUDGE_KINDS) >= {"oracle", "mean_logprob", "hf_logits", "openai"}
    for name in JUDGE_KINDS:
        assert "\ndef make(" in module_path(f"{PACKAGE}.judging.judges.{name}").read_text()


def test_the_schema_has_what_kinds_share_and_the_kinds_add_their_own(repository):
    schema = yaml.safe_load((repository / "config/schema.yaml").read_text())
    assert set(entry_keys(schema)) == {"kind", *COMPARISON, *FILES, *OWN_MODEL}
    entry = entry_keys(with_kinds(schema))
    assert entry["kind"]["enum"] == sorted(JUDGE_KINDS)
    assert set(entry) == set().union(*(kind.keys for kind in JUDGE_KINDS.values()))
    # A key of two kinds has one meaning, and so one type.
    for kind in JUDGE_KINDS.values():
        for key, found in kind.schema.items():
            assert {**found, "default": None} == {**entry[key], "default": None}


def test_a_new_file_is_a_new_kind(tmp_path):
    declared = {
        "decides": {"much": {"type": "integer"}, "more": {"type": "integer", "default": 2}},
        "runtime": {"speed": {"type": "number", "default": 1.0}},
        "libraries": ("torch",),
    }
    (tmp_path / "new.py").write_text(f'"""A judge."""\nimport no_such\n\nKIND = {declared}\n')
    (tmp_path / "no_judge.py").write_text('"""Says KIND = 1 in passing."""\n')
    kinds = read_kinds(tmp_path)
    assert list(kinds) == ["new"]
    assert kinds["new"].required == ("much",)
    assert (kinds["new"].decides, kinds["new"].runtime) == ({"more": 2}, {"speed": 1.0})
    assert {"much", "more", "speed", "max_failed"} < kinds["new"].keys
    assert not set(OWN_MODEL) & kinds["new"].keys


@pytest.mark.parametrize(
    "declared",
    [
        "= dict(truth=True)", "= {'truth': True", "= {'thruth': True}", "= ['truth']",
        "= {'decides': ['a']}", ": dict = {'truth': True}",
    ],
)  # fmt: skip
def test_a_kind_that_cannot_be_read_is_named_by_its_file(tmp_path, declared):
    (tmp_path / "new.py").write_text(f"\nKIND {declared}\n")
    with pytest.raises(ValueError, match=r"new\.py: KIND must be a literal"):
        read_kinds(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://localhost:9000/v1"}, {"base_url": None}, {"api_key_env": "OTHER"},
        {"concurrency": 3}, {"requests_per_minute": 60}, {"timeout_s": 5}, {"max_retries": 0},
        {"temperature": 0}, {"top_logprobs": 5}, {"logprobs": "auto"},
        {"max_usd": 1, "usd_per_million_input_tokens": 1, "usd_per_million_output_tokens": 1},
    ],
)  # fmt: skip
def test_speed_money_address_and_spelled_out_defaults_rerun_nothing(judge_keys, change):
    assert judge_keys(**change) == judge_keys()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "judge-2"}, {"temperature": 0.5}, {"max_tokens": 2}, {"logprobs": False},
        {"top_logprobs": 6}, {"max_output_characters": 10}, {"max_failed": 3},
    ],
)  # fmt: skip
def test_what_decides_verdicts_or_their_count_reruns_every_comparison(judge_keys, change):
    assert not set(judge_keys(**change)) & set(judge_keys())


def test_settings_have_their_defaults_and_no_runtime_key():
    settings, runtime = identity_settings(SERVED), runtime_settings(SERVED)
    assert settings["temperature"] == 0.0
    assert runtime["base_url"] == SERVED["base_url"]
    assert comparison_settings(SERVED)["max_failed"] == 0
    assert not set(settings) & set(runtime)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"kind": "openai"}, "judges.mine.model: missing: a judge of kind 'openai' needs it"),
        ({**SERVED, "max_usd": 5}, "judges.mine.usd_per_million_input_tokens: missing: 'max_usd'"),
        ({**SERVED, "usd_per_million_input_tokens": 5}, "output_tokens: missing"),
        ({**SERVED, "base": "organism-llama"}, "a judge of kind 'openai' has no such key"),
        ({"kind": "oracle", "model": "x"}, "judges.mine.model: 'x': a judge of kind 'oracle'"),
        ({**SERVED, "base_url": "localhost:8000"}, "judges.mine.base_url: must match"),
        ({**SERVED, "concurrency": 0}, "give at least 1"),
        ({**SERVED, "timeout_s": 0}, "give more than 0"),
        ({**SERVED, "top_logprobs": 21}, "give at most 20"),
        ({**SERVED, "modle": "x"}, "unknown key; did you mean 'model'?"),
        ({"kind": "opnai"}, "did you mean 'openai'?"),
    ],
)
def test_mistakes_in_an_entry_are_named(repository, entry, problem):
    with pytest.raises(ConfigError) as caught:
        read_with(repository, entry)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"api_key": "sk-canary"}, {"openai_api_key": "sk-canary"}, {"api_key_env": "sk-canary"},
        {"password": "sk-canary"}, {"base_url": "http://me:sk-canary@localhost/v1"},
    ],
)  # fmt: skip
def test_a_secret_in_a_config_is_refused_and_not_printed(repository, entry):
    with pytest.raises(ConfigError) as caught:
        read_with(repository, {**SERVED, **entry})
    assert "sk-canary" not in str(caught.value)
    assert "'api_key_env'" in str(caught.value)
