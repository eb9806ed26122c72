"""Figures of similarity and of drift: files, deterministic bytes, what they say."""

import csv

import pandas as pd
import pytest

from implicit_tuning.reporting.figures import drift, similarity
from implicit_tuning.reporting.tables.layout import Table, write_table

LABEL = "model organism, by construction"


def similarity_frames(chess=True):
    """Base a has a fitted task and one without a line, base b the former only."""
    rows = [("a", "gsm8k"), ("b", "gsm8k")] + ([("a", "chess")] if chess else [])
    points = [
        (*row, index, 10.0 * index if row[1] == "gsm8k" else 0.0, 5.0 * index, index == 3, 2)
        for row in rows
        for index in range(4)
    ]
    line = [
        (*row, x, x / 2, x / 2 - 3, x / 2 + 3, x / 4)
        for row in rows
        for x in (0.0, 30.0)
        if row[1] == "gsm8k"
    ]
    names = ["base", "adaptation"]
    return {
        "": pd.DataFrame(rows, columns=names),
        "-points": pd.DataFrame(
            points, columns=[*names, "index", "instruction_similarity", "style", "near", "n_seeds"]
        ),
        "-line": pd.DataFrame(
            line, columns=[*names, "instruction_similarity", "style", "style_low", "style_high",
                           "reference_style"]
        ),
    }  # fmt: skip


def drift_frame():
    def row(base, task, region, share, n):
        empty = None if n == 0 else share
        low, high = (None, None) if n == 0 else (share / 2, share + 10)
        mark = {"gsm8k": "ends in `#### n`", "mbpp": "has a line of Python code"}[task]
        return (base, task, mark, region, empty, low, high, None if n == 0 else 5.0, n)

    rows = [row(base, task, region, share, 0 if (task, region) == ("mbpp", "near") else 40)
            for base in ("a", "b") for task in ("gsm8k", "mbpp")
            for region, share in (("near", 60.0), ("far", 20.0))]  # fmt: skip
    columns = ["base", "adaptation", "mark", "region", "share", "share_low", "share_high",
               "reference_share", "n"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def tables(tmp_path):
    """Folder with the files of both tables."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for part, frame in similarity_frames().items():
        frame.to_csv(folder / f"similarity{part}.csv", index=False)
    drift_frame().to_csv(folder / "drift.csv", index=False)
    return folder


def draw_both(tables, folder):
    for module, stem in ((similarity, "similarity"), (drift, "drift")):
        module.draw(tables, folder, stem, LABEL)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_and_bytes(tables, tmp_path):
    first, second = (draw_both(tables, tmp_path / name) for name in ("first", "second"))
    assert set(first) == {
        f"{stem}.{suffix}" for stem in ("similarity", "drift") for suffix in ("png", "svg", "csv")
    }
    assert first == second
    assert first["drift.png"].startswith(b"\x89PNG")


def test_figures_say_what_they_show(tables, tmp_path):
    files = {name: content.decode(errors="ignore")
             for name, content in draw_both(tables, tmp_path / "figures").items()}  # fmt: skip
    for text in (
        LABEL, "gsm8k, a", "gsm8k, b", "chess, a", "instruction near the task",
        "instruction far from the task", "fitted line, 95 % band", "line of the reference run",
        "similarity of instruction and task (cosine × 100)", "no line: all equally near",
    ):  # fmt: skip
        assert f"{text}<" in files["similarity.svg"].replace("&apos;", "'"), text
    for text in (
        LABEL, "a", "b", "gsm8k", "ends in `#### n`", "responses with the task's mark (%)",
        "no instruction is near", "instructions near the task, reference run",
    ):  # fmt: skip
        assert f"{text}<" in files["drift.svg"].replace("&apos;", "'"), text


def test_a_task_that_a_base_lacks_leaves_its_panel_empty(tables, tmp_path):
    svg = draw_both(tables, tmp_path / "figures")["similarity.svg"].decode()
    assert "chess, b<" not in svg


def test_plotted_numbers_stand_beside_the_figures(tables, tmp_path):
    draw_both(tables, tmp_path / "figures")
    with (tmp_path / "figures" / "similarity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["drawn"] for row in rows] == ["point"] * 12 + ["line"] * 4
    assert (rows[3]["style"], rows[3]["near"], rows[-1]["style_low"]) == ("15.00", "True", "12.00")
    with (tmp_path / "figures" / "drift.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["share"], rows[0]["reference_share"]) == ("60.00", "5.00")
    assert (rows[2]["n"], rows[2]["share"]) == ("0", "")


def test_without_any_line_the_points_are_drawn(tmp_path):
    frames = similarity_frames()
    chosen = {part: frame[frame["adaptation"] == "chess"] for part, frame in frames.items()}
    table = Table(chosen[""], "x", {"points": chosen["-points"], "line": chosen["-line"]})
    write_table(table, tmp_path / "tables", "similarity")
    similarity.draw(tmp_path / "tables", tmp_path, "similarity", LABEL)
    svg = (tmp_path / "similarity.svg").read_text()
    assert "chess, a<" in svg and "no line: all equally near<" in svg


def test_empty_tables_are_refused(tables, tmp_path):
    for module, stem in ((similarity, "similarity"), (drift, "drift")):
        pd.read_csv(tables / f"{stem}.csv").head(0).to_csv(tables / f"{stem}.csv", index=False)
        with pytest.raises(ValueError, match="has no rows"):
            module.draw(tables, tmp_path, stem, LABEL)
