"""Rows of a data set as tokens and labels."""

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from implicit_tuning.models.chat import ChatFormat, tokenize_conversation
from implicit_tuning.training.weighting import IGNORED


@dataclass(frozen=True)
class Example:
    """One tokenized row: input ids and labels (`IGNORED` where there is no loss)."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    loss_tokens: int


@dataclass(frozen=True)
class Examples:
    """The rows that can be trained on, and what the cut to the maximum length did to all rows.

    `truncated` and `lost_eos` count rows that the cut shortened, and those among them that lost the
    EOS of a response. `without_loss` names, by their `source_row`, rows that the cut left without
    any loss token.
    """

    trained: tuple[Example, ...]
    truncated: int
    lost_eos: int
    without_loss: tuple[int, ...]


def read_examples(
    rows: Path, tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, max_length: int
) -> Examples:
    """Tokenize the rows of rows.jsonl, each line `{"messages": [...], "source_row": int}`.

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
            pairs = zip(tokens.input_ids, tokens.loss_mask, strict=True)
            labels = tuple(token if counted else IGNORED for token, counted in pairs)
            trained.append(Example(tokens.input_ids, labels, sum(tokens.loss_mask)))
        else:
            without_loss.append(row["source_row"])
    if not trained:
        raise ValueError(
            f"none of the {len(without_loss)} rows of {rows} has a response token within "
            f"max_length={max_length}: raise max_length or give other rows"
        )
    return Examples(tuple(trained), truncated, lost_eos, tuple(without_loss))
