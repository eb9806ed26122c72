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
# Of an embedding that peft saves whole, how it is called behind the name of its module.
WHOLE_WEIGHTS = ("weight", "base_layer.weight")
# How far logits of short texts may move by rounding, as a share of the largest.
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
    # Only short texts are read here, so that any attention will do.
    model = load_model(base, "float32", "eager")
    ends = model.generation_config.eos_token_id
    merged = _merged(model, adapter)
    merged.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if ends is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    merged.to(getattr(torch, dtype)).save_pretrained(destination)
    _require_written(merged, destination, dtype)
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
    _fit_rows(model, load_file(adapter / WEIGHTS_FILE))
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        adapted = PeftModel(model, config)
        mapping = getattr(model, "_checkpoint_conversion_mapping", {})
        found = adapted.load_adapter(
            str(adapter), "default", torch_device="cpu", key_mapping=mapping
        )
        misfits = [key for key in found.unexpected_keys if not WRITTEN_TWICE & set(key.split("."))]
        misfits += found.missing_keys
        if not misfits:
            return _merge_exactly(adapted.eval(), _probe(config, model))
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        misfits = [" ".join(str(error).split())[:300]]
    raise UnusableAdapter(
        f"the adapter in {adapter} does not fit its base, {model.name_or_path}: {misfits[0]}; give "
        "the base that it was trained on"
    )


def _fit_rows(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    """Give the model as many tokens as the adapter brings whole embeddings of: tokens were added
    before training."""
    ends = {model.get_input_embeddings(), model.get_output_embeddings()}
    names = [f"{PREFIX}{name}" for name, module in model.named_modules() if module in ends]
    wholes = [f"{name}.{part}" for name in names for part in WHOLE_WEIGHTS]
    brought = [len(weights[whole]) for whole in wholes if whole in weights]
    if brought and brought[0] != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(brought[0], mean_resizing=False)


def _probe(config: PeftConfig, model: PreTrainedModel) -> torch.Tensor:
    """Short texts, [texts, PROBE_TOKENS], with every token that was trained by itself."""
    trained = getattr(config, "trainable_token_indices", None) or []
    rows = trained.values() if isinstance(trained, dict) else [trained]
    known = model.get_input_embeddings().weight.shape[0]
    tokens = [*range(PROBE_TOKENS), *(token for row in rows for token in row)]
    tokens += range(-len(tokens) % PROBE_TOKENS)  # fills the last text
    return torch.tensor(tokens).clamp(max=known - 1).view(-1, PROBE_TOKENS)


@torch.inference_mode()
def _logits(model: torch.nn.Module, probe: torch.Tensor) -> torch.Tensor:
    return model(input_ids=probe, use_cache=False).logits.float()


def _merge_exactly(adapted: PeftModel, probe: torch.Tensor) -> PreTrainedModel:
    """Merge, and see that the logits are those of peft's own forward pass.

    Raises:
        ValueError: they are not, or a weight is not finite.
    """
    before = _logits(adapted, probe)
    _part_shared_weights(adapted)
    merged = adapted.merge_and_unload(safe_merge=True)
    _share_equal_embeddings(merged)
    if not _differ_by(before, _logits(merged, probe)) <= TOLERANCE:
        raise ValueError("merged, it does something else than beside the base")
    return merged


def _part_shared_weights(model: torch.nn.Module) -> None:
    """Give each layer weights of its own: a change that is merged into one layer would else be one
    of all that share its weights."""
    seen: set[torch.nn.Parameter] = set()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight in seen:
                setattr(module, name, torch.nn.Parameter(weight.detach().clone(), False))
            seen.add(weight)


def _share_equal_embeddings(model: PreTrainedModel) -> None:
    """Embeddings of both ends are shared again, and saved once, if the adapter left them equal."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    shared = last is not None and torch.equal(first.weight, last.weight)
    if shared:
        last.weight = first.weight
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = shared


def _differ_by(before: torch.Tensor, after: torch.Tensor) -> float:
    """The largest difference, as a share of the largest logit."""
    return ((before - after).abs().max() / before.abs().max()).item()


def _require_written(merged: PreTrainedModel, folder: Path, dtype: str) -> None:
    """Read the written folder as jobs will, and compare its weights with those of the model."""
    written = load_model(folder, dtype, "eager").state_dict()
    weights = merged.state_dict()
    misfits = [
        name
        for name in sorted(weights.keys() | written.keys())
        if not (name in weights and name in written and torch.equal(weights[name], written[name]))
    ]
    if misfits:
        raise UnusableAdapter(
            f"{misfits[0]} of {folder} is not what was merged: models of its kind share weights that "
            "the adapter changes apart. Merge the adapter where it was trained, and give that model"
        )
