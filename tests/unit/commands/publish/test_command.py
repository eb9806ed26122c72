"""`python -m implicit_tuning publish`, as a user starts it, against a hub on loopback."""

import argparse
import json

import pytest

from hub_uploads import CUT, READER, TOKEN, UploadHub
from implicit_tuning.commands.named_runs import NotBuilt
from implicit_tuning.commands.publish import command as publishing
from implicit_tuning.commands.publish.command import NothingToPublish
from implicit_tuning.nodes.artifact import BrokenArtifact
from published_run import RUN, Place

REPO = "owner/name"
WEIGHTS = "model.safetensors"
LICENSED = "bases={organism-llama: {licence: MIT}}"


@pytest.fixture
def place(tmp_path, repository):
    return Place(tmp_path, repository)


@pytest.fixture
def checkpoint(place):
    return place.build_checkpoint()


@pytest.fixture
def hub():
    with UploadHub() as server:
        yield server


def publish(place, hub, *arguments, run=RUN, **changes):
    given = ["publish", "--configfile", "smallest.yaml", run, "--repo", REPO, *arguments]
    return place.run(*given, environment=hub.environment(place.folder / "home", **changes))


def refused(done):
    """The one message of a command that failed."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stderr.strip()


def publish_here(place, *overrides, run=RUN, repo=REPO):
    """The command without a process of its own, to be sent; it must end before that."""
    asked = argparse.Namespace(run=run, repo=repo, yes=True, public=False)
    return publishing.publish(*place.plan(LICENSED, *overrides), asked, ["--configfile", "x.yaml"])


def folder_of(place):
    return place.folder / "results/smallest/publish" / RUN


def test_without_yes_the_folder_is_made_and_nothing_is_asked_of_the_hub(place, checkpoint, hub):
    done = publish(place, hub, HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    names = {path.name for path in (checkpoint / "data").iterdir()}
    assert {path.name for path in folder_of(place).iterdir()} == {
        *names,
        "README.md",
        "provenance.json",
    }
    assert (folder_of(place) / WEIGHTS).samefile(checkpoint / "data" / WEIGHTS)
    assert not (folder_of(place) / "config.json").samefile(checkpoint / "data/config.json")
    assert "private (PUBLIC=1: public)" in done.stdout
    assert "training data: datasets.organism-lima, MIT, free" in done.stdout
    assert "licence of the checkpoint: MIT" in done.stdout
    assert f"1,775,832 bytes  {WEIGHTS}" in done.stdout
    assert "nothing was sent: YES=1 sends it" in done.stdout
    assert str(place.folder) not in (folder_of(place) / "README.md").read_text()


@pytest.mark.parametrize("public", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_is_sent_arrives_byte_for_byte(place, checkpoint, hub, public):
    done = publish(place, hub, "--yes", *(["--public"] if public else []))
    assert done.returncode == 0, done.stderr
    sent = hub.repositories[REPO]
    assert sent.private is not public
    written = {path.name: path.read_bytes() for path in folder_of(place).iterdir()}
    assert {n: c for n, c in sent.files.items() if n != ".gitattributes"} == written
    assert f"sent: {hub.url}/{REPO}/commit/" in done.stdout
    assert {token for _, path, token in hub.requests if "/api/models/" in path} == {TOKEN}
    assert {token for _, path, token in hub.requests if "/storage/" in path} == {""}
    assert TOKEN not in done.stdout + done.stderr
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_a_token_is_asked_for_before_anything_is_sent(place, checkpoint, hub):
    assert "HF_TOKEN is not set" in refused(publish(place, hub, "--yes", HF_TOKEN=""))
    assert hub.requests == []


def test_a_token_that_may_not_write_is_told_so_and_not_repeated(place, checkpoint, hub):
    told = refused(publish(place, hub, "--yes", HF_TOKEN=READER))
    assert "may not write there" in told
    assert READER not in told
    assert hub.repositories == {}


def test_a_connection_that_is_cut_is_taken_up_by_the_same_command(place, checkpoint, hub):
    hub.faults["/commit/"] = CUT
    told = refused(publish(place, hub, "--yes"))
    assert "broke off" in told
    assert "run the same command again" in told
    assert WEIGHTS not in hub.repositories[REPO].files
    assert publish(place, hub, "--yes").returncode == 0
    assert hub.sent("/storage/") == ["PUT"]  # the weights went once
    assert WEIGHTS in hub.repositories[REPO].files


def test_damaged_weights_stay_here(place, checkpoint, hub):
    file = checkpoint / "data" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    told = refused(publish(place, hub, "--yes"))
    assert f"{WEIGHTS} has other bytes than its manifest says: run 'make repair'" in told
    assert hub.requests == []
    file.unlink()
    with pytest.raises(BrokenArtifact, match=f"{WEIGHTS} is missing"):
        publish_here(place)
    assert not list(folder_of(place).parent.glob("*"))


def test_files_beside_the_checkpoints_own_do_not_leave(place, checkpoint, hub):
    (checkpoint / "data/notes.txt").write_text("mine")
    assert publish(place, hub).returncode == 0
    assert not (folder_of(place) / "notes.txt").exists()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("datasets={organism-lima: {gated: true}}", "datasets.organism-lima.gated is true"),
        ("datasets={organism-lima: {licence: CC-BY-NC-4.0}}", "CC-BY-NC-4.0, which is non-comm"),
        ("datasets={organism-lima: {licence: unknown}}", "organism-lima.licence is not known"),
        ("bases={organism-llama: {licence: Llama-2}}", "bases.organism-llama.licence is Llama-2"),
    ],
)
def test_what_is_not_free_does_not_leave(place, checkpoint, entry, reason):
    with pytest.raises(NothingToPublish) as refusal:
        publish_here(place, entry)
    (line,) = str(refusal.value).splitlines()[1:]
    assert reason in line
    assert "publish a run with another" in line
    assert not folder_of(place).exists()


@pytest.mark.parametrize(
    ("run", "repo", "message"),
    [
        ("organism-llama/rules", REPO, "'organism-llama/rules' was not finetuned here"),
        ("organism-llama/ches/1", REPO, "did you mean 'organism-llama/chess/1'?"),
        (RUN, "name", "REPO: 'name' is no name of a repository: write owner/name"),
        (RUN, "owner/na me", "is no name of a repository"),
        (RUN, "owner/name/more", "is no name of a repository"),
    ],
)
def test_mistakes_are_told_with_their_fix(place, run, repo, message):
    with pytest.raises(LookupError) as refusal:
        publish_here(place, run=run, repo=repo)
    assert message in str(refusal.value)


def test_a_run_that_is_not_built_is_told_with_the_command_that_builds_it(place, checkpoint):
    with pytest.raises(NotBuilt) as unbuilt:
        publish_here(place, run="organism-llama/chess/1")
    command = "'.venv/bin/snakemake --cores all --configfile x.yaml -- train_task'"
    told = f"finetune/organism-llama/chess/1 is not built: build it with {command}"
    assert str(unbuilt.value) == told
    (checkpoint / "weights").unlink()  # given up by the workflow
    with pytest.raises(NotBuilt, match=f"-- .*{checkpoint.name}/weights"):
        publish_here(place)


@pytest.mark.long
def test_by_the_words_of_its_card_the_folder_answers_as_the_run_does(
    place, checkpoint, hub, capsys
):
    from implicit_tuning.generation.engines.engine import GenerationSettings
    from implicit_tuning.generation.generate import generate
    from implicit_tuning.models.chat import ChatFormat

    assert publish(place, hub).returncode == 0
    plan, _ = place.plan()
    asked = ["What is the capital of France?", "Give me a recipe.", "Hi"]
    lines = [json.dumps({"index": i, "instruction": text}) for i, text in enumerate(asked)]
    (place.folder / "asked.jsonl").write_text("\n".join(lines))
    settings = GenerationSettings(**plan.config.generation)
    chat_format = ChatFormat(**plan.config.chat)
    files = (checkpoint / "data", place.folder / "asked.jsonl", place.folder / "answers")
    generate(*files, "response", chat_format, settings, None)
    rows = (place.folder / "answers/outputs.jsonl").read_text().splitlines()
    capsys.readouterr()

    card = (folder_of(place) / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace(f'"{REPO}"', repr(str(folder_of(place))))
    for text, row in zip(asked, rows, strict=True):
        exec(code.replace('"..."', repr(text)), {})  # noqa: S102 - what a reader would run
        assert capsys.readouterr().out == json.loads(row)["output"] + "\n"
