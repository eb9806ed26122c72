"""`evaluate`: judge one model's answers against another's."""

import argparse

from implicit_tuning.commands.judge import describe_comparison, read_comparison
from implicit_tuning.commands.planned import add_model_argument, raw_config
from implicit_tuning.commands.single_run import build, request_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_model_argument(parser)
    parser.add_argument(
        "--reference", required=True, metavar="MODEL", help="the model it is judged against"
    )
    parser.add_argument("--data", metavar="NAME", help="an evaluation set of config/datasets.yaml")


def run(arguments: argparse.Namespace) -> int:
    """Run the workflow for one comparison, and print its result."""
    asked = (arguments.model, arguments.reference, arguments.data)
    folder = build(request_evaluation(raw_config(arguments), *asked))
    if folder is None:
        return 1
    print(describe_comparison(read_comparison(folder / "data")))
    return 0
