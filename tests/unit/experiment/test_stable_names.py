"""Stable copies: renewed when false, never of damaged files, and nobody else's files touched."""

import json
from pathlib import Path

import pytest

from implicit_tuning.experiment.stable_names import StableNames, write_stable_names
from implicit_tuning.nodes.artifact import BrokenArtifact
from implicit_tuning.nodes.job import building


@pytest.fixture
def names(make_spec, tmp_path):
    """An experiment of one table and one finetune, both built."""
    nodes = {}
    for stage, levels, name in (
        ("table", ("main",), "main.csv"),
        ("finetune", ("b", "a", "1"), "model.bin"),
    ):
        spec = make_spec(stage=stage, levels=levels, key="abc")
        with building(spec) as job:
            (job.data / name).write_text("content")
        nodes["/".join((stage, *levels))] = Path(json.loads(spec)["folder"])
    return StableNames(tmp_path / "results/mine", nodes)


def write_again(names):
    stamp = names.wanted_stamp()
    write_stable_names(names, stamp)
    return stamp


def test_copies_links_and_one_stamp(names):
    stamp = write_again(names)
    folder = names.folder
    assert (folder / "tables/main.csv").read_text() == "content"
    assert (folder / "current/finetune/b/a/1/data/model.bin").read_text() == "content"
    assert list(folder.glob(".stable_names.*")) == [stamp]
    assert names.wanted_stamp() == stamp


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_text("edited")])
def test_a_false_copy_asks_for_the_other_stamp_without_touching_anything(names, damage):
    first = write_again(names)
    damage(names.folder / "tables/main.csv")
    wanted = names.wanted_stamp()
    assert wanted != first
    assert first.is_file() and not wanted.exists()
    assert write_again(names) == wanted == names.wanted_stamp()
    assert (names.folder / "tables/main.csv").read_text() == "content"


def test_a_copy_nobody_makes_any_more_goes_and_other_files_stay(names):
    write_again(names)
    own = names.folder / "tables/notes.txt"
    own.write_text("mine")
    fewer = {name: path for name, path in names.nodes.items() if name != "table/main"}
    write_again(StableNames(names.folder, fewer))
    assert list((names.folder / "tables").iterdir()) == [own]


def test_a_damaged_table_is_not_copied(names):
    (names.nodes["table/main"] / "data/main.csv").write_text("CONTENT")
    with pytest.raises(BrokenArtifact, match="main.csv has other bytes"):
        write_stable_names(names, names.wanted_stamp())
    assert not names.folder.exists()
