"""What each command can be told."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from implicit_tuning import chatting, publishing


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command can be told: the experiment."""
    parser.add_argument(
        "--configfile",
        action="append",
        metavar="FILE",
        help="config of the experiment (default: config/config.yaml; of audit: by its model); "
        "given again, later files override earlier ones key by key",
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a top-level key of the config, as in Snakemake",
    )


def add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    """What `audit` can be told."""
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


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="reckon with the `hardware` of the config, not with that of this machine",
    )


def _explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", help="name of a node, as in its path, or the start of names")


def _prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="delete what is listed")


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("way", choices=["instruction", "response", "task"])
    _model(parser)
    parser.add_argument(
        "--data", metavar="NAME", help="a training set of config/datasets.yaml; names a task's run"
    )
    parser.add_argument("--learning-rate", type=float, metavar="RATE")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default: 1)")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument(
        "--reference", required=True, metavar="MODEL", help="the model it is judged against"
    )
    parser.add_argument("--data", metavar="NAME", help="an evaluation set of config/datasets.yaml")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a base of the config by name, a model folder, or owner/name of the hub",
    )


def _judge(parser: argparse.ArgumentParser) -> None:
    rows = "rows with instruction, output and generator, as AlpacaEval's; .json or .jsonl"
    parser.add_argument("--outputs", type=Path, required=True, metavar="FILE", help=rows)
    parser.add_argument(
        "--references",
        type=Path,
        required=True,
        metavar="FILE",
        help="what they are judged against: the same instructions in the same order",
    )
    _named_judge(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for annotations.jsonl and summary.json; verdicts are kept beside it, in "
        "FOLDER.verdicts.jsonl, and are not asked for again",
    )


def _calibrate(parser: argparse.ArgumentParser) -> None:
    _named_judge(parser)
    parser.add_argument(
        "--annotations",
        nargs="+",
        required=True,
        metavar="FILE_OR_URL",
        help="stored verdicts in the layout of alpaca_eval's annotations.json; a URL is fetched "
        "once, into results/cache",
    )


def _named_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge", metavar="NAME", help="a name under `judges` of the config (default: its `judge`)"
    )


# By command, where it can be told more than its config.
OF_COMMANDS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "audit": add_audit_arguments,
    "calibrate": _calibrate,
    "chat": chatting.add_arguments,
    "check": _check,
    "evaluate": _evaluate,
    "explain": _explain,
    "judge": _judge,
    "prune": _prune,
    "publish": publishing.add_arguments,
    "train": _train,
}
