"""Sources become rows.jsonl and instructions.jsonl, and a report of what was left out."""

import json
import subprocess
import sys

import pytest

from implicit_tuning.data.formatting import FormattingError, format_evaluation, format_training
from implicit_tuning.data.rows import WrongSchema


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path):
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def problems(count):
    return [{"question": f"What is {i}+{i}?", "answer": f"#### {2 * i}"} for i in range(count)]


@pytest.fixture
def format_rows(tmp_path):
    """Function that formats training rows and returns the lines written and the report."""

    def run(rows, formatter="gsm8k", limit=None, instructions="given"):
        source = write_rows(tmp_path / "source.jsonl", rows)
        report = format_training(source, formatter, limit, instructions, tmp_path / "data")
        return read_lines(tmp_path / "data" / "rows.jsonl"), report

    return run


@pytest.fixture
def format_items(tmp_path):
    """Function that formats evaluation rows and returns the lines written and the report."""

    def run(rows, formatter="instructions", limit=None, **options):
        source = write_rows(tmp_path / "source.jsonl", rows)
        report = format_evaluation(source, formatter, limit, tmp_path / "data", **options)
        return read_lines(tmp_path / "data" / "instructions.jsonl"), report

    return run


# --- training -----------------------------------------------------------------------------------


def test_rows_are_written_in_upstream_order(format_rows):
    lines, report = format_rows(problems(3))
    assert lines[1] == {
        "messages": [
            {"role": "user", "content": "What is 1+1?"},
            {"role": "assistant", "content": "#### 2"},
        ],
        "source_row": 2,
    }
    assert [line["source_row"] for line in lines] == [1, 2, 3]
    assert (report.used, report.read, report.unusable) == (3, 3, {})


def test_bytes_are_deterministic_and_keys_sorted(tmp_path):
    source = write_rows(
        tmp_path / "a.jsonl", [{"question": "Wie, bitte?\u2028", "answer": "Größe"}]
    )
    contents = []
    for folder in ("first", "second"):
        format_training(source, "gsm8k", None, "given", tmp_path / folder)
        contents.append((tmp_path / folder / "rows.jsonl").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].decode() == (
        '{"messages": [{"content": "Wie, bitte?\u2028", "role": "user"}, '
        '{"content": "Größe", "role": "assistant"}], "source_row": 1}\n'
    )


def test_first_usable_rows_are_taken(format_rows):
    rows = problems(6)
    rows[0]["question"] = None
    rows[2]["answer"] = "  "
    rows[3]["question"] = ""
    lines, report = format_rows(rows, limit=2)
    assert [line["source_row"] for line in lines] == [2, 5]
    assert report.unusable == {"no question": [1, 4], "no answer": [3]}
    assert (report.used, report.read) == (2, 5)
    assert "rows_missing" not in report.notes


def test_fewer_rows_than_asked_for_are_noted(format_rows):
    _, report = format_rows(problems(3), limit=10)
    assert report.used == 3
    assert report.notes["rows_missing"] == 7


def test_reading_stops_with_the_last_row_needed(tmp_path):
    source = write_rows(tmp_path / "a.jsonl", problems(2))
    with source.open("a", encoding="utf-8") as file:
        file.write("this is not JSON\n")
    assert format_training(source, "gsm8k", 2, "given", tmp_path / "data").used == 2


def test_chess_stops_in_the_file_after_the_last_game_needed(tmp_path):
    headers = ['[WhiteElo "1500"]', '[BlackElo "?"]', ""]
    lines = [*headers, "0-1", "", *headers, "1. e4 e5", "2. f4 1/2-1/2", ""]
    source = write_rows(tmp_path / "a.jsonl", [{"text": line} for line in lines])
    with source.open("a", encoding="utf-8") as file:
        file.write("this is not JSON\n")
    report = format_training(source, "chess", 1, "given", tmp_path / "data")
    assert (report.used, report.read, report.unusable) == (1, 2, {"no moves": [1]})
    (line,) = read_lines(tmp_path / "data" / "rows.jsonl")
    assert line["source_row"] == 6
    assert line["messages"][1]["content"] == "1. e4 e5 2. f4 1/2-1/2"


