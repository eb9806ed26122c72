"""Answer the evaluation instructions with a model, greedily, under the rule adapter if asked."""

from dataclasses import asdict

from implicit_tuning.artifact import Job, building
from implicit_tuning.chat import ChatFormat
from implicit_tuning.generation import GenerationReport, GenerationSettings, generate
from implicit_tuning.rule_adapter import RuleSettings


def generate_node(job: Job) -> GenerationReport:
    """Generate as the node's settings say."""
    rules = job.settings["rules"]
    return generate(
        model=job.read("model"),
        instructions=job.read("instructions", "instructions.jsonl"),
        destination=job.data,
        generator=job.settings["generator"],
        chat_format=ChatFormat(**job.settings["chat"]),
        settings=GenerationSettings(**job.settings["generation"]),
        rules=RuleSettings(**rules) if rules is not None else None,
    )


if __name__ == "__main__":
    with building(snakemake.params.node, snakemake.log[0]) as job:  # noqa: F821
        job.facts.update(asdict(generate_node(job)))
