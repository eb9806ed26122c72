"""Figures: files, deterministic bytes, what they say and what they refuse."""

import csv
import subprocess
import sys

import pandas as pd
import pytest

from implicit_tuning.reporting.figures import ablation, epochs, loss, main
from implicit_tuning.reporting.figures.style import line_look

LABEL = "model organism, by construction"
BASES = ("base-a", "base-b")


def write(folder, stem, rows):
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{stem}.csv", index=False)
    return folder


def rate(value):
    return {"win_rate": value, "win_rate_low": value - 4, "win_rate_high": value + 4, "n": 60}


def main_table(folder, judges=("oracle",)):
    rows = [
        {"base": base, "adaptation": adaptation, "seed": seed, **rate(level + shift)}
        | {"against": "instruction" if adaptation != "tags" else "other", "judge": judge}
        for judge in judges
        for base in BASES
        for adaptation, level in (("response", 45.0), ("tags", 44.0), ("shuffled", 4.5))
        for seed, shift in (("1", -1.0), ("2", 1.0), ("mean", 0.0))
    ]
    return write(folder, "main", rows)


def loss_table(folder, adaptations=("response", "chess"), bases=BASES):
    rows = [
        {"base": base, "adaptation": adaptation, "seed": seed, "epoch": 1, "update": u}
        | {"loss": 3 / u}
        for base in bases
        for adaptation in adaptations
        for seed in (1, 2)
        for u in range(1, 6)
    ]
    return write(folder, "loss-history", rows)


def ablation_table(folder, settings):
    rows = [
        {"base": base, "adaptation": f"variant-{number}", "setting": setting}
        | rate(40.0 - 10 * number)
        | {"against": "instruction", "note": "baseline" if number == 0 else None}
        for base in BASES
        for number, setting in enumerate(settings)
    ]
    return write(folder, "ablation-x", rows)


def epochs_table(folder):
    rows = [
        {"base": base, "adaptation": adaptation, "epochs": tried, **rate(20.0 + tried)}
        | {"chosen": "yes" if tried == 10 else "no"}
        for base in BASES
        for adaptation in ("response", "chess")
        for tried in (5, 7, 10)
    ]
    return write(folder, "epochs", rows)


def draw_main(folder):
    main.draw(main_table(folder / "t"), folder, "main", LABEL, "instruction", ["shuffled"])


def draw_loss(folder):
    loss.draw(loss_table(folder / "t"), folder, "loss", LABEL, ["response", "chess"])


def draw_line(folder, settings=(1e-5, 1e-4, 1e-3)):
    table = ablation_table(folder / "t", settings)
    ablation.draw(table, folder, "ablation-x", LABEL, "Learning rate", "peak")


def draw_bars(folder, settings=("eos + bias", "bias")):
    table = ablation_table(folder / "t", settings)
    ablation.draw(table, folder, "ablation-x", LABEL, "Rules", "which")


def draw_epochs(folder):
    epochs.draw(epochs_table(folder / "t"), folder, "epochs", LABEL)


DRAWN = {draw_main: "main", draw_loss: "loss", draw_epochs: "epochs", draw_line: "ablation-x",
         draw_bars: "ablation-x"}  # fmt: skip
SAID = {
    draw_main: ("shuffled (control)", "response", "(against other)", "45.0"),
    draw_loss: ("response", "chess", "training loss (nats a token)", "update"),
    draw_epochs: ("win rate on the validation set (%)", "epochs (ring: chosen)", "chess"),
    draw_line: ("Learning rate: peak", "baseline", "1e-05", "0.001"),
    draw_bars: ("eos + bias", "bias", "40.0"),
}


@pytest.mark.parametrize("draw", DRAWN)
def test_files_and_bytes(tmp_path, draw):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        draw(folder)
    for suffix in ("png", "svg", "csv"):
        first, second = ((f / f"{DRAWN[draw]}.{suffix}").read_bytes() for f in folders)
        assert first == second
    svg = (folders[0] / f"{DRAWN[draw]}.svg").read_text()
    assert "<dc:date>" not in svg
    for text in (LABEL, *BASES, *SAID[draw]):
        assert f"{text}<" in svg, text


@pytest.mark.parametrize(
    ("draw", "count", "row"),
    [
        (draw_main, 18, {"seed": "mean", "win_rate": "45.00", "against": "instruction"}),
        (draw_loss, 40, {"update": "3", "loss": "1.00000"}),
        (draw_epochs, 12, {"epochs": "10", "win_rate": "30.00", "chosen": "yes"}),
        (draw_line, 6, {"setting": "0.001", "win_rate": "20.00"}),
    ],
)
def test_plotted_numbers_stand_beside_the_figure(tmp_path, draw, count, row):
    draw(tmp_path)
    with (tmp_path / f"{DRAWN[draw]}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count
    assert rows[2].items() >= row.items()


@pytest.mark.parametrize(
    ("settings", "scale"),
    [((1e-5, 1e-4), "log"), ((1, 5, 9), "linear"), ((0, 250, 1000), "linear")],
)
def test_numbers_far_apart_stand_on_a_logarithmic_axis(tmp_path, settings, scale):
    assert ablation.axis_scale(pd.Series(settings)) == scale
    draw_line(tmp_path, settings)
    svg = (tmp_path / "ablation-x.svg").read_text()
    assert all(f">{setting:g}<" in svg for setting in settings)


def test_variants_that_share_a_setting_are_told_apart_by_name(tmp_path):
    draw_bars(tmp_path, ("same", "same"))
    svg = (tmp_path / "ablation-x.svg").read_text()
    assert "variant-0<" in svg and "variant-1<" in svg and "same<" not in svg


def test_an_adaptation_missing_at_one_base_leaves_a_gap(tmp_path):
    table = main_table(tmp_path / "t")
    frame = pd.read_csv(table / "main.csv")
    write(table, "main", frame[(frame["base"] != "base-b") | (frame["adaptation"] != "tags")])
    main.draw(table, tmp_path, "main", LABEL, "instruction")
    assert (tmp_path / "main.png").exists()


def test_fifteen_lines_fit_and_no_two_look_alike(tmp_path):
    names = [f"adaptation-{number}" for number in range(15)]
    loss.draw(loss_table(tmp_path / "t", names), tmp_path, "loss", LABEL, names)
    svg = (tmp_path / "loss.svg").read_text()
    assert all(f"{name}<" in svg for name in names)
    assert len({line_look(number) for number in range(24)}) == 24


def test_what_cannot_be_drawn_is_refused(tmp_path):
    both = main_table(tmp_path / "both", judges=("oracle", "mean_logprob"))
    with pytest.raises(ValueError, match="shows one judge"):
        main.draw(both, tmp_path, "main", LABEL, "instruction")
    write(tmp_path, "loss-history", {"base": [], "adaptation": []})
    with pytest.raises(ValueError, match="'loss' has no rows"):
        loss.draw(tmp_path, tmp_path, "loss", LABEL, [])


@pytest.mark.parametrize("package", ["tables.main", "figures.main", "figures.ablation"])
def test_tables_and_figures_need_neither_torch_nor_pyplot(package):
    code = (
        f"import sys, implicit_tuning.reporting.{package}\n"
        "heavy = {'torch', 'transformers', 'alpaca_eval', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
