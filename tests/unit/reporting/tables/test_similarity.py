"""Tables of similarity and of drift: numbers, intervals, what is left out and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import linregress

from implicit_tuning.reporting.tables import drift, similarity
from implicit_tuning.reporting.tables.layout import write_table

ADAPTATIONS = ["instruction", "mbpp", "gsm8k", "chess"]
SETTINGS = {
    "label": "model organism, by construction",
    "reference": "instruction",
    "adaptations": ADAPTATIONS,
    "embedding": "tfidf",
}
SUMMARY = {
    "embedding": "TF-IDF",
    "mark": "ends in `#### n`",
    "n_task_marked": 39,
    "n_task_responses": 40,
    "n_reference_set_marked": 1,
    "n_reference_responses": 50,
}


def lines_of(seed, slope=0.5, count=60, same_x=False, marked=0.5):
    draw = np.random.default_rng(seed)
    nearness = np.full(count, 0.2) if same_x else np.linspace(0, 0.6, count)
    lines = []
    for index, x in enumerate(nearness):
        near = bool(x > 0.4)
        lines.append(
            {
                "index": index,
                "instruction_similarity": float(x),
                "style": float(slope * x + draw.normal(0, 0.02)),
                "reference_style": float(draw.normal(0, 0.02)),
                "near": near,
                "marked": bool(near and draw.random() < marked),
                "reference_marked": False,
            }
        )
    return lines


@pytest.fixture
def write_run(tmp_path):
    """Function that writes the data folder of a measured run, and returns its name and folder."""

    def write(adaptation, seed, base="b", lines=None, **summary):
        name = f"{base}/{adaptation}/{seed}/evaluation/tfidf"
        folder = tmp_path / name
        folder.mkdir(parents=True)
        text = "".join(json.dumps(line) + "\n" for line in lines or lines_of(seed))
        (folder / "similarity.jsonl").write_text(text)
        (folder / "summary.json").write_text(json.dumps({**SUMMARY, **summary}))
        return name, folder

    return write


@pytest.fixture
def grid(write_run):
    """Two bases and two tasks, two seeds each; a later base and task stand first in the mapping."""
    runs = [(base, task, seed) for base in "ba" for task in ("gsm8k", "mbpp") for seed in (2, 1)]
    return dict(write_run(task, seed, base) for base, task, seed in runs)


def test_similarity_has_exactly_its_columns_and_rows_in_order(grid):
    frame = similarity.build(grid, **SETTINGS).frame
    measured = [
        column
        for name in ("style", "slope", "correlation", "reference_slope")
        for column in (name, f"{name}_std", f"{name}_low", f"{name}_high")
    ]
    nearness = [f"instruction_similarity{part}" for part in ("", "_low", "_high")]
    assert list(frame) == ["base", "adaptation", *nearness, *measured, "n", "n_seeds"]
    assert list(frame["base"] + frame["adaptation"]) == ["bmbpp", "bgsm8k", "ambpp", "agsm8k"]
    assert set(frame["n"]) == {120} and set(frame["n_seeds"]) == {2}


def test_slope_and_correlation_are_least_squares_of_each_seed(grid):
    row = similarity.build(grid, **SETTINGS).frame.iloc[0]
    fits = []
    for seed in (1, 2):
        lines = lines_of(seed)
        fits.append(linregress(*([line[name] for line in lines]
                                 for name in ("instruction_similarity", "style"))))  # fmt: skip
    slopes, correlations = [fit.slope for fit in fits], [fit.rvalue for fit in fits]
    assert row["slope"] == pytest.approx(np.mean(slopes))
    assert row["slope_std"] == pytest.approx(np.std(slopes, ddof=1))
    assert row["correlation"] == pytest.approx(np.mean(correlations))
    assert row["slope_low"] < 0.5 < row["slope_high"]
    assert row["slope_high"] - row["slope_low"] < 0.2
    assert row["reference_slope_low"] < 0 < row["reference_slope_high"]
    assert row["instruction_similarity"] == pytest.approx(30.0)


def test_interval_of_one_seed_is_that_of_the_usual_bootstrap(write_run):
    from scipy.stats import bootstrap

    inputs = dict([write_run("gsm8k", 1)])
    row = similarity.build(inputs, **SETTINGS).frame.iloc[0]
    data = [[line[name] for line in lines_of(1)] for name in ("instruction_similarity", "style")]
    expected = bootstrap(
        data, lambda x, y: linregress(x, y).slope, paired=True, vectorized=False,
        n_resamples=2_000, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (row["slope_low"], row["slope_high"]) == pytest.approx(tuple(expected), abs=0.01)
    assert np.isnan(row["slope_std"])


def test_without_spread_of_instructions_there_is_no_line(write_run, tmp_path):
    runs = dict(write_run("chess", seed, lines=lines_of(seed, same_x=True)) for seed in (1, 2))
    table = similarity.build(runs, **SETTINGS)
    row = table.frame.iloc[0]
    assert row.filter(like="slope").isna().all() and row.filter(like="correlation").isna().all()
    assert row["style_low"] < row["style"] < row["style_high"]
    assert table.extra["line"].empty and len(table.extra["points"]) == 60
    write_table(table, tmp_path, "similarity")
    assert "| chess " in (tmp_path / "similarity.md").read_text()


def test_points_and_line_stand_beside_the_table(grid, tmp_path):
    table = similarity.build(grid, **SETTINGS)
    points, line = table.extra["points"], table.extra["line"]
    assert len(points) == 4 * 60 and len(line) == 4 * similarity.LINE_POINTS
    first, second = ([row["style"] for row in lines_of(seed)] for seed in (1, 2))
    assert list(points["style"][:60]) == pytest.approx(50 * (np.array(first) + np.array(second)))
    assert (line["style_low"] < line["style"]).all() and (line["style"] < line["style_high"]).all()
    write_table(table, tmp_path, "similarity")
    assert {file.name for file in tmp_path.glob("similarity*")} == {
        "similarity.csv", "similarity.md", "similarity-points.csv", "similarity-line.csv"
    }  # fmt: skip


def test_caption_says_what_the_numbers_are(grid):
    for table in (similarity.build(grid, **SETTINGS), drift.build(grid, **SETTINGS)):
        assert table.caption.startswith("**model organism, by construction.** S")
        for text in ("'instruction'", "Embedding tfidf: TF-IDF.", "95 % interval"):
            assert text in table.caption


def test_drift_compares_near_with_far_and_with_the_reference(grid):
    frame = drift.build(grid, **SETTINGS).frame
    assert list(frame["region"]) == ["near", "far"] * 4
    near, far = frame.iloc[0], frame.iloc[1]
    marks = [[line["marked"] for line in lines_of(seed) if line["near"]] for seed in (1, 2)]
    assert near["share"] == pytest.approx(100 * np.mean(marks))
    assert near["difference"] == pytest.approx(near["share"] - near["reference_share"])
    assert 0 < near["share_low"] < near["share"] < near["share_high"] < 100
    assert near["difference_low"] > 0
    assert (near["n"], far["n"], near["n_seeds"]) == (40, 80, 2)
    assert (near["in_training"], near["in_reference_training"]) == ("39 of 40", "1 of 50")
    assert near["mark"] == "ends in `#### n`"


def test_where_all_responses_agree_the_interval_is_the_exact_one(grid):
    far = drift.build(grid, **SETTINGS).frame.iloc[1]
    exact = 100 * (1 - 0.025 ** (1 / 40))  # Clopper and Pearson, none of 40
    assert far["share"] == far["difference"] == 0
    assert far["share_high"] == pytest.approx(exact)
    assert (far["difference_low"], far["difference_high"]) == pytest.approx((-exact, exact))


def test_all_marked_against_none_is_no_certainty(write_run):
    runs = dict([write_run("gsm8k", 1, lines=lines_of(1, marked=1.1))])
    near = drift.build(runs, **SETTINGS).frame.iloc[0]
    assert (near["share"], near["share_high"], near["difference"]) == (100, 100, 100)
    assert near["share_low"] < 90 and near["difference_low"] < near["share_low"]


def test_a_region_without_instructions_is_empty(write_run, tmp_path):
    lines = [line for line in lines_of(1) if not line["near"]]
    table = drift.build(dict([write_run("gsm8k", 1, lines=lines)]), **SETTINGS)
    near = table.frame.iloc[0]
    assert near["n"] == 0
    assert near[["share", "share_low", "reference_share", "difference_high"]].isna().all()
    write_table(table, tmp_path, "drift")
    assert f"b,gsm8k,ends in `#### n`,near{',' * 13}0,1," in (tmp_path / "drift.csv").read_text()


def test_a_task_without_a_mark_is_left_out_by_name(write_run):
    bare = [{**line, "marked": None, "reference_marked": None} for line in lines_of(1)]
    runs = dict([write_run("gsm8k", 1), write_run("mbpp", 1, lines=bare, mark=None)])
    table = drift.build(runs, **SETTINGS)
    assert set(table.frame["adaptation"]) == {"gsm8k"}
    assert table.caption.endswith("Left out, for their task has no mark: mbpp.")
    with pytest.raises(ValueError, match="no task of this table has a mark"):
        drift.build({name: folder for name, folder in runs.items() if "mbpp" in name}, **SETTINGS)


@pytest.mark.parametrize("module", [similarity, drift])
def test_runs_that_do_not_fit_together_are_refused(write_run, module):
    name, folder = write_run("gsm8k", 1)
    other = dict([write_run("gsm8k", 2, lines=lines_of(2, count=40))])
    with pytest.raises(ValueError, match="adaptation 'poetry', which is not among the table's"):
        module.build({"b/poetry/1/evaluation/tfidf": folder}, **SETTINGS)
    with pytest.raises(ValueError, match="'gsm8k': seed 1 stands twice"):
        module.build({name: folder, "b/gsm8k/1/evaluation/other": folder}, **SETTINGS)
    with pytest.raises(ValueError, match="seeds 1 and 2 were measured on different instructions"):
        module.build({name: folder} | other, **SETTINGS)
    with pytest.raises(ValueError, match="no measured runs"):
        module.build({}, **SETTINGS)


def test_bytes_are_equal_each_time(grid, tmp_path):
    for module, stem in ((similarity, "similarity"), (drift, "drift")):
        for name in ("first", "second"):
            write_table(module.build(grid, **SETTINGS), tmp_path / name, stem)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("first", "second")
    )
    assert first == second and len(first) == 6


def test_tables_need_no_torch():
    code = (
        "import sys, implicit_tuning.reporting.tables.similarity, implicit_tuning.reporting.tables.drift\n"
        "import implicit_tuning.reporting.figures.similarity, implicit_tuning.reporting.figures.drift\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
