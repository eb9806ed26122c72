"""Response ranking (paper, section on response ranking): does a model find the response to an
instruction likelier than responses to other instructions?

It asks whether the mapping from instructions to responses is there before any finetuning, so it is
measured on the base and on every run alike.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.data.reading import read_rows
from implicit_tuning.models.chat import ChatFormat, require_prompts, tokenize_prompt
from implicit_tuning.models.folder import load_model, load_tokenizer, require_known_tokens
from implicit_tuning.models.likelihood import PromptAndResponse, mean_logprobs, response_ids

SCORES_FILE = "scores.jsonl"
SEED = 20240914  # of the random responses, which so are the same for every model
DECIMALS = 6  # of a log-probability


@dataclass(frozen=True)
class RankingSettings:
    """How to rank.

    `random_responses` are drawn for each pair (paper: 5); `max_length` is in tokens, prompt and
    response together (paper: 1024). Batches decide rounding, so they are part of the identity.
    """

    random_responses: int
    max_length: int
    batch_size: int
    dtype: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    attention: Literal["sdpa", "eager"]


@dataclass(frozen=True)
class RankingReport:
    """Counts over a ranking.

    `won` of the `comparisons` (pairs times random responses) had the real response ahead. `n_cut`
    responses, real or random, were cut to the maximum length. `n_excluded` draws equalled the real
    response and were drawn again.
    """

    pairs: int
    comparisons: int
    won: int
    n_cut: int
    n_excluded: int


@dataclass(frozen=True)
class RankedPair:
    """The first exchange of a row of training data; `response` has no outer white space."""

    source_row: int
    instruction: str
    response: str


@dataclass(frozen=True)
class Draws:
    """The random responses of one pair: `rows` are places in the list of pairs."""

    rows: tuple[int, ...]
    n_excluded: int


def rank(
    model: Path,
    pairs: Path,
    destination: Path,
    chat_format: ChatFormat,
    settings: RankingSettings,
) -> RankingReport:
    """Score every pair against random responses and write `destination/scores.jsonl`.

    Each line is `{"n_won", "random", "random_rows", "real", "source_row"}`, in the order of the
    pairs: `real` and `random` are mean log-probabilities (nats a token, without EOS) of the real
    and the random responses given the pair's prompt, `random_rows` are the source rows of the
    latter, `n_won` counts those that score lower than the real one (strictly, as in the paper).
    The paper's score is the exponential of ours, which orders alike. `pairs` is the rows.jsonl of a
    formatted training data set; only the first exchange of each row counts.

    Raises:
        ValueError: the model folder lacks a file; no prompt can be made in this format; a row has
            no instruction or response, or there are too few different ones; a prompt fills
            `max_length` or the model's context.
    """
    tokenizer = load_tokenizer(model)
    require_prompts(tokenizer, chat_format)
    language_model = _load(model, settings)
    found = read_pairs(pairs)
    draws = draw_responses(found, settings.random_responses)
    context = getattr(language_model.config, "max_position_embeddings", None)
    limit = settings.max_length if context is None else min(settings.max_length, context)
    sequences, n_cut = _sequences(found, draws, tokenizer, chat_format, limit)
    require_known_tokens((ids for texts in sequences for ids in texts), language_model)
    means = mean_logprobs(language_model, sequences, settings.batch_size, progress="rank")
    lines = _score_lines(
        found, draws, [round(mean, DECIMALS) for mean in means if mean is not None]
    )
    destination.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(line, sort_keys=True) + "\n" for line in lines]
    (destination / SCORES_FILE).write_text("".join(texts), encoding="utf-8")
    return RankingReport(
        pairs=len(found),
        comparisons=len(found) * settings.random_responses,
        won=sum(line["n_won"] for line in lines),
        n_cut=n_cut,
        n_excluded=sum(drawn.n_excluded for drawn in draws),
    )


def read_pairs(path: Path) -> list[RankedPair]:
    """The first instruction and response of each row of a formatted training data set.

    Raises ValueError for a row that does not start with a user's and an assistant's turn, both
    with text.
    """
    pairs = []
    for row in read_rows(path):
        first = row["messages"][:2]
        roles = [message["role"] for message in first]
        texts = [message["content"].strip() for message in first]
        if roles != ["user", "assistant"] or not all(texts):
            raise ValueError(
                f"source row {row['source_row']} of {path} starts with {str(first)[:200]}: ranking "
                "needs an instruction and a response, both with text. Rank on a data set that has "
                "both in every row"
            )
        pairs.append(RankedPair(row["source_row"], first[0]["content"], texts[1]))
    return pairs


def draw_responses(pairs: Sequence[RankedPair], count: int) -> list[Draws]:
    """For each pair, `count` different responses of other rows, none of them equal to its own.

    They depend on the pairs and a fixed seed alone, so that all models rank the same.

    DEVIATION: the authors draw from all rows, so a "random" response can be the real one, which
    then never wins. Here such a draw is counted and drawn again.

    Raises ValueError when there are too few different responses.
    """
    different = len({pair.response for pair in pairs})
    if different <= count:
        raise ValueError(
            f"{count} random responses a pair cannot be drawn from {different} different "
            f"responses: take more rows of the data set, or at most {max(different - 1, 0)} for "
            "'random_responses'"
        )
    generator = random.Random(SEED)
    return [_draw(own, pairs, count, generator) for own in range(len(pairs))]


def _draw(own: int, pairs: Sequence[RankedPair], count: int, generator: random.Random) -> Draws:
    drawn: dict[str, int] = {}  # response to its place
    n_excluded = 0
    while len(drawn) < count:
        place = generator.randrange(len(pairs))
        response = pairs[place].response
        if response == pairs[own].response:
            n_excluded += place != own  # its own row is no other's response
        else:
            drawn.setdefault(response, place)
    return Draws(tuple(drawn.values()), n_excluded)


def _load(model: Path, settings: RankingSettings) -> PreTrainedModel:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no GPU here: set device to 'cpu'")
    return load_model(model, settings.dtype, settings.attention).to(settings.device).eval()


def _sequences(
    pairs: Sequence[RankedPair],
    draws: Sequence[Draws],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    limit: int,
) -> tuple[list[PromptAndResponse], int]:
    """Token ids of each pair's real response and then its random ones, all after its prompt; and
    how many of them were cut at `limit` tokens."""
    sequences = []
    n_cut = 0
    for own, (pair, drawn) in enumerate(zip(pairs, draws, strict=True)):
        prompt = _prompt(pair, tokenizer, chat_format, limit)
        room = limit - len(prompt)
        for place in (own, *drawn.rows):
            text = pairs[place].response
            response = response_ids(pair.instruction, text, tokenizer, chat_format, len(prompt))
            if not response:
                raise ValueError(
                    f"the response of source row {pairs[place].source_row}, {text[:80]!r}, has no "
                    "token in this model's tokenizer: leave the row out"
                )
            sequences.append((prompt, response[:room]))
            n_cut += len(response) > room
    return sequences, n_cut


def _prompt(
    pair: RankedPair, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, limit: int
) -> list[int]:
    prompt = tokenize_prompt(pair.instruction, tokenizer, chat_format)
    if len(prompt) >= limit:
        raise ValueError(
            f"the instruction of source row {pair.source_row} makes a prompt of {len(prompt)} "
            f"tokens, which leaves no room for a response within {limit} ('max_length', or the "
            "model's context if that is less): raise 'max_length' or leave the row out"
        )
    return prompt


def _score_lines(
    pairs: Sequence[RankedPair], draws: Sequence[Draws], means: Sequence[float]
) -> list[dict]:
    """The lines of scores.jsonl; `means` has each pair's real response, then its random ones."""
    lines = []
    remaining = iter(means)
    for pair, drawn in zip(pairs, draws, strict=True):
        real, *others = [next(remaining) for _ in range(1 + len(drawn.rows))]
        lines.append(
            {
                "source_row": pair.source_row,
                "real": real,
                "random": others,
                "random_rows": [pairs[place].source_row for place in drawn.rows],
                "n_won": sum(real > other for other in others),
            }
        )
    return lines
