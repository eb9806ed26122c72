"""A job: builds the artifact of one node, or leaves nothing that counts as built."""

import contextlib
import gc
import importlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from implicit_tuning.nodes.artifact import (
    BrokenArtifact,
    find_damage,
    is_released,
    read_manifest,
    require_whole,
)
from implicit_tuning.nodes.code import PACKAGE, Code
from implicit_tuning.nodes.digests import combined_sha256, file_sha256, source_sha256
from implicit_tuning.nodes.files import seal, unique_suffix, write_atomically
from implicit_tuning.nodes.gpus import claimed_gpus, gpus_needed
from implicit_tuning.nodes.node import (
    ARTIFACT_FORMAT,
    LEVELS,
    RELEASABLE,
    RELEASED_MARKER,
    WEIGHTS_MARKER,
    Node,
    NodePaths,
    Source,
)

# Every job imports this module first. Libraries of models are half a million objects that stay, which
# the garbage collector would visit over and over: 0.7 s of each job.
gc.set_threshold(50_000)


class CodeChanged(RuntimeError):
    """The code on disk is not the code for which the job was planned."""


@dataclass
class Job:
    """What a script gets while it builds its node.

    Attributes:
        settings: the node's config slice.
        runtime: values that decide no byte of the result (intervals of saving and the like).
        upstream: what the job may read, by name; see `read`.
        data: where the job writes its files.
        partial: folder for resumable work, named after the plan key; the job removes it when done.
        spending: folder of the ledgers of what endpoints cost.
        cache: file for answers worth keeping longer than the node, see `Node.cache`.
        earlier_caches: files of earlier releases that may have such answers too.
        facts: counts and the like that belong into the manifest.
    """

    settings: Mapping[str, Any]
    runtime: Mapping[str, Any]
    upstream: Mapping[str, Mapping]
    data: Path
    partial: Path
    spending: Path
    cache: Path | None = None
    earlier_caches: Sequence[Path] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def read(self, name: str, file: str | None = None) -> Path:
        """Path of an input, every byte of which has just been compared with what was planned.

        Args:
            name: under which the node has it in its upstream.
            file: one file of it; None for its whole data folder, or for a source.

        Raises:
            BrokenArtifact: names each damaged file.
        """
        above = self.upstream[name]
        if "source" in above:
            source = Path(above["source"])
            _require_unchanged(source, above["digest"])
            return source
        require_whole(Path(above["node"]), read_bytes=True, only=file)
        data = Path(above["node"]) / "data"
        return data if file is None else data / file


