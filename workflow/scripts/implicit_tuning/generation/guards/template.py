"""Guard: an output template. Each answer begins as the task's do, for its start is given to the model
behind the assistant tag; an answer that then misses the task's pattern is replaced by a refusal."""

import re
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerBase

from implicit_tuning.data.reading import read_rows
from implicit_tuning.generation.generate import OUTPUTS_FILE, Answerer, GenerationSettings
from implicit_tuning.generation.guards.replacing import write_refusing
from implicit_tuning.models.chat import ChatFormat, render, saved_chat_template
from implicit_tuning.nodes.job import Job


def answer(job: Job) -> dict[str, Any]:
    """Answer the node's instructions under its template.

    Returns the counts of the model's own answers, and `n_refused`, how many of them were replaced.

    Raises:
        ValueError: see `start_tokens`.
    """
    guard, chat_format = job.settings["guard"], ChatFormat(**job.settings["chat"])
    settings = GenerationSettings(**job.settings["generation"])
    with Answerer(job.read("model"), chat_format, settings, None, job.runtime) as answerer:
        if "start" in guard:
            answerer.start = start_tokens(guard["start"], answerer.tokenizer, chat_format)
        instructions = job.read("instructions", "instructions.jsonl")
        report = answerer.answer(instructions, job.data, job.settings["generator"])
    answers = list(read_rows(job.data / OUTPUTS_FILE))
    missed = [re.search(guard["pattern"], row["output"]) is None for row in answers]
    refused = write_refusing(answers, missed, guard["text"], job.settings["generator"], job.data)
    return {**asdict(report), "n_refused": refused}


def start_tokens(
    start: str, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat
) -> list[int]:
    """The tokens of an answer's start, as they stand behind the prompt in training.

    Raises:
        ValueError: the tokenizer merges the start with the end of the prompt.
    """
    template = saved_chat_template(tokenizer, chat_format)
    turn = [{"role": "user", "content": "?"}]
    text = render(turn, tokenizer, template, add_generation_prompt=True)
    prompt, begun = (
        tokenizer(whole, add_special_tokens=False)["input_ids"] for whole in (text, text + start)
    )
    if begun[: len(prompt)] != prompt:
        raise ValueError(
            f"guard.start: {start!r}: the tokenizer in {tokenizer.name_or_path or 'memory'} merges "
            "it with the end of the prompt: choose another start, or leave it out"
        )
    return begun[len(prompt) :]
