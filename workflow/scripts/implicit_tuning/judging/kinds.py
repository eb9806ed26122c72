"""The kinds of judge: what config and plan must know without importing them.

A kind is one file in judges/, named after it. The file declares `KIND`, and has
`make(settings, runtime, needs)`, which returns its judge.
"""

import ast
import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from implicit_tuning.judging import judges
from implicit_tuning.judging.judge import Judge, Needs
from implicit_tuning.remote import endpoint_settings

# AlpacaEval draws the positions and counts the wins of every comparison.
ALWAYS = ("alpaca-eval",)
LENGTH_CONTROL_LIBRARIES = ("scikit-learn", "patsy", "pandas", "numpy")
# Every kind's: how a comparison uses its verdicts. In the key of the comparison, not in the judge's
# identity, by which verdicts are kept: a change counts them anew and asks for none again.
COMPARISON = {"both_orders": False, "length_controlled": False, "max_failed": 0}
# Every kind's: local files. Like a `path`, they are in keys by their content.
FILES = ("df_gamed", "calibration")
# Of a judge that runs a model of its own: where that is, its size, and under which terms.
OWN_MODEL = ("path", "hub", "shape", "licence", "gated")
# The name under which a module declares its kind.
DECLARED = "KIND"


@dataclass(frozen=True)
class JudgeKind:
    """One kind of judge, from the literal `KIND` of its module.

    There `decides` and `runtime` give the JSON schema of each key, with its `default`; a key that
    decides verdicts and has none is required. The other entries of the literal are named as here,
    and may be left out.

    Attributes:
        version: raise it by hand when the same judge would now give other verdicts about the same
            pair: verdicts of other versions are kept, but not used.
        required: keys of its config entry that decide verdicts and have no default.
        decides: further keys that decide verdicts, with their defaults; null is none.
        runtime: keys that decide no verdict, with their defaults: speed, patience, money, address.
        schema: JSON schema of each of these keys.
        together: keys that need others beside them.
        libraries: distributions whose versions decide verdicts.
        endpoint: whether it asks an endpoint, and so has the keys of one (`endpoint_settings`).
        chat: whether it writes prompts in the experiment's own chat format.
        truth: whether its verdicts are right by construction, so that nothing calibrates it.
        own_model: whether it runs a model of its own, from a folder (`path`) or the hub (`hub`).
    """

    version: int = 1
    required: tuple[str, ...] = ()
    decides: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Mapping] = field(default_factory=dict)
    together: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    endpoint: bool = False
    chat: bool = False
    truth: bool = False
    own_model: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """Every key that an entry of this kind may have."""
        shared = {"kind", *COMPARISON, *FILES, *(OWN_MODEL if self.own_model else ())}
        return frozenset({*self.schema, *shared})

    @property
    def loads_base(self) -> bool:
        """Whether it runs one of the experiment's bases."""
        return "base" in self.required


def read_kinds(folder: Path) -> dict[str, JudgeKind]:
    """The kinds that modules in a folder declare, by name.

    Read off their text, since importing them would load what a plan must not wait for.

    Raises:
        ValueError: names the file whose `KIND` is no literal, or no kind.
    """
    kinds = {}
    for file in sorted(folder.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        if re.search(rf"^{DECLARED}\b", text, re.MULTILINE):
            try:
                kinds[file.stem] = _kind(_literal(text))
            except (SyntaxError, ValueError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{file}: {DECLARED} must be a literal with the entries of kinds.JudgeKind: {error}"
                ) from None
    return kinds


def _literal(text: str) -> dict:
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == DECLARED:
            return ast.literal_eval(statement.value)
    raise ValueError(f"write it as `{DECLARED} = {{...}}`")


def _kind(declared: Mapping) -> JudgeKind:
    others = dict(declared)
    deciding, runtime = others.pop("decides", {}), others.pop("runtime", {})
    if others.get("endpoint"):
        runtime = {**runtime, **endpoint_settings.KEYS}
        others["together"] = {**others.get("together", {}), **endpoint_settings.TOGETHER}
    return JudgeKind(
        required=tuple(key for key, schema in deciding.items() if "default" not in schema),
        decides=_defaults(deciding),
        runtime=_defaults(runtime),
        schema={**deciding, **runtime},
        **others,
    )


def _defaults(keys: Mapping[str, Mapping]) -> dict[str, Any]:
    return {key: schema["default"] for key, schema in keys.items() if "default" in schema}


JUDGE_KINDS: Mapping[str, JudgeKind] = read_kinds(Path(__file__).parent / "judges")


def with_kinds(schema: Mapping) -> dict:
    """The config's schema with every kind of judge, and the keys of their own."""
    completed = copy.deepcopy(dict(schema))
    entry = completed["properties"]["judges"]["additionalProperties"]["properties"]
    entry["kind"] = {"enum": list(JUDGE_KINDS)}
    for kind in JUDGE_KINDS.values():
        entry.update(kind.schema)
    return completed


def identity_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a judge's config entry decides verdicts, with defaults filled in."""
    kind = JUDGE_KINDS[entry["kind"]]
    deciding = ("kind", *kind.required, *kind.decides)
    given = {key: entry[key] for key in deciding if key in entry}
    return {**kind.decides, **given}


def runtime_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rest of the entry, with defaults filled in."""
    defaults = JUDGE_KINDS[entry["kind"]].runtime
    return {key: entry.get(key, default) for key, default in defaults.items()}


def comparison_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how comparisons use the entry's verdicts, with defaults filled in."""
    return {key: entry.get(key, default) for key, default in COMPARISON.items()}


def make_judge(settings: Mapping[str, Any], runtime: Mapping[str, Any], needs: Needs) -> Judge:
    """The judge of a kind. Its module is imported only now, because some kinds need torch.

    `settings` and `runtime` are `identity_settings` and `runtime_settings` of its config entry.
    """
    module = import_module(f"{judges.__name__}.{settings['kind']}")
    return module.make(settings, runtime, needs)
