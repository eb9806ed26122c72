"""A server on loopback that plays the Hugging Face hub for the real huggingface_hub, faults included.

    with HubServer() as hub:
        hub.repository("datasets/openai/gsm8k", {"main/train.parquet": content})
        subprocess.run(..., env=os.environ | hub.environment(home))

It answers what huggingface_hub asks of a repository (`revision`, `tree`, `paths-info`, `resolve`).
Large files are redirected to a storage of another port, as the hub's are. huggingface_hub reads its
endpoint when it is imported, so clients run in a process of their own: see `call_all`.
"""

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_secretTokenOfNobody"
# From this size on, the hub keeps files in its large file storage.
LARGE_BYTES = 10_000
PIECE_BYTES = 2**16


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        status: sent in place of the content; None for the status that belongs.
        cut_after: bytes of the body after which the connection is closed.
        stall_after: bytes of the body after which nothing more comes.
        reset: a cut breaks the connection off, instead of closing it.
        ignores_range: the whole content is sent, whatever part is asked for.
        content: sent in place of the right one.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    reset: bool = False
    ignores_range: bool = False
    content: bytes | None = None


@dataclass(frozen=True)
class Request:
    """A request that came in; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Repository:
    commit: str
    revisions: frozenset[str]
    files: Mapping[str, bytes]
    readers: frozenset[str] | None


class HubServer:
    """Runs in threads; use it as a context.

    Attributes:
        requests: all that came in, in order.
        sent: bytes of bodies that went out, by path.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        self.stored: dict[str, bytes] = {}
        self._repositories: dict[str, _Repository] = {}
        self._faults: list[tuple[str, list[Fault]]] = []
        self._lock = threading.Lock()
        self.ending = threading.Event()
        self._hub, self._storage = (_Server(("127.0.0.1", 0), _handler(self)) for _ in range(2))

    @property
    def url(self) -> str:
        """The HF_ENDPOINT of a client."""
        return f"http://127.0.0.1:{self._hub.server_port}"

    @property
    def storage(self) -> str:
        """Where large files lie."""
        return f"http://127.0.0.1:{self._storage.server_port}/storage"

    def __enter__(self) -> Self:
        for server in (self._hub, self._storage):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def environment(self, home: Path, **changes: str) -> dict[str, str]:
        """Variables under which a process takes this server for the hub; `home` is for its cache
        and token, so that nothing of the user's is read."""
        plain = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "*", "HF_TOKEN": TOKEN}
        return {**plain, "HF_HUB_OFFLINE": "0", **changes}

    def repository(
        self,
        name: str,
        files: Mapping[str, bytes],
        commit: str = COMMIT,
        revisions: tuple[str, ...] = ("main",),
        readers: tuple[str, ...] | None = None,
    ) -> Self:
        """Add a repository.

        Args:
            name: "datasets/owner/name" or "models/owner/name".
            revisions: branches and tags that are the commit.
            readers: tokens of those who may read it; None for everybody.
        """
        names = frozenset({commit, *revisions})
        allowed = None if readers is None else frozenset(readers)
        self._repositories[name] = _Repository(commit, names, dict(files), allowed)
        self.stored |= {_sha256(c): c for c in files.values() if len(c) >= LARGE_BYTES}
        return self

    def fail(self, path: str, *faults: Fault) -> Self:
        """Let the next requests for content with `path` in their address go wrong, one each."""
        self._faults.append((path, list(faults)))
        return self

    def asked_for(self, path: str) -> list[Request]:
        """The requests with `path` in their address."""
        return [request for request in self.requests if path in request.path]

    def receive(self, request: Request) -> Fault | None:
        """Record a request; return what is to go wrong with it."""
        with self._lock:
            self.requests.append(request)
            for path, faults in self._faults:
                if path in request.path and faults:
                    return faults.pop(0)
        return None

    def count(self, path: str, size: int) -> None:
        """Record bytes of a body that went out."""
        with self._lock:
            self.sent[path] += size

    def find(self, name: str, token: str | None) -> "_Repository | _Answer":
        """A repository, or why it is not to be had."""
        found = self._repositories.get(name)
        if found is None:
            # The hub does not tell strangers what is there.
            return _error(404, "RepoNotFound") if token else _error(401, "RepoNotFound")
        if found.readers is not None and token not in found.readers:
            return _error(403 if token else 401, "GatedRepo")
        return found


@dataclass
class _Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


def _error(status: int, code: str) -> _Answer:
    return _Answer(status, {"X-Error-Code": code})


def _json(content: object) -> _Answer:
    return _Answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(name: str, content: bytes) -> dict:
    """A file in the answers to `tree` and `paths-info`."""
    entry = {"type": "file", "path": name, "size": len(content), "oid": _blob_id(content)}
    return entry if len(content) < LARGE_BYTES else {**entry, "lfs": _lfs(content, "oid")}


def _sibling(name: str, content: bytes) -> dict:
    """A file in the answer to `revision`."""
    entry = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
    return entry if len(content) < LARGE_BYTES else {**entry, "lfs": _lfs(content, "sha256")}


def _lfs(content: bytes, digest: str) -> dict:
    return {digest: _sha256(content), "size": len(content), "pointerSize": 130}


