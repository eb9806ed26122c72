"""Files and models of the hub: fetched whole and checked, whatever the connection does."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hub_server import COMMIT, TOKEN, Fault, HubServer, call_all, start_calls
from implicit_tuning.nodes.artifact import read_manifest

CONTENT = b'{"instruction": "How?"}\n' * 100
LARGE = random.Random(0).randbytes(24_000_000)
SHARDS = {
    f"model-0000{n}-of-00002.safetensors": random.Random(n).randbytes(2_000_000) for n in (1, 2)
}
MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b'{"model": 1}' * 2_000,
    "1_Pooling/config.json": b'{"pooling": true}',
    **SHARDS,
}
OLD = "d" * 40
# The library writes ten mebibytes at a time.
WRITTEN = 10 * 2**20


def large(name):
    """Another large file for each test, since the storage knows files by their bytes alone."""
    return LARGE + name.encode()


def stored(content):
    return f"/storage/{pin(content)['sha256']}"


def pin(content, **changes):
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **changes}


def dataset(folder, repo="owner/plain", content=CONTENT, **changes):
    plain = {"repo": repo, "commit": COMMIT, "file": "train.jsonl", "pinned": pin(content)}
    places = {"destination": str(folder / "data"), "partial": str(folder / "partial")}
    return ["implicit_tuning.remote.fetching.fetch_dataset", {**plain, **places, **changes}]


def model(folder, files=MODEL, **changes):
    pins = {name: pin(content) for name, content in files.items()}
    places = {"destination": str(folder / "data"), "partial": str(folder / "partial")}
    plain = {"repo": "owner/model", "commit": COMMIT, "files": pins, **places}
    return ["implicit_tuning.remote.fetching.fetch_model", {**plain, **changes}]


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        files = {"train.jsonl": CONTENT, "main/part 1/train.jsonl": CONTENT}
        hub.repository("datasets/owner/plain", files)
        hub.repository("datasets/owner/changed", {"train.jsonl": CONTENT[:-1] + b" "})
        hub.repository("datasets/owner/gated", {"train.jsonl": CONTENT}, readers=("another",))
        for name in ("reset", "busy", "down", "limit", "asleep"):
            hub.repository(f"datasets/owner/{name}", {"train.jsonl": CONTENT})
        for name in ("cut", "sent again", "damaged", *LEFT):
            hub.repository(f"datasets/large/{name.replace(' ', '-')}", {"train.bin": large(name)})
        hub.repository("models/owner/model", MODEL)
        yield hub


# What may lie in the folder for unfinished work, and how often the file is then asked for.
LEFT = {
    "whole": (large("whole"), 0),
    "too long": (large("too long") + b"more", 1),
    "spoilt": (b"?" * 100 + large("spoilt")[100:], 0),
    "wrongly pinned": (large("wrongly pinned"), 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


def large_dataset(folder, name):
    repo = f"large/{name.replace(' ', '-')}"
    return dataset(folder / name, repo, large(name), file="train.bin")


@pytest.fixture(scope="module")
def outcomes(hub, folder):
    """Most calls in one process, to pay for the import once."""
    hub.fail("/owner/reset/", Fault(cut_after=1_000, reset=True))
    hub.fail("/owner/busy/", *[Fault(429, {"Retry-After": "7"})] * 2, Fault(status=503))
    hub.fail("/owner/limit/", *[Fault(429, {"Retry-After": "7"})] * 100)
    hub.fail("/owner/down/", *[Fault(status=503)] * 100)
    hub.fail("/owner/asleep/", Fault(503, {"Retry-After": "3600"}))
    hub.fail(stored(large("cut")), Fault(cut_after=15_000_000), Fault(status=503))
    hub.fail(stored(large("sent again")), Fault(cut_after=15_000_000), Fault(ignores_range=True))
    hub.fail(stored(large("damaged")), Fault(content=large("another")))
    for name, (left, _) in LEFT.items():
        (folder / name / "partial").mkdir(parents=True)
        (folder / name / "partial/train.bin.incomplete").write_bytes(left)
    calls = {
        "plain": dataset(folder / "plain"),
        "nested": dataset(folder / "nested", file="main/part 1/train.jsonl"),
        "changed": dataset(folder / "changed", "owner/changed"),
        "gated": dataset(folder / "gated", "owner/gated"),
        "missing": dataset(folder / "missing", "owner/missing"),
        "revision": dataset(folder / "revision", commit=OLD),
        "file": dataset(folder / "file", file="none.jsonl"),
        "reset": dataset(folder / "reset", "owner/reset"),
        "busy": dataset(folder / "busy", "owner/busy"),
        "limit": dataset(folder / "limit", "owner/limit"),
        "down": dataset(folder / "down", "owner/down"),
        "asleep": dataset(folder / "asleep", "owner/asleep"),
        "model": model(folder / "model"),
        "without a shard": model(folder / "shard", {**MODEL, "model-00003-of-3.safetensors": b"3"}),
        "changed shard": model(folder / "other", {**MODEL, "tokenizer.json": b"other"}),
        **{name: large_dataset(folder, name) for name in ("cut", "sent again", "damaged", *LEFT)},
        "damaged, again": large_dataset(folder, "damaged"),
    }
    calls["wrongly pinned"][1]["pinned"]["size"] += 1
    return call_all(calls, hub.environment(folder / "home"))


# --- what is there --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "nested"])
def test_pinned_file_is_fetched_as_a_regular_file(outcomes, folder, name):
    file = folder / name / "data/train.jsonl"
    assert outcomes.result(name) == str(file)
    assert file.read_bytes() == CONTENT
    assert not file.is_symlink()
    # Nothing is left of the work, neither beside the file nor in the folder for it.
    assert files_below(folder / name) == {"data/train.jsonl": file}
    assert not (folder / name / "partial").exists()


def test_the_pinned_commit_is_asked_for(hub, outcomes):
    asked = {request.path for request in hub.asked_for("/owner/plain/")}
    assert f"/datasets/owner/plain/resolve/{COMMIT}/train.jsonl" in asked
    assert not any("/main/train.jsonl" in path for path in asked)


def test_model_is_fetched_with_its_folders(outcomes, folder):
    assert outcomes.result("model")
    found = files_below(folder / "model/data")
    assert {name: path.read_bytes() for name, path in found.items()} == MODEL
    assert not (folder / "model/partial").exists()


# --- what is not there ----------------------------------------------------------------------------


def test_changed_content_is_refused_and_not_kept(outcomes, folder):
    found = hashlib.sha256(CONTENT[:-1] + b" ").hexdigest()
    message = outcomes.error("changed")
    for part in ("owner/changed/train.jsonl", COMMIT, found, pin(CONTENT)["sha256"], "make lock"):
        assert part in message
    assert files_below(folder / "changed") == {}


def test_file_of_another_size_is_refused_and_not_kept(outcomes, folder):
    assert "24000 bytes with sha256" in outcomes.error("changed shard")
    assert "tokenizer.json" not in files_below(folder / "other/partial")


def test_no_access(outcomes, folder, hub):
    message = outcomes.error("gated")
    page = f"{hub.url}/datasets/owner/gated"
    for part in ("owner/gated (status 403)", "accept its conditions", page, "HF_TOKEN", "'path'"):
        assert part in message
    assert outcomes.pauses("gated") == []


def test_no_access_without_a_token(hub, tmp_path):
    calls = {"a": dataset(tmp_path, "owner/gated")}
    message = call_all(calls, hub.environment(tmp_path / "home", HF_TOKEN="")).error("a")
    assert "no access to owner/gated (status 401)" in message and "HF_TOKEN" in message


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("missing", "there is no data set owner/missing"),
        ("revision", f"owner/plain has no revision '{OLD}'"),
        ("file", f"owner/plain has no file 'none.jsonl' at {COMMIT}"),
        ("without a shard", f"has no file 'model-00003-of-3.safetensors' at {COMMIT}"),
    ],
)
def test_what_is_not_there_is_not_asked_for_again(outcomes, folder, name, part):
    assert part in outcomes.error(name)
    assert outcomes.pauses(name) == []


def test_a_model_is_handed_over_whole_or_not_at_all(outcomes, folder):
    assert "error" in outcomes.by_name["without a shard"]
    assert not (folder / "shard/data").exists()
    kept = files_below(folder / "shard/partial")
    assert set(SHARDS) <= set(kept) and kept["config.json"].read_bytes() == MODEL["config.json"]


# --- a hub that is busy, or out of reach ----------------------------------------------------------


def test_busy_hub_is_asked_again_after_the_time_that_it_names(outcomes, folder):
    assert outcomes.result("busy")
    # Twice what Retry-After says, which the library rounds up, and then the usual back-off.
    assert outcomes.pauses("busy") == [8, 8, 1]
    assert (folder / "busy/data/train.jsonl").read_bytes() == CONTENT


def test_a_limit_that_stays_is_named(outcomes):
    message = outcomes.error("limit")
    assert "status 429; it asks to wait 7 s" in message and "HF_TOKEN" in message
    assert all(pause >= 7 for pause in outcomes.pauses("limit"))


def test_hub_that_stays_down_is_named_after_some_patience(outcomes, folder):
    assert "could not be reached (status 503)" in outcomes.error("down")
    assert outcomes.pauses("down") == [1, 2, 4, 8, 16]
    assert not (folder / "down/data").exists()


def test_hub_that_is_down_for_long_is_not_waited_for(outcomes):
    assert "could not be reached (status 503)" in outcomes.error("asleep")
    assert outcomes.pauses("asleep") == []


def test_offline_and_out_of_reach(hub, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # The port is closed again: nobody listens there.
    places = ({"HF_ENDPOINT": f"http://127.0.0.1:{port}"}, {"HF_HUB_OFFLINE": "1"})
    calls = {"a": dataset(tmp_path)}
    for changes, reason in zip(places, ("ConnectError", "OfflineModeIsEnabled"), strict=True):
        outcomes = call_all(calls, hub.environment(tmp_path / "home", **changes))
        message = outcomes.error("a")
        for part in ("owner/plain/train.jsonl", "could not be reached", reason, "'path'"):
            assert part in message
        assert TOKEN not in outcomes.output
    assert not (tmp_path / "data").exists()


def test_token_goes_to_the_hub_alone(hub, outcomes):
    sent = {(r.path.split("/")[1], r.headers.get("authorization")) for r in hub.requests}
    assert ("datasets", f"Bearer {TOKEN}") in sent
    assert {token for place, token in sent if place == "storage"} == {None}
    assert TOKEN not in outcomes.output


# --- transfers that break -------------------------------------------------------------------------


def test_a_reset_connection_is_opened_again(outcomes, folder):
    assert outcomes.result("reset")
    assert (folder / "reset/data/train.jsonl").read_bytes() == CONTENT


def test_a_cut_transfer_goes_on_where_it_was_cut(hub, outcomes, folder):
    assert outcomes.result("cut")
    path = stored(large("cut"))
    ranges = [request.headers.get("range") for request in hub.asked_for(path)]
    assert ranges == [None, f"bytes={WRITTEN}-", f"bytes={WRITTEN}-"]
    assert hub.sent[path] == 15_000_000 + len(large("cut")) - WRITTEN
    assert (folder / "cut/data/train.bin").read_bytes() == large("cut")


def test_a_server_that_sends_all_again_spoils_nothing(outcomes, folder):
    assert outcomes.result("sent again")
    assert (folder / "sent again/data/train.bin").read_bytes() == large("sent again")


def test_damage_on_the_way_is_found_and_fetched_anew(outcomes, folder):
    assert "changed or damaged" in outcomes.error("damaged")
    assert outcomes.result("damaged, again")
    assert (folder / "damaged/data/train.bin").read_bytes() == large("damaged")


@pytest.mark.parametrize("name", LEFT)
def test_what_an_earlier_run_left_is_checked(hub, outcomes, folder, name):
    assert len(hub.asked_for(stored(large(name)))) == LEFT[name][1]
    if name in ("spoilt", "wrongly pinned"):
        assert "not kept" in outcomes.error(name) and files_below(folder / name) == {}
    else:
        assert (folder / name / "data/train.bin").read_bytes() == large(name)


def wait_for_bytes(file, size, seconds=30.0):
    until = time.monotonic() + seconds
    while not (file.exists() and file.stat().st_size >= size):
        assert time.monotonic() < until, f"{file} did not grow to {size} bytes"
        time.sleep(0.01)


def test_a_killed_download_goes_on_in_the_next_run(tmp_path):
    files = {"a.safetensors": SHARDS["model-00001-of-00002.safetensors"], "b.safetensors": LARGE}
    with HubServer() as hub:
        hub.repository("models/owner/model", files)
        hub.fail(stored(LARGE), Fault(stall_after=15_000_000))
        environment = hub.environment(tmp_path / "home")
        process = start_calls({"a": model(tmp_path, files)}, environment)
        wait_for_bytes(tmp_path / "partial/b.safetensors.incomplete", WRITTEN)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "data").exists()
        assert call_all({"a": model(tmp_path, files)}, environment).result("a")
        asked = [request.headers.get("range") for request in hub.asked_for("/storage/")]
    # The first file is not fetched again, and of the second what was missing.
    assert asked == [None, None, f"bytes={WRITTEN}-"]
    assert {name: f.read_bytes() for name, f in files_below(tmp_path / "data").items()} == files


# --- first rows -----------------------------------------------------------------------------------

LINES = [f' [Event "Game {n}"] {"café" * 25} ' for n in range(400_000)]
ROWS = b"".join(
    json.dumps({"text": line}, separators=(",", ":")).encode() + b"\n" for line in LINES[:5000]
)


@pytest.fixture(scope="module")
def streams(hub, folder):
    table = pyarrow.table({"text": LINES})
    parquet = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, parquet, row_group_size=1000, compression="none")
    files = {
        "games.pgn": "\n".join(LINES).encode(),
        "games.txt": "\r\n".join(LINES[:10_000]).encode(),
        "games.jsonl": b"\xef\xbb\xbf\n" + ROWS,
        "default/train/0000.parquet": parquet.getvalue().to_pybytes(),
        "broken.jsonl": b'{"text": ',
        "games.csv": b"text\n",
        "latin.txt": b"caf\xe9\n",
        "dates.parquet": dates(),
        "small.parquet": b"PAR1",
    }
    hub.repository("datasets/owner/games", files)
    hub.fail("games.txt", Fault(cut_after=3_000))
    pinned = pin(ROWS, first_rows=5000)
    calls = {
        name: dataset(folder / "rows" / name.replace("/", "-"), "owner/games", file=name)
        for name in files
    }
    hub.repository("datasets/owner/hidden", {"games.parquet": b""}, readers=("another",))
    for name, repo in {"hidden": "owner/hidden", "none": "owner/games"}.items():
        calls[name] = dataset(folder / "rows" / name, repo, file=f"{name}/games.parquet")
    for _, arguments in calls.values():
        arguments["pinned"] = pinned
    return call_all(calls, hub.environment(folder / "home")), files


def dates():
    table = pyarrow.table({"day": pyarrow.array([0], pyarrow.date32())})
    output = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, output)
    return output.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "name", ["games.pgn", "games.txt", "games.jsonl", "default/train/0000.parquet"]
)
def test_first_rows_are_kept_in_one_spelling(streams, folder, name):
    outcomes, _ = streams
    file = (
        folder
        / "rows"
        / name.replace("/", "-")
        / "data"
        / f"{name.split('/')[-1].split('.')[0]}.jsonl"
    )
    assert outcomes.result(name) == str(file)
    assert file.read_bytes() == ROWS


@pytest.mark.parametrize("name", ["games.pgn", "default/train/0000.parquet"])
def test_no_more_is_sent_than_the_first_rows_need(hub, streams, name):
    _, files = streams
    assert len(files[name]) > 40_000_000
    assert 0 < hub.sent[stored(files[name])] < 12_000_000


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("games.csv", "a file of kind '.csv' cannot be streamed"),
        ("broken.jsonl", "owner/games/broken.jsonl is no .jsonl file in UTF-8"),
        ("small.parquet", "owner/games/small.parquet is no .parquet file"),
        ("latin.txt", "owner/games/latin.txt is no .txt file in UTF-8"),
        ("hidden", "no access to owner/hidden (status 403)"),
        ("none", f"owner/games has no file 'none/games.parquet' at {COMMIT}"),
        ("dates.parquet", "row 1: Object of type date is not JSON serializable"),
    ],
)
def test_what_cannot_be_streamed(streams, name, part):
    outcomes, _ = streams
    assert part in outcomes.error(name)


def test_other_first_rows_than_pinned_are_refused(hub, tmp_path):
    pinned = pin(ROWS, first_rows=4999)
    calls = {"a": dataset(tmp_path, "owner/games", file="games.jsonl", pinned=pinned)}
    hub.repository("datasets/owner/games", {"games.jsonl": ROWS})
    message = call_all(calls, hub.environment(tmp_path / "home")).error("a")
    assert message.startswith("the first 4999 rows of owner/games/games.jsonl")
    assert files_below(tmp_path) == {}


# --- the scripts ----------------------------------------------------------------------------------

SCRIPT = """
import runpy, sys
from types import SimpleNamespace
script, spec, log = sys.argv[1:]
snakemake = SimpleNamespace(params=SimpleNamespace(node=spec), log=[log])
runpy.run_path(script, {"snakemake": snakemake}, "__main__")
"""


def run_script(hub, repository, spec, script, tmp_path):
    log = tmp_path / "job.log"
    path = repository / f"workflow/scripts/{script}.py"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, spec, log],
        env={**os.environ, **hub.environment(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, Path(json.loads(spec)["folder"]), log.read_text()


HUB_FILE = {"repo": "owner/plain", "commit": COMMIT, "file": "train.jsonl"}
UNSTREAMED = {"first_rows": None}


@pytest.mark.parametrize(
    ("script", "settings", "runtime", "files"),
    [
        ("download", {"hub": HUB_FILE}, pin(CONTENT, **UNSTREAMED), {"train.jsonl": CONTENT}),
        (
            "fetch",
            {"repo": "owner/model", "commit": COMMIT},
            {"files": {name: pin(content, **UNSTREAMED) for name, content in MODEL.items()}},
            MODEL,
        ),
    ],
    ids=["download", "fetch"],
)
def test_scripts_build_a_node_of_what_is_pinned(
    hub, repository, make_spec, tmp_path, script, settings, runtime, files
):
    spec = make_spec(stage=script, levels=("x",), settings=settings, runtime=runtime)
    done, folder, log = run_script(hub, repository, spec, script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {n: f.read_bytes() for n, f in files_below(folder / "data").items()} == files
    manifest = read_manifest(folder)
    assert manifest["settings"] == settings and set(manifest["files"]) == set(files)
    assert not (tmp_path / "results/partial/p-k1").exists()
    assert TOKEN not in log + json.dumps(manifest)


@pytest.mark.parametrize(("content", "fits"), [(CONTENT, True), (b"another", False)])
def test_a_file_of_the_web_is_taken_if_it_is_the_pinned_one(
    hub, repository, make_spec, tmp_path, content, fits
):
    address = f"{hub.url}/datasets/owner/plain/resolve/main/train.jsonl"
    url = {"address": address, "sha256": pin(content)["sha256"]}
    spec = make_spec(stage="download", levels=("x",), settings={"url": url})
    done, folder, log = run_script(hub, repository, spec, "download", tmp_path)
    if fits:
        assert (folder / "data/train.jsonl").read_bytes() == CONTENT
    else:
        assert done.returncode == 1 and not (folder / "data").exists()
        for part in (address, pin(CONTENT)["sha256"], url["sha256"], "'sha256' of its entry"):
            assert part in done.stderr and part in log
