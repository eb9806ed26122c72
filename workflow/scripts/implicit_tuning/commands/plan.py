"""`plan`: what is built, what is left to do, and what that takes."""

import argparse

from implicit_tuning.commands.planned import add_config_arguments, planned
from implicit_tuning.experiment.costs.cost_table import describe_costs
from implicit_tuning.experiment.costs.estimate import estimate_costs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; returns the exit status."""
    print(describe_costs(estimate_costs(*planned(arguments))))
    return 0
