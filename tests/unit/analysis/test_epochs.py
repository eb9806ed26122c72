"""The choice of epochs: the highest win rate, its margin, and what the script records."""

import json
from pathlib import Path

import pytest

from comparison_folders import annotations, comparison
from implicit_tuning.analysis.epochs import choose_epochs, margin_of
from implicit_tuning.analysis.statistics import difference
from implicit_tuning.nodes.artifact import read_manifest
from implicit_tuning.nodes.job import building
from implicit_tuning.reporting.tables import epochs as table
from select_epochs import select_node

WINS, LOSSES = annotations(1.0, 1), annotations(0.0, 1)
MIXED = annotations(0.5, 1)


def test_the_highest_win_rate_is_chosen_with_its_margin_over_the_next():
    choice = choose_epochs({20: LOSSES, 5: MIXED, 7: WINS})
    assert (choice.epochs, choice.runner_up) == (7, 5)
    assert choice.win_rates == {5: pytest.approx(50, abs=15), 7: 100.0, 20: 0.0}
    assert choice.margin == difference([WINS], [MIXED])
    assert choice.margin.low < choice.margin.mean < choice.margin.high


def test_of_equals_the_fewest_epochs_are_chosen():
    choice = choose_epochs({15: MIXED, 7: MIXED, 10: MIXED})
    assert (choice.epochs, choice.runner_up, choice.margin.mean) == (7, 10, 0.0)


def test_one_candidate_has_no_margin_and_none_is_refused():
    choice = choose_epochs({5: MIXED})
    assert (choice.epochs, choice.runner_up, choice.margin) == (5, None, None)
    with pytest.raises(ValueError, match="no number of epochs to choose from"):
        choose_epochs({})


def test_a_margin_can_be_asked_of_any_candidate():
    runner_up, margin = margin_of(5, {5: LOSSES, 7: WINS, 10: MIXED})
    assert (runner_up, margin.mean) == (7, -100.0)


def test_the_script_writes_the_choice_alone_and_records_the_rest(make_spec):
    upstream = {}
    for epochs, rows in ((5, LOSSES), (10, WINS)):
        with building(make_spec(key=f"k{epochs}")) as above:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (above.data / "annotations.jsonl").write_text(text)
        node = json.loads(make_spec(key=f"k{epochs}"))["folder"]
        upstream[str(epochs)] = {"node": node, "key": f"k{epochs}"}
    with building(make_spec(upstream=upstream)) as job:
        job.facts.update(select_node(job).facts())
    folder = Path(json.loads(make_spec())["folder"])
    manifest = read_manifest(folder)
    assert list(manifest["files"]) == ["epochs.json"]
    assert (folder / "data/epochs.json").read_text() == '{"epochs": 10}\n'
    assert manifest["facts"]["margin"]["mean"] == 100.0
    assert manifest["facts"]["win_rates"] == {"5": 0.0, "10": 100.0}


# --- the table of the sweep ---------------------------------------------------------------------


def sweep_inputs(folder, chosen=7):
    inputs = {}
    for epochs, rate in ((5, 0.3), (7, 0.6), (10, 0.55)):
        name = f"judge/a/response.{epochs}-epochs/42/validation/none/oracle"
        rows = annotations(rate, 42)
        inputs |= {name: comparison(folder, f"response.{epochs}", 42, rows=rows).popitem()[1]}
    choice = folder / "choice"
    choice.mkdir()
    (choice / "epochs.json").write_text(json.dumps({"epochs": chosen}))
    return inputs | {"select/a/response": choice}


SWEEP = {f"response.{epochs}-epochs": ["response", epochs] for epochs in (5, 7, 10)}


def test_the_table_has_a_row_a_candidate_and_the_margin_of_the_chosen(tmp_path):
    frame = table.build(sweep_inputs(tmp_path), "mine", ["response"], SWEEP).frame
    assert list(frame.columns) == table.TABLE_COLUMNS
    assert list(frame["epochs"]) == [5, 7, 10]
    assert list(frame["chosen"]) == ["no", "yes", "no"]
    chosen = frame.iloc[1]
    best, next_best = annotations(0.6, 42), annotations(0.55, 42)
    margin = difference([best], [next_best])
    assert (chosen["margin"], chosen["margin_low"]) == (margin.mean, margin.low)
    assert chosen["note"].startswith("margin over 10 epochs")
    assert chosen["compared_with_epochs"] == 10
    assert frame["compared_with_epochs"].isna().tolist() == [True, False, True]
    assert frame["margin"].isna().tolist() == [True, False, True]
    assert set(frame["seed"]) == {"42"}


def test_a_choice_that_was_not_tried_and_a_run_outside_the_sweep_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"chose 20 epochs .* tried were \[5, 7, 10\]"):
        table.build(sweep_inputs(tmp_path, chosen=20), "", ["response"], SWEEP)
    with pytest.raises(ValueError, match="'response.5-epochs' is no run of the sweep"):
        table.build(sweep_inputs(tmp_path / "other"), "", ["response"], {})
