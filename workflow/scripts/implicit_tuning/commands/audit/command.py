"""`make audit`: from a model to its verdict, by a config of its own and the workflow."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from implicit_tuning.commands.audit.base_config import choose_config
from implicit_tuning.commands.audit.model_place import NotAuditable
from implicit_tuning.commands.audit.request import Asked, request_audit
from implicit_tuning.commands.lock.command import LOCK_FILE, lock_missing
from implicit_tuning.commands.planned import RESULTS
from implicit_tuning.commands.single_run import write_request
from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.config_reading import load_config, read_config, read_raw
from implicit_tuning.experiment.costs.cost_table import describe_costs
from implicit_tuning.experiment.costs.endpoint_calls import endpoint_of
from implicit_tuning.experiment.costs.estimate import Costs, estimate_costs
from implicit_tuning.experiment.costs.hardware import GB
from implicit_tuning.experiment.plan import Plan, pending
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.experiment.preflight.checks import preflight
from implicit_tuning.experiment.stable_names import StableNames, plan_stable_names
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import KeyNotKnown, NodePaths

# Keys of an audit's own config, and as what a user gave them.
GIVEN_AS = re.compile(r"^adaptations\.(audited|reference)\.(path|hub|data)")
GIVEN = {
    ("audited", "path"): "MODEL",
    ("audited", "hub"): "MODEL",
    ("audited", "data"): "TASK_DATA",
    ("reference", "path"): "REFERENCE",
    ("reference", "hub"): "REFERENCE",
}
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    model = (
        "a run of the config as base/adaptation/seed, a checkpoint folder, or owner/name of the hub"
    )
    parser.add_argument(
        "--model",
        type=_without_slash,
        required=True,
        metavar="MODEL",
        help=f"{model}; a peft adapter is merged first",
    )
    parser.add_argument(
        "--base",
        type=_without_slash,
        metavar="MODEL",
        help="what it was finetuned from (known of runs, of nodes and of most adapters)",
    )
    parser.add_argument(
        "--task-data",
        metavar="NAME_OR_FILE",
        help="what it was finetuned on: a data set of config/datasets.yaml, or a file of rows with "
        "the columns of one of its formatters (known of runs and of nodes)",
    )
    parser.add_argument(
        "--reference",
        type=_without_slash,
        metavar="MODEL",
        help=f"what it is judged against: {model} (default: the instruction-tuned run of the same "
        "base for an organism, else the base)",
    )
    parser.add_argument(
        "--yes", action="store_true", help="agree to downloads and to calls that may cost money"
    )


def _without_slash(given: str) -> str:
    """A model as it is called, without the slash that a shell completes a folder by."""
    return given.rstrip("/") or given


def run(arguments: argparse.Namespace) -> int:
    """Audit one model; returns the exit status."""
    return audit_model(arguments, RESULTS)


def audit_model(arguments: argparse.Namespace, results: Path) -> int:
    """Audit one model; returns the exit status.

    Raises:
        ConfigError, LookupError, LockError: what was asked for is not there, or does not fit.
    """
    asked = Asked(arguments.model, arguments.base, arguments.task_data, arguments.reference)
    raw = _departed_from(asked, arguments)
    file = write_request(request_audit(raw, asked), results / "cache" / "requests")
    made, paths = _planned(file, results)
    if added := lock_missing(made):
        print("\n".join(f"{LOCK_FILE}: {name} at {pin.commit}" for name, pin in added.items()))
        made, paths = _planned(file, results)
    done = _finished(made, paths)
    if done is None:
        if not (_possible(made, paths) and _agreed(made, paths, arguments.yes)):
            return 1
        if not run_workflow(file, made):
            return 1
        done = plan_stable_names(made, paths)
    _report(done)
    return 0


def _departed_from(asked: Asked, arguments: argparse.Namespace) -> dict:
    """The config as read, which must be whole by itself; says which it is."""
    files = [Path(file) for file in arguments.configfile or ()]
    why = "as given"
    if not files:
        chosen, why = choose_config(asked)
        files = [chosen]
        why += "; another: CONFIG=..."
    print(f"config: {' '.join(map(str, files))} ({why})", flush=True)
    raw = read_raw(files, arguments.config)
    load_config(raw, Path.cwd())
    return raw


def _planned(file: Path, results: Path) -> tuple[Plan, NodePaths]:
    """The plan of an audit; its problems name what the user gave, not the keys of its config."""
    try:
        config = read_config([file], Path.cwd())
    except ConfigError as error:
        lines = [GIVEN_AS.sub(lambda key: GIVEN[key[1], key[2]], p) for p in error.problems]
        raise NotAuditable("\n".join(lines)) from None
    plan = build_plan(config, DigestMemory(results / "cache" / "digests.json"))
    return plan, NodePaths(results)


def run_workflow(file: Path, plan: Plan) -> bool:
    """Run the workflow for an audit's config; where it fails, the failed jobs' lines come last."""
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "rules", "host"]
    command += ["--configfile", str(file)]
    names, told = tuple(f"{node.name}: " for node in plan.nodes.values()), []
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as running:
        assert running.stderr is not None  # it is a pipe
        for line in running.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            told += [line.rstrip()] if line.startswith(names) else []
    if running.returncode:
        lines = [f"  - {line}" for line in dict.fromkeys(told)]
        last = "audit: not finished, so there is no verdict" + (":" if lines else "")
        print("\n".join([last, *lines]), file=sys.stderr)
    return running.returncode == 0


def _finished(plan: Plan, paths: NodePaths) -> StableNames | None:
    """The stable names of the audit, if all of it is built."""
    try:
        names = plan_stable_names(plan, paths)
    except KeyNotKnown:
        return None
    return names if names.wanted_stamp().is_file() else None


def _possible(plan: Plan, paths: NodePaths) -> bool:
    """Whether nothing is known that would make the audit fail; says what is."""
    problems = preflight(plan, paths, cluster=False).problems
    if problems:
        print("\n".join(["audit: not started", *(f"  - {p}" for p in problems)]), file=sys.stderr)
    return not problems


def _agreed(plan: Plan, paths: NodePaths, yes: bool) -> bool:
    """Whether the audit may start; prints what it will take, and what needs a yes."""
    costs = estimate_costs(plan, paths)
    print(describe_costs(costs), flush=True)
    asking = [] if yes else list(needs_yes(plan, paths, costs))
    if asking:
        print(f"audit: not started: it {' and '.join(asking)}: agree with YES=1", file=sys.stderr)
    return not asking


def needs_yes(plan: Plan, paths: NodePaths, costs: Costs) -> Iterator[str]:
    """What is not free and local."""
    if costs.storage.downloads or costs.storage.n_unknown:
        yield f"downloads {costs.storage.downloads / GB:.2f} GB"
    paid = {endpoint_of(node) for node in pending(plan, paths) if not _is_local(node.runtime)}
    for calls in costs.calls:
        if calls.calls and calls.who in paid:
            yield f"makes {calls.calls:,.0f} calls that may cost money ({calls.who})"


def _is_local(runtime: Mapping) -> bool:
    address = runtime.get("base_url") or os.environ.get("OPENAI_BASE_URL") or ""
    return urlsplit(address).hostname in LOCAL_HOSTS


def _report(names: StableNames) -> None:
    """Print the verdict and where its page lies."""
    from implicit_tuning.reporting.audit.page import NUMBERS_FILE, PAGE_FILE, describe_audit

    numbers = names.folder / NUMBERS_FILE
    print(f"\n{describe_audit(json.loads(numbers.read_text(encoding='utf-8')))}")
    print(f"page: {names.folder / PAGE_FILE}")
