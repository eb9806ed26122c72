"""Answer the evaluation instructions with a model, greedily, under the rule adapter if asked."""

from dataclasses import asdict

from implicit_tuning.generation.generate import Answerer, GenerationReport, GenerationSettings
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.rule_adapter import RuleSettings
from implicit_tuning.nodes.job import Job, building


def generate_node(job: Job) -> GenerationReport:
    """Generate as the node's settings say."""
    with open_answerer(job) as answerer:
        return answer_node(job, answerer)


def open_answerer(job: Job) -> Answerer:
    """Load the node's model. Who has nodes that differ in their instructions alone needs it once."""
    rules = job.settings["rules"]
    return Answerer(
        model=job.read("model"),
        chat_format=ChatFormat(**job.settings["chat"]),
        settings=GenerationSettings(**job.settings["generation"]),
        rules=RuleSettings(**rules) if rules is not None else None,
        runtime=job.runtime,
    )


def answer_node(job: Job, answerer: Answerer) -> GenerationReport:
    """Answer the node's instructions."""
    instructions = job.read("instructions", "instructions.jsonl")
    return answerer.answer(instructions, job.data, job.settings["generator"])


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(asdict(generate_node(job)))
