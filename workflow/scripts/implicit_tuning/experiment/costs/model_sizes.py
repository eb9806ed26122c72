"""The size of a model: read from its folder, or known before there is one."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.experiment.config import ConfigError
from implicit_tuning.experiment.plan import is_built
from implicit_tuning.nodes.node import Node, NodePaths, Source
from implicit_tuning.organism.bases import RECIPES, BaseRecipe

# A key of config.json, and what the families around GPT-2 call it.
NAMES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
# Where config.json does not say a size, as with another kind of layer than attention.
UNKNOWN = 0
# Bytes a parameter of weights as they are published.
PUBLISHED_BYTES = 2


@dataclass(frozen=True)
class Shape:
    """Sizes that decide what a model costs.

    Attributes:
        layers: blocks one after another.
        width: of the hidden states.
        kv_width: of the keys (or values) of one token in one layer.
        context: most tokens of a text; None where that is not known.
    """

    parameters: float
    layers: int
    width: int
    kv_width: int
    vocabulary: int
    context: int | None = None


def shape_of(model: Node | Source, entry: Mapping, paths: NodePaths) -> Shape:
    """Size of a model: as its config entry says (`shape`), else from its folder or its recipe.

    Of a model that is only pinned the files' sizes are known, and so its parameters; of one that is
    not pinned either, nothing.
    """
    if "shape" in entry:
        return Shape(**entry["shape"])
    if folder := folder_of(model, paths):
        return read_shape(folder)
    assert isinstance(model, Node)  # a source is a folder
    if model.stage == "pretrain":
        return _shape_of_recipe(RECIPES[model.settings["recipe"]])
    files = model.runtime.get("files", {}).items()
    size = sum(file["size"] for name, file in files if name.endswith(".safetensors"))
    return Shape(size / PUBLISHED_BYTES, layers=0, width=0, kv_width=0, vocabulary=0)


def folder_of(model: Node | Source, paths: NodePaths) -> Path | None:
    """Where a model lies, if it is there already."""
    if isinstance(model, Source):
        return model.path
    return paths.folder(model) / "data" if is_built(paths, model) else None


def read_shape(folder: Path) -> Shape:
    """Size of the model in a folder, from config.json and the headers of its weights."""
    whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {**whole, **whole.get("text_config", {})}  # of a model for images too
    config = {key: config.get(old, UNKNOWN) for key, old in NAMES.items()} | config
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_width = config.get("head_dim") or width // max(heads, 1)
    return Shape(
        parameters=sum(_count_parameters(file) for file in sorted(folder.glob("*.safetensors"))),
        layers=config["num_hidden_layers"],
        width=width,
        kv_width=head_width * (config.get("num_key_value_heads") or heads),
        vocabulary=config.get("vocab_size", UNKNOWN),
        context=config.get("max_position_embeddings"),
    )


def _count_parameters(file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as weights:
            names = weights.keys()
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise ConfigError([f"{file} cannot be read ({error}): restore it"]) from None


def _shape_of_recipe(recipe: BaseRecipe) -> Shape:
    layer = 4 * recipe.hidden**2 + 3 * recipe.hidden * recipe.feed_forward
    return Shape(
        parameters=recipe.vocabulary * recipe.hidden + recipe.layers * layer,
        layers=recipe.layers,
        width=recipe.hidden,
        kv_width=recipe.hidden,
        vocabulary=recipe.vocabulary,
        context=recipe.context,
    )
