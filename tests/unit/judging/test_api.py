"""`implicit_tuning.compare`: two lists of outputs under a judge that is settings, function or object."""

import json
import socket
import subprocess
import sys

import pytest

from implicit_tuning import InvalidOutputs, JudgingFailed, OracleJudge, Verdict, compare
from implicit_tuning.analysis.statistics import summarise
from implicit_tuning.judging import alpaca
from implicit_tuning.nodes.code import SCRIPTS
from judge_server import JudgeServer, Reply
from served_judge import CANARY
from tiny_models import write_base

pytestmark = pytest.mark.usefixtures("no_openai_environment")
N = 12


def rows(texts):
    return [
        {"instruction": f"question {number}", "output": text} for number, text in enumerate(texts)
    ]


# Of the pairs that differ the first three are longer, and the last one is the same.
OUTPUTS = rows(["longer " * 9] * 3 + ["short"] * (N - 4) + ["same"])
REFERENCES = rows(["text"] * 3 + ["a longer text"] * (N - 4) + ["same"])


class LongerWins:
    judge_id = "longer-wins-1"

    def judge(self, pairs):
        return [Verdict(1.0 if len(p.output_1) > len(p.output_2) else 2.0) for p in pairs]


def longer(instruction, output_1, output_2):
    return 1.0 if len(output_1) > len(output_2) else 2.0


def openai(server, **changes):
    return {"kind": "openai", "model": "judge-1", "base_url": server.url, **changes}


@pytest.mark.parametrize("judge", [longer, LongerWins()], ids=["function", "object"])
def test_the_comparison_is_that_of_the_workflow_with_its_interval(judge):
    found = compare(OUTPUTS, REFERENCES, judge)
    named = [
        [{**row, "generator": name} for row in side]
        for side, name in ((OUTPUTS, "model"), (REFERENCES, "reference"))
    ]
    expected = alpaca.judge_outputs(*named, LongerWins())
    preferences = [row["preference"] for row in found.annotations]
    assert preferences == [row["preference"] for row in expected.annotations]
    assert preferences == [2.0] * 3 + [1.0] * (N - 4) + [1.5]
    assert found.summary["win_rate"] == pytest.approx(100 * 3.5 / N)
    rate = summarise(expected.annotations)
    ends = (found.summary["win_rate_low"], found.summary["win_rate_high"])
    assert ends == (rate.low, rate.high)
    assert ends[0] < found.summary["win_rate"] < ends[1]


def test_an_endpoint_judges_by_its_settings_and_is_asked_once(tmp_path):
    cache = tmp_path / "verdicts.jsonl"
    with JudgeServer() as server:
        first = compare(OUTPUTS, REFERENCES, openai(server), cache=cache)
        asked = len(server.requests)
        second = compare(OUTPUTS, REFERENCES, openai(server), cache=str(cache))
        both = compare(OUTPUTS, REFERENCES, openai(server, both_orders=True), cache=cache)
    assert asked == N - 1  # equal outputs are a draw, and nobody is asked
    assert len(server.requests) == 2 * asked
    assert first == second
    assert first.summary["judge_id"].startswith("openai-")
    assert 25 < first.summary["win_rate"] < 40
    assert both.summary["position_consistency"] == 100.0


def test_a_key_is_read_from_the_environment_and_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", CANARY)
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 1.0}
    with JudgeServer() as server:
        settings = openai(server, api_key_env="MY_KEY", max_usd=1.0, **prices)
        compare(OUTPUTS, REFERENCES, settings, cache=tmp_path / "verdicts.jsonl")
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.parent.name for file in files} >= {"verdicts.jsonl.spending"}
    assert all(CANARY not in file.read_text() for file in files)


def test_pairs_without_a_verdict_are_an_error_or_counted():
    def unreadable(request, earlier):
        return Reply(body=json.dumps({"choices": [{"message": {"content": "?"}}]}).encode())

    few = {"max_retries": 0, "logprobs": False}
    with JudgeServer(unreadable) as server:
        with pytest.raises(JudgingFailed, match="11 of 12 pairs without a verdict"):
            compare(OUTPUTS, REFERENCES, openai(server, **few))
        found = compare(OUTPUTS, REFERENCES, openai(server, max_failed=N, **few))
    assert found.summary["n_failed"] == N - 1
    assert found.summary["win_rate"] == 50.0  # the equal pair alone


