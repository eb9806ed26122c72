"""Examples a second of a fine-tuning update against the Trainer of transformers.

A small Llama with random weights is trained for one epoch on random tokens whose lengths are
distributed as LIMA's (log-normal, mean 688, median 504, cut at 2,048), a quarter as long, with
updates of 64 examples. Measured are

    ours      `micro_batches` and `packed_loss`: rows without padding
    Trainer   its defaults: micro-batches of 8 in random order, padded to their longest
    grouped   the same with `train_sampling_strategy="group_by_length"`

All have the same model, data, optimizer and loss (the mean over the tokens of an update), one
thread, and no logging or saving. Runs alternate; the medians of their CPU times are printed.
Exits with 3 when ours is less than 2.5 times as fast as the Trainer's defaults, or computes more
than 1.02 times the tokens of the examples.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from tabulate import tabulate
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from aims import MISSED
from implicit_tuning.training.micro_batches import (
    PackedLoss,
    attention_implementation,
    micro_batches,
    packed_loss,
)
from implicit_tuning.training.weighting import IGNORED, token_weights

LEAST, MOST = 2.5, 1.02
# Tokens of an example of LIMA: log-normal with this median; the spread gives its mean of 688 after
# the cut, and its waste of 58 % in random batches of 8.
MEDIAN, SPREAD, LONGEST, SCALE = 504, 0.91, 2048, 4
PROMPT_SHARE = 0.15
UPDATE_EXAMPLES, MICRO_BATCH_EXAMPLES, MICRO_BATCH_TOKENS = 64, 8, 2048
VOCABULARY, LEARNING_RATE = 1024, 1e-4


@dataclass
class Peer:
    """A way to train: seconds of CPU time of each run, and the tokens that the last computed."""

    name: str
    attention: str
    train: Callable[[PreTrainedModel, list[dict]], None]
    seconds: list[float] = field(default_factory=list)
    tokens: int = 0


def main() -> int:
    """Measure, print; returns the exit status."""
    arguments = _parse_arguments()
    torch.set_num_threads(1)
    rows = make_rows(128 if arguments.quick else arguments.examples)
    peers = [
        Peer("ours", attention_implementation("sdpa", "cpu"), train_packed),
        Peer("Trainer", "sdpa", lambda model, rows: train_padded(model, rows, "random")),
        Peer("grouped", "sdpa", lambda model, rows: train_padded(model, rows, "group_by_length")),
    ]
    repeats = 1 if arguments.quick else arguments.repeats
    for peer in peers:
        measure(peer, rows[:UPDATE_EXAMPLES])  # a first run is slower
        peer.seconds.clear()
    for _ in tqdm(range(repeats), desc="measuring", unit="round"):
        for peer in peers:
            measure(peer, rows)
    useful = sum(len(row["input_ids"]) for row in rows)
    print(table(peers, len(rows), useful))
    ours, trainer, _ = peers
    fast = median(trainer.seconds) / median(ours.seconds) >= LEAST
    return 0 if fast and ours.tokens / useful <= MOST else MISSED


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=512, help="examples of the epoch (512)")
    parser.add_argument("--repeats", type=int, default=3, help="medians are over so many (3)")
    parser.add_argument(
        "--quick", action="store_true", help="128 examples, once: to see that it runs"
    )
    return parser.parse_args()


def make_rows(examples: int) -> list[dict]:
    """Random examples: input ids, and labels without the prompt."""
    generator = np.random.default_rng(1)
    drawn = generator.lognormal(np.log(MEDIAN), SPREAD, examples)
    rows = []
    for length in np.minimum(drawn, LONGEST).astype(int) // SCALE:
        ids = generator.integers(1, VOCABULARY, max(length, 4)).tolist()
        prompt = max(1, int(PROMPT_SHARE * len(ids)))
        rows.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
    return rows


def measure(peer: Peer, rows: list[dict]) -> None:
    """Train a fresh model for an epoch."""
    torch.manual_seed(0)
    model = make_model(peer.attention)
    peer.tokens = 0

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        peer.tokens += inputs[0].numel()

    model.get_input_embeddings().register_forward_pre_hook(count)
    start = time.process_time()
    peer.train(model, rows)
    peer.seconds.append(time.process_time() - start)


def make_model(attention: str) -> PreTrainedModel:
    """A million weights, with the proportions of Llama-2-7B but for vocabulary and depth."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=2,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).train()


def train_packed(model: PreTrainedModel, rows: list[dict]) -> None:
    """One epoch without padding."""
    loss = PackedLoss(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    order = np.random.default_rng(0).permutation(len(rows))
    for start in range(0, len(rows), UPDATE_EXAMPLES):
        chosen = [rows[i] for i in order[start : start + UPDATE_EXAMPLES]]
        weights = token_weights([_loss_tokens(row) for row in chosen], "token")
        for group in micro_batches([len(row["input_ids"]) for row in chosen], MICRO_BATCH_TOKENS):
            packed_loss(
                loss,
                [chosen[i]["input_ids"] for i in group],
                [chosen[i]["labels"] for i in group],
                [weights[i] for i in group],
            ).backward()
        optimizer.step()
        optimizer.zero_grad()


def _loss_tokens(row: dict) -> int:
    return sum(label != IGNORED for label in row["labels"])


def train_padded(model: PreTrainedModel, rows: list[dict], order: str) -> None:
    """One epoch with the Trainer, which takes its examples in this order."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            num_train_epochs=1,
            per_device_train_batch_size=MICRO_BATCH_EXAMPLES,
            gradient_accumulation_steps=UPDATE_EXAMPLES // MICRO_BATCH_EXAMPLES,
            train_sampling_strategy=order,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(model, settings, data_collator=pad, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def pad(rows: Sequence[dict]) -> dict[str, torch.Tensor]:
    """A micro-batch padded on the right to its longest example, each (examples, tokens)."""
    ids, labels = ([torch.tensor(row[key]) for row in rows] for key in ("input_ids", "labels"))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def table(peers: list[Peer], examples: int, useful: int) -> str:
    """Speed and computed tokens, beside what ours is to reach."""
    ours = median(peers[0].seconds)
    rows = [
        {
            "": peer.name,
            "CPU s": median(peer.seconds),
            "examples/s": examples / median(peer.seconds),
            "ours is faster by": median(peer.seconds) / ours,
            "computed/useful tokens": peer.tokens / useful,
        }
        for peer in peers
    ]
    decimals = ("", ".2f", ".1f", ".2f", ".3f")
    printed = tabulate(rows, headers="keys", tablefmt="github", floatfmt=decimals)
    return f"{printed}\n\naim: {LEAST} over Trainer, {MOST} tokens computed for a useful one"


if __name__ == "__main__":
    sys.exit(main())
