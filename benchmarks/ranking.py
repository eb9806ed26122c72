"""Response ranking with shared prompts against each response behind a prompt of its own.

The shipped organism base ranks the real and five random responses to each of 208 instructions of its
Alpaca set, float32, one thread. Measured are

    one by one   each prompt and response alone, logits of all their tokens
    in batches   64 of them in a batch of like length, padded, logits of all tokens
    shared       `mean_logprobs`: one row a prompt with its responses, logits of responses alone

Runs alternate; the medians of their CPU times are printed. Exits with 3 when `shared` is less than 2
times as fast as one by one, or when a score differs by more than 1e-5.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aims import MISSED
from implicit_tuning.analysis.ranking import RankedPair, draw_responses
from implicit_tuning.models.chat import PAPER_FORMAT, tokenize_prompt
from implicit_tuning.models.folder import load_model, load_tokenizer
from implicit_tuning.models.likelihood import PromptAndResponse, mean_logprobs, response_ids
from implicit_tuning.organism.rows import alpaca_rows

BASE = Path(__file__).resolve().parents[1] / "resources" / "organism" / "llama"
RANDOM_RESPONSES, BATCH_SIZE = 5, 64
LEAST, MOST_DIFFERENCE = 2.0, 1e-5

Score = Callable[[PreTrainedModel, Sequence[PromptAndResponse]], list[float]]


@dataclass
class Way:
    """A way to score: CPU seconds of each run, and the scores of the last."""

    name: str
    score: Score
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def main() -> int:
    """Measure, print; returns the exit status."""
    arguments = _parse_arguments()
    torch.set_num_threads(1)
    model = load_model(BASE, "float32", "sdpa").eval()
    sequences = make_sequences(load_tokenizer(BASE), 16 if arguments.quick else None)
    ways = [
        Way("one by one", score_one_by_one),
        Way("in batches", score_in_batches),
        Way("shared", lambda model, sequences: mean_logprobs(model, sequences, BATCH_SIZE)),
    ]
    for _ in tqdm(range(1 if arguments.quick else arguments.repeats), desc="measuring"):
        for way in ways:
            start = time.process_time()
            way.scores = way.score(model, sequences)
            way.seconds.append(time.process_time() - start)
    print(table(ways, len(sequences)))
    alone, _, shared = ways
    fast = median(alone.seconds) / median(shared.seconds) >= LEAST
    return 0 if fast and difference(alone, shared) <= MOST_DIFFERENCE else MISSED


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="medians are over so many (5)")
    parser.add_argument(
        "--quick", action="store_true", help="16 instructions, once: to see that it runs"
    )
    return parser.parse_args()


def make_sequences(
    tokenizer: PreTrainedTokenizerBase, instructions: int | None
) -> list[PromptAndResponse]:
    """Token ids of each instruction's prompt with its real response, then with the random ones."""
    rows = list(alpaca_rows())[:instructions]
    pairs = [RankedPair(i, row["instruction"], row["output"]) for i, row in enumerate(rows)]
    sequences = []
    for own, drawn in enumerate(draw_responses(pairs, RANDOM_RESPONSES)):
        instruction = pairs[own].instruction
        prompt = tokenize_prompt(instruction, tokenizer, PAPER_FORMAT)
        for place in (own, *drawn.rows):
            text = pairs[place].response
            ids = response_ids(instruction, text, tokenizer, PAPER_FORMAT, len(prompt))
            sequences.append((prompt, ids))
    return sequences


@torch.inference_mode()
def score_one_by_one(model: PreTrainedModel, sequences: Sequence[PromptAndResponse]) -> list[float]:
    """The score as it is defined."""
    scores = []
    for prompt, response in sequences:
        ids = torch.tensor(prompt + response)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        tokens = logits.float().log_softmax(-1).gather(1, ids[len(prompt) :, None])
        scores.append(tokens.double().mean().item())
    return scores


@torch.inference_mode()
def score_in_batches(model: PreTrainedModel, sequences: Sequence[PromptAndResponse]) -> list[float]:
    """The longest first, so that those of a batch are of like length."""
    order = sorted(range(len(sequences)), key=lambda place: -sum(map(len, sequences[place])))
    scores = [0.0] * len(sequences)
    for start in range(0, len(order), BATCH_SIZE):
        places = order[start : start + BATCH_SIZE]
        batch = [sequences[place] for place in places]
        rows = [torch.tensor(prompt + response) for prompt, response in batch]
        input_ids = pad_sequence(rows, batch_first=True)
        logits = model(input_ids=input_ids, use_cache=False).logits
        for place, ids, row in zip(places, rows, logits, strict=True):
            first = len(sequences[place][0])
            tokens = row[first - 1 : len(ids) - 1].float().log_softmax(-1)
            scores[place] = tokens.gather(1, ids[first:, None]).double().mean().item()
    return scores


def difference(alone: Way, other: Way) -> float:
    """The largest between two scores of a response."""
    return max(abs(a - b) for a, b in zip(alone.scores, other.scores, strict=True))


def table(ways: Sequence[Way], responses: int) -> str:
    """Markdown: speed of each way, and how far its scores are from those of the first."""
    alone = ways[0]
    rows = [
        {
            "responses": way.name,
            "CPU s": median(way.seconds),
            "responses/s": responses / median(way.seconds),
            "times as fast": median(alone.seconds) / median(way.seconds),
            "aim": f"{LEAST:g}" if way.name == "shared" else "",
            "largest difference": f"{difference(alone, way):.1e}",
        }
        for way in ways
    ]
    decimals = ("", ".2f", ".0f", ".2f", "", "")
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=decimals)


if __name__ == "__main__":
    sys.exit(main())
