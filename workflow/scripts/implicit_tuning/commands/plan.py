"""`plan`: what is built, what is left to do, and what that takes."""

import argparse

from implicit_tuning.commands.planned import planned
from implicit_tuning.experiment.costs.cost_table import describe_costs
from implicit_tuning.experiment.costs.estimate import estimate_costs


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; returns the exit status."""
    print(describe_costs(estimate_costs(*planned(arguments))))
    return 0
