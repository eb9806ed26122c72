"""What most commands begin with: the config that their arguments name, and its plan."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from implicit_tuning.experiment.config_reading import load_config, read_config, read_raw
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.node import NodePaths

RESULTS = Path("results")
DEFAULT_CONFIG = ("config/config.yaml",)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name the experiment; every command has them."""
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


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that names one model."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a base of the config by name, a model folder, or owner/name of the hub",
    )


def planned(arguments: argparse.Namespace) -> tuple[Plan, NodePaths]:
    """The plan of the config that the arguments name, and where its nodes are.

    Raises:
        ConfigError: lists every problem of the config.
        LookupError: this is not the root of the repository.
    """
    root = Path.cwd()
    if not (root / "Snakefile").is_file():
        raise LookupError(f"{root} holds no Snakefile: start this in the root of the repository")
    return plan_files(config_files(arguments), arguments.config)


def config_files(arguments: argparse.Namespace) -> list[Path]:
    """The config files that the arguments name, else the default one."""
    return [Path(file) for file in arguments.configfile or DEFAULT_CONFIG]


def plan_files(files: list[Path], overrides: Sequence[str] = ()) -> tuple[Plan, NodePaths]:
    """The plan of config files, and where its nodes are."""
    config = read_config(files, Path.cwd(), overrides)
    plan = build_plan(config, DigestMemory(RESULTS / "cache" / "digests.json"))
    return plan, NodePaths(RESULTS)


def raw_config(arguments: argparse.Namespace) -> dict:
    """The config that a request departs from, as read; it must be complete by itself."""
    raw = read_raw(config_files(arguments), arguments.config)
    load_config(raw, Path.cwd())
    return raw


def snakemake_options(arguments: argparse.Namespace) -> list[str]:
    """Snakemake flags for the same config; none for the default one."""
    files = ["--configfile", *arguments.configfile] if arguments.configfile else []
    return files + (["--config", *arguments.config] if arguments.config else [])
