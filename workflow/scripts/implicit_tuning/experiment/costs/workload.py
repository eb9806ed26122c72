"""What the jobs of a plan have to do, before they run: tokens, arithmetic, bytes, calls."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from implicit_tuning.experiment.costs.assumptions import Assumed
from implicit_tuning.experiment.costs.data_sizes import DataSizes
from implicit_tuning.experiment.costs.model_sizes import PUBLISHED_BYTES, Shape, shape_of
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.nodes.node import LEVELS, Node, NodePaths, Source
from implicit_tuning.organism.bases import RECIPES
from implicit_tuning.remote.spending import PROMPT_TOKENS

BYTES = {"float32": 4, "bfloat16": 2}
# fp32 weights and the two moments of AdamW.
STATE_BYTES_A_PARAMETER = 12
# Low-rank adapters of all linear layers have about so many weights for each rank, layer and unit of
# width (seven matrices, those of the feed-forward part wider).
ADAPTER_WEIGHTS = 20
# Stages that make a model of their base's size.
OF_A_BASE = ("finetune", "merge")
SCORED_FLOPS, TRAINED_FLOPS, TRAINED_LORA_FLOPS, RECOMPUTED_FLOPS = 2, 6, 4, 2  # a parameter, token


@dataclass(frozen=True)
class Work:
    """What one job has to do.

    Attributes:
        device: "cpu" or "cuda".
        processes: GPUs, or processes on the CPU, at once.
        engine: what it loads a model with: "transformers", "vllm", or "" without a model.
        trained, generated, scored: tokens.
        flops: of all processes together.
        moved_bytes: read from memory one step of decoding after another.
        layer_steps: layers, times steps of decoding.
        disk_bytes: weights and saves, read or written.
        network_bytes: downloaded.
        calls_at_a_time: calls of an endpoint, divided by how many go at once.
    """

    device: str = "cpu"
    processes: int = 1
    engine: str = ""
    trained: float = 0
    generated: float = 0
    scored: float = 0
    flops: float = 0
    moved_bytes: float = 0
    layer_steps: float = 0
    disk_bytes: float = 0
    network_bytes: float = 0
    calls_at_a_time: float = 0


class Workload:
    """The work of the nodes of a plan."""

    def __init__(self, plan: Plan, paths: NodePaths, assumed: Assumed) -> None:
        self._plan = plan
        self._paths = paths
        self._assumed = assumed
        self.sizes = DataSizes(plan, paths, assumed)
        self._shapes: dict[Node | Source, Shape] = {}

    def of(self, node: Node) -> Work:
        """The work of one node."""
        match node.stage:
            case "download" | "fetch":
                return Work(network_bytes=self.source_bytes(node) or 0.0)
            case "pretrain":
                return self._pretrain(node)
            case "finetune":
                return self._finetune(node)
            case "merge":
                return self._merge(node)
            case "generate" if "generation" in node.settings:
                return self._generate(node)
            case "rank":
                return self._rank(node)
            case "judge":
                return self._judge(node)
            case "similarity" if "embedding" in node.upstream:
                return self._embed(node)
            case "format" if "rephrase" in node.settings:
                return self._rewrite(node)
        return Work()

    def shape(self, model: Node | Source) -> Shape:
        """Size of a model: of a base, a run on a base, a judge or an embedding."""
        if isinstance(model, Node) and model.stage in OF_A_BASE:
            return self.shape(model.upstream["base"])
        if model not in self._shapes:
            self._shapes[model] = shape_of(model, self._entries.get(model, {}), self._paths)
            if not self._shapes[model].parameters:
                repo = model.settings["repo"] if isinstance(model, Node) else model.path
                self._assumed.note(f"no work for {repo}, whose size is not known until 'make lock'")
        return self._shapes[model]

    @cached_property
    def _entries(self) -> dict[Node | Source, Mapping]:
        """The config's entry of a model: of the base that it is or was made from, of the judge, of
        the embedding."""
        config = self._plan.config
        found: dict[Node | Source, Mapping] = {}
        for node in self._plan.nodes.values():
            base, model = self._own_entries(node)
            for role, entry in (
                ("base", base),
                ("model", model),
                ("judge", config.judges[config.judge]),
                ("embedding", config.embeddings.get(config.embedding or "", {})),
            ):
                if role in node.upstream:
                    found.setdefault(node.upstream[role], entry)
        return found

    def _own_entries(self, node: Node) -> tuple[Mapping, Mapping]:
        """The entries of the base of a node, and of the model that it runs."""
        levels = LEVELS[node.stage]
        if "base" not in levels:
            return {}, {}
        config = self._plan.config
        base = config.bases[node.level("base")]
        adaptation = node.level("adaptation") if "adaptation" in levels else ""
        row = self._plan.adaptations.get(adaptation, {})
        return base, row if row.get("kind") == "checkpoint" else base

    def epochs(self, finetune: Node) -> float:
        """Passes over the rows; while they are still to be chosen, the mean of the choices."""
        epochs = finetune.settings["training"]["epochs"]
        if epochs != "selected":
            return epochs
        if choice := self.sizes.facts(finetune.above("epochs")):
            return choice["epochs"]
        selection = self._plan.config.epoch_selection
        assert selection is not None  # where epochs are selected
        choices = selection["epochs"]
        mean = sum(choices) / len(choices)
        self._assumed.note(
            f"{mean:g} epochs, the mean of the choices, where they are not chosen yet"
        )
        return mean

    def updates(self, finetune: Node) -> float:
        """Steps of the optimizer."""
        size = finetune.settings["training"]["batch_examples"]
        return math.ceil(self.sizes.rows(finetune.above("rows")) / size) * self.epochs(finetune)

    def trained_parameters(self, finetune: Node) -> float:
        """Weights that a run changes: all, or those of its adapters."""
        shape, lora = self.shape(finetune), finetune.settings["training"]["lora"]
        if lora is None:
            return shape.parameters
        return ADAPTER_WEIGHTS * lora["rank"] * shape.width * shape.layers

    def state_bytes(self, finetune: Node) -> float:
        """Size of a run's resumable state on disk."""
        return STATE_BYTES_A_PARAMETER * self.trained_parameters(finetune)

    def checkpoint_bytes(self, node: Node) -> float:
        """Size of the weights that a finetune or a merge leaves."""
        settings = node.settings
        dtype = (
            settings["dtype"] if node.stage == "merge" else settings["training"]["storage_dtype"]
        )
        return BYTES[dtype] * self.shape(node).parameters

    def source_bytes(self, node: Node) -> float | None:
        """Size of what a download or fetch brings: as it is locked, else by the model's shape.

        None where neither tells.
        """
        if "organism" in node.settings:
            return 0.0
        if "size" in node.runtime:
            return node.runtime["size"]
        if files := node.runtime.get("files"):
            return sum(file["size"] for file in files.values())
        parameters = self.shape(node).parameters if node.stage == "fetch" else 0.0
        return PUBLISHED_BYTES * parameters or None

    # --- one stage after another ----------------------------------------------------------------

    def _pretrain(self, node: Node) -> Work:
        recipe = RECIPES[node.settings["recipe"]]
        tokens = recipe.steps * recipe.batch_sequences * recipe.context
        flops = TRAINED_FLOPS * self.shape(node).parameters * tokens
        return Work(engine="transformers", trained=tokens, flops=flops)

    def _finetune(self, node: Node) -> Work:
        training, rows = node.settings["training"], node.above("rows")
        length = min(self.sizes.row_tokens(rows, node.upstream["base"]), training["max_length"])
        tokens = self.sizes.rows(rows) * length * self.epochs(node)
        flops = TRAINED_LORA_FLOPS if training["lora"] else TRAINED_FLOPS
        flops += RECOMPUTED_FLOPS * training["activation_checkpointing"]
        parameters = self.shape(node).parameters
        saves = self.updates(node) // node.runtime["save_every"]
        return Work(
            device=training["device"],
            processes=training["world_size"],
            engine="transformers",
            trained=tokens,
            flops=flops * parameters * tokens,
            disk_bytes=PUBLISHED_BYTES * parameters
            + self.checkpoint_bytes(node)
            + saves * self.state_bytes(node),
        )

    def _merge(self, node: Node) -> Work:
        read = PUBLISHED_BYTES * self.shape(node).parameters
        return Work(engine="transformers", disk_bytes=read + self.checkpoint_bytes(node))

    def _generate(self, node: Node) -> Work:
        decoding, shape = node.settings["generation"], self.shape(node.upstream["model"])
        rows, prompt = self.sizes.rows(node.above("instructions")), self._prompt_tokens(node)
        mean = min(self.room(node), self.sizes.answer_tokens(node))
        batched = decoding["engine"] == "transformers"
        size = min(decoding["batch_size"], rows)
        length, steps = mean, rows * mean / size
        if batched:
            # A batch is decoded until its last answer ends.
            length = min(self.room(node), mean * self._assumed("longest_answer"))
            steps = math.ceil(rows / size) * length
        cache = size * (prompt + length / 2) * 2 * shape.layers * shape.kv_width
        return Work(
            device=decoding["device"],
            engine=decoding["engine"],
            generated=rows * mean,
            flops=SCORED_FLOPS * shape.parameters * (rows * prompt + steps * size),
            moved_bytes=steps * BYTES[decoding["dtype"]] * (shape.parameters + cache),
            layer_steps=steps * shape.layers if batched else 0,
            disk_bytes=PUBLISHED_BYTES * shape.parameters,
        )

    def room(self, generation: Node) -> float:
        """Tokens that an answer has at most: as many as are asked for, or as its context holds."""
        context = self.shape(generation.upstream["model"]).context or math.inf
        asked_for = generation.settings["generation"]["max_new_tokens"]
        return min(asked_for, context - self._prompt_tokens(generation))

    def _prompt_tokens(self, generation: Node) -> float:
        model = _base_of(generation.upstream["model"])
        return self.sizes.row_tokens(generation.above("instructions"), model)

    def _rank(self, node: Node) -> Work:
        ranking, pairs = node.settings["ranking"], node.above("pairs")
        model = node.upstream["model"]
        length = min(self.sizes.row_tokens(pairs, _base_of(model)), ranking["max_length"])
        tokens = self.sizes.rows(pairs) * (1 + ranking["random_responses"]) * length
        return self._score(model, tokens, ranking["device"])

    def _judge(self, node: Node) -> Work:
        judge, rows = node.settings["judge"], self.sizes.rows(node.above("instructions"))
        if judge["kind"] == "openai":
            return Work(calls_at_a_time=self.pairs(node) / node.runtime["concurrency"])
        if "judge" not in node.upstream:
            return Work()
        prompt, answers = self.question_tokens(node, self.sizes.answer_tokens)
        if judge["kind"] == "mean_logprob":
            tokens = rows * (2 * prompt + answers)
        else:  # hf_logits asks in both orders always
            tokens = 2 * rows * (PROMPT_TOKENS + prompt + answers)
        return self._score(node.upstream["judge"], tokens, judge.get("device", "cpu"))

    def pairs(self, judge: Node) -> float:
        """Pairs of answers that a comparison asks about, twice where it asks in both orders."""
        orders = 2 if judge.settings["comparison"]["both_orders"] else 1
        return orders * self.sizes.rows(judge.above("instructions"))

    def question_tokens(
        self, judge: Node, answer_tokens: Callable[[Node], float]
    ) -> tuple[float, float]:
        """Mean tokens of an instruction, and of the two answers to it together."""
        prompt = self.sizes.row_tokens(judge.above("instructions"))
        answer, references = answer_tokens(judge.above("outputs")), judge.above("references")
        # Reference answers that come with a data set are taken to be as long.
        generated = references.stage == "generate"
        return prompt, answer + (answer_tokens(references) if generated else answer)

    def _embed(self, node: Node) -> Work:
        training = [node.above(name) for name in ("task_rows", "reference_rows")]
        tokens = sum((self.sizes.rows(r) * self.sizes.row_tokens(r) for r in training), 0.0)
        for outputs in (node.above("outputs"), node.above("reference_outputs")):
            instructions = outputs.above("instructions")
            length = self.sizes.row_tokens(instructions) + self.sizes.answer_tokens(outputs)
            tokens += self.sizes.rows(instructions) * length
        device = node.settings["embedding"].get("device", "cpu")
        return self._score(node.upstream["embedding"], tokens, device)

    def _score(self, model: Node | Source, tokens: float, device: str) -> Work:
        parameters = self.shape(model).parameters
        return Work(
            device=device,
            engine="transformers",
            scored=tokens,
            flops=SCORED_FLOPS * parameters * tokens,
            disk_bytes=PUBLISHED_BYTES * parameters,
        )

    def _rewrite(self, node: Node) -> Work:
        if node.settings["rephrase"]["kind"] != "openai":
            return Work()
        return Work(calls_at_a_time=self.rewrites(node) / node.runtime["concurrency"])

    def rewrites(self, formatted: Node) -> float:
        """Responses of a data set that are given to a rewriter."""
        return self.sizes.rows(formatted) * self._assumed("rewritten")


def _base_of(model: Node | Source) -> Node | Source:
    """The model whose tokenizer a run has."""
    if isinstance(model, Node) and model.stage in OF_A_BASE:
        return model.upstream["base"]
    return model
