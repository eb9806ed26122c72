"""Loading a model and its tokenizer from a local folder in the Hugging Face layout."""

from collections.abc import Iterable, Sequence
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
    """A model folder lacks a file or a weight, or holds no causal language model; the message names
    both."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Raises IncompleteModelFolder where there is no tokenizer."""
    _require(folder, "tokenizer", TOKENIZER_FILES)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_model(folder: Path, dtype: str, attention: str) -> PreTrainedModel:
    """A causal language model on the CPU, its parameters in `dtype` ("float32", "bfloat16").

    Raises IncompleteModelFolder where configuration or weights are missing, or are those of something
    else.
    """
    _require(folder, "configuration", ("config.json",))
    _require(folder, "weights", WEIGHT_FILES)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise IncompleteModelFolder(
            f"{folder} cannot be loaded as a causal language model: {reason}"
        ) from error
    if missing := sorted(found["missing_keys"]):
        # They would be random numbers.
        raise IncompleteModelFolder(
            f"{folder} lacks weights of a causal language model, such as {missing[0]}: give a model "
            "that was trained to write text"
        )
    return model


def require_known_tokens(texts: Iterable[Sequence[int]], model: PreTrainedModel) -> None:
    """Raises ValueError where the tokenizer knows more tokens than the model, and one of them stands
    in a text (token ids)."""
    known = model.get_input_embeddings().weight.shape[0]
    highest = max((max(ids) for ids in texts if ids), default=0)
    if highest >= known:
        raise ValueError(
            f"the tokenizer in {model.name_or_path} has a token {highest}, and the model knows {known} "
            "only: put the tokenizer there that the model was trained with"
        )


def _require(folder: Path, what: str, names: tuple[str, ...]) -> None:
    if not any((Path(folder) / name).is_file() for name in names):
        raise IncompleteModelFolder(
            f"{folder} is no complete model folder: it has no {what} ({' or '.join(names)}). "
            "Put the file there, or point the base at a folder that has it"
        )
