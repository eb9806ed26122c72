"""From a config to the plan of its experiment."""

from implicit_tuning.experiment.config import Config
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.experiment.planners.audit import add_audit
from implicit_tuning.experiment.planners.runs import add_runs, sweep_rows
from implicit_tuning.experiment.planners.tables import add_figures, add_report, add_tables
from implicit_tuning.nodes.digests import DigestMemory


def build_plan(config: Config, digests: DigestMemory) -> Plan:
    """Every node of the experiment, linked to what it reads."""
    plan = Plan(config, sweep_rows(config))
    add_runs(plan, digests)
    if config.audit is None:
        add_tables(plan, digests)
        add_figures(plan)
        add_report(plan, digests)
    else:
        add_audit(plan, digests)
    digests.save()
    return plan
