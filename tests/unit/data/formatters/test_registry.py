"""The registry of data sets, and the organism's sources read through its formatters."""

import importlib
from pathlib import Path

import pytest
import yaml

from implicit_tuning.data.formatting import format_evaluation, format_training
from implicit_tuning.organism.rows import SOURCES, write_source

ROOT = Path(__file__).resolve().parents[4]
REGISTRY = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text(encoding="utf-8"))[
    "datasets"
]
BUILDERS = {"training": "to_messages", "evaluation": "to_item"}
# Rows that the paper uses (its data table).
PAPER_ROWS = {
    "lima": 1030,
    "mbpp": 374,
    "gsm8k": 1000,
    "poetry": 571,
    "recipes": 1000,
    "chess": 1000,
    "stanford_alpaca": 1000,
    "alpaca_eval": 805,
    "paper-validation": 56,
}
# Of the hub, but not the paper's.
OTHERS = {"dolly"}


@pytest.mark.parametrize("name", REGISTRY)
def test_entry(name):
    entry = REGISTRY[name]
    module = importlib.import_module(f"implicit_tuning.data.formatters.{entry['formatter']}")
    assert hasattr(module, BUILDERS[entry["kind"]])
    assert len({"hub", "url", "path", "organism"} & set(entry)) == 1
    assert entry["licence"]
    assert isinstance(entry["gated"], bool)


def test_the_paper_s_entries_take_its_rows():
    remote = {name: entry for name, entry in REGISTRY.items() if {"hub", "url"} & set(entry)}
    assert {
        name: entry["rows"] for name, entry in remote.items() if name not in OTHERS
    } == PAPER_ROWS
    assert all(entry["tokens_per_row"] > 0 for entry in remote.values())


def test_every_source_of_the_organism_has_an_entry():
    assert {entry["organism"] for entry in REGISTRY.values() if "organism" in entry} == set(SOURCES)


@pytest.mark.parametrize("name", [name for name, e in REGISTRY.items() if "organism" in e])
def test_organism_source_is_read_whole(name, tmp_path):
    entry = REGISTRY[name]
    source = write_source(entry["organism"], tmp_path / "source")
    if entry["kind"] == "evaluation":
        report = format_evaluation(source, entry["formatter"], None, tmp_path / "data")
    else:
        report = format_training(source, entry["formatter"], None, "given", tmp_path / "data")
    assert report.unusable == {}
    assert report.used == report.read > 30
