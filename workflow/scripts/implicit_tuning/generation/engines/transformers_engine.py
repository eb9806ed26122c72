"""The reference engine: `transformers`, in batches of prompts of like length."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from implicit_tuning.generation.engines.engine import GenerationSettings, Prompt, ending_tokens
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.folder import load_model, require_known_tokens
from implicit_tuning.models.rule_adapter import RuleAdapter, RuleSettings


class TransformersEngine:
    """An `Engine` over `model.generate`; see `open_engine`.

    `constraint` makes what else decides each token, anew for every batch; None adds nothing.
    """

    versions: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        chat_format: ChatFormat,
        ends: tuple[int, ...],
        batch_size: int,
        rules: RuleSettings | None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.ends = ends
        self.batch_size = batch_size
        self.rules = rules
        self.constraint: Callable[[], LogitsProcessor] | None = None
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)

    def reply(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each prompt's answer, see `Engine`.

        Raises:
            ValueError: a prompt has a token that the model does not know.
            MemoryError: the GPU's memory does not hold a batch.
        """
        require_known_tokens((prompt.input_ids for prompt in prompts), self.model)
        replies: dict[int, list[int]] = {}
        batches = _batches(prompts, self.batch_size, _has_learned_positions(self.model))
        for batch in tqdm(batches, desc="generate", unit="batch"):
            try:
                answered = self._reply_to_batch(batch)
            except torch.OutOfMemoryError as error:
                raise MemoryError(_too_large(batch, self.batch_size)) from error
            replies |= {prompt.index: ids for prompt, ids in zip(batch, answered, strict=True)}
        return [replies[prompt.index] for prompt in prompts]

    @torch.inference_mode()
    def _reply_to_batch(self, batch: list[Prompt]) -> list[list[int]]:
        eos = self.tokenizer.eos_token_id
        rows = [torch.tensor(prompt.input_ids, device=self.model.device) for prompt in batch]
        input_ids = _pad_left(rows, eos)
        sequences = self.model.generate(
            input_ids=input_ids,
            attention_mask=_pad_left([torch.ones_like(row) for row in rows], 0),
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                max_new_tokens=max(prompt.room for prompt in batch),
                eos_token_id=list(self.ends),
                pad_token_id=eos,
            ),
            logits_processor=LogitsProcessorList(self._adapters()),
            stopping_criteria=StoppingCriteriaList([_EndOfRoom(batch, input_ids)]),
        )
        replies = sequences[:, input_ids.shape[1] :].tolist()
        # Behind its end a row is filled with EOS.
        replies = [reply[: prompt.room] for prompt, reply in zip(batch, replies, strict=True)]
        return [_until(self.ends, reply) for reply in replies]

    def _adapters(self) -> list[LogitsProcessor]:
        found: list[LogitsProcessor] = []
        if self.rules is not None:
            rules = asdict(self.rules)
            found.append(RuleAdapter(self.tokenizer, **rules, chat_format=self.chat_format))
        if self.constraint is not None:
            found.append(self.constraint())
        return found

    def close(self) -> None:
        """Nothing outlives the object."""


def open_engine(
    model: Path,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    settings: GenerationSettings,
    rules: RuleSettings | None,
    runtime: Mapping[str, Any],
) -> TransformersEngine:
    """Load a model folder; nothing of `runtime` is needed.

    Raises:
        ValueError: the folder lacks a file, or there is no GPU where one is asked for.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no GPU here: set device to 'cpu'")
    loaded = load_model(model, settings.dtype, settings.attention)
    # `generate` takes what a call leaves open from the folder's generation_config.json, such as a
    # repetition penalty: nothing of it may count here.
    loaded.generation_config = GenerationConfig()
    loaded = loaded.to(settings.device).eval()
    ends = ending_tokens(model, tokenizer, chat_format)
    return TransformersEngine(loaded, tokenizer, chat_format, ends, settings.batch_size, rules)


class _EndOfRoom(StoppingCriteria):
    """Ends each row of a batch where its own room ends."""

    def __init__(self, batch: list[Prompt], input_ids: torch.Tensor) -> None:
        self.before = input_ids.shape[1]
        self.rooms = torch.tensor([prompt.room for prompt in batch], device=input_ids.device)

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        """Whether each row is at its end, (batch,)."""
        return input_ids.shape[1] - self.before >= self.rooms


def _has_learned_positions(model: PreTrainedModel) -> bool:
    """Whether positions are looked up in a table, which ends where the context does."""
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return any(table is not model.get_input_embeddings() for table in tables)


def _batches(prompts: Sequence[Prompt], size: int, one_room: bool) -> list[list[Prompt]]:
    """Prompts of like length together, the longest first: memory runs out at once or never.

    A row that is at its end is computed on until all of its batch are. Where its positions then
    lead out of a table, a batch must have `one_room`.
    """
    ordered = sorted(prompts, key=lambda prompt: (-len(prompt.input_ids), prompt.index))
    groups = groupby(ordered, key=lambda prompt: prompt.room if one_room else None)
    return [
        rows[start : start + size]
        for _, group in groups
        for rows in [list(group)]
        for start in range(0, len(rows), size)
    ]


def _until(ends: tuple[int, ...], reply: list[int]) -> list[int]:
    """A reply up to and with the first token that ends it."""
    length = next((place for place, token in enumerate(reply, 1) if token in ends), len(reply))
    return reply[:length]


def _pad_left(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")


def _too_large(batch: list[Prompt], size: int) -> str:
    longest = max(len(prompt.input_ids) for prompt in batch)
    most = max(prompt.room for prompt in batch)
    return (
        f"generation.batch_size is {size}, and the GPU's memory does not hold {len(batch)} prompts "
        f"of up to {longest} tokens with up to {most} new ones each: lower generation.batch_size"
    )
