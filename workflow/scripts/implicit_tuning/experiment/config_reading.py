"""The config: read, checked against the closed schema, and checked against what it names.

All problems are found before any job starts and reported together, each with key, value and fix.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from implicit_tuning.experiment.config import SOURCES, Config, ConfigError, merge, suggest
from implicit_tuning.experiment.config_checks import reference_problems
from implicit_tuning.judging.kinds import FILES, with_kinds
from implicit_tuning.remote.lockfile import read_lock

# What to do about a value that the schema refuses, by the schema's keyword.
TYPES = "array is a list such as [1, 2], object is keys with values"
FIXES = {
    "type": f": write a value of that type ({TYPES})",
    "minItems": ": give at least {}",
    "minProperties": ": give at least {}",
    "uniqueItems": ": remove what stands twice",
    "pattern": ": use letters, digits, '.', '_' and '-' for names; hexadecimal digits for digests",
    "minLength": ": give a text",
    "minimum": ": give at least {}",
    "maximum": ": give at most {}",
    "exclusiveMinimum": ": give more than {}",
    "not": ": the name is taken; choose another",
}
# Sections whose entries may name a model.
WITH_MODELS = ("bases", "adaptations", "judges", "embeddings")
# A secret that was put where none belongs is not printed.
SECRET_NAME = re.compile(r"api_?key|secret|password|passwd|token$", re.IGNORECASE)
NEVER_SHOWN = frozenset({"api_key_env", "base_url", "address"})
SECRET_FIX = (
    "a secret stands in an environment variable, never in a config: write the variable's name "
    "into 'api_key_env'"
)


def read_config(files: list[Path], root: Path, overrides: Sequence[str] = ()) -> Config:
    """Config from YAML files, later ones overriding earlier ones key by key.

    Relative paths refer to `root`. Overrides are "key=value" for top-level keys, the value in YAML.

    Raises:
        ConfigError: lists every problem.
    """
    return load_config(read_raw(files, overrides), root)


def read_raw(files: Sequence[Path], overrides: Sequence[str] = ()) -> dict:
    """What stands in YAML files, later ones over earlier ones, and in overrides; not checked.

    Raises:
        ConfigError: a file or an override cannot be read.
    """
    merged: dict = {}
    for file in files:
        if not file.is_file():
            raise ConfigError([f"config file '{file}' does not exist"])
        merged = merge(merged, _read_yaml(file))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError([f"--config {override}: write it as KEY=VALUE"])
        merged = merge(merged, {key: _parse_yaml(value, f"--config {override}")})
    return merged


def load_config(raw: Mapping, root: Path) -> Config:
    """Validated config.

    `raw` is the merged config as read, such as Snakemake's `config`. Relative paths refer to
    `root`.

    Raises:
        ConfigError: lists every problem.
    """
    schema = with_kinds(_read_yaml(root / "config" / "schema.yaml"))
    problems = list(_value_problems(raw))
    if problems:
        raise ConfigError(problems)
    values = _without_null_places(_coerce(dict(raw), schema, schema))
    registry = _read_yaml(root / "config" / "datasets.yaml")["datasets"]
    datasets = _entries(registry, values.get("datasets", {}))
    problems = list(_schema_problems({**values, "datasets": datasets}, schema))
    if problems:
        raise ConfigError(problems)
    data_root = root / values.pop("data_root", ".")
    values["datasets"] = {name: _located(entry, data_root) for name, entry in datasets.items()}
    for section in WITH_MODELS:
        entries = values.get(section, {}).items()
        values[section] = {name: _located(entry, data_root) for name, entry in entries}
    values["seeds"] = tuple(values["seeds"])
    try:
        values["lock"] = read_lock(root / "config" / "lock.yaml")
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    config = Config(**{f.name: values[f.name] for f in fields(Config) if f.name in values})
    # Two adaptations on one data set meet the same problem.
    problems = list(dict.fromkeys(reference_problems(config)))
    if problems:
        raise ConfigError(problems)
    return config


def _without_null_places(values: Mapping) -> dict:
    """Without the places that an entry was told to forget: `hub: null, path: ...` over a file that
    has `hub`, since Snakemake merges files key by key."""
    found = dict(values)
    for section in (*WITH_MODELS, "datasets"):
        entries = found.get(section)
        if isinstance(entries, Mapping):
            found[section] = {name: _given_places(entry) for name, entry in entries.items()}
    return found


def _given_places(entry: object) -> object:
    if not isinstance(entry, Mapping):
        return entry
    return {k: v for k, v in entry.items() if not (k in SOURCES and v is None)}


def _entries(registry: Mapping, own: Mapping) -> dict:
    """Registry entries under the config's own ones; a source given there replaces the other."""
    if not isinstance(own, Mapping):
        return own
    entries = dict(registry)
    for name, entry in own.items():
        below = registry.get(name, {})
        given = set(SOURCES) & set(entry) if isinstance(entry, Mapping) else set()
        if given:
            below = {k: v for k, v in below.items() if k not in SOURCES or k in given}
        entries[name] = merge(below, entry) if isinstance(entry, Mapping) else entry
    return entries


