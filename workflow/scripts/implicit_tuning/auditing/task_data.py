"""A file of rows that a checkpoint was finetuned on; its columns tell which formatter reads it."""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from implicit_tuning import datasets
from implicit_tuning.auditing.places import NotAuditable
from implicit_tuning.reading import UnreadableSource, read_rows


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


def training_layouts() -> Mapping[str, frozenset[str]]:
    """The columns that each formatter of training data reads."""
    names = [module.name for module in pkgutil.iter_modules(datasets.__path__)]
    modules = {name: importlib.import_module(f"{datasets.__name__}.{name}") for name in names}
    return {n: frozenset(m.COLUMNS) for n, m in modules.items() if hasattr(m, "to_messages")}
