"""vLLM as an engine: a process in vLLM's own environment, which pins another torch than ours.

Prompts and answers go through files, as token ids; both are made into text here.

Untested on a GPU: see `vllm_worker`.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from implicit_tuning.generation.engines import vllm_worker
from implicit_tuning.generation.engines.engine import (
    VLLM_PYTHON,
    GenerationSettings,
    Prompt,
    ending_tokens,
)
from implicit_tuning.models.chat import ChatFormat
from implicit_tuning.models.rule_adapter import RuleSettings
from implicit_tuning.nodes.code import SCRIPTS

LAST_LINES = 20
# Seconds to wait for the rest of what an ended worker printed; a child of its may outlive it.
LAST_WORDS = 10


class VllmEngine:
    """An `Engine` in another process; see `open_engine`."""

    def __init__(self, python: str, job: Mapping[str, Any]) -> None:
        self.context: int | None = job["context"]
        self.ends: tuple[int, ...] = tuple(job["ends"])
        self.requests = 0
        self.folder = TemporaryDirectory(prefix="vllm-")
        file = Path(self.folder.name) / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.process = _start(python, file)
        assert self.process.stdin and self.process.stdout  # pipes
        self.requested, self.replied = self.process.stdin, self.process.stdout
        self.printing = threading.Thread(
            target=self._print, args=(self.process.stderr,), daemon=True
        )
        self.printing.start()
        try:
            self.versions: Mapping[str, str] = self._hear("ready")
        except BaseException:
            self.close()
            raise

    def reply(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each prompt's answer, see `Engine`.

        Raises:
            RuntimeError: the worker ended; with the last lines that it printed.
        """
        self.requests += 1
        file = Path(self.folder.name) / f"{self.requests}.jsonl"
        items = [{"input_ids": prompt.input_ids, "room": prompt.room} for prompt in prompts]
        file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        with contextlib.suppress(BrokenPipeError):  # if it ended, `_hear` reports it
            self.requested.write(f"{file}\n")
            self.requested.flush()
        answers = Path(self._hear("answered"))
        return [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]

    def close(self) -> None:
        """End the worker, which frees the GPU."""
        self.process.kill()
        self.process.wait()
        self.printing.join(LAST_WORDS)
        with contextlib.suppress(BrokenPipeError):  # of a request that it did not live to read
            self.requested.close()
        self.replied.close()
        self.folder.cleanup()

    def _hear(self, kind: str) -> Any:
        line = self.replied.readline()
        if not line:
            status = self.process.wait()
            self.printing.join(LAST_WORDS)
            last = "\n".join(self.last_lines)
            raise RuntimeError(f"the vLLM worker ended with status {status}; it printed\n{last}")
        message = json.loads(line)
        if "refused" in message:
            raise ValueError(message["refused"])
        return message[kind]

    def _print(self, lines: IO[str]) -> None:
        """Show what the worker prints, its progress too, as this process's own."""
        for line in lines:
            self.last_lines.append(line.rstrip("\n"))
            print(line, end="", file=sys.stderr)


def open_engine(
    model: Path,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    settings: GenerationSettings,
    rules: RuleSettings | None,
    runtime: Mapping[str, Any],
) -> VllmEngine:
    """Start the worker, and wait until it has loaded the model.

    `runtime["vllm_python"]`, else the variable IMPLICIT_TUNING_VLLM_PYTHON, is its interpreter.

    Raises:
        ValueError: device is not "cuda", there is no interpreter, or its environment has no vLLM,
            another version of it, or no GPU.
        RuntimeError: the worker ended; with the last lines that it printed.
    """
    if settings.device != "cuda":
        raise ValueError(
            f"generation.device is {settings.device!r}, but engine 'vllm' needs 'cuda': set device "
            "to 'cuda', or engine to 'transformers'"
        )
    python = runtime.get("vllm_python") or os.environ.get(VLLM_PYTHON)
    if not python:
        raise ValueError(
            "engine 'vllm' needs the interpreter of an environment made from environment-vllm.yml: "
            f"set runtime.vllm_python, or {VLLM_PYTHON}, to its path"
        )
    config = AutoConfig.from_pretrained(model, local_files_only=True)
    asked = None
    if rules is not None:
        asked = {"tokenizer": str(model), "rules": asdict(rules), "chat": asdict(chat_format)}
    job = {
        "model": str(model),
        "dtype": settings.dtype,
        "batch_size": settings.batch_size,
        "context": getattr(config, "max_position_embeddings", None),
        "ends": list(ending_tokens(model, tokenizer, chat_format)),
        "rules": asked,
    }
    return VllmEngine(str(python), job)


def _start(python: str, file: Path) -> subprocess.Popen[str]:
    # -P: without the folder that the job runs in. Of this environment it sees our package alone.
    command = [python, "-P", "-m", vllm_worker.__name__, str(file)]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        )
    except OSError as error:
        raise ValueError(
            f"runtime.vllm_python is {python!r}, which cannot be run ({error.strerror}): give the "
            "interpreter of an environment made from environment-vllm.yml"
        ) from None
