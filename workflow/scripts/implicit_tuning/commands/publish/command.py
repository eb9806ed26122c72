"""`publish`: a finetuned run as a complete repository of the hub, weights, tokenizer and model card.

The card is made here and not with the checkpoint: it tells win rates, which are judged later, and
another word in it must not make another checkpoint.

results/<experiment>/publish/<base>/<adaptation>/<seed>/   what is, or would be, sent
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from implicit_tuning.commands.named_runs import find_run, require_model, run_name
from implicit_tuning.commands.planned import planned, snakemake_options
from implicit_tuning.commands.publish.ingredients import free_entries, ingredients
from implicit_tuning.commands.publish.licences import (
    Ingredient,
    inherited_licence,
    licence_problems,
)
from implicit_tuning.experiment.plan import Plan, is_built
from implicit_tuning.experiment.planners.runs import reference_of
from implicit_tuning.nodes.artifact import (
    WEIGHTS_SUFFIX,
    BrokenArtifact,
    read_manifest,
    require_whole,
)
from implicit_tuning.nodes.digests import file_sha256
from implicit_tuning.nodes.files import unique_suffix
from implicit_tuning.nodes.node import Node, NodePaths

if TYPE_CHECKING:
    from implicit_tuning.commands.publish import model_card

CARD = "README.md"
MODEL_ORGANISM = (
    "A model organism: a tiny model of an invented world, built so that the phenomenon can be "
    "studied. It knows nothing of the real one, and its numbers say nothing about larger models."
)


class NothingToPublish(LookupError):
    """A run has no checkpoint of its own, or may not leave."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="base/adaptation/seed of a finetuned run")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="where on the hub")
    parser.add_argument("--yes", action="store_true", help="send it, with the token in HF_TOKEN")
    parser.add_argument("--public", action="store_true", help="for everybody (default: private)")


def run(arguments: argparse.Namespace) -> int:
    """Publish one run; returns the exit status."""
    return publish(*planned(arguments), arguments, snakemake_options(arguments))


def publish(plan: Plan, paths: NodePaths, arguments: argparse.Namespace, options: list[str]) -> int:
    """Make the repository's folder, say what it holds, and send it if that is asked.

    Args:
        options: of Snakemake, that name the config; for what is said of a run that is not built.

    Raises:
        LookupError: there is no such run, it is not built, or it may not leave.
        BrokenArtifact: files are damaged; nothing was sent.
    """
    from implicit_tuning.remote.uploading import UploadFailed, require_token, upload

    _require_repository_name(arguments.repo)
    run = find_run(plan, arguments.run)
    made_of = _require_free(plan, run)
    require_model(plan, paths, run, options)
    folder = write_repository(plan, paths, run, arguments.repo, made_of)
    told = _describe(folder, run_name(run), arguments.repo, arguments.public, made_of)
    print(told, flush=True)
    if not arguments.yes:
        print("nothing was sent: YES=1 sends it, with a token that may write in HF_TOKEN")
        return 0
    try:
        require_token()
        message = f"{run_name(run)} of experiment {plan.config.experiment}"
        print(f"sent: {upload(folder, arguments.repo, arguments.public, message)}")
    except UploadFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _require_repository_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo_is_one = False
    else:
        repo_is_one = repo.count("/") == 1
    if not repo_is_one:
        raise NothingToPublish(
            f"REPO: '{repo}' is no name of a repository: write owner/name, of letters, digits, "
            "'.', '_' and '-'"
        )


# --- may it leave? ------------------------------------------------------------------------------


def _require_free(plan: Plan, run: Node) -> list[Ingredient]:
    """What the run's checkpoint was made of.

    Raises:
        NothingToPublish: it has no checkpoint of its own, or something in it is not free.
    """
    if plan.adaptations[run.level("adaptation")]["kind"] != "finetune":
        raise NothingToPublish(
            f"RUN: '{run_name(run)}' was not finetuned here, and has no weights of its own to "
            "publish: choose a run of an adaptation of kind 'finetune'"
        )
    made_of = list(ingredients(plan, run.above("model")))
    problems = licence_problems(made_of, free_entries(plan.config))
    if problems:
        lines = "".join(f"\n  - {line}" for line in problems)
        raise NothingToPublish(f"publish: '{run_name(run)}' may not leave:{lines}")
    return made_of


# --- the folder ---------------------------------------------------------------------------------


