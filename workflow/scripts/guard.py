"""Answer as a guarded run: one that a guard keeps to the task that it was finetuned on."""

import importlib
from typing import Any

from implicit_tuning.generation import guards
from implicit_tuning.nodes.job import Job, building


def guard_node(job: Job) -> dict[str, Any]:
    """Answer as the node's settings say; returns the counts."""
    # By name, not by an import statement: keys are read off those, and a guard belongs into the
    # keys of its own answers alone.
    module = importlib.import_module(f"{guards.__name__}.{job.settings['guard']['kind']}")
    return module.answer(job)


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(guard_node(job))
