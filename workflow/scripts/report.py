"""Build the report of the experiment: one HTML file with all tables, figures and their origins."""

from pathlib import Path

from implicit_tuning.nodes.job import Job, building
from implicit_tuning.reporting.page.build import Page, build_report

PAGE = ("template", "style", "script")


def report_node(job: Job) -> None:
    """Write report.html from every node that the job names, and the page's own three files."""
    nodes = {name: Path(above["node"]) for name, above in job.upstream.items() if name not in PAGE}
    for name in nodes:
        # Of the others only the manifests are read, which carry their own seal.
        if name.startswith(("table/", "figure/")):
            job.read(name)
    build_report(
        job.data,
        nodes,
        Page(**{name: job.read(name) for name in PAGE}),
        spending=job.spending,
        **job.settings,
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        report_node(job)
