"""The main table, what a table is made of, and its files."""

import csv
import json

import pandas as pd
import pytest

from comparison_folders import annotations, comparison, grid
from implicit_tuning.analysis.statistics import Ratio, SeedMean
from implicit_tuning.commands.preview import with_missing_seeds
from implicit_tuning.reporting.tables import main
from implicit_tuning.reporting.tables.comparisons import ComparisonResult, read_result
from implicit_tuning.reporting.tables.layout import Table, counted, measured, readable, write_table

LABEL = "model organism, by construction"
ADAPTATIONS = ["base", "instruction", "response", "chess", "shuffled", "rules", "rules-no-eos"]
NOTES = {"instruction": "reference, 50 by definition", "shuffled": "control: shuffled outputs"}
RATES = {"response": 0.5, "base": 0.05, "instruction": 0.5, "shuffled": 0.02, "chess": 0.1}


def build(inputs, label=LABEL, **settings):
    values = {"reference": "instruction", "adaptations": ADAPTATIONS, "notes": NOTES} | settings
    return main.build(inputs, label, **values)


def means(frame):
    return frame[frame["seed"] == "mean"].set_index("adaptation")


# --- the main table -----------------------------------------------------------------------------


def test_rows_stand_by_base_adaptation_and_seed_with_the_mean_last(tmp_path):
    frame = build(grid(tmp_path, RATES)).frame
    assert list(frame.columns) == main.TABLE_COLUMNS
    expected = [
        (base, adaptation, seed)
        for base in ("b", "a")
        for adaptation in ("base", "instruction", "response", "chess", "shuffled")
        for seed in ("1", "2", "mean")
    ]
    assert list(frame[["base", "adaptation", "seed"]].itertuples(index=False, name=None)) == (
        expected
    )


def test_mean_row_stands_for_its_seeds(tmp_path):
    frame = build(grid(tmp_path, RATES)).frame
    rows = frame[(frame["base"] == "a") & (frame["adaptation"] == "response")]
    seeds, mean = rows[rows["seed"] != "mean"], rows[rows["seed"] == "mean"].iloc[0]
    assert mean["win_rate"] == pytest.approx(seeds["win_rate"].mean())
    assert mean["win_rate_std"] == pytest.approx(seeds["win_rate"].std(ddof=1))
    assert mean["win_rate_low"] < mean["win_rate"] < mean["win_rate_high"]
    assert mean["n"] == seeds["n"].sum() == 120
    assert (seeds["n_seeds"].tolist(), mean["n_seeds"]) == ([1, 1], 2)
    assert seeds["win_rate_std"].isna().all()
    assert set(rows["length_ratio"]) == {1.5}


def test_one_seed_has_a_mean_without_deviation(tmp_path):
    frame = build(comparison(tmp_path, "response", 1)).frame
    assert list(frame["seed"]) == ["1", "mean"]
    assert frame["win_rate_std"].isna().all()


def test_base_and_rules_rows_carry_the_seed_of_their_reference(tmp_path):
    inputs = comparison(tmp_path, "base", 3) | comparison(tmp_path, "rules", 4)
    assert list(build(inputs).frame["seed"]) == ["3", "mean", "4", "mean"]


def test_notes_join_the_label_and_the_adaptation_s_own(tmp_path):
    notes = build(grid(tmp_path / "all", RATES)).frame.set_index("adaptation")["note"]
    assert set(notes["response"]) == {LABEL}
    assert set(notes["shuffled"]) == {f"{LABEL}; control: shuffled outputs"}
    unlabelled = build(comparison(tmp_path, "instruction", 1), label="").frame
    assert set(unlabelled["note"]) == {"reference, 50 by definition"}


def test_a_run_given_twice_and_an_unknown_adaptation_are_refused(tmp_path):
    [(name, folder)] = comparison(tmp_path, "response", 1).items()
    twice = {name: folder, name.replace("/set/1/", "/other-set/1/"): folder}
    with pytest.raises(ValueError, match="'response', seed 1 under judge 'oracle' stands twice"):
        build(twice)
    with pytest.raises(ValueError, match="adaptation 'gsm8k', which is not among"):
        build(comparison(tmp_path, "gsm8k", 1))


