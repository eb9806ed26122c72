"""Ablations: differences to a baseline, their tests, and what cannot be compared."""

import pytest

from comparison_folders import annotations, comparison, grid
from implicit_tuning.analysis.statistics import holm, paired_test
from implicit_tuning.reporting.tables import ablation

ADAPTATIONS = ["rules", "rules-no-eos", "base"]
RATES = {"rules": 0.4, "rules-no-eos": 0.1, "base": 0.05}
SETTINGS = {"rules": "eos, bias", "rules-no-eos": "bias", "base": "none"}


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
    values |= settings
    values["settings"] = dict.fromkeys("ab", values["settings"])
    return ablation.build(inputs, **values)


def test_a_row_a_variant_with_its_difference_to_the_baseline(tmp_path):
    frame = build(grid(tmp_path, RATES, bases=("a",))).frame
    assert list(frame.columns) == ablation.TABLE_COLUMNS
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


def test_settings_keep_their_digits(tmp_path):
    rates = build(grid(tmp_path, RATES), settings={"rules": 1e-5, "rules-no-eos": 3, "base": 0.25})
    assert list(rates.frame["setting"])[:3] == ["1e-05", "3", "0.25"]


def test_rows_of_other_references_are_compared_each_against_its_own(tmp_path):
    table = build(grid(tmp_path, RATES, bases=("a",)), references={"base": "response"})
    rows = table.frame.set_index("adaptation")
    base, rules = rows.loc["base"], rows.loc["rules"]
    assert base["difference"] == pytest.approx(base["win_rate"] - rules["win_rate"])
    assert base["difference_low"] < base["difference"] < base["difference_high"] < 0
    assert (base["against"], base["note"]) == ("response", ablation.OWN_REFERENCE)
    assert rows.loc["rules-no-eos", "note"] == ""
    assert set(rows["n_comparisons"].dropna()) == {2}


def test_captions_of_few_rows_read_right(tmp_path):
    single = build(comparison(tmp_path / "single", "rules", 1))
    assert "No row stands beside the baseline 'rules'" in single.caption
    assert "Holm" not in single.caption
    assert single.frame.filter(like="difference").isna().all(axis=None)
    one = build(grid(tmp_path, {"rules": 0.4, "base": 0.1}, ("a",)), setting="adaptation").caption
    assert one.startswith("**mine.** The three rules; variants are told apart by name. ")
    assert "the 1 comparison of this table (Holm)" in one


def test_the_baseline_must_stand_at_the_same_seeds(tmp_path):
    with pytest.raises(ValueError, match="'rules-no-eos' but no 'rules'"):
        build(comparison(tmp_path / "alone", "rules-no-eos", 1))
    inputs = comparison(tmp_path, "rules", 1) | comparison(tmp_path, "base", 2)
    with pytest.raises(ValueError, match=r"'base' was judged at seeds \[2\], 'rules' at \[1\]"):
        build(inputs)


def test_a_variant_without_a_setting_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'base' has no entry in `settings`"):
        build(grid(tmp_path, RATES), settings={"rules": 1, "rules-no-eos": 2})
