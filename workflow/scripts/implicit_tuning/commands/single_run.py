"""One run asked for on the command line: a config of its own for a base and values that none names.

What is not asked for stays as the config has it, so that a run which the config names too is the
same node, and nothing is planned beside it that would need more from elsewhere.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from implicit_tuning.commands.lock.command import print_locked
from implicit_tuning.commands.planned import RESULTS, plan_files
from implicit_tuning.experiment.config import ConfigError, merge
from implicit_tuning.nodes.code import short_hash
from implicit_tuning.nodes.files import write_atomically

Way = Literal["instruction", "response", "task"]
# The rule of the Snakefile that asks for the one finetune. With no other row beside it, a task's data
# is taken for that of instruction tuning.
TARGETS: Mapping[Way, str] = {
    "instruction": "train_ins",
    "response": "train_resp",
    "task": "train_ins",
}
REFERENCE = "reference"
NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
# What a base's entry says of its model.
OF_A_MODEL = ("path", "hub", "shape", "licence", "gated")
# What a finetune is never asked: it needs nothing from elsewhere.
NOTHING_ASKED = {
    "evaluation": "organism-evaluation",
    "judge": "oracle",
    "judges": {"oracle": {"kind": "oracle"}},
}


@dataclass(frozen=True)
class Finetune:
    """A finetune as it is asked for; None leaves a value as the config has it.

    Attributes:
        model: a base of the config by name, a model folder, or owner/name of the hub.
        data: a data set by name; of a task, it names the run too.
    """

    way: Way
    model: str
    data: str | None
    learning_rate: float | None
    epochs: int | None
    seed: int


@dataclass(frozen=True)
class Request:
    """A config whose `target`, a rule of the Snakefile, is the one asked node (and what it reads).

    Attributes:
        stage, levels: of the asked node.
    """

    config: Mapping
    target: str
    stage: str
    levels: tuple[str, ...]


def request_finetune(raw: Mapping, asked: Finetune) -> Request:
    """A request for one finetune.

    Args:
        raw: the config that it departs from, as read.

    Raises:
        ConfigError: data or epochs are not named, where they must be.
    """
    tuned = raw["adaptations"][raw["reference"]]
    name = {"instruction": raw["reference"], "response": "response", "task": asked.data}[asked.way]
    if name is None:
        raise ConfigError(["DATA is missing: a single task is a data set, such as TASK=gsm8k"])
    if asked.data is None and "data" not in tuned:
        raise ConfigError(["DATA is missing: the config's reference was not finetuned here"])
    if asked.epochs is None and raw.get("epochs", "fixed") == "selected":
        raise ConfigError(
            ["EPOCHS is missing: the config selects them on a validation set, which one run cannot"]
        )
    row = _row(raw["adaptations"].get(name, {}), asked, asked.data or tuned["data"])
    config = _alone(raw, asked.model, {name: row}, name) | NOTHING_ASKED | {"seeds": [asked.seed]}
    if asked.epochs is not None:
        config["epochs"] = "fixed"
    (base,) = config["bases"]
    return Request(config, TARGETS[asked.way], "finetune", (base, name, str(asked.seed)))


def _row(own: Mapping, asked: Finetune, data: str) -> dict:
    """The config's own row of an adaptation, or none, with what is asked."""
    row = {key: value for key, value in own.items() if key not in ("bases", "reference")}
    if row.get("data") != data:
        row.pop("rows", None)  # as many as there are of the other data
    row |= {"kind": "finetune", "data": data}
    if asked.way == "response":
        row["instructions"] = "blank"
    given = {"learning_rate": asked.learning_rate, "epochs": asked.epochs}
    values = {key: value for key, value in given.items() if value is not None}
    return merge(row, {"training": values} if values else {})


def request_evaluation(raw: Mapping, model: str, reference: str, data: str | None) -> Request:
    """A request for a model's comparison with another.

    Args:
        raw: the config that it departs from, as read.
        model, reference: as `Finetune.model`.
        data: an evaluation set by name; None for the config's.
    """
    (base, _), evaluation = model_entry(raw, model), data or raw["evaluation"]
    rows = {
        "base": {"kind": "none", "bases": [base]},
        REFERENCE: {"kind": "checkpoint", "bases": [base], **_entry(raw, reference)},
    }
    config = _alone(raw, model, rows, REFERENCE) | {"seeds": [1], "evaluation": evaluation}
    judges_base = raw["judges"][raw["judge"]].get("base")
    if judges_base is not None:
        config["bases"] = {judges_base: raw["bases"][judges_base], **config["bases"]}
    levels = (base, "base", "none", evaluation, "1", raw["judge"])
    return Request(config, "judgements", "judge", levels)


def _alone(raw: Mapping, model: str, rows: Mapping, reference: str) -> dict:
    """The raw config with one base and these adaptations, and nothing that names others."""
    name, entry = model_entry(raw, model)
    kept = {key: value for key, value in raw.items() if key not in ("ablations", "epoch_selection")}
    return kept | {
        "bases": {name: entry},
        "adaptations": dict(rows),
        "reference": reference,
        "epochs": "fixed" if raw.get("epochs") == "selected" else raw.get("epochs", "fixed"),
        "ranking": None,
        "embedding": None,
    }


def model_entry(raw: Mapping, model: str) -> tuple[str, dict]:
    """Name and entry of a model: the config's own, where it is one of its bases.

    Args:
        raw: the config, as read.
        model: a base of the config by name, a model folder, or owner/name of the hub.
    """
    for name, base in raw["bases"].items():
        folder = Path(raw.get("data_root", "."), base["path"]) if "path" in base else None
        same_folder = folder is not None and folder.resolve() == Path(model).resolve()
        if model in (name, base.get("hub", {}).get("repo")) or same_folder:
            return name, dict(base)
    on_hub = model.count("/") == 1 and not Path(model).exists()
    place = {"hub": {"repo": model}} if on_hub else {"path": str(Path(model).resolve())}
    return name_of(model), place


def name_of(model: str) -> str:
    """A name for a model by its folder or repository, as the schema allows names."""
    return NO_NAME.sub("-", Path(model).absolute().name).strip("-._") or "model"


def _entry(raw: Mapping, model: str) -> dict:
    """Where a model lies, in the words of the config."""
    _, entry = model_entry(raw, model)
    return {key: entry[key] for key in OF_A_MODEL if key in entry}


def write_request(config: Mapping, folder: Path) -> Path:
    """Write a config to a file named by its content; returns the file."""
    file = folder / f"{short_hash(config)}.yaml"
    write_atomically(file, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    return file


def build(request: Request) -> Path | None:
    """Run the workflow for the one node of a request; returns its folder, None if that failed."""
    file = write_request(request.config, RESULTS / "cache" / "requests")
    made, paths = plan_files([file])
    if print_locked(made):
        made, paths = plan_files([file])
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", str(file)]
    if subprocess.run([*command, "--", request.target], check=False).returncode:
        return None
    return paths.folder(made.nodes[request.stage, request.levels])
