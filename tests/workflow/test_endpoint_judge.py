"""The smallest experiment under a judge behind HTTP: it fails, is run again, and asks for the rest."""

import copy
import json
import shutil

import pytest

from judge_server import JudgeServer, Reply, good

pytestmark = pytest.mark.long
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def checkout(finished, tmp_path):
    """A copy of the finished checkout, in which everything stands but the endpoint's verdicts."""
    checkout = copy.copy(finished)
    checkout.folder = tmp_path / "checkout"
    checkout.config = copy.deepcopy(finished.config)
    checkout.environment = {"OPENAI_API_KEY": CANARY}
    shutil.copytree(finished.folder, checkout.folder, symlinks=True)
    return checkout


def annotations_of(checkout):
    nodes = checkout.results.glob("nodes/judge/*/*/*/*/*/served/*/data/annotations.jsonl")
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in nodes]


def files_with(checkout, text):
    files = [file for file in checkout.folder.rglob("*") if file.is_file()]
    return [file for file in files if text.encode() in file.read_bytes()]


def test_a_judging_that_failed_is_taken_up_where_it_stopped(checkout):
    def reply(request, earlier):
        content = request["messages"][-1]["content"]
        question = content.split('"instruction": """')[1]
        echo = server.headers[-1]["authorization"]
        return Reply(500, echo.encode()) if down and question[0] in "WH" else good(request, earlier)

    down = True
    with JudgeServer(reply) as server:
        entry = {"kind": "openai", "model": "judge-1", "base_url": server.url, "max_retries": 0}
        checkout.config["judges"]["served"] = entry
        checkout.config["judge"] = "served"

        failed = checkout.run()
        assert failed.status != 0
        assert "pairs without a verdict" in failed.output
        assert set(failed.jobs) == {"judge"}
        down = False
        calls = len(server.requests)
        resumed = checkout.run()
        assert resumed.status == 0, resumed.output
        asked_again = server.requests[calls:]
        assert asked_again
        assert all(
            request["messages"][-1]["content"].split('"""')[1][0] in "WH" for request in asked_again
        )

        calls = len(server.requests)
        checkout.config["judges"]["served"] |= {"concurrency": 2, "max_retries": 5, "timeout_s": 9}
        assert checkout.run().jobs == {}
        assert len(server.requests) == calls

    comparisons = annotations_of(checkout)
    judged = [row for rows in comparisons for row in rows if row["status"] == "ok"]
    assert {row["status"] for rows in comparisons for row in rows} == {"ok", "tie_identical"}
    assert sum(server.answered.values()) == len(judged)
    assert {header["authorization"] for header in server.headers} == {f"Bearer {CANARY}"}
    logs = [file.read_text() for file in checkout.results.glob("nodes/judge/**/job.log")]
    assert any("calls not in the cache to judge-1" in log for log in logs)
    assert files_with(checkout, "judge-1")  # the search finds what is there
    assert files_with(checkout, CANARY) == []
    assert CANARY not in failed.output + resumed.output


def test_an_edit_of_the_judge_asks_nothing_and_another_version_asks_again(checkout):
    module = checkout.folder / "workflow/scripts/implicit_tuning/judging/judges/openai.py"
    cache = checkout.results / "cache/judge"

    def judged():
        run = checkout.run()
        assert run.status == 0, run.output
        return run.jobs["judge"], len(server.requests)

    with JudgeServer() as server:
        entry = {"kind": "openai", "model": "judge-1", "base_url": server.url}
        checkout.config["judges"]["served"] = entry
        checkout.config["judge"] = "served"
        rows = checkout.config["adaptations"]
        checkout.config["adaptations"] = {name: rows[name] for name in ("base", "instruction")}
        jobs, calls = judged()
        assert jobs and calls
        module.write_text(f"{module.read_text()}\n\nADDED = True\n")
        assert judged() == (jobs, calls)
        # Files as releases named them that knew no versions, by a hash.
        kept = sorted(cache.rglob("served.v1.jsonl"))
        for number, file in enumerate(kept):
            file.rename(cache / f"{number:020x}.jsonl")
        module.write_text(f"{module.read_text()}\n\nADDED_TOO = True\n")
        assert judged() == (jobs, calls)
        assert sorted(cache.rglob("served.v1.jsonl")) == kept
        module.write_text(module.read_text().replace("KIND = {", 'KIND = {"version": 2,', 1))
        assert judged() == (jobs, 2 * calls)


def test_the_command_judges_as_the_workflow_does(finished, tmp_path):
    """With the oracle, whose truths come from the evaluation set that the workflow has built."""

    def outputs_of(adaptation):
        nodes = finished.results.glob(f"nodes/generate/*/{adaptation}/*/*/*/data/outputs.jsonl")
        return str(next(nodes).resolve())

    sides = ["--outputs", outputs_of("response"), "--references", outputs_of("instruction")]
    done = finished.tool("judge", *sides, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    (node,) = finished.results.glob("nodes/judge/*/response/*/*/*/oracle/*/data")
    for name in ("annotations.jsonl", "summary.json"):
        assert (tmp_path / "out" / name).read_bytes() == (node / name).read_bytes()
