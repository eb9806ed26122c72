"""Stored annotations: the released layouts, several people, old marks, downloads."""

import functools
import http.server
import json
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from implicit_tuning.judging.stored_verdicts import (
    StoredPair,
    UnusableAnnotations,
    comparisons,
    local_file,
    read_yardstick,
)
from implicit_tuning.nodes.digests import file_sha256

ANNOTATIONS = Path(__file__).parents[2] / "fixtures/annotations"
MODELS = ("sparrow-chat", "wren-base", "heron-long")


def row(**changes):
    texts = {"instruction": "Name a bird.", "output_1": "wren", "output_2": "a sparrow"}
    return texts | {"preference": 1.25} | changes


def write(folder, rows, name="annotations.json"):
    file = folder / name
    file.write_text(json.dumps(rows))
    return file


def test_released_files_of_several_models_are_one_yardstick():
    files = [ANNOTATIONS / model / "annotations.json" for model in MODELS]
    yardstick = read_yardstick(files)
    assert yardstick.name == "weighted_alpaca_eval_gpt4_turbo"
    assert yardstick.sha256 == {f"{f.parent.name}/{f.name}": file_sha256(f) for f in files}
    assert len(yardstick.sha256) == 3
    assert len(yardstick.pairs) == 12
    first = yardstick.pairs[0]
    assert (first.generator_1, first.generator_2) == ("gpt4_1106_preview", "sparrow-chat")
    assert first.preference == 1.9871204418
    groups = comparisons(yardstick.pairs)
    assert [{pair.generator_2 for pair in group} for group in groups] == [{m} for m in MODELS]


def test_votes_of_several_people_become_their_mean():
    yardstick = read_yardstick([ANNOTATIONS / "human_crossannotations.json"])
    assert yardstick.name == "human_crossannotations.json"
    # A stored 0 is a draw: 1, 1, 1 and a draw are (3 + 1.5) / 4.
    assert [pair.preference for pair in yardstick.pairs] == [1.75, 1.25, 1.5, 1.125]
    assert {pair.generator_2 for pair in yardstick.pairs} == {"output_2"}


def test_rows_without_a_verdict_and_pairs_of_equal_outputs_are_counted(tmp_path):
    rows = [
        row(),
        row(output_2="a heron", preference=None),
        row(output_2="a kite", preference=float("nan")),
        row(output_2="a gull", preference=-1),
        row(output_2="wren", preference=1.5),
    ]
    yardstick = read_yardstick([write(tmp_path, rows)])
    assert [pair.output_2 for pair in yardstick.pairs] == ["a sparrow"]
    assert (yardstick.n_unjudged, yardstick.n_identical) == (3, 1)


def test_an_instruction_stands_once_in_a_comparison():
    pairs = [
        StoredPair(instruction, "a", output, "x", generator, 1.0)
        for instruction, output, generator in [
            ("q", "b", "y"), ("q", "c", "y"), ("r", "d", "y"), ("q", "e", "z"), ("q", "f", "y"),
        ]
    ]  # fmt: skip
    groups = comparisons(pairs)
    assert [[pair.output_2 for pair in group] for group in groups] == [
        ["b", "d"],
        ["c"],
        ["e"],
        ["f"],
    ]
    assert all(len({pair.instruction for pair in group}) == len(group) for group in groups)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(output_1=None)], r"annotations.json, row 1: `output_1` is None, not a text"),
        ([row(preference=2.5)], "`preference` is 2.5, not between 1 and 2"),
        ([row(preference="left")], "`preference` is 'left', not between 1 and 2"),
        ([row(preference=None)], "no pair with a verdict"),
        ([row(output_2="wren")], "no pair with a verdict"),
    ],
)
def test_what_are_no_annotations_is_named(tmp_path, rows, message):
    with pytest.raises(UnusableAnnotations, match=message):
        read_yardstick([write(tmp_path, rows)])


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, counts requests, and cuts files whose name says so."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        if "cut" not in self.path:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"[")
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """Address of a server over `tmp_path`/served."""
    folder = tmp_path / "served"
    folder.mkdir()
    Files.asked.clear()
    handler = functools.partial(Files, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_url_is_fetched_once_and_its_size_is_said(served, tmp_path, capsys):
    content = [row()] * 100
    write(tmp_path / "served", content)
    address = f"{served}/annotations.json"
    first = local_file(address, tmp_path / "cache")
    assert json.loads(first.read_text()) == content
    assert first.name == "annotations.json"
    printed = capsys.readouterr()
    assert f"fetching {address}, 0.0 MB" in printed.out
    assert "100%" in printed.err
    assert local_file(address, tmp_path / "cache") == first
    assert Files.asked == ["/annotations.json"]
    assert local_file(str(first), tmp_path / "cache") == first


def test_files_of_one_name_from_two_urls_are_kept_apart(served, tmp_path):
    for model in ("a", "b"):
        (tmp_path / "served" / model).mkdir()
        write(tmp_path / "served" / model, [row(output_2=model)])
    copies = [local_file(f"{served}/{m}/annotations.json", tmp_path / "cache") for m in "ab"]
    assert [pair.output_2 for pair in read_yardstick(copies).pairs] == ["a", "b"]
    assert len(read_yardstick(copies).sha256) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing.json", r"missing.json could not be fetched \(status 404\): correct the address"),
        ("/cut.json", r"cut.json could not be fetched \(IncompleteRead"),
    ],
)
def test_a_failed_download_leaves_nothing(served, tmp_path, path, message):
    with pytest.raises(UnusableAnnotations, match=message):
        local_file(served + path, tmp_path / "cache")
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_no_server_and_no_file_are_named(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Files) as closed:
        port = closed.server_address[1]
    with pytest.raises(UnusableAnnotations, match="could not be fetched .*refused"):
        local_file(f"http://127.0.0.1:{port}/annotations.json", tmp_path)
    for source in ("nowhere.json", "file:///etc/hostname"):
        with pytest.raises(UnusableAnnotations, match="no such file, and no http"):
            local_file(source, tmp_path)
