"""Faults on the real Snakefile: what is lost (nothing finished), what runs again, what is said.

docs/faults.md tells the same as a table.
"""

import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import textwrap
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open

from stable_copies import stable_copies

pytestmark = pytest.mark.long

CHESS = "finetune/organism-llama/chess/1"
# What a change of the training on chess runs again.
BELOW_CHESS = {
    "finetune": 1, "generate": 1, "judge": 1, "table": 5, "figure": 2, "report": 1, "stable_names": 1
}  # fmt: skip
# The same up to the milestone `models`, which counts as a job.
ONLY_TRAINED = {"finetune": 1, "models": 1}
AFTER_CHESS = {rule: count for rule, count in BELOW_CHESS.items() if rule != "finetune"}
UPDATES = 40


def copy_of(checkout, folder):
    """A copy of a checkout, with all that it built, in a new folder."""
    made = copy.deepcopy(checkout)
    made.folder = folder
    subprocess.run(["cp", "-r", checkout.folder, folder], check=True)
    return made


@pytest.fixture
def checkout(finished, tmp_path):
    """A copy of the finished checkout."""
    return copy_of(finished, tmp_path / "checkout")


def train_long(checkout):
    """Ask for a training on chess that can be hit in its middle, with a save each update."""
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": UPDATES // 2}
    checkout.config["runtime"]["save_every"] = 1


@pytest.fixture(scope="module")
def unbroken(finished, tmp_path_factory):
    """The long training on chess and all below it, run without a fault."""
    made = copy_of(finished, tmp_path_factory.mktemp("unbroken") / "checkout")
    train_long(made)
    run = made.run()
    assert run.status == 0, run.output
    return made


def current(checkout, name: str) -> Path:
    """Folder of a node of the published config."""
    return (checkout.results / "smallest/current" / name).resolve()


def newest(checkout, name: str) -> Path:
    """The folder of a node that a job touched last."""
    logs = (checkout.results / "nodes" / name).glob("*/job.log")
    return max(logs, key=lambda log: log.stat().st_mtime_ns).parent


def files_of(folder: Path) -> dict:
    """Names, sizes and sha256 of an artifact's files."""
    return json.loads((folder / "manifest.json").read_text())["files"]


def built(checkout) -> set[Path]:
    """Manifests of all nodes that count as built."""
    return set((checkout.results / "nodes").rglob("manifest.json"))


def saved_updates(checkout, at_least: int) -> int:
    """How many updates the training's partial state holds; waits until they are so many."""
    end = time.monotonic() + 300  # seconds
    while time.monotonic() < end:
        time.sleep(0.02)
        for state in (checkout.results / "partial").glob("*/state.safetensors"):
            with contextlib.suppress(FileNotFoundError), safe_open(state, "pt") as file:
                done = len(json.loads(file.metadata()["history"]))
                if done >= at_least:
                    return done
    raise AssertionError("no update was saved")


def wait_for_end(process: psutil.Process) -> None:
    psutil.wait_procs([process], timeout=120)
    assert not process.is_running()


# --- killed -------------------------------------------------------------------------------------


def test_a_killed_training_resumes_to_the_same_bytes(checkout, unbroken):
    train_long(checkout)
    before = built(checkout)
    running = checkout.start("--", "models")
    job = running.job("finetune")
    done = saved_updates(checkout, at_least=3)
    job.kill()
    stopped = running.finish()
    assert stopped.status == 1
    assert "died with <Signals.SIGKILL: 9>" in stopped.output
    assert built(checkout) == before
    [partial] = (checkout.results / "partial").iterdir()
    assert {path.name for path in partial.iterdir()} - {"state.unfinished"} == {"state.safetensors"}

    rerun = checkout.run("--", "models")
    assert (rerun.status, rerun.jobs) == (0, ONLY_TRAINED), rerun.output
    log = (newest(checkout, CHESS) / "job.log").read_text()
    resumed = int(log.partition("resuming after update ")[2].split(",")[0])
    assert done <= resumed < UPDATES
    assert files_of(newest(checkout, CHESS)) == files_of(current(unbroken, CHESS))
    assert not partial.exists()


@pytest.mark.parametrize("job_lives_on", [False, True], ids=["with its job", "alone"])
def test_a_killed_scheduler_loses_nothing(checkout, unbroken, job_lives_on):
    train_long(checkout)
    running = checkout.start()
    job = running.job("finetune")
    saved_updates(checkout, at_least=3)
    running.process.kill()
    if not job_lives_on:
        job.kill()
    assert running.finish().status == -9
    wait_for_end(job)
    assert checkout.tool("unlock").returncode == 0

    rerun = checkout.run()
    assert rerun.status == 0, rerun.output
    assert rerun.jobs == (AFTER_CHESS if job_lives_on else BELOW_CHESS)
    assert files_of(current(checkout, CHESS)) == files_of(current(unbroken, CHESS))
    assert stable_copies(checkout) == stable_copies(unbroken)


