"""Rows of files, by suffix."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from implicit_tuning.data.reading import UnreadableSource, read_rows

ROWS = [{"name": "Weather", "text": "a\r\nb\u2028c \tü"}, {"name": None, "text": "d"}]


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path):
    with pytest.raises(UnreadableSource) as refused:
        list(read_rows(path))
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_kinds(tmp_path, mark, ascii_only):
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in ROWS)
    assert list(read_rows(write(tmp_path / "a.jsonl", mark + lines.encode()))) == ROWS
    whole = json.dumps(ROWS, ensure_ascii=ascii_only, indent=1)
    assert list(read_rows(write(tmp_path / "a.json", mark + whole.encode()))) == ROWS


def test_blank_lines_of_jsonl_are_no_rows(tmp_path):
    assert list(read_rows(write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": 2}'))) == [
        {"a": 1},
        {"a": 2},
    ]


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [{"name": f"row {i}", "turns": ["a", "b"], "n": i} for i in range(2500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert list(read_rows(path)) == rows


def test_csv_with_fields_of_several_lines(tmp_path):
    content = 'author,poem name,content\r\nA,"Rain, again","one\r\ntwo ""three"""\r\nB,,\r\n'
    assert list(read_rows(write(tmp_path / "a.csv", content))) == [
        {"author": "A", "poem name": "Rain, again", "content": 'one\r\ntwo "three"'},
        {"author": "B", "poem name": None, "content": None},
    ]


def test_csv_with_a_very_long_field(tmp_path):
    long = "x" * 300_000
    assert list(read_rows(write(tmp_path / "a.csv", f"text\n{long}\n"))) == [{"text": long}]


@pytest.mark.parametrize("suffix", ["txt", "pgn"])
def test_text_is_a_line_a_row(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", '[Event "x"]\r\n\r\n1. e4 1-0\n')
    assert [row["text"] for row in read_rows(path)] == ['[Event "x"]', "", "1. e4 1-0"]


def test_rows_are_streamed(tmp_path):
    # Rows before the broken line come out although the file is broken.
    rows = read_rows(write(tmp_path / "a.jsonl", '{"a": 1}\n{"a"'))
    assert next(rows) == {"a": 1}


def test_suffix_is_unknown(tmp_path):
    message = refusal(write(tmp_path / "a.xlsx", ""))
    assert "'.xlsx'" in message and ".jsonl, .json, .csv, .parquet" in message


def test_suffix_in_capitals(tmp_path):
    assert list(read_rows(write(tmp_path / "a.JSONL", '{"a": 1}\n'))) == [{"a": 1}]


def test_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        list(read_rows(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', ["line 2", "broken JSON"]),
        ("a.jsonl", '{"a": 1}\n[1]\n', ["line 2", "holds a list"]),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', ["line 2", "not UTF-8", "0xe9"]),
        ("a.json", '[{"a": 1},\n {"a" 2}]', ["line 2", "broken JSON"]),
        ("a.json", '{"data": []}', ["holds a dict", "list of objects"]),
        ("a.json", '[{"a": 1}, "b"]', ["entry 2", "holds a str"]),
        ("a.json", b'[{"a": "\xff"}]', ["not UTF-8", "0xff"]),
        ("a.csv", 'a,b\n1,"2\n', ["line 2", "broken csv", "end of data"]),
        ("a.csv", "a,b\n1,2\n1,2,3\n", ["line 3", "more fields", "header's 2"]),
        ("a.csv", "a,b\n1\n", ["line 2", "fewer fields"]),
        ("a.csv", b"a,b\n1,\xe9\n", ["not UTF-8", "0xe9"]),
        ("a.parquet", b"PAR1 no table PAR1", ["broken parquet"]),
        ("a.txt", b"one\n\x80\n", ["line 2", "not UTF-8"]),
    ],
)
def test_broken_files(tmp_path, name, content, parts):
    message = refusal(write(tmp_path / name, content))
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
def test_empty_file_has_no_rows(tmp_path, suffix):
    assert list(read_rows(write(tmp_path / f"a.{suffix}", ""))) == []
