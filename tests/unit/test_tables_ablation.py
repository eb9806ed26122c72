"""Ablations: differences to a baseline, their tests, and what cannot be compared."""

import pytest
from comparison_folders import annotations, comparison, grid

from implicit_tuning.statistics import holm, paired_test
from implicit_tuning.tables import ablation

ADAPTATIONS = ["rules", "rules-no-eos", "base"]
RATES = {"rules": 0.4, "rules-no-eos": 0.1, "base": 0.05}
SETTINGS = {"rules": ["eos", "bias"], "rules-no-eos": ["bias"], "base": "none"}


def build(inputs, **settings):
    values = {
        "label": "mine",
        "title": "The three rules",
        "adaptations": ADAPTATIONS,
        "baseline": "rules",
        "settings": SETTINGS,
        "setting": "the rules that are used",
        "reference": "instruction",
    }
    return ablation.build(inputs, **(values | settings))


def test_a_row_a_variant_with_its_difference_to_the_baseline(tmp_path):
    frame = build(grid(tmp_path, RATES, bases=("a",))).frame
    assert list(frame.columns) == ablation.COLUMNS
    rows = frame.set_index("adaptation")
    assert list(rows.index) == ADAPTATIONS
    drop = rows.loc["rules-no-eos"]
    assert drop["difference"] == pytest.approx(drop["win_rate"] - rows.loc["rules", "win_rate"])
    assert drop["difference_low"] < drop["difference"] < drop["difference_high"] < 0
    assert rows.loc["rules"].filter(like="difference").isna().all()
    assert rows.loc["rules", "note"] == "baseline"
    assert (drop["n"], drop["n_seeds"]) == (120, 2)


def test_differences_are_tested_as_many_times_as_is_stated(tmp_path):
    table = build(grid(tmp_path, RATES, bases=("a",)))
    rows = table.frame.set_index("adaptation")
    p_values = [
        paired_test(
            [annotations(RATES[name], seed) for seed in (1, 2)],
            [annotations(RATES["rules"], seed) for seed in (1, 2)],
        )
        for name in ADAPTATIONS[1:]
    ]
    assert list(rows.loc[ADAPTATIONS[1:], "difference_p"]) == p_values
    assert list(rows.loc[ADAPTATIONS[1:], "difference_p_holm"]) == holm(p_values)
    assert list(rows["n_comparisons"].dropna()) == [2, 2]
    assert "the 2 comparisons of this table (Holm)" in table.caption


def test_settings_keep_their_digits_and_lists_are_joined(tmp_path):
    frame = build(grid(tmp_path / "rules", RATES)).frame
    assert set(frame["setting"]) == {"eos + bias", "bias", "none"}
    rates = build(grid(tmp_path, RATES), settings={"rules": 1e-5, "rules-no-eos": 3, "base": 0.25})
    assert list(rates.frame["setting"])[:3] == ["1e-05", "3", "0.25"]


def test_other_references_leave_the_difference_empty_and_say_so(tmp_path):
    table = build(grid(tmp_path, RATES), references={"base": "response"})
    rows = table.frame[table.frame["base"] == "a"].set_index("adaptation")
    assert rows.loc["base"].filter(like="difference").isna().all()
    assert rows.loc["base", "note"] == (
        "no difference: compared with 'response', the baseline with 'instruction'"
    )
    assert rows.loc["rules-no-eos", "difference"] < 0
    assert set(table.frame["n_comparisons"].dropna()) == {2}


def test_the_baseline_must_stand_at_the_same_seeds(tmp_path):
    with pytest.raises(ValueError, match="'rules-no-eos' but no 'rules'"):
        build(comparison(tmp_path / "alone", "rules-no-eos", 1))
    inputs = comparison(tmp_path, "rules", 1) | comparison(tmp_path, "base", 2)
    with pytest.raises(ValueError, match=r"'base' was judged at seeds \[2\], 'rules' at \[1\]"):
        build(inputs)


def test_a_variant_without_a_setting_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'base' has no entry in `settings`"):
        build(grid(tmp_path, RATES), settings={"rules": 1, "rules-no-eos": 2})
