"""Whether a result is still that of this code, these settings and these files: one hash of them.

The workflow's nodes are named by such hashes (`nodes`); this is the same for results of your own.
"""

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from implicit_tuning.nodes.code import Code, canonical_json, file_digest, short_hash
from implicit_tuning.nodes.digests import combined_sha256, file_sha256


def fingerprint(
    *code: str | Path,
    settings: object = None,
    libraries: Sequence[str] = (),
    files: Sequence[str | Path] = (),
) -> str:
    """One hash of all that decides a result; write it beside the result, and compare it later.

    Code counts by its syntax: comments, docstrings and formatting change nothing. With a module of
    this package counts all that it imports of the package. With a Python file of your own (give
    `__file__`) counts that file and what it imports of this package; name further files of yours.
    Settings count by value, the order of keys does not matter. Files count by content: a folder by
    the names in it, without hidden ones, but not by where it lies.

    >>> before = fingerprint("implicit_tuning.models.rule_adapter", settings={"rate": 0.1, "epochs": 2})
    >>> before == fingerprint("implicit_tuning.models.rule_adapter", settings={"epochs": 2, "rate": 1e-1})
    True
    >>> before == fingerprint("implicit_tuning.models.rule_adapter", settings={"rate": 0.1, "epochs": 3})
    False

    Args:
        code: modules of this package ("implicit_tuning.models.chat"), and Python files.
        settings: a JSON value (numbers, texts, lists, dictionaries), or a data class of such.
        libraries: distributions whose installed versions decide the result ("torch").
        files: files and folders that the result was made of.

    Returns:
        20 hexadecimal digits.

    Raises:
        TypeError: `libraries` or `files` is one name.
        ValueError: there is nothing to hash; or settings that are no JSON value.
        FileNotFoundError: a file of `code` or `files` does not exist.
        ModuleNotFoundError: a module or library that is not installed.
    """
    if not code and not libraries and not files and settings is None:
        raise ValueError("fingerprint of nothing: give code, settings, libraries or files")
    _check_lists(libraries=libraries, files=files)
    _check_installed(libraries)
    modules = {str(name) for name in code if not _is_file(name)}
    project = Code(tuple(modules), tuple(libraries))
    own = [file_digest(Path(name)) for name in code if _is_file(name)]
    return short_hash(
        {
            "code": [project.fingerprint, sorted(own)],
            "files": [_content(Path(path)) for path in files],
            "settings": _json_value(settings),
        }
    )


def _check_lists(**lists: Sequence[str | Path]) -> None:
    for key, value in lists.items():
        if isinstance(value, str | Path):
            name = str(value)
            raise TypeError(f"{key} is {name!r}: give a list of names, such as [{name!r}]")


def _check_installed(libraries: Sequence[str]) -> None:
    for name in libraries:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ModuleNotFoundError(
                f"the library {name!r} is not installed: install it, or take it out of libraries"
            ) from None


def _is_file(name: str | Path) -> bool:
    return str(name).endswith(".py")


def _content(path: Path) -> str:
    if not path.is_dir():
        return file_sha256(path)
    names = {p.relative_to(path): p for p in path.rglob("*") if p.is_file()}
    seen = {n: p for n, p in names.items() if not any(part.startswith(".") for part in n.parts)}
    return combined_sha256({name.as_posix(): file_sha256(p) for name, p in seen.items()})


def _json_value(settings: object) -> object:
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = dataclasses.asdict(settings)
    try:
        canonical_json(settings)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"settings {str(settings)[:200]} are no JSON value ({error}): give numbers, texts, "
            "lists and dictionaries of them"
        ) from None
    return settings
