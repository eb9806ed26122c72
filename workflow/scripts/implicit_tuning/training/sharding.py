"""Processes that train one model together, and whole tensors out of what they hold in parts.

Which processes there are is the launcher's business (`distributed`). What decides a result, such as
precision and clipping, is set here, so that it stands in a node's key; the launcher's files in
config/accelerate only say how memory is used.
"""

import importlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedDataParallelKwargs,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch import distributed
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional
from transformers.integrations import unset_hf_deepspeed_config

from implicit_tuning.training.micro_batches import PackedLoss
from implicit_tuning.training.settings import TrainingSettings

# Longer than the first process takes to write a 7B state to a slow disk while the others wait.
# A process that died is the launcher's to find.
WAIT = timedelta(hours=2)


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """The accelerator of this process.

    Raises:
        RuntimeError: the processes are not those that the settings ask for.
    """
    accelerator = Accelerator(
        cpu=settings.device == "cpu",
        mixed_precision="bf16" if settings.compute_dtype == "bfloat16" else "no",
        dynamo_backend="no",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=WAIT),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        ],
        fsdp_plugin=fsdp_plugin(settings) if settings.sharding == "fsdp" else None,
        deepspeed_plugin=zero3_plugin(settings) if settings.sharding == "zero3" else None,
    )
    _require_processes(accelerator, settings)
    _require_device(accelerator, settings)
    return accelerator


def _require_processes(accelerator: Accelerator, settings: TrainingSettings) -> None:
    found = accelerator.num_processes, accelerator.distributed_type
    if settings.sharding != "none":
        expected = (
            DistributedType.FSDP if settings.sharding == "fsdp" else DistributedType.DEEPSPEED
        )
    elif settings.world_size == 1:
        expected = DistributedType.NO
    else:
        cpu = settings.device == "cpu"
        expected = DistributedType.MULTI_CPU if cpu else DistributedType.MULTI_GPU
    if found != (settings.world_size, expected):
        raise RuntimeError(
            f"world_size is {settings.world_size} and sharding {settings.sharding!r}, but there "
            f"are {found[0]} processes of type {found[1].value}: run the finetune rule, which "
            "starts them"
        )


def _require_device(accelerator: Accelerator, settings: TrainingSettings) -> None:
    """Refuse what the environment, or an earlier accelerator of this process, put in place of it."""
    found = (accelerator.device.type, accelerator.gradient_accumulation_steps)
    if found != (settings.device, 1):
        raise RuntimeError(
            f"device is {settings.device!r}, but accelerate takes {found[0]!r} and accumulates over "
            f"{found[1]} steps: unset the ACCELERATE_* variables of the environment"
        )


def fsdp_plugin(settings: TrainingSettings) -> FullyShardedDataParallelPlugin:
    """FSDP2 as the launcher's file has it, with the precision of the settings.

    Gradients are summed in fp32. Inputs are not cast: the weights of the loss are among them.
    """
    dtype = getattr(torch, settings.compute_dtype)
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    return FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy=policy)


def zero3_plugin(settings: TrainingSettings) -> DeepSpeedPlugin:
    """DeepSpeed ZeRO-3 as the launcher's file has it, with what the settings say.

    Parameters stay fp32 and the model computes under autocast, as without sharding: DeepSpeed's
    own bf16 mode would round the base to bf16 before its fp32 copy is made. No key is left to
    accelerate, which would clip gradients at 1.
    """
    plugin = DeepSpeedPlugin(gradient_accumulation_steps=1)
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": 1,  # rows a call: of examples, as many as fit
        "gradient_clipping": settings.gradient_clip or 0.0,
        "bf16": {"enabled": False},
        "torch_autocast": {
            "enabled": settings.compute_dtype == "bfloat16",
            "dtype": settings.compute_dtype,
        },
    }
    return plugin


def prepare(
    accelerator: Accelerator, loss: PackedLoss, optimizer: torch.optim.Optimizer
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The loss and the optimizer as the processes share them."""
    if accelerator.distributed_type == DistributedType.FSDP:
        # accelerate asks the module that it shards what only the model in it knows.
        loss._no_split_modules = loss.model._no_split_modules
        loss.tie_weights = loss.model.tie_weights
    prepared = accelerator.prepare(loss, optimizer)
    # Models that are loaded from here on are whole: transformers shards what it loads under ZeRO-3.
    unset_hf_deepspeed_config()
    return prepared


def trained_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of what is trained: all, or the adapters of a frozen base."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


# --- whole tensors ------------------------------------------------------------------------------

ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")  # of each parameter, as torch names them


def whole_weight(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A trained parameter in fp32, gathered from the processes that hold it; all call this."""
    if _is_zero3(parameter):
        return _zero3().safe_get_full_fp32_param(parameter)
    return _whole(parameter.detach())


def whole_state(
    parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, updates: int
) -> dict[str, torch.Tensor]:
    """The "weight" of a parameter and its AdamW state, gathered; all processes call this."""
    if _is_zero3(parameter):
        moment = _zero3().safe_get_full_optimizer_state
        state = {key: moment(parameter, key) for key in ADAMW_STATE[1:]}
        state["step"] = torch.tensor(float(updates))
    else:
        state = {key: _whole(optimizer.state[parameter][key]) for key in ADAMW_STATE}
    return {"weight": whole_weight(parameter), **state}


def restore(
    parameter: torch.nn.Parameter,
    optimizer: torch.optim.Optimizer,
    tensor: Callable[[str], torch.Tensor],
) -> None:
    """Set a parameter and its AdamW state to whole tensors, named as `whole_state` names them."""
    if _is_zero3(parameter):
        _restore_zero3(parameter, optimizer, tensor)
        return
    with torch.no_grad():
        parameter.copy_(_part(parameter, tensor("weight")))
    optimizer.state[parameter] = {key: _part(parameter, tensor(key)) for key in ADAMW_STATE}


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _part(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor, on the parameter's device."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor) or tensor.dim() == 0:
        return tensor
    # Every process has read the whole, none has to send.
    return distribute_tensor(
        tensor, parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def _is_zero3(parameter: torch.nn.Parameter) -> bool:
    return hasattr(parameter, "ds_id")


def _zero3() -> ModuleType:
    # DeepSpeed is no dependency: only who asks for it has it.
    return importlib.import_module("deepspeed.utils")


def _restore_zero3(
    parameter: Any,  # DeepSpeed's attributes are on both
    optimizer: Any,
    tensor: Callable[[str], torch.Tensor],
) -> None:
    _make_zero3_state(optimizer.optimizer, tensor("step"))
    held = parameter.ds_tensor

    def part(key: str) -> torch.Tensor:
        whole = tensor(key).flatten()
        padding = held.numel() * distributed.get_world_size() - whole.numel()
        start = held.numel() * distributed.get_rank()
        return functional.pad(whole, (0, padding))[start : start + held.numel()].to(held.device)

    held.data.copy_(part("weight"))
    # DeepSpeed's optimizer has a copy of its own.
    _zero3().safe_set_local_fp32_param(parameter, part("weight"))
    for key in ADAMW_STATE[1:]:
        _zero3().safe_set_local_optimizer_state(parameter, part(key), key)


def _make_zero3_state(optimizer: Any, step: torch.Tensor) -> None:
    # DeepSpeed has AdamW see flat groups of parameters, whose state the first update would make.
    for group in optimizer.fp32_partitioned_groups_flat:
        state = optimizer.optimizer.state[group]
        if not state:
            state["step"] = step.to(group.device)
            state |= {key: torch.zeros_like(group) for key in ADAMW_STATE[1:]}
