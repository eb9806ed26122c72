"""Where numbers come from: the nodes of an experiment, and those behind one row of a table."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from implicit_tuning.nodes.artifact import read_manifest
from implicit_tuning.nodes.node import LEVELS
from implicit_tuning.reporting.tables.layout import MEAN

# Facts that are longer (lists of rows and the like) stay in the manifest alone.
MOST_FACTS = 2000  # characters of JSON


class Provenance:
    """Every node of an experiment with its manifest, numbered in the order of the workflow.

    `nodes` gives the folder of each node by its name (stage/levels).

    Raises:
        BrokenArtifact: a node is not built, or its manifest is damaged.
    """

    def __init__(self, nodes: Mapping[str, Path]) -> None:
        stages = list(LEVELS)
        self.names = sorted(nodes, key=lambda name: (stages.index(stage_of(name)), name))
        self.manifests = {name: read_manifest(nodes[name]) for name in self.names}
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._names = {manifest["key"]: name for name, manifest in self.manifests.items()}

    def number(self, name: str) -> int:
        """Number of a node in the report.

        Raises:
            KeyError: the experiment has no such node.
        """
        return self._numbers[name]

    def link(self, name: str) -> str:
        """Link from results/<experiment>/report.html to a node's manifest."""
        return f"../nodes/{quote(name)}/{self.manifests[name]['key']}/manifest.json"

    def by_stage(self) -> dict[str, list[dict]]:
        """All nodes by stage, for the index at the end of a page: number, name, link and key."""
        stages: dict[str, list[dict]] = {}
        for number, name in enumerate(self.names):
            key = self.manifests[name]["key"]
            entry = {"number": number, "name": name, "link": self.link(name), "key": key}
            stages.setdefault(stage_of(name), []).append(entry)
        return stages

    def above(self, name: str) -> dict[str, str]:
        """Names of the nodes that a node reads, by the role that they have there."""
        upstream = self.manifests[name]["upstream"].items()
        roles = {role: self._names.get(origin.get("key")) for role, origin in upstream}
        return {role: above for role, above in roles.items() if above is not None}

    def behind(self, table: str, row: Mapping[str, object]) -> list[int]:
        """Numbers of the nodes that a row of a table was made from, the table's own first.

        These are what the table reads of the row's base, adaptation, epochs and seed, as far as the
        row has them, and of what it is compared with: the table's baseline, or the row's own other
        adaptation or number of epochs. Of the row, the columns `base`, `adaptation`,
        `compared_with`, `seed`, `epochs` and `compared_with_epochs` are used.
        """
        settings = self.manifests[table]["settings"]
        read = self.above(table).values()
        chosen = [name for name in read if self._belongs(name, row, settings)]
        return [self.number(table), *sorted(self.number(name) for name in chosen)]

    def _belongs(self, name: str, row: Mapping[str, object], settings: Mapping) -> bool:
        levels = self.manifests[name]["levels"]
        sweep = settings.get("sweep", {})
        adaptation, epochs = sweep.get(levels.get("adaptation"), (levels.get("adaptation"), None))
        sides = _given(row, "adaptation", "compared_with")
        if sides and "baseline" in settings:
            sides.append(settings["baseline"])
        return (
            _agree(_given(row, "base"), [levels.get("base")])
            and _agree(sides, [adaptation])
            and _agree(_given(row, "epochs", "compared_with_epochs"), [epochs])
            # A model without a seed is compared with each reference, whose seed the row carries.
            and _agree(_given(row, "seed"), [levels.get("seed"), levels.get("reference_seed")])
        )

    def embedded(self) -> dict:
        """All that the report says of its nodes, small: what many have in common stands once.

        `nodes` are in their order; their `settings` and `code` are places in `shared`.
        """
        shared: dict[str, int] = {}

        def place(value: object) -> int:
            return shared.setdefault(json.dumps(value, sort_keys=True), len(shared))

        nodes = [self._entry(name, place) for name in self.names]
        return {"nodes": nodes, "shared": [json.loads(value) for value in shared]}

    def _entry(self, name: str, place: Callable[[object], int]) -> dict:
        manifest = self.manifests[name]
        code = {part: manifest["code"][part] for part in ("fingerprint", "versions")}
        above = self.above(name)
        facts = manifest["facts"]
        if len(json.dumps(facts)) > MOST_FACTS:
            facts = {"": "too long for this report: see the manifest"}
        return {
            "name": name,
            "key": manifest["key"],
            "digest": manifest["digest"],
            "settings": place(manifest["settings"]),
            "code": place(code),
            "facts": facts,
            # A role that is the node's own name says nothing.
            "above": [
                [self.number(node), "" if f"/{node}".endswith(f"/{role}") else role]
                for role, node in above.items()
            ],
            "sources": {
                role: origin["digest"]
                for role, origin in manifest["upstream"].items()
                if role not in above
            },
        }


def stage_of(name: str) -> str:
    """Stage of a node by its name."""
    return name.partition("/")[0]


def _given(row: Mapping[str, object], *columns: str) -> list[str]:
    """What a row says in these columns; numbers that a gap made floats are whole again."""
    values = [row[column] for column in columns if row.get(column) not in (None, MEAN)]
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    return [str(value) for value in whole]


def _agree(asked: Sequence[str], found: Iterable[object]) -> bool:
    """Whether one of a node's levels is asked for by a row; what either lacks does not count."""
    known = {str(level) for level in found if level not in (None, "none")}
    return not asked or not known or not known.isdisjoint(asked)
