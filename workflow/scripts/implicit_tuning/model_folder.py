"""Loading a model and its tokenizer from a local folder in the Hugging Face layout."""

from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# Only safetensors: pickled weights (.bin) could run code.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


class IncompleteModelFolder(ValueError):
    """A model folder lacks a file; the message names both."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Raises IncompleteModelFolder where there is no tokenizer."""
    _require(folder, "tokenizer", TOKENIZER_FILES)
    return AutoTokenizer.from_pretrained(folder)


def load_model(folder: Path, dtype: str, attention: str) -> PreTrainedModel:
    """A causal language model on the CPU, its parameters in `dtype` ("float32", "bfloat16").

    Raises IncompleteModelFolder where configuration or weights are missing.
    """
    _require(folder, "configuration", ("config.json",))
    _require(folder, "weights", WEIGHT_FILES)
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attention,
        use_safetensors=True,
        local_files_only=True,
    )


def _require(folder: Path, what: str, names: tuple[str, ...]) -> None:
    if not any((Path(folder) / name).is_file() for name in names):
        raise IncompleteModelFolder(
            f"{folder} is no complete model folder: it has no {what} ({' or '.join(names)}). "
            "Put the file there, or point the base at a folder that has it"
        )
