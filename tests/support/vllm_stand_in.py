"""A stand-in for vLLM: what our worker calls, and the calls that vLLM's model runner V2 makes.

It schedules as unkindly as vLLM may: prompts in chunks, requests that are preempted and come back,
rows in another order at each step. The model is transformers' own, on the CPU.
"""

import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

CHUNK = 25  # tokens of a prompt a step
PREEMPT_EVERY = 7  # steps
# A variable of the environment that makes it fail: "no gpu", "dies" or "hangs".
FAILURE = "VLLM_STAND_IN"

INTERFACE = """
from dataclasses import dataclass
from typing import Any

class LogitsProcessor:
    pass

@dataclass(frozen=True)
class LogitsProcRequestState:
    device: Any
    max_num_reqs: int
    vocab_size: int
    all_token_ids: Any
    prompt_len: Any
    prefill_len: Any
    total_len: Any

@dataclass(frozen=True)
class LogitsContext:
    expanded_idx_mapping: Any
    idx_mapping: Any
    idx_mapping_np: Any
    expanded_local_pos: Any
    input_ids: Any
    pos: Any
    seq_lens_upper_bound_np: Any
"""
MODULES = {
    "vllm/__init__.py": "from vllm_stand_in import LLM, SamplingParams",
    "vllm/platforms.py": "from vllm_stand_in import current_platform",
    "vllm/v1/worker/gpu/sample/logits_processor.py": INTERFACE,
}


def install(folder: Path, version: str) -> Path:
    """A package `vllm` in a folder for `sys.path`, installed as far as its version goes."""
    for name, text in MODULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    metadata = folder / f"vllm-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return folder


def interpreter(folder: Path, *search_path: Path) -> Path:
    """An interpreter that finds these folders, as that of another environment would."""
    path = folder / "python"
    paths = ":".join(map(str, search_path))
    path.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{paths}" exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


current_platform = SimpleNamespace(is_cuda=lambda: os.environ.get(FAILURE) != "no gpu")


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    detokenize: bool = True
    extra_args: dict | None = None


class Staged:
    """A buffer that the device sees as of the last `copy`."""

    def __init__(self, *size: int) -> None:
        self.np = np.zeros(size, dtype=np.int32)
        self.gpu = torch.zeros(size, dtype=torch.int32)

    def copy(self) -> None:
        self.gpu = torch.from_numpy(self.np.copy())


@dataclass
class Request:
    """`tokens`: prompt and output; `computed`: how many of them the model has read."""

    number: int
    tokens: list[int]
    params: SamplingParams
    prompt: int
    computed: int = 0
    slot: int | None = None

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt :]

    @property
    def finished(self) -> bool:
        stopped = bool(set(self.output[-1:]) & set(self.params.stop_token_ids))
        return stopped or len(self.output) == self.params.max_tokens


