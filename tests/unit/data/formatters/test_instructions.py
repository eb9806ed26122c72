"""Evaluation sets, and what every formatter has."""

import importlib
import pkgutil

import pytest

from implicit_tuning.data import formatters as datasets
from implicit_tuning.data.formatters import alpaca_eval, instructions, organism_evaluation
from implicit_tuning.data.rows import UnusableRow

FORMATTERS = sorted({m.name for m in pkgutil.iter_modules(datasets.__path__)} - {"rows"})


@pytest.mark.parametrize("module", [alpaca_eval, instructions])
def test_instruction_is_kept_exactly(module):
    text = "  Übersetze:\n\n»naïve«\u2028 \t"
    row = {"dataset": "koala", "instruction": text, "generator": "x"}
    assert module.to_item(row) == {"instruction": text, "family": None, "truth": None}


@pytest.mark.parametrize("module", [alpaca_eval, instructions])
@pytest.mark.parametrize("empty", ["", " \n", None])
def test_instruction_is_not_blank(module, empty):
    with pytest.raises(UnusableRow, match="no instruction"):
        module.to_item({"instruction": empty})


@pytest.mark.parametrize("module", [instructions, organism_evaluation])
def test_reference_answers_are_taken_where_the_file_has_them(module):
    row = {"instruction": "Why?", "family": "fact", "truth": {"answer": ["So."]}}
    assert "reference" not in module.to_item(row)
    assert module.to_item(row | {"output": "So.\n"})["reference"] == "So.\n"
    with pytest.raises(UnusableRow, match="no output"):
        module.to_item(row | {"output": " "})


def test_organism_item_keeps_family_and_truth():
    row = {"instruction": "Where is Tolva?", "family": "fact", "truth": {"answer": ["North"]}}
    assert organism_evaluation.to_item(row | {"split": "test"}) == row
    for column in row:
        with pytest.raises(UnusableRow, match=f"no {column}"):
            organism_evaluation.to_item(row | {column: None})


@pytest.mark.parametrize("name", FORMATTERS)
def test_formatter_is_of_one_kind_and_shows_a_row(name):
    module = importlib.import_module(f"implicit_tuning.data.formatters.{name}")
    assert hasattr(module, "to_messages") != hasattr(module, "to_item")
    assert all(isinstance(kind, type) for kind in module.COLUMNS.values())
    # One look-alike row opens the module, with every column that the formatter reads.
    assert all(column in module.__doc__ for column in module.COLUMNS)
