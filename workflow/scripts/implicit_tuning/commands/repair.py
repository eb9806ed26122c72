"""`repair`: rebuild exactly the artifacts that are missing or damaged."""

import argparse
import subprocess
import sys

from implicit_tuning.commands import upkeep
from implicit_tuning.commands.planned import DEFAULT_CONFIG, planned


def run(arguments: argparse.Namespace) -> int:
    """Withdraw the manifests of damaged nodes, and run the workflow for them."""
    if upkeep.refuse_while_running("repair"):
        return 1
    made, paths = planned(arguments)
    findings = upkeep.verify(made, paths).findings
    for finding in findings:
        print(finding.text)
    targets = upkeep.withdraw(findings, paths)
    if not targets:
        print(f"{len(made.nodes)} artifacts, nothing to rebuild")
        return 1 if findings else 0
    command = [sys.executable, "-m", "snakemake", "--cores", "all"]
    command += ["--configfile", *(arguments.configfile or DEFAULT_CONFIG)]
    command += ["--config", *arguments.config] if arguments.config else []
    return subprocess.run([*command, "--", *map(str, targets)], check=False).returncode
