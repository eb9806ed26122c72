"""Checkpoints that are given up once they have served: a bound on disk, and nothing else lost."""

import threading
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.long

TRAINED = 3


@pytest.fixture(scope="module")
def checkout(new_checkout):
    """A checkout whose config keeps no checkpoints."""
    checkout = new_checkout()
    checkout.config["runtime"]["keep_checkpoints"] = False
    return checkout


def weights(checkout):
    """Weights on disk, those that a job is just writing included."""
    return list(checkout.results.glob("nodes/finetune/**/*.safetensors"))


@contextmanager
def most_at_once(checkout):
    """Watch the disk while the body runs; yields a list whose last number is the most seen."""
    seen, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            seen.append(max(seen[-1], len(weights(checkout))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def test_no_more_checkpoints_than_allowed_lie_on_disk_at_once(checkout):
    with most_at_once(checkout) as seen:
        run = checkout.run("--cores", "3", "--resources", "checkpoints=1")
    assert run.status == 0, run.output
    assert (run.jobs["finetune"], run.jobs["release"]) == (TRAINED, TRAINED)
    assert seen[-1] == 1
    assert weights(checkout) == []


def test_nothing_else_is_lost_with_them(checkout):
    assert not checkout.run().jobs
    done = checkout.tool("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.results / "smallest/tables/loss.csv").is_file()
    explained = checkout.tool("explain", "finetune/organism-llama/chess").stdout
    assert "up to date, weights given up" in explained


def test_they_are_made_again_for_who_loads_them(checkout):
    checkout.config["adaptations"]["chess"]["generation"] = {"max_new_tokens": 6}
    _, *lines = checkout.tool("plan").stdout.partition("\n\n")[0].splitlines()
    counts = {line.split()[0]: int(line.split()[3]) for line in lines}
    assert (counts["finetune"], counts["generate"], counts["judge"]) == (1, 1, 1)
    run = checkout.run()
    assert run.status == 0, run.output
    names = ("finetune", "generate", "judge", "release")
    assert [run.jobs[name] for name in names] == [1, 1, 1, 1]
    assert weights(checkout) == []


def test_the_milestone_of_models_has_them_all_made_again(checkout):
    run = checkout.run("--", "models")
    assert run.status == 0, run.output
    assert run.jobs["finetune"] == TRAINED
    assert run.jobs["generate"] == 0
    assert len(weights(checkout)) == TRAINED
    assert checkout.run().jobs == {"release": TRAINED}
