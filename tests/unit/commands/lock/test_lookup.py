"""The lock file: read, written, and looked up on a hub."""

import hashlib
import json
import random
import subprocess
import sys

import pytest

from hub_server import COMMIT, TOKEN, Fault, HubServer, call_all
from implicit_tuning.data.formatting import format_training
from implicit_tuning.remote.lockfile import (
    HEADER,
    LockError,
    Pin,
    PinnedFile,
    lock_name,
    read_lock,
    write_pins,
)

OTHER_COMMIT = "1" * 40
LARGE = random.Random(0).randbytes(100_000)
NAME = "datasets/openai/gsm8k@main"
FILE = "main/train-00000-of-00001.parquet"
PINNED = PinnedFile("a" * 64, 2_306_545)
ENTRY = (
    f"{NAME}:\n  commit: {COMMIT}\n  files:\n    {FILE}: {{sha256: {'a' * 64}, size: 2306545}}\n"
)


def game(number, moves="1. e4 e5 1-0"):
    headers = [f'[Event "{number}"]', '[WhiteElo "1500"]', '[BlackElo "1600"]']
    return "\n".join([*headers, "", moves, ""]) + "\n"


# --- the file -----------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    file = tmp_path / "lock.yaml"
    pins = {
        NAME: Pin(COMMIT, {FILE: PINNED}),
        # Digits alone, which YAML would take for a number.
        "models/o/n@v1.0": Pin("1" * 40, {"config.json": PinnedFile("2" * 64, 0)}),
        "datasets/o/chess@refs/convert/parquet": Pin(
            "3" * 40, {"a b.txt": PinnedFile("4" * 64, 9, 7)}
        ),
    }
    write_pins(file, pins)
    assert read_lock(file) == pins
    assert file.read_text().startswith(HEADER)
    assert ENTRY in file.read_text()
    assert list(tmp_path.iterdir()) == [file]


def test_pins_are_added_in_the_order_of_their_names(tmp_path):
    one, other = (tmp_path / name for name in ("one.yaml", "other.yaml"))
    pins = {f"models/o/{n}@main": Pin(n * 40, {"x": PINNED}) for n in "cab"}
    for name, pin in pins.items():
        write_pins(one, {name: pin})
    write_pins(other, dict(reversed(pins.items())))
    assert one.read_bytes() == other.read_bytes()
    assert list(read_lock(one)) == sorted(pins)


def test_files_of_the_same_commit_are_kept_and_those_of_another_are_not(tmp_path):
    file = tmp_path / "lock.yaml"
    write_pins(file, {NAME: Pin(COMMIT, {"a": PINNED})})
    write_pins(file, {NAME: Pin(COMMIT, {"b": PINNED})})
    assert set(read_lock(file)[NAME].files) == {"a", "b"}
    write_pins(file, {NAME: Pin(OTHER_COMMIT, {"b": PINNED})})
    assert read_lock(file) == {NAME: Pin(OTHER_COMMIT, {"b": PINNED})}


def test_no_file_and_an_empty_file_hold_no_pins(tmp_path):
    file = tmp_path / "lock.yaml"
    assert read_lock(file) == {}
    write_pins(file, {})
    assert file.read_text() == HEADER and read_lock(file) == {}


