"""What the plan and the config checks must know of the guards without importing them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from implicit_tuning.nodes.code import PACKAGE, SCRIPTS, Code

# A grammar is given as one of these; a file's name ends in what its text is.
GRAMMARS = ("regex", "lark")
# The threshold at which the refusal guard draws the line where the table `guards` draws it too.
NEAR = "near"


@dataclass(frozen=True)
class GuardKind:
    """A kind of guard.

    `required` and `optional` are its keys beside `kind`. A kind that does not take part in decoding
    (`decodes`) works on a run's finished answers. `libraries` are the distributions that decide its
    answers, beside those of an engine or embedding.
    """

    required: frozenset[str]
    optional: frozenset[str]
    decodes: bool
    libraries: tuple[str, ...] = ()


GUARD_KINDS: Mapping[str, GuardKind] = {
    "template": GuardKind(frozenset({"pattern", "text"}), frozenset({"start"}), decodes=True),
    "grammar": GuardKind(
        frozenset(), frozenset({*GRAMMARS, "file"}), decodes=True, libraries=("llguidance",)
    ),
    "refusal": GuardKind(frozenset({"text"}), frozenset({"threshold"}), decodes=False),
}


def guard_code(kind: str, below: Code) -> Code:
    """The code that decides a guard's answers: its own, and the modules that it works with."""
    modules = (root for root in below.roots if root.startswith(PACKAGE))
    roots = ("guard", f"{PACKAGE}.generation.guards.{kind}", *modules)
    return Code(roots, (*below.libraries, *GUARD_KINDS[kind].libraries))


def identity_settings(guard: Mapping) -> dict:
    """A guard as it stands in keys: defaults filled in, a grammar's file by its text."""
    if guard["kind"] == "refusal":
        return {"threshold": NEAR, **guard}
    if "file" in guard:
        file = grammar_file(guard)
        text = file.read_text(encoding="utf-8")
        guard = {"kind": guard["kind"], file.suffix.removeprefix("."): text}
    # The line break at the end of a file, or of a block of YAML, is none of the grammar's.
    return {k: v.removesuffix("\n") if k in GRAMMARS else v for k, v in guard.items()}


def grammar_file(guard: Mapping) -> Path:
    """The file of a grammar; a relative path starts at the repository."""
    return SCRIPTS.parents[1] / guard["file"]
