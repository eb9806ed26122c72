"""Run the benchmarks of the CPU one after the other and put what they print into docs/benchmarks.md.

The page has a pair of marks for each, `<!-- measured: ranking.py -->` and `<!-- end: ranking.py -->`;
what lies between them is replaced, and begins with when and on what it was measured. All take about
45 minutes; names of files choose some. Nothing else should run meanwhile.

Exits with 1 when one fails or misses an aim.
"""

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from aims import MISSED
from implicit_tuning.nodes.files import write_atomically

BENCHMARKS = Path(__file__).resolve().parent
PAGE = BENCHMARKS.parent / "docs" / "benchmarks.md"
FAILED = 1
NAMES = (
    "default_run.py",
    "start_up.py",
    "dag.py",
    "judging.py",
    "training.py",
    "rule_adapter.py",
    "ranking.py",
)


def main() -> int:
    """Run, write; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    ended = {name: measure(name) for name in names}
    for word, status in (("aims missed", MISSED), ("failed, and not written", FAILED)):
        if found := [name for name, its in ended.items() if its == status]:
            print(f"{word}: {', '.join(found)}")
    return 1 if any(ended.values()) else 0


def measure(name: str) -> int:
    """Run one benchmark and, if it ran to its end, put what it prints into the page.

    Returns 0, MISSED or FAILED.
    """
    print(f"\n{name}", flush=True)
    started = circumstances()
    command = [sys.executable, str(BENCHMARKS / name)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode not in (0, MISSED):
        return FAILED
    page = PAGE.read_text(encoding="utf-8")
    write_atomically(PAGE, replaced(page, name, f"{started}\n\n{done.stdout.strip()}"))
    return done.returncode


def circumstances() -> str:
    """When, on what, and how busy that is before the benchmark starts."""
    today = datetime.now(UTC).date().isoformat()
    busy = f"load {os.getloadavg()[0]:.1f} before"
    return f"*{today}, {os.cpu_count()} cores, Python {platform.python_version()}, {busy}*"


def replaced(page: str, name: str, text: str) -> str:
    """The page with another text between the marks of a benchmark.

    Raises:
        ValueError: the page lacks them.
    """
    first, last = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = page.partition(first)
    _, ended, after = rest.partition(last)
    if not (found and ended):
        raise ValueError(f"the page has no '{first}' with '{last}' behind it")
    return f"{before}{first}\n{text}\n{last}{after}"


if __name__ == "__main__":
    sys.exit(main())
