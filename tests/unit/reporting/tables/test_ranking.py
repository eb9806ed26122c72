"""The ranking table: percentages, intervals, differences to the base, and what it refuses."""

import json
import random

import numpy as np
import pytest

from implicit_tuning.analysis.statistics import holm, sign_flip_test
from implicit_tuning.reporting.tables.layout import write_table
from implicit_tuning.reporting.tables.ranking import build

ADAPTATIONS = ["base", "instruction", "response", "chess"]
LABEL = "model organism, by construction"
PAIRS, DRAWS = 40, 5


def write_scores(folder, wins, shift=0):
    """A ranking with the given wins a pair; `shift` changes the random responses."""
    folder.mkdir(parents=True)
    lines = [
        {
            "n_won": won,
            "random": [-2.0] * won + [-0.5] * (DRAWS - won),
            "random_rows": [100 + row + draw + shift for draw in range(DRAWS)],
            "real": -1.0,
            "source_row": row,
        }
        for row, won in enumerate(wins)
    ]
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def wins(seed, least=2):
    draw = random.Random(seed)
    return [draw.randint(least, DRAWS) for _ in range(PAIRS)]


@pytest.fixture
def inputs(tmp_path):
    names = [
        "b/chess/1/d", "b/base/none/d", "b/response/2/d", "b/response/1/d",
        "a/instruction/1/d", "a/base/none/d",
    ]  # fmt: skip
    return {name: write_scores(tmp_path / name, wins(number)) for number, name in enumerate(names)}


def rows(inputs, adaptations=ADAPTATIONS):
    return build(inputs, LABEL, adaptations).frame.set_index(["base", "adaptation"])


def test_rows_stand_by_base_as_met_and_adaptation_as_given(inputs):
    frame = build(inputs, LABEL, ADAPTATIONS).frame
    expected = [("b", "base"), ("b", "response"), ("b", "chess"), ("a", "base")]
    expected.append(("a", "instruction"))
    assert list(zip(frame["base"], frame["adaptation"], strict=True)) == expected
    assert list(frame.columns) == [
        "base",
        "adaptation",
        "ranked_right",
        "ranked_right_std",
        "ranked_right_low",
        "ranked_right_high",
        "n",
        "n_seeds",
        "compared_with",
        "difference",
        "difference_std",
        "difference_low",
        "difference_high",
        "difference_p",
        "difference_p_holm",
        "n_comparisons",
        "paper_llama_2_7b",
        "paper_olmo_7b",
    ]


def test_a_mean_stands_for_its_seeds(inputs):
    row = rows(inputs).loc[("b", "response")]
    shares = [100 * sum(wins(number)) / (PAIRS * DRAWS) for number in (2, 3)]
    assert row["ranked_right"] == pytest.approx(sum(shares) / 2)
    assert row["ranked_right_std"] == pytest.approx(abs(shares[0] - shares[1]) / 2**0.5)
    assert row["ranked_right_low"] < row["ranked_right"] < row["ranked_right_high"]
    assert (row["n"], row["n_seeds"]) == (2 * PAIRS * DRAWS, 2)


def test_the_difference_is_that_to_the_base_without_a_seed(inputs):
    table = rows(inputs)
    row, base = table.loc[("b", "response")], table.loc[("b", "base")]
    assert row["difference"] == pytest.approx(row["ranked_right"] - base["ranked_right"])
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert base[["compared_with", "difference", "difference_p", "n_comparisons"]].isna().all()
    assert row["compared_with"] == "base"


def test_differences_are_tested_as_many_times_as_is_stated(inputs):
    table = build(inputs, LABEL, ADAPTATIONS)
    rows = table.frame.set_index(["base", "adaptation"])
    scores = 100 * np.array([wins(2), wins(3), wins(1)]) / DRAWS
    p_values = [
        sign_flip_test(scores[:2] - scores[2]),
        rows.loc[("b", "chess"), "difference_p"],
        rows.loc[("a", "instruction"), "difference_p"],
    ]
    tested = rows.dropna(subset="difference_p")
    assert list(tested["difference_p"]) == p_values
    assert list(tested["difference_p_holm"]) == holm(p_values)
    assert set(tested["n_comparisons"]) == {3}
    assert "the 3 comparisons of this table (Holm)" in table.caption


