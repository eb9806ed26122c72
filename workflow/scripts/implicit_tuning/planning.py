"""From a config to the plan of its experiment."""

from implicit_tuning.config import Config
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.plan import Plan
from implicit_tuning.plan_audit import add_audit
from implicit_tuning.plan_runs import add_runs, sweep_rows
from implicit_tuning.plan_tables import add_figures, add_report, add_tables


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
