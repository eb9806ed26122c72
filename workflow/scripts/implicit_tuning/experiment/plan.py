"""The plan of an experiment: every node that its config asks for, known before any job runs.

`planning` makes one; `plan_runs` and `plan_tables` add its nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from implicit_tuning.experiment.config import Config
from implicit_tuning.nodes.node import LOADS_WEIGHTS, RELEASABLE, KeyNotKnown, Node, NodePaths

# Stages whose nodes measure one run: the tables are made of them.
MEASURING = ("judge", "rank", "similarity")
# Stages whose nodes a run asks for by themselves; the others are built for them.
ASKED_FOR = ("format", "select", *MEASURING, "table", "figure", "report", "audit")


@dataclass
class Plan:
    """All nodes of one experiment.

    `sweeps` has rows of the sweep over epochs by the names of their runs, `nodes` every node by
    stage and levels.
    """

    config: Config
    sweeps: Mapping[str, Mapping] = field(default_factory=dict)
    nodes: dict[tuple[str, tuple[str, ...]], Node] = field(default_factory=dict)

    @cached_property
    def adaptations(self) -> dict[str, Mapping]:
        """What is done to a base: the config's rows, and those of the sweep over epochs."""
        return {**self.config.adaptations, **self.sweeps}

    def stage(self, stage: str) -> list[Node]:
        """Nodes of one stage."""
        return [node for node in self.nodes.values() if node.stage == stage]

    def find(self, stage: str, levels: tuple[str, ...]) -> Node | None:
        """The node at these levels, or None if the config does not ask for it."""
        return self.nodes.get((stage, levels))

    def comparisons(self) -> list[Node]:
        """The comparisons on the evaluation set: those of the sweep, and those by which a guard is
        tried on its own task, are on others."""
        return [
            node
            for node in self.stage("judge")
            if node.level("adaptation") not in self.sweeps
            and node.level("evaluation") == self.config.evaluation
        ]

    def groups(self) -> dict[str, list[Node]]:
        """What measures runs, by stage and the data set that those were trained on ("none": no one).

        A data set that cannot be formatted so holds up no other measure.
        """
        groups: dict[str, list[Node]] = {}
        for node in (n for n in self.nodes.values() if n.stage in MEASURING):
            adaptation = self.adaptations[node.level("adaptation")]
            adaptation = self.adaptations[adaptation.get("of", node.level("adaptation"))]
            groups.setdefault(f"{node.stage}-{adaptation.get('data', 'none')}", []).append(node)
        return groups

    def way(self, adaptation: str) -> str:
        """How an adaptation with data was tuned: "instruction", "response" or "single_task".

        Random instructions tell no more of what was asked than blank ones: both are "response".
        """
        chosen = self.adaptations[adaptation]
        if chosen.get("instructions", "given") != "given":
            return "response"
        return "instruction" if chosen["data"] == self.general_data else "single_task"

    @property
    def general_data(self) -> str | None:
        """The data set of general instructions: that of the reference, or the one that an audit
        names in its place; None where neither is known."""
        own = self.config.adaptations[self.config.reference].get("data")
        return (self.config.audit or {}).get("general", own)

    def has_similarity(self, adaptation: str) -> bool:
        """Whether an adaptation's answers are held against its task and general instructions: it
        was tuned on a single task, and the data of both are known."""
        audit = self.config.audit
        if self.config.embedding is None or self.general_data is None:
            return False
        if audit is not None and audit["adaptation"] != adaptation:
            return False
        known = "data" in self.config.adaptations[adaptation]
        return known and self.way(adaptation) == "single_task"

    def loading(self, checkpoint: Node) -> list[Node]:
        """The nodes that load the weights of a checkpoint."""
        return self._loading.get(checkpoint, [])

    @cached_property
    def _loading(self) -> dict[Node, list[Node]]:
        loading: dict[Node, list[Node]] = {}
        for node in self.nodes.values():
            for above in node.upstream.values() if node.stage in LOADS_WEIGHTS else ():
                if isinstance(above, Node):
                    loading.setdefault(above, []).append(node)
        return loading

    def add(self, node: Node) -> Node:
        """Enter a node at its levels, which no other node may have."""
        assert (node.stage, node.levels) not in self.nodes, node.name
        self.nodes[node.stage, node.levels] = node
        return node


def is_built(paths: NodePaths, node: Node) -> bool:
    """Whether a node is built under its present key; no, while the key is not known."""
    try:
        return paths.is_built(node)
    except KeyNotKnown:
        return False


def pending(plan: Plan, paths: NodePaths) -> set[Node]:
    """What a run would build: what it asks for and lacks, and what that needs and lacks in turn.

    A lost node that nobody needs is not among them; a checkpoint whose weights were given up is,
    where a pending node loads them.
    """
    asked = [n for n in plan.nodes.values() if n.stage in ASKED_FOR and not is_built(paths, n)]
    found: set[Node] = set()
    while asked:
        node = asked.pop()
        found.add(node)
        above = [n for n in node.upstream.values() if isinstance(n, Node) and n not in found]
        asked += [n for n in above if not is_built(paths, n) or _lacks_weights(paths, n, node)]
    return found


def _lacks_weights(paths: NodePaths, above: Node, reader: Node) -> bool:
    loads = reader.stage in LOADS_WEIGHTS and above.stage in RELEASABLE
    return loads and not paths.weights(above).is_file()
