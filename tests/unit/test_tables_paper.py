"""Our win rates beside the paper's, and its claims held against ours."""

import pytest
from comparison_folders import comparison, grid

from implicit_tuning.statistics import SeedMean
from implicit_tuning.tables import claims, paper

ADAPTATIONS = ["base", "instruction", "response", "mbpp", "chess", "rules", "rules-no-eos"]
RATES = {"base": 0.05, "response": 0.45, "mbpp": 0.7, "chess": 0.05, "rules": 0.2}
BASES = {"a": "llama-2-7b", "b": "olmo-7b"}
CIRCUMSTANCES = ["the bases are model organisms", "the judge is another"]


def build(module, inputs, bases=BASES):
    return module.build(inputs, "mine", ADAPTATIONS, bases, CIRCUMSTANCES)


# --- beside the paper ---------------------------------------------------------------------------


def test_rows_are_what_both_have_with_their_places(tmp_path):
    table = build(paper, grid(tmp_path, {**RATES, "instruction": 0.5}))
    assert list(table.frame.columns) == paper.COLUMNS
    rows = table.frame.set_index(["base", "adaptation"])
    assert list(rows.loc["a"].index) == ["base", "response", "mbpp", "chess", "rules"]
    assert list(rows.loc["b"].index) == ["base", "response", "mbpp", "chess"]
    mbpp = rows.loc["a", "mbpp"]
    assert (mbpp["paper_win_rate"], mbpp["paper_win_rate_std"]) == (16.9, 0.70)
    assert (mbpp["rank"], mbpp["paper_rank"]) == (1, 3)
    assert mbpp["agreement"] == "2 places higher than in the paper"
    assert rows.loc[("a", "response"), "agreement"] == "1 place lower than in the paper"
    assert rows.loc[("b", "mbpp"), "paper_base"] == "OLMo-7B"


def test_the_caption_counts_pairs_in_the_paper_s_order_and_says_why_not(tmp_path):
    caption = build(paper, grid(tmp_path, RATES, bases=("a",))).caption
    # Above response and rules in ours, below both in the paper; base and chess are told apart by
    # nobody.
    assert (
        "a beside Llama-2-7B: of 10 pairs of adaptations 7 stand in the paper's order, 2 in the "
        "opposite one, and 1 are not told apart" in caption
    )
    assert caption.endswith(f"Why orders may differ: {'; '.join(CIRCUMSTANCES)}.")


def test_bases_without_a_counterpart_are_left_out_and_none_at_all_is_said(tmp_path):
    inputs = grid(tmp_path, RATES)
    assert set(build(paper, inputs, {"a": "llama-2-7b", "b": None}).frame["base"]) == {"a"}
    table = build(paper, inputs, {"a": None, "b": None})
    assert table.frame.empty
    assert "No base of this experiment stands beside one of the paper's" in table.caption


# --- claims -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "low", "high", "found"),
    [
        ("above", 1, 3, "agrees"),
        ("above", -3, -1, "contradicts"),
        ("above", -1, 3, "undecided"),
        ("below", -3, -1, "agrees"),
        ("below", 1, 3, "contradicts"),
        ("below", 0, 3, "undecided"),
        ("not above", -2, 4, "agrees"),
        ("not above", 1, 4, "agrees"),
        ("not above", 1, 6, "contradicts"),
        ("not above", -1, 6, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(expected, low, high, found):
    assert claims.verdict(expected, SeedMean((low + high) / 2, 1.0, low, high, 10, 2)) == found


def test_claims_are_held_against_paired_differences(tmp_path):
    table = build(claims, grid(tmp_path, RATES, bases=("a",)))
    assert list(table.frame.columns) == claims.COLUMNS
    rows = table.frame.set_index("claim")
    lift = rows.loc["response tuning lifts the base"]
    assert lift["verdict"] == "agrees" and lift["why"] == ""
    assert 0 < lift["difference_low"] < lift["difference"] < lift["difference_high"]
    assert lift["paper"] == "Llama-2-7B: 43.3 ± 1.1 against 2.4 ± 0.14"
    mbpp = rows.loc["tuning on mbpp alone stays below response tuning"]
    assert mbpp["verdict"] == "contradicts"
    assert mbpp["why"] == "; ".join(CIRCUMSTANCES)
    reach = rows.loc["response tuning does not reach instruction tuning"]
    assert reach["paper"] == "Llama-2-7B: 43.3 ± 1.1 against 50 by definition"
    assert reach["verdict"] == "undecided"
    assert reach["why"].startswith("120 judged pairs over 2 seeds do not decide it; ")


def test_equal_runs_do_not_prove_that_there_is_no_lift(tmp_path):
    """Base and chess have the same verdicts here: the interval is still no point."""
    rows = build(claims, grid(tmp_path, RATES, bases=("a",))).frame.set_index("claim")
    chess = rows.loc["chess does not lift the base (by 5 points)"]
    assert chess["difference"] == 0.0
    # The exact bound for 0 of 60 instructions is 6 %, and so above the 5 points.
    assert (chess["difference_low"], chess["difference_high"]) == pytest.approx(
        (-6.0, 6.0), abs=0.1
    )
    assert chess["verdict"] == "undecided"


def test_claims_about_what_was_not_run_are_left_out_and_verdicts_are_counted(tmp_path):
    table = build(claims, grid(tmp_path, {"base": 0.05, "response": 0.45}, bases=("a",)))
    assert list(table.frame["claim"]) == [
        "response tuning lifts the base",
        "response tuning does not reach instruction tuning",
    ]
    assert table.caption.endswith("a: 1 agree, 0 contradict, 1 undecided.")


def test_a_base_without_counterpart_stands_beside_both_and_rules_beside_the_one_that_had_them(
    tmp_path,
):
    inputs = grid(tmp_path / "none", RATES, bases=("a",))
    rows = build(claims, inputs, {"a": None}).frame.set_index("claim")["paper"]
    assert rows["response tuning lifts the base"].split("; ")[1].startswith("OLMo-7B: 43.7 ± 1.7")
    rows = build(claims, grid(tmp_path, RATES, bases=("b",))).frame.set_index("claim")["paper"]
    assert rows["three rules lift the base"].startswith("Llama-2-7B: 24.4 ± 0.4 against")


def test_an_unlisted_adaptation_is_refused_by_both(tmp_path):
    inputs = comparison(tmp_path, "gsm8k", 1)
    for module in (paper, claims):
        with pytest.raises(ValueError, match="'gsm8k', which is not among"):
            build(module, inputs)
