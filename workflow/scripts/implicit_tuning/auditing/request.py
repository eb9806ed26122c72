"""From what a user asked to a config of its own: the audited run, its base, and a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from implicit_tuning.auditing.places import NotAuditable, Place
from implicit_tuning.auditing.subject import Subject, find_subject
from implicit_tuning.auditing.task_data import dataset_entry
from implicit_tuning.nodes import short_hash
from implicit_tuning.single_run import OF_A_MODEL, model_entry, name_of

AUDITED, REFERENCE, BASE = "audited", "reference", "base"
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
    if audited.base is None and reference is None:
        raise NotAuditable(
            f"BASE, REFERENCE: neither is known of '{asked.model}': give BASE=<the model it was "
            "finetuned from>, or REFERENCE=<a model that follows instructions>"
        )
    datasets, data = _task_data(raw, asked, audited)
    audited = replace(audited, data=data)
    parts = _Parts(raw, audited, reference)
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
        Place({"path": base}, "BASE").require_readable()


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
    if Path(asked.task_data).is_file():
        entry = dataset_entry(Path(asked.task_data).resolve())
        return {**datasets, TASK_DATA: entry}, TASK_DATA
    return datasets, asked.task_data


class _Parts:
    """The parts of the config of one audit."""

    def __init__(self, raw: Mapping, audited: Subject, reference: Subject | None) -> None:
        self._raw = raw
        self._audited = audited
        self._reference = reference
        # Without a base the audited model stands in its place, and no row runs it as that.
        entry = audited.place.entry if audited.place is not None else {}
        place = audited.base or str(entry.get("path") or entry["hub"]["repo"])
        self._base, self._base_entry = model_entry(raw, place)
        if reference is not None and reference.place is None and reference.base != self._base:
            raise NotAuditable(
                f"REFERENCE: '{reference.title}' is a run of another base than '{audited.title}', "
                f"which has '{audited.base}': name a run of that, or a folder"
            )

    @property
    def reference_name(self) -> str:
        return BASE if self._reference is None else self._reference.name

    def bases(self) -> dict[str, dict]:
        """The base, and that of a judge which is one."""
        found = {self._base: self._base_entry}
        judges = self._raw["judges"][self._raw["judge"]].get("base")
        return found if judges is None else {judges: self._raw["bases"][judges], **found}

    def rows(self) -> dict[str, dict]:
        """Adaptations: the base, the reference, the audited run."""
        rows = {}
        if self._audited.base is not None:
            rows[BASE] = self._base_row()
        if self._reference is not None:
            rows[self._reference.name] = self._row(self._reference, self._general_data())
        rows[self._audited.name] = self._row(self._audited, self._audited.data)
        return {name: {**row, "bases": [self._base]} for name, row in rows.items()}

    def _base_row(self) -> dict[str, Any]:
        own = self._raw["adaptations"].get(BASE, {})
        row = {key: own[key] for key in ("generation", "chat") if key in own}
        if self._reference is not None:
            return {"kind": "none", **row}
        place = {key: value for key, value in self._base_entry.items() if key in OF_A_MODEL}
        return self._with_data({"kind": "checkpoint", **place, **row}, self._general_data())

    def _row(self, subject: Subject, data: str | None) -> dict[str, Any]:
        if subject.place is None:
            return dict(subject.row)
        row = dict(subject.row)
        if self._has_own_template(subject):
            row["chat"] = {"own_template": True}
        return self._with_data(row, data)

    def _with_data(self, row: dict, data: str | None) -> dict[str, Any]:
        return {**row, "data": data} if data is not None and self.measures_style() else row

    def _general_data(self) -> str | None:
        """What the reference was finetuned on, or general instructions where nobody knows."""
        known = None if self._reference is None else self._reference.data
        return known or (self._raw.get("ranking") or {}).get("data")

    def _has_own_template(self, subject: Subject) -> bool:
        """Whether a tokenizer brings a chat template; that of an adapter may be its base's."""
        if subject.place is None:
            return bool(subject.row.get("chat", {}).get("own_template"))
        adapted = subject.place.is_adapter and Place(self._base_entry, "BASE").has_chat_template
        return subject.place.has_chat_template or adapted

    def measures_style(self) -> bool:
        """Whether it can be measured how near its answers stay to its task."""
        return not self._why_no_style()

    def _why_no_style(self) -> str:
        if self._audited.data is None:
            return "nobody said what it was finetuned on (TASK_DATA)"
        if self._audited.row.get("instructions", "given") != "given":
            return "it was finetuned without the instructions of its data, so none is near to it"
        if self._raw.get("embedding") is None:
            return "the config has no embedding"
        general = self._general_data()
        if general is None:
            return "there are no general responses to hold its answers against (ranking.data)"
        if general == self._audited.data:
            return f"it was finetuned on general instructions itself ({general})"
        return ""

    def ranking(self) -> dict | None:
        """The config's ranking, for the base and the audited run."""
        if self._raw.get("ranking") is None:
            return None
        ranked = [self._audited.name, *([BASE] if self._audited.base is not None else [])]
        return {**self._raw["ranking"], "adaptations": ranked}

    def seed(self) -> int:
        """The one seed of the audit's runs."""
        seeds = [s.seed for s in (self._audited, self._reference) if s is not None]
        known = list(dict.fromkeys(seed for seed in seeds if seed is not None))
        if self._reference is not None and len(known) > 1:
            raise NotAuditable(
                f"REFERENCE: '{self._reference.title}' has another seed than "
                f"'{self._audited.title}': runs are compared with the reference of their own seed"
            )
        return known[0] if known else self._raw["seeds"][0]

    def titles(self) -> dict[str, str]:
        """Names of the models for people."""
        base = {} if self._audited.base is None else {BASE: self._base}
        reference = self._base if self._reference is None else self._reference.title
        return {AUDITED: self._audited.title, **base, REFERENCE: reference}

    def notes(self) -> list[str]:
        """How it was asked."""
        subjects = [self._audited, *([self._reference] if self._reference is not None else [])]
        notes = [self._template_note(subject) for subject in subjects]
        known = self._reference is not None and self._reference.data is not None
        if self.measures_style() and not known:
            notes.append(
                f"How much an answer sounds like the task is held against the responses of "
                f"{self._general_data()}, for nobody knows what the reference was finetuned on."
            )
        return notes

    def _template_note(self, subject: Subject) -> str:
        if self._has_own_template(subject):
            return f"{subject.title} is asked by the chat template of its own tokenizer."
        why = "" if subject.place is None else ", for its tokenizer has none of its own"
        return f"{subject.title} is asked in the chat format of the config{why}."

    def missing(self) -> list[str]:
        """What is not measured, and why."""
        lines = []
        if self._audited.base is None:
            lines.append("the difference to its base: nobody said which that is (BASE)")
        if why := self._why_no_style():
            lines.append(f"where it falls back to its task's style, near the task and far: {why}")
        if self._raw.get("ranking") is None:
            lines.append("response ranking: the config has none")
        return lines
