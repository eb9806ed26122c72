"""Stable copies: renewed when false, never of damaged files, and nobody else's files touched."""

import json
from pathlib import Path

import pytest

from implicit_tuning.experiment.stable_names import Publication, publish
from implicit_tuning.nodes.artifact import BrokenArtifact
from implicit_tuning.nodes.job import building


@pytest.fixture
def publication(make_spec, tmp_path):
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
    return Publication(tmp_path / "results/mine", nodes)


def republish(publication):
    stamp = publication.wanted_stamp()
    publish(publication, stamp)
    return stamp


def test_copies_links_and_one_stamp(publication):
    stamp = republish(publication)
    folder = publication.folder
    assert (folder / "tables/main.csv").read_text() == "content"
    assert (folder / "current/finetune/b/a/1/data/model.bin").read_text() == "content"
    assert list(folder.glob(".published.*")) == [stamp]
    assert publication.wanted_stamp() == stamp


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_text("edited")])
def test_a_false_copy_asks_for_the_other_stamp_without_touching_anything(publication, damage):
    first = republish(publication)
    damage(publication.folder / "tables/main.csv")
    wanted = publication.wanted_stamp()
    assert wanted != first
    assert first.is_file() and not wanted.exists()
    assert republish(publication) == wanted == publication.wanted_stamp()
    assert (publication.folder / "tables/main.csv").read_text() == "content"


def test_a_copy_nobody_makes_any_more_goes_and_other_files_stay(publication):
    republish(publication)
    own = publication.folder / "tables/notes.txt"
    own.write_text("mine")
    fewer = {name: path for name, path in publication.nodes.items() if name != "table/main"}
    republish(Publication(publication.folder, fewer))
    assert list((publication.folder / "tables").iterdir()) == [own]


def test_a_damaged_table_is_not_published(publication):
    (publication.nodes["table/main"] / "data/main.csv").write_text("CONTENT")
    with pytest.raises(BrokenArtifact, match="main.csv has other bytes"):
        publish(publication, publication.wanted_stamp())
    assert not publication.folder.exists()
