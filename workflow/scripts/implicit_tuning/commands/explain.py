"""`explain`: why a node is up to date or stale: its key's parts against the newest node in its place."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from implicit_tuning.commands.planned import planned
from implicit_tuning.experiment.plan import Plan
from implicit_tuning.nodes.artifact import is_released, read_manifest
from implicit_tuning.nodes.node import (
    ARTIFACT_FORMAT,
    CUT_OFF,
    KeyNotKnown,
    Node,
    NodePaths,
    Source,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("node", help="name of a node, as in its path, or the start of names")


def run(arguments: argparse.Namespace) -> int:
    """Print why each node of that name is up to date or stale."""
    made, paths = planned(arguments)
    for node in find_nodes(made, arguments.node):
        print("\n".join(explain(node, paths)))
    return 0


class NoSuchNode(LookupError):
    """The config asks for no node of this name."""


def find_nodes(plan: Plan, name: str) -> list[Node]:
    """Nodes with this name, or below this prefix of names.

    Raises:
        NoSuchNode: names some that exist.
    """
    nodes = [
        node
        for node in plan.nodes.values()
        if node.name == name or node.name.startswith(f"{name.rstrip('/')}/")
    ]
    if not nodes:
        some = ", ".join([node.name for node in plan.nodes.values()][:5])
        raise NoSuchNode(f"the config asks for no node '{name}'; there are, for example: {some}")
    return nodes


def explain(node: Node, paths: NodePaths) -> list[str]:
    """Lines that say whether a node is built, and if not, what differs from the newest that is."""
    try:
        folder = paths.folder(node)
    except KeyNotKnown as missing:
        return [f"{node.name}: waits for {missing.node.name}, whose content is part of its key"]
    if paths.is_built(node):
        given_up = ", weights given up" if is_released(folder) else ""
        return [f"{node.name}: up to date{given_up}, {folder}"]
    sibling = _newest_sibling(folder)
    if sibling is None:
        return [f"{node.name}: never built; it will be {folder}"]
    manifest = read_manifest(sibling)
    return [
        f"{node.name}: stale; against the newest, {sibling}:",
        *(f"  {line}" for line in _own_differences(node, manifest)),
        *(f"  {line}" for line in _upstream_differences(node, paths, manifest)),
        *(f"  because of {line}" for line in _causes(node, paths, manifest, seen=set())),
    ]


def _newest_sibling(folder: Path) -> Path | None:
    manifests = folder.parent.glob("*/manifest.json")
    newest = max(manifests, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _own_differences(node: Node, manifest: Mapping) -> Iterator[str]:
    """What differs in the node's code and config."""
    code = manifest["code"]
    if manifest["artifact_format"] != ARTIFACT_FORMAT:
        # Its digests of modules are made otherwise, and cannot be compared.
        yield f"artifact format: {manifest['artifact_format']} -> {ARTIFACT_FORMAT}"
    elif code["fingerprint"] != node.code.fingerprint:
        modules = list(_module_differences(code["modules"], node.code.modules))
        versions = list(_changes("code: version of", code["versions"], node.code.versions))
        yield from modules + versions or ["code: a name is imported from another module"]
    yield from _changes("config:", _flat(manifest["settings"]), _flat(node.settings))


def _module_differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Modules that differ; one that only changed its name does not."""
    renamed = set(before.values()) & set(now.values())
    gone = {n: d for n, d in before.items() if n in now or d not in renamed}
    new = {n: d for n, d in now.items() if n in before or d not in renamed}
    yield from _changes("code: module", gone, new, show=False)


def _upstream_differences(node: Node, paths: NodePaths, manifest: Mapping) -> Iterator[str]:
    yield from _changes("upstream:", _identities_before(node, manifest), _identities(node, paths))


def _causes(node: Node, paths: NodePaths, manifest: Mapping, seen: set[Node]) -> Iterator[str]:
    """What differs in the nodes above whose keys or content changed, all the way up."""
    before, now = _identities_before(node, manifest), _identities(node, paths)
    for name, above in node.upstream.items():
        changed = name in before and before[name] != now[name]
        if not changed or not isinstance(above, Node) or above in seen:
            continue
        seen.add(above)
        earlier = paths.folder(above).parent / manifest["upstream"][name]["key"]
        if not (earlier / "manifest.json").is_file():
            yield f"{above.name}: not known why, since {earlier} is gone"
            continue
        there = read_manifest(earlier)
        yield from (f"{above.name}: {line}" for line in _own_differences(above, there))
        yield from (f"{above.name}: {line}" for line in _source_differences(above, there))
        yield from _causes(above, paths, there, seen)


def _source_differences(node: Node, manifest: Mapping) -> Iterator[str]:
    """What differs in the bytes that no job makes."""
    sources = {n: above.digest for n, above in node.upstream.items() if isinstance(above, Source)}
    before = {n: manifest["upstream"][n]["digest"] for n in sources if n in manifest["upstream"]}
    yield from _changes("source:", before, sources)


def _identities_before(node: Node, manifest: Mapping) -> dict[str, str]:
    return {
        name: above.get("key", above["digest"]) if name not in _cut_off(node) else above["digest"]
        for name, above in manifest["upstream"].items()
    }


def _cut_off(node: Node) -> set[str]:
    """Names of the upstream nodes whose content, not whose key, is in this node's key."""
    return {
        name
        for name, above in node.upstream.items()
        if isinstance(above, Node) and above.stage in CUT_OFF
    }


def _identities(node: Node, paths: NodePaths) -> dict[str, str]:
    return {name: paths.identity(above) for name, above in node.upstream.items()}


def _changes(what: str, before: Mapping, now: Mapping, show: bool = True) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if name not in before:
            yield f"{what} {name}: new"
        elif name not in now:
            yield f"{what} {name}: gone"
        elif before[name] != now[name]:
            yield f"{what} {name}: " + (f"{before[name]} -> {now[name]}" if show else "changed")


def _flat(settings: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested settings by dotted names."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
