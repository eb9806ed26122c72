"""Hub files: a server on loopback plays the hub for the real huggingface_hub.

huggingface_hub reads its endpoint when it is imported, so the downloads run in a process of their
own, all in one to pay for the import once.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_secretTokenOfNobody"
CONTENT = b'{"instruction": "How?"}\n' * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()

# Runs in the other process: each call of fetch_hub, and what came of it. Pauses between the
# library's own retries are skipped.
DRIVER = """
import json, sys, time
from pathlib import Path
time.sleep = lambda seconds: None
from implicit_tuning.sources import DownloadFailed, fetch_hub
for name, call in json.load(sys.stdin).items():
    destination = Path(call.pop("destination"))
    try:
        result = {"file": str(fetch_hub(**call, destination=destination))}
    except DownloadFailed as error:
        result = {"error": str(error)}
    print("outcome", json.dumps([name, result]))
"""


class FakeHub(BaseHTTPRequestHandler):
    """HEAD and GET of /datasets/<owner>/<name>/resolve/<revision>/<file>, with redirects of large
    files to a storage that bears another host name, as the hub's do."""

    def do_HEAD(self):
        self.respond(with_body=False)

    def do_GET(self):
        self.respond(with_body=True)

    def respond(self, with_body):
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/storage/"):
            return self.send(200, {}, CONTENT, with_body)
        _owner, name, _, revision, file = self.path.removeprefix("/datasets/").split("/", 4)
        if name == "gated":
            return self.send(403, {"X-Error-Code": "GatedRepo"})
        if name == "private":
            return self.send(401, {})
        if name == "missing":
            return self.send(404, {"X-Error-Code": "RepoNotFound"})
        if name == "down":
            return self.send(503, {})
        if revision != COMMIT:
            return self.send(404, {"X-Error-Code": "RevisionNotFound"})
        if file == "none.jsonl":
            return self.send(404, {"X-Error-Code": "EntryNotFound"})
        content = CONTENT[:-1] + b" " if name == "changed" else CONTENT
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if name == "large":
            port = self.server.server_port
            headers |= {
                "X-Linked-ETag": f'"{SHA256}"',
                "X-Linked-Size": str(len(CONTENT)),
                "Location": f"http://localhost:{port}/storage/{SHA256}",
            }
            return self.send(302, headers)
        return self.send(200, headers, content, with_body)

    def send(self, status, headers, content=b"", with_body=False):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *args):
        """Keep the test's output clean."""


@dataclass
class Outcomes:
    results: dict[str, dict] = field(default_factory=dict)
    output: str = ""
    requests: list = field(default_factory=list)

    def error(self, name):
        assert "error" in self.results[name], self.results[name]
        return self.results[name]["error"]


def fetch_all(calls, home, **environment):
    """Outcomes of fetch_hub calls in a process with this environment."""
    plain = {"HF_HOME": str(home), "NO_PROXY": "*", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(calls),
        env={**os.environ, **plain, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = Outcomes(output=done.stdout + done.stderr)
    assert done.returncode == 0, outcomes.output
    for line in done.stdout.splitlines():
        if line.startswith("outcome "):
            name, result = json.loads(line.removeprefix("outcome "))
            outcomes.results[name] = result
    return outcomes


def call(destination, repo, **changes):
    plain = {"repo": repo, "revision": COMMIT, "file": "train.jsonl", "sha256": SHA256}
    return {**plain, "destination": str(destination), **changes}


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def outcomes(hub, folder):
    calls = {
        "plain": call(folder / "plain", "owner/plain"),
        "nested": call(folder / "nested", "owner/plain", file="main/part 1/train.jsonl"),
        "large": call(folder / "large", "owner/large"),
        "changed": call(folder / "changed", "owner/changed"),
        "gated": call(folder / "gated", "owner/gated"),
        "private": call(folder / "private", "owner/private"),
        "missing": call(folder / "missing", "owner/missing"),
        "revision": call(folder / "revision", "owner/plain", revision="d" * 40),
        "file": call(folder / "file", "owner/plain", file="none.jsonl"),
        "down": call(folder / "down", "owner/down"),
    }
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    outcomes = fetch_all(calls, folder / "home", HF_ENDPOINT=endpoint)
    outcomes.requests = hub.requests
    return outcomes


@pytest.mark.parametrize("name", ["plain", "nested", "large"])
def test_pinned_file_is_fetched_as_a_regular_file(outcomes, folder, name):
    file = folder / name / "train.jsonl"
    assert outcomes.results[name] == {"file": str(file)}
    assert file.read_bytes() == CONTENT
    assert not file.is_symlink()
    # Neither the hub's notes nor its temporary folders are left.
    assert list(file.parent.iterdir()) == [file]


def test_the_pinned_revision_is_asked_for(outcomes):
    paths = {path for _, path, _ in outcomes.requests}
    assert f"/datasets/owner/plain/resolve/{COMMIT}/train.jsonl" in paths
    assert not any("main/train.jsonl" in path for path in paths)


def test_changed_content_is_refused_and_not_kept(outcomes, folder):
    found = hashlib.sha256(CONTENT[:-1] + b" ").hexdigest()
    message = outcomes.error("changed")
    assert found in message and SHA256 in message and COMMIT in message
    assert list((folder / "changed").iterdir()) == []


@pytest.mark.parametrize(("name", "status"), [("gated", 403), ("private", 401)])
def test_no_access(outcomes, folder, hub, name, status):
    message = outcomes.error(name)
    page = f"http://127.0.0.1:{hub.server_port}/datasets/owner/{name}"
    for part in (f"owner/{name}", str(status), "HF_TOKEN", page, "'path'"):
        assert part in message
    assert list((folder / name).iterdir()) == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("missing", "there is no data set owner/missing"),
        ("revision", f"owner/plain has no revision '{'d' * 40}'"),
        ("file", f"owner/plain has no file 'none.jsonl' at {COMMIT}"),
        ("down", "could not be reached (status 503)"),
    ],
)
def test_what_is_not_there(outcomes, folder, name, part):
    assert part in outcomes.error(name)
    assert list((folder / name).iterdir()) == []


def test_token_goes_to_the_hub_alone(outcomes):
    sent = [(path, headers.get("authorization", headers.get("Authorization")))
            for _, path, headers in outcomes.requests]  # fmt: skip
    assert (f"/datasets/owner/gated/resolve/{COMMIT}/train.jsonl", f"Bearer {TOKEN}") in sent
    storage = [token for path, token in sent if path.startswith("/storage/")]
    assert storage and set(storage) == {None}
    assert TOKEN not in outcomes.output


def test_offline_and_out_of_reach(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # The port is closed again: nobody listens there.
    calls = {"a": call(tmp_path / "a", "owner/plain")}
    closed = fetch_all(calls, folder / "home", HF_ENDPOINT=f"http://127.0.0.1:{port}")
    offline = fetch_all(calls, folder / "home", HF_HUB_OFFLINE="1")
    for outcomes, reason in ((closed, "ConnectError"), (offline, "OfflineModeIsEnabled")):
        message = outcomes.error("a")
        for part in ("owner/plain/train.jsonl", "could not be reached", reason, "'path'"):
            assert part in message
        assert TOKEN not in outcomes.output
    assert list((tmp_path / "a").iterdir()) == []
