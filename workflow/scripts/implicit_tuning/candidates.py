"""Candidate responses to one instruction, ranked by how likely a model in memory finds them.

The measure of the paper's response ranking (`ranking` runs it over a data set, from a model
folder), for any causal language model that is already loaded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.chat import PAPER_FORMAT, ChatFormat, tokenize_prompt
from implicit_tuning.ranking import DECIMALS
from implicit_tuning.scoring import PromptAndResponse, mean_logprobs, response_ids


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
    needs no chat template of its own. Scores are float32 whatever the model's dtype, without
    dropout, and rounded to six decimals, which keeps rounding in batches out of the ranks.

    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> tokenizer = AutoTokenizer.from_pretrained("resources/organism/llama")
    >>> model = AutoModelForCausalLM.from_pretrained("resources/organism/llama")
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
        batch_size: responses computed at once; lower it when memory runs out.

    Raises:
        TypeError: `responses` is one text.
        ValueError: a response without any token; a text longer than the model's context.
        MemoryError: the GPU does not hold a batch.
    """
    sequences = _sequences(tokenizer, instruction, responses, chat_format)
    _check_context(model, sequences)
    with _evaluating(model):
        means = mean_logprobs(model, sequences, batch_size)
    scores = tuple(round(mean, DECIMALS) for mean in means if mean is not None)
    ranks = tuple(1 + sum(other > score for other in scores) for score in scores)
    return Ranking(scores, ranks)


def _sequences(
    tokenizer: PreTrainedTokenizerBase,
    instruction: str,
    responses: Sequence[str],
    chat_format: ChatFormat,
) -> list[PromptAndResponse]:
    if isinstance(responses, str):
        raise TypeError(f"responses is the text {responses[:80]!r}: give a list of texts")
    prompt = tokenize_prompt(instruction, tokenizer, chat_format)
    sequences = []
    for place, text in enumerate(responses):
        ids = response_ids(instruction, text, tokenizer, chat_format, len(prompt))
        if not ids:
            raise ValueError(f"response {place}, {text[:80]!r}, has no token: leave it out")
        sequences.append((prompt, ids))
    return sequences


def _check_context(model: PreTrainedModel, sequences: Sequence[PromptAndResponse]) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for place, (prompt, response) in enumerate(sequences):
        length = len(prompt) + len(response)
        if context is not None and length > context:
            raise ValueError(
                f"response {place} makes a text of {length} tokens, {len(prompt)} of them the "
                f"instruction's, and the model's context is {context}: shorten it or leave it out"
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
