"""Greedy answers of a model to sets of instructions, by one of the engines."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from transformers import PreTrainedTokenizerBase

from implicit_tuning.generation import engines
from implicit_tuning.generation.engines.engine import Engine, GenerationSettings, Prompt
from implicit_tuning.models.chat import ChatFormat, require_prompts, tokenize_prompt
from implicit_tuning.models.folder import load_tokenizer
from implicit_tuning.models.rule_adapter import RuleAdapter, RuleSettings

OUTPUTS_FILE = "outputs.jsonl"


@dataclass(frozen=True)
class GenerationReport:
    """Counts over the answers. `n_tokens` has what ends each answer (EOS) in it.

    `n_length` answers were cut at `max_new_tokens` or at the end of the model's context.
    `resolved_pieces` and `unresolved_pieces` are the token-bias rule's, empty without it.
    `engine_versions` are those of an engine's own environment, empty for transformers.
    """

    n: int
    n_empty: int
    n_eos: int
    n_length: int
    n_tokens: int
    resolved_pieces: dict[str, int]
    unresolved_pieces: tuple[str, ...]
    engine_versions: dict[str, str]


def generate(
    model: Path,
    instructions: Path,
    destination: Path,
    generator: str,
    chat_format: ChatFormat,
    settings: GenerationSettings,
    rules: RuleSettings | None,
    runtime: Mapping[str, object] | None = None,
) -> GenerationReport:
    """Answer one file of instructions: an `Answerer` for one use, see there."""
    with Answerer(model, chat_format, settings, rules, runtime) as answerer:
        return answerer.answer(instructions, destination, generator)


class Answerer:
    """A model, loaded once, that answers any number of files of instructions.

    Used in a `with` statement, which ends what the engine started. In `runtime`, "vllm_python" is
    the interpreter of vLLM's environment, a path or None. Each answer begins with the tokens
    `start`: the model is given them behind the prompt.

    Raises:
        ValueError: the model folder lacks a file, no prompt can be made in this format, the rules
            do not fit the tokenizer, or the engine cannot run here.
    """

    def __init__(
        self,
        model: Path,
        chat_format: ChatFormat,
        settings: GenerationSettings,
        rules: RuleSettings | None,
        runtime: Mapping[str, object] | None = None,
    ) -> None:
        self.chat_format = chat_format
        self.settings = settings
        self.start: list[int] = []
        self.tokenizer = load_tokenizer(model)
        require_prompts(self.tokenizer, chat_format)
        self.adapter = None
        if rules is not None:
            self.adapter = RuleAdapter(self.tokenizer, **asdict(rules), chat_format=chat_format)
        # By name, not by an import statement: keys are read off import statements, and an engine
        # belongs only into the keys of its own answers.
        module = importlib.import_module(f"{engines.__name__}.{settings.engine}_engine")
        self.engine: Engine = module.open_engine(
            model, self.tokenizer, chat_format, settings, rules, runtime or {}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.engine.close()

    def answer(self, instructions: Path, destination: Path, generator: str) -> GenerationReport:
        """Answer every instruction and write `destination/outputs.jsonl`, in order of the index.

        Each line is `{"index", "instruction", "output", "generator", "n_tokens", "finish"}`;
        "finish" is "eos" (any token that ends an answer) or "length". An empty output is one that
        the model gave: whatever fails, raises. `instructions` has lines `{"index": int,
        "instruction": str, ...}`.

        Raises:
            ValueError: there are no instructions, an index is there twice, or a prompt fills the
                model's context.
        """
        prompts = self._read_prompts(instructions)
        replies = self.engine.reply(prompts)
        outputs = [
            _output(prompt, [*self.start, *reply], self.tokenizer, self.engine.ends, generator)
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        outputs.sort(key=lambda output: output["index"])
        destination.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps(output, sort_keys=True, ensure_ascii=False) + "\n" for output in outputs
        ]
        (destination / OUTPUTS_FILE).write_text("".join(lines), encoding="utf-8")
        return self._report(outputs)

    def _read_prompts(self, instructions: Path) -> list[Prompt]:
        with instructions.open(encoding="utf-8") as lines:
            items = [json.loads(line) for line in lines]
        if not items or len({item["index"] for item in items}) < len(items):
            raise ValueError(f"{instructions} must hold at least one instruction, each index once")
        return [self._prompt(item["index"], item["instruction"], instructions) for item in items]

    def _prompt(self, index: int, instruction: str, origin: Path) -> Prompt:
        input_ids = tokenize_prompt(instruction, self.tokenizer, self.chat_format) + self.start
        context = self.engine.context
        room = self.settings.max_new_tokens - len(self.start)
        if context is not None:
            room = min(room, context - len(input_ids))
        if room < 1:
            raise ValueError(
                f"instruction {index} of {origin} makes a prompt of {len(input_ids)} tokens, which "
                f"leaves no room for an answer in the model's context of {context}: shorten it or "
                "leave it out"
            )
        return Prompt(index, instruction, input_ids, room)

    def _report(self, outputs: list[dict]) -> GenerationReport:
        finishes = [output["finish"] for output in outputs]
        return GenerationReport(
            n=len(outputs),
            n_empty=sum(not output["output"] for output in outputs),
            n_eos=finishes.count("eos"),
            n_length=finishes.count("length"),
            n_tokens=sum(output["n_tokens"] for output in outputs),
            resolved_pieces=dict(self.adapter.resolved) if self.adapter else {},
            unresolved_pieces=self.adapter.unresolved if self.adapter else (),
            engine_versions=dict(self.engine.versions),
        )


def _output(
    prompt: Prompt,
    reply: list[int],
    tokenizer: PreTrainedTokenizerBase,
    ends: tuple[int, ...],
    generator: str,
) -> dict:
    ended = reply[-1] in ends
    return {
        "index": prompt.index,
        "instruction": prompt.instruction,
        "output": tokenizer.decode(
            reply[:-1] if ended else reply,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        ),
        "generator": generator,
        "n_tokens": len(reply),
        "finish": "eos" if ended else "length",
    }
