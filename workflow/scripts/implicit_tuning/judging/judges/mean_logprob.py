"""A judge from a base model: it prefers the output that the base finds likelier, token by token.

The score is that of the paper's response ranking, the mean log-probability of the output's tokens
given the chat prompt of the instruction. It needs no key and no ground truth, so it proves that
the path from outputs to tables works on any data. It does *not* measure quality: likely text is
often dull or repetitive text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from implicit_tuning.judging.judge import Needs, Pair, Verdict
from implicit_tuning.models.chat import ChatFormat, tokenize_prompt
from implicit_tuning.models.likelihood import mean_logprobs, response_ids
from implicit_tuning.nodes.digests import judge_identity, source_sha256

# Read without importing this module, so a literal; see `kinds.JudgeKind`.
KIND = {
    "decides": {
        "base": {"type": "string"},
        "batch_size": {"type": "integer", "minimum": 1},
    },
    "libraries": ("torch", "transformers", "tokenizers"),
    "chat": True,
}
DECIMALS = 4  # of a log-probability; steadies verdicts against rounding in batches of other shapes


def make(settings: Mapping, runtime: Mapping, needs: Needs) -> "MeanLogprobJudge":
    """The judge of a config entry."""
    base = needs.model()
    chat_format = ChatFormat(**needs.chat)
    return MeanLogprobJudge(base, source_sha256(base), chat_format, settings["batch_size"])


class MeanLogprobJudge:
    """Compares mean log-probabilities (nats a token, float32) under the causal model in `base`.

    `base_digest` is the content digest of that folder, for the judge's identity. The prompt is the
    chat prompt of `chat_format`; the output's own tokens count, without EOS and outer white space.
    Means are compared after rounding to four decimals, equal ones are a draw. An output without
    tokens loses to any other, since the mean over no tokens would mean nothing. An output that does
    not fit into the model's context after its prompt is cut there and counted in the verdict's
    `n_cut`.
    The model is loaded with the first pair that is really judged.

    `judge` raises ValueError for an instruction that fills the context by itself.
    """

    def __init__(
        self,
        base: Path,
        base_digest: str,
        chat_format: ChatFormat,
        batch_size: int = 8,
        device: str = "cpu",
    ) -> None:
        self._base = base
        self._chat_format = chat_format
        self._batch_size = batch_size
        self._device = device
        parameters = {"base": base_digest, "chat_format": asdict(chat_format), "device": device}
        self.judge_id = judge_identity("mean_logprob", parameters)

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        texts = [(p.instruction, output) for p in pairs for output in (p.output_1, p.output_2)]
        prepared = [self._tokens(instruction, output) for instruction, output in texts]
        sequences = [(prompt, response) for prompt, response, _ in prepared]
        means = [
            None if mean is None else round(mean, DECIMALS)
            for mean in mean_logprobs(self._model, sequences, self._batch_size)
        ]
        cut = [was_cut for _, _, was_cut in prepared]
        return [
            _verdict(means[i], means[i + 1], n_cut=cut[i] + cut[i + 1])
            for i in range(0, len(means), 2)
        ]

    @cached_property
    def _model(self) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_pretrained(self._base, dtype=torch.float32)
        return model.to(self._device).eval()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(self._base)

    def _tokens(self, instruction: str, output: str) -> tuple[list[int], list[int], bool]:
        """Returns prompt ids, output ids that fit after them, and whether any did not fit."""
        prompt = tokenize_prompt(instruction, self._tokenizer, self._chat_format)
        context = self._model.config.max_position_embeddings
        if len(prompt) >= context:
            raise ValueError(
                f"the prompt of instruction {instruction[:80]!r} has {len(prompt)} tokens and the "
                f"judging base {self._base} a context of {context}: judge with another base"
            )
        response = []
        if output.strip():
            response = response_ids(
                instruction, output, self._tokenizer, self._chat_format, len(prompt)
            )
        room = context - len(prompt)
        return prompt, response[:room], len(response) > room


def _verdict(mean_1: float | None, mean_2: float | None, n_cut: int) -> Verdict:
    """Returns the verdict for two means, None standing for an output without tokens."""
    score_1, score_2 = (float("-inf") if mean is None else mean for mean in (mean_1, mean_2))
    preference = 1.5 if score_1 == score_2 else 1.0 if score_1 > score_2 else 2.0
    logprobs = {"output_1": mean_1, "output_2": mean_2}
    return Verdict(preference, logprobs=logprobs, n_cut=n_cut)
