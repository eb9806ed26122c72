"""The smallest experiment through a real SLURM: its tables, and the faults of a cluster."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from implicit_tuning.nodes.artifact import find_damage
from slurm_cluster import (
    SlurmCluster,
    SlurmJob,
    cancel_job,
    change_job,
    reason_to_skip,
    wait_until,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip())),
]
# These jobs are short, so their status is asked for sooner than the profile says.
ON_SLURM = (
    *("--profile", "profiles/slurm", "--cores", "all"),
    *("--slurm-init-seconds-before-status-checks", "1"),
)
# Seconds from the start of Snakemake to its first look at a job: long enough to restart slurmctld.
FIRST_LOOK = ("--slurm-init-seconds-before-status-checks", "40")
GUARD = "    with building("
# A finetune that is held says that it has begun, and waits.
HOLD = """    import os, pathlib, time
    while pathlib.Path("held", snakemake.wildcards.adaptation).exists():
        pathlib.Path("held", os.environ["SLURM_JOB_ID"]).touch()
        time.sleep(0.1)
"""
IMPORTS = "import torch\n"
ADDED = "ADDED = True\n"


@pytest.fixture(scope="module")
def cluster():
    # munged wants a folder that everybody can enter; those of pytest are closed.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        os.chmod(folder, 0o755)
        cluster = SlurmCluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()


@pytest.fixture(scope="module")
def start(cluster):
    """Function that starts Snakemake on the cluster in a checkout."""
    started = []

    def start(checkout, *arguments):
        started.append(checkout.start(*ON_SLURM, *arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()


@dataclass(frozen=True)
class Both:
    """The same experiment, finished on SLURM and without it, and its SLURM jobs."""

    slurm: object
    local: object
    jobs: list[SlurmJob]


@pytest.fixture(scope="module")
def both(cluster, start, new_checkout):
    slurm, local = new_checkout(), new_checkout()
    for checkout in (slurm, local):
        adaptations = checkout.config["adaptations"]
        for name in set(adaptations) - {"instruction", "chess"}:
            del adaptations[name]
    # So that jobs ask for the GPUs that they do not need.
    edit(slurm, "workflow/scripts/implicit_tuning/nodes/gpus.py", '== "cuda"', '== "cpu"')
    edit(slurm, "workflow/scripts/finetune.py", GUARD, HOLD + GUARD)
    (slurm.folder / "held").mkdir()
    # So that a job that imports another copy of the package refuses to work.
    edit(slurm, "workflow/scripts/implicit_tuning/training/run.py", IMPORTS, ADDED + IMPORTS)
    runs = [start(slurm), local.start()]
    for run in [running.finish() for running in runs]:
        assert run.status == 0, run.output
    return Both(slurm, local, cluster.jobs())


@dataclass(frozen=True)
class BadDay:
    """A run in which one job failed, one was cancelled and one ran out of time; its SLURM jobs."""

    status: int
    output: str
    jobs: list[SlurmJob]

    def of(self, adaptation):
        return [job for job in self.jobs if f"_{adaptation}_" in job.name]

    def states(self, adaptation):
        return [job.state for job in self.of(adaptation)]


@pytest.fixture(scope="module")
def bad_day(cluster, start, both):
    checkout = both.slurm
    adaptations = checkout.config["adaptations"]
    adaptations["chess"]["training"] = {"learning_rate": 1e38}
    adaptations["instruction"]["training"] = {"learning_rate": 2e-4}
    adaptations["response"] = {**adaptations["instruction"], "instructions": "blank"}
    held = [hold(checkout, name) for name in ("instruction", "response")]
    running = start(checkout, "models")
    [cancelled], [late] = (
        begun(cluster, checkout, f"_{name}_") for name in ("instruction", "response")
    )
    cancel_job(cancelled)
    change_job(late, "EndTime=now")
    wait_until(lambda: cluster.job(late.number).state == "TIMEOUT", "the time-out")
    for file in held:
        file.unlink()
    run = running.finish()
    return BadDay(run.status, run.output, cluster.jobs()[len(both.jobs) :])


def edit(checkout, name, old, new):
    file = checkout.folder / name
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def hold(checkout, adaptation):
    """The file that keeps the finetunes of an adaptation from beginning, while it stands."""
    file = checkout.folder / "held" / adaptation
    file.touch()
    return file


def begun(cluster, checkout, name, count=1):
    """Wait until the scripts of so many held jobs run."""

    def found():
        jobs = [j for j in cluster.jobs(name) if (checkout.folder / "held" / j.number).exists()]
        return jobs if len(jobs) >= count else []

    return wait_until(found, f"{count} jobs of {name}")


def finetunes(checkout, adaptation, seed=1):
    """Folders of the finetunes that were built, each looked through for damage."""
    pattern = f"nodes/finetune/*/{adaptation}/{seed}/*/manifest.json"
    folders = [manifest.parent for manifest in checkout.results.glob(pattern)]
    assert not [damage for folder in folders for damage in find_damage(folder, read_bytes=True)]
    return folders


def test_the_tables_are_those_of_a_run_without_slurm(both):
    tables = sorted((both.local.results / "smallest/tables").iterdir())
    assert "main.csv" in [table.name for table in tables]
    for table in tables:
        on_slurm = both.slurm.results / "smallest/tables" / table.name
        assert on_slurm.read_bytes() == table.read_bytes()


def test_jobs_get_their_partition_gpu_and_wall_time(both):
    got = {
        job.name.split("_")[1]: (job.fields["Partition"], job.fields.get("TresPerJob"), job.minutes)
        for job in both.jobs
    }
    assert got == {
        "finetune": ("gpu", "gres:gpu:1", 480),
        "generate": ("gpu", "gres:gpu:1", 240),
        "judge": ("cpu", None, 240),
        "table": ("cpu", None, 30),
        "figure": ("cpu", None, 30),
        "report": ("cpu", None, 30),
    }


def test_a_failing_job_ends_the_run_with_an_error_and_holds_up_no_other(both, bad_day):
    assert bad_day.status == 1
    assert bad_day.states("chess") == ["FAILED"] * 3
    assert f"SLURM-job '{bad_day.of('chess')[0].number}' failed" in bad_day.output
    built = {
        name: len(finetunes(both.slurm, name)) for name in ("chess", "instruction", "response")
    }
    assert built == {"chess": 1, "instruction": 2, "response": 1}


def test_a_job_out_of_time_is_tried_again_with_more(bad_day):
    assert bad_day.states("response") == ["TIMEOUT", "COMPLETED"]
    assert bad_day.of("response")[1].minutes == 2 * bad_day.of("chess")[0].minutes
    assert "SLURM status is: 'TIMEOUT'" in bad_day.output


def test_a_job_cancelled_from_outside_is_tried_again(bad_day):
    assert bad_day.states("instruction") == ["CANCELLED", "COMPLETED"]
    assert "SLURM status is: 'CANCELLED'" in bad_day.output


def test_a_killed_snakemake_and_a_restarted_slurmctld_lose_nothing(cluster, start, both):
    checkout = both.slurm
    checkout.config["seeds"] = [2]
    checkout.config["adaptations"] = {"instruction": checkout.config["adaptations"]["instruction"]}
    held = hold(checkout, "instruction")
    killed = start(checkout, "models")
    begun(cluster, checkout, "_instruction_2_")
    killed.process.kill()
    killed.process.wait()
    assert checkout.run("--unlock").status == 0
    running = start(checkout, "models", *FIRST_LOOK)
    twice = begun(cluster, checkout, "_instruction_2_", count=2)
    cluster.stop_controller()
    cluster.start_controller()
    held.unlink()
    run = running.finish()
    assert run.status == 0, run.output
    wait_until(lambda: {cluster.job(j.number).state for j in twice} == {"COMPLETED"}, "both jobs")
    [folder] = finetunes(checkout, "instruction", seed=2)
    assert not list(folder.glob(".building*"))
    assert "finetune" not in checkout.run("models").jobs
