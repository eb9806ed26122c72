"""Choose the number of epochs of an adaptation on the validation set (paper, section 3)."""

import json

from implicit_tuning.analysis.epochs import Choice, choose_epochs
from implicit_tuning.data.reading import read_rows
from implicit_tuning.nodes.job import Job, building


def select_node(job: Job) -> Choice:
    """Choose among the node's upstream comparisons, which bear their numbers of epochs as names.

    The file holds the choice alone: while it stays the same, nothing below is built again.
    """
    comparisons = {
        int(epochs): list(read_rows(job.read(epochs, "annotations.jsonl")))
        for epochs in job.upstream
    }
    choice = choose_epochs(comparisons)
    text = json.dumps({"epochs": choice.epochs}) + "\n"
    (job.data / "epochs.json").write_text(text, encoding="utf-8", newline="\n")
    return choice


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(select_node(job).facts())
