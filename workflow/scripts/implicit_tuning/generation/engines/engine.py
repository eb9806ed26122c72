"""What an engine is: a loaded model that answers prompts greedily."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from implicit_tuning.models.chat import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Names the interpreter of vLLM's environment where the config does not.
VLLM_PYTHON = "IMPLICIT_TUNING_VLLM_PYTHON"


@dataclass(frozen=True)
class GenerationSettings:
    """How to decode. Greedy text in half precision depends on dtype, batch size and engine, so all
    of them are part of a generation's identity.

    Attributes:
        max_new_tokens: tokens of an answer at most, its EOS included.
        device: kind of device; engine "vllm" runs on "cuda" alone.
        attention: kernel of the engine "transformers"; vLLM chooses its own by GPU and dtype.
        engine: "transformers" is the reference, "vllm" the fast one.
    """

    max_new_tokens: int
    batch_size: int
    dtype: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    attention: Literal["sdpa", "eager"]
    engine: Literal["transformers", "vllm"] = "transformers"


@dataclass(frozen=True)
class Prompt:
    """An instruction as token ids, and the most tokens its answer may have."""

    index: int
    instruction: str
    input_ids: list[int]
    room: int


class Engine(Protocol):
    """A loaded model. Its module opens one by
    `open_engine(model, tokenizer, chat_format, settings, rules, runtime)`.

    `context` is the number of tokens of prompt and answer that the model can hold; None means that
    no limit is known. `ends` are the tokens that end an answer, see `ending_tokens`. `versions` are
    those of the libraries that decide the text and are in another environment than ours.
    """

    context: int | None
    ends: tuple[int, ...]
    versions: Mapping[str, str]

    def reply(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each prompt's answer, up to and with its end or as far as it has room."""
        ...

    def close(self) -> None:
        """End what the engine started."""
        ...


def ending_tokens(
    model: Path, tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat
) -> tuple[int, ...]:
    """The tokens that end an answer: EOS, and under a template of its own whatever else the model
    folder names for that (Gemma ends a turn with another token than its EOS)."""
    named: int | list[int] = []
    if chat_format.own_template:
        files = [model / name for name in ("generation_config.json", "config.json")]
        settings = [
            json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()
        ]
        found = (setting.get("eos_token_id") for setting in settings)
        named = next((ends for ends in found if ends is not None), [])
    others = named if isinstance(named, list) else [named]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *others]))
