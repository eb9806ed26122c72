"""`python -m implicit_tuning judge`, as a user starts it, against a real server on loopback."""

import itertools
import json
import os
import subprocess
import sys

import pytest
import yaml

from judge_server import INPUT_TOKENS, OUTPUT_TOKENS, JudgeServer, Reply, good

CANARY = "sk-canary-0123456789abcdef"


class Place:
    """A folder that looks like the repository, with two files of outputs and an endpoint judge."""

    def __init__(self, folder, repository):
        self.folder = folder
        self.repository = repository
        for name in ("Snakefile", "config", "resources"):
            (folder / name).symlink_to(repository / name)
        self.config = yaml.safe_load((repository / "tests/fixtures/smallest.yaml").read_text())
        self.judge = {"kind": "openai", "model": "judge-1", "max_retries": 1, "concurrency": 4}
        self.write("a", [f"longer output {i}" for i in range(30)])
        self.write("b", [f"short {i}" for i in range(30)])

    def write(self, generator, texts):
        rows = [
            {"instruction": f"question {i}", "output": text, "generator": generator}
            for i, text in enumerate(texts)
        ]
        (self.folder / f"{generator}.json").write_text(json.dumps(rows))

    def run(self, server, *arguments, out="out", key=CANARY):
        self.config["judges"]["served"] = {**self.judge, "base_url": server.url}
        (self.folder / "test.yaml").write_text(yaml.safe_dump(self.config))
        command = [sys.executable, "-m", "implicit_tuning", "judge", "--configfile", "test.yaml"]
        command += ["--outputs", "a.json", "--references", "b.json", "--judge", "served"]
        command += ["--out", out] if out else []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI")}
        environment |= {"PYTHONPATH": str(self.repository / "workflow/scripts")}
        environment |= {"OPENAI_API_KEY": key} if key else {}
        return subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def holds(self, text):
        """Files below the folder in which the text occurs."""
        files = [f for f in self.folder.rglob("*") if f.is_file() and "resources" not in f.parts]
        return [file for file in files if text.encode() in file.read_bytes()]


@pytest.fixture
def place(tmp_path, repository):
    return Place(tmp_path, repository)


def last_line(done):
    return done.stderr.strip().splitlines()[-1]


def test_two_files_are_judged_and_the_result_is_kept(place):
    with JudgeServer() as server:
        done = place.run(server)
        assert done.returncode == 0, done.stderr
        assert "30 calls not in the cache to judge-1" in done.stderr
        assert "HTTP Request" not in done.stderr
        again = place.run(server)
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert CANARY not in done.stdout + done.stderr
    assert place.holds(CANARY) == []
    summary = json.loads((place.folder / "out/summary.json").read_text())
    assert f"win rate        {summary['win_rate']:.2f} % (95 % interval " in done.stdout
    assert "length ratio" in done.stdout
    assert "30 verdicts with log-probabilities" in done.stdout
    assert summary["win_rate"] > 85
    assert len((place.folder / "out/annotations.jsonl").read_text().splitlines()) == 30
    assert len(server.requests) == 30
    assert again.stdout == done.stdout
    assert sorted(path.name for path in place.folder.glob("*out*")) == [
        "out",
        "out.verdicts.jsonl",
    ]


def test_failed_pairs_end_it_with_their_counts_and_the_next_run_asks_for_them_alone(place):
    down = ["question 3", "question 17"]

    def reply(request, earlier):
        content = request["messages"][-1]["content"]
        return Reply(500) if any(f'"{q}"' in content for q in down) else good(request, earlier)

    with JudgeServer(reply) as server:
        failed = place.run(server)
        assert failed.returncode == 1
        assert "2 of 30 pairs without a verdict (2 judge_failed; the first: 500" in last_line(
            failed
        )
        assert not (place.folder / "out").exists()
        down.clear()
        assert place.run(server).returncode == 0
    assert len(server.requests) == 30 + 2 + 2
    assert set(server.answered.values()) == {1}


@pytest.mark.long
def test_allowed_failures_are_told(place):
    place.judge["max_failed"] = 1

    def reply(request, earlier):
        bad = '"question 3"' in request["messages"][-1]["content"]
        return Reply(500) if bad else good(request, earlier)

    with JudgeServer(reply) as server:
        done = place.run(server)
    assert done.returncode == 0
    assert "1 without a verdict" in done.stdout


