"""Wall time of the default run, where it goes, and of a second run in which nothing changed.

The workflow is copied into a temporary folder, built there with all cores from nothing, and started
again. A table says by stage what its jobs took (from their `benchmark:` files), which run two at a
time on two cores; the shares are of the time of all jobs. The installation is not part of it.

Exits with 3 when the run takes longer than 8 minutes, or the second one starts a job or takes longer
than 3 seconds.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from tabulate import tabulate

from aims import MISSED
from dag import REPOSITORY, copy_workflow, workspace_environment

AIMS = {"from nothing": 480.0, "nothing changed": 3.0}
RUN = [sys.executable, "-m", "snakemake", "--cores", "all", "--nocolor"]
NOTHING = "Nothing to be done"


def main() -> int:
    """Run twice, print; returns the exit status."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    config = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="default-run-") as name:
        folder = Path(name) / "workflow"
        copy_workflow(folder, config)
        (folder / "results").mkdir()
        seconds, _ = run(folder)
        again, said = run(folder)
        usage = read_usage(folder / "results" / config["experiment"] / "usage.csv")
    wall = {"from nothing": seconds, "nothing changed": again}
    print(wall_table(wall))
    print(f"\n{usage_table(usage)}")
    return 0 if NOTHING in said and all(wall[name] <= aim for name, aim in AIMS.items()) else MISSED


def run(folder: Path) -> tuple[float, str]:
    """Seconds of a run, and what Snakemake said.

    Raises:
        RuntimeError: it failed.
    """
    start = time.monotonic()
    done = subprocess.run(
        RUN,
        cwd=folder,
        env=workspace_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(RUN)} failed in {folder}:\n{done.stdout}")
    return time.monotonic() - start, done.stdout


def read_usage(file: Path) -> list[dict[str, str]]:
    """The rows of an experiment's usage.csv."""
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def wall_table(wall: dict[str, float]) -> str:
    """Markdown: seconds of each run, and their aims."""
    rows = [{"run": name, "seconds": wall[name], "aim": aim} for name, aim in AIMS.items()]
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=("", ".1f", "g"))


def usage_table(usage: list[dict[str, str]]) -> str:
    """Markdown: jobs and time by stage."""
    total = sum(float(row["wall_seconds"]) for row in usage)
    rows = [
        {
            "stage": row["stage"],
            "jobs": int(row["jobs"]),
            "seconds": float(row["wall_seconds"]),
            "share": f"{float(row['wall_seconds']) / total:.0%}",
            "of CPU": float(row["cpu_seconds"]),
            "median of a job, s": float(row["wall_seconds_median"]),
        }
        for row in usage
    ]
    decimals = ("", "", ".0f", "", ".0f", ".1f")
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=decimals)


if __name__ == "__main__":
    sys.exit(main())
