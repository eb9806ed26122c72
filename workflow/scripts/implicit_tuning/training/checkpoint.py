"""From a base to the model that is trained, and from that to a checkpoint on disk."""

from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from implicit_tuning.models.folder import load_model
from implicit_tuning.training.lora import add_adapters, merge_adapters
from implicit_tuning.training.micro_batches import attention_implementation
from implicit_tuning.training.settings import TrainingSettings
from implicit_tuning.training.sharding import trained_parameters, whole_weight


class Diverged(ValueError):
    """A loss or a weight is not finite."""


def load_trainable(base: Path, seed: int, settings: TrainingSettings) -> PreTrainedModel:
    """The base on the CPU in fp32, with what the settings put around it for training.

    `seed` decides the adapters that `settings.lora` asks for.

    Raises:
        ValueError: the base lacks a file, or has no layer of a name in `lora.target_modules`.
    """
    attention = attention_implementation(settings.attention, settings.device)
    model = _load(base, seed, settings, attention)
    if settings.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def write_checkpoint(
    model: PreTrainedModel,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    destination: Path,
    seed: int,
    settings: TrainingSettings,
    accelerator: Accelerator,
) -> None:
    """Write a complete model folder; adapters are merged into the weights.

    The trained parameters move one by one into a copy of the base on the CPU, so that there is
    never a second copy of the model on a GPU. All processes call it; the first one writes.

    Raises:
        Diverged: a weight is not finite; nothing is written.
    """
    writes = accelerator.is_main_process
    copy = _load(base, seed, settings, "sdpa") if writes else None
    targets = dict(trained_parameters(copy)) if copy is not None else {}
    for name, parameter in trained_parameters(model):
        weight = whole_weight(parameter)
        _require_finite(name, weight, settings.learning_rate)
        if writes:
            targets[name].data.copy_(weight)
    if copy is not None:
        merged = copy if settings.lora is None else merge_adapters(copy)
        _save(merged.to(getattr(torch, settings.storage_dtype)), tokenizer, destination)
    accelerator.wait_for_everyone()


def _load(base: Path, seed: int, settings: TrainingSettings, attention: str) -> PreTrainedModel:
    model = load_model(base, "float32", attention)
    return model if settings.lora is None else add_adapters(model, settings.lora, seed)


def _require_finite(name: str, weight: torch.Tensor, learning_rate: float) -> None:
    # The last update has no loss after it that would show where it led.
    if not torch.isfinite(weight).all():
        raise Diverged(
            f"the last update left {name} with values that are not finite, at peak learning "
            f"rate {learning_rate:g}: lower learning_rate or set gradient_clip"
        )


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, destination: Path) -> None:
    # The base's generation settings (sampling, penalties) are not carried over: with them, plain
    # `generate` would not be greedy, and it would stop at another token than the trained one.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