def test_judges_are_kept_apart(tmp_path):
    inputs = {}
    for judge in ("oracle", "mean_logprob"):
        inputs |= comparison(tmp_path, "response", 1, judge=judge)
    assert list(build(inputs).frame["judge"]) == [
        "oracle",
        "oracle",
        "mean_logprob",
        "mean_logprob",
    ]


# --- tests against the reference ----------------------------------------------------------------


def test_means_are_tested_against_their_reference_and_the_number_of_tests_is_stated(tmp_path):
    table = build(grid(tmp_path, RATES, bases=("a",)))
    rows = means(table.frame)
    assert rows.loc["instruction", ["win_rate_p", "n_comparisons"]].isna().all()
    tested = rows.drop(index="instruction")
    assert set(tested["n_comparisons"]) == {4}
    assert (tested["win_rate_p"] <= tested["win_rate_p_holm"]).all()
    assert tested.loc["chess", "win_rate_p_holm"] < 0.01
    assert tested.loc["response", "win_rate_p"] > 0.05
    assert "the 4 comparisons of this table (Holm)" in table.caption
    one = build(comparison(tmp_path / "one", "response", 1)).caption
    assert "the 1 comparison of this table (Holm)" in one
    none = build(comparison(tmp_path / "none", "instruction", 1)).caption
    assert "Holm" not in none
    assert table.frame.loc[table.frame["seed"] != "mean", "win_rate_p"].isna().all()


def test_an_adaptation_may_have_a_reference_of_its_own(tmp_path):
    frame = build(grid(tmp_path, RATES), references={"chess": "response"}).frame
    against = frame.set_index("adaptation")["against"]
    assert set(against["chess"]) == {"response"}
    assert set(against["response"]) == {"instruction"}


# --- length-controlled rates --------------------------------------------------------------------


def length_controlled(folder, rates, adaptation="response"):
    inputs = {}
    for seed, rate in rates.items():
        inputs |= comparison(folder, adaptation, seed, length_controlled=rate)
    return inputs


def test_a_length_controlled_rate_stands_where_seeds_give_it_an_interval(tmp_path):
    frame = build(length_controlled(tmp_path, {1: 40.0, 2: 44.0})).frame
    rates = frame["length_controlled_win_rate"]
    assert rates.isna().tolist() == [True, True, False]
    mean = frame.iloc[2]
    assert mean["length_controlled_win_rate"] == 42.0
    assert mean["length_controlled_win_rate_low"] < 42.0 < mean["length_controlled_win_rate_high"]


def test_no_length_controlled_interval_leaves_what_a_rate_can_be(tmp_path):
    mean = build(length_controlled(tmp_path, {1: 1.0, 2: 5.0})).frame.iloc[2]
    assert mean["length_controlled_win_rate_low"] == 0.0
    mean = build(length_controlled(tmp_path / "high", {1: 95.0, 2: 99.0})).frame.iloc[2]
    assert mean["length_controlled_win_rate_high"] == 100.0


def test_one_model_against_several_references_has_no_spread_of_seeds(tmp_path):
    table = build(length_controlled(tmp_path, {1: 40.0, 2: 44.0}, "rules"))
    assert table.frame["length_controlled_win_rate"].isna().all()
    assert table.frame["note"].iloc[-1] == f"{LABEL}; {main.ONE_MODEL}"
    assert table.frame["n_seeds"].iloc[-1] == 2
    assert (
        "standard deviation over seeds (of a model without seeds: over references)" in table.caption
    )


def test_a_seed_without_a_length_controlled_rate_leaves_the_mean_empty(tmp_path):
    frame = build(length_controlled(tmp_path, {1: 40.0, 2: None})).frame
    assert frame["length_controlled_win_rate"].isna().all()


