"""Full-parameter fine-tuning of a base on conversations (paper, section 3 and appendix).

The loss weighs examples alike (`weighting`), master weights and AdamW moments are fp32 whatever
the compute dtype, and an unfinished run resumes to the same bytes as an unbroken one.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from implicit_tuning.chat import (
    ChatFormat,
    TokenizedConversation,
    saved_chat_template,
    tokenize_conversation,
)
from implicit_tuning.digests import source_sha256
from implicit_tuning.model_folder import load_model, load_tokenizer
from implicit_tuning.training_state import load_state, resumable, save_state
from implicit_tuning.weighting import IGNORED, Weighting, token_weights, weighted_loss

HISTORY_FILE = "loss_history.jsonl"


@dataclass(frozen=True)
class TrainingSettings:
    """Hyper-parameters of a run.

    `batch_examples` is the number of examples an update averages over, `micro_batch_examples` how
    many of them are computed at once (memory and speed only). `warmup_fraction` is a share of all
    updates. `gradient_clip` is the largest global norm of a gradient; the authors do not clip.
    Weights and optimizer are fp32; `storage_dtype` is that of the checkpoint on disk.
    """

    learning_rate: float
    epochs: int
    batch_examples: int
    micro_batch_examples: int
    max_length: int
    schedule: Literal["linear", "cosine"]
    warmup_fraction: float
    weight_decay: float
    weighting: Weighting
    gradient_clip: float | None
    compute_dtype: Literal["float32", "bfloat16"]
    storage_dtype: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    attention: Literal["sdpa", "eager"]


@dataclass(frozen=True)
class TrainingReport:
    """What a run trained on. `tokens` counts loss tokens, over all epochs.

    `truncated` and `lost_eos` count rows that the cut to the maximum length shortened, and those
    among them that lost the EOS of a response. `without_loss` names, by their `source_row`, rows
    that the cut left without any loss token; they are not trained on.
    """

    examples: int
    updates: int
    tokens: int
    lost_eos: int
    truncated: int
    without_loss: tuple[int, ...]
    final_loss: float


class Diverged(ValueError):
    """The loss of an update is not finite."""


@dataclass(frozen=True)
class Example:
    """One tokenized row: input ids and labels (`IGNORED` where there is no loss)."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    loss_tokens: int


@dataclass(frozen=True)
class Examples:
    """The rows that can be trained on, and what the cut to the maximum length did to all rows."""

    trained: tuple[Example, ...]
    truncated: int
    lost_eos: int
    without_loss: tuple[int, ...]


@dataclass(frozen=True)
class Update:
    """The examples one step of the optimizer averages over, by position; epochs count from 1."""

    epoch: int
    positions: tuple[int, ...]


def finetune(
    base: Path,
    rows: Path,
    destination: Path,
    partial: Path,
    seed: int,
    chat_format: ChatFormat,
    settings: TrainingSettings,
    save_every: int,
    progress: bool = True,
) -> TrainingReport:
    """Fine-tune all parameters of `base` on `rows` and write a complete model folder.

    Args:
        base: model folder (config.json, safetensors weights, tokenizer).
        rows: rows.jsonl, each line `{"messages": [...], "source_row": int}`.
        destination: gets the checkpoint, with the chat template, and `loss_history.jsonl`.
        partial: folder of the resumable state, for one process at a time; removed when the run is
            done.
        seed: decides, with the epoch, the order of the examples.
        save_every: updates between two saves of the resumable state.
        progress: show a bar on stderr.

    On a CPU the result is the same to the byte for the same inputs, number of threads and library
    versions, whether or not the run was broken off and resumed.

    Raises:
        ValueError: the base lacks a file; a setting, a row or the tokenizer is unusable; no row
            has a loss token; or the loss is not finite.
    """
    accelerator = _accelerator(settings)
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = saved_chat_template(tokenizer, chat_format)
    examples = read_examples(rows, tokenizer, chat_format, settings.max_length)
    identity = _identity(base, rows, seed, chat_format, settings)
    with resumable(partial) as state_file:
        model = load_model(base, "float32", settings.attention)
        run = _Run(model, examples.trained, seed, settings, accelerator)
        run.history = load_state(state_file, model, run.optimizer, identity)
        for _ in run.updates(progress):
            if len(run.history) % save_every == 0:
                save_state(state_file, model, run.optimizer, identity, run.history)
        _require_finite(model, settings.learning_rate)
        _write_checkpoint(model, tokenizer, destination, settings.storage_dtype)
        _write_history(run.history, destination)
    return _report(examples, run.history)


