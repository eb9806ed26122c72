"""The main table, the rule ablation, and their files."""

import csv
import json
import random

import pytest

from implicit_tuning import paper
from implicit_tuning.tables import (
    ComparisonResult,
    main_table,
    read_comparison,
    rules_table,
    with_judge,
    without_paper,
    write_table,
)
from table import build_table

LABEL = "model organism, by construction"
ADAPTATIONS = ["base", "instruction", "response", "chess", "shuffled", "rules", "rules-no-eos"]
NOTES = {"instruction": "reference, 50 by definition", "shuffled": "control: shuffled outputs"}


def annotations(win_probability, seed, count=60):
    draw = random.Random(f"{win_probability} {seed}")
    return [
        {
            "instruction_sha256": str(index),
            "preference": 2.0 if draw.random() < win_probability else 1.0,
            "length_1": 10,
            "length_2": 15,
        }
        for index in range(count)
    ]


def result(adaptation, reference_seed, win_probability=0.4, base="a", **changes):
    seed = None if adaptation.startswith(("base", "rules")) else reference_seed
    rows = annotations(win_probability, reference_seed)
    summary = {"judge_id": "oracle-1", "length_controlled_winrate": None}
    values = {"seed": seed, "judge": "oracle", "annotations": rows, "summary": summary} | changes
    return ComparisonResult(base, adaptation, reference_seed=reference_seed, **values)


def grid():
    rates = {"response": 0.5, "base": 0.05, "instruction": 0.5, "shuffled": 0.02, "chess": 0.1}
    return [
        result(adaptation, seed, rate, base)
        for base in ("b", "a")
        for adaptation, rate in rates.items()
        for seed in (2, 1)
    ]


def test_main_table_has_exactly_its_columns_and_rows_in_order():
    table = main_table(grid(), ADAPTATIONS, LABEL, NOTES)
    assert list(table.columns) == [
        "base",
        "adaptation",
        "seed",
        "win_rate",
        "win_rate_std",
        "win_rate_low",
        "win_rate_high",
        "n",
        "length_ratio",
        "length_controlled_win_rate",
        "paper_llama2_7b",
        "paper_olmo_7b",
        "judge",
        "note",
    ]
    expected = [
        (base, adaptation, seed)
        for base in ("b", "a")
        for adaptation in ("base", "instruction", "response", "chess", "shuffled")
        for seed in ("1", "2", "mean")
    ]
    assert list(table[["base", "adaptation", "seed"]].itertuples(index=False, name=None)) == (
        expected
    )


def test_mean_row_stands_for_its_seeds():
    table = main_table(grid(), ADAPTATIONS, LABEL, NOTES)
    rows = table[(table["base"] == "a") & (table["adaptation"] == "response")]
    seeds, mean = rows[rows["seed"] != "mean"], rows[rows["seed"] == "mean"].iloc[0]
    assert mean["win_rate"] == pytest.approx(seeds["win_rate"].mean())
    assert mean["win_rate_std"] == pytest.approx(seeds["win_rate"].std(ddof=1))
    assert mean["win_rate_low"] < mean["win_rate"] < mean["win_rate_high"]
    assert mean["n"] == seeds["n"].sum() == 120
    assert seeds["win_rate_std"].isna().all()
    assert set(rows["length_ratio"]) == {1.5}


def test_one_seed_has_a_mean_without_deviation():
    table = main_table([result("response", 1)], ADAPTATIONS, LABEL, NOTES)
    assert list(table["seed"]) == ["1", "mean"]
    assert table["win_rate_std"].isna().all()


def test_base_and_rules_rows_carry_the_seed_of_their_reference():
    table = main_table([result("base", 3), result("rules", 4)], ADAPTATIONS, LABEL, NOTES)
    assert list(table["seed"]) == ["3", "mean", "4", "mean"]


def test_notes_join_the_label_and_the_adaptation_s_own():
    table = main_table(grid(), ADAPTATIONS, LABEL, NOTES).set_index("adaptation")["note"]
    assert set(table["response"]) == {LABEL}
    assert set(table["shuffled"]) == {f"{LABEL}; control: shuffled outputs"}
    unlabelled = main_table([result("instruction", 1)], ADAPTATIONS, "", NOTES)
    assert set(unlabelled["note"]) == {"reference, 50 by definition"}


