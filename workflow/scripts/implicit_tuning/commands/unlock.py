"""`unlock`: remove the lock that a killed run left."""

import argparse
import subprocess
import sys

from implicit_tuning.commands import upkeep


def run(arguments: argparse.Namespace) -> int:
    """Remove the lock, unless a run is alive."""
    if upkeep.refuse_while_running("unlock"):
        return 1
    command = [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1"]
    return subprocess.run(command, check=False).returncode
