"""Plans of experiments of the repository, and nodes of them that count as built."""

from dataclasses import replace

from implicit_tuning.experiment.config_reading import read_config
from implicit_tuning.experiment.plan import is_built
from implicit_tuning.experiment.planners.all_nodes import build_plan
from implicit_tuning.nodes.code import short_hash
from implicit_tuning.nodes.digests import DigestMemory
from implicit_tuning.nodes.files import seal
from implicit_tuning.nodes.node import RELEASABLE, Node, NodePaths

ORGANISM = ("config/config.yaml",)
SMALLEST = ("tests/fixtures/smallest.yaml",)
PAPER = ("config/config.yaml", "config/paper.yaml")
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def plan_of(repository, folder, *overrides, files=ORGANISM, lock=None):
    """Plan of an experiment under overrides of its config, and its paths below `folder`."""
    config = read_config([repository / file for file in files], repository, overrides)
    config = replace(config, lock=config.lock if lock is None else lock)
    plan = build_plan(config, DigestMemory(folder / "digests.json"))
    return plan, NodePaths(folder / "results")


# What the manifests of nodes that are only made up count.
COUNTS = {
    "notes": {"instruction_characters": 40_000, "response_characters": 40_000},
    "used": 400,
    "n": 208,
    "n_tokens": 208 * 20,
    "epochs": 1,
}


def build(paths, node, files=None, seconds=None, **facts):
    """Let a node, and first what it reads, stand with these files (text by name) and facts."""
    for above in node.upstream.values():
        if isinstance(above, Node) and not is_built(paths, above):
            build(paths, above, **COUNTS)
    data = paths.folder(node) / "data"
    data.mkdir(parents=True)
    for name, text in (files or {}).items():
        (data / name).write_text(text, encoding="utf-8")
    if node.stage in RELEASABLE:
        paths.weights(node).touch()
    content = {"settings": node.settings, "facts": facts, "digest": short_hash(files)}
    paths.manifest(node).write_text(seal({"stage": node.stage, **content}), encoding="utf-8")
    if seconds is not None:
        measurement = f"{seconds}\t-\t1\t1\t1\t1\t0\t0\t90\t{seconds}\n"
        (paths.folder(node) / "benchmark.tsv").write_text(BENCHMARK + measurement)