def _parse_yaml(text: str, where: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([f"{where} is not YAML: {error}"]) from None


def _read_yaml(file: Path) -> dict:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file} is not UTF-8 text ({error}): save it as UTF-8"]) from None
    content = _parse_yaml(text, str(file))
    if not isinstance(content, dict):
        raise ConfigError([f"{file} must hold keys and values, not {type(content).__name__}"])
    return content


def _located(entry: Mapping, data_root: Path) -> dict:
    files = {key: (data_root / entry[key]).resolve() for key in ("path", *FILES) if key in entry}
    return {**entry, **files}


# --- schema -------------------------------------------------------------------------------------


def _coerce(value: Any, schema: Mapping, whole: Mapping) -> Any:
    """Equal values in one type, so that 1e-4, 1.0e-4 and "0.0001" give one key.

    YAML 1.1 reads 1e-4 as a string, and so does the command line with every nested value.
    """
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        others = others if isinstance(others, Mapping) else {}
        return {k: _coerce(v, known.get(k, others), whole) for k, v in value.items()}
    if isinstance(value, list):
        return [_coerce(item, schema.get("items", {}), whole) for item in value]
    types = schema.get("type", ())
    for kind, convert in (("integer", int), ("number", float)):
        if kind in types and isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                converted = convert(value)
            except (ValueError, OverflowError):
                continue
            # An integer key given 1.5 keeps it, and the schema refuses it.
            return converted if isinstance(value, str) or converted == value else value
    return value


def _value_problems(value: object, key: str = "") -> Iterator[str]:
    """Keys that are no names and numbers that are none, which no schema can refuse."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            where = f"{key}.{name}" if key else str(name)
            if not isinstance(name, str):
                yield f"{where}: the key {name!r} is not a text: put it in quotes"
            yield from _value_problems(item, where)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _value_problems(item, f"{key}.{place}")
    elif str(value).lower().lstrip("+-.") in ("nan", "inf", "infinity"):
        yield f"{key}: {value!r} is not a finite number: give one"


def _schema_problems(values: Mapping, schema: Mapping) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(values), key=lambda e: [str(p) for p in e.path]):
        key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            for unknown in sorted(set(error.instance) - set(known), key=str):
                name = f"{key}.{unknown}" if error.absolute_path else unknown
                value = "(not shown)" if _is_secret(unknown) else repr(error.instance[unknown])
                yield f"{name}: {value}: unknown key; {suggest(unknown, known)}"
                if _is_secret(unknown):
                    yield f"{name}: {SECRET_FIX}"
        elif error.validator == "enum":
            choices = [str(choice) for choice in error.validator_value]
            yield f"{key}: {error.instance!r} is not possible; {suggest(error.instance, choices)}"
        elif error.validator == "pattern" and error.path[-1] in NEVER_SHOWN:
            yield f"{key}: must match {error.validator_value} (not shown): {SECRET_FIX}"
        elif error.validator == "required":
            registry = error.absolute_path and error.absolute_path[0] == "datasets"
            file = "datasets.yaml" if registry else "config.yaml"
            yield f"{key}: {error.message}: add it (config/{file} explains each key)"
        else:
            fix = FIXES.get(error.validator, "").format(error.validator_value)
            yield f"{key}: {error.message}{fix}"


def _is_secret(key: object) -> bool:
    return SECRET_NAME.search(str(key)) is not None
