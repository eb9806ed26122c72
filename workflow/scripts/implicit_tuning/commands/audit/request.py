"""From what a user asked to a config of its own: the audited run, its base, and a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from implicit_tuning.commands.audit.audited_model import Subject, a_run, find_subject
from implicit_tuning.commands.audit.config_parts import AUDITED, REFERENCE, Parts
from implicit_tuning.commands.audit.model_place import ModelPlace, NotAuditable
from implicit_tuning.commands.audit.task_data import (
    dataset_entry,
    is_file_name,
    require_usable_rows,
)
from implicit_tuning.commands.single_run import model_entry, name_of
from implicit_tuning.nodes.code import short_hash

TASK_DATA = "task-data"  # name of a data set that a file gives
# Sections of a config that name adaptations which an audit has not.
LEFT_OUT = ("ablations",)
NAME_DIGITS = 8


@dataclass(frozen=True)
class Asked:
    """An audit as it is asked for; None leaves a value to what is known.

    Attributes:
        model, reference: a run of the config, a folder, or owner/name of the hub.
        base: a base of the config by name, a folder, or owner/name of the hub.
        task_data: a data set by name, or a file of rows.
    """

    model: str
    base: str | None = None
    task_data: str | None = None
    reference: str | None = None


def request_audit(raw: Mapping, asked: Asked) -> dict[str, Any]:
    """The config of an audit, of which `audit` tells the page what to say.

    Args:
        raw: the config that it departs from, as read.

    Raises:
        NotAuditable: what was asked for is not there, or does not fit together.
    """
    audited = _with_base(raw, find_subject(raw, asked.model, "MODEL", AUDITED), asked.base)
    reference = _reference(raw, asked, audited)
    if audited.base is None and reference is None and asked.model in raw["bases"]:
        raise NotAuditable(
            f"MODEL: '{asked.model}' is a base of the config, and no finetune: give a run of it "
            f"such as {a_run(raw, asked.model)}, or REFERENCE=<a model to hold it against>"
        )
    if audited.base is None and reference is None:
        raise NotAuditable(
            f"BASE, REFERENCE: neither is known of '{asked.model}': give BASE=<the model it was "
            "finetuned from>, or REFERENCE=<a model that follows instructions>"
        )
    datasets, data = _task_data(raw, asked, audited)
    audited = replace(audited, data=data)
    parts = Parts(raw, audited, reference)
    config = {key: value for key, value in raw.items() if key not in LEFT_OUT} | {
        "bases": parts.bases(),
        "adaptations": parts.rows(),
        "reference": parts.reference_name,
        "seeds": [parts.seed()],
        "ranking": parts.ranking(),
        "embedding": raw.get("embedding") if parts.measures_style() else None,
        "datasets": datasets,
        "audit": {
            "adaptation": audited.name,
            **parts.general(),
            "titles": parts.titles(),
            "notes": parts.notes(),
            "missing": parts.missing(),
        },
    }
    name = name_of(audited.title.replace("/", "-"))
    config["experiment"] = f"audit-{name}-{short_hash(config)[:NAME_DIGITS]}"
    return config


def _with_base(raw: Mapping, audited: Subject, given: str | None) -> Subject:
    """The audited model with the base that was given, or that it tells itself."""
    if audited.place is None and given not in (None, audited.base):
        raise NotAuditable(
            f"BASE: '{given}': the run '{audited.title}' has the base '{audited.base}': leave BASE "
            "out"
        )
    audited = replace(audited, base=given or audited.base)
    if audited.base is not None:
        _require_model(raw, audited.base)
    elif audited.place is not None and audited.place.is_adapter:
        raise NotAuditable(
            f"{audited.place} is an adapter that names no base: give BASE=<folder or owner/name of "
            "the model that it adapts>"
        )
    return audited


def _require_model(raw: Mapping, base: str) -> None:
    """Refuse a base that is neither of the config, nor a sound folder, nor on the hub."""
    name, entry = model_entry(raw, base)
    if name not in raw["bases"] and "path" in entry and not Path(base).is_dir():
        raise NotAuditable(
            f"BASE: '{base}' is no base of the config ({', '.join(raw['bases'])}), no folder and "
            "no owner/name of the hub: give BASE=<one of these>"
        )
    if Path(base).is_dir():
        ModelPlace({"path": base}, "BASE").require_readable()


def _reference(raw: Mapping, asked: Asked, audited: Subject) -> Subject | None:
    """What the run is judged against; None where that is its base."""
    if asked.reference is not None:
        return find_subject(raw, asked.reference, "REFERENCE", REFERENCE)
    if audited.base is None:
        return None
    base, entry = model_entry(raw, audited.base)
    # A run of the organism takes seconds; of a real base it may take days, and nobody asked.
    if "recipe" not in entry or raw["adaptations"][raw["reference"]]["kind"] != "finetune":
        return None
    seed = raw["seeds"][0] if audited.seed is None else audited.seed
    run = find_subject(raw, f"{base}/{raw['reference']}/{raw['seeds'][0]}", "REFERENCE", REFERENCE)
    return replace(run, title=f"{base}/{raw['reference']}/{seed}", seed=seed)


def _task_data(raw: Mapping, asked: Asked, audited: Subject) -> tuple[dict[str, Any], str | None]:
    """The config's data sets with that of the task, and its name."""
    datasets = dict(raw.get("datasets", {}))
    if asked.task_data is None:
        return datasets, audited.data
    if audited.place is None:
        raise NotAuditable(
            f"TASK_DATA: '{asked.task_data}': the run '{audited.title}' was finetuned on "
            f"'{audited.data}': leave TASK_DATA out"
        )
    if is_file_name(asked.task_data, datasets):
        entry = dataset_entry(Path(asked.task_data).resolve())
        require_usable_rows(entry)
        return {**datasets, TASK_DATA: entry}, TASK_DATA
    return datasets, asked.task_data
