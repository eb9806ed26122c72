"""`prune`: what it lists, and when it deletes nothing."""

import argparse

import pytest

from implicit_tuning.commands import planned, prune
from implicit_tuning.nodes.node import KeyNotKnown


@pytest.fixture
def earlier(repository, tmp_path, monkeypatch):
    """A node that an earlier release built, in results where nothing else is."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(planned, "RESULTS", tmp_path)
    file = tmp_path / "nodes/finetune/organism-llama/response/1/0123abcd/data/model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(2_500_000))
    return file.parents[1]


def asked(force):
    return argparse.Namespace(configfile=None, config=[], force=force)


def test_nodes_of_earlier_keys_are_listed_with_their_size(earlier, capsys):
    assert prune.run(asked(force=False)) == 0
    line, total = capsys.readouterr().out.splitlines()
    assert line.split() == ["2.5", "MB", str(earlier)]
    assert "nothing deleted" in total
    assert earlier.is_dir()


def test_nothing_is_deleted_while_a_key_is_not_known(earlier):
    with pytest.raises(KeyNotKnown):
        prune.run(asked(force=True))
    assert earlier.is_dir()
