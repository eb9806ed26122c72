"""Where an audited model lies, and what its small files tell before anything of it is fetched."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from implicit_tuning.adapters import CONFIG_FILE, MODEL_CONFIG_FILE
from implicit_tuning.lock import LockError, lock_name, read_lock, resolve_model, write_pins
from implicit_tuning.locking import LOCK_FILE
from implicit_tuning.pins import Pin

REVISION = "main"
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


class NotAuditable(LookupError):
    """What was asked for cannot be audited; the message names key, value and fix."""


@dataclass(frozen=True)
class Place:
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
    def has_chat_template(self) -> bool:
        """Whether its tokenizer has a chat template of its own."""
        return self.has(TEMPLATE_FILE) or bool(self.read(TOKENIZER_CONFIG).get("chat_template"))

    def require_readable(self) -> None:
        """Refuse a folder whose tokenizer or weights are damaged: plans read them to reckon with.

        Raises:
            NotAuditable: names the file.
        """
        self.read(TOKENIZER)
        for file in sorted(Path(self.entry["path"]).glob("*.safetensors")):
            try:
                with safe_open(file, framework="numpy"):
                    pass
            except (SafetensorError, OSError) as error:
                raise NotAuditable(
                    f"{self}: {file.name} cannot be read ({error}): restore it"
                ) from None

    def __str__(self) -> str:
        where = self.entry.get("path") or self.entry["hub"]["repo"]
        return f"{self.key}: '{where}'"

    @property
    def _repo(self) -> str:
        return self.entry["hub"]["repo"]

    @cached_property
    def _pin(self) -> Pin:
        """The pinned files of the repository; one that is not pinned yet is pinned now."""
        from implicit_tuning.hub import HubFailed

        revision = self.entry["hub"].get("revision", REVISION)
        name = lock_name("models", self._repo, revision)
        known = read_lock(LOCK_FILE).get(name)
        if known is not None:
            return known
        try:
            pin = resolve_model(self._repo, revision)
        except (HubFailed, LockError) as error:
            raise NotAuditable(f"{self.key}: {error}") from None
        write_pins(LOCK_FILE, {name: pin})
        print(f"{LOCK_FILE}: {name} at {pin.commit}", flush=True)
        return pin

    def _file(self, name: str) -> Path:
        """A small file: where it lies, or in the hub's own cache, which asks only once."""
        if "path" in self.entry:
            return Path(self.entry["path"], name)
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self._repo, name, revision=self._pin.commit))
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            reason = type(error).__name__
            raise NotAuditable(f"{self}: {name} could not be fetched ({reason})") from None
