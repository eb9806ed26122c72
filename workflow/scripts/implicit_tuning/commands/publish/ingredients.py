"""What a finetuned model was made of, with the licences that the config's entries state."""

from collections.abc import Iterator, Mapping
from typing import Literal

from implicit_tuning.commands.publish.licences import Ingredient
from implicit_tuning.experiment.config import Config
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.nodes.node import Node, Source
from implicit_tuning.remote.lockfile import lock_name

HubKind = Literal["datasets", "models"]
# What something is, its kind of source, its key and entry in the config, what it was read from.
Origin = tuple[str, HubKind, str, Mapping, Node | Source]

HUB = "https://huggingface.co"
# Of this repository.
OURS = "MIT"


def ingredients(plan: Plan, checkpoint: Node) -> Iterator[Ingredient]:
    """What a finetune was made of: its base, its data, and who rewrote that."""
    config, (base, adaptation, _) = plan.config, checkpoint.levels
    chosen = plan.adaptations[adaptation]
    rows = checkpoint.above("rows")
    places: tuple[Origin, ...] = (
        ("base", "models", f"bases.{base}", config.bases[base], checkpoint.upstream["base"]),
        (
            "training data",
            "datasets",
            f"datasets.{chosen['data']}",
            config.datasets[chosen["data"]],
            rows.upstream["source"],
        ),
    )
    for what, kind, key, entry, above in places:
        yield Ingredient(
            key=key,
            what=what,
            licence=entry.get("licence"),
            gated=_is_gated(entry),
            origin=_origin(config, kind, entry, above),
            hub=entry["hub"]["repo"] if "hub" in entry else None,
        )
    if "rephrase" in chosen:
        yield _rewriter(config, chosen["rephrase"])


def _rewriter(config: Config, name: str) -> Ingredient:
    kind = config.rewriters[name]["kind"]
    own = kind == "organism"
    origin = "rules of this workflow" if own else "a model behind an endpoint"
    return Ingredient(f"rewriters.{name}", "rewriter", OURS if own else None, False, origin)


def _origin(config: Config, kind: HubKind, entry: Mapping, above: Node | Source) -> str:
    """Where an entry comes from, with its address and revision, but for paths of this machine."""
    if "hub" in entry:
        repo, revision = entry["hub"]["repo"], entry["hub"].get("revision", "main")
        pin = config.lock.get(lock_name(kind, repo, revision))
        commit = pin.commit if pin else revision
        page = f"{HUB}/{'datasets/' if kind == 'datasets' else ''}{repo}/tree/{commit}"
        return f"[{repo}]({page}), commit `{commit}`"
    if "url" in entry:
        return f"<{entry['url']['address']}>, sha256 `{entry['url']['sha256']}`"
    if "organism" in entry:
        return f"the model organism's `{entry['organism']}` rows, made by this workflow"
    if "recipe" in entry:
        return f"pretrained by this workflow's recipe `{entry['recipe']}`"
    assert isinstance(above, Source)  # no job makes local files
    return f"local files, sha256 `{above.digest}`"


def free_entries(config: Config) -> dict[str, list[str]]:
    """Names of the config's free bases and training data, those of the hub first."""
    training = {n: e for n, e in config.datasets.items() if e["kind"] == "training"}
    entries = {"base": config.bases, "training data": training}
    return {what: _free_names(what, of_kind) for what, of_kind in entries.items()}


def _free_names(what: str, entries: Mapping[str, Mapping]) -> list[str]:
    free = [
        name
        for name, entry in entries.items()
        if Ingredient(name, what, entry.get("licence"), _is_gated(entry), "").is_free
    ]
    return sorted(free, key=lambda name: "hub" not in entries[name])


def _is_gated(entry: Mapping) -> bool:
    """A repository of the hub of which nobody said that it is open counts as gated."""
    return entry.get("gated", "hub" in entry)
