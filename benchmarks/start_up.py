"""CPU time of the smallest job of each stage, against the import of the libraries that it needs.

In a temporary folder one base is finetuned on a few rows, asked, judged and put into tables, each job
in a process of its own as Snakemake starts it, but without Snakemake. The peer of a stage is a process
that imports what its job cannot do without, such as `alpaca_eval` for a comparison. Jobs and peers
alternate; the medians over the runs are printed, of a stage with several jobs that of all of them.

Exits with 3 when a stage takes longer than its aim, or when a job without a model loads torch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import yaml
from tabulate import tabulate
from tqdm import tqdm

from aims import MISSED
from implicit_tuning.experiment.config_reading import load_config
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.job import job_spec
from implicit_tuning.nodes.node import Node, NodePaths

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = REPOSITORY / "workflow" / "scripts"
RUN_SCRIPT, USAGE = (Path(__file__).with_name(name) for name in ("run_script.py", "usage.py"))
EXPERIMENT = REPOSITORY / "tests" / "fixtures" / "smallest.yaml"
# What is asked beside the smallest experiment, so that each stage has a job.
CHANGES = {
    "adaptations": {
        "base": {"kind": "none"},
        "instruction": {"kind": "finetune", "data": "organism-lima", "rows": 32},
        "gsm8k": {"kind": "finetune", "data": "organism-gsm8k", "rows": 16},
    },
    "embedding": "tfidf",
    "embeddings": {"tfidf": {"kind": "tfidf"}},
    "ranking": {
        "data": "organism-alpaca",
        "random_responses": 5,
        "max_length": 192,
        "batch_size": 64,
    },
}
WITH_MODEL = ("finetune", "generate", "rank")
MODELS = "import torch; from transformers import AutoTokenizer, LlamaForCausalLM"
# By stage: what a job cannot do without, and the aim in CPU seconds, where there is one.
STAGES: dict[str, tuple[str, float | None]] = {
    "download": ("import json, filelock", None),
    "format": ("import json, filelock", 0.7),
    "finetune": (MODELS, 5.0),
    "generate": (MODELS, 5.0),
    "rank": (MODELS, 5.0),
    "judge": ("import alpaca_eval", 2.6),
    "similarity": ("from sklearn.feature_extraction.text import TfidfVectorizer", None),
    "table": ("import pandas, scipy.stats", 1.3),
    "figure": ("import pandas, matplotlib.pyplot", None),
    "report": ("import pandas, jinja2", None),
}


@dataclass
class Stage:
    """CPU seconds of the jobs and of the peer, one entry a run, and the modules that jobs loaded."""

    jobs: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)


def main() -> int:
    """Measure, print; returns the exit status."""
    arguments = _parse_arguments()
    stages = {name: Stage() for name in STAGES}
    for _ in tqdm(range(arguments.repeats), desc="measuring", unit="run"):
        with tempfile.TemporaryDirectory(prefix="start-up-") as folder:
            measure_run(Path(folder), stages)
    print(table(stages))
    return MISSED if any(misses(*item) for item in stages.items()) else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="medians are over so many (3)")
    return parser.parse_args()


def measure_run(folder: Path, stages: dict[str, Stage]) -> None:
    """Build every node of the experiment once, each beside its peer."""
    config = yaml.safe_load(EXPERIMENT.read_text(encoding="utf-8")) | CHANGES
    plan = build_plan(load_config(config, REPOSITORY), DigestMemory(folder / "digests.json"))
    paths = NodePaths(folder / "results")
    for node in in_order(list(plan.nodes.values())):
        stage = stages[node.stage]
        cpu, modules = run_job(node.stage, job_spec(paths, node), folder / "job.log")
        stage.jobs.append(cpu)
        stage.modules |= modules
        stage.peer.append(cpu_of([sys.executable, "-c", STAGES[node.stage][0]])[0])


def in_order(nodes: list[Node]) -> Iterator[Node]:
    """The nodes, each behind all that it reads."""
    left = set(nodes)
    while left:
        ready = [n for n in nodes if n in left and left.isdisjoint(n.upstream.values())]
        left.difference_update(ready)
        yield from ready


def run_job(script: str, spec: str, log: Path) -> tuple[float, set[str]]:
    """CPU seconds of a script's job, and the modules that it loaded."""
    file = SCRIPTS / f"{script}.py"
    cpu, printed = cpu_of([sys.executable, str(RUN_SCRIPT), str(file), spec, str(log)])
    return cpu, set(json.loads(printed.splitlines()[-1]))


def cpu_of(command: list[str]) -> tuple[float, str]:
    """CPU seconds of a command, and what it printed.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(USAGE), *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)["cpu"], done.stderr


def misses(name: str, stage: Stage) -> bool:
    """Whether a stage misses its aim, or loads models where it needs none."""
    aim = STAGES[name][1]
    loads_models = bool({"torch", "transformers"} & stage.modules)
    return (aim is not None and median(stage.jobs) > aim) or loads_models != (name in WITH_MODEL)


def table(stages: dict[str, Stage]) -> str:
    """Markdown: a stage's smallest job, the import of what it needs, and the aim."""
    rows = [
        {
            "stage": name,
            "job, CPU s": median(stage.jobs),
            "imports alone": median(stage.peer),
            "ratio": median(stage.jobs) / median(stage.peer),
            "aim": STAGES[name][1] or "",
            "loads torch": "yes" if "torch" in stage.modules else "no",
            "peer": f"`{STAGES[name][0]}`",
        }
        for name, stage in stages.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=("", ".2f", ".2f", ".2f"))


if __name__ == "__main__":
    sys.exit(main())