def _answer(server: HubServer, path: str, token: str | None, paths: list[str]) -> _Answer:
    """What belongs to an address."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "storage":
        return _Answer(content=server.stored[parts[1]])
    is_api = parts[0] == "api"
    parts = parts[is_api:]
    if not is_api and parts[0] != "datasets":
        parts = ["models", *parts]
    if len(parts) < 3:
        return _Answer(404)
    kind, owner, name, verb, revision, *rest = [*parts, "revision", "main"][: max(5, len(parts))]
    found = server.find(f"{kind}/{owner}/{name}", token)
    if isinstance(found, _Answer):
        return found
    if revision not in found.revisions:
        return _error(404, "RevisionNotFound")
    if verb == "resolve":
        return _resolved(server, found, "/".join(rest))
    if verb == "revision":
        siblings = [_sibling(*file) for file in found.files.items()]
        return _json({"id": f"{owner}/{name}", "sha": found.commit, "siblings": siblings})
    folder = "/".join(rest)
    chosen = [n for n in found.files if (n in paths if paths else n.rpartition("/")[0] == folder)]
    return _json([_listed(n, found.files[n]) for n in chosen])


def _resolved(server: HubServer, repository: _Repository, file: str) -> _Answer:
    if file not in repository.files:
        return _error(404, "EntryNotFound")
    content = repository.files[file]
    headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_blob_id(content)}"'}
    if len(content) < LARGE_BYTES:
        return _Answer(200, headers, content)
    sha256 = _sha256(content)
    linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
    return _Answer(302, {**headers, **linked, "Location": f"{server.storage}/{sha256}?signed=1"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is no event."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            # So that what was sent is about what was received.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)

        def do_HEAD(self) -> None:
            self._respond([])

        def do_GET(self) -> None:
            self._respond([])

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fields = (pair.partition("=") for pair in form.split("&"))
            self._respond([unquote(value) for name, _, value in fields if name == "paths"])

        def _respond(self, paths: list[str]) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = urlsplit(self.path).path
            fault = server.receive(Request(self.command, path, headers)) or Fault()
            if fault.status is not None:
                return self._send(_Answer(fault.status, fault.headers), path, fault)
            token = headers.get("authorization", "").removeprefix("Bearer ") or None
            answer = _answer(server, path, token, paths)
            if fault.content is not None:
                answer.content = fault.content
            if answer.status == 200 and "range" in headers and not fault.ignores_range:
                answer = _part(answer, headers["range"])
            self._send(answer, path, fault)

        def _send(self, answer: _Answer, path: str, fault: Fault) -> None:
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": len(answer.content)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "HEAD":
                return
            until = min(len(answer.content), *_ends(fault))
            for start in range(0, until, PIECE_BYTES):
                piece = answer.content[start : min(start + PIECE_BYTES, until)]
                self.wfile.write(piece)
                server.count(path, len(piece))
            if until < len(answer.content):
                self._break_off(fault)

        def _break_off(self, fault: Fault) -> None:
            self.close_connection = True
            if fault.stall_after is not None:
                server.ending.wait()
            if fault.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _ends(fault: Fault) -> tuple[float, float]:
    ends = (fault.cut_after, fault.stall_after)
    return tuple(float("inf") if end is None else end for end in ends)


def _part(answer: _Answer, asked: str) -> _Answer:
    start, _, end = asked.removeprefix("bytes=").partition("-")
    size = len(answer.content)
    if int(start) >= size:
        return _Answer(416, {"Content-Range": f"bytes */{size}"})
    content = answer.content[int(start) : int(end) + 1 if end else size]
    where = f"bytes {start}-{int(start) + len(content) - 1}/{size}"
    return _Answer(206, {**answer.headers, "Content-Range": where}, content)


# --- clients ------------------------------------------------------------------------------------

# Runs in the other process: calls of functions, and what came of each. Pauses are not waited for.
DRIVER = """
import dataclasses, importlib, json, sys, time
from pathlib import Path
from implicit_tuning.remote.lockfile import PinnedFile
pauses = []
time.sleep = pauses.append
for name, (function, arguments) in json.load(sys.stdin).items():
    module, _, function = function.rpartition(".")
    for key in {"destination", "partial"} & set(arguments):
        arguments[key] = Path(arguments[key])
    if "pinned" in arguments:
        arguments["pinned"] = PinnedFile(**arguments["pinned"])
    if "files" in arguments:
        arguments["files"] = {k: PinnedFile(**v) for k, v in arguments["files"].items()}
    pauses.clear()
    try:
        result = getattr(importlib.import_module(module), function)(**arguments)
        value = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else str(result)
        outcome = {"result": value}
    except Exception as error:
        outcome = {"error": str(error), "kind": type(error).__name__}
    print("outcome", json.dumps([name, {**outcome, "pauses": pauses}]), flush=True)
"""


@dataclass
class Outcomes:
    """What came of calls, by their names, and all that their process printed."""

    by_name: dict[str, dict]
    output: str

    def result(self, name: str) -> object:
        """What a call returned: a path as text, or the fields of a pin."""
        assert "result" in self.by_name[name], self.by_name[name]
        return self.by_name[name]["result"]

    def error(self, name: str, kind: str = "HubFailed") -> str:
        """The message of what a call raised."""
        assert self.by_name[name].get("kind") == kind, self.by_name[name]
        return self.by_name[name]["error"]

    def pauses(self, name: str) -> list[float]:
        """Seconds that a call would have waited before each further try."""
        return self.by_name[name]["pauses"]


def start_calls(calls: Mapping, environment: Mapping[str, str]) -> subprocess.Popen:
    """A process that makes calls: {name: [function, arguments]}."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        text=True,
    )
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(calls))
        process.stdin.close()
    process.stdin = None
    return process


def call_all(calls: Mapping, environment: Mapping[str, str]) -> Outcomes:
    """What comes of calls in a process with this environment."""
    process = start_calls(calls, environment)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    # A progress bar may stand before an outcome in its line.
    lines = [line.partition("outcome ")[2] for line in output.splitlines()]
    return Outcomes(dict(json.loads(line) for line in lines if line), output)
