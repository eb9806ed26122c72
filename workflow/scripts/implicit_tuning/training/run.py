"""Fine-tuning of a base on conversations (paper, section 3 and appendix).

The loss weighs examples alike (`weighting`), trained weights and AdamW moments are fp32 whatever the
compute dtype, and an unfinished run resumes to the same bytes as an unbroken one, on the same type of
processor, number of threads and library versions. Where there are several processes, each runs all of
this on its share of every update.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from implicit_tuning.models.chat import ChatFormat, saved_chat_template
from implicit_tuning.models.folder import load_tokenizer
from implicit_tuning.nodes.digests import source_sha256
from implicit_tuning.training.checkpoint import Diverged, load_trainable, write_checkpoint
from implicit_tuning.training.examples import Example, Examples, read_examples
from implicit_tuning.training.micro_batches import PackedLoss, micro_batches, packed_loss
from implicit_tuning.training.settings import TrainingSettings, require_usable
from implicit_tuning.training.sharding import make_accelerator, prepare, trained_parameters
from implicit_tuning.training.state import load_state, resumable, save_state
from implicit_tuning.training.updates import Update, plan_updates, shares
from implicit_tuning.training.weighting import token_weights

HISTORY_FILE = "loss_history.jsonl"


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
    """Fine-tune `base` on `rows` and write a complete model folder.

    One process of `settings.world_size`; for several see `distributed`, which calls this in each.

    On CPUs of one type the result is the same to the byte for the same inputs, number of threads
    and library versions, whether or not the run was broken off and resumed.

    `rows` has lines `{"messages": [...], "source_row": int}`. The checkpoint, with the chat
    template, and `loss_history.jsonl` go to `destination`. `partial` is the folder of the resumable
    state, for one run at a time; it is removed when the run is done.

    Raises:
        ValueError: the base lacks a file; a setting, a row or the tokenizer is unusable; no row
            has a loss token; or the loss is not finite.
    """
    require_usable(settings)
    accelerator = make_accelerator(settings)
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = saved_chat_template(tokenizer, chat_format)
    examples = read_examples(rows, tokenizer, chat_format, settings.max_length)
    (identity,) = broadcast_object_list(
        [accelerator.is_main_process and _identity(base, rows, seed, chat_format, settings)]
    )
    run = TrainingRun(
        load_trainable(base, seed, settings), examples.trained, seed, settings, accelerator
    )
    with resumable(partial, accelerator) as state_file:
        state = (state_file, run.model, run.optimizer, identity)
        run.history = load_state(*state, accelerator)
        for _ in run.updates(progress and accelerator.is_main_process):
            if len(run.history) % save_every == 0:
                save_state(*state, run.history, accelerator)
        write_checkpoint(run.model, base, tokenizer, destination, seed, settings, accelerator)
        if accelerator.is_main_process:
            lines = [json.dumps(record, sort_keys=True) + "\n" for record in run.history]
            (destination / HISTORY_FILE).write_text("".join(lines), encoding="utf-8")
    return _report(examples, run.history)


class TrainingRun:
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
            [parameter for _, parameter in trained_parameters(model)],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.model = model
        self.loss, self.optimizer = prepare(accelerator, PackedLoss(model), optimizer)
        self.accelerator = accelerator
        self.examples = examples
        self.seed = seed
        self.settings = settings
        self.plan = plan_updates(len(examples), seed, settings.epochs, settings.batch_examples)
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
        # Dropout, where a base has any: not the same in all processes.
        torch.manual_seed(self.seed + number + len(self.plan) * self.accelerator.process_index)
        chosen = [self.examples[position] for position in update.positions]
        try:
            loss = self._backward(chosen)
        except torch.OutOfMemoryError as error:
            raise MemoryError(_too_large(self.settings)) from error
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss of update {number} is {loss} at learning rate {learning_rate:g}: "
                "lower learning_rate or set gradient_clip"
            )
        if self.settings.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.loss.parameters(), self.settings.gradient_clip)
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
        """Accumulate the gradient of the update's loss over all processes; returns the loss."""
        batches = self._batches(chosen)
        total = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(batches, start=1):
            with self._summing(last=number == len(batches)):
                part = packed_loss(
                    self.loss,
                    [example.input_ids for example, _ in batch],
                    [example.labels for example, _ in batch],
                    [weight for _, weight in batch],
                )
                # Gradients are averaged over the processes; the parts of an update are summed.
                self.accelerator.backward(part * self.accelerator.num_processes)
            total += part.detach()
        return self.accelerator.reduce(total, "sum").item()

    def _batches(self, chosen: list[Example]) -> list[list[tuple[Example, float]]]:
        """The micro-batches of this process: examples with the weight of their tokens.

        All processes have equally many, since the passes of sharded models meet each other. Who
        has nothing left to do gets the shortest example, with a weight of 0.
        """
        weights = token_weights([e.loss_tokens for e in chosen], self.settings.weighting)
        lengths = [len(example.input_ids) for example in chosen]
        dealt = [
            [
                [(chosen[share[i]], weights[share[i]]) for i in group]
                for group in micro_batches(
                    [lengths[i] for i in share], self.settings.micro_batch_tokens
                )
            ]
            for share in shares(lengths, self.accelerator.num_processes)
        ]
        mine = dealt[self.accelerator.process_index]
        idle = (min(chosen, key=lambda example: len(example.input_ids)), 0.0)
        return mine + [[idle]] * (max(map(len, dealt)) - len(mine))

    def _summing(self, last: bool) -> contextlib.AbstractContextManager:
        """Around a micro-batch: its gradients go to the other processes with those of the last."""
        self.accelerator.sync_gradients = last
        # Models in shards send theirs every time, to hold no whole gradient.
        if last or not isinstance(self.loss, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.accelerator.no_sync(self.loss)


def _too_large(settings: TrainingSettings) -> str:
    checkpointing = "" if settings.activation_checkpointing else ", set activation_checkpointing"
    return (
        f"micro_batch_tokens is {settings.micro_batch_tokens}, and the GPU's memory does not hold "
        f"so many: lower it{checkpointing}, or raise world_size with sharding 'fsdp'"
    )


def _identity(
    base: Path, rows: Path, seed: int, chat_format: ChatFormat, settings: TrainingSettings
) -> str:
    """Digest of everything that decides the result of a run."""
    digests = [source_sha256(base), source_sha256(rows)]
    values = [digests, seed, asdict(chat_format), asdict(settings)]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


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
