"""A peft adapter and its base as one model folder, which is read like any other from there on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.models.adapters import (
    WEIGHTS_FILE,
    UnusableAdapter,
    named_base,
    read_adapter,
    require_base,
    require_same_weights,
)
from implicit_tuning.models.folder import TOKENIZER_FILES, load_model, load_tokenizer

TEMPLATE_FILE = "chat_template.jinja"
# What peft puts before the name of each of the base's modules.
PREFIX = "base_model.model."
# How far logits of a short text may move by rounding, as a share of the largest.
PROBE_TOKENS = 8
TOLERANCE = 1e-3
# Of embeddings that were resized and trained as a whole peft also saves these parts, and reads none.
WRITTEN_TWICE = {"modules_to_save", "original_module"}


@dataclass(frozen=True)
class MergeReport:
    """What was merged.

    `trained_on` is the base as the adapter names it ("" for no name); `tokenizer_of` and
    `template_of` say whose they are, "adapter" or "base" ("" for no template).
    """

    kind: str
    trained_on: str
    tokenizer_of: str
    template_of: str


def merge(
    base: Path,
    adapter: Path,
    destination: Path,
    dtype: Literal["float32", "bfloat16"],
    repo: str | None,
) -> MergeReport:
    """Merge an adapter into its base, in float32, and write a complete model folder.

    `adapter` is a folder as peft saves it. `repo` is owner/name of the base, None for a base that
    is not from the hub.

    Raises:
        UnusableAdapter: the adapter cannot be merged, or was trained on another base.
        ValueError: the base's folder lacks a file.
    """
    config = read_adapter(adapter)
    require_base(config, repo)
    require_same_weights(config, base)
    trained_on = named_base(config)
    tokenizer, tokenizer_of, template_of = _tokenizer(base, adapter)
    # Only a short text is read here, so that any attention will do.
    model = load_model(base, "float32", "eager")
    ends = model.generation_config.eos_token_id
    merged = _merged(model, adapter)
    merged.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if ends is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    merged.to(getattr(torch, dtype)).save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    print(f"merged: {config['peft_type']} trained on {trained_on or 'a base without a name'}")
    return MergeReport(config["peft_type"], trained_on, tokenizer_of, template_of)


def _tokenizer(base: Path, adapter: Path) -> tuple[PreTrainedTokenizerBase, str, str]:
    """The tokenizer with its chat template, and whose they are: the adapter's where it has them."""
    own = any((adapter / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = load_tokenizer(adapter if own else base)
    tokenizer_of = template_of = "adapter" if own else "base"
    if (adapter / TEMPLATE_FILE).is_file():
        tokenizer.chat_template = (adapter / TEMPLATE_FILE).read_text(encoding="utf-8")
        template_of = "adapter"
    elif own and tokenizer.chat_template is None:
        tokenizer.chat_template = load_tokenizer(base).chat_template
        template_of = "base"
    return tokenizer, tokenizer_of, template_of if tokenizer.chat_template else ""


def _merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    _fit_embeddings(model, load_file(adapter / WEIGHTS_FILE))
    try:
        adapted = PeftModel(model, PeftConfig.from_pretrained(str(adapter)))
        mapping = getattr(model, "_checkpoint_conversion_mapping", {})
        found = adapted.load_adapter(
            str(adapter), "default", torch_device="cpu", key_mapping=mapping
        )
        misfits = [key for key in found.unexpected_keys if not WRITTEN_TWICE & set(key.split("."))]
        misfits += found.missing_keys
        if not misfits:
            return _merge_exactly(adapted.eval())
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        misfits = [" ".join(str(error).split())[:300]]
    raise UnusableAdapter(
        f"the adapter in {adapter} does not fit its base, {model.name_or_path}: {misfits[0]}; give "
        "the base that it was trained on"
    )


def _fit_embeddings(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    """Give the model as many tokens as the adapter brings whole embeddings of (tokens were added
    before training), and embeddings of their own to both ends if it changes one of two that are
    shared."""
    ends = {model.get_input_embeddings(), model.get_output_embeddings()}
    names = [f"{PREFIX}{name}." for name, module in model.named_modules() if module in ends]
    if model.config.tie_word_embeddings and any(key.startswith(tuple(names)) for key in weights):
        model.config.tie_word_embeddings = False
        output = model.get_output_embeddings()
        output.weight = torch.nn.Parameter(output.weight.detach().clone())
    rows = model.get_input_embeddings().weight.shape[0]
    brought = [len(weights[f"{name}weight"]) for name in names if f"{name}weight" in weights]
    if brought and brought[0] != rows:
        model.resize_token_embeddings(brought[0], mean_resizing=False)


@torch.inference_mode()
def _merge_exactly(adapted: PeftModel) -> PreTrainedModel:
    """Merge, and see that a text's logits are what they were.

    Raises:
        ValueError: they are not, or a weight is not finite.
    """
    text = torch.arange(PROBE_TOKENS)[None]
    before = adapted(input_ids=text).logits
    merged = adapted.merge_and_unload(safe_merge=True)
    after = merged(input_ids=text).logits
    if not (before - after).abs().max() <= TOLERANCE * before.abs().max():
        raise ValueError("merged, it does something else than beside the base")
    return merged
