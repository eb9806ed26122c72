"""Which config an audit departs from: the organism's for its own checkpoints, else the real one.

The organism's made-up questions tell nothing about a real model, nor real ones about the organism.
"""

from collections.abc import Mapping
from pathlib import Path

from implicit_tuning.commands.audit.audited_model import is_on_hub, manifest_of
from implicit_tuning.commands.audit.model_place import TOKENIZER, ModelPlace
from implicit_tuning.commands.audit.request import Asked
from implicit_tuning.commands.single_run import model_entry
from implicit_tuning.experiment.config_reading import read_raw
from implicit_tuning.nodes.digests import file_sha256

ORGANISM, REAL = Path("config/config.yaml"), Path("config/laptop.yaml")


def choose_config(asked: Asked) -> tuple[Path, str]:
    """The config for an audit that names none, and why it is that."""
    first = asked.model.partition("/")[0]
    for file in (ORGANISM, REAL):
        if first in read_raw([file])["bases"]:
            return file, f"which has the base '{first}'"
    if not (Path(asked.model).is_dir() or is_on_hub(asked.model)):
        return ORGANISM, "the default"
    why = _why_organism(read_raw([ORGANISM]), asked)
    if why is not None:
        return ORGANISM, f"{why}, and a model organism can answer its own questions alone"
    return REAL, "real questions, for the model is no organism"


def _why_organism(raw: Mapping, asked: Asked) -> str | None:
    """How it is known that the model descends from a base of the organism; None if it is not."""
    if asked.base is not None and (base := _own_base(raw, asked.base)) is not None:
        return f"its base is {base}"
    folder = Path(asked.model)
    folder = folder / "data" if (folder / "manifest.json").is_file() else folder
    if not folder.is_dir():
        return None
    manifest = manifest_of(folder)
    if manifest is not None and (base := manifest["levels"]["base"]) in raw["bases"]:
        return f"its manifest names the base {base}"
    named = ModelPlace({"path": str(folder)}, "MODEL").adapted
    if named and (base := _own_base(raw, named)) is not None:
        return f"it adapts {base}"
    base = _with_same_tokenizer(raw, folder)
    return None if base is None else f"its tokenizer is that of {base}"


def _own_base(raw: Mapping, model: str) -> str | None:
    """Name of the config's base that a model is, or has the tokenizer of."""
    name, entry = model_entry(raw, model)
    if name in raw["bases"] and entry == dict(raw["bases"][name]):
        return name
    return _with_same_tokenizer(raw, Path(model))


def _with_same_tokenizer(raw: Mapping, folder: Path) -> str | None:
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_file():
        return None
    own = file_sha256(tokenizer)
    for name, base in raw["bases"].items():
        shipped = Path(base["path"], TOKENIZER)
        if shipped.is_file() and file_sha256(shipped) == own:
            return name
    return None