ASK_NOBODY = """
import sys
from implicit_tuning import JudgingFailed, compare

mine = [{"instruction": f"question {n}", "output": "yes"} for n in range(2)]
theirs = [{"instruction": f"question {n}", "output": "no"} for n in range(2)]
judge = {"kind": "openai", "model": "m@c", "base_url": sys.argv[1], "max_retries": 0}
try:
    compare(mine, theirs, judge, cache=sys.argv[2] if sys.argv[2:] else None)
except JudgingFailed as error:
    print(error)
"""


@pytest.mark.parametrize("cached", [False, True])
def test_a_program_that_sets_no_logging_up_is_told_why_there_is_no_verdict(tmp_path, cached):
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        run = [sys.executable, "-c", ASK_NOBODY, address, *([tmp_path / "v.jsonl"] * cached)]
        environment = {"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin", "NO_PROXY": "*"}
        done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    why = "2 judge_failed; the first: connection failed (ConnectError)"
    assert done.stdout.startswith(f"2 of 2 pairs without a verdict ({why}) from judge ")
    assert ("cache" in done.stdout) == cached
    assert done.stdout.endswith(" or raise max_failed\n")
    for number in range(2):
        assert done.stderr.count(f"no verdict on 'question {number}': connection failed") == 1
    assert "INFO" not in done.stderr


def test_a_base_judges_by_its_settings(tmp_path):
    settings = {
        "kind": "mean_logprob",
        "base": str(write_base(tmp_path / "base")),
        "batch_size": 4,
    }
    found = compare(OUTPUTS, REFERENCES, settings)
    assert found.summary["judge_id"].startswith("mean_logprob-")
    assert found.annotations[0]["verdict_logprobs"]["output_1"] < 0


def test_an_oracle_is_given_its_truths():
    truth = {"kind": "math", "number": 4, "subject": "coins", "words": 8, "request": "2 and 2?"}
    mine = [{"instruction": "2 and 2?", "output": "That is 4 coins.", "generator": "m"}]
    theirs = [{"instruction": "2 and 2?", "output": "Birds.", "generator": "r"}]
    found = compare(mine, theirs, OracleJudge({"2 and 2?": truth}))
    assert found.summary["n_wins"] == 1


@pytest.mark.parametrize(
    ("judge", "cache", "error", "message"),
    [
        ({}, None, ValueError, "kind is None: choose from hf_logits, mean_logprob, openai"),
        ({"kind": "opanai"}, None, ValueError, "kind is 'opanai': choose from"),
        ({"kind": "oracle"}, None, ValueError, r"implicit_tuning.OracleJudge\(truths\)"),
        ({"kind": "openai"}, None, ValueError, "model is missing: kind 'openai' needs it"),
        (
            {"kind": "openai", "model": "m", "temprature": 1, "calibration": "c.json"},
            None,
            ValueError,
            "calibration is 'c.json': .*no such key here; remove it; temprature is 1: ",
        ),
        (
            {"kind": "openai", "model": "m", "temperature": "0"},
            None,
            ValueError,
            "temperature: '0' is not of type 'number'",
        ),
        (
            {"kind": "openai", "model": "m", "max_usd": 1.0},
            None,
            ValueError,
            "usd_per_million_input_tokens is missing: max_usd needs it.*give cache",
        ),
        (
            {"kind": "hf_logits", "batch_size": 1, "dtype": "float32", "device": "cpu"},
            None,
            ValueError,
            "path is missing",
        ),
        (
            {"kind": "mean_logprob", "base": "no/where", "batch_size": 1},
            None,
            ValueError,
            "base is 'no/where': give the folder",
        ),
        ("gpt-4", None, TypeError, "judge is 'gpt-4': give settings such as"),
        (longer, "verdicts.jsonl", ValueError, "cache: a function has no identity"),
    ],
)
def test_what_is_no_judge_is_refused_before_anything_is_asked(judge, cache, error, message):
    with pytest.raises(error, match=message):
        compare(OUTPUTS, REFERENCES, judge, cache=cache)


def test_a_function_that_returns_no_preference_is_refused():
    with pytest.raises(ValueError, match=r"preference 3.* must lie between 1 and 2"):
        compare(OUTPUTS, REFERENCES, lambda *pair: 3)


def test_outputs_to_other_instructions_are_refused():
    with pytest.raises(InvalidOutputs, match="answer different instructions"):
        compare(OUTPUTS, REFERENCES[1:], longer)
