"""What can be told of a peft adapter from its files, without loading a model.

A folder with adapter_config.json and no config.json is an adapter: what training changed, to be
merged into the base that it was trained on (`merging`). Plans read this: nothing heavy is imported.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from implicit_tuning.nodes.digests import combined_sha256, file_sha256

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Pickled weights could run code, so they are never read.
PICKLED_FILE = "adapter_model.bin"
MODEL_CONFIG_FILE = "config.json"
# Kinds of peft whose change becomes part of the base's weights.
MERGEABLE = ("LORA", "ADALORA", "LOHA", "LOKR")
TASK = "CAUSAL_LM"
NAMES_BASE = "base_model_name_or_path"


class UnusableAdapter(ValueError):
    """An adapter that cannot be merged into its base; the message says why, and what to do."""


def is_adapter(names: Collection[str]) -> bool:
    """Whether files of these names, in one folder, are an adapter."""
    return CONFIG_FILE in names and MODEL_CONFIG_FILE not in names


def is_adapter_folder(folder: Path) -> bool:
    """Whether a local folder holds an adapter."""
    return is_adapter(
        {name for name in (CONFIG_FILE, MODEL_CONFIG_FILE) if (folder / name).is_file()}
    )


def read_adapter(folder: Path) -> dict:
    """The adapter_config.json of a folder whose adapter can be merged.

    Raises:
        UnusableAdapter: it is not JSON, of a kind that has no merge, for another task than language
            modelling, or its weights are missing or pickled.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise UnusableAdapter(f"{folder / CONFIG_FILE} is no JSON object: save the adapter again")
    kind = config.get("peft_type")
    if kind not in MERGEABLE:
        raise UnusableAdapter(
            f"{folder} is an adapter of kind '{kind}', which cannot be merged into its base; those "
            f"that can are {', '.join(MERGEABLE)}"
        )
    if config.get("task_type") not in (None, TASK):
        raise UnusableAdapter(
            f"{folder} is an adapter for '{config['task_type']}', not for '{TASK}': give one of a "
            "language model that writes text"
        )
    if not (folder / WEIGHTS_FILE).is_file():
        raise UnusableAdapter(_no_weights(folder))
    return config


def _no_weights(folder: Path) -> str:
    if not (folder / PICKLED_FILE).is_file():
        return f"{folder} lacks the adapter's weights ({WEIGHTS_FILE}): add them to the folder"
    return (
        f"{folder} has its weights in pickle ({PICKLED_FILE}), which could run code and is never "
        f"read: load the adapter with peft where you trust it, and save it as {WEIGHTS_FILE}"
    )


def named_base(config: Mapping) -> str:
    """The base that an adapter's config names, a folder or owner/name; "" where it names none.

    Raises:
        UnusableAdapter: what stands there is no text.
    """
    named = config.get(NAMES_BASE) or ""
    if not isinstance(named, str):
        raise UnusableAdapter(
            f"{NAMES_BASE} of {CONFIG_FILE} is {named!r}, no text: write the folder or the "
            "owner/name of the base there"
        )
    return named


def require_base(config: Mapping, repo: str | None) -> None:
    """Refuse the base of another name than the adapter was trained on.

    `repo` is owner/name of a base from the hub; None, for a folder, is not compared.

    Raises:
        UnusableAdapter: both are names of the hub, and differ.
    """
    named = named_base(config)
    if repo is None or not named or named.startswith((".", "/", "~")) or Path(named).is_dir():
        return
    # Names without an owner, such as gpt2, are old spellings.
    known = repo if "/" in named else repo.rpartition("/")[2]
    if named.lower() != known.lower():
        raise UnusableAdapter(
            f"the adapter was trained on '{named}' ({NAMES_BASE} of {CONFIG_FILE}), and "
            f"the base is '{repo}': give that base (or a local copy of it by 'path'), or name under "
            "'bases' of its row those that it is for"
        )


def require_same_weights(config: Mapping, base: Path, hashed: int | None = None) -> None:
    """Where the base that an adapter names lies on this machine, it must be the one given.

    Of more than `hashed` bytes of weights, only names and sizes are compared. None reads all.

    Raises:
        UnusableAdapter: its weights are others.
    """
    named = Path(named_base(config))
    if named == Path() or named.resolve() == base.resolve():
        return
    sizes, others = _weight_sizes(named), _weight_sizes(base)
    if not (sizes and others):
        return
    read = hashed is None or sum(sizes.values()) <= hashed
    if sizes != others or (read and _weights_sha256(named) != _weights_sha256(base)):
        raise UnusableAdapter(
            f"the adapter was trained on {named}, whose weights are not those of {base}: give that "
            "folder as the base"
        )


def _weight_sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.glob("*.safetensors")}


def _weights_sha256(folder: Path) -> str:
    return combined_sha256({file.name: file_sha256(file) for file in folder.glob("*.safetensors")})