def test_one_seed_says_why_it_shows_no_length_controlled_rate(tmp_path):
    frame = build(length_controlled(tmp_path, {1: 40.0})).frame
    assert frame["length_controlled_win_rate"].isna().all()
    assert frame["note"].iloc[-1] == f"{LABEL}; {main.ONE_SEED}"


def test_the_caption_says_why_no_length_controlled_rate_was_computed(tmp_path):
    table = build(grid(tmp_path, RATES))
    assert table.caption.endswith("Length-controlled win rate not computed: no such judge.")
    assert "length_controlled_win_rate" not in readable(table.frame)


# --- a preview ----------------------------------------------------------------------------------


def test_a_preview_says_which_means_lack_seeds(tmp_path):
    frame = build(grid(tmp_path, {"response": 0.5, "base": 0.05}, bases=("a",))).frame
    asked = {("oracle", "a", "response"): 3, ("oracle", "a", "base"): 2}
    notes = means(with_missing_seeds(frame, asked))["note"]
    assert notes["response"] == f"2 of 3 seeds; {LABEL}"
    assert notes["base"] == LABEL


# --- what is known of the judge -----------------------------------------------------------------


def calibration_file(folder, judge_id="likely-1"):
    measures = {"agreement": {"value": 78.125, "low": 75.04, "high": 81.06, "unit": "%"}}
    content = {"judge_id": judge_id, "yardstick": "gpt4", "n_pairs": 805, "measures": measures}
    (folder / "calibration.json").write_text(json.dumps(content))
    return {"calibration": folder / "calibration.json"}


def test_a_calibrated_judge_s_agreement_stands_in_every_row_and_above_the_table(tmp_path):
    inputs = comparison(tmp_path, "response", 1, judge_id="likely-1") | calibration_file(tmp_path)
    write_table(build(inputs, "mine", judge_is_truth=False), tmp_path, "main")
    note = "mine; judge agrees with gpt4 on 78.1 % [75.0, 81.1] of 805 pairs"
    with (tmp_path / "main.csv").open() as file:
        assert {row["note"] for row in csv.DictReader(file)} == {note}
    assert (tmp_path / "main.md").read_text().startswith(f"**{note}.** Win rates in %")


def test_a_judge_without_a_calibration_of_its_own_is_said_not_to_be_calibrated(tmp_path):
    inputs = {}
    for seed in (1, 2):
        inputs |= comparison(tmp_path, "response", seed, judge_id=f"likely-{seed}")
    assert set(build(inputs, "", judge_is_truth=False).frame["note"]) == {"judge not calibrated"}
    calibrated = build({**inputs, **calibration_file(tmp_path)}, "mine", judge_is_truth=False)
    other = "mine; judge not calibrated (its calibration is of judge likely-1)"
    assert set(calibrated.frame["note"]) == {other}


def test_a_judge_that_is_right_by_construction_needs_no_calibration(tmp_path):
    assert set(build(comparison(tmp_path, "response", 1), "mine").frame["note"]) == {"mine"}


# --- files --------------------------------------------------------------------------------------


def test_written_table_is_plain_csv_and_markdown_with_intervals(tmp_path):
    table = build(grid(tmp_path, RATES))
    write_table(table, tmp_path, "main")
    lines = (tmp_path / "main.csv").read_text().splitlines()
    assert lines[0] == ",".join(table.frame.columns)
    frame = table.frame
    response = frame[(frame["adaptation"] == "response") & (frame["seed"] == "mean")].iloc[0]
    assert f"b,response,mean,{response['win_rate']:.2f}," in "\n".join(lines)
    markdown = (tmp_path / "main.md").read_text()
    assert markdown.startswith(f"**{LABEL}.** Win rates in %")
    low, high = response["win_rate_low"], response["win_rate_high"]
    spread = f"{response['win_rate']:.1f} ± {response['win_rate_std']:.1f}"
    assert f"{spread} [{low:.1f}, {high:.1f}]" in markdown
    assert "nan" not in markdown.lower()