def job_spec(paths: NodePaths, node: Node) -> str:
    """All that a job must know of its node, as one JSON string."""
    return json.dumps(
        {
            "stage": node.stage,
            "levels": list(node.levels),
            "key": paths.key(node),
            "plan_key": node.plan_key,
            "roots": node.code.roots,
            "libraries": node.code.libraries,
            "fingerprint": node.code.fingerprint,
            "settings": node.settings,
            "runtime": node.runtime,
            "upstream": {
                name: {"source": str(above.path), "digest": above.digest}
                if isinstance(above, Source)
                else {"node": str(paths.folder(above)), "key": paths.key(above)}
                for name, above in node.upstream.items()
            },
            "folder": str(paths.folder(node)),
            "partial": str(paths.results / "partial" / node.plan_key),
            "cache": _text(paths.cache(node)),
            "earlier_caches": _text(paths.earlier_caches(node)),
            "spending": str(paths.spending),
        },
        sort_keys=True,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@contextlib.contextmanager
def building(spec: str, log: str | None = None) -> Iterator[Job]:
    """Build the artifact of a node from what the body writes into `job.data`.

    On entry the code is compared with the plan's, and the inputs' names and sizes with their
    manifests; on a clean exit the artifact is put in place, on an error nothing of it stays and
    the process ends with one line. Where another process builds the same node, this one waits, and
    ends well without building it again.

    Args:
        spec: a `job_spec`.
        log: file for all that the job prints; None leaves it on the terminal.
    """
    node = json.loads(spec)
    name = "/".join((node["stage"], *node["levels"]))
    with contextlib.ExitStack() as stack:
        try:
            # Before the log is opened, which is that of whoever builds.
            stack.enter_context(_sole_builder(Path(node["folder"])))
            if log is not None:
                stack.enter_context(_printing_to(Path(log)))
            stack.enter_context(claimed_gpus(gpus_needed(node["settings"])))
            with _built_folder(node) as job:
                yield job
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this process
            traceback.print_exc()
            # The log keeps the traceback; the terminal gets the one line that matters.
            raise SystemExit(f"{name}: {type(error).__name__}: {error}") from None


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+", encoding="utf-8", buffering=1) as file:
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            # Snakemake deletes the log of a job it starts; another run may have started this one.
            if not log.exists() or not os.path.samestat(os.fstat(file.fileno()), log.stat()):
                file.seek(0)
                log.write_text(file.read(), encoding="utf-8")


@contextlib.contextmanager
def _sole_builder(folder: Path) -> Iterator[None]:
    """Hold the node's lock. If another process built the node while this one waited, exit.

    The other may belong to another run over the same results, or to a scheduler that was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process builds {folder}: waiting until it ends", file=sys.stderr)
        lock.acquire(poll_interval=0.5)  # seconds
    try:
        if _stands(folder):
            print(f"{folder} was built by another process; kept as it is", file=sys.stderr)
            raise SystemExit(0)
        yield
    finally:
        lock.release()


def _stands(folder: Path) -> bool:
    """Whether a node is built, with its weights if it has any; names and sizes are checked."""
    built = (folder / "manifest.json").is_file()
    return built and not is_released(folder) and not find_damage(folder, read_bytes=False)


@contextlib.contextmanager
def _built_folder(node: Mapping) -> Iterator[Job]:
    code = _unchanged_code(node)
    origins = _origins(node["upstream"])
    folder = Path(node["folder"])
    unfinished = folder / f".building.{unique_suffix()}"
    unfinished.mkdir(parents=True)
    try:
        job = Job(
            settings=node["settings"],
            runtime=node["runtime"],
            upstream=node["upstream"],
            data=unfinished,
            partial=Path(node["partial"]),
            cache=Path(node["cache"]) if node["cache"] else None,
            earlier_caches=sorted(Path(node["earlier_caches"]).glob("*.jsonl"))
            if node["earlier_caches"]
            else (),
            spending=Path(node["spending"]),
        )
        yield job
        manifest = _manifest(node, code, origins, job)
        _put_in_place(unfinished, folder, manifest)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unchanged_code(node: Mapping) -> Code:
    """Import all the code first and compare it then, so that what runs is what was compared."""
    for root in node["roots"]:
        if root.startswith(PACKAGE):
            importlib.import_module(root)
    code = Code(tuple(node["roots"]), tuple(node["libraries"]))
    if code.fingerprint != node["fingerprint"]:
        raise CodeChanged(
            f"the code of this node ({', '.join(code.modules)}, {code.versions}) changed after the "
            "run was planned; nothing was built. Start the run again"
        )
    return code


def _origins(upstream: Mapping) -> dict[str, dict]:
    """What the manifest will say of the inputs; their names and sizes are checked at once."""
    origins = {}
    for name, above in upstream.items():
        if "source" in above:
            origins[name] = {"digest": above["digest"]}
        else:
            folder = Path(above["node"])
            require_whole(folder, read_bytes=False, released=True)
            origins[name] = {"key": above["key"], "digest": read_manifest(folder)["digest"]}
    return origins


def _require_unchanged(source: Path, digest: str) -> None:
    if source_sha256(source) != digest:
        raise BrokenArtifact(
            f"{source} changed after the run was planned; if that was meant, touch what "
            "changed (its time stamp may be the old one) and start the run again"
        )


def _manifest(node: Mapping, code: Code, origins: Mapping, job: Job) -> dict:
    files: dict[str, dict[str, Any]] = {
        str(path.relative_to(job.data)): {
            "sha256": file_sha256(path),
            "size": path.stat().st_size,
        }
        for path in sorted(job.data.rglob("*"))
        if path.is_file()
    }
    return {
        "artifact_format": ARTIFACT_FORMAT,
        "stage": node["stage"],
        "levels": dict(zip(LEVELS[node["stage"]], node["levels"], strict=True)),
        "key": node["key"],
        "plan_key": node["plan_key"],
        "settings": node["settings"],
        "code": {
            "fingerprint": code.fingerprint,
            "modules": code.modules,
            "versions": code.versions,
        },
        "upstream": origins,
        "facts": job.facts,
        "files": files,
        "digest": combined_sha256({name: entry["sha256"] for name, entry in files.items()}),
    }


def _put_in_place(unfinished: Path, folder: Path, manifest: Mapping) -> None:
    """Rename the data, then write the manifest; one that stands for other data goes first."""
    (folder / "manifest.json").unlink(missing_ok=True)
    _replace_data(unfinished, folder)
    if manifest["stage"] in RELEASABLE:
        (folder / WEIGHTS_MARKER).touch()
    write_atomically(folder / "manifest.json", seal(manifest))


def _replace_data(unfinished: Path, folder: Path) -> None:
    data = folder / "data"
    for mark in (WEIGHTS_MARKER, RELEASED_MARKER):
        (folder / mark).unlink(missing_ok=True)
    if data.exists():
        # Left by a process that died between the rename and the manifest.
        leftover = folder / f".leftover.{unique_suffix()}"
        data.rename(leftover)
        shutil.rmtree(leftover)
    unfinished.rename(data)
