"""The table of guards: what they cost on the task and off it, against made-up verdicts and answers."""

import json

import numpy as np
import pytest

from comparison_folders import annotations, comparison
from implicit_tuning.reporting.tables import guards
from implicit_tuning.reporting.tables.layout import write_table

COUNT = 60
NEAR = range(40, 60)
SETTINGS = {
    "label": "model organism, by construction",
    "adaptations": ["instruction", "gsm8k", "g-refusal", "g-grammar"],
    "guards": {
        "g-refusal": {"of": "gsm8k", "kind": "refusal", "formatter": "gsm8k", "evaluation": "own"},
        "g-grammar": {"of": "gsm8k", "kind": "grammar", "formatter": "gsm8k", "evaluation": None},
    },
    "evaluation": "set",
    "embedding": "tfidf",
    "reference": "instruction",
}
SUMMARY = {"embedding": "TF-IDF", "mark": "ends in `#### n`"}
MARKED = "3 eggs.\n#### 3"


def answers(refused=(), cut=(), marked=()):
    return [
        {
            "index": index,
            "output": MARKED if index in marked else "No." if index in refused else "An answer.",
            "finish": "refused" if index in refused else "length" if index in cut else "eos",
        }
        for index in range(COUNT)
    ]


def verdicts(wins):
    rows = annotations(1.0, 0, COUNT)
    return [{**row, "preference": 2.0 if row["index"] in wins else 1.0} for row in rows]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def inputs(tmp_path):
    """Two seeds of a base. The run wins the even instructions. The refusal guard refuses and loses
    what is far, but for one; the grammar cuts the first 6, and all else has the mark and wins."""
    far = [index for index in range(COUNT) if index not in NEAR and index != 2]
    even = range(0, COUNT, 2)
    runs = {
        ("gsm8k", "set"): (even, answers(marked=NEAR)),
        ("g-refusal", "set"): ([x for x in even if x not in far], answers(far, marked=NEAR)),
        ("g-grammar", "set"): (range(6, COUNT), answers(cut=range(6), marked=range(6, COUNT))),
        ("gsm8k", "own"): (even, answers()),
        ("g-refusal", "own"): (range(0, COUNT, 4), answers(range(2, COUNT, 4))),
    }
    found = {}
    for (adaptation, asked), (wins, outputs) in runs.items():
        for seed in (1, 2):
            folder = tmp_path / asked / str(seed)
            ((name, judged),) = comparison(folder, adaptation, seed, rows=verdicts(wins)).items()
            name = name.replace("/set/", f"/{asked}/")
            found[f"judge/{name}"] = judged
            own = folder / "answers" / adaptation
            lines(own / "outputs.jsonl", outputs)
            found[f"generate/a/{adaptation}/{seed}/{asked}"] = own
    for seed in (1, 2):
        folder = tmp_path / "similarity" / str(seed)
        # In another order than that of the verdicts.
        rows = [{"index": index, "near": index in NEAR} for index in reversed(range(COUNT))]
        lines(folder / "similarity.jsonl", rows)
        (folder / "summary.json").write_text(json.dumps(SUMMARY))
        found[f"similarity/a/gsm8k/{seed}/set/tfidf"] = folder
    return found


def row_of(table, adaptation, region):
    frame = table.frame
    (row,) = frame[(frame.adaptation == adaptation) & (frame.region == region)].to_dict("records")
    return row


def test_rows_are_guards_and_their_regions_in_order(inputs):
    frame = guards.build(inputs, **SETTINGS).frame
    assert list(zip(frame.adaptation, frame.region, strict=True)) == [
        ("g-refusal", "task"), ("g-refusal", "near"), ("g-refusal", "far"),
        ("g-grammar", "near"), ("g-grammar", "far"),
    ]  # fmt: skip
    assert set(frame.of) == {"gsm8k"}
    assert set(frame.against) == {"instruction"}
    assert set(frame.n_seeds) == {2}
    assert list(frame.n) == [2 * COUNT, 2 * len(NEAR), 2 * 40, 2 * len(NEAR), 2 * 40]


def test_costs_and_shares_are_those_of_the_region(inputs):
    table = guards.build(inputs, **SETTINGS)
    near, far, task = (row_of(table, "g-refusal", x) for x in ("near", "far", "task"))
    assert (near["win_rate"], near["unguarded_win_rate"], near["difference"]) == (50, 50, 0)
    assert (near["refused"], near["marked"], near["unguarded_marked"]) == (0, 100, 100)
    assert far["difference"] == pytest.approx(100 * (1 - 20) / 40)
    assert (far["refused"], far["marked"]) == (pytest.approx(97.5), 0)
    assert (task["win_rate"], task["difference"], task["refused"]) == (25, -25, 25)
    grammar = row_of(table, "g-grammar", "far")
    assert (grammar["cut"], grammar["refused"]) == (15, 0)
    assert (grammar["marked"], grammar["unguarded_marked"]) == (85, 0)
    assert grammar["difference"] == pytest.approx(100 * (34 - 20) / 40)


def test_every_number_has_its_interval_and_differences_are_tested(inputs, tmp_path):
    table = guards.build(inputs, **SETTINGS)
    write_table(table, tmp_path / "out", "guards")  # refuses numbers without an interval
    assert set(table.frame.n_comparisons) == {5}
    far, near = (row_of(table, "g-refusal", region) for region in ("far", "near"))
    assert far["difference_low"] < far["difference"] < far["difference_high"] < 0
    assert far["difference_p"] < 0.01 < near["difference_p"]
    # No difference in 20 instructions is no certainty.
    assert near["difference_low"] < -5
    assert near["difference_high"] > 5


def test_a_region_without_instructions_is_empty(inputs):
    for name, folder in inputs.items():
        if name.startswith("similarity/"):
            rows = [{"index": index, "near": False} for index in range(COUNT)]
            lines(folder / "similarity.jsonl", rows)
    row = row_of(guards.build(inputs, **SETTINGS), "g-refusal", "near")
    assert row["n"] == 0
    assert np.isnan(row["difference"])
    assert np.isnan(row["win_rate"])


def test_a_task_without_a_mark_has_no_share_of_marks(inputs):
    bare = {name: {**guard, "formatter": "lima"} for name, guard in SETTINGS["guards"].items()}
    row = row_of(guards.build(inputs, **{**SETTINGS, "guards": bare}), "g-refusal", "far")
    assert np.isnan(row["marked"])
    assert row["refused"] == pytest.approx(97.5)


@pytest.mark.parametrize(
    ("left_out", "words"),
    [("similarity/a/gsm8k", "measured runs"), ("judge/a/gsm8k", "no 'gsm8k' to compare it with")],
)
def test_what_is_missing_is_named(inputs, left_out, words):
    kept = {name: folder for name, folder in inputs.items() if not name.startswith(left_out)}
    with pytest.raises(ValueError, match=words):
        guards.build(kept, **SETTINGS)
