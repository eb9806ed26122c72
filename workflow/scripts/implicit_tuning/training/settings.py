"""Hyper-parameters of a fine-tuning run, and what is refused before it costs anything."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from implicit_tuning.training.weighting import Weighting

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (Hu et al., 2021) on a frozen base.

    `alpha / rank` scales what the adapters add. `target_modules` are names of linear layers as the
    architecture has them ("q_proj"), or "all-linear": all but the head.
    """

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...] | str


@dataclass(frozen=True)
class TrainingSettings:
    """Hyper-parameters of a run.

    `batch_examples` is the number of examples an update averages over, whatever the number of
    processes (`world_size`); `micro_batch_tokens` is how many tokens a process computes at once
    (memory and speed only). `warmup_fraction` is a share of all updates. `gradient_clip` is the
    largest global norm of a gradient; the authors do not clip. Trained weights and AdamW moments
    are fp32; `storage_dtype` is that of the checkpoint on disk. `sharding` is how several
    processes hold the model: "none" has it whole in each. `lora` trains adapters on a frozen base
    and merges them into the checkpoint.
    """

    learning_rate: float
    epochs: int
    batch_examples: int
    micro_batch_tokens: int
    max_length: int
    schedule: Literal["linear", "cosine"]
    warmup_fraction: float
    weight_decay: float
    weighting: Weighting
    gradient_clip: float | None
    compute_dtype: Literal["float32", "bfloat16"]
    storage_dtype: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    attention: Literal["sdpa", "eager", "varlen"]
    activation_checkpointing: bool
    world_size: int
    sharding: Literal["none", "fsdp", "zero3"]
    lora: LoraSettings | None

    @classmethod
    def from_json(cls, values: Mapping) -> "TrainingSettings":
        """Settings from the plain values of a config or of `dataclasses.asdict`."""
        lora = values["lora"]
        if lora is not None:
            targets = lora["target_modules"]
            targets = targets if isinstance(targets, str) else tuple(targets)
            lora = LoraSettings(**{**lora, "target_modules": targets})
        return cls(**{**values, "lora": lora})


def require_usable(settings: TrainingSettings) -> None:
    """Check what can be known before the model is loaded.

    Raises:
        ValueError: names the key, its value and what to set instead.
    """
    for key in ("epochs", "batch_examples", "micro_batch_tokens", "world_size"):
        if getattr(settings, key) < 1:
            raise ValueError(f"{key} is {getattr(settings, key)}: set it to at least 1")
    _require_processes(settings)
    _require_devices(settings)
    if settings.lora is not None:
        _require_lora(settings.lora)


def _require_processes(settings: TrainingSettings) -> None:
    sharding = settings.sharding
    if sharding == "none":
        return
    if settings.device == "cpu":
        raise ValueError(f"sharding {sharding!r} needs device 'cuda', not 'cpu': set it to 'none'")
    if settings.world_size == 1:
        raise ValueError(
            f"sharding {sharding!r} needs several processes, but world_size is 1: raise world_size "
            "or set sharding to 'none'"
        )
    if sharding == "zero3" and importlib.util.find_spec("deepspeed") is None:
        raise ValueError(
            "sharding 'zero3' needs DeepSpeed, which is not installed: run 'pip install "
            "deepspeed', or set sharding to 'fsdp'"
        )


def _require_devices(settings: TrainingSettings) -> None:
    if settings.attention == "varlen" and settings.device == "cpu":
        raise ValueError("attention 'varlen' does not run on device 'cpu': set it to 'sdpa'")
    if settings.attention == "varlen" and settings.compute_dtype == "float32":
        raise ValueError(
            "attention 'varlen' does not compute in float32: set compute_dtype to 'bfloat16' or "
            "attention to 'sdpa'"
        )
    if settings.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no GPU here: set device to 'cpu'")
    if settings.world_size > torch.cuda.device_count():
        raise ValueError(
            f"world_size is {settings.world_size}, but torch sees {torch.cuda.device_count()} "
            "GPUs here: lower world_size or ask for more GPUs"
        )


def _require_lora(lora: LoraSettings) -> None:
    if lora.rank < 1:
        raise ValueError(f"lora.rank is {lora.rank}: set it to at least 1")
    named = not isinstance(lora.target_modules, str)
    if (named and not lora.target_modules) or (not named and lora.target_modules != ALL_LINEAR):
        raise ValueError(
            f"lora.target_modules is {lora.target_modules!r}: give a list of names of linear "
            f"layers, or {ALL_LINEAR!r}"
        )
