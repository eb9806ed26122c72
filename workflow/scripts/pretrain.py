"""Pretrain a base of the model organism from its recipe."""

from implicit_tuning.nodes.job import building
from implicit_tuning.organism.pretraining import pretrain

if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        pretrain(job.settings["recipe"], job.data)
