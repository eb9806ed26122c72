"""`check`: find every problem of an experiment before its first job."""

import argparse
import sys
from collections.abc import Sequence

from implicit_tuning.commands.planned import RESULTS, planned
from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.preflight.checks import preflight
from implicit_tuning.experiment.preflight.machine import unwritable
from implicit_tuning.remote.lockfile import LockError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="check against the `hardware` of the config, not against that of this machine",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was checked, and every problem; returns the exit status."""
    try:
        made, paths = planned(arguments)
    except (ConfigError, LockError) as error:
        problems = [*getattr(error, "problems", [str(error)]), *unwritable(RESULTS)]
        return _report_problems(problems)
    found = preflight(made, paths, arguments.cluster)
    print(f"experiment '{made.config.experiment}', {len(made.nodes)} nodes")
    print("\n".join(found.checked))
    return _report_problems(found.problems)


def _report_problems(problems: Sequence[str]) -> int:
    """Print problems; returns the exit status."""
    if not problems:
        print("no problems")
        return 0
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    print("\n".join([f"check: {count}", *(f"  - {line}" for line in problems)]), file=sys.stderr)
    return 1
