"""What stands under the stable names of an experiment, and whether it is all of one config."""

import itertools
import json
import os

FOLDERS = {"table": "tables", "figure": "figures"}


def stable_copies(checkout):
    """Stable names for people: bytes of tables and figures, targets of the links to nodes.

    Not the report, which says how long the jobs took.
    """
    folder = checkout.results / "smallest"
    copies = [path for name in FOLDERS.values() for path in (folder / name).iterdir()]
    content = {path: path.read_bytes() for path in copies}
    content |= {link: os.readlink(link) for link in _links(folder)}
    return {str(path.relative_to(folder)): value for path, value in content.items()}


def _links(folder):
    return [path for path in (folder / "current").rglob("*") if path.is_symlink()]


def assert_all_of_one_config(checkout):
    """The copies are those of nodes of the present config, each made from the others."""
    folder = checkout.results / checkout.config["experiment"]
    [_] = folder.glob(".stable_names.*")
    links = _links(folder)
    keys = {link.resolve().name for link in links}
    nodes = {
        link: json.loads((link / "manifest.json").read_text())
        for link in links
        if link.exists() or "finetune" not in link.parts  # a checkpoint may be lost
    }
    cut_offs = {m["digest"] for m in nodes.values() if m["stage"] in ("format", "select")}
    for link, manifest in nodes.items():
        for name in manifest["files"] if manifest["stage"] in FOLDERS else ():
            stable = folder / FOLDERS[manifest["stage"]] / name
            assert stable.read_bytes() == (link / "data" / name).read_bytes()
        for above in manifest["upstream"].values():
            assert "key" not in above or above["key"] in keys or above["digest"] in cut_offs
        asked = _asked_for(checkout.config, manifest["stage"], manifest["levels"])
        settings = manifest["settings"]
        if manifest["stage"] == "judge":
            settings |= {**settings["judge"], **settings["comparison"]}
        assert {key: settings[key] for key in asked} == asked
    config = checkout.config
    judged = [
        m["levels"]
        for m in nodes.values()
        if m["stage"] == "judge" and m["levels"]["evaluation"] == config["evaluation"]
    ]
    assert sorted((j["base"], j["adaptation"], int(j["reference_seed"])) for j in judged) == sorted(
        itertools.product(config["bases"], config["adaptations"], config["seeds"])
    )


def _asked_for(config, stage, levels):
    """Settings that a node of this config has, read from the config without the code under test."""
    chosen = config["adaptations"].get(levels.get("adaptation"), {})
    if stage == "finetune" and config.get("epochs") != "selected":
        return {"training": {**config["training"], **chosen.get("training", {})}}
    if stage == "generate" and chosen.get("kind") != "shuffled":
        return {"generation": {**config["generation"], **chosen.get("generation", {})}}
    if stage == "judge":
        return config["judges"][config["judge"]]
    return {"label": config["label"]} if stage in FOLDERS else {}
