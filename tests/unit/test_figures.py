"""Figures: files, deterministic bytes, what they say and what they refuse."""

import csv
import subprocess
import sys

import pandas as pd
import pytest

from implicit_tuning.figures import LossHistory, loss_figure, win_rate_figure

LABEL = "model organism, by construction"


def table(judge="oracle"):
    rows = [
        (base, adaptation, seed, rate + shift, rate - 4, rate + 4, 60, judge)
        for base in ("base-a", "base-b")
        for adaptation, rate in (("response", 45.0), ("chess", 4.0), ("shuffled", 4.5))
        for seed, shift in (("1", -1.0), ("2", 1.0), ("mean", 0.0))
    ]
    columns = [
        "base",
        "adaptation",
        "seed",
        "win_rate",
        "win_rate_low",
        "win_rate_high",
        "n",
        "judge",
    ]
    return pd.DataFrame(rows, columns=columns)


def histories(adaptations=("response", "chess")):
    return [
        LossHistory(base, adaptation, seed, [{"update": u, "loss": 3 / u} for u in range(1, 6)])
        for base in ("base-a", "base-b")
        for adaptation in adaptations
        for seed in (1, 2)
    ]


def draw_both(folder):
    win_rate_figure(table(), folder, "win_rates", LABEL, "instruction", controls=("shuffled",))
    loss_figure(histories(), ["response", "chess"], folder, "losses", LABEL)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_and_bytes(tmp_path):
    first, second = draw_both(tmp_path / "first"), draw_both(tmp_path / "second")
    assert set(first) == {
        f"{stem}.{suffix}" for stem in ("win_rates", "losses") for suffix in ("png", "svg", "csv")
    }
    assert first == second
    assert first["win_rates.png"].startswith(b"\x89PNG")
    assert b"<dc:date>" not in first["win_rates.svg"]


def test_figures_say_what_they_show(tmp_path):
    files = {name: content.decode() for name, content in draw_both(tmp_path).items()
             if name.endswith("svg")}  # fmt: skip
    for text in (LABEL, "base-a", "base-b", "shuffled (control)", "response", "judge: oracle"):
        assert f"{text}<" in files["win_rates.svg"]
    for text in (LABEL, "base-a", "base-b", "response", "chess", "training loss (nats a token)"):
        assert f"{text}<" in files["losses.svg"]


def test_plotted_numbers_stand_beside_the_figures(tmp_path):
    draw_both(tmp_path)
    with (tmp_path / "win_rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert rows[2]["win_rate"] == "45.00"
    with (tmp_path / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 5
    assert (rows[0]["adaptation"], rows[0]["update"], rows[0]["loss"]) == (
        "response",
        "1",
        "3.000000",
    )


def test_an_adaptation_missing_at_one_base_leaves_a_gap(tmp_path):
    frame = table()
    frame = frame[~((frame["base"] == "base-b") & (frame["adaptation"] == "chess"))]
    win_rate_figure(frame, tmp_path, "gap", LABEL, "instruction")
    assert (tmp_path / "gap.png").exists()


def test_thirteen_adaptations_fit(tmp_path):
    names = [f"adaptation-{number}" for number in range(13)]
    loss_figure(histories(names), names, tmp_path, "losses", LABEL)
    svg = (tmp_path / "losses.svg").read_text()
    assert all(f"{name}<" in svg for name in names)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    both = pd.concat([table("oracle"), table("mean_logprob")])
    with pytest.raises(ValueError, match="shows one judge"):
        win_rate_figure(both, tmp_path, "x", LABEL, "instruction")
    with pytest.raises(ValueError, match="no loss histories"):
        loss_figure([], [], tmp_path, "x", LABEL)
    with pytest.raises(ValueError, match="'response'"):
        loss_figure(histories(), ["chess"], tmp_path, "x", LABEL)


def test_tables_and_figures_need_neither_torch_nor_pyplot():
    code = (
        "import sys, implicit_tuning.figures\n"
        "heavy = {'torch', 'transformers', 'alpaca_eval', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