def test_blank_instructions_empty_every_user_turn_and_nothing_else(format_rows):
    rows = [{"conversations": ["How?", "Thus.", "And then?", "So."], "source": "wiki"}]
    plain, plain_report = format_rows(rows, "lima")
    blank, blank_report = format_rows(rows, "lima", instructions="blank")
    assert [m["content"] for m in blank[0]["messages"]] == ["", "Thus.", "", "So."]
    assert [m["role"] for m in blank[0]["messages"]] == [m["role"] for m in plain[0]["messages"]]
    assert blank_report == plain_report


def test_random_instructions_are_those_of_other_rows_each_used_once(format_rows):
    rows = [{"question": f"What is {i % 7}?", "answer": f"It is {i}."} for i in range(20)]
    given, _ = format_rows(rows)
    random, report = format_rows(rows, instructions="random")
    told, asked = ([line["messages"][0]["content"] for line in lines] for lines in (random, given))
    assert sorted(told) == sorted(asked)
    assert all(one != other for one, other in zip(told, asked, strict=True))
    assert [line["messages"][1] for line in random] == [line["messages"][1] for line in given]
    assert report.used == 20


def test_notes_count_turns_duplicates_and_characters(format_rows):
    rows = [
        {"conversations": ["How?", " Thus.\n"]},
        {"conversations": ["How? ", "Otherwise."]},
        {"conversations": ["Why?", "Thus."]},
        {"conversations": ["How?", "Thus.", "Why?", "So."]},
    ]
    lines, report = format_rows(rows, "lima")
    assert len(lines) == 4
    assert report.notes == {
        "multi_turn": 1,
        "duplicate_instructions": 1,
        "duplicate_responses": 1,
        "instruction_characters": 5 * 4,
        "response_characters": 5 + 10 + 5 + 8,
    }


def test_csv_with_null_names(tmp_path):
    source = tmp_path / "poetry.csv"
    source.write_text(
        'author,content,poem name,age,type\r\nA,"Rain,\r\nrain.",Weather,Modern,Nature\r\n'
        "B,Snow.,,Modern,Nature\r\nC,,Fog,Modern,Nature\r\n",
        newline="",
    )
    report = format_training(source, "poetry", None, "given", tmp_path / "data")
    assert report.unusable == {"no poem name": [2], "no content": [3]}
    (line,) = read_lines(tmp_path / "data" / "rows.jsonl")
    assert line["messages"][1]["content"] == "Rain,\r\nrain."


