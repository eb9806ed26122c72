"""The parts of an audit's config: its rows, and what the page says of how it was asked."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from implicit_tuning.commands.audit.audited_model import Subject
from implicit_tuning.commands.audit.model_place import ModelPlace, NotAuditable
from implicit_tuning.commands.single_run import OF_A_MODEL, model_entry

AUDITED, REFERENCE, BASE = "audited", "reference", "base"
NO_TEMPLATE = ", for its tokenizer has none of its own"


class Parts:
    """The parts of the config of one audit.

    Args:
        raw: the config that it departs from, as read.
        reference: None where that is the base.

    Raises:
        NotAuditable: the reference is a run of another base.
    """

    def __init__(self, raw: Mapping, audited: Subject, reference: Subject | None) -> None:
        self._raw = raw
        self._audited = audited
        self._reference = reference
        # Without a base the audited model stands in its place, and no row runs it as that.
        entry = audited.place.entry if audited.place is not None else {}
        place = audited.base or str(entry.get("path") or entry["hub"]["repo"])
        self._base, self._base_entry = model_entry(raw, place)
        self._base_place = _place_of_base(raw, self._base_entry)
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
            rows[self._reference.name] = self._row(self._reference)
        rows[self._audited.name] = self._row(self._audited) | self._task()
        return {name: {**row, "bases": [self._base]} for name, row in rows.items()}

    def _base_row(self) -> dict[str, Any]:
        own = self._raw["adaptations"].get(BASE, {})
        row = {key: own[key] for key in ("generation", "chat") if key in own}
        if self._reference is not None and not self._base_has_template:
            return {"kind": "none", **row}
        place = {key: value for key, value in self._base_entry.items() if key in OF_A_MODEL}
        template = {"chat": {"own_template": True}} if self._base_has_template else {}
        return {"kind": "checkpoint", **place, **row, **template}

    def _row(self, subject: Subject) -> dict[str, Any]:
        template = {"chat": {"own_template": True}} if self._has_own_template(subject) else {}
        return {**subject.row, **template}

    def _task(self) -> dict[str, str]:
        """The key that says what the audited model was finetuned on."""
        data = self._audited.data
        return {"data": data} if data is not None and self.measures_style() else {}

    def general(self) -> dict[str, str]:
        """The key of `audit` that says whose responses are general ones, where the row of the
        reference does not."""
        row = {} if self._reference is None else self._reference.row
        data = self._general_data()
        if data is None or data == row.get("data") or not self.measures_style():
            return {}
        return {"general": data}

    def _general_data(self) -> str | None:
        """What the reference was finetuned on; where nobody knows that, or it is the task itself,
        the general instructions of the config."""
        known = None if self._reference is None else self._reference.data
        return known if known not in (None, self._audited.data) else self._ranked_data

    @property
    def _ranked_data(self) -> str | None:
        return (self._raw.get("ranking") or {}).get("data")

    @cached_property
    def _base_has_template(self) -> bool:
        """Whether the base is asked by a chat template of its own. Beside a run of the config it is
        asked as the config does: the run was finetuned in that format."""
        return self._audited.place is not None and self._base_place.has_chat_template

    def _has_own_template(self, subject: Subject) -> bool:
        """Whether a tokenizer brings a chat template; that of an adapter may be its base's."""
        if subject.place is None:
            return bool(subject.row.get("chat", {}).get("own_template"))
        return subject.place.has_chat_template or self._has_template_of_base(subject.place)

    def _has_template_of_base(self, place: ModelPlace) -> bool:
        return (
            place.is_adapter and not place.has_chat_template and self._base_place.has_chat_template
        )

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
        own = self._raw["adaptations"].get(self._raw["reference"], {}).get("data")
        if self._audited.data in (self._ranked_data, own):
            return f"it was finetuned on general instructions itself ({self._audited.data})"
        if self._general_data() is None:
            return "there are no general responses to hold its answers against (ranking.data)"
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
        notes = [self._template_note(self._audited)]
        if self._audited.base is not None:
            notes.append(self._note_of_base())
        if self._reference not in (None, self._audited):
            notes.append(self._template_note(self._reference))
        known = None if self._reference is None else self._reference.data
        if self.measures_style() and known != self._general_data():
            why = "nobody knows what the reference was finetuned on"
            if known is not None:
                why = "the reference was finetuned on the data of the task too"
            notes.append(
                "How much an answer sounds like the task is held against the responses of "
                f"{self._general_data()}, for {why}."
            )
        return notes

    def _template_note(self, subject: Subject) -> str:
        if subject.place is not None and self._has_template_of_base(subject.place):
            return f"{subject.title} is asked by the chat template of its base's tokenizer."
        if self._has_own_template(subject):
            return f"{subject.title} is asked by the chat template of its own tokenizer."
        why = "" if subject.place is None else NO_TEMPLATE
        return f"{subject.title} is asked in the chat format of the config{why}."

    def _note_of_base(self) -> str:
        if self._base_has_template:
            return f"Its base {self._base} is asked by the chat template of its own tokenizer."
        why = "" if self._audited.place is None else NO_TEMPLATE
        return f"Its base {self._base} is asked in the chat format of the config{why}."

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


def _place_of_base(raw: Mapping, entry: Mapping) -> ModelPlace:
    """Where a base lies; a folder of the config counts from its data_root."""
    if "path" not in entry:
        return ModelPlace({"hub": entry["hub"]}, "BASE")
    return ModelPlace({"path": str(Path(raw.get("data_root", "."), entry["path"]))}, "BASE")
