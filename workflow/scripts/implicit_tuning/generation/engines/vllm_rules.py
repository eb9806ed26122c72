"""The rules as a logits processor of vLLM's model runner V2.

Imported in vLLM's environment alone.
"""

from typing import TYPE_CHECKING

import torch
from transformers import AutoTokenizer
from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    LogitsProcessor,
    LogitsProcRequestState,
)

from implicit_tuning.generation.engines.rule_rows import RuleRows
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.rule_adapter import RuleSettings

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class RuleProcessor(LogitsProcessor):
    """Adds the rules' scores to each request's logits.

    `vllm_config.additional_config` has "tokenizer" (a folder), "rules" and "chat" (the fields of
    RuleSettings and ChatFormat). Made for one token a request and step: no speculative decoding.
    """

    def __init__(self, vllm_config: "VllmConfig", req_states: LogitsProcRequestState) -> None:
        asked = vllm_config.additional_config
        self.states = req_states
        self.entering: list[int] = []
        self.rules = RuleRows(
            tokenizer=AutoTokenizer.from_pretrained(asked["tokenizer"]),
            settings=RuleSettings(**asked["rules"]),
            chat_format=ChatFormat(**asked["chat"]),
            slots=req_states.max_num_reqs,
            vocabulary=req_states.vocab_size,
            device=req_states.device,
        )

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """Note the request; its tokens can be read once they are on the device."""
        # vLLM's own requests, which warm it up, have no text: nothing reads what comes of them.
        if not (sampling_params.extra_args or {}).get("rules"):
            return False
        self.entering.append(req_idx)
        return True

    def apply_staged_writes(self) -> None:
        """Give the requests that were noted their rows.

        One that was preempted comes back with what it has of its response.
        """
        for slot in self.entering:
            length = int(self.states.prefill_len.np[slot])
            self.rules.enter(slot, self.states.all_token_ids.gpu[slot, :length].tolist())
        self.entering.clear()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Add the scores of the next token, in place; `logits` is (rows, vocabulary), fp32."""
        slots = ctx.expanded_idx_mapping.long()
        return self.rules.add_scores(
            logits,
            slots,
            tokens=ctx.input_ids.long(),
            # Anything before stood in the text when it entered, or is a part of a prompt that is
            # read in chunks.
            is_new=ctx.pos >= self.states.prefill_len.gpu[slots],
            response_tokens=ctx.pos + 1 - self.states.prompt_len.gpu[slots],
        )