def test_the_committed_lock_is_as_it_would_be_written(repository, tmp_path):
    committed = repository / "config/lock.yaml"
    write_pins(tmp_path / "lock.yaml", read_lock(committed))
    assert (tmp_path / "lock.yaml").read_text() == committed.read_text()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (NAME, "gsm8k@main", "'gsm8k@main' is no key such as datasets/owner/name@revision"),
        (COMMIT, "main", f"{NAME}.commit: 'main' is no commit"),
        ("commit:", "revision:", f"{NAME}: is not made of commit and files"),
        ("a" * 64, "a" * 63, f"{NAME}.files.{FILE}: sha256 '{'a' * 63}' is none of 64"),
        ("2306545", "big", f"{NAME}.files.{FILE}: size: 'big' does not belong there"),
        ("2306545", "1, first_row: 2", "first_row: '2' does not belong there"),
        (", size: 2306545", "", "is not made of sha256 and size"),
        (FILE, "../../train", "files.../../train: the path leads out of the repository"),
        (FILE, "/etc/train", "files./etc/train: the path leads out of the repository"),
    ],
)
def test_a_malformed_entry_is_named(tmp_path, old, new, problem):
    file = tmp_path / "lock.yaml"
    assert ENTRY.count(old) == 1
    file.write_text(ENTRY.replace(old, new))
    with pytest.raises(LockError) as raised:
        read_lock(file)
    for part in (str(file), problem, "make lock"):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["- a\n", f"{NAME}: [\n"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    file = tmp_path / "lock.yaml"
    file.write_text(text)
    with pytest.raises(LockError, match="lock.yaml: .*restore it") as raised:
        read_lock(file)
    assert "\n" not in str(raised.value)


def test_nothing_heavy_is_imported_to_read_it():
    heavy = {
        "torch",
        "transformers",
        "huggingface_hub",
        "datasets",
        "pyarrow",
        "pandas",
        "tenacity",
    }
    code = f"import sys, implicit_tuning.remote.lockfile; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names():
    assert lock_name("datasets", "openai/gsm8k", "main") == NAME


# --- looking up -----------------------------------------------------------------------------------

GAMES = [game(n) for n in range(3000)]
GAMES[1] = game(1, moves="1-0")  # without moves: not usable
GAMES[2] = GAMES[2].removesuffix("\n")  # no blank line before the next
CHESS = "".join(GAMES).encode()
LLAMA = {
    "model-00001-of-00002.safetensors": LARGE,
    "model-00002-of-00002.safetensors": LARGE[1:],
    "model.safetensors.index.json": b"{}",
    "config.json": b'{"a": 1}',
    "generation_config.json": b"{}",
    "tokenizer.json": LARGE[2:],
    "tokenizer.model": LARGE[3:],
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ x }}",
}
UNREAD = {
    ".gitattributes": b"*",
    ".hidden.json": b"{}",
    "README.md": b"#",
    "pytorch_model-00001-of-00002.bin": LARGE,
    "pytorch_model.bin.index.json": b"{}",
    "consolidated.safetensors": LARGE[4:],
    "consolidated.00.pth": LARGE,
    "original/params.json": b"{}",
    "onnx/config.json": b"{}",
    "onnx/model.safetensors": LARGE,
    "model.gguf": LARGE,
    "modeling_custom.py": b"import os",
}
SENTENCES = {
    "modules.json": b"[]",
    "config_sentence_transformers.json": b"{}",
    "model.safetensors": LARGE,
    "vocab.txt": LARGE[1:],
    "1_Pooling/config.json": b"{}",
    "2_Dense/model.safetensors": b"small",
}

ADAPTER = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": LARGE,
    "tokenizer.json": LARGE[1:],
}
UNREAD_OF_ADAPTER = {
    "README.md": b"#",
    "adapter_model.bin": LARGE,
    "training_args.bin": LARGE,
    "checkpoint-9/adapter_config.json": b"{}",
    "checkpoint-9/adapter_model.safetensors": LARGE[2:],
}


def resolve(function, repo="owner/plain", **changes):
    arguments = {"repo": repo, "revision": "main"}
    if function == "dataset":
        arguments |= {"file": "a/small.json", "formatter": None, "rows": None, "streamed": False}
    return [f"implicit_tuning.commands.lock.lookup.resolve_{function}", {**arguments, **changes}]


def chess(**changes):
    plain = {"file": "games.txt", "formatter": "chess", "rows": 5, "streamed": True}
    return resolve("dataset", "owner/chess", **{**plain, **changes})


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        plain = {"a/small.json": b"[]", "a/large.parquet": LARGE}
        hub.repository("datasets/owner/plain", plain, revisions=("main", "refs/convert/parquet"))
        hub.repository("datasets/owner/gated", plain, readers=())
        hub.repository("datasets/owner/busy", plain)
        hub.repository("datasets/owner/chess", {"games.txt": CHESS, "few.txt": CHESS[:1000]})
        hub.repository("models/owner/llama", {**LLAMA, **UNREAD})
        hub.repository("models/owner/sentences", {**SENTENCES, **UNREAD})
        hub.repository("models/owner/pickled", {"config.json": b"{}", "pytorch_model.bin": LARGE})
        hub.repository("models/owner/adapter", {**ADAPTER, **UNREAD_OF_ADAPTER})
        hub.repository("models/owner/both", {**LLAMA, **ADAPTER})
        yield hub


