"""`verify`: hash every artifact of an experiment again."""

import argparse

from implicit_tuning.commands import upkeep
from implicit_tuning.commands.planned import planned


def run(arguments: argparse.Namespace) -> int:
    """Print what is missing or damaged; returns exit status 1 if anything is."""
    made, paths = planned(arguments)
    done = upkeep.verify(made, paths)
    for finding in done.findings:
        print(finding.text)
    megabytes = done.n_bytes / 1e6
    print(
        f"{len(made.nodes)} artifacts, {megabytes:.1f} MB in {done.seconds:.1f} s "
        f"({megabytes / done.seconds:.0f} MB/s), {len(done.findings)} problems"
    )
    return 1 if done.findings else 0
