import importlib.util
from dataclasses import asdict, replace

import pytest
import torch

from implicit_tuning.training.settings import LoraSettings, TrainingSettings, require_usable
from training_runs import SETTINGS

GPU = {"device": "cuda", "world_size": 2, "compute_dtype": "bfloat16"}


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"micro_batch_tokens": 0}, "micro_batch_tokens is 0: set it to at least 1"),
        ({"world_size": 0}, "world_size is 0: set it to at least 1"),
        ({"sharding": "fsdp", "world_size": 2}, "sharding 'fsdp' needs device 'cuda', not 'cpu'"),
        ({"attention": "varlen"}, "attention 'varlen' does not run on device 'cpu'"),
        ({"lora": LoraSettings(0, 8, 0.0, "all-linear")}, "lora.rank is 0"),
        ({"lora": LoraSettings(4, 8, 0.0, ())}, r"lora.target_modules is \(\): give a list"),
        ({"lora": LoraSettings(4, 8, 0.0, ".*_proj")}, "lora.target_modules is '.\\*_proj'"),
    ],
)
def test_what_cannot_run_is_refused_with_key_value_and_fix(changes, said):
    with pytest.raises(ValueError, match=said):
        require_usable(replace(SETTINGS, **changes))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda', but torch sees no GPU here"):
        require_usable(replace(SETTINGS, device="cuda"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({**GPU, "world_size": 3}, "world_size is 3, but torch sees 2 GPUs here"),
        ({**GPU, "world_size": 1, "sharding": "fsdp"}, "several processes, but world_size is 1"),
        ({**GPU, "compute_dtype": "float32", "attention": "varlen"}, "not compute in float32"),
        ({**GPU, "sharding": "zero3"}, "'zero3' needs DeepSpeed, which is not installed"),
    ],
)
def test_what_cannot_run_on_gpus_is_refused(two_gpus, monkeypatch, changes, said):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "deepspeed" else found(name)
    )
    with pytest.raises(ValueError, match=said):
        require_usable(replace(SETTINGS, **changes))


def test_what_can_run_is_not_refused(two_gpus):
    for changes in ({}, GPU, {**GPU, "sharding": "fsdp"}, {**GPU, "attention": "varlen"}):
        require_usable(replace(SETTINGS, **changes))


@pytest.mark.parametrize(
    "lora", [None, LoraSettings(4, 8.0, 0.0, "all-linear"), LoraSettings(4, 8.0, 0.0, ("q_proj",))]
)
def test_settings_survive_json(lora):
    settings = replace(SETTINGS, lora=lora)
    plain = asdict(settings)
    if lora is not None and isinstance(lora.target_modules, tuple):
        plain["lora"]["target_modules"] = list(lora.target_modules)
    assert TrainingSettings.from_json(plain) == settings
