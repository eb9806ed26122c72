"""Artifacts: nothing half-written counts, and nothing damaged is read."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from implicit_tuning.nodes.artifact import (
    BrokenArtifact,
    find_damage,
    is_released,
    read_manifest,
    release,
    require_whole,
)
from implicit_tuning.nodes.digests import file_sha256, source_sha256
from implicit_tuning.nodes.job import building


def build(spec, text="content"):
    with building(spec) as job:
        (job.data / "file.txt").write_text(text)
        job.facts["count"] = 3
    return folder_of(spec)


def folder_of(spec):
    return Path(json.loads(spec)["folder"])


def copy_input(spec, name):
    with building(spec) as job:
        source = job.read(name)
        file = source / "file.txt" if source.is_dir() else source
        (job.data / "copy.txt").write_text(file.read_text())


def upstream(folder, key="k0"):
    return {"above": {"node": str(folder), "key": key}}


def test_manifest_describes_what_was_built(make_spec):
    folder = build(make_spec(settings={"rate": 0.1}))
    manifest = read_manifest(folder)
    data = folder / "data/file.txt"
    assert manifest["files"] == {"file.txt": {"sha256": file_sha256(data), "size": 7}}
    assert manifest["levels"] == {"base": "b", "adaptation": "a", "seed": "1"}
    assert manifest["settings"] == {"rate": 0.1}
    assert manifest["facts"] == {"count": 3}
    assert list(manifest["code"]["modules"]) == [
        "implicit_tuning.data.derangement", "implicit_tuning.data.reading", "shuffle"
    ]  # fmt: skip
    names = sorted(p.name for p in folder.iterdir())
    assert names == [".lock", "data", "manifest.json", "weights"]


def test_equal_content_has_an_equal_digest_whatever_the_key(make_spec):
    first, second = build(make_spec(key="k1")), build(make_spec(key="k2"))
    other = build(make_spec(key="k3"), text="changed")
    digests = [read_manifest(folder)["digest"] for folder in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def test_inputs_and_their_digests_are_recorded(make_spec):
    above = build(make_spec(key="k0"))
    with building(make_spec(key="k1", upstream=upstream(above))) as job:
        text = (job.read("above", "file.txt")).read_text()
        (job.data / "copy.txt").write_text(text)
    recorded = read_manifest(folder_of(make_spec(key="k1")))["upstream"]
    assert recorded == {"above": {"key": "k0", "digest": read_manifest(above)["digest"]}}


def test_an_error_leaves_nothing_that_counts_and_one_line(make_spec, tmp_path):
    spec, log = make_spec(), tmp_path / "job.log"
    line = r"^finetune/b/a/1: ValueError: row 3 is wrong$"
    with pytest.raises(SystemExit, match=line), building(spec, str(log)) as job:
        (job.data / "file.txt").write_text("half")
        raise ValueError("row 3 is wrong")
    assert [path.name for path in folder_of(spec).iterdir()] == [".lock"]
    assert "Traceback" in log.read_text()


def test_a_killed_job_leaves_nothing_that_counts(make_spec, tmp_path):
    spec = make_spec()
    code = (
        "import sys, time\nfrom implicit_tuning.nodes.job import building\n"
        "with building(sys.argv[1]) as job:\n"
        "    (job.data / 'file.txt').write_text('half')\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, spec], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(BrokenArtifact, match="not built"):
        read_manifest(folder_of(spec))
    assert find_damage(build(spec), read_bytes=True) == []


def test_data_without_manifest_is_replaced(make_spec):
    spec = make_spec()
    (folder_of(spec) / "data").mkdir(parents=True)
    (folder_of(spec) / "data/stale.txt").write_text("from a process that died")
    assert [p.name for p in (build(spec) / "data").iterdir()] == ["file.txt"]


def test_a_second_builder_waits_and_keeps_what_the_first_built(make_spec):
    spec = make_spec()
    code = (
        "import sys\nfrom implicit_tuning.nodes.job import building\n"
        "with building(sys.argv[1]) as job:\n"
        "    (job.data / 'file.txt').write_text('second')\n"
    )
    with building(spec) as job:
        second = subprocess.Popen(
            [sys.executable, "-c", code, spec], stderr=subprocess.PIPE, text=True
        )
        assert "waiting until it ends" in second.stderr.readline()
        (job.data / "file.txt").write_text("first")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "was built by another process; kept as it is" in said
    assert (folder_of(spec) / "data/file.txt").read_text() == "first"


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-3], lambda b: b[:-9] + b"\xff" + b[-8:], lambda b: b.replace(b"3", b"4")],
)
def test_a_manifest_that_is_not_what_was_written_is_refused(make_spec, damage):
    manifest = build(make_spec()) / "manifest.json"
    manifest.write_bytes(damage(manifest.read_bytes()))
    with pytest.raises(BrokenArtifact, match="manifest.json is damaged .*make repair"):
        read_manifest(manifest.parent)


def test_a_node_that_lost_a_file_is_built_again(make_spec):
    spec = make_spec()
    (build(spec, text="whole") / "data/file.txt").unlink()
    assert find_damage(build(spec, text="again"), read_bytes=True) == []
    with pytest.raises(SystemExit) as left, building(spec):
        raise AssertionError("it stands, so nothing is built")
    assert left.value.code == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_text("cut"), "has 3 bytes instead of 7"),
        (lambda file: file.write_text("CONTENT"), "has other bytes than its manifest says"),
    ],
)
def test_a_damaged_input_is_refused_and_named(make_spec, damage, message):
    above = build(make_spec(key="k0"))
    damage(above / "data/file.txt")
    with pytest.raises(BrokenArtifact, match=message):
        require_whole(above, read_bytes=True)
    with pytest.raises(SystemExit, match="file.txt.*make repair"):
        copy_input(make_spec(key="k1", upstream=upstream(above)), "above")
    assert not (folder_of(make_spec(key="k1")) / "data").exists()


def test_only_the_file_that_is_read_is_hashed(make_spec):
    with building(make_spec(key="k0")) as job:
        (job.data / "history.txt").write_text("small")
        (job.data / "weights.bin").write_text("large")
    above = folder_of(make_spec(key="k0"))
    (above / "data/weights.bin").write_text("LARGE")
    with building(make_spec(key="k1", upstream=upstream(above))) as job:
        assert job.read("above", "history.txt").read_text() == "small"
        with pytest.raises(BrokenArtifact, match="weights.bin has other bytes"):
            job.read("above")
        with pytest.raises(BrokenArtifact, match="other.txt is not in the manifest"):
            job.read("above", "other.txt")


def test_weights_that_were_given_up_are_no_damage_but_cannot_be_read(make_spec):
    with building(make_spec(key="k0")) as job:
        (job.data / "history.txt").write_text("small")
        (job.data / "model.safetensors").write_bytes(b"x" * 1000)
    above = folder_of(make_spec(key="k0"))
    assert not is_released(above)
    assert release(above) == 1000
    assert is_released(above)
    assert find_damage(above, read_bytes=True, released=True) == []
    with building(make_spec(key="k1", upstream=upstream(above))) as job:
        assert job.read("above", "history.txt").read_text() == "small"
        with pytest.raises(BrokenArtifact, match="model.safetensors is missing"):
            job.read("above")
    (above / "data/history.txt").unlink()
    [damage] = find_damage(above, read_bytes=True, released=True)
    assert "history.txt is missing" in damage


def test_a_source_that_changed_after_planning_is_refused(make_spec, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("planned")
    planned = {"rows": {"source": str(source), "digest": source_sha256(source)}}
    source.write_text("changed")
    with pytest.raises(SystemExit, match="rows.jsonl changed after the run was planned"):
        copy_input(make_spec(upstream=planned), "rows")


def test_code_that_changed_after_planning_is_refused(make_spec):
    with pytest.raises(SystemExit, match="changed after the run was planned"):
        build(make_spec(fingerprint="another"))


def test_a_log_that_another_run_deleted_stands_again(make_spec, tmp_path):
    log = tmp_path / "job.log"
    with building(make_spec(), str(log)) as job:
        (job.data / "file.txt").write_text("content")
        print("half the work")
        log.unlink()
        print("all of it")
    assert log.read_text() == "half the work\nall of it\n"
