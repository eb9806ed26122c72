"""What can be wrong with a model that a config names, found from its folder before any job starts."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from implicit_tuning.models.adapters import (
    CONFIG_FILE,
    UnusableAdapter,
    is_adapter_folder,
    read_adapter,
    require_base,
    require_same_weights,
)

MODEL_FILES = {
    "config.json": ("config.json",),
    "a tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    "safetensors weights": ("model.safetensors", "model.safetensors.index.json"),
}
PICKLED = "pytorch_model*.bin"
# Bytes of weights that are hashed in a moment; a plan is made often.
HASHED_AT_ONCE = 2**27
# How transformers names the models that write text, one token after another. Those of the last kind
# have a part for text in them; without one they first read a whole text, as T5 does.
WRITES_TEXT = ("ForCausalLM", "LMHeadModel", "WithLMHead", "GenerationDecoder")
OF_SEVERAL_PARTS = "ForConditionalGeneration"
TEMPLATE_PLACES = ("chat_template.jinja", "additional_chat_templates", "chat_templates")


def model_problems(where: str, entry: Mapping) -> Iterator[str]:
    """What is wrong with the model of an entry that has `path` or `hub`."""
    yield from one_place_problems(where, entry)
    if "path" in entry:
        yield from _folder_problems(f"{where}.path", entry["path"])


def checkpoint_problems(where: str, entry: Mapping, bases: Mapping[str, Mapping]) -> Iterator[str]:
    """What is wrong with a checkpoint from elsewhere, a model or an adapter of these bases."""
    if not ("path" in entry and is_adapter_folder(entry["path"])):
        yield from model_problems(where, entry)
    else:
        yield from one_place_problems(where, entry)
        yield from _adapter_problems(f"{where}.path", entry["path"], bases)
    if entry.get("chat", {}).get("own_template"):
        yield from _template_problems(where, entry, bases)


def one_place_problems(where: str, entry: Mapping) -> Iterator[str]:
    """An entry without a place of its model, or with two."""
    given = [place for place in ("path", "hub") if place in entry]
    if len(given) != 1:
        yield f"{where}: give exactly one of path (a local folder), hub, not {given or 'none'}"


def _adapter_problems(where: str, path: Path, bases: Mapping[str, Mapping]) -> Iterator[str]:
    try:
        config = read_adapter(path)
    except UnusableAdapter as error:
        yield f"{where}: {error}"
        return
    for name, base in bases.items():
        try:
            require_base(config, base.get("hub", {}).get("repo"))
            if "path" in base:
                require_same_weights(config, base["path"], HASHED_AT_ONCE)
        except UnusableAdapter as error:
            yield f"{where}: of '{name}': {error}"


def _folder_problems(where: str, path: Path) -> Iterator[str]:
    """What a model folder lacks, or has that is no language model's."""
    if not path.is_dir():
        what = "is a file, not a model folder" if path.is_file() else "does not exist"
        yield f"{where}: '{path}' {what}; correct the path, or data_root"
        return
    if is_adapter_folder(path):
        yield (
            f"{where}: '{path}' is an adapter, no model of its own; give it as an adaptation of kind "
            "'checkpoint', and its base here"
        )
        return
    for what, choices in MODEL_FILES.items():
        if any((path / choice).is_file() for choice in choices):
            continue
        if what == "safetensors weights" and any(path.glob(PICKLED)):
            yield (
                f"{where}: '{path}' has its weights in pickle ({PICKLED}), which could run code and "
                "is never read; load it where you trust it and save it as safetensors"
            )
        else:
            yield f"{where}: '{path}' lacks {what} ({' or '.join(choices)}); add it to the folder"
    if (path / "config.json").is_file():
        yield from _kind_problems(where, path)


def _kind_problems(where: str, path: Path) -> Iterator[str]:
    config = _read(path / "config.json")
    if config is None:
        yield f"{where}: '{path / 'config.json'}' is no JSON object; save the model again"
        return
    names = config.get("architectures") or []
    if names and not any(_writes_text(name, config) for name in names):
        yield (
            f"{where}: '{path}' is no causal language model but {', '.join(names)} (architectures of "
            "its config.json); give one that writes text, such as a ...ForCausalLM"
        )
    if (path / CONFIG_FILE).is_file():
        yield (
            f"{where}: '{path}' has a model and an adapter ({CONFIG_FILE}), and only one can be meant; "
            "put them into two folders"
        )


def _writes_text(name: str, config: Mapping) -> bool:
    several_parts = name.endswith(OF_SEVERAL_PARTS) and "text_config" in config
    return several_parts or name.endswith(WRITES_TEXT)


def _template_problems(where: str, entry: Mapping, bases: Mapping[str, Mapping]) -> Iterator[str]:
    """A checkpoint whose own template is asked for, and that has none, as far as can be seen."""
    entries = [entry]
    if "path" in entry and is_adapter_folder(entry["path"]):
        entries += bases.values()
    folders = [each["path"] for each in entries if "path" in each and each["path"].is_dir()]
    all_here = len(folders) == len(entries)
    if all_here and not any(map(_has_template, folders)):
        yield (
            f"{where}.chat.own_template: True: '{entry['path']}' has no chat template; take the key "
            "out to ask by our tags, or add its chat_template.jinja"
        )


def _has_template(folder: Path) -> bool:
    settings = _read(folder / "tokenizer_config.json") or {}
    return "chat_template" in settings or any((folder / n).exists() for n in TEMPLATE_PLACES)


def _read(file: Path) -> dict | None:
    """A JSON object, or None where the file holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) else None