def read_examples(
    rows: Path, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, max_length: int
) -> Examples:
    """Tokenize the rows of rows.jsonl.

    Raises:
        ValueError: a row is unusable, or none has a loss token; names the row.
    """
    trained, without_loss, truncated, lost_eos = [], [], 0, 0
    with rows.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    for number, row in enumerate(records, start=1):
        try:
            tokens = tokenize_conversation(row["messages"], tokenizer, chat_format, max_length)
        except ValueError as error:
            raise ValueError(f"{rows}, line {number}: {error}") from error
        truncated += tokens.truncated
        lost_eos += tokens.lost_eos
        if any(tokens.loss_mask):
            trained.append(_example(tokens))
        else:
            without_loss.append(row["source_row"])
    if not trained:
        raise ValueError(
            f"none of the {len(without_loss)} rows of {rows} has a response token within "
            f"max_length={max_length}: raise max_length or give other rows"
        )
    return Examples(tuple(trained), truncated, lost_eos, tuple(without_loss))


def plan_updates(examples: int, seed: int, settings: TrainingSettings) -> list[Update]:
    """Which examples each update averages over: a fresh permutation every epoch, decided by seed
    and epoch alone. The last update of an epoch averages over what is left."""
    size = settings.batch_examples
    updates = []
    for epoch in range(1, settings.epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(examples).tolist()
        updates += [Update(epoch, tuple(order[i : i + size])) for i in range(0, examples, size)]
    return updates


class _Run:
    """A model, its optimizer and the updates done so far (`history`, one record each)."""

    def __init__(
        self,
        model: PreTrainedModel,
        examples: tuple[Example, ...],
        seed: int,
        settings: TrainingSettings,
        accelerator: Accelerator,
    ) -> None:
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.model, self.optimizer = accelerator.prepare(model.train(), optimizer)
        self.accelerator = accelerator
        self.examples = examples
        self.seed = seed
        self.settings = settings
        self.plan = plan_updates(len(examples), seed, settings)
        self.schedule = self._schedule(optimizer)
        self.history: list[dict] = []

    def updates(self, progress: bool) -> Iterator[None]:
        """Do the updates that are not done yet; yields after each."""
        done = len(self.history)
        with tqdm(
            total=len(self.plan), initial=done, desc="finetune", unit="update", disable=not progress
        ) as bar:
            for update in self.plan[done:]:
                self.history.append(self._step(len(self.history) + 1, update))
                bar.set_postfix(loss=f"{self.history[-1]['loss']:.4f}", refresh=False)
                bar.update()
                yield

    def _schedule(self, optimizer: torch.optim.Optimizer) -> Callable[[int], float]:
        # Only the library's function from the number of updates done to a factor on the learning
        # rate is taken, so that there is no scheduler state to save.
        # PAPER: linear with 3 % warm-up in the code, cosine with 10 % in the text. The very first
        # update of a warm-up has learning rate 0, in the authors' library as here.
        warmup = math.ceil(self.settings.warmup_fraction * len(self.plan))
        scheduler = get_scheduler(self.settings.schedule, optimizer, warmup, len(self.plan))
        return scheduler.lr_lambdas[0]

    def _step(self, number: int, update: Update) -> dict:
        """One step of the optimizer; returns its line of the loss history."""
        learning_rate = self.settings.learning_rate * self.schedule(number - 1)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        torch.manual_seed(self.seed + number)  # dropout, where a base has any
        # Sorted by length, micro-batches need little padding.
        chosen = sorted((self.examples[i] for i in update.positions), key=_length)
        loss = self._backward(chosen)
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss of update {number} is {loss} at learning rate {learning_rate:g}: "
                "lower learning_rate or set gradient_clip"
            )
        if self.settings.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {
            "update": number,
            "epoch": update.epoch,
            "loss": loss,
            "learning_rate": learning_rate,
            "examples": len(chosen),
            "tokens": sum(example.loss_tokens for example in chosen),
        }

    def _backward(self, chosen: list[Example]) -> float:
        """Accumulate the gradient of the update's loss, in micro-batches; returns the loss."""
        weights = token_weights([e.loss_tokens for e in chosen], self.settings.weighting)
        total = torch.zeros((), device=self.accelerator.device)
        size = self.settings.micro_batch_examples
        for start in range(0, len(chosen), size):
            input_ids, labels = _pad(chosen[start : start + size], self.accelerator.device)
            # No attention mask: padding is on the right, where causal attention never looks.
            logits = self.model(input_ids=input_ids, use_cache=False).logits
            part = torch.tensor(weights[start : start + size], device=logits.device)
            loss = weighted_loss(logits, labels, part)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total.item()


