"""The stable names of an experiment: copies of its tables and figures, links to its nodes.

results/<experiment>/tables/*  figures/*   copies for people
results/<experiment>/current/<stage>/...   links to the nodes of the present config
results/<experiment>/.published.<key>      says for which nodes the copies were made
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.artifact import read_manifest
from implicit_tuning.digests import file_sha256, unique_suffix, write_atomically
from implicit_tuning.nodes import NodePaths, short_hash
from implicit_tuning.plan import Plan

FOLDERS = {"table": "tables", "figure": "figures"}


@dataclass(frozen=True)
class Publication:
    """What an experiment publishes.

    Attributes:
        folder: results/<experiment>.
        nodes: folder of every node of the config, by its name (stage/levels).
    """

    folder: Path
    nodes: Mapping[str, Path]

    @property
    def stamp(self) -> Path:
        """The file that says that the stable copies are those of these nodes.

        Nodes above a cut-off are left out: their content is in the keys below it.
        """
        keys = {
            name: path.name
            for name, path in self.nodes.items()
            if name.partition("/")[0] not in ("download", "format")
        }
        return self.folder / f".published.{short_hash(keys)}"

    def copies(self) -> dict[Path, Path]:
        """Stable name of each published file, and the node's file it is a copy of.

        Raises:
            BrokenArtifact: a table or figure is not built.
        """
        copies = {}
        for node, origin in self.nodes.items():
            folder = FOLDERS.get(node.partition("/")[0])
            if folder is not None:
                for name in read_manifest(origin)["files"]:
                    copies[self.folder / folder / name] = origin / "data" / name
        return copies


def plan_publication(plan: Plan, paths: NodePaths) -> Publication:
    """The publication of a plan.

    Raises:
        Unpublished: a cut-off has not been built yet.
    """
    nodes = {node.name: paths.folder(node) for node in plan.nodes.values()}
    return Publication(paths.results / plan.config.experiment, nodes)


def false_copies(publication: Publication) -> list[Path]:
    """Stable names whose file is missing or is not the node's."""
    return [
        stable
        for stable, origin in publication.copies().items()
        if not stable.is_file() or file_sha256(stable) != file_sha256(origin)
    ]


def publish(publication: Publication) -> None:
    """Copy tables and figures, link all nodes, and leave the one stamp that is true."""
    for stale in publication.folder.glob(".published.*"):
        stale.unlink()
    copies = publication.copies()
    for folder in FOLDERS.values():
        _remove_others(publication.folder / folder, set(copies))
    for stable, origin in copies.items():
        stable.parent.mkdir(parents=True, exist_ok=True)
        unfinished = stable.with_name(f".{stable.name}.{unique_suffix()}")
        shutil.copyfile(origin, unfinished)
        unfinished.replace(stable)
    _link_nodes(publication)
    write_atomically(publication.stamp, "")


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    for path in folder.glob("*"):
        if path not in wanted:
            path.unlink()


def _link_nodes(publication: Publication) -> None:
    """Rebuild the tree of relative links, so that results can be moved as a whole."""
    current = publication.folder / "current"
    unfinished = publication.folder / f".current.{unique_suffix()}"
    for node, folder in publication.nodes.items():
        link = unfinished / node
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(folder, (current / node).parent))
    shutil.rmtree(current, ignore_errors=True)
    unfinished.rename(current)
