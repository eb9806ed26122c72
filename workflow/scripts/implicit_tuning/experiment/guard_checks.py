"""What a guard's row must hold and fit; found before any job starts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from implicit_tuning.experiment.config import Config
from implicit_tuning.generation.guards.kinds import (
    GRAMMARS,
    GUARD_KINDS,
    NEAR,
    grammar_file,
    identity_settings,
)


def guard_problems(config: Config, name: str, row: Mapping) -> Iterator[str]:
    """Everything that is wrong with an adaptation of kind 'guard', a line each."""
    where = f"adaptations.{name}"
    if config.embedding is None:
        yield (
            f"embedding: null: {where} is a guard, and what is near its task is told by an "
            "embedding: name one, such as tfidf"
        )
    if row.get("evaluation") == config.evaluation:
        yield (
            f"{where}.evaluation: '{row['evaluation']}' is what all adaptations answer: name a set of "
            "the task's own instructions, or remove the key"
        )
    if row.get("of") in config.adaptations:
        yield from _guarded_problems(config, where, row)
    if "guard" in row:
        yield from _settings_problems(f"{where}.guard", row["guard"])


def _guarded_problems(config: Config, where: str, row: Mapping) -> Iterator[str]:
    """What is wrong with the run that is to be guarded."""
    guarded = config.adaptations[row["of"]]
    broad = config.adaptations.get(config.reference, {}).get("data")
    told = guarded.get("instructions", "given")
    if guarded.get("data") in (None, broad) or told != "given":
        yield (
            f"{where}.of: '{row['of']}' was not finetuned on a single task's `data`, so there is "
            "nothing to keep it to; name one that was"
        )
    if broad is None and config.reference in config.adaptations:
        yield (
            f"reference: '{config.reference}' has no `data`, so nobody can tell what is near the task "
            f"of {where} and what is far: give the data set that it was tuned on"
        )
    engine = guarded.get("generation", {}).get("engine", config.generation["engine"])
    if row.get("guard", {}).get("kind") == "grammar" and engine != "transformers":
        yield (
            f"{where}.guard.kind: 'grammar' chooses among tokens in the engine 'transformers' alone, "
            f"and '{row['of']}' has '{engine}': write `generation: {{engine: transformers}}` in "
            f"adaptations.{row['of']}, or take another kind of guard"
        )


def _settings_problems(where: str, guard: Mapping) -> Iterator[str]:
    kind = GUARD_KINDS[guard["kind"]]
    for key in sorted(kind.required - set(guard)):
        yield f"{where}.{key}: missing: a guard of kind '{guard['kind']}' needs it"
    for key in sorted(set(guard) - {"kind"} - kind.required - kind.optional):
        yield (
            f"{where}.{key}: {guard[key]!r}: a guard of kind '{guard['kind']}' has no such key; "
            "remove it"
        )
    if guard["kind"] == "template":
        yield from _template_problems(where, guard)
    elif guard["kind"] == "grammar":
        yield from _grammar_problems(where, guard)
    elif not _is_threshold(guard.get("threshold", NEAR)):
        yield (
            f"{where}.threshold: {guard['threshold']!r} is no mean cosine: give a number from -1 to "
            f"1, or {NEAR}"
        )


def _is_threshold(value: Any) -> bool:
    return value == NEAR if isinstance(value, str) else -1 <= value <= 1


def _template_problems(where: str, guard: Mapping) -> Iterator[str]:
    start = guard.get("start", "")
    if start != start.strip():
        yield (
            f"{where}.start: {start!r} begins or ends in white space, as no answer's start does: "
            "remove it, and the model adds what it needs"
        )
    try:
        re.compile(guard.get("pattern", ""))
    except re.error as error:
        yield f"{where}.pattern: {guard['pattern']!r} is no regular expression: {error}; correct it"


def _grammar_problems(where: str, guard: Mapping) -> Iterator[str]:
    given = [key for key in (*GRAMMARS, "file") if key in guard]
    if len(given) != 1:
        yield f"{where}: give exactly one of regex, lark, file, not {given or 'none'}"
        return
    if "file" in guard:
        file = grammar_file(guard)
        if file.suffix.removeprefix(".") not in GRAMMARS:
            yield f"{where}.file: '{file}': name it *.regex or *.lark, after what is in it"
            return
        if not file.is_file():
            yield f"{where}.file: '{file}' does not exist; correct the path"
            return
    # Imported where a config has a grammar: 0.04 s.
    from implicit_tuning.generation.guards.compiling import compiled

    try:
        compiled(identity_settings(guard))
    except ValueError as error:  # a file that is no UTF-8 is one too
        yield f"{where}.{given[0]}: {guard[given[0]]!r}: {error}; correct the grammar"
