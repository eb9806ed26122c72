"""What the jobs of an experiment took: time and memory by stage, from Snakemake's benchmark files.

Measurements, not results: they differ from run to run, are in no key and under no check. A node
that was built for another experiment, or earlier, counts with what it took then.
"""

import csv
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate

from implicit_tuning.nodes.files import write_atomically
from implicit_tuning.nodes.node import LEVELS


@dataclass(frozen=True)
class StageUsage:
    """One stage. `measured` of its `jobs` have a benchmark file; the figures are over those.

    Wall and CPU times in seconds, `max_memory_mb` the largest resident memory of one job in MB.
    """

    stage: str
    jobs: int
    measured: int
    wall_seconds: float
    wall_seconds_median: float
    cpu_seconds: float
    max_memory_mb: float


def usage_by_stage(nodes: Mapping[str, Path]) -> list[StageUsage]:
    """Usage of each stage in the order of the workflow.

    `nodes` gives the folder of every node by its name (stage/levels).
    """
    by_stage: dict[str, list[Path]] = {stage: [] for stage in LEVELS}
    for name, folder in nodes.items():
        by_stage[name.partition("/")[0]].append(folder)
    return [_stage_usage(stage, folders) for stage, folders in by_stage.items() if folders]


def _stage_usage(stage: str, folders: list[Path]) -> StageUsage:
    rows = [row for folder in folders for row in _read_benchmark(folder / "benchmark.tsv")]
    seconds = [row["s"] for row in rows]
    return StageUsage(
        stage=stage,
        jobs=len(folders),
        measured=len(rows),
        wall_seconds=round(sum(seconds), 2),
        wall_seconds_median=round(statistics.median(seconds), 2) if seconds else 0.0,
        cpu_seconds=round(sum(row["cpu_time"] for row in rows), 2),
        max_memory_mb=max((row["max_rss"] for row in rows), default=0.0),
    )


def _read_benchmark(file: Path) -> list[dict[str, float]]:
    """The last measurement of a job, or nothing where its scheduler was killed before it wrote."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        *_, last = csv.DictReader(lines, delimiter="\t")
    # A job too short to be sampled has "NA" or "-" for its memory.
    return [{name: _number(last[name]) for name in ("s", "cpu_time", "max_rss")}]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def write_usage(stages: Iterable[StageUsage], folder: Path) -> None:
    """Write usage.csv and usage.md into a folder."""
    rows = [asdict(stage) for stage in stages]
    header, *lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    table = "".join(",".join(map(str, line)) + "\n" for line in [header, *lines])
    write_atomically(folder / "usage.csv", table)
    readable = tabulate(lines, headers=header, tablefmt="github")
    write_atomically(folder / "usage.md", f"{readable}\n")