def test_a_killed_judge_is_asked_only_for_the_rest(checkout):
    checkout.config["judges"]["likelihood"] = {
        "kind": "mean_logprob",
        "base": "organism-llama",
        "batch_size": 1,
    }
    checkout.config["judge"] = "likelihood"
    checkout.config["datasets"]["organism-evaluation"]["rows"] = 96
    keep_adaptations(checkout, "base", "instruction")
    running = checkout.start("--cores", "1", "--", "judgements")
    cache = wait_for_cache(checkout)
    running.job("judge").kill()
    assert running.finish().status == 1
    before = cache.read_bytes()
    asked = len(before.splitlines())

    rerun = checkout.run("--", "judgements")
    assert rerun.status == 0, rerun.output
    after = cache.read_bytes()
    assert after.startswith(before)
    keys = [json.loads(line)["key"] for line in after.splitlines()]
    assert 0 < asked < len(keys) == len(set(keys))


def keep_adaptations(checkout, *names: str) -> None:
    adaptations = checkout.config["adaptations"]
    checkout.config["adaptations"] = {name: adaptations[name] for name in names}


def wait_for_cache(checkout) -> Path:
    """The file of verdicts that a running judge has just begun."""
    known = set((checkout.results / "cache/judge").rglob("*.jsonl"))
    end = time.monotonic() + 300  # seconds
    while time.monotonic() < end:
        time.sleep(0.005)
        for file in set((checkout.results / "cache/judge").rglob("*.jsonl")) - known:
            if file.stat().st_size > 0:
                return file
    raise AssertionError("no verdict was kept")


# --- disks --------------------------------------------------------------------------------------


