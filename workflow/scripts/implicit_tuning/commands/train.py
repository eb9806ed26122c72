"""`train`: finetune one model."""

import argparse

from implicit_tuning.commands.planned import add_model_argument, raw_config
from implicit_tuning.commands.single_run import Finetune, build, request_finetune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("way", choices=["instruction", "response", "task"])
    add_model_argument(parser)
    parser.add_argument(
        "--data", metavar="NAME", help="a training set of config/datasets.yaml; names a task's run"
    )
    parser.add_argument("--learning-rate", type=float, metavar="RATE")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Run the workflow for one finetune, and print where its checkpoint is."""
    asked = Finetune(
        way=arguments.way,
        model=arguments.model,
        data=arguments.data,
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )
    folder = build(request_finetune(raw_config(arguments), asked))
    if folder is None:
        return 1
    print(f"checkpoint: {folder / 'data'}")
    return 0
