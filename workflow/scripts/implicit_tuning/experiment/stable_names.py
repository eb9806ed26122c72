"""The stable names of an experiment: copies of its report, tables and figures, links to its nodes.

results/<experiment>/report.html  tables/*  figures/*   copies for people; of an audit audit.html, .json
results/<experiment>/current/<stage>/...   links to the nodes of the present config
results/<experiment>/.stable_names.<key>      says for which nodes the copies were made
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from implicit_tuning.experiment.plan import Plan
from implicit_tuning.nodes.artifact import read_manifest, require_whole
from implicit_tuning.nodes.code import short_hash
from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.nodes.files import unique_suffix, write_atomically
from implicit_tuning.nodes.node import CUT_OFF, NodePaths

# Folder of the copies of each stage whose files are copied.
COPIED = {"table": "tables", "figure": "figures", "report": ".", "audit": "."}


@dataclass(frozen=True)
class StableNames:
    """What an experiment has under its stable names.

    `folder` is results/<experiment>; `nodes` has the folder of every node of the config by its name
    (stage/levels).
    """

    folder: Path
    nodes: Mapping[str, Path]

    @property
    def stamps(self) -> tuple[Path, Path]:
        """Two names of the file that says that the stable copies are those of these nodes.

        Snakemake makes a file only when it is missing: when copies must be renewed under an equal
        key, the other name is asked for. Downloads and cut-offs are left out, since their
        content is in the keys below them.
        """
        key = short_hash(
            {
                name: path.name
                for name, path in self.nodes.items()
                if name.partition("/")[0] not in ("download", *CUT_OFF)
            }
        )
        return self.folder / f".stable_names.{key}", self.folder / f".stable_names.{key}0"

    def wanted_stamp(self) -> Path:
        """The stamp that stands if the copies are true, else one that does not stand."""
        standing = [stamp for stamp in self.stamps if stamp.is_file()]
        if standing and self.is_true():
            return standing[0]
        return next(stamp for stamp in self.stamps if stamp not in standing[:1])

    def is_true(self) -> bool:
        """Whether all that is to be copied is built and has its stable copy."""
        copied = [path for name, path in self.nodes.items() if _folder_of(name)]
        built = all((path / "manifest.json").is_file() for path in copied)
        return built and not wrong_copies(self)

    def copies(self) -> dict[Path, tuple[Path, str]]:
        """Stable name of each copied file: the node's file it is a copy of, and its sha256.

        Raises:
            BrokenArtifact: something that is to be copied is not built.
        """
        copies = {}
        for node, origin in self.nodes.items():
            folder = _folder_of(node)
            if folder is not None:
                for name, entry in read_manifest(origin)["files"].items():
                    copies[self.folder / folder / name] = (origin / "data" / name, entry["sha256"])
        return copies


def _folder_of(node: str) -> str | None:
    return COPIED.get(node.partition("/")[0])


def plan_stable_names(plan: Plan, paths: NodePaths) -> StableNames:
    """The stable names of a plan.

    Raises:
        KeyNotKnown: a cut-off has not been built yet.
    """
    nodes = {node.name: paths.folder(node) for node in plan.nodes.values()}
    return StableNames(paths.results / plan.config.experiment, nodes)


def wrong_copies(names: StableNames) -> list[Path]:
    """Stable names whose file is missing or is not what the node's manifest says."""
    return [
        stable
        for stable, (_, sha256) in names.copies().items()
        if not stable.is_file() or file_sha256(stable) != sha256
    ]


def write_stable_names(names: StableNames, stamp: Path) -> None:
    """Copy tables, figures and report, link all nodes, and leave one stamp, which lists the copies.

    One process at a time. If another process made the copies while this one waited, keep them.

    Raises:
        BrokenArtifact: something that is to be copied is not what its manifest says.
    """
    for node, origin in names.nodes.items():
        if _folder_of(node):
            require_whole(origin, read_bytes=True)
    names.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(names.folder / ".lock"):
        if not (stamp.is_file() and names.is_true()):
            _write(names, stamp)


def _write(names: StableNames, stamp: Path) -> None:
    copies = names.copies()
    _withdraw_earlier(names.folder, kept=set(copies))
    for stable, (origin, _) in copies.items():
        stable.parent.mkdir(parents=True, exist_ok=True)
        unfinished = stable.with_name(f".{stable.name}.{unique_suffix()}")
        shutil.copyfile(origin, unfinished)
        unfinished.replace(stable)
    _link_nodes(names)
    listed = sorted(str(stable.relative_to(names.folder)) for stable in copies)
    write_atomically(stamp, "".join(f"{name}\n" for name in listed))


def _withdraw_earlier(folder: Path, kept: set[Path]) -> None:
    """Remove earlier stamps, and the copies that they list and nobody makes any more."""
    for stamp in (*folder.glob(".stable_names.*"), *folder.glob(".published.*")):  # the old name
        for name in stamp.read_text(encoding="utf-8").splitlines():
            if folder / name not in kept:
                (folder / name).unlink(missing_ok=True)
        stamp.unlink()


def _link_nodes(names: StableNames) -> None:
    """Rebuild the tree of relative links, so that results can be moved as a whole."""
    current = names.folder / "current"
    unfinished = names.folder / f".current.{unique_suffix()}"
    for node, folder in names.nodes.items():
        link = unfinished / node
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder, (current / node).parent))
    shutil.rmtree(current, ignore_errors=True)
    unfinished.rename(current)
