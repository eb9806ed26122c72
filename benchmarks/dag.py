"""CPU time and memory of planning: the dry run and `plan`, against Snakemake alone.

For each size of the paper's grid (2 bases x 7 trainings at 5 numbers of epochs x seeds, the base
itself, the rules, a control) a workspace is made in a temporary folder: this Snakefile with its
rules and scripts, and artifacts that are built by the package itself, but empty. Three states:

    fresh     only the data is built: everything else is to do
    finished  everything is built: nothing is to do
    changed   everything is built, then one training changes one hyper-parameter

The peer is benchmarks/plain.smk: the same nodes, links and missing files, and no keys.
Runs of ours and of the peer alternate; the medians are printed.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import yaml
from tabulate import tabulate
from tqdm import tqdm

from implicit_tuning.experiment.config import merge
from implicit_tuning.experiment.config_reading import load_config
from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.experiment.stable_names import plan_stable_names, write_stable_names
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.job import building, job_spec
from implicit_tuning.nodes.node import Node, NodePaths

REPOSITORY = Path(__file__).resolve().parents[1]
PLAIN = Path(__file__).with_name("plain.smk")
USAGE = Path(__file__).with_name("usage.py")
# Numbers of epochs from which the paper chooses.
EPOCHS = (5, 7, 10, 15, 20)
CHANGE = {"adaptations": {"chess-20": {"training": {"learning_rate": 3.0e-5}}}}
STATES = ("fresh", "finished", "changed")
DATA_STAGES = ("download", "format")
JOBS = re.compile(r"^total +(\d+)$", re.MULTILINE)
DRY_RUN = ["-m", "snakemake", "-n", "--nocolor", "--rerun-triggers", "mtime"]
COMMANDS = {
    "ours": [*DRY_RUN, "--quiet"],
    "peer": [*DRY_RUN, "--quiet"],
    "plan": ["-m", "implicit_tuning", "plan"],
}
COUNTED = ("ours", "peer")


@dataclass(frozen=True)
class Usage:
    """What a command used: CPU seconds with its children, peak resident MB."""

    cpu: float
    memory: float


@dataclass
class Case:
    """One size in one state.

    Attributes:
        nodes: how many the experiment has.
        state: one of STATES.
        folders: where each of COMMANDS runs.
        usages: what each run of each command used.
        jobs: how many each dry run plans.
    """

    nodes: int
    state: str
    folders: Mapping[str, Path]
    usages: dict[str, list[Usage]] = field(default_factory=lambda: {name: [] for name in COMMANDS})
    jobs: dict[str, int] = field(default_factory=dict)

    def median(self, command: str, quantity: str) -> float:
        """Median over the runs of a command."""
        return median(getattr(usage, quantity) for usage in self.usages[command])


def main() -> None:
    """Make the workspaces, measure, print."""
    arguments = _parse_arguments()
    with tempfile.TemporaryDirectory(prefix="dag-", dir=arguments.folder) as folder:
        cases = [
            case
            for seeds in tqdm(arguments.seeds, desc="making workspaces", unit="size")
            for case in make_cases(Path(folder) / str(seeds), seeds)
        ]
        measure(cases, arguments.repeats)
    print(usage_table(cases))
    if len(arguments.seeds) > 1:
        print(f"\n{growth_table(cases)}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[5, 13, 45],
        metavar="N",
        help="seeds of each size: 5 (the paper's) are about 1,100 nodes, 13 are 3,000, "
        "45 are 10,000 (default: 5 13 45)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="runs of each command (default: 3)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the temporary folder is made (default: the system's)"
    )
    return parser.parse_args()


# --- workspaces ---------------------------------------------------------------------------------


def make_cases(folder: Path, seeds: int) -> Iterator[Case]:
    """One case for each state, with the workspaces that it needs."""
    grid = paper_grid(seeds)
    for state in STATES:
        ours, peer = folder / state / "ours", folder / state / "peer"
        copy_workflow(ours, merge(grid, CHANGE) if state == "changed" else grid)
        plan = plan_in(ours, grid)
        paths = NodePaths(ours / "results")
        build_empty(plan, paths, DATA_STAGES if state == "fresh" else None)
        planned = plan_in(ours, merge(grid, CHANGE)) if state == "changed" else plan
        write_peer(peer, planned, paths)
        yield Case(len(planned.nodes), state, {"ours": ours, "peer": peer, "plan": ours})


def paper_grid(seeds: int) -> dict:
    """The default config with a row of adaptations for each number of epochs."""
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text(encoding="utf-8"))
    adaptations = {}
    for name, row in config["adaptations"].items():
        if row["kind"] == "finetune":
            for epochs in EPOCHS:
                adaptations[f"{name}-{epochs}"] = {**row, "training": {"epochs": epochs}}
        else:
            adaptations[name] = {**row, "of": "instruction-15"} if "of" in row else row
    return {
        **config,
        "seeds": list(range(1, seeds + 1)),
        "reference": "instruction-15",
        "adaptations": adaptations,
    }


def copy_workflow(folder: Path, config: Mapping) -> None:
    """A copy of the workflow over a config of its own."""
    for name in ("rules", "workflow", "config", "profiles"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "resources").symlink_to(REPOSITORY / "resources")
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def plan_in(folder: Path, config: Mapping) -> Plan:
    """Plan of a config in a workspace."""
    memory = DigestMemory(folder / "results/cache/digests.json")
    return build_plan(load_config(config, folder), memory)


def build_empty(plan: Plan, paths: NodePaths, stages: tuple[str, ...] | None) -> None:
    """Build the nodes of these stages (None: all, and copy them to stable names), each with one short file."""
    for node in plan.nodes.values():
        if stages is None or node.stage in stages:
            with building(job_spec(paths, node)) as job:
                (job.data / f"{'-'.join((node.stage, *node.levels[:1]))}.txt").write_text(
                    f"{node.name}\n"
                )
    if stages is None:
        names = plan_stable_names(plan, paths)
        write_stable_names(names, names.wanted_stamp())


def write_peer(folder: Path, plan: Plan, paths: NodePaths) -> None:
    """The same nodes without keys: their links, and a file for each that is built."""
    folder.mkdir(parents=True)
    shutil.copy(PLAIN, folder / "Snakefile")
    (folder / "job.py").touch()
    above = {
        node.name: [a.name for a in node.upstream.values() if isinstance(a, Node)]
        for node in plan.nodes.values()
    }
    (folder / "links.json").write_text(json.dumps(above))
    for node in plan.nodes.values():
        if is_built(paths, node):
            manifest = folder / "results" / node.name / "manifest.json"
            manifest.parent.mkdir(parents=True)
            manifest.touch()


# --- measuring ----------------------------------------------------------------------------------


def measure(cases: list[Case], repeats: int) -> None:
    """Run every command in every case, in turns, and count the jobs of the dry runs.

    Raises:
        RuntimeError: a command failed.
    """
    runs = len(cases) * (repeats * len(COMMANDS) + len(COUNTED))
    with tqdm(total=runs, desc="measuring", unit="run") as progress:
        for _ in range(repeats):
            for case in cases:
                for name, folder in case.folders.items():
                    case.usages[name].append(run_measured(COMMANDS[name], folder))
                    progress.update()
        for case in cases:
            for name in COUNTED:
                case.jobs[name] = count_jobs(case.folders[name])
                progress.update()


def run_measured(command: list[str], folder: Path) -> Usage:
    """What Python uses for a command in a folder."""
    usage = json.loads(_run([str(USAGE), sys.executable, *command], folder).stdout)
    return Usage(usage["cpu"], usage["memory"] / 1024)


def count_jobs(folder: Path) -> int:
    """Jobs of a dry run, which `--quiet` alone does not print."""
    total = JOBS.search(_run([*DRY_RUN, "--quiet", "rules"], folder).stdout)
    return int(total[1]) if total else 0


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=workspace_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{done.stdout}{done.stderr}")
    return done


def workspace_environment(folder: Path) -> dict[str, str]:
    """Environment in which Python finds the package of a workspace."""
    return {**os.environ, "PYTHONPATH": str(folder / "workflow/scripts")}


# --- printing -----------------------------------------------------------------------------------


def usage_table(cases: list[Case]) -> str:
    """CPU seconds and memory of each case, ours over the peer's."""
    rows = [
        {
            "nodes": case.nodes,
            "state": case.state,
            "jobs": case.jobs["ours"],
            "peer's": case.jobs["peer"],
            "dry run, s": case.median("ours", "cpu"),
            "peer, s": case.median("peer", "cpu"),
            "ratio": case.median("ours", "cpu") / case.median("peer", "cpu"),
            "MB": case.median("ours", "memory"),
            "peer, MB": case.median("peer", "memory"),
            "plan, s": case.median("plan", "cpu"),
            "plan, MB": case.median("plan", "memory"),
        }
        for case in cases
    ]
    decimals = ("", "", "", "", ".2f", ".2f", ".2f", ".0f", ".0f", ".2f", ".0f")
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=decimals)


def growth_table(cases: list[Case]) -> str:
    """Exponent of CPU time over the number of nodes, between the smallest and the largest size."""
    rows = []
    for state in STATES:
        sizes = sorted((c for c in cases if c.state == state), key=lambda case: case.nodes)
        rows.append({"growth": state, **{name: _exponent(sizes, name) for name in COMMANDS}})
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".2f")


def _exponent(sizes: list[Case], command: str) -> float:
    small, large = sizes[0], sizes[-1]
    times = large.median(command, "cpu") / small.median(command, "cpu")
    return math.log(times) / math.log(large.nodes / small.nodes)


if __name__ == "__main__":
    main()