def test_written_bytes_are_equal_each_time(tmp_path):
    inputs = grid(tmp_path, RATES)
    for name in ("first", "second"):
        write_table(build(inputs), tmp_path / name, "main")
    for suffix in ("csv", "md"):
        files = [(tmp_path / name / f"main.{suffix}").read_bytes() for name in ("first", "second")]
        assert files[0] == files[1]


def test_a_number_without_an_interval_is_refused(tmp_path):
    bare = Table(pd.DataFrame({"base": ["a"], "win_rate": [40.0]}), "c")
    with pytest.raises(
        ValueError, match="'win_rate' has numbers without an interval: add win_rate_"
    ):
        write_table(bare, tmp_path, "bare")
    published = Table(pd.DataFrame({"paper_win_rate": [40.0], "n": [3]}), "c")
    write_table(published, tmp_path, "published")


def measured_frame():
    return pd.DataFrame(
        {
            "name": ["x", "y"],
            "rate": [43.26, None],
            "rate_std": [1.1, None],
            "rate_low": [40.0, None],
            "rate_high": [46.2, None],
            "rate_p": [0.00021, None],
            "rate_p_holm": [0.0021, None],
            "ratio": [-0.001, 1.234],
            "ratio_low": [-0.5, 1.0],
            "ratio_high": [0.5, 1.5],
            "n": pd.array([12, None], dtype="Int64"),
        }
    )


def test_readable_joins_a_number_with_what_belongs_to_it(tmp_path):
    expected = {
        "name": ["x", "y"],
        "rate": ["43.3 ± 1.1 [40.0, 46.2]", "-"],
        "p of rate (Holm)": ["0.0002 (0.0021)", "-"],
        "ratio": ["0.00 [-0.50, 0.50]", "1.23 [1.00, 1.50]"],
        "n": ["12", "-"],
    }
    assert readable(measured_frame()).to_dict(orient="list") == expected
    write_table(Table(measured_frame(), "c"), tmp_path, "t")
    assert readable(pd.read_csv(tmp_path / "t.csv")).to_dict(orient="list") == expected
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[1] == "x,43.26,1.10,40.00,46.20,0.0002,0.0021,0.00,-0.50,0.50,12"
    assert lines[2] == "y,,,,,,,1.23,1.00,1.50,"


def test_cells_of_a_number():
    mean = measured("x", SeedMean(1.0, 0.5, 0.0, 2.0, n=9, n_seeds=3))
    assert mean == {"x": 1.0, "x_std": 0.5, "x_low": 0.0, "x_high": 2.0}
    ratio = measured("x", Ratio(1.0, 0.5, 2.0))
    assert (ratio["x"], ratio["x_low"], pd.isna(ratio["x_std"])) == (1.0, 0.5, True)
    assert all(pd.isna(value) for value in measured("x", None).values())


def test_one_is_singular():
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


@pytest.mark.parametrize("text", ["a\rb", 'a\r\nb, "c"', "```\n|"])
def test_extra_tables_and_markdown_of_one_s_own_are_written(tmp_path, text):
    points = pd.DataFrame({"x": [1.23456], "text": [text]})
    table = Table(points[["text"]], "c", extra={"points": points}, markdown="*own*", decimals=4)
    write_table(table, tmp_path, "t")
    assert (tmp_path / "t.md").read_text() == "c\n\n*own*\n"
    with (tmp_path / "t-points.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"x": "1.2346", "text": text}]
    assert pd.read_csv(tmp_path / "t.csv")["text"].tolist() == [text]


def test_comparison_is_read_from_its_folder(tmp_path):
    rows = annotations(0.5, 5, count=3)
    [(name, folder)] = comparison(tmp_path, "rules", 5, rows=rows).items()
    read = read_result(name, folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert read == ComparisonResult("a", "rules", None, 5, "oracle", rows, summary)
    assert read.table_seed == 5
    assert read_result("a/response/42/set/none/oracle", folder).table_seed == 42
