"""Commands beside the workflow, from plan and check to judge; --help lists them."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from implicit_tuning import chatting, publishing
from implicit_tuning.arguments import OF_COMMANDS, add_config_arguments
from implicit_tuning.config import ConfigError
from implicit_tuning.config_reading import load_config, read_config, read_raw
from implicit_tuning.lock import LockError
from implicit_tuning.nodes.artifact import BrokenArtifact
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.logs import show_messages
from implicit_tuning.nodes.node import Node, NodePaths, Unpublished
from implicit_tuning.plan import Plan
from implicit_tuning.planning import build_plan
from implicit_tuning.single_run import (
    Finetune,
    Request,
    request_evaluation,
    request_finetune,
    write_request,
)

RESULTS = Path("results")
DEFAULT_CONFIG = ["config/config.yaml"]


# What ends a command with its message alone.
EXPECTED = (
    ConfigError,
    LockError,
    Unpublished,
    BrokenArtifact,
    LookupError,
    ModuleNotFoundError,
)


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        status = arguments.command(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130  # as a shell reports it
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(message, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m implicit_tuning", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        name = command.__name__
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        add_config_arguments(sub)
        if name in OF_COMMANDS:
            OF_COMMANDS[name](sub)
    return parser


def _plan(arguments: argparse.Namespace) -> tuple[Plan, NodePaths]:
    root = Path.cwd()
    if not (root / "Snakefile").is_file():
        raise LookupError(f"{root} holds no Snakefile: start this in the root of the repository")
    return _plan_of(_files(arguments), arguments.config)


def _files(arguments: argparse.Namespace) -> list[Path]:
    return [Path(file) for file in arguments.configfile or DEFAULT_CONFIG]


def _plan_of(files: list[Path], overrides: Sequence[str] = ()) -> tuple[Plan, NodePaths]:
    config = read_config(files, Path.cwd(), overrides)
    plan = build_plan(config, DigestMemory(RESULTS / "cache" / "digests.json"))
    return plan, NodePaths(RESULTS)


def plan(arguments: argparse.Namespace) -> int:
    """what stands, what is still to do, and what that takes: time, disk, calls, money"""
    from implicit_tuning.costs.estimate import estimate_costs
    from implicit_tuning.costs.report import describe

    print(describe(estimate_costs(*_plan(arguments))))
    return 0


def check(arguments: argparse.Namespace) -> int:
    """find every problem before anything runs: config, sources, endpoints, disk, GPUs, memory"""
    from implicit_tuning.preflight.checks import preflight
    from implicit_tuning.preflight.machine import unwritable

    try:
        made, paths = _plan(arguments)
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


def chat(arguments: argparse.Namespace) -> int:
    """talk with the model of a run in the terminal, or through a pipe, one line a turn"""
    return chatting.chat(*_plan(arguments), arguments, _config_options(arguments))


def publish(arguments: argparse.Namespace) -> int:
    """make a finetuned run a repository of the hub, with its model card; --yes sends it"""
    return publishing.publish(*_plan(arguments), arguments, _config_options(arguments))


def _config_options(arguments: argparse.Namespace) -> list[str]:
    """The options of Snakemake that name the same config."""
    files = ["--configfile", *arguments.configfile] if arguments.configfile else []
    return files + (["--config", *arguments.config] if arguments.config else [])


def lock(arguments: argparse.Namespace) -> int:
    """look up every hub entry of a config that config/lock.yaml lacks, and pin it there"""
    made, _ = _plan(arguments)
    if not _lock_missing(made):
        print("nothing to lock: config/lock.yaml has every hub entry of this config")
    return 0


def _lock_missing(made: Plan) -> int:
    """Lock what is not locked yet; returns how many entries that were."""
    from implicit_tuning.locking import LOCK_FILE, lock_missing

    added = lock_missing(made)
    for name, pin in added.items():
        size = sum(file.size for file in pin.files.values())
        print(f"{name}: {pin.commit}, {len(pin.files)} files, {size / 1e6:.1f} MB")
    if added:
        print(f"{LOCK_FILE}: {len(added)} entries added")
    return len(added)


def train(arguments: argparse.Namespace) -> int:
    """finetune one model: as the config says, but for what is said here"""
    asked = Finetune(
        way=arguments.way,
        model=arguments.model,
        data=arguments.data,
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )
    folder = _build(request_finetune(_raw(arguments), asked))
    if folder is None:
        return 1
    print(f"checkpoint: {folder / 'data'}")
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """judge one model's answers against another's"""
    from implicit_tuning.judging.command import describe, read_comparison

    asked = (arguments.model, arguments.reference, arguments.data)
    folder = _build(request_evaluation(_raw(arguments), *asked))
    if folder is None:
        return 1
    print(describe(read_comparison(folder / "data")))
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """whether a checkpoint follows general instructions, whatever it was finetuned for"""
    from implicit_tuning.auditing.command import audit_model

    return audit_model(arguments, RESULTS)


def _raw(arguments: argparse.Namespace) -> dict:
    """The config that a request departs from, as read; it must be whole by itself."""
    raw = read_raw(_files(arguments), arguments.config)
    load_config(raw, Path.cwd())
    return raw


def _build(request: Request) -> Path | None:
    """Run the workflow for the one node of a request; returns its folder, None if that failed."""
    file = write_request(request.config, RESULTS / "cache" / "requests")
    made, paths = _plan_of([file])
    if _lock_missing(made):
        made, paths = _plan_of([file])
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", str(file)]
    if subprocess.run([*command, "--", request.target], check=False).returncode:
        return None
    return paths.folder(made.nodes[request.stage, request.levels])


def _judge_of_config(arguments: argparse.Namespace) -> tuple[Plan, Node, NodePaths]:
    """The plan under the judge that was asked for, and a comparison of it."""
    show_messages()
    if arguments.judge is not None:
        arguments.config = [*arguments.config, f"judge={json.dumps(arguments.judge)}"]
    made, paths = _plan(arguments)
    return made, made.stage("judge")[0], paths


COMMANDS = (
    plan,
    check,
    lock,
    train,
    evaluate,
    audit,
    verify,
    repair,
    explain,
    prune,
    unlock,
    preview,
    judge,
    calibrate,
    chat,
    publish,
)

if __name__ == "__main__":
    sys.exit(main())
