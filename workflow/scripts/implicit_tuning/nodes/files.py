"""Text files that are never seen half written, and JSON files that prove they are what was written."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file in one step, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{unique_suffix()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def append_lines(path: Path, lines: str) -> None:
    """Append whole lines to a text file in one write, on disk when this returns.

    Processes that append at once both end well, and a last line that a crash tore stays alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                lines = "\n" + lines
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def seal(content: Mapping) -> str:
    """JSON text of a mapping, with a sha256 over all else in it under `sealed`."""
    return _sorted_json({**content, "sealed": _json_sha256(content)})


def read_sealed(path: Path) -> dict:
    """What was sealed into a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not JSON, or not what was once written.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("sealed", None) != _json_sha256(content):
        raise ValueError("changed after it was written")
    return content


def _json_sha256(content: Mapping) -> str:
    return hashlib.sha256(_sorted_json(content).encode()).hexdigest()


def _sorted_json(content: Mapping) -> str:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def unique_suffix() -> str:
    """Host, process and a random part: no two writers ever share it."""
    return f"{os.uname().nodename}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
