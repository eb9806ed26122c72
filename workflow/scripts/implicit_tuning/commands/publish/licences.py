"""Which licences let a model that was made of something be passed on, and under which licence.

A finetuned model derives from its base and from its training data, and so inherits from both. Free
here means what the Open Definition means: anybody may use, change and pass on, for any purpose, at
most with attribution and under the same terms. This is a careful reading, not legal advice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# How much a licence asks of who passes on: the model is given the most demanding of all.
NOTHING, NOTICE, PATENTS, ATTRIBUTION, SHARE_ALIKE = range(5)


@dataclass(frozen=True)
class Licence:
    """A free licence.

    Attributes:
        hub: how the metadata of a model card spells it.
        asks: one of the grades above.
    """

    hub: str
    asks: int


# By SPDX name. What is not here does not leave: research-only, non-commercial and no-derivatives
# licences, those with rules of use (Llama, RAIL), and what nobody licensed.
FREE: Mapping[str, Licence] = {
    "CC0-1.0": Licence("cc0-1.0", NOTHING),
    "PDDL-1.0": Licence("pddl", NOTHING),
    "Unlicense": Licence("unlicense", NOTHING),
    "MIT": Licence("mit", NOTICE),
    "BSD-2-Clause": Licence("bsd-2-clause", NOTICE),
    "BSD-3-Clause": Licence("bsd-3-clause", NOTICE),
    "CDLA-Permissive-2.0": Licence("cdla-permissive-2.0", NOTICE),
    "Apache-2.0": Licence("apache-2.0", PATENTS),
    "ODC-By-1.0": Licence("odc-by", ATTRIBUTION),
    "CC-BY-2.0": Licence("cc-by-2.0", ATTRIBUTION),
    "CC-BY-3.0": Licence("cc-by-3.0", ATTRIBUTION),
    "CC-BY-4.0": Licence("cc-by-4.0", ATTRIBUTION),
    "CC-BY-SA-3.0": Licence("cc-by-sa-3.0", SHARE_ALIKE),
    "CC-BY-SA-4.0": Licence("cc-by-sa-4.0", SHARE_ALIKE),
    "ODbL-1.0": Licence("odbl", SHARE_ALIKE),
}
# Share-alike licences that let derived works be under the second one.
MAY_BECOME = {("CC-BY-SA-3.0", "CC-BY-SA-4.0")}

# Names that are suggested at most.
NAMED = 4


@dataclass(frozen=True)
class Ingredient:
    """Something that a model was made of.

    Attributes:
        key: its entry in the config, such as "datasets.dolly".
        what: "base", "training data" or "rewriter" of that.
        licence: an SPDX name, or whatever the entry says; None: it says nothing.
        gated: the hub asks to accept conditions first.
        origin: where it comes from, for people, with an address where there is one.
        hub: its repository on the hub, if it is one.
    """

    key: str
    what: str
    licence: str | None
    gated: bool
    origin: str
    hub: str | None = None

    @property
    def is_free(self) -> bool:
        """Whether a model made of it may leave, as far as this goes."""
        return self.licence in FREE and not self.gated


def licence_problems(
    ingredients: Iterable[Ingredient], instead: Mapping[str, Sequence[str]]
) -> list[str]:
    """Why a model made of these may not leave, one line each; empty when it may.

    Args:
        instead: names of free entries of the config that could be taken, by what they are.
    """
    ingredients = list(ingredients)
    problems = [
        f"{item.key}.{reason}: {_instead(item, instead.get(item.what, ()))}"
        for item in ingredients
        for reason in _reasons(item)
    ]
    return problems or _conflicts(ingredients)


def inherited_licence(ingredients: Iterable[Ingredient]) -> str:
    """SPDX name of the licence of a model made of these, all of them free: the most demanding one.

    Of two that ask the same, the later one in the table, or the version that both may become.
    """
    order = list(FREE)
    return max(
        (item.licence for item in ingredients if item.licence is not None),
        key=lambda name: (FREE[name].asks, order.index(name)),
    )


def _reasons(item: Ingredient) -> list[str]:
    reasons = []
    if item.gated:
        reasons.append("gated is true, or not said of a repository of the hub")
    if item.licence is None or item.licence.lower() in ("unknown", ""):
        reasons.append("licence is not known")
    elif item.licence not in FREE:
        terms = item.licence.upper().split("-")
        why = "is non-commercial" if "NC" in terms else "is not among the free ones in licences.py"
        reasons.append(f"licence is {item.licence}, which {why}")
    return reasons


def _instead(item: Ingredient, names: Sequence[str]) -> str:
    if item.what == "rewriter":
        return "publish a run without 'rephrase'"
    free = f"such as {', '.join(names[:NAMED])}" if names else "under a free licence"
    return f"publish a run with another {item.what}, {free}, or correct the entry"


def _conflicts(ingredients: Sequence[Ingredient]) -> list[str]:
    """Two licences that each ask for the same terms, which are not the same."""
    licences = {item.licence for item in ingredients if item.licence is not None}
    names = {name for name in licences if FREE[name].asks == SHARE_ALIKE}
    if len(names) < 2 or tuple(sorted(names)) in MAY_BECOME:
        return []
    keys = " and ".join(f"{i.key} ({i.licence})" for i in ingredients if i.licence in names)
    return [f"{keys} each ask for their own terms: publish a run with one of them alone"]
