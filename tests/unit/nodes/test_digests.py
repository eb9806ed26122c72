"""Digests and small files: sealed, written in one step, remembered where possible."""

import os

import pytest

from implicit_tuning.nodes.digests import DigestMemory, file_sha256
from implicit_tuning.nodes.files import read_sealed, seal, write_atomically

CONTENT = {"facts": {"loss": 0.25, "note": "naïve"}, "files": {}}


def test_what_was_sealed_is_read_again(tmp_path):
    file = tmp_path / "sealed.json"
    write_atomically(file, seal(CONTENT))
    assert read_sealed(file) == CONTENT


@pytest.mark.parametrize(
    "edit", [("0.25", "0.26"), ('"note"', '"nota"'), ('"sealed"', '"unsealed"'), ("}", "")]
)
def test_a_sealed_file_that_was_edited_is_refused(tmp_path, edit):
    file = tmp_path / "sealed.json"
    text = seal(CONTENT)
    assert edit[0] in text
    file.write_text(text.replace(*edit), encoding="utf-8")
    with pytest.raises(ValueError):
        read_sealed(file)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "file.txt"
    write_atomically(file, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert file.read_text() == "old"


def test_a_memory_that_cannot_be_written_says_so_and_planning_goes_on(tmp_path, caplog):
    source = tmp_path / "source.txt"
    source.write_text("content")
    (tmp_path / "cache").symlink_to("nowhere")
    memory = DigestMemory(tmp_path / "cache/digests.json")
    assert memory.of_file(source) == file_sha256(source)
    memory.save()
    assert "sources will be hashed again next time" in caplog.text
