"""Build one table of the experiment."""

from importlib import import_module
from pathlib import Path

from implicit_tuning.nodes.job import Job, building
from implicit_tuning.reporting.tables.layout import Table, write_table

# Of a finetune only its history is read: hashing its weights would take minutes at 7B.
FILES = {"loss": "loss_history.jsonl"}


def build_table(job: Job) -> Table:
    """The node's table; the module that its settings name does the work and is its identity."""
    settings = dict(job.settings)
    name, module = settings.pop("table"), settings.pop("module")
    inputs: dict[str, Path] = {above: job.read(above, FILES.get(module)) for above in job.upstream}
    table = import_module(f"implicit_tuning.reporting.tables.{module}").build(inputs, **settings)
    write_table(table, job.data, stem=name)
    return table


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts["rows"] = len(build_table(job).frame)
