"""A judge from local open weights: a chat model's log-probabilities of AlpacaEval 2's two labels.

The model is shown the packaged AlpacaEval 2 question through its own chat template; the verdict is
read off the next-token log-probabilities at the place of its answer, nothing is sampled. Such
models lean towards one position, so every pair is judged in both orders (`both_orders`, see
`alpaca.compare`) and the preferences averaged.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.judging.judge import Needs, Pair, Verdict
from implicit_tuning.judging.prompt import (
    LABELS,
    MAX_OUTPUT_CHARACTERS,
    capped,
    messages,
    prompt_sha256,
    verdict_from_logprobs,
)
from implicit_tuning.models.folder import load_model, load_tokenizer
from implicit_tuning.nodes.digests import judge_identity, source_sha256

# Read without importing this module, so a literal; see `kinds.JudgeKind`.
KIND = {
    "decides": {
        "batch_size": {"type": "integer", "minimum": 1},
        "dtype": {"enum": ["float32", "bfloat16"]},
        "device": {"enum": ["cpu", "cuda"]},
        "max_output_characters": {"type": "integer", "minimum": 1, "default": 20_000},
    },
    "libraries": ("torch", "transformers", "tokenizers"),
    "own_model": True,
}
ATTENTION = "sdpa"
DECIMALS = 6  # of a log-probability; steadies verdicts against rounding in batches of other shapes


def make(settings: Mapping, runtime: Mapping, needs: Needs) -> "HfLogitsJudge":
    """The judge of a config entry."""
    folder = needs.model()
    keys = ("batch_size", "dtype", "device", "max_output_characters")
    return HfLogitsJudge(folder, source_sha256(folder), **{key: settings[key] for key in keys})


class HfLogitsJudge:
    """Compares outputs by the causal chat model in `folder`.

    `digest` is the content digest of that folder, for the judge's identity. Each output is cut at
    `max_output_characters`, and where the whole question still exceeds the model's context, both
    outputs at the same shorter length; cut outputs are counted in the verdict's `n_cut`. A model
    without a chat template gets the question as plain text, with an empty line between its messages
    and a line break at its end. The dtype is "float32" or "bfloat16"; in the latter verdicts depend on
    the batch, so the batch size is part of the identity. In float32 batches, threads and processors
    change a log-probability by some 1e-6. The model is loaded with the first pair
    that is really judged.

    `judge` raises ValueError for an instruction that leaves no room for outputs, for a tokenizer in
    which the labels begin alike, and for a chat template that refuses a system message.
    """

    both_orders = True

    def __init__(
        self,
        folder: Path,
        digest: str,
        batch_size: int = 8,
        dtype: str = "float32",
        device: str = "cpu",
        max_output_characters: int = MAX_OUTPUT_CHARACTERS,
    ) -> None:
        self._folder = folder
        self._batch_size = batch_size
        self._dtype = dtype
        self._device = device
        self._limit = max_output_characters
        parameters = {
            "model": digest,
            "prompt": prompt_sha256(),
            "batch_size": batch_size,
            "dtype": dtype,
            "device": device,
            "max_output_characters": max_output_characters,
        }
        self.judge_id = judge_identity("hf_logits", parameters)

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        questions = [self._question(pair) for pair in pairs]
        logprobs: list[dict[str, float]] = []
        for start in range(0, len(questions), self._batch_size):
            batch = [ids for ids, _ in questions[start : start + self._batch_size]]
            logprobs += label_logprobs(self._model, batch, self._label_ids)
        return [
            verdict_from_logprobs(answer, n_cut)
            for answer, (_, n_cut) in zip(logprobs, questions, strict=True)
        ]

    @cached_property
    def _model(self) -> PreTrainedModel:
        return load_model(self._folder, self._dtype, ATTENTION).to(self._device).eval()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._folder)

    @cached_property
    def _label_ids(self) -> dict[str, int]:
        """The first token of each label as an answer, seen behind a question's own end."""
        before = self._ids(self._text(Pair("", "", "")))
        answers = {label: self._ids(self._text(Pair("", "", "")) + label) for label in LABELS}
        if all(ids[: len(before)] == before for ids in answers.values()):
            found = {label: ids[len(before)] for label, ids in answers.items()}
            if len(set(found.values())) == len(LABELS):
                return found
        raise ValueError(
            f"the tokenizer of {self._folder} has no token of its own for each of the answers "
            f"{' and '.join(LABELS)}: judge with another model"
        )

    def _question(self, pair: Pair) -> tuple[list[int], int]:
        """Returns the token ids of the question and how many outputs were cut to fit."""
        context = self._model.config.get_text_config().max_position_embeddings
        limit = self._limit
        while True:
            shorter, n_cut = capped(pair, limit)
            ids = self._ids(self._text(shorter))
            if len(ids) <= context:
                return ids, n_cut
            longest = max(len(shorter.output_1), len(shorter.output_2))
            if longest == 0:
                raise ValueError(
                    f"the question about {pair.instruction[:80]!r} alone has {len(ids)} tokens and "
                    f"the judge {self._folder} a context of {context}: judge with another model"
                )
            # In proportion to the surplus, and always shorter, so that it ends.
            limit = min(longest * context // len(ids), longest - 1)

    def _text(self, pair: Pair) -> str:
        chat = [
            {**message, "content": self._defused(message["content"])} for message in messages(pair)
        ]
        if self._tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in chat) + "\n"
        try:
            return self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {self._folder} refuses AlpacaEval's question ({error}): "
                "judge with another model"
            ) from None

    def _defused(self, text: str) -> str:
        """Breaks up the tokenizer's own special tokens, which it would find in any text."""
        for token in self._special_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _special_tokens(self) -> list[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        return [token.content for token in added if token.special and len(token.content) > 1]

    def _ids(self, text: str) -> list[int]:
        """A chat template writes its own special tokens; a plain text gets the tokenizer's."""
        plain = self._tokenizer.chat_template is None
        return self._tokenizer(text, add_special_tokens=plain)["input_ids"]


@torch.inference_mode()
def label_logprobs(
    model: PreTrainedModel, questions: Sequence[list[int]], label_ids: dict[str, int]
) -> list[dict[str, float]]:
    """Returns the next-token log-probability (nats) of each label after each question's ids."""
    lengths = torch.tensor([len(ids) for ids in questions])
    input_ids = torch.zeros(len(questions), int(lengths.max()), dtype=torch.long)
    for row, ids in enumerate(questions):
        input_ids[row, : len(ids)] = torch.tensor(ids)
    # Padding stands on the right, where causal attention never looks back at it.
    ends, place = torch.unique(lengths - 1, return_inverse=True)
    logits = model(
        input_ids=input_ids.to(model.device), logits_to_keep=ends.to(model.device)
    ).logits
    logprobs = logits[torch.arange(len(questions)), place].float().log_softmax(dim=-1)
    chosen = logprobs[:, list(label_ids.values())].tolist()
    return [
        {label: round(value, DECIMALS) for label, value in zip(label_ids, row, strict=True)}
        for row in chosen
    ]
