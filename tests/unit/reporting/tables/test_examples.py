"""Examples: which instructions a rule picks, and the answers below them."""

import hashlib
import json

import pandas as pd
import pytest

from implicit_tuning.reporting.tables import examples
from implicit_tuning.reporting.tables.layout import write_table

ADAPTATIONS = ["base", "instruction", "response"]
HOSTILE = '```\n# no title\n<script>alert(1)</script>\r"quoted", ' + "x" * 500


def instruction_rows(families=("fact", "poem", None), count=30):
    return [
        {"index": index, "instruction": f"Request {index}?", "family": families[index % 3]}
        for index in range(count)
    ]


def by_hash(rows):
    return sorted(rows, key=lambda row: hashlib.sha256(row["instruction"].encode()).hexdigest())


def test_without_families_the_first_by_hash_are_chosen():
    rows = [{"index": i, "instruction": f"Request {i}?"} for i in range(20)]
    assert examples.choose_instructions(rows) == by_hash(rows)[:8]
    assert examples.choose_instructions(rows[::-1]) == by_hash(rows)[:8]


def test_families_take_turns_each_by_hash():
    rows = instruction_rows()
    chosen = examples.choose_instructions(rows)
    families = list(dict.fromkeys(row["family"] for row in by_hash(rows)))
    assert [row["family"] for row in chosen] == (families * 3)[:8]
    for family in families:
        own = [row for row in chosen if row["family"] == family]
        assert own == [row for row in by_hash(rows) if row["family"] == family][: len(own)]


def test_a_small_family_leaves_its_turns_to_the_others():
    rows = [{"index": i, "instruction": f"R{i}", "family": "many"} for i in range(9)]
    rows.append({"index": 9, "instruction": "R9", "family": "one"})
    chosen = examples.choose_instructions(rows)
    assert len(chosen) == 8
    assert sum(row["family"] == "one" for row in chosen) == 1


def write_lines(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def inputs(folder, output="An answer.", preference=2.0):
    rows = instruction_rows()
    found = {"instructions": write_lines(folder / "instructions", "instructions.jsonl", rows)}
    for adaptation, seed in (
        ("response", 2),
        ("response", 1),
        ("instruction", 1),
        ("base", "none"),
    ):
        run = f"a/{adaptation}/{seed}/set"
        text = output if adaptation == "response" else f"{adaptation}: an answer"
        outputs = [
            {"index": row["index"], "output": text, "finish": "eos", "n_tokens": 4} for row in rows
        ]
        found[f"generate/{run}"] = write_lines(folder / run, "outputs.jsonl", outputs)
        verdicts = [
            {
                "index": row["index"],
                "preference": preference,
                "generator_1": "instruction",
                "generator_2": adaptation,
            }
            for row in rows
        ]
        reference_seed = 1 if seed == "none" else seed
        name = f"judge/{run}/{reference_seed}/oracle"
        found[name] = write_lines(folder / name, "annotations.jsonl", verdicts)
    return found


@pytest.mark.parametrize(
    ("preference", "verdict"), [(2.0, "win"), (1.5, "tie"), (1.2, "loss"), (None, "not judged")]
)
def test_every_adaptation_answers_each_instruction_with_its_verdict(tmp_path, preference, verdict):
    frame = examples.build(inputs(tmp_path, preference=preference), "mine", ADAPTATIONS).frame
    assert list(frame.columns) == examples.TABLE_COLUMNS
    chosen = [row["index"] for row in examples.choose_instructions(instruction_rows())]
    assert list(frame["index"]) == [index for index in chosen for _ in ADAPTATIONS]
    assert list(frame["adaptation"]) == ADAPTATIONS * 8
    assert set(frame["seed"]) == {"1", "none"}
    assert set(frame.loc[frame["adaptation"] == "response", "verdict"]) == {verdict}
    assert set(frame.loc[frame["adaptation"] == "instruction", "verdict"]) == {"reference"}


def test_the_csv_has_all_of_an_answer_and_the_markdown_says_that_it_is_cut(tmp_path):
    table = examples.build(inputs(tmp_path, HOSTILE), "mine", ADAPTATIONS)
    write_table(table, tmp_path, "examples")
    read = pd.read_csv(tmp_path / "examples.csv")
    assert set(read.loc[read["adaptation"] == "response", "output"]) == {HOSTILE}
    text = (tmp_path / "examples.md").read_text()
    assert "cut to 400 characters" in text
    assert "x […]" in text and "x" * 400 not in text


def test_no_answer_can_end_its_block_of_code(tmp_path):
    table = examples.build(inputs(tmp_path, HOSTILE), "mine", ADAPTATIONS)
    assert "````text\n```\n# no title" in table.markdown


def test_what_does_not_fit_is_refused(tmp_path):
    found = inputs(tmp_path)
    with pytest.raises(ValueError, match=r"answers of \['response'\]"):
        examples.build(found, "", ["base", "instruction"])
    del found["judge/a/base/none/set/1/oracle"]
    with pytest.raises(ValueError, match="generate/a/base/none/set has no comparison"):
        examples.build(found, "", ADAPTATIONS)
