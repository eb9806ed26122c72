"""The memory that a job with a model needs at most: on each of its GPUs, or in main memory."""

from collections.abc import Mapping

from implicit_tuning.experiment.costs.workload import BYTES, Work, Workload
from implicit_tuning.nodes.node import Node

# What Python, torch and the rest of a process take.
PROCESS_BYTES = 0.5e9
# fp32 weights, their gradients, and the two moments of AdamW.
TRAINING_BYTES_A_PARAMETER = 16
# Kept for the backward pass in half precision: bytes a token, layer and unit of width (Korthikanti
# et al., 2022, without attention scores); or a layer's input alone where the rest is recomputed.
ACTIVATION_BYTES = 34
# Tokens whose logits are computed at once in training, and bytes of each logit: fp32, its gradient,
# and the log-softmax.
LOGITS_TOKENS, LOGIT_BYTES = 1024, 12


def memory_needed(node: Node, work: Work, workload: Workload) -> float:
    """Bytes of one process of a job at most; none where it loads no model."""
    if not work.engine:
        return 0.0
    settings = node.settings
    if node.stage == "finetune":
        return PROCESS_BYTES + _training(node, settings["training"], workload)
    if node.stage == "merge":  # in float32, a weight at a time
        return PROCESS_BYTES + BYTES["float32"] * workload.shape(node).parameters
    if node.stage == "generate":
        return PROCESS_BYTES + _generating(node, settings["generation"], workload)
    if node.stage == "rank":
        return PROCESS_BYTES + _ranking(node, settings["ranking"], workload)
    model = node.upstream.get("judge") or node.upstream.get("embedding")
    parameters = workload.shape(model).parameters if model else 0.0
    dtype = settings.get("judge", {}).get("dtype", "float32")
    return PROCESS_BYTES + parameters * BYTES[dtype]


def _training(node: Node, training: Mapping, workload: Workload) -> float:
    shape, whole = workload.shape(node), workload.shape(node).parameters
    trained = workload.trained_parameters(node)
    state = TRAINING_BYTES_A_PARAMETER * trained
    if trained != whole:
        state += BYTES["float32"] * whole  # frozen
    width = BYTES[training["compute_dtype"]]
    if training["sharding"] != "none":
        state /= training["world_size"]
    elif width < BYTES["float32"]:
        state += width * whole  # autocast keeps a copy of the weights
    half = width / BYTES["bfloat16"]
    tokens = max(training["micro_batch_tokens"], training["max_length"])
    layer = ACTIVATION_BYTES * half * tokens * shape.width
    activations = layer * shape.layers
    if training["activation_checkpointing"]:
        # Under autocast what goes from layer to layer is fp32; shards compute in half throughout.
        stored = width if training["sharding"] == "fsdp" else BYTES["float32"]
        activations = layer + stored * tokens * shape.width * shape.layers
    return state + activations + LOGIT_BYTES * LOGITS_TOKENS * shape.vocabulary


def _generating(node: Node, decoding: Mapping, workload: Workload) -> float:
    """Weights, and the keys and values of a batch whose answers all have full length; vLLM puts in
    a queue what does not fit, so that one answer is enough."""
    shape = workload.shape(node.upstream["model"])
    prompt = workload.sizes.row_tokens(node.above("instructions"))
    rows = 1 if decoding["engine"] == "vllm" else decoding["batch_size"]
    tokens = rows * (prompt + workload.room(node))
    cache = 2 * shape.layers * shape.kv_width * tokens
    return BYTES[decoding["dtype"]] * (shape.parameters + cache)


def _ranking(node: Node, ranking: Mapping, workload: Workload) -> float:
    """Weights, and the logits of a batch of full length: in their own precision, in float32, and as
    log-probabilities."""
    shape, width = workload.shape(node.upstream["model"]), BYTES[ranking["dtype"]]
    logits = ranking["batch_size"] * ranking["max_length"] * shape.vocabulary
    return width * shape.parameters + (width + 2 * BYTES["float32"]) * logits
