"""Commands beside the workflow: plan, check, verify, repair, explain, prune, unlock, preview."""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from implicit_tuning.artifact import BrokenArtifact
from implicit_tuning.config import ConfigError, read_config
from implicit_tuning.digests import DigestMemory
from implicit_tuning.nodes import NodePaths, Unpublished
from implicit_tuning.plan import Plan, build_plan, count_by_stage

RESULTS = Path("results")
DEFAULT_CONFIG = ["config/config.yaml"]


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        return arguments.command(arguments)
    except (ConfigError, Unpublished, BrokenArtifact, LookupError, ModuleNotFoundError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(message, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m implicit_tuning", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (plan, check, verify, repair, explain, prune, unlock, preview):
        sub = commands.add_parser(
            command.__name__, help=command.__doc__, description=command.__doc__
        )
        sub.set_defaults(command=command)
        sub.add_argument(
            "--configfile",
            action="append",
            metavar="FILE",
            help="config of the experiment (default: config/config.yaml); given again, later "
            "files override earlier ones key by key",
        )
        sub.add_argument(
            "--config",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a top-level key of the config, as in Snakemake",
        )
        if command is explain:
            sub.add_argument("node", help="name of a node, as in its path, or the start of names")
        if command is prune:
            sub.add_argument("--force", action="store_true", help="delete what is listed")
    return parser


def _plan(arguments: argparse.Namespace) -> tuple[Plan, NodePaths]:
    root = Path.cwd()
    if not (root / "Snakefile").is_file():
        raise LookupError(f"{root} holds no Snakefile: start this in the root of the repository")
    files = [Path(file) for file in arguments.configfile or DEFAULT_CONFIG]
    config = read_config(files, root, overrides=arguments.config)
    plan = build_plan(config, DigestMemory(RESULTS / "cache" / "digests.json"))
    return plan, NodePaths(RESULTS)


def plan(arguments: argparse.Namespace) -> int:
    """nodes by stage, and how many of them stand already"""
    made, paths = _plan(arguments)
    counts = count_by_stage(made, paths)
    print(f"{'stage':<10} {'nodes':>6} {'built':>6} {'to do':>6}")
    _, *columns = zip(*counts, strict=True)
    for stage, count, built, todo in [*counts, ("all", *map(sum, columns))]:
        print(f"{stage:<10} {count:>6} {built:>6} {todo:>6}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """find every problem of a config before anything runs"""
    made, _ = _plan(arguments)
    print(f"config: no problems; experiment '{made.config.experiment}', {len(made.nodes)} nodes")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """hash every artifact of the experiment again; exit status 1 if any is missing or damaged"""
    from implicit_tuning import upkeep

    made, paths = _plan(arguments)
    findings = upkeep.verify(made, paths)
    for finding in findings:
        print(finding.text)
    print(f"{len(made.nodes)} artifacts, {len(findings)} problems")
    return 1 if findings else 0


def repair(arguments: argparse.Namespace) -> int:
    """rebuild exactly the artifacts that are missing or damaged"""
    from implicit_tuning import upkeep

    if _refuse_while_running("repair"):
        return 1
    made, paths = _plan(arguments)
    findings = upkeep.verify(made, paths)
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


def explain(arguments: argparse.Namespace) -> int:
    """why a node is up to date or stale: which part of its key changed"""
    from implicit_tuning import explain as explaining

    made, paths = _plan(arguments)
    for node in explaining.find_nodes(made, arguments.node):
        print("\n".join(explaining.explain(node, paths)))
    return 0


def prune(arguments: argparse.Namespace) -> int:
    """list what neither this config nor a published experiment needs; --force deletes it"""
    from implicit_tuning import upkeep

    made, paths = _plan(arguments)
    if arguments.force and _refuse_while_running("delete"):
        return 1
    total = 0
    for path in upkeep.unneeded(made, paths):
        size = upkeep.folder_size(path)
        total += size
        print(f"{size / 1e6:10.1f} MB  {path}")
        if arguments.force:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"{total / 1e6:10.1f} MB  {'deleted' if arguments.force else 'in all; nothing deleted'}")
    return 0


def unlock(arguments: argparse.Namespace) -> int:
    """remove the lock that a killed run left, after making sure that none is alive"""
    if _refuse_while_running("unlock"):
        return 1
    command = [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1"]
    return subprocess.run(command, check=False).returncode


def _refuse_while_running(what: str) -> bool:
    from implicit_tuning import upkeep

    alive = upkeep.running_workflows(Path.cwd())
    for process in alive:
        command = shlex.join(process.info["cmdline"])
        print(f"will not {what}: process {process.pid} runs here: {command}", file=sys.stderr)
    return bool(alive)


def preview(arguments: argparse.Namespace) -> int:
    """the main table over what is judged so far, every gap marked"""
    from implicit_tuning.preview import preview_main

    made, paths = _plan(arguments)
    print(preview_main(made, paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
