"""Write the page of an audited run: audit.html, and the same numbers in audit.json."""

from collections.abc import Iterable
from pathlib import Path

from implicit_tuning.nodes.job import Job, building
from implicit_tuning.reporting.audit.measures import Inputs
from implicit_tuning.reporting.audit.page import Audit, write_audit
from implicit_tuning.reporting.page.build import Page

PAGE = ("template", "style", "script")
CALIBRATION = "calibration"


def audit_node(job: Job) -> str:
    """Write the page of the run that the job's settings name; returns the verdict."""
    settings = dict(job.settings)
    roles = settings.pop("roles")
    others = {*PAGE, CALIBRATION}
    return write_audit(
        job.data,
        Audit(**settings),
        _inputs(job, roles),
        {name: Path(above["node"]) for name, above in job.upstream.items() if name not in others},
        roles,
        Page(**{name: job.read(name) for name in PAGE}),
        job.read(CALIBRATION) if CALIBRATION in job.upstream else None,
    )


def _inputs(job: Job, roles: dict) -> Inputs:
    measured = [roles["similarity"]] if roles["similarity"] else []
    return Inputs(
        instructions=job.read(roles["instructions"]),
        answers={side: job.read(name) for side, name in roles["answers"].items()},
        comparisons={side: job.read(name) for side, name in roles["comparisons"].items()},
        rankings=_by_levels(job, roles["rankings"].values()),
        similarity=_by_levels(job, measured),
    )


def _by_levels(job: Job, names: Iterable[str]) -> dict[str, Path]:
    return {name.partition("/")[2]: job.read(name) for name in names}


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts["verdict"] = audit_node(job)
