"""Draw one figure of the experiment from its table."""

from importlib import import_module

from implicit_tuning.nodes.job import Job, building


def draw_figure(job: Job) -> None:
    """Draw the node's figure; the module that its settings name does the work."""
    settings = dict(job.settings)
    name, module = settings.pop("figure"), settings.pop("module")
    draw = import_module(f"implicit_tuning.reporting.figures.{module}").draw
    draw(table=job.read("table"), folder=job.data, stem=name, **settings)


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        draw_figure(job)
