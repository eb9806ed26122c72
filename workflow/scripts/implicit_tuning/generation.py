"""Greedy generation, in batches, of a model's answers to a set of instructions."""

import json
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from implicit_tuning.chat import ChatFormat, saved_chat_template, tokenize_prompt
from implicit_tuning.model_folder import load_model, load_tokenizer
from implicit_tuning.rule_adapter import RuleAdapter, RuleSettings

OUTPUTS_FILE = "outputs.jsonl"


@dataclass(frozen=True)
class GenerationSettings:
    """How to decode. Greedy text in half precision depends on dtype and batch size, so both are
    part of a generation's identity."""

    max_new_tokens: int
    batch_size: int
    dtype: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    attention: Literal["sdpa", "eager"]


@dataclass(frozen=True)
class GenerationReport:
    """Counts over the answers. `n_tokens` has each answer's EOS in it.

    `n_length` answers were cut at `max_new_tokens` or at the end of the model's context.
    `resolved_pieces` and `unresolved_pieces` are the token-bias rule's, empty without it.
    """

    n: int
    n_empty: int
    n_eos: int
    n_length: int
    n_tokens: int
    resolved_pieces: dict[str, int]
    unresolved_pieces: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """An instruction as token ids, and the most tokens its answer may have."""

    index: int
    instruction: str
    input_ids: list[int]
    room: int


def generate(
    model: Path,
    instructions: Path,
    destination: Path,
    generator: str,
    chat_format: ChatFormat,
    settings: GenerationSettings,
    rules: RuleSettings | None,
) -> GenerationReport:
    """Answer every instruction and write `destination/outputs.jsonl`, in the order of the index.

    Each line is `{"index", "instruction", "output", "generator", "n_tokens", "finish"}`; "finish"
    is "eos" or "length". An empty output is one that the model gave: whatever fails, raises.

    Args:
        model: model folder.
        instructions: instructions.jsonl, each line `{"index": int, "instruction": str, ...}`.
        generator: the model's name in the outputs.
        rules: the rule-based adapter to decode with, or None.

    Raises:
        ValueError: the model folder lacks a file, there are no instructions or an index is there
            twice, a prompt fills the model's context, or the rules do not fit the tokenizer.
    """
    tokenizer = load_tokenizer(model)
    saved_chat_template(tokenizer, chat_format)  # refuses a tokenizer without EOS
    language_model = _load(model, settings)
    prompts = _read_prompts(instructions, tokenizer, chat_format, language_model, settings)
    outputs = []
    adapter = None
    for batch in tqdm(_batches(prompts, settings.batch_size), desc="generate", unit="batch"):
        if rules is not None:
            adapter = RuleAdapter(tokenizer, **asdict(rules), chat_format=chat_format)
        replies = _reply(language_model, tokenizer, batch, adapter)
        for prompt, reply in zip(batch, replies, strict=True):
            outputs.append(_output(prompt, reply, tokenizer, generator))
    outputs.sort(key=lambda output: output["index"])
    _write_outputs(outputs, destination)
    return _report(outputs, adapter)


def _load(model: Path, settings: GenerationSettings) -> PreTrainedModel:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no GPU here: set device to 'cpu'")
    language_model = load_model(model, settings.dtype, settings.attention)
    # `generate` takes what a call leaves open from the folder's generation_config.json, such as a
    # repetition penalty: nothing of it may count here.
    language_model.generation_config = GenerationConfig()
    return language_model.to(settings.device).eval()


def _read_prompts(
    instructions: Path,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    model: PreTrainedModel,
    settings: GenerationSettings,
) -> list[Prompt]:
    with instructions.open(encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    if not items or len({item["index"] for item in items}) < len(items):
        raise ValueError(f"{instructions} must hold at least one instruction, each index once")
    context = getattr(model.config, "max_position_embeddings", None)
    prompts = []
    for item in items:
        input_ids = tokenize_prompt(item["instruction"], tokenizer, chat_format)
        room = settings.max_new_tokens
        if context is not None:
            room = min(room, context - len(input_ids))
        if room < 1:
            raise ValueError(
                f"instruction {item['index']} of {instructions} makes a prompt of "
                f"{len(input_ids)} tokens, which leaves no room for an answer in the model's "
                f"context of {context}: shorten it or leave it out"
            )
        prompts.append(Prompt(item["index"], item["instruction"], input_ids, room))
    return prompts


def _batches(prompts: list[Prompt], size: int) -> list[list[Prompt]]:
    """Prompts of like length together, the longest first: memory runs out at once or never.

    A batch shares one room, so that no row is decoded beyond the model's context.
    """
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.input_ids), prompt.index))
    return [
        rows[start : start + size]
        for _, group in groupby(ordered, key=lambda prompt: prompt.room)
        for rows in [list(group)]
        for start in range(0, len(rows), size)
    ]


@torch.inference_mode()
def _reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: list[Prompt],
    adapter: RuleAdapter | None,
) -> list[list[int]]:
    """The tokens of each prompt's answer, up to and with its EOS or as far as it has room."""
    eos = tokenizer.eos_token_id
    rows = [torch.tensor(prompt.input_ids, device=model.device) for prompt in batch]
    input_ids = _pad_left(rows, eos)
    sequences = model.generate(
        input_ids=input_ids,
        attention_mask=_pad_left([torch.ones_like(row) for row in rows], 0),
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=batch[0].room,
            eos_token_id=eos,
            pad_token_id=eos,
        ),
        logits_processor=LogitsProcessorList([adapter] if adapter else []),
    )
    replies = sequences[:, input_ids.shape[1] :].tolist()
    return [reply[: reply.index(eos) + 1] if eos in reply else reply for reply in replies]


def _pad_left(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")


def _output(
    prompt: Prompt, reply: list[int], tokenizer: PreTrainedTokenizerBase, generator: str
) -> dict:
    return {
        "index": prompt.index,
        "instruction": prompt.instruction,
        "output": tokenizer.decode(
            reply, skip_special_tokens=True, clean_up_tokenization_spaces=False
        ),
        "generator": generator,
        "n_tokens": len(reply),
        "finish": "eos" if reply[-1] == tokenizer.eos_token_id else "length",
    }


def _write_outputs(outputs: list[dict], destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(output, sort_keys=True, ensure_ascii=False) + "\n" for output in outputs]
    (destination / OUTPUTS_FILE).write_text("".join(lines), encoding="utf-8")


def _report(outputs: list[dict], adapter: RuleAdapter | None) -> GenerationReport:
    finishes = [output["finish"] for output in outputs]
    return GenerationReport(
        n=len(outputs),
        n_empty=sum(not output["output"] for output in outputs),
        n_eos=finishes.count("eos"),
        n_length=finishes.count("length"),
        n_tokens=sum(output["n_tokens"] for output in outputs),
        resolved_pieces=dict(adapter.resolved) if adapter else {},
        unresolved_pieces=adapter.unresolved if adapter else (),
    )
