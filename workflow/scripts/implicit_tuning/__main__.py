"""Commands beside the workflow, from plan and check to judge; --help lists them."""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from implicit_tuning.artifact import BrokenArtifact
from implicit_tuning.config import ConfigError, read_config
from implicit_tuning.digests import DigestMemory
from implicit_tuning.logs import show_messages
from implicit_tuning.nodes import Node, NodePaths, Unpublished
from implicit_tuning.plan import Plan, count_by_stage
from implicit_tuning.planning import build_plan

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
    for command in (plan, check, verify, repair, explain, prune, unlock, preview, judge, calibrate):
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
        if command is judge:
            _add_judge_arguments(sub)
        if command is calibrate:
            _add_calibrate_arguments(sub)
        if command is prune:
            sub.add_argument("--force", action="store_true", help="delete what is listed")
    return parser


def _add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    rows = "rows with instruction, output and generator, as AlpacaEval's; .json or .jsonl"
    parser.add_argument("--outputs", type=Path, required=True, metavar="FILE", help=rows)
    parser.add_argument(
        "--references",
        type=Path,
        required=True,
        metavar="FILE",
        help="what they are judged against: the same instructions in the same order",
    )
    _add_judge_argument(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for annotations.jsonl and summary.json; verdicts are kept beside it, in "
        "FOLDER.verdicts.jsonl, and are not asked for again",
    )


def _add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    _add_judge_argument(parser)
    parser.add_argument(
        "--annotations",
        nargs="+",
        required=True,
        metavar="FILE_OR_URL",
        help="stored verdicts in the layout of alpaca_eval's annotations.json; a URL is fetched "
        "once, into results/cache",
    )


def _add_judge_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge", metavar="NAME", help="a name under `judges` of the config (default: its `judge`)"
    )


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
    for stage, count, built, waiting in [*counts, ("all", *map(sum, columns))]:
        print(f"{stage:<10} {count:>6} {built:>6} {waiting:>6}")
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
    done = upkeep.verify(made, paths)
    for finding in done.findings:
        print(finding.text)
    megabytes = done.n_bytes / 1e6
    print(
        f"{len(made.nodes)} artifacts, {megabytes:.1f} MB in {done.seconds:.1f} s "
        f"({megabytes / done.seconds:.0f} MB/s), {len(done.findings)} problems"
    )
    return 1 if done.findings else 0


def repair(arguments: argparse.Namespace) -> int:
    """rebuild exactly the artifacts that are missing or damaged"""
    from implicit_tuning import upkeep

    if _refuse_while_running("repair"):
        return 1
    made, paths = _plan(arguments)
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


def judge(arguments: argparse.Namespace) -> int:
    """compare two files of outputs, under a judge of the config"""
    from implicit_tuning.judging.command import describe, judge_files
    from implicit_tuning.judging.judge import JudgingFailed

    _, node, paths = _judge_of_config(arguments)
    try:
        comparison = judge_files(
            arguments.outputs, arguments.references, node, paths, arguments.out
        )
    except (ValueError, OSError, JudgingFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(describe(comparison))
    return 0


def calibrate(arguments: argparse.Namespace) -> int:
    """how far a judge agrees with stored verdicts of people or of another judge"""
    from implicit_tuning.judging.calibrating import calibrate_files, calibration_folder, describe
    from implicit_tuning.judging.judge import JudgingFailed

    made, node, paths = _judge_of_config(arguments)
    name = made.config.judge
    try:
        calibration = calibrate_files(name, arguments.annotations, node, paths)
    except (ValueError, OSError, JudgingFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{describe(calibration)}\n")
    file = calibration_folder(name, paths) / "calibration.json"
    named = made.config.judges[name].get("calibration")
    if named is None or named.resolve() != file.resolve():
        print(f"for the tables: write 'calibration: {file}' under judges.{name}")
    return 0


def _judge_of_config(arguments: argparse.Namespace) -> tuple[Plan, Node, NodePaths]:
    """The plan under the judge that was asked for, and a comparison of it."""
    show_messages()
    if arguments.judge is not None:
        arguments.config = [*arguments.config, f"judge={json.dumps(arguments.judge)}"]
    made, paths = _plan(arguments)
    return made, made.stage("judge")[0], paths


if __name__ == "__main__":
    sys.exit(main())
