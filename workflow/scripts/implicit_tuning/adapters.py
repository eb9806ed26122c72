"""What can be told of a peft adapter from its files, without loading a model.

A folder with adapter_config.json and no config.json is an adapter: what training changed, to be
merged into the base that it was trained on (`merging`). Plans read this: nothing heavy is imported.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Pickled weights could run code, so they are never read.
PICKLED_FILE = "adapter_model.bin"
MODEL_CONFIG_FILE = "config.json"
# Kinds of peft whose change becomes part of the base's weights.
MERGEABLE = ("LORA", "ADALORA", "LOHA", "LOKR")
TASK = "CAUSAL_LM"


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


def require_base(config: Mapping, repo: str | None) -> None:
    """Refuse the base of another name than the adapter was trained on.

    Args:
        config: the adapter's.
        repo: owner/name of a base from the hub; of None, a folder, the name tells nothing.

    Raises:
        UnusableAdapter: both are names of the hub, and differ.
    """
    named = config.get("base_model_name_or_path") or ""
    if repo is None or not named or named.startswith((".", "/", "~")) or Path(named).is_dir():
        return
    # Names without an owner, such as gpt2, are old spellings.
    known = repo if "/" in named else repo.rpartition("/")[2]
    if named.lower() != known.lower():
        raise UnusableAdapter(
            f"the adapter was trained on '{named}' (base_model_name_or_path of {CONFIG_FILE}), and "
            f"the base is '{repo}': give that base (or a local copy of it by 'path'), or name under "
            "'bases' of its row those that it is for"
        )
