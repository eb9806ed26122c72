"""A file of rows that a checkpoint was finetuned on; its columns tell which formatter reads it."""

import importlib
import pkgutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from implicit_tuning.commands.audit.model_place import NotAuditable
from implicit_tuning.data import formatters
from implicit_tuning.data.formatting import FormattingError, format_training
from implicit_tuning.data.reading import SUFFIXES, UnreadableSource, read_rows
from implicit_tuning.data.rows import WrongSchema

REGISTRY = Path("config/datasets.yaml")
TRIED_ROWS = 100  # that are formatted before anything is planned
LEAST_ROWS = 2  # similarity tells near from far by how near training instructions are to each other


def is_file_name(name: str, datasets: Collection[str]) -> bool:
    """Whether this is meant as a file of rows, and not as a data set by name.

    Args:
        datasets: names in the config, beside which those of config/datasets.yaml are known.

    Raises:
        NotAuditable: it reads like a file and is none, or is a folder.
    """
    file = Path(name)
    if name in datasets or name in yaml.safe_load(REGISTRY.read_text("utf-8"))["datasets"]:
        return False
    if file.is_file():
        return True
    if file.is_dir():
        raise NotAuditable(f"TASK_DATA: '{name}' is a folder: give the file of rows in it")
    if "/" in name or file.suffix.lower() in SUFFIXES:
        raise NotAuditable(
            f"TASK_DATA: there is no file '{name}': correct the path, or give a data set of "
            f"{REGISTRY} by its name"
        )
    return False


def dataset_entry(file: Path) -> dict[str, Any]:
    """The entry of a training set in a local file, as config/datasets.yaml has them.

    Of the formatters whose columns the first row has, the one with the most is taken.

    Raises:
        NotAuditable: the file cannot be read, is empty, or has the columns of no formatter.
    """
    try:
        row = next(read_rows(file), None)
    except (UnreadableSource, OSError) as error:
        raise NotAuditable(f"TASK_DATA: {error}") from None
    if row is None:
        raise NotAuditable(f"TASK_DATA: '{file}' has no rows: give the file of the training data")
    layouts = training_layouts()
    fitting = {name: columns for name, columns in layouts.items() if columns <= set(row)}
    if not fitting:
        known = "; ".join(f"{name}: {', '.join(sorted(c))}" for name, c in layouts.items())
        raise NotAuditable(
            f"TASK_DATA: '{file}' has the columns {', '.join(sorted(row))}, which no formatter "
            f"reads: rename them to those of one ({known})"
        )
    formatter = max(fitting, key=lambda name: len(fitting[name]))
    return {
        "kind": "training",
        "formatter": formatter,
        "path": str(file),
        "licence": "unknown",
        "gated": False,
    }


def require_usable_rows(entry: Mapping) -> None:
    """Format the first rows of such an entry, into nothing.

    Raises:
        NotAuditable: the formatter refuses one of them, or too few can be used.
    """
    file, formatter = Path(entry["path"]), entry["formatter"]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            report = format_training(file, formatter, TRIED_ROWS, "given", Path(scratch))
        except (UnreadableSource, WrongSchema, FormattingError) as error:
            raise NotAuditable(f"TASK_DATA: {error}") from None
    if report.used < LEAST_ROWS:
        raise NotAuditable(
            f"TASK_DATA: '{file}' has {report.used} row that can be used: give at least "
            f"{LEAST_ROWS}"
        )


def training_layouts() -> Mapping[str, frozenset[str]]:
    """The columns that each formatter of training data reads."""
    names = [module.name for module in pkgutil.iter_modules(formatters.__path__)]
    modules = {name: importlib.import_module(f"{formatters.__name__}.{name}") for name in names}
    return {n: frozenset(m.COLUMNS) for n, m in modules.items() if hasattr(m, "to_messages")}