class Runner:
    """Slots, their buffers, and steps.

    Args:
        make: makes the logits processors from the shared state.
        logits: gives the next token's logits of a request that was read so far.
        preempt_at: numbers of requests, with the lengths of output at which they are preempted.
    """

    def __init__(
        self,
        make: Callable[[object], list],
        logits: Callable[[Request], torch.Tensor],
        slots: int,
        context: int,
        vocabulary: int,
        preempt_at: Sequence[tuple[int, int]] = (),
    ) -> None:
        from vllm.v1.worker.gpu.sample import logits_processor

        self.interface = logits_processor
        self.logits = logits
        self.tokens = Staged(slots, context)
        self.lengths = {name: Staged(slots) for name in ("prompt_len", "prefill_len", "total_len")}
        self.processors = make(
            logits_processor.LogitsProcRequestState(
                device=torch.device("cpu"),
                max_num_reqs=slots,
                vocab_size=vocabulary,
                all_token_ids=self.tokens,
                **self.lengths,
            )
        )
        self.preempt_at = set(preempt_at)
        self.free = list(range(slots))
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.adapted: dict[int, list[torch.Tensor]] = {}
        self._warm_up(slots, vocabulary)

    def _warm_up(self, slots: int, vocabulary: int) -> None:
        for processor in self.processors:
            for slot in range(slots):
                processor.add_request(slot, SamplingParams())
            processor.apply_staged_writes()
            rows = torch.arange(slots)
            processor.apply(torch.zeros(slots, vocabulary), self._context(rows, rows * 0, rows * 0))

    def run(self, prompts: list[list[int]], params: list[SamplingParams]) -> list[list[int]]:
        """The output of each prompt."""
        requests = [
            Request(number, list(prompt), its, len(prompt))
            for number, (prompt, its) in enumerate(zip(prompts, params, strict=True))
        ]
        self.waiting = list(requests)
        step = 0
        while self.waiting or self.running:
            step += 1
            if step % PREEMPT_EVERY == 0 and len(self.running) > 1:
                self._preempt(self.running[-1])
            for request in list(self.running):
                if (state := (request.number, len(request.output))) in self.preempt_at:
                    self.preempt_at.remove(state)
                    self._preempt(request)
            self._admit()
            self._step(step)
        assert not self.preempt_at
        return [request.output for request in requests]

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.free.append(request.slot)
        request.slot, request.computed = None, 0
        self.waiting.insert(0, request)

    def _admit(self) -> None:
        while self.free and self.waiting:
            request = self.waiting.pop(0)
            slot = request.slot = self.free.pop()
            self.running.append(request)
            self.tokens.np[slot] = -1  # what a slot had before is nobody's to read
            self.tokens.np[slot, : len(request.tokens)] = request.tokens
            self.lengths["prompt_len"].np[slot] = request.prompt
            self.lengths["prefill_len"].np[slot] = len(request.tokens)
            self.lengths["total_len"].np[slot] = len(request.tokens)
            for processor in self.processors:
                processor.add_request(slot, request.params)
        for buffer in (self.tokens, *self.lengths.values()):
            buffer.copy()
        for processor in self.processors:
            processor.apply_staged_writes()

    def _step(self, step: int) -> None:
        batch = random.Random(step).sample(self.running, len(self.running))
        for request in batch:
            request.computed = min(request.computed + CHUNK, len(request.tokens))
        logits = torch.stack([self.logits(request) for request in batch]).float()
        context = self._context(
            torch.tensor([request.slot for request in batch]),
            torch.tensor([request.tokens[request.computed - 1] for request in batch]),
            torch.tensor([request.computed - 1 for request in batch]),
        )
        for processor in self.processors:
            logits = processor.apply(logits, context)
        for request, row in zip(batch, logits, strict=True):
            if request.computed == len(request.tokens):
                self._accept(request, row)

    def _accept(self, request: Request, row: torch.Tensor) -> None:
        self.adapted.setdefault(request.number, []).append(row.clone())
        self.tokens.np[request.slot, len(request.tokens)] = row.argmax()
        request.tokens.append(int(row.argmax()))
        self.lengths["total_len"].np[request.slot] += 1
        if request.finished:
            self.running.remove(request)
            self.free.append(request.slot)

    def _context(self, slots: torch.Tensor, tokens: torch.Tensor, pos: torch.Tensor) -> object:
        return self.interface.LogitsContext(
            expanded_idx_mapping=slots.int(),
            idx_mapping=slots.int(),
            idx_mapping_np=slots.numpy(),
            expanded_local_pos=torch.zeros_like(slots),
            input_ids=tokens.int(),
            pos=pos,
            seq_lens_upper_bound_np=(pos + 1).numpy(),
        )


class LLM:
    """What `vllm.LLM` is to our worker."""

    def __init__(
        self,
        model: str,
        dtype: str,
        max_num_seqs: int,
        max_model_len: int,
        skip_tokenizer_init: bool,
        generation_config: str,
        load_format: str,
        enable_prefix_caching: bool,
        seed: int,
        logits_processors: Sequence[type] = (),
        additional_config: dict | None = None,
    ) -> None:
        print("noise on standard output")
        assert os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "1"
        assert generation_config == "vllm", "the folder's sampling settings would count"
        self.failure = os.environ.get(FAILURE)
        if self.failure:
            return
        from transformers import AutoModelForCausalLM

        language_model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)

        @torch.inference_mode()
        def logits(request: Request) -> torch.Tensor:
            ids = torch.tensor([request.tokens[: request.computed]])
            return language_model(input_ids=ids, use_cache=False).logits[0, -1]

        config = SimpleNamespace(additional_config=additional_config)
        self.runner = Runner(
            lambda state: [processor(config, state) for processor in logits_processors],
            logits,
            slots=max_num_seqs,
            context=max_model_len,
            vocabulary=language_model.config.vocab_size,
        )

    def generate(
        self, prompts: list[dict], params: list[SamplingParams], use_tqdm: Callable
    ) -> list[SimpleNamespace]:
        if self.failure == "dies":
            print("CUDA error: an illegal memory access was encountered")
            sys.stdout.flush()
            os._exit(3)
        if self.failure == "hangs":
            import time

            time.sleep(600)
        assert all(its.temperature == 0 and its.ignore_eos for its in params)
        bar = use_tqdm(total=len(prompts), desc="Processed prompts")
        replies = self.runner.run([prompt["prompt_token_ids"] for prompt in prompts], params)
        bar.update(len(prompts))
        bar.close()
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)]) for ids in replies]
