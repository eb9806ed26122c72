"""Finetune a base on formatted rows: one checkpoint with its chat template and loss history."""

import json
from dataclasses import asdict

from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.nodes.job import Job, building
from implicit_tuning.training.distributed import finetune_in_processes
from implicit_tuning.training.run import TrainingReport, finetune
from implicit_tuning.training.settings import TrainingSettings


def finetune_node(job: Job) -> TrainingReport:
    """Finetune as the node's settings say, resuming what an earlier try left."""
    training = dict(job.settings["training"])
    if "epochs" in job.upstream:
        training["epochs"] = json.loads(job.read("epochs", "epochs.json").read_text())["epochs"]
    settings = TrainingSettings.from_json(training)
    run = finetune if settings.world_size == 1 else finetune_in_processes
    return run(
        base=job.read("base"),
        rows=job.read("rows", "rows.jsonl"),
        destination=job.data,
        partial=job.partial,
        seed=job.settings["seed"],
        chat_format=ChatFormat(**job.settings["chat"]),
        settings=settings,
        save_every=job.runtime["save_every"],
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(asdict(finetune_node(job)))
