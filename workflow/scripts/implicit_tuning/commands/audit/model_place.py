"""Where an audited model lies, and what its small files tell before anything of it is fetched."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open

from implicit_tuning.commands.lock.command import LOCK_FILE
from implicit_tuning.commands.lock.lookup import resolve_model
from implicit_tuning.models.adapters import (
    CONFIG_FILE,
    MODEL_CONFIG_FILE,
    UnusableAdapter,
    is_adapter_folder,
    named_base,
)
from implicit_tuning.models.soundness import default_template, kind_problem, template_problem
from implicit_tuning.remote.lockfile import LockError, Pin, lock_name, read_lock, write_pins

REVISION = "main"
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


class NotAuditable(LookupError):
    """What was asked for cannot be audited; the message names key, value and fix."""


@dataclass(frozen=True)
class ModelPlace:
    """A model folder, or a repository of the hub (which is pinned when it is first looked at).

    Attributes:
        entry: as the config writes it, {"path": ...} or {"hub": {"repo": ...}}.
        key: what the user gave it as, for messages.
    """

    entry: Mapping[str, Any]
    key: str

    def has(self, name: str) -> bool:
        """Whether the model has a file of this name."""
        if "path" in self.entry:
            return Path(self.entry["path"], name).is_file()
        return name in self._pin.files

    def read(self, name: str) -> dict:
        """A JSON file of the model; empty where there is none.

        Raises:
            NotAuditable: it is no JSON object, or the hub cannot be asked.
        """
        if not self.has(name):
            return {}
        try:
            content = json.loads(self._file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotAuditable(f"{self}: {name} cannot be read ({error}): restore it") from None
        if not isinstance(content, dict):
            raise NotAuditable(f"{self}: {name} holds no JSON object: restore it")
        return content

    @property
    def is_adapter(self) -> bool:
        """Whether it is a peft adapter, which needs a base."""
        return self.has(CONFIG_FILE) and not self.has(MODEL_CONFIG_FILE)

    @property
    def adapted(self) -> str | None:
        """The base that it names as an adapter; None where it names none, or is no adapter.

        Raises:
            NotAuditable: what stands there is no text.
        """
        try:
            return named_base(self.read(CONFIG_FILE)) or None
        except UnusableAdapter as error:
            raise NotAuditable(f"{self}: {error}, or take the key out and give BASE=...") from None

    @cached_property
    def has_chat_template(self) -> bool:
        """Whether its tokenizer has a chat template of its own.

        Raises:
            NotAuditable: it has one that is damaged.
        """
        template, file = self._template()
        if template is None:
            return False
        if problem := template_problem(template):
            raise NotAuditable(
                f"{self}: the chat template in {file} {problem}: restore it, or remove it to have "
                "the model asked in the chat format of the config"
            )
        return True

    def _template(self) -> tuple[object, str]:
        """The chat template, or None, and the file in which it stands."""
        if not self.has(TEMPLATE_FILE):
            settings = self.read(TOKENIZER_CONFIG)
            return default_template(settings.get("chat_template")), TOKENIZER_CONFIG
        try:
            return self._file(TEMPLATE_FILE).read_text(encoding="utf-8"), TEMPLATE_FILE
        except (OSError, UnicodeDecodeError) as error:
            raise NotAuditable(
                f"{self}: {TEMPLATE_FILE} cannot be read ({error}): restore it"
            ) from None

    def require_readable(self) -> None:
        """Refuse a folder that holds no model, or one whose files are damaged: plans read them to
        reckon with, and jobs would fail.

        Raises:
            NotAuditable: names the file.
        """
        folder = Path(self.entry["path"])
        if not (self.has(MODEL_CONFIG_FILE) or is_adapter_folder(folder)):
            raise NotAuditable(
                f"{self} lacks {MODEL_CONFIG_FILE}, and {CONFIG_FILE} of an adapter: it is no "
                "model folder; give the folder that has one of them"
            )
        self.read(TOKENIZER_CONFIG)
        for file in sorted((*folder.glob(TOKENIZER), *folder.glob("*.safetensors"))):
            try:
                _open(file)
            except Exception as error:  # noqa: BLE001 - the tokenizer's has no narrower class
                raise NotAuditable(
                    f"{self}: {file.name} cannot be read ({error}): restore it"
                ) from None
        self.require_writer()

    def require_writer(self) -> None:
        """Refuse a model that could not write text, as far as its config.json tells.

        Raises:
            NotAuditable: says why.
        """
        config = self.read(MODEL_CONFIG_FILE)
        if config and (problem := kind_problem(config)):
            raise NotAuditable(f"{self} {problem}")

    def __str__(self) -> str:
        where = self.entry.get("path") or self.entry["hub"]["repo"]
        return f"{self.key}: '{where}'"

    @property
    def _repo(self) -> str:
        return self.entry["hub"]["repo"]

    @cached_property
    def _pin(self) -> Pin:
        """The pinned files of the repository; one that is not pinned yet is pinned now."""
        from implicit_tuning.remote.hub import HubFailed

        revision = self.entry["hub"].get("revision", REVISION)
        name = lock_name("models", self._repo, revision)
        known = read_lock(LOCK_FILE).get(name)
        if known is not None:
            return known
        try:
            pin = resolve_model(self._repo, revision)
        except (HubFailed, LockError) as error:
            raise NotAuditable(
                f"{self.key}: {error}; nor is there a folder '{self._repo}' here "
                f"({self.key}=<folder> takes one)"
            ) from None
        write_pins(LOCK_FILE, {name: pin})
        print(f"{LOCK_FILE}: {name} at {pin.commit}", flush=True)
        return pin

    def _file(self, name: str) -> Path:
        """A small file: where it lies, or in the hub's own cache, so that it is fetched once."""
        if "path" in self.entry:
            return Path(self.entry["path"], name)
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        cached = try_to_load_from_cache(self._repo, name, revision=self._pin.commit)
        if isinstance(cached, str):
            return Path(cached)
        try:
            return Path(hf_hub_download(self._repo, name, revision=self._pin.commit))
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            reason = type(error).__name__
            raise NotAuditable(f"{self}: {name} could not be fetched ({reason})") from None


def _open(file: Path) -> None:
    """Read a tokenizer, or the header of weights. Raises whatever is wrong with it."""
    if file.name == TOKENIZER:
        from tokenizers import Tokenizer

        Tokenizer.from_file(str(file))
        return
    with safe_open(file, framework="numpy"):
        pass