def test_the_difference_is_paired_pair_by_pair(tmp_path):
    """One more win in every pair is all but certain, although the pairs differ much."""
    base = wins(7, least=0)
    more = [min(won + 1, DRAWS) for won in base]
    base = [won - 1 for won in more]
    inputs = {
        "b/base/none/d": write_scores(tmp_path / "base", base),
        "b/response/1/d": write_scores(tmp_path / "response", more),
    }
    row = rows(inputs).loc[("b", "response")]
    assert row["difference"] == 20.0 and row["difference_p"] < 0.001
    # No pair of 40 differs otherwise; one that did could lie as far on the other side, or at 100.
    unseen = 1 - 0.025 ** (1 / 40)
    assert row["difference_low"] == pytest.approx(20 - 40 * unseen)
    assert row["difference_high"] == pytest.approx(20 + 80 * unseen)


def test_nothing_but_wins_is_no_certainty(tmp_path):
    inputs = {"b/base/none/d": write_scores(tmp_path / "base", [DRAWS] * PAIRS)}
    row = rows(inputs).loc[("b", "base")]
    assert (row["ranked_right"], row["ranked_right_high"]) == (100.0, 100.0)
    assert row["ranked_right_low"] == pytest.approx(91.2, abs=0.1)  # 40 of 40, exact


def test_the_paper_stands_beside_its_adaptations(inputs):
    table = rows(inputs)
    paper = table[["paper_llama_2_7b", "paper_olmo_7b"]]
    assert paper.loc[("b", "base")].tolist() == ["80.4", "74.5"]
    assert paper.loc[("a", "instruction")].tolist() == ["77.4", "74.3"]
    assert paper.loc[("b", "response")].isna().all()


def test_files_have_intervals_and_say_what_they_show(inputs, tmp_path):
    write_table(build(inputs, LABEL, ADAPTATIONS), tmp_path / "out", "ranking")
    text = (tmp_path / "out/ranking.md").read_text()
    for words in (LABEL, "on d:", "50 is chance", "40 pairs × 5 random", "no interval"):
        assert words in text
    first = (tmp_path / "out/ranking.csv").read_bytes()
    write_table(build(inputs, LABEL, ADAPTATIONS), tmp_path / "again", "ranking")
    assert (tmp_path / "again/ranking.csv").read_bytes() == first
    assert first.count(b"\n") == 1 + 5


def test_a_base_that_did_not_rank_leaves_the_differences_empty(inputs, tmp_path):
    without = {name: folder for name, folder in inputs.items() if "/base/" not in name}
    table = build(without, LABEL, ADAPTATIONS)
    write_table(table, tmp_path / "out", "ranking")
    frame = table.frame
    rows = frame[frame["base"] == "b"]
    assert len(rows)
    assert rows["difference"].isna().all()
    alone = {name: folder for name, folder in without.items() if name.startswith("b/")}
    table = build(alone, LABEL, ADAPTATIONS)
    assert table.frame["n_comparisons"].isna().all() and "Holm" not in table.caption
    assert rows["ranked_right"].notna().all()


def test_what_does_not_go_together_is_refused(inputs, tmp_path):
    with pytest.raises(ValueError, match="'chess', which is not among"):
        build(inputs, LABEL, ["base", "instruction", "response"])
    with pytest.raises(ValueError, match="no rankings"):
        build({}, LABEL, ADAPTATIONS)
    other = {"b/chess/2/d": write_scores(tmp_path / "other", wins(1), shift=1)}
    with pytest.raises(ValueError, match="'b/chess/2/d' ranked other pairs"):
        build(inputs | other, LABEL, ADAPTATIONS)