@pytest.mark.parametrize("statuses", [[401], [200, 400, 500, 429]])
def test_the_key_is_in_no_file_and_no_message_even_if_the_server_echoes_it(place, statuses):
    """The canary: errors, answers and headers that hold the Authorization header."""
    order = itertools.cycle(statuses)

    def reply(request, earlier):
        echo = server.headers[-1]["authorization"]
        error = {"error": {"message": f"you sent {echo}, that is {echo}", "code": echo}}
        choice = {"message": {"content": echo}, "logprobs": None}
        body = json.dumps(error | {"choices": [choice]}).encode()
        return Reply(next(order), body, {"X-Echo": echo})

    place.write("a", [f"longer output {i}" for i in range(12)])
    place.write("b", [f"short {i}" for i in range(12)])
    with JudgeServer(reply) as server:
        done = place.run(server)
    assert done.returncode == 1
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert place.holds("judge-1")  # the search finds what is there
    assert place.holds(CANARY) == []


def test_a_key_written_into_the_config_is_refused_unseen(place):
    place.judge["api_key"] = CANARY
    with JudgeServer() as server:
        unknown = place.run(server)
        place.judge["api_key_env"] = place.judge.pop("api_key")
        as_name = place.run(server)
    for done in (unknown, as_name):
        assert done.returncode == 1
        assert CANARY not in done.stdout + done.stderr
        assert "environment variable" in done.stderr
    assert server.requests == []


@pytest.mark.long
def test_results_of_another_comparison_are_not_overwritten(place):
    with JudgeServer() as server:
        assert place.run(server).returncode == 0
        before = (place.folder / "out/annotations.jsonl").read_bytes()
        place.judge["model"] = "judge-2"
        other_judge = place.run(server)
        place.judge["model"] = "judge-1"
        place.write("c", [f"other output {i}" for i in range(30)])
        other_outputs = place.run(server, "--outputs", "c.json")
        (place.folder / "full").mkdir()
        (place.folder / "full/notes.txt").touch()
        full = place.run(server, out="full")
    assert "holds another comparison" in last_line(other_judge)
    assert "judge_id" in last_line(other_judge)
    assert '{"generator_2": "a"} instead of {"generator_2": "c"}' in last_line(other_outputs)
    assert "holds no comparison" in last_line(full)
    assert {d.returncode for d in (other_judge, other_outputs, full)} == {1}
    assert (place.folder / "out/annotations.jsonl").read_bytes() == before
    assert len(server.requests) == 30


@pytest.mark.long
def test_a_changed_output_renews_the_results_with_one_call(place):
    with JudgeServer() as server:
        place.run(server)
        place.write("a", ["another answer", *(f"longer output {i}" for i in range(1, 30))])
        renewed = place.run(server)
    assert renewed.returncode == 0
    assert "its results are renewed" in renewed.stderr
    assert len(server.requests) == 31


@pytest.mark.long
def test_max_usd_holds_over_all_comparisons(place):
    prices = {"usd_per_million_input_tokens": 10.0, "usd_per_million_output_tokens": 30.0}
    place.judge |= {"max_usd": 40 * (INPUT_TOKENS * 10 + OUTPUT_TOKENS * 30) / 1e6, **prices}
    place.write("c", [f"another long output {i}" for i in range(30)])
    with JudgeServer() as server:
        first = place.run(server)
        second = place.run(server, "--outputs", "c.json", out="other")
    assert first.returncode == 0, first.stderr
    assert second.returncode == 1
    (ledger,) = (place.folder / "results/cache/spending").glob("openai-*.json")
    assert f"is in {ledger.relative_to(place.folder)}: raise max_usd" in last_line(second)
    assert 30 < len(server.requests) <= 40
    assert not (place.folder / "other").exists()


@pytest.mark.long
def test_mistakes_end_in_one_line_and_no_call(place):
    with JudgeServer() as server:
        missing = place.run(server, "--outputs", "none.json")
        unknown = place.run(server, "--judge", "serve")
        nowhere = place.run(server, out=None)
        place.write("a", ["longer output"] * 29)
        fewer = place.run(server)
        (place.folder / "a.json").write_text("[{]")
        broken = place.run(server)
    assert "none.json" in last_line(missing)
    assert "judge: 'serve' is no judge; did you mean 'served'?" in last_line(unknown)
    assert "give --out" in last_line(nowhere)
    assert "only the reference 1 ('question 29')" in last_line(fewer)
    assert "a.json, line 1: broken JSON" in last_line(broken)
    for done in (missing, unknown, nowhere, fewer, broken):
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert server.requests == []


def test_the_oracle_says_that_its_truths_are_not_built(place):
    with JudgeServer() as server:
        done = place.run(server, "--judge", "oracle", out=None)
    assert done.returncode == 1
    assert "needs 'format/organism-evaluation/plain', which is not built" in last_line(done)
    assert "make data" in last_line(done)
