"""What can be wrong with data sets and models from elsewhere, found before a job fetches them."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.experiment.config import Config
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.models.adapters import CONFIG_FILE as ADAPTER_FILE
from implicit_tuning.models.adapters import is_adapter
from implicit_tuning.nodes.node import Node

TIMEOUT_S = 10
AT_ONCE = 8
# Sections of a config whose entries can name a model of the hub.
WITH_MODELS = ("bases", "judges", "embeddings", "adaptations")
# Statuses of a web server that is there, but does not answer this kind of request.
NO_HEAD = frozenset({405, 501})


@dataclass(frozen=True)
class RemoteSource:
    """A data set or model that a plan still has to fetch."""

    key: str
    entry: Mapping
    node: Node

    @property
    def is_hub(self) -> bool:
        """Whether it comes from the hub."""
        return "hub" in self.entry

    @property
    def is_locked(self) -> bool:
        """Whether it is known which bytes it must have."""
        if self.node.stage == "fetch":
            return bool(self.node.runtime["files"])
        pinned = self.node.runtime
        if not pinned or not self.entry["hub"].get("streamed", False):
            return bool(pinned) and pinned["first_rows"] is None
        return pinned["records"] == self.entry.get("rows")


def sources_of(waiting: Iterable[Node], config: Config) -> list[RemoteSource]:
    """What nodes that wait fetch from elsewhere."""
    sources = [
        RemoteSource(*_entry(node, config), node)
        for node in waiting
        if node.stage in ("download", "fetch")
    ]
    return [source for source in sources if "organism" not in source.entry]


def _entry(node: Node, config: Config) -> tuple[str, Mapping]:
    """Key and entry of a source; of a model that several entries name, the first."""
    if node.stage == "download":
        return f"datasets.{node.level('dataset')}", config.datasets[node.level("dataset")]
    return next(
        (f"{section}.{name}", entry)
        for section in WITH_MODELS
        for name, entry in getattr(config, section).items()
        if entry.get("hub", {}).get("repo") == node.settings["repo"]
    )


def missing_tokens(sources: Iterable[RemoteSource]) -> Iterator[str]:
    """Gated sources, where there is no token; and a token that can be none."""
    sources = list(sources)
    token = os.environ.get("HF_TOKEN", "")
    if not (token.isascii() and token.isprintable()) and any(s.is_hub for s in sources):
        yield "HF_TOKEN: holds characters that no token has: correct it"
    for source in _without_token(sources):
        repo = source.entry["hub"]["repo"]
        yield (
            f"{source.key}.gated: '{repo}' is gated, and HF_TOKEN is not set: accept its "
            "conditions on its page of the hub, and set HF_TOKEN to a token of that account"
        )


def _without_token(sources: Iterable[RemoteSource]) -> list[RemoteSource]:
    gated = [source for source in sources if source.is_hub and source.entry.get("gated")]
    return [] if not gated or has_token() else gated


def has_token() -> bool:
    """Whether huggingface_hub will find a token: in HF_TOKEN, or in the file of its own login."""
    from huggingface_hub import constants

    return bool(os.environ.get("HF_TOKEN", "").strip()) or Path(constants.HF_TOKEN_PATH).is_file()


def not_locked(sources: Iterable[RemoteSource]) -> Iterator[str]:
    """Sources of the hub whose bytes are not pinned."""
    for source in sources:
        if source.is_hub and not source.is_locked:
            hub = source.entry["hub"]
            what = "/".join(filter(None, (hub["repo"], hub.get("file"))))
            yield (
                f"{source.key}.hub: '{what}' at '{hub.get('revision', 'main')}' is not in "
                "config/lock.yaml: run 'make lock' with this CONFIG, and commit what it writes"
            )


def unreachable(sources: Iterable[RemoteSource]) -> list[str]:
    """Sources that do not answer one request about them, each with the reason.

    Those that lack a token are left to `missing_tokens`.
    """
    sources = list(sources)
    without_token = _without_token(sources)
    asked = [source for source in sources if source not in without_token]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [problem for problem in threads.map(_problem_of, asked) if problem is not None]


def _problem_of(source: RemoteSource) -> str | None:
    return _hub_problem(source) if source.is_hub else _url_problem(source)


def _hub_problem(source: RemoteSource) -> str | None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    settings, kind = source.node.settings, "model"
    if source.node.stage == "download":
        settings, kind = settings["hub"], "dataset"
    adapter = is_adapter(source.node.runtime.get("files", ()))
    of_model = ADAPTER_FILE if adapter else "config.json"
    repo, commit, file = settings["repo"], settings["commit"], settings.get("file", of_model)
    url = hf_hub_url(repo, file, repo_type=kind, revision=commit)
    try:
        get_hf_file_metadata(url, timeout=TIMEOUT_S)
    except (HTTPError, OfflineModeIsEnabled) as error:
        return f"{source.key}.hub: '{repo}' at '{commit}': {_explain(error, file)}"
    return None


def _explain(error: Exception, file: str) -> str:
    """What the hub's answer, or its silence, means. Its own words repeat headers and addresses."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"no access (status {status}): check the name, accept its conditions on its page, and "
            "set HF_TOKEN to a valid token of that account"
        )
    if status == 404:
        return f"no such repository, revision, or file {file} (status 404): correct it"
    reason = f"status {status}" if status else type(error).__name__
    return f"no answer ({reason}): try again with a connection, or give a local 'path'"


def _url_problem(source: RemoteSource) -> str | None:
    address = source.entry["url"]["address"]
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        if error.code in NO_HEAD:
            return None
        reason = f"status {error.code}"
    except OSError as error:
        reason = str(getattr(error, "reason", error))
    return (
        f"{source.key}.url.address: '{address}' does not answer ({reason}): correct it, try again, "
        "or give a local 'path'"
    )


def licences(plan: Plan) -> list[str]:
    """Licence of each data set and model in use, with what to mind about it."""
    config = plan.config
    used = {
        f"datasets.{n.level('dataset')}": config.datasets[n.level("dataset")]
        for n in plan.stage("format")
    }
    used |= {f"bases.{name}": entry for name, entry in config.bases.items()}
    used |= {f"adaptations.{name}": entry for name, entry in config.adaptations.items()}
    used[f"judges.{config.judge}"] = config.judges[config.judge]
    if config.embedding is not None:
        used[f"embeddings.{config.embedding}"] = config.embeddings[config.embedding]
    return [_licence(key, entry) for key, entry in used.items() if "licence" in entry]


def _licence(key: str, entry: Mapping) -> str:
    licence = entry["licence"]
    minded = []
    if "NC" in licence.upper().split("-"):
        minded.append("not for commercial use")
    if licence == "unknown":
        minded.append("ask its authors")
    if "note" in entry:
        minded.append(entry["note"])
    return f"licence of {key}: {licence}" + (f" ({'; '.join(minded)})" if minded else "")
