"""Care for built results: find damage, name what must be rebuilt, find what nobody needs."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from tqdm import tqdm

from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.experiment.stable_names import plan_stable_names, wrong_copies
from implicit_tuning.nodes.artifact import BrokenArtifact, find_damage, read_manifest
from implicit_tuning.nodes.digests import source_sha256
from implicit_tuning.nodes.node import LEVELS, KeyNotKnown, Node, NodePaths, Source


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        node: the node that must be rebuilt; None for a stable copy or a mixed lineage.
        text: what is wrong.
    """

    node: Node | None
    text: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found, and how many bytes of artifacts it read in how many seconds."""

    findings: list[Finding]
    n_bytes: int
    seconds: float


def verify(plan: Plan, paths: NodePaths) -> Verification:
    """Hash every source, artifact and stable copy of the plan again."""
    findings = [Finding(None, text) for text in _changed_sources(plan)]
    built = []
    for node in plan.nodes.values():
        try:
            if paths.is_built(node):
                built.append(node)
            else:
                findings.append(Finding(node, f"{node.name}: not built ({paths.folder(node)})"))
        except KeyNotKnown as missing:
            findings.append(Finding(None, f"{node.name}: waits for {missing.node.name}"))
    start = time.perf_counter()
    findings += _damaged(built, paths)
    seconds = time.perf_counter() - start
    findings += [Finding(None, text) for text in _mixed_lineage(built, paths)]
    if not findings:
        findings = [
            Finding(None, f"{copy}: missing, or not the copy it should be ('make run' renews it)")
            for copy in wrong_copies(plan_stable_names(plan, paths))
        ]
    return Verification(findings, _total_size(built, paths), seconds)


def _changed_sources(plan: Plan) -> Iterator[str]:
    """Sources outside the results whose bytes are not those that were remembered for them."""
    sources = {
        above.path: (above, node)
        for node in plan.nodes.values()
        for above in node.upstream.values()
        if isinstance(above, Source)
    }
    for path, (source, node) in sources.items():
        if source_sha256(path) != source.digest:
            yield f"{path}: changed behind its time stamp; {node.name} was made from other bytes"


def _damaged(nodes: list[Node], paths: NodePaths) -> list[Finding]:
    findings = []
    with (
        ThreadPoolExecutor() as pool,
        tqdm(unit="B", unit_scale=True, desc="verify", total=_total_size(nodes, paths)) as bar,
    ):
        for node, damage in zip(nodes, pool.map(lambda n: _damage(n, paths), nodes), strict=True):
            bar.update(_total_size([node], paths))
            findings += [Finding(node, f"{node.name}: {text}") for text in damage]
    return findings


def _damage(node: Node, paths: NodePaths) -> list[str]:
    try:
        return find_damage(paths.folder(node), read_bytes=True, released=True)
    except BrokenArtifact as error:
        return [str(error)]


def _total_size(nodes: list[Node], paths: NodePaths) -> int:
    """Bytes of the files that stand; a broken manifest counts nothing."""
    total = 0
    for node in nodes:
        try:
            files = read_manifest(paths.folder(node))["files"]
        except BrokenArtifact:
            continue
        data = paths.folder(node) / "data"
        total += sum(entry["size"] for name, entry in files.items() if (data / name).is_file())
    return total


def _mixed_lineage(nodes: list[Node], paths: NodePaths) -> Iterator[str]:
    """Nodes that were made from other bytes than now stand above them."""
    for node in nodes:
        for name, above in node.upstream.items():
            if isinstance(above, Node) and is_built(paths, above):
                try:
                    used = read_manifest(paths.folder(node))["upstream"][name]["digest"]
                    present = read_manifest(paths.folder(above))["digest"]
                except BrokenArtifact:
                    continue
                if used != present:
                    yield (
                        f"{node.name}: made from other bytes of {above.name} than stand there now "
                        "(it was rebuilt, and did not come out the same)"
                    )


def withdraw(findings: list[Finding], paths: NodePaths) -> list[Path]:
    """Take back the manifests of damaged nodes, so that they count as not built.

    Returns:
        The manifests that must be built again, as Snakemake targets.
    """
    targets = list(dict.fromkeys(paths.manifest(f.node) for f in findings if f.node is not None))
    for manifest in targets:
        manifest.unlink(missing_ok=True)
    return targets


# --- what nobody needs --------------------------------------------------------------------------


def unneeded(plan: Plan, paths: NodePaths) -> list[Path]:
    """Folders that neither this plan nor any finished experiment needs: one with stable names.

    While a data set is not formatted, the keys below it are not known, and nodes that have them are
    among these folders.
    """
    needed = {link.resolve() for link in paths.results.glob("*/current/**/*") if link.is_symlink()}
    for node in plan.nodes.values():
        with contextlib.suppress(KeyNotKnown):
            needed.add(paths.folder(node).resolve())
    folders = [
        folder
        for stage, levels in LEVELS.items()
        for folder in paths.results.glob("/".join(["nodes", stage, *["*"] * len(levels), "*"]))
    ]
    leftovers = [
        path
        for folder in folders
        if folder.resolve() in needed
        for path in folder.glob(".*")
        if path.name != ".lock"
    ]
    plan_keys = {node.plan_key for node in plan.nodes.values()}
    partial = [path for path in paths.results.glob("partial/*") if path.name not in plan_keys]
    return sorted([f for f in folders if f.resolve() not in needed] + leftovers + partial)


def folder_size(folder: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def running_workflows(folder: Path) -> list[psutil.Process]:
    """Snakemake processes that work in a folder, this process and its parents left out."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    alive = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        runs = any(_is_snakemake(argument) for argument in process.info["cmdline"] or [])
        if runs and process.info["cwd"] == str(folder) and process.pid not in own:
            alive.append(process)
    return alive


def _is_snakemake(argument: str) -> bool:
    """Whether an argument of a command line is the program, or the script of one of its jobs."""
    return Path(argument).name == "snakemake" or "/.snakemake/scripts/" in argument


def refuse_while_running(what: str) -> bool:
    """Whether a run is alive in this folder; says so, and what is therefore not done."""
    alive = running_workflows(Path.cwd())
    for process in alive:
        command = shlex.join(process.info["cmdline"])
        print(f"will not {what}: process {process.pid} runs here: {command}", file=sys.stderr)
    return bool(alive)
