"""Which model is meant: a run of the config, a folder, or a repository of the hub."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from implicit_tuning.commands.audit.model_place import ModelPlace, NotAuditable
from implicit_tuning.commands.single_run import model_entry, name_of
from implicit_tuning.experiment.config import suggest
from implicit_tuning.nodes.artifact import BrokenArtifact, is_released, read_manifest
from implicit_tuning.nodes.node import LEVELS

# Kinds of rows that have weights of their own.
WITH_WEIGHTS = ("finetune", "checkpoint")
# What of a row makes its runs; where it stands and what it is compared with is the audit's.
NOT_OF_A_RUN = ("bases", "reference", "note")
KEY_DIGITS = 8  # of a node's key, in a title


@dataclass(frozen=True)
class Subject:
    """A model that takes part in an audit.

    Attributes:
        name: of its row in `adaptations`.
        title: for people.
        row: what is done to its base, or where it lies.
        place: where its weights lie; None for a run of the config.
        seed: of a run, as far as it is known.
        base: base by name, folder or repository; None where it is not known.
        data: what it was finetuned on, a data set by name; None where that is not known.
    """

    name: str
    title: str
    row: Mapping[str, Any]
    place: ModelPlace | None
    seed: int | None
    base: str | None
    data: str | None


def find_subject(raw: Mapping, model: str, key: str, name: str) -> Subject:
    """The model that a user named.

    Args:
        raw: the config, as read.
        model: a run of the config as base/adaptation/seed, a base of it, a folder, or owner/name of
            the hub.
        key: what the user gave it as, for messages.
        name: for its row, where it is no run of the config.

    Raises:
        NotAuditable: it is none of these, or a run without weights of its own.
    """
    if model in raw["bases"]:
        entry = {k: v for k, v in raw["bases"][model].items() if k in ("path", "hub")}
        return _elsewhere(ModelPlace(entry, key), name, model)
    if model.partition("/")[0] in raw["bases"] and not Path(model).exists():
        return _run(raw, model, key)
    if Path(model).is_dir():
        return _folder(raw, Path(model), key, name)
    if not is_on_hub(model):
        close = difflib.get_close_matches(model, _runs(raw), n=1)
        such = f"did you mean '{close[0]}'?" if close else "give one of these"
        raise NotAuditable(
            f"{key}: '{model}' is no folder, no run base/adaptation/seed of the config, and no "
            f"owner/name of the hub; {such}"
        )
    _, entry = model_entry(raw, model)
    place = ModelPlace({"hub": entry.get("hub", {"repo": model})}, key)
    place.require_writer()
    return _elsewhere(place, name, model)


def is_on_hub(model: str) -> bool:
    """Whether this reads like owner/name of the hub, and not like a path."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def _run(raw: Mapping, model: str, key: str) -> Subject:
    kind = raw["adaptations"].get(model.split("/")[1], {}).get("kind", WITH_WEIGHTS[0])
    if kind not in WITH_WEIGHTS:
        raise NotAuditable(
            f"{key}: '{model}' is a run of kind '{kind}', which has no weights of its own: give "
            f"one of kind {' or '.join(WITH_WEIGHTS)}"
        )
    if model not in _runs(raw):
        same = "/".join([*model.split("/")[:2], ""])
        closest = [run for run in _runs(raw) if run.startswith(same)][:1] or _runs(raw)
        raise NotAuditable(f"{key}: '{model}' is no run of the config; {suggest(model, closest)}")
    base, adaptation, *seed = model.split("/")
    row = raw["adaptations"][adaptation]
    row = {name: value for name, value in row.items() if name not in NOT_OF_A_RUN}
    number = int(seed[0]) if seed else None
    return Subject(adaptation, model, row, None, number, base, row.get("data"))


def a_run(raw: Mapping, base: str) -> str:
    """Name of a run of a base, for messages: one of a single task, where there is one."""
    runs = [run for run in _runs(raw) if run.startswith(f"{base}/")]
    broad = {n for n, row in raw["adaptations"].items() if "instructions" in row} | {
        raw["reference"]
    }
    narrow = [run for run in runs if run.split("/")[1] not in broad]
    return next(iter([*narrow, *runs]), f"{base}/adaptation/seed")


def _runs(raw: Mapping) -> list[str]:
    """Names of the config's runs that have weights of their own."""
    return [
        f"{base}/{name}" + (f"/{seed}" if row["kind"] == "finetune" else "")
        for base in raw["bases"]
        for name, row in raw["adaptations"].items()
        if row["kind"] in WITH_WEIGHTS and base in row.get("bases", raw["bases"])
        for seed in (raw["seeds"] if row["kind"] == "finetune" else [None])
    ]


def _folder(raw: Mapping, folder: Path, key: str, name: str) -> Subject:
    """A checkpoint in a folder, of which a node of the workflow knows base, seed and data."""
    folder = folder / "data" if (folder / "manifest.json").is_file() else folder
    place = ModelPlace({"path": str(folder.resolve())}, key)
    manifest = manifest_of(folder)
    if manifest is None:
        place.require_readable()
        return _elsewhere(place, name, name_of(str(folder)))
    levels = manifest["levels"]
    run = "/".join(levels[name] for name in LEVELS["finetune"])
    if is_released(folder.parent) and not any(folder.glob("*.safetensors")):
        raise NotAuditable(
            f"{place}: its weights were given up (runtime.keep_checkpoints): give {key}={run} with "
            "the CONFIG that it is of, which builds them again"
        )
    place.require_readable()
    title = f"{run} ({manifest['key'][:KEY_DIGITS]})"
    base = levels["base"] if levels["base"] in raw["bases"] else None
    data = _trained_on(folder, manifest)
    return Subject(name, title, _row(place), place, int(levels["seed"]), base, data)


def manifest_of(folder: Path) -> dict | None:
    """Manifest of the finetune whose data folder this is; None for any other folder."""
    if folder.name != "data":
        return None
    try:
        manifest = read_manifest(folder.parent)
    except BrokenArtifact:
        return None
    return manifest if manifest["stage"] == "finetune" else None


def _trained_on(data: Path, manifest: Mapping) -> str | None:
    """The data set that a finetune read, told by the format node that still stands beside it."""
    # nodes/finetune/<base>/<adaptation>/<seed>/<key>/data
    nodes = data.resolve().parents[5]
    found = nodes.glob(f"format/*/*/{manifest['upstream']['rows']['key']}/manifest.json")
    return next((file.parents[2].name for file in found), None)


def _elsewhere(place: ModelPlace, name: str, title: str) -> Subject:
    base = place.adapted if place.is_adapter else None
    return Subject(name, title, _row(place), place, None, base, None)


def _row(place: ModelPlace) -> dict[str, Any]:
    return {"kind": "checkpoint", **place.entry}
