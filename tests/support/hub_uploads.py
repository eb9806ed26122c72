"""A server on loopback that plays the part of the Hugging Face hub that takes repositories in.

    with UploadHub() as hub:
        subprocess.run(..., env=os.environ | hub.environment(home))
        hub.repositories["owner/name"].files

It answers what `HfApi.create_repo`, `upload_folder` and `model_info` ask. Files of LARGE_BYTES and
more go through large file storage (the older protocol: HF_HUB_DISABLE_XET is set, for the storage of
Xet cannot be played). A stranger's token, one that may not write, and faults by address are played.
"""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

TOKEN = "hf_writeTokenOfNobody0123456789"
READER = "hf_readTokenOfNobody0123456789"
LARGE_BYTES = 100_000
CUT = 0  # as a status: the connection is closed without an answer


@dataclass
class Repository:
    """What was taken in."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*"})
    commits: list[dict] = field(default_factory=list)


class UploadHub:
    """Runs in threads; use it as a context.

    Attributes:
        repositories: by owner/name.
        stored: content of large files by sha256.
        requests: method, path, and token of all that came in, in order.
        faults: status (or CUT) that the next request for an address gets, once, by a part of it.
        spoils: name of a file that is told with another size than it has.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.faults: dict[str, int] = {}
        self.spoils: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """The HF_ENDPOINT of a client."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, **changes: str) -> dict[str, str]:
        """Variables under which a process sends here; `home` is for its cache."""
        plain = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
        return {**plain, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **changes}

    def sent(self, part: str) -> list[str]:
        """Methods of the requests with this in their address."""
        return [method for method, path, _ in self.requests if part in path]


def _answer(hub: UploadHub, path: str, body: bytes) -> tuple[int, object]:
    """Status and content for a request of somebody who may write."""
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path.startswith("/storage/"):
        sha256 = path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == sha256
        hub.stored[sha256] = body
        return 200, {}
    parts = path.strip("/").split("/")
    of_api = parts[:2] == ["api", "models"]
    name = "/".join(parts[2:4]) if of_api else "/".join(parts[:2]).removesuffix(".git")
    verb = (parts[4:] or ["info"])[0] if of_api else "batch"
    repository = hub.repositories.get(name)
    if repository is None:
        return 404, {"error": "Repository not found"}
    if verb == "batch":
        return 200, _batch(hub, json.loads(body))
    if verb == "preupload":
        return 200, {"files": [_mode(file) for file in json.loads(body)["files"]]}
    if verb == "commit":
        return 200, _commit(hub, name, repository, body)
    if verb == "tree":
        listed = repository.files.items()
        return 200, [
            {"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in listed
        ]
    return 200, {
        "id": name,
        "sha": f"{len(repository.commits):040d}",
        "private": repository.private,
        "siblings": [_sibling(hub, name, content) for name, content in repository.files.items()],
    }


def _create(hub: UploadHub, asked: dict) -> tuple[int, object]:
    name = f"{asked['organization']}/{asked['name']}"
    if name in hub.repositories:
        return 409, {"error": "You already created this model repo"}
    hub.repositories[name] = Repository(private=asked["visibility"] == "private")
    return 200, {"url": f"{hub.url}/{name}"}


def _batch(hub: UploadHub, asked: dict) -> dict:
    objects = [dict(entry) for entry in asked["objects"]]
    for entry in objects:
        if entry["oid"] not in hub.stored:
            entry["actions"] = {"upload": {"href": f"{hub.url}/storage/{entry['oid']}"}}
    return {"transfer": "basic", "objects": objects}


def _mode(file: dict) -> dict:
    mode = "lfs" if file["size"] >= LARGE_BYTES else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def _commit(hub: UploadHub, name: str, repository: Repository, body: bytes) -> dict:
    lines = [json.loads(line) for line in body.splitlines()]
    files = dict(repository.files)
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = hub.stored[value["oid"]]
        else:
            del files[value["path"]]
    repository.files = files
    repository.commits.append(lines[0]["value"])
    oid = f"{len(repository.commits):040d}"
    return {"commitUrl": f"{hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True}


def _sibling(hub: UploadHub, name: str, content: bytes) -> dict:
    size = len(content) + (name == hub.spoils)
    entry = {"rfilename": name, "size": size, "blobId": "0" * 40}
    if len(content) < LARGE_BYTES:
        return entry
    sha256 = hashlib.sha256(content).hexdigest()
    return {**entry, "lfs": {"sha256": sha256, "size": size, "pointerSize": 130}}


def _handler(hub: UploadHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            path = urlsplit(self.path).path
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            hub.requests.append((self.command, path, token))
            body = self._body()
            fault = next((part for part in hub.faults if part in path), None)
            status = None if fault is None else hub.faults.pop(fault)
            if status == CUT:
                self.close_connection = True
                return
            if status is None:
                status, content = self._answer(path, token, body)
            else:
                content = {"error": "a fault"}
            # The hub's refusals may repeat what was sent.
            headers = {"X-Error-Message": f"Bearer {token}"} if status >= 400 else {}
            self._send(status, json.dumps(content).encode(), headers)

        def _answer(self, path: str, token: str, body: bytes) -> tuple[int, object]:
            # Large files lie behind signed addresses, which need no token.
            if token not in (TOKEN, READER) and not path.startswith("/storage/"):
                return 401, {"error": "Invalid credentials"}
            if token == READER and self.command != "GET":
                return 403, {"error": "You need write access"}
            return _answer(hub, path, body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            own = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            for name, value in {**own, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _respond

        def log_message(self, *_: object) -> None:
            pass

    return Handler
