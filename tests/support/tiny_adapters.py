"""Adapters that peft trained on a tiny model."""

import json

import torch
from peft import (
    get_peft_model,
)

from implicit_tuning.models.folder import load_model


def train(base, config, folder, model=None):
    """An adapter as peft saves it, with something in it."""
    adapted = get_peft_model(model or load_model(base, "float32", "eager"), config)
    torch.manual_seed(1)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return folder


def change(adapter, **keys):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
