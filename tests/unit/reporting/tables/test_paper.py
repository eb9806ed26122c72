"""Our win rates beside the paper's, and its claims held against ours."""

import pytest

from comparison_folders import annotations, comparison, grid
from implicit_tuning.analysis.statistics import SeedMean
from implicit_tuning.reporting.tables import claims, paper

ADAPTATIONS = ["base", "instruction", "response", "mbpp", "chess", "rules", "rules-no-eos"]
RATES = {"base": 0.05, "response": 0.45, "mbpp": 0.7, "chess": 0.05, "rules": 0.2}
BASES = {"a": "llama-2-7b", "b": "olmo-7b"}
CIRCUMSTANCES = ["the bases are model organisms", "the judge is another"]


def build(module, inputs, bases=BASES, circumstances=CIRCUMSTANCES, **settings):
    return module.build(inputs, "mine", ADAPTATIONS, bases, circumstances, **settings)


# --- beside the paper ---------------------------------------------------------------------------


def test_rows_are_what_both_have_with_their_places(tmp_path):
    table = build(paper, grid(tmp_path, {**RATES, "instruction": 0.5}))
    assert list(table.frame.columns) == paper.TABLE_COLUMNS
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
        "a beside Llama-2-7B, of the 10 pairs of adaptations: 7 in the paper's order, 2 in the "
        "opposite one, 1 not told apart" in caption
    )
    assert caption.endswith(f"Why orders may differ: {'; '.join(CIRCUMSTANCES)}.")


def test_a_row_with_a_reference_of_its_own_stands_in_no_order(tmp_path):
    inputs = grid(tmp_path, RATES, bases=("a",))
    table = build(paper, inputs, references={"mbpp": "instruction-other-tags"})
    rows = table.frame.set_index("adaptation")
    assert rows.loc["mbpp", "against"] == "instruction-other-tags"
    assert set(rows["against"].drop(index="mbpp")) == {"instruction"}
    assert rows.loc["mbpp", ["rank", "paper_rank", "agreement"]].isna().all()
    assert rows.loc["response", "agreement"] == "same place, 1 of 4"
    assert "of the 6 pairs of adaptations: 5 in the paper's order" in table.caption
    assert "With a reference of their own and so in no order: mbpp." in table.caption


def test_without_circumstances_no_reason_is_given(tmp_path):
    caption = build(paper, grid(tmp_path, RATES), circumstances=[]).caption
    assert caption.endswith("(95 % interval of the paired difference).")


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
        ("not above", 0.5, 6, "undecided"),
        ("not above", 1, 20, "undecided"),
        ("not above", 5, 20, "contradicts"),
        ("not above", -1, 6, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(expected, low, high, found):
    assert claims.verdict(expected, SeedMean((low + high) / 2, 1.0, low, high, 10, 2)) == found


def test_claims_are_held_against_paired_differences(tmp_path):
    table = build(claims, grid(tmp_path, RATES, bases=("a",)))
    assert list(table.frame.columns) == claims.TABLE_COLUMNS
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
    assert reach["why"].startswith("not decided by 120 judged pairs over 2 seeds; ")


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
    assert table.caption.endswith("a: 1 agrees, 0 contradict, 1 undecided.")
    own = grid(tmp_path / "own", {"base": 0.05, "response": 0.45}, bases=("a",))
    assert build(claims, own, references={"response": "gsm8k"}).frame.empty


@pytest.mark.parametrize(
    ("n_won", "found"), [(4, "undecided"), (5, "undecided"), (6, "agrees"), (8, "agrees")]
)
def test_a_handful_of_instructions_decides_no_claim(tmp_path, n_won, found):
    """208 instructions, of which the base wins none, and response tuning a few at each seed."""
    inputs = {}
    for adaptation, wins in (("base", 0), ("response", n_won)):
        for seed in (1, 2):
            rows = annotations(0.0, seed, count=208)
            for row in rows[:wins]:
                row["preference"] = 2.0
            inputs |= comparison(tmp_path, adaptation, seed, rows=rows)
    lift = build(claims, inputs).frame.iloc[0]
    assert (lift["claim"], lift["verdict"]) == ("response tuning lifts the base", found)


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