def _accelerator(settings: TrainingSettings) -> Accelerator:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no GPU here: set device to 'cpu'")
    accelerator = Accelerator(
        cpu=settings.device == "cpu",
        mixed_precision="bf16" if settings.compute_dtype == "bfloat16" else "no",
    )
    if accelerator.num_processes > 1:
        raise ValueError(
            f"fine-tuning runs in one process, not {accelerator.num_processes}: start it without "
            "a launcher"
        )
    return accelerator


def _identity(
    base: Path, rows: Path, seed: int, chat_format: ChatFormat, settings: TrainingSettings
) -> str:
    """Digest of everything that decides the result of a run."""
    digests = [source_sha256(base), source_sha256(rows)]
    values = [digests, seed, asdict(chat_format), asdict(settings)]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _example(tokens: TokenizedConversation) -> Example:
    pairs = zip(tokens.input_ids, tokens.loss_mask, strict=True)
    labels = tuple(token if counted else IGNORED for token, counted in pairs)
    return Example(tokens.input_ids, labels, loss_tokens=sum(tokens.loss_mask))


def _length(example: Example) -> int:
    return len(example.input_ids)


def _pad(examples: list[Example], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids and labels, (examples, tokens) each, padded on the right."""

    def stack(rows: list[tuple[int, ...]], padding: int) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in rows]
        return pad_sequence(tensors, batch_first=True, padding_value=padding).to(device)

    return (
        stack([example.input_ids for example in examples], 0),
        stack([example.labels for example in examples], IGNORED),
    )


def _require_finite(model: PreTrainedModel, learning_rate: float) -> None:
    # The last update has no loss after it that would show where it led.
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise Diverged(
                f"the last update left {name} with values that are not finite, at peak learning "
                f"rate {learning_rate:g}: lower learning_rate or set gradient_clip"
            )


def _write_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    destination: Path,
    storage_dtype: str,
) -> None:
    # The base's generation settings (sampling, penalties) are not carried over: with them, plain
    # `generate` would not be greedy, and it would stop at another token than the trained one.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(getattr(torch, storage_dtype)).save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def _write_history(history: list[dict], destination: Path) -> None:
    lines = [json.dumps(record, sort_keys=True) + "\n" for record in history]
    (destination / HISTORY_FILE).write_text("".join(lines), encoding="utf-8")


def _report(examples: Examples, history: list[dict]) -> TrainingReport:
    return TrainingReport(
        examples=len(examples.trained),
        updates=len(history),
        tokens=sum(record["tokens"] for record in history),
        lost_eos=examples.lost_eos,
        truncated=examples.truncated,
        without_loss=examples.without_loss,
        final_loss=history[-1]["loss"],
    )