def test_paper_values_stand_beside_their_adaptation():
    table = main_table(grid(), ADAPTATIONS, LABEL, NOTES).set_index("adaptation")
    assert set(table.loc["response", "paper_llama2_7b"]) == {43.3}
    assert set(table.loc["chess", "paper_olmo_7b"]) == {6.3}
    assert table.loc["instruction", "paper_llama2_7b"].isna().all()


def test_paper_values_are_those_of_the_paper():
    llama, olmo = (
        {name: (rate.mean, rate.std) for name, rate in rates.items()}
        for rates in (paper.LLAMA2_7B, paper.OLMO_7B)
    )
    assert llama == {
        "base": (2.4, 0.14), "response": (43.3, 1.1), "mbpp": (16.9, 0.70), "gsm8k": (23.7, 0.74),
        "poetry": (22.9, 0.97), "recipes": (14.6, 0.81), "chess": (2.1, 0.36),
        "rules": (24.4, 0.40), "rules-no-eos": (10.4, 0.30),
        "rules-no-repetition": (14.3, 0.58), "rules-no-bias": (16.3, 0.25),
    }  # fmt: skip
    assert olmo == {
        "base": (4.7, 0.57), "response": (43.7, 1.7), "mbpp": (10.4, 1.0), "gsm8k": (30.3, 0.6),
        "poetry": (21.9, 0.48), "recipes": (21.5, 0.86), "chess": (6.3, 1.1),
    }  # fmt: skip


def test_paper_columns_can_be_left_empty(tmp_path):
    table = without_paper(main_table(grid(), ADAPTATIONS, LABEL, NOTES))
    assert table[list(paper.COLUMNS)].isna().all(axis=None)
    write_table(table, tmp_path, "main", "Caption")
    assert "±" not in (tmp_path / "main.md").read_text().split("paper_olmo_7b")[0]


def test_a_run_given_twice_and_an_unknown_adaptation_are_refused():
    with pytest.raises(ValueError, match="'response', seed 1 under judge 'oracle' stands twice"):
        main_table([result("response", 1)] * 2, ADAPTATIONS, LABEL, NOTES)
    with pytest.raises(ValueError, match="adaptation 'gsm8k', which is not among"):
        main_table([result("gsm8k", 1)], ADAPTATIONS, LABEL, NOTES)


def test_judges_are_kept_apart():
    runs = [result("response", 1, judge=judge) for judge in ("oracle", "mean_logprob")]
    table = main_table(runs, ADAPTATIONS, LABEL, NOTES)
    assert list(table["judge"]) == ["oracle", "oracle", "mean_logprob", "mean_logprob"]


def length_controlled(seed, rate):
    summary = {"judge_id": "gpt-1", "length_controlled_winrate": rate}
    return result("response", seed, summary=summary)


def test_length_controlled_rates_stand_beside_the_raw_ones_and_have_a_mean_if_all_are_known():
    table = main_table(
        [length_controlled(1, 40.0), length_controlled(2, 44.0)], ADAPTATIONS, "", {}
    )
    assert list(table["length_controlled_win_rate"]) == [40.0, 44.0, 42.0]
    table = main_table(
        [length_controlled(1, 40.0), length_controlled(2, None)], ADAPTATIONS, "", {}
    )
    assert table["length_controlled_win_rate"].isna().tolist() == [False, True, True]


def calibration_file(folder, judge_id="likely-1"):
    measures = {"agreement": {"value": 78.125, "low": 75.04, "high": 81.06, "unit": "%"}}
    content = {"judge_id": judge_id, "yardstick": "gpt4", "n_pairs": 805, "measures": measures}
    (folder / "calibration.json").write_text(json.dumps(content))
    return folder / "calibration.json"


def test_a_calibrated_judge_s_agreement_stands_in_the_label(tmp_path):
    runs = [result("response", 1, summary={"judge_id": "likely-1"})]
    file = calibration_file(tmp_path)
    assert with_judge("mine", runs, False, file) == (
        "mine; judge agrees with gpt4 on 78.1 % [75.0, 81.1] of 805 pairs"
    )
    assert with_judge("", runs, False, None) == "judge not calibrated"
    assert with_judge("mine", runs, True, None) == "mine"


def test_the_calibration_of_another_judge_is_none(tmp_path):
    runs = [result("response", seed, summary={"judge_id": "likely-2"}) for seed in (1, 2)]
    label = with_judge("mine", runs, False, calibration_file(tmp_path))
    assert label == "mine; judge not calibrated (its calibration is of judge likely-1)"
    mixed = [runs[0], result("response", 2, summary={"judge_id": "likely-1"})]
    assert "not calibrated" in with_judge("mine", mixed, False, calibration_file(tmp_path))