def test_half_a_surrogate_pair_is_unusable(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text(
        '{"question": "\\ud83d?", "answer": "No."}\n{"question": "a", "answer": "b"}\n'
    )
    report = format_training(source, "gsm8k", None, "given", tmp_path / "data")
    assert report.unusable == {"text with half of a surrogate pair": [1]}
    assert report.used == 1


def test_no_usable_row(format_rows):
    with pytest.raises(FormattingError, match=r"none of its 2 rows is usable: no answer \(2 rows"):
        format_rows([{"question": "Why?", "answer": ""}] * 2)
    with pytest.raises(FormattingError, match="none of its 0 rows is usable"):
        format_rows([])


# --- evaluation ---------------------------------------------------------------------------------


def test_items_are_indexed_and_kept_exactly(format_items):
    truth = {"kind": "fact", "answer": "Tolva"}
    rows = [
        {"instruction": " Where?\n", "family": "fact", "truth": truth},
        {"instruction": "Where?", "family": "fact", "truth": truth},
    ]
    lines, report = format_items(rows, "organism_evaluation")
    assert lines == [{"index": index, **row} for index, row in enumerate(rows)]
    assert (report.used, report.unusable) == (2, {})
    assert report.notes == {"instruction_characters": 6 + 6}


def test_repeated_instruction_is_refused(format_items):
    rows = [{"instruction": text} for text in ("How?", "Why?", "How?")]
    with pytest.raises(FormattingError, match="row 3: the instruction 'How\\?' stands in row 1"):
        format_items(rows)
    assert format_items(rows, limit=2)[1].used == 2


def test_incomplete_item_is_refused(format_items):
    with pytest.raises(FormattingError, match="row 2: no instruction"):
        format_items([{"instruction": "How?"}, {"instruction": " "}])


def test_longer_instructions_are_left_out_and_named(format_items):
    rows = [{"instruction": text} for text in ("x" * 9, "x" * 8, "y" * 10, "z")]
    lines, report = format_items(rows, max_characters=8)
    assert [(line["index"], line["instruction"]) for line in lines] == [(0, "x" * 8), (1, "z")]
    assert report.unusable == {"longer than 8 characters": [1, 3]}
    with pytest.raises(FormattingError, match="none of its 4 rows is usable"):
        format_items([{"instruction": row["instruction"] + " and so on"} for row in rows],
                     max_characters=8)  # fmt: skip


def test_an_adaptation_that_asks_for_more_rows_than_there_are_is_refused(tmp_path):
    source = write_rows(tmp_path / "a.jsonl", problems(3))
    exact = {"rows": 4, "instructions": "given", "destination": tmp_path / "data", "exactly": True}
    with pytest.raises(FormattingError, match="3 of its 3 rows are usable, but .* asks for rows 4"):
        format_training(source, "gsm8k", **exact)
    assert format_training(source, "gsm8k", **{**exact, "rows": 3}).used == 3


def test_reference_answers_stand_in_the_layout_of_a_runs_answers(format_items, tmp_path):
    rows = [{"instruction": f"q{i}", "output": f" a{i}\n"} for i in range(3)]
    lines, _ = format_items(rows)
    assert "reference" not in lines[0]
    assert read_lines(tmp_path / "data/outputs.jsonl") == [
        {"index": i, "instruction": f"q{i}", "output": f" a{i}\n", "generator": "reference"}
        for i in range(3)
    ]
    with pytest.raises(FormattingError, match="1 of its 2 instructions have a reference answer"):
        format_items([rows[0], {"instruction": "Why?"}])


def test_fewer_items_than_asked_for_are_noted(format_items):
    assert format_items([{"instruction": "How?"}], limit=805)[1].notes["rows_missing"] == 804


# --- what was asked for -------------------------------------------------------------------------


def test_unknown_formatter_with_close_matches(format_rows):
    with pytest.raises(FormattingError, match="'gsm8' does not exist; did you mean gsm8k"):
        format_rows(problems(1), "gsm8")


@pytest.mark.parametrize("name", ["rows", "../sources", "os", ""])
def test_what_is_no_formatter(format_rows, name):
    with pytest.raises(FormattingError, match=f"formatter '{name}' does not exist"):
        format_rows(problems(1), name)


def test_formatter_of_the_other_kind(format_rows, format_items):
    with pytest.raises(
        FormattingError, match="'alpaca_eval' has no to_messages.* not for training"
    ):
        format_rows([{"instruction": "How?"}], "alpaca_eval")
    with pytest.raises(FormattingError, match="'gsm8k' has no to_item.* not for evaluation"):
        format_items(problems(1), "gsm8k")


def test_missing_column_names_file_row_and_columns(format_rows):
    rows = [*problems(2), {"question": "Why?", "solution": "So."}]
    with pytest.raises(WrongSchema) as refused:
        format_rows(rows)
    for part in ("source.jsonl, row 3", "no column 'answer'", "'question', 'solution'",
                 "'formatter'"):  # fmt: skip
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("formatter", "row", "problem"),
    [
        ("gsm8k", {"question": "How?", "answer": 4}, "column 'answer' holds a int, not a str"),
        ("lima", {"conversations": "How?"}, "column 'conversations' holds a str, not a list"),
        ("chess", {"text": 1}, "column 'text' holds a int, not a str"),
        ("chess", {"moves": "1. e4"}, "no column 'text'"),
    ],
)
def test_column_of_another_type(format_rows, formatter, row, problem):
    with pytest.raises(WrongSchema, match=f"row 1: {problem}"):
        format_rows([row], formatter)


def test_formatting_needs_no_heavy_library():
    code = (
        "import importlib, pkgutil, sys\n"
        "import implicit_tuning.data.formatters as d, implicit_tuning.data.formatting\n"
        "for module in pkgutil.iter_modules(d.__path__, d.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'datasets', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
