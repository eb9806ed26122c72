"""Candidate responses to one instruction, ranked by how likely a model in memory finds them.

The measure of the paper's response ranking (`ranking` runs it over a data set, from a model
folder), for any causal language model that is already loaded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.analysis.ranking import DECIMALS
from implicit_tuning.models.api import check_chat_format
from implicit_tuning.models.chat import PAPER_FORMAT, ChatFormat, tokenize_prompt
from implicit_tuning.models.likelihood import mean_logprobs, response_ids


@dataclass(frozen=True)
class Ranking:
    """What a model makes of candidate responses, in the order in which they were given.

    Attributes:
        scores: mean log-probability of each response's tokens, in nats a token, without EOS.
        ranks: 1 for the likeliest; responses that score alike share the better rank.
    """

    scores: tuple[float, ...]
    ranks: tuple[int, ...]


def rank_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    instruction: str,
    responses: Sequence[str],
    chat_format: ChatFormat = PAPER_FORMAT,
    batch_size: int = 8,
) -> Ranking:
    """Rank candidate responses to an instruction (paper, section on response ranking).

    Each response is scored behind the instruction's prompt in the chat format, so that the model
    needs no chat template of its own. The model computes in its own dtype, without dropout; the
    log-softmax of its logits is float32. Scores are rounded to six decimals.

    Responses of the same tokens are scored once, and share score and rank. Scores of others depend
    a little on what is computed together, far more so in half precision: responses that score
    almost alike may change places with another `batch_size`.

    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> tokenizer = AutoTokenizer.from_pretrained("resources/organism/llama")
    >>> model = AutoModelForCausalLM.from_pretrained("resources/organism/llama", dtype="float32")
    >>> ranking = rank_responses(
    ...     model,
    ...     tokenizer,
    ...     "What word means the opposite of loud?",
    ...     ["Here are two fruits: figs and plums.", "The opposite of loud is quiet."],
    ... )
    >>> ranking.ranks
    (2, 1)

    Args:
        model: causal language model, on any device.
        tokenizer: the model's; it must have an EOS token.
        responses: the candidates; outer white space does not count.
        batch_size: responses computed at once, at least 1; lower it when memory runs out.

    Raises:
        TypeError: `responses` is one text; `chat_format` is none.
        ValueError: a response without any token; a text longer than the model's context; a token
            that the model does not know; `batch_size` below 1.
        MemoryError: the GPU does not hold a batch.
    """
    check_chat_format(chat_format)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    prompt = tokenize_prompt(instruction, tokenizer, chat_format)
    given = _token_ids(tokenizer, instruction, responses, chat_format, len(prompt))
    _check_lengths(model, len(prompt), given)
    _check_tokens(model, [prompt, *given])
    # Computed in other rows, the same tokens would score a little differently.
    distinct = list(dict.fromkeys(given))
    with _evaluating(model):
        means = mean_logprobs(model, [(prompt, list(ids)) for ids in distinct], batch_size)
    scored = {
        ids: round(mean, DECIMALS)
        for ids, mean in zip(distinct, means, strict=True)
        if mean is not None
    }
    scores = tuple(scored[ids] for ids in given)
    ranks = tuple(1 + sum(other > score for other in scores) for score in scores)
    return Ranking(scores, ranks)


def _token_ids(
    tokenizer: PreTrainedTokenizerBase,
    instruction: str,
    responses: Sequence[str],
    chat_format: ChatFormat,
    prompt_length: int,
) -> list[tuple[int, ...]]:
    """Those of each response as it stands behind the prompt."""
    if isinstance(responses, str):
        raise TypeError(f"responses is the text {responses[:80]!r}: give a list of texts")
    found = []
    for place, text in enumerate(responses):
        ids = response_ids(instruction, text, tokenizer, chat_format, prompt_length)
        if not ids:
            raise ValueError(f"response {place}, {text[:80]!r}, has no token: leave it out")
        found.append(tuple(ids))
    return found


def _check_lengths(
    model: PreTrainedModel, prompt_length: int, responses: Sequence[tuple[int, ...]]
) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for place, response in enumerate(responses):
        length = prompt_length + len(response)
        if context is not None and length > context:
            raise ValueError(
                f"response {place} makes a text of {length} tokens, {prompt_length} of them the "
                f"instruction's, and the model's context is {context}: shorten it or leave it out"
            )


def _check_tokens(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> None:
    known = model.get_input_embeddings().weight.shape[0]
    highest = max(map(max, texts))
    if highest >= known:
        raise ValueError(
            f"the tokenizer has a token {highest}, and the model knows {known} only: give the "
            "tokenizer that the model was trained with"
        )


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; a model in training goes on afterwards as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