def test_the_judge_s_agreement_stands_in_every_row_and_above_the_table(tmp_path):
    for seed in (1, 2):
        folder = tmp_path / f"comparison-{seed}"
        folder.mkdir()
        rows = "".join(json.dumps(row) + "\n" for row in annotations(0.4, seed))
        (folder / "annotations.jsonl").write_text(rows)
        summary = {"judge_id": "likely-1", "length_controlled_winrate": None}
        (folder / "summary.json").write_text(json.dumps(summary))
    inputs = {f"a/response/{s}/set/{s}/likely": tmp_path / f"comparison-{s}" for s in (1, 2)}
    build_table(
        inputs, tmp_path, "main", "mine", "instruction", ADAPTATIONS, {},
        judge_is_truth=False, calibration=calibration_file(tmp_path),
    )  # fmt: skip
    note = "mine; judge agrees with gpt4 on 78.1 % [75.0, 81.1] of 805 pairs"
    with (tmp_path / "main.csv").open() as file:
        assert {row["note"] for row in csv.DictReader(file)} == {note}
    assert (tmp_path / "main.md").read_text().startswith(f"**{note}.** Win rates in %")


def rules_grid():
    rates = {"rules": 0.4, "rules-no-eos": 0.1, "base": 0.05, "response": 0.5}
    return [result(name, seed, rate) for name, rate in rates.items() for seed in (1, 2)]


def test_rules_table_has_differences_to_all_rules():
    table = rules_table(rules_grid(), LABEL).set_index("adaptation")
    assert list(table.index) == ["rules", "rules-no-eos", "base"]
    drop = table.loc["rules-no-eos"]
    assert drop["difference"] == pytest.approx(drop["win_rate"] - table.loc["rules", "win_rate"])
    assert drop["difference_low"] < drop["difference"] < drop["difference_high"] < 0
    assert table.loc["rules"].filter(like="difference").isna().all()


def test_rules_table_needs_all_rules_at_the_same_seeds():
    with pytest.raises(ValueError, match="'rules-no-eos' but no 'rules'"):
        rules_table([result("rules-no-eos", 1)], LABEL)
    with pytest.raises(ValueError, match=r"'base' was judged at seeds \[2\], 'rules' at \[1\]"):
        rules_table([result("rules", 1), result("base", 2)], LABEL)


def test_written_table_is_plain_csv_and_markdown_with_intervals(tmp_path):
    table = main_table(grid(), ADAPTATIONS, LABEL, NOTES)
    write_table(table, tmp_path, "main", f"Win rates: {LABEL}")
    csv = (tmp_path / "main.csv").read_text().splitlines()
    assert csv[0] == ",".join(table.columns)
    response = table[(table["adaptation"] == "response") & (table["seed"] == "mean")].iloc[0]
    assert f"b,response,mean,{response['win_rate']:.2f}," in "\n".join(csv)
    markdown = (tmp_path / "main.md").read_text()
    assert markdown.startswith(f"Win rates: {LABEL}\n\n| base ")
    low, high = response["win_rate_low"], response["win_rate_high"]
    spread = f"{response['win_rate']:.1f} ± {response['win_rate_std']:.1f}"
    assert f"{spread} [{low:.1f}, {high:.1f}]" in markdown
    assert "43.3 ± 1.1" in markdown
    assert "nan" not in markdown.lower()


def test_written_bytes_are_equal_each_time(tmp_path):
    for name in ("first", "second"):
        write_table(rules_table(rules_grid(), LABEL), tmp_path / name, "rules", "Rules")
    for suffix in ("csv", "md"):
        files = [(tmp_path / name / f"rules.{suffix}").read_bytes() for name in ("first", "second")]
        assert files[0] == files[1]


def test_comparison_is_read_from_its_folder(tmp_path):
    rows = annotations(0.5, 1, count=3)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "annotations.jsonl").write_text(lines)
    (tmp_path / "summary.json").write_text('{"n_total": 3}')
    read = read_comparison("a/rules/none/set/5/oracle", tmp_path)
    assert read == ComparisonResult("a", "rules", None, 5, "oracle", rows, {"n_total": 3})
    assert read.table_seed == 5
