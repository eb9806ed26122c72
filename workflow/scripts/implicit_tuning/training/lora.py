"""Low-rank adapters in a model, through peft."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from implicit_tuning.training.settings import LoraSettings


def add_adapters(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PeftModel:
    """Freeze a model and put adapters into it that change nothing yet; only they train.

    `seed` decides the adapters' random halves.

    Raises:
        ValueError: a name of `target_modules` is that of no linear layer.
    """
    targets: str | list[str]
    if isinstance(settings.target_modules, str):
        targets = settings.target_modules
    else:
        _require_layers(model, settings.target_modules)
        targets = list(settings.target_modules)
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    return get_peft_model(model, config)


def merge_adapters(model: PeftModel) -> PreTrainedModel:
    """The model with what its adapters learnt in its own weights."""
    return model.merge_and_unload()


def _require_layers(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    # peft passes over a name that matches nothing as long as another one does.
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
    }
    if unknown := [target for target in targets if target not in linear]:
        raise ValueError(
            f"lora.target_modules has {', '.join(map(repr, unknown))}, but the linear layers of "
            f"this base are {', '.join(sorted(linear))}: choose among them"
        )