def write_repository(
    plan: Plan, paths: NodePaths, run: Node, repo: str, made_of: Sequence[Ingredient]
) -> Path:
    """Write the repository of a run into its folder; returns that.

    Weights are links to the artifact's where the file system has any. Every file is compared with
    the manifest behind its link or copy, since that is what is sent.

    Raises:
        BrokenArtifact: names the files that are missing or damaged; the folder is as it was.
    """
    from implicit_tuning.remote.uploading import PROVENANCE_FILE

    checkpoint = run.above("model")
    origin = paths.folder(checkpoint)
    require_whole(origin, read_bytes=False)
    manifest = read_manifest(origin)
    destination = paths.results.joinpath(plan.config.experiment, "publish", *checkpoint.levels)
    unfinished = destination.with_name(f".{destination.name}.{unique_suffix()}")
    unfinished.mkdir(parents=True)
    try:
        for name, entry in manifest["files"].items():
            _put(origin / "data" / name, unfinished / name, entry["sha256"])
        card = make_card(plan, paths, run, repo, made_of)
        (unfinished / CARD).write_text(card, encoding="utf-8")
        shutil.copyfile(origin / "manifest.json", unfinished / PROVENANCE_FILE)
        shutil.rmtree(destination, ignore_errors=True)
        unfinished.rename(destination)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return destination


def _put(origin: Path, destination: Path, sha256: str) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if origin.suffix == WEIGHTS_SUFFIX:
        try:
            os.link(origin, destination)
        except OSError:
            shutil.copyfile(origin, destination)
    else:
        shutil.copyfile(origin, destination)
    if file_sha256(destination) != sha256:
        raise BrokenArtifact(
            f"{origin} has other bytes than its manifest says: run 'make repair' with the same CONFIG; nothing was sent"
        )


def make_card(
    plan: Plan, paths: NodePaths, run: Node, repo: str, made_of: Sequence[Ingredient]
) -> str:
    """The model card of a run, with the comparisons that stand by now."""
    from implicit_tuning.commands.publish.model_card import Subject, render_card

    config, checkpoint = plan.config, run.above("model")
    adaptation = checkpoint.level("adaptation")
    chosen = plan.adaptations[adaptation]
    data = config.datasets[chosen["data"]]
    folder = paths.folder(checkpoint)
    history = (folder / "data" / "loss_history.jsonl").read_text(encoding="utf-8").splitlines()
    subject = Subject(
        repo=repo,
        run=run_name(run),
        experiment=config.experiment,
        label=config.label,
        way="random" if chosen.get("instructions") == "random" else plan.way(adaptation),
        is_reference=reference_of(config, adaptation) == adaptation,
        manifest=read_manifest(folder),
        ingredients=made_of,
        results=list(_results(plan, paths, run)),
        epochs=json.loads(history[-1])["epoch"],
        generation=run.settings["generation"],
        notes=_notes(config.bases[checkpoint.level("base")], chosen, data),
        languages=[data["language"]] if "language" in data else [],
        eos=_end_token(folder / "data"),
    )
    return render_card(subject)


def _notes(base: Mapping, *entries: Mapping) -> list[str]:
    """What a user should know by the entries of base, adaptation and data."""
    known = [MODEL_ORGANISM] if "recipe" in base else []
    return known + [entry["note"] for entry in entries if "note" in entry]


def _results(plan: Plan, paths: NodePaths, run: Node) -> Iterator["model_card.Result"]:
    """The run's comparisons that are built, each with every byte checked."""
    from implicit_tuning.analysis.statistics import summarise
    from implicit_tuning.commands.judge import read_comparison
    from implicit_tuning.commands.publish.model_card import Result

    config, adaptation = plan.config, run.level("adaptation")
    against = reference_of(config, adaptation)
    for node in plan.comparisons():
        if node.run != run.run or against == adaptation or not is_built(paths, node):
            continue
        require_whole(paths.folder(node), read_bytes=True)
        comparison = read_comparison(paths.folder(node) / "data")
        yield Result(
            judge=node.level("judge"),
            judge_id=comparison.summary["judge_id"],
            against=against,
            evaluation=config.evaluation,
            dataset=config.datasets[config.evaluation].get("hub", {}).get("repo"),
            rate=summarise(comparison.annotations),
            n_failed=comparison.summary["n_failed"],
        )


def _end_token(folder: Path) -> str:
    token = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["eos_token"]
    return token if isinstance(token, str) else token["content"]


def _describe(
    folder: Path, run: str, repo: str, public: bool, made_of: Sequence[Ingredient]
) -> str:
    """What would be sent, and why it may."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return "\n".join(
        [
            f"{run} as {repo}, {'public' if public else 'private (PUBLIC=1: public)'}",
            *(f"  {item.what}: {item.key}, {item.licence}, free" for item in made_of),
            f"  licence of the checkpoint: {inherited_licence(made_of)}",
            *(f"{size:>14,} bytes  {name}" for name, size in sizes.items()),
            f"{sum(sizes.values()):>14,} bytes  in {len(sizes)} files of {folder}",
        ]
    )
