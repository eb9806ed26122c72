"""How long a plan takes on so many cores and GPUs: its jobs, played through."""

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from implicit_tuning.nodes.node import Node


@dataclass(frozen=True)
class PlannedJob:
    """How long a node takes, and the cores or GPUs that it holds meanwhile."""

    seconds: float
    cores: int
    gpus: int


def makespan(jobs: Mapping[Node, PlannedJob], cores: int, gpus: int) -> float:
    """Seconds from the first start to the last end, each job as soon as it can.

    Jobs wait for their upstream jobs, then for cores and GPUs in the order in which they became
    ready. One that wants more than there is takes all.
    """
    above = {n: {u for u in n.upstream.values() if isinstance(u, Node) and u in jobs} for n in jobs}
    readers: dict[Node, list[Node]] = {}
    for node, nodes in above.items():
        for upstream in nodes:
            readers.setdefault(upstream, []).append(node)
    waiting = {node: len(nodes) for node, nodes in above.items()}
    pool = _Pool(cores, gpus)
    for node, count in waiting.items():
        if count == 0:
            pool.enter(node, jobs[node])
    now = 0.0
    while done := pool.next_end(now):
        now, node = done
        for reader in readers.get(node, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                pool.enter(reader, jobs[reader])
    return now


class _Pool:
    """Free cores and GPUs, the jobs that wait for either, and those that run."""

    def __init__(self, cores: int, gpus: int) -> None:
        self._all = {"cores": cores, "gpus": gpus}
        self._free = dict(self._all)
        self._ready: dict[str, deque] = {"cores": deque(), "gpus": deque()}
        self._running: list[tuple[float, int, Node, str, int]] = []
        self._started = 0

    def enter(self, node: Node, job: PlannedJob) -> None:
        kind = "gpus" if job.gpus else "cores"
        wanted = min(job.gpus or job.cores, self._all[kind])
        self._ready[kind].append((node, job.seconds, wanted))

    def next_end(self, now: float) -> tuple[float, Node] | None:
        """Start what can start, and return when the next job ends and which; None: all are done."""
        for kind, queue in self._ready.items():
            while queue and queue[0][2] <= self._free[kind]:
                node, seconds, taken = queue.popleft()
                self._free[kind] -= taken
                self._started += 1  # breaks ties, since nodes have no order
                heapq.heappush(self._running, (now + seconds, self._started, node, kind, taken))
        if not self._running:
            return None
        end, _, node, kind, taken = heapq.heappop(self._running)
        self._free[kind] += taken
        return end, node
