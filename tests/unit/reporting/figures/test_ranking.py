"""The ranking figure: files, bytes, what it says and what it refuses."""

import csv
import re

import pandas as pd
import pytest

from implicit_tuning.reporting.figures.ranking import draw

LABEL = "model organism, by construction"


def write_table(folder, rows):
    columns = ["base", "adaptation", "ranked_right", "ranked_right_low", "ranked_right_high", "n"]
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=columns).assign(difference=1.0).to_csv(
        folder / "ranking.csv", index=False
    )
    return folder


ROWS = [
    ("7", "base", 80.0, 75.25, 85.0, 200),
    ("7", "response", 90.0, 85.0, 95.0, 400),
    ("organism-olmo", "base", 70.0, 66.0, 74.0, 200),
]


def draw_rows(folder, rows=ROWS):
    folder.mkdir(exist_ok=True)
    draw(write_table(folder / "table", rows), folder / "out", "ranking", LABEL)
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_files_and_bytes(tmp_path):
    first, second = draw_rows(tmp_path / "a"), draw_rows(tmp_path / "b")
    assert set(first) == {"ranking.png", "ranking.svg", "ranking.csv"}
    assert first == second
    assert first["ranking.png"].startswith(b"\x89PNG")


def test_the_figure_says_what_it_shows(tmp_path):
    svg = draw_rows(tmp_path)["ranking.svg"].decode()
    for text in (LABEL, "7", "organism-olmo", "base", "response", "80.0", "90.0", "70.0"):
        assert f">{text}<" in svg
    assert "% of comparisons; dashed: chance" in svg


def test_chance_is_in_view(tmp_path):
    above = draw_rows(tmp_path / "above")["ranking.svg"].decode()
    assert ">50<" in above
    below = [("b", "base", 30.0, 25.0, 35.0, 200)]
    svg = draw_rows(tmp_path / "below", below)["ranking.svg"].decode()
    ticks = {int(number) for number in re.findall(r">(\d+)<", svg)}
    assert {30, 50} <= ticks
    assert 70 not in ticks


def test_plotted_numbers_stand_beside_the_figure(tmp_path):
    draw_rows(tmp_path)
    with (tmp_path / "out/ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "base": "7",
        "adaptation": "base",
        "ranked_right": "80.00",
        "ranked_right_low": "75.25",
        "ranked_right_high": "85.00",
        "n": "200",
    }
    assert len(rows) == 3


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'ranking' has no rows"):
        draw_rows(tmp_path, [])