@pytest.fixture
def disk(checkout):
    """Puts the results on a disk of their own; function that mounts it again with options."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can mount a small disk")
    kept = checkout.folder / "kept"
    checkout.results.rename(kept)
    checkout.results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", checkout.results], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", checkout.results], check=True)
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", checkout.results], check=True
        )
    finally:
        subprocess.run(["umount", checkout.results], check=True)


@pytest.mark.parametrize("save_every", [1, 100], ids=["the partial state", "the checkpoint"])
def test_a_full_disk_is_named_and_leaves_what_stood(checkout, disk, save_every):
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": 2}
    checkout.config["runtime"]["save_every"] = save_every
    before = built(checkout)
    used = shutil.disk_usage(checkout.results).used
    # Another one fills the disk when the job has begun: a run does not start over a full one.
    disk("size=100m")
    running = checkout.start("--", "models")
    running.job("finetune")
    disk(f"size={used + 1_500_000}")
    run = running.finish()
    assert (run.status, run.jobs) == (1, {"finetune": 1})
    said = [line for line in run.output.splitlines() if line.startswith(f"{CHESS}: ")]
    assert len(said) == 1 and "No space left on device" in said[0]
    assert built(checkout) == before
    left = {path.name for path in newest(checkout, CHESS).iterdir()}
    left |= {path.name for path in (checkout.results / "partial").glob("*/*")}
    assert left == {".lock", "job.log"}

    disk("size=100m")
    rerun = checkout.run("--", "models")
    assert (rerun.status, rerun.jobs) == (0, ONLY_TRAINED), rerun.output
    assert before < built(checkout)


def test_a_disk_that_is_known_to_be_too_small_is_refused_before_work(checkout, disk):
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": 2}
    disk(f"size={shutil.disk_usage(checkout.results).used + 500_000}")
    run = checkout.run("--", "models")
    assert (run.status, run.jobs) == (1, {})
    assert "no job was started" in run.output and "the run needs up to" in run.output


def test_read_only_results_are_refused_before_work(checkout, disk):
    disk("ro")
    run = checkout.run()
    assert (run.status, run.jobs) == (0, {}), run.output
    assert "Nothing to be done" in run.output
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": 2}
    run = checkout.run()
    assert (run.status, run.jobs) == (1, {})
    assert f"{checkout.results} cannot be written to, so no job was started" in run.output
    disk("rw")
    rerun = checkout.run("--", "models")
    assert (rerun.status, rerun.jobs) == (0, ONLY_TRAINED), rerun.output


# --- two at once, clocks ------------------------------------------------------------------------


def test_a_second_run_in_one_checkout_is_refused_and_harms_nothing(checkout):
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": 2}
    first = checkout.start("--", "models")
    first.job("finetune")
    second = checkout.run("--", "models")
    assert (second.status, second.jobs) == (1, {})
    assert "Directory cannot be locked" in second.output
    run = first.finish()
    assert (run.status, run.jobs) == (0, ONLY_TRAINED), run.output


def test_two_checkouts_over_one_results_folder_train_once(checkout, unbroken, tmp_path):
    other = copy_of(checkout, tmp_path / "other")
    shutil.rmtree(other.results)
    other.results.symlink_to(checkout.results)
    train_long(checkout)
    train_long(other)
    first = checkout.start()
    saved_updates(checkout, at_least=3)
    runs = [other.run(), first.finish()]
    assert [run.status for run in runs] == [0, 0], runs[0].output + runs[1].output
    assert "another process builds" in runs[0].output
    assert "was built by another process; kept as it is" in runs[0].output
    assert "update/s" in (current(checkout, CHESS) / "job.log").read_text()
    assert files_of(current(checkout, CHESS)) == files_of(current(unbroken, CHESS))
    assert stable_copies(checkout) == stable_copies(unbroken)
    for each in (checkout, other):
        assert each.tool("verify").returncode == 0
        assert not each.run().jobs


def test_results_from_the_future_rerun_nothing_and_stop_nothing(checkout):
    tomorrow = time.time() + 86_400
    for path in checkout.folder.rglob("*"):
        os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
    run = checkout.run()
    assert (run.status, run.jobs) == (0, {}), run.output
    checkout.config["adaptations"]["chess"]["training"] = {"epochs": 2}
    run = checkout.run()
    assert (run.status, run.jobs) == (0, BELOW_CHESS), run.output


# --- damaged files ------------------------------------------------------------------------------

INSTRUCTION = "organism-llama/instruction/1"
# Files of every kind, and the rule that builds each again to the same bytes: not the report, which
# says how long the jobs took.
FILES = {
    "download/organism-lima/data": "download",
    "format/organism-lima/plain-32-rows/data/rows.jsonl": "format",
    f"finetune/{INSTRUCTION}/data/model.safetensors": "finetune",
    f"generate/{INSTRUCTION}/organism-evaluation/data/outputs.jsonl": "generate",
    f"judge/{INSTRUCTION}/organism-evaluation/1/oracle/data/annotations.jsonl": "judge",
    "finetune/organism-llama/chess/1/manifest.json": "finetune",
    "table/main/data/main.csv": "table",
    "figure/main/data/main.png": "figure",
}


def truncate(file):
    file.write_bytes(file.read_bytes()[:-5])


def flip(file):
    """Change a bit near the end, and put the time stamp back."""
    stamp = file.stat().st_mtime_ns
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stamp, stamp))


def the_file(checkout, name):
    """A file by the name of its node; where the data folder is named, the one file in it."""
    file = checkout.results / "smallest/current" / name
    file = next(file.iterdir()) if file.is_dir() else file
    return file.resolve()


@pytest.mark.parametrize(
    ("damage", "said", "of_manifest"),
    [
        (truncate, "bytes instead of", "manifest.json is damaged"),
        (flip, "has other bytes", "manifest.json is damaged"),
        (Path.unlink, "is missing", "not built"),
    ],
    ids=["truncated", "flipped", "missing"],
)
def test_damaged_files_are_named_and_just_they_are_rebuilt(checkout, damage, said, of_manifest):
    files = [the_file(checkout, name) for name in FILES]
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        damage(file)
    found = checkout.tool("verify")
    assert found.returncode == 1
    for file in files:
        named = file if file.name != "manifest.json" else file.parent
        named = str(named.relative_to(checkout.folder))
        [line] = [line for line in found.stdout.splitlines() if named in line]
        assert (of_manifest if file.name == "manifest.json" else said) in line

    repaired = checkout.tool("repair")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    started = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", repaired.stderr, re.MULTILINE)
    assert Counter(started) == Counter(FILES.values())
    assert {file: file.read_bytes() for file in files} == whole
    assert checkout.tool("verify").returncode == 0
    assert not checkout.run().jobs


def test_damaged_inputs_are_refused_by_the_jobs_that_read_them(checkout):
    own_resources(checkout)
    weights = checkout.folder / "resources/organism/llama/model.safetensors"
    whole = weights.read_bytes()
    response = "finetune/organism-llama/response/1/data/model.safetensors"
    answers = "generate/organism-llama/base/none/organism-evaluation/data/outputs.jsonl"
    truncate(the_file(checkout, "format/organism-chess/plain-16-rows/data/rows.jsonl"))
    flip(the_file(checkout, response))
    flip(the_file(checkout, answers))
    flip(weights)
    adaptations = checkout.config["adaptations"]
    adaptations["chess"]["training"] = {"epochs": 2}
    adaptations["response"]["generation"] = {"max_new_tokens": 6}
    adaptations["rules"]["generation"] = {"max_new_tokens": 6}
    comparison = "judge/organism-llama/base/none/organism-evaluation/1/oracle"
    the_file(checkout, f"{comparison}/manifest.json").unlink()
    before = built(checkout)

    run = checkout.run()
    assert run.status == 1
    assert run.jobs == {"finetune": 1, "generate": 2, "judge": 1}
    for job, said in {
        CHESS: "rows.jsonl has ",
        "generate/organism-llama/response/1/organism-evaluation": "safetensors has other bytes",
        "generate/organism-llama/rules/none/organism-evaluation": "organism/llama changed after",
        comparison: "outputs.jsonl has other bytes",
    }.items():
        [line] = [line for line in run.output.splitlines() if line.startswith(f"{job}: ")]
        assert said in line
    assert built(checkout) == before
    assert "changed behind its time stamp" in checkout.tool("verify").stdout

    weights.write_bytes(whole)
    repaired = checkout.tool("repair")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert checkout.run().jobs == {"stable_names": 1}
    assert checkout.tool("verify").returncode == 0


def own_resources(checkout):
    """Give the checkout bases of its own, known to it, so that a test may damage them."""
    link = checkout.folder / "resources"
    origin = link.resolve()
    link.unlink()
    subprocess.run(["cp", "-r", origin, link], check=True)
    assert not checkout.run().jobs


# --- jobs that end at a bad moment --------------------------------------------------------------


def wait_for(file):
    """Code of a function that waits until a file exists."""
    return (
        f'    import os, time\n    while not os.path.exists("{file}"):\n        time.sleep(0.1)\n'
    )


def test_a_job_that_ends_while_a_data_set_resolves_keeps_its_descendants(checkout):
    def node(name):
        return current(checkout, name).joinpath("manifest.json").relative_to(checkout.folder)

    judged = node("judge/organism-llama/base/none/organism-evaluation/1/oracle")
    formatted = node("format/organism-chess/plain-16-rows")
    targets = [judged, formatted, node(CHESS), node("table/main"), node("table/paper")]
    # Format waits for the judge's manifest; the judge's process ends only after format did.
    scripts = checkout.folder / "workflow/scripts"
    machinery = scripts / "implicit_tuning/nodes/job.py"
    entered = "    code = _unchanged_code(node)\n"
    assert entered in machinery.read_text()
    held = '    if node["stage"] == "format":\n' + textwrap.indent(wait_for(judged), "    ")
    machinery.write_text(machinery.read_text().replace(entered, held + entered))
    with (scripts / "judge.py").open("a") as script:
        script.write(wait_for(formatted) + "    time.sleep(3)\n")
    for target in targets:
        (checkout.folder / target).unlink()

    run = checkout.run("--", *map(str, targets))
    assert run.status == 0, run.output
    assert run.jobs == {"judge": 1, "format": 1, "finetune": 1, "table": 2}


# --- jobs that fail -----------------------------------------------------------------------------


def test_a_failed_job_holds_up_its_descendants_alone(checkout):
    adaptations = checkout.config["adaptations"]
    adaptations["chess"]["training"] = {"learning_rate": 1e38}
    adaptations["response"]["training"] = {"epochs": 2}
    run = checkout.run()
    assert (run.status, run.jobs) == (1, {"finetune": 2, "generate": 1, "judge": 1}), run.output
    [line] = [line for line in run.output.splitlines() if line.startswith(f"{CHESS}: ")]
    assert "Diverged" in line and "lower learning_rate" in line
    assert "Traceback" not in run.output
    adaptations["chess"]["training"] = {"learning_rate": 2e-4}
    rerun = checkout.run()
    assert (rerun.status, rerun.jobs) == (0, BELOW_CHESS), rerun.output


def test_code_edited_during_a_run_is_refused_and_finished_work_kept(checkout):
    train_long(checkout)
    keep_adaptations(checkout, "instruction", "chess")
    running = checkout.start()
    running.job("finetune")
    saved_updates(checkout, at_least=1)
    module = checkout.folder / "workflow/scripts/implicit_tuning/generation/generate.py"
    module.write_text(module.read_text() + "\n\nADDED = 0\n")
    stopped = running.finish()
    assert stopped.status == 1
    assert stopped.jobs == {"finetune": 1, "generate": 1, "table": 1, "figure": 1}
    name = "generate/organism-llama/chess/1/organism-evaluation: "
    [line] = [line for line in stopped.output.splitlines() if line.startswith(name)]
    assert "changed after the run was planned; nothing was built. Start the run again" in line

    rerun = checkout.run()
    assert rerun.status == 0, rerun.output
    assert rerun.jobs == {
        "generate": 2, "judge": 2, "table": 4, "figure": 1, "report": 1, "stable_names": 1
    }  # fmt: skip
    answers = checkout.results / "smallest/current/generate/organism-llama"
    manifests = [json.loads(path.read_text()) for path in answers.glob("*/1/*/manifest.json")]
    assert len(manifests) == 2
    assert len({manifest["code"]["fingerprint"] for manifest in manifests}) == 1
