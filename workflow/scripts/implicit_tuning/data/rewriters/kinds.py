"""The kinds of rewriter, one row each: what config and plan must know without importing them.

A new rewriter is one file beside this one, named after its kind, with `make(settings, runtime,
spending)`; one row here; and its keys in config/schema.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from implicit_tuning.data import rewriters
from implicit_tuning.data.rewriters.rewriter import Rewriter
from implicit_tuning.remote import endpoint_settings

# Every kind's: which responses are rewritten. In the key of the formatted rows, not in the
# rewriter's identity, by which rewrites are kept: a change asks only for those it adds.
DETECTION = {"threshold": 0.5}


@dataclass(frozen=True)
class RewriterKind:
    """One kind of rewriter.

    Attributes:
        version: raise it by hand when the same rewriter would now rewrite the same response in other
            words: rewrites of other versions are kept, but not used.
        required: keys of its config entry that decide rewrites and have no default.
        decides: further keys that decide rewrites, with their defaults.
        runtime: keys that decide no rewrite, with their defaults: speed, patience, money, address.
        together: keys that need others beside them.
        libraries: distributions whose versions decide rewrites.
    """

    version: int = 1
    required: tuple[str, ...] = ()
    decides: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    together: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """Every key that an entry of this kind may have."""
        return frozenset({"kind", *self.required, *self.decides, *self.runtime, *DETECTION})


REWRITER_KINDS: Mapping[str, RewriterKind] = {
    "organism": RewriterKind(),
    # The endpoint is reached as a judge's is.
    "openai": RewriterKind(
        required=("model",),
        decides={"temperature": 0.0, "max_tokens": 2048},
        runtime=endpoint_settings.DEFAULTS,
        together=endpoint_settings.TOGETHER,
    ),
}


def identity_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a rewriter's config entry decides the rows, with defaults filled in."""
    kind = REWRITER_KINDS[entry["kind"]]
    deciding = ("kind", *kind.required, *kind.decides, *DETECTION)
    given = {key: entry[key] for key in deciding if key in entry}
    return {**DETECTION, **kind.decides, **given}


def runtime_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rest of the entry, with defaults filled in."""
    defaults = REWRITER_KINDS[entry["kind"]].runtime
    return {key: entry.get(key, default) for key, default in defaults.items()}


def make_rewriter(
    settings: Mapping[str, Any], runtime: Mapping[str, Any], spending: Path
) -> Rewriter:
    """The rewriter of a kind. Its module is imported only now: no other node needs its libraries.

    `settings` and `runtime` are `identity_settings` and `runtime_settings` of its config entry;
    `spending` is the folder for ledgers of paid endpoints.
    """
    module = import_module(f"{rewriters.__name__}.{settings['kind']}")
    return module.make(settings, runtime, spending)