@pytest.fixture(scope="module")
def outcomes(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lock")
    hub.fail("/owner/busy/", Fault(429, {"RateLimit": '"api";r=0;t=55'}), Fault(status=502))
    calls = {
        "small": resolve("dataset"),
        "large": resolve("dataset", file="a/large.parquet", revision="refs/convert/parquet"),
        "commit": resolve("dataset", revision=COMMIT),
        "busy": resolve("dataset", "owner/busy"),
        "gated": resolve("dataset", "owner/gated"),
        "missing": resolve("model", "owner/missing"),
        "revision": resolve("dataset", revision="v2"),
        "file": resolve("dataset", file="small.json"),
        "unbounded": chess(rows=None),
        "chess": chess(),
        "few": chess(file="few.txt", rows=1000),
        "column": chess(formatter="gsm8k"),
        "llama": resolve("model", "owner/llama"),
        "sentences": resolve("model", "owner/sentences"),
        "pickled": resolve("model", "owner/pickled"),
        "adapter": resolve("model", "owner/adapter"),
        "both": resolve("model", "owner/both"),
    }
    return call_all(calls, hub.environment(folder))


def pin_of(files):
    pinned = {
        name: {
            "sha256": hashlib.sha256(c).hexdigest(),
            "size": len(c),
            "first_rows": None,
            "records": None,
        }
        for name, c in files.items()
    }
    return {"commit": COMMIT, "files": pinned}


def test_files_are_pinned_by_their_bytes(outcomes):
    assert outcomes.result("small") == pin_of({"a/small.json": b"[]"})
    assert outcomes.result("large") == pin_of({"a/large.parquet": LARGE})
    assert outcomes.result("commit") == outcomes.result("small")


def test_large_files_are_not_fetched_to_be_pinned(hub, outcomes):
    stored = {path: size for path, size in hub.sent.items() if path.startswith("/storage/")}
    # All but the one that is streamed.
    assert set(stored) == {f"/storage/{hashlib.sha256(CHESS).hexdigest()}"}


def test_models_are_pinned_by_the_files_that_are_read(outcomes):
    assert outcomes.result("llama") == pin_of(LLAMA)
    assert outcomes.result("sentences") == pin_of(SENTENCES)


def test_pickled_weights_are_refused(outcomes):
    message = outcomes.error("pickled", "LockError")
    assert "owner/pickled has no weights in safetensors at main" in message
    assert "never read" in message and "'path'" in message


def test_adapters_are_pinned_by_the_files_that_are_read(outcomes):
    assert outcomes.result("adapter") == pin_of(ADAPTER)


def test_a_model_with_an_adapter_beside_it_is_refused(outcomes):
    message = outcomes.error("both", "LockError")
    assert "owner/both has a model and an adapter (adapter_config.json) at main" in message


def test_a_busy_hub_is_asked_again(outcomes):
    assert outcomes.result("busy") == outcomes.result("small")
    assert outcomes.pauses("busy") == [55, 2]


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("gated", "HubFailed", ["no access to owner/gated (status 403)", "HF_TOKEN"]),
        ("missing", "HubFailed", ["there is no model owner/missing", "/owner/missing)"]),
        ("revision", "HubFailed", ["owner/plain has no revision 'v2'"]),
        ("file", "LockError", ["no file 'small.json' at main", "did you mean a/small.json"]),
        ("unbounded", "LockError", ["owner/chess/games.txt: 'streamed' needs 'rows'"]),
        ("column", "LockError", ["no column 'question'", "formatter 'gsm8k'"]),
    ],
)
def test_what_cannot_be_pinned(outcomes, name, kind, parts):
    message = outcomes.error(name, kind)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert TOKEN not in outcomes.output


def test_a_streamed_file_is_pinned_up_to_the_last_game_that_is_wanted(outcomes):
    pinned = outcomes.result("chess")["files"]["games.txt"]
    # Five usable games are in the first six; the sixth ends with the line behind its moves.
    lines = "".join(GAMES[:6]).splitlines()
    assert pinned["first_rows"] == len(lines)
    rows = "".join(json.dumps({"text": line}, separators=(",", ":")) + "\n" for line in lines)
    assert pinned["sha256"] == hashlib.sha256(rows.encode()).hexdigest()
    assert pinned["size"] == len(rows)


def test_a_file_with_fewer_games_is_pinned_whole(outcomes):
    pinned = outcomes.result("few")["files"]["few.txt"]
    assert pinned["records"] > 0
    assert pinned["first_rows"] == len(CHESS[:1000].decode().split("\n"))


def test_a_pinned_stream_is_what_the_download_brings(hub, outcomes, tmp_path):
    places = {"destination": str(tmp_path / "data"), "partial": str(tmp_path / "partial")}
    source = {"repo": "owner/chess", "commit": COMMIT, "file": "games.txt"}
    pinned = outcomes.result("chess")["files"]["games.txt"]
    calls = {
        "a": [
            "implicit_tuning.remote.fetching.fetch_dataset",
            {**source, "pinned": pinned, **places},
        ]
    }
    assert call_all(calls, hub.environment(tmp_path / "home")).result("a")
    report = format_training(
        tmp_path / "data/games.jsonl", "chess", 5, "given", tmp_path, exactly=True
    )
    assert (report.used, report.read, report.unusable) == (5, 6, {"no moves": [7]})
