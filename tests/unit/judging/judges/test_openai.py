"""The endpoint judge against a real server on loopback: its verdicts, identity and comparisons."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import JudgingFailed, Pair, Verdict
from implicit_tuning.judging.prompt import messages
from judge_server import (
    JudgeServer,
    Reply,
    completion,
    good,
    longer_wins,
)
from served_judge import CANARY, PASSING, make, some_pairs, some_rows

pytestmark = pytest.mark.usefixtures("no_openai_environment")

# --- verdicts --------------------------------------------------------------------------------------


def test_weighted_verdicts_where_the_server_gives_logprobs():
    pairs = [Pair("a", "longer output", "short"), Pair("b", "short", "longer output")]
    with JudgeServer() as server:
        first, second = make(server.url).judge(pairs)
    assert first.logprobs == {"m": -0.1, "M": -2.4}
    assert 1.0 < first.preference < 1.2
    assert second.preference == pytest.approx(3 - first.preference)


@pytest.mark.parametrize("logprobs", ["auto", False])
def test_discrete_verdicts_where_there_are_no_logprobs(logprobs):
    with JudgeServer(lambda request, _: Reply(body=completion("M"))) as server:
        (verdict,) = make(server.url, logprobs=logprobs).judge(some_pairs(1))
    assert verdict == Verdict(2.0)
    assert ("logprobs" in server.requests[0]) == (logprobs == "auto")


def test_a_judge_that_needs_logprobs_takes_no_text_for_them():
    with JudgeServer(lambda request, _: Reply(body=completion("M"))) as server:
        (verdict,) = make(server.url, logprobs=True).judge(some_pairs(1))
    assert verdict == Verdict(None, "parse_failed")


def test_a_server_that_refuses_logprobs_is_asked_without():
    def reply(request, earlier):
        if request.get("logprobs"):
            return Reply(400, b'{"error": {"message": "logprobs are not supported"}}')
        return Reply(body=completion("m"))

    with JudgeServer(reply) as server:
        verdicts = make(server.url, concurrency=1).judge(some_pairs(5))
    assert verdicts == [Verdict(1.0)] * 5
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "body",
    [
        completion("The", {"The": -0.1, "A": -3.0}),
        completion("Both are fine"),
        completion(""),
    ],
)
def test_an_answer_without_the_verdict_token_is_not_asked_again(body):
    with JudgeServer(lambda request, _: Reply(body=body)) as server:
        (verdict,) = make(server.url).judge(some_pairs(1))
    assert (verdict.preference, verdict.status) == (None, "parse_failed")
    assert len(server.requests) == 1


def test_the_request_is_the_one_that_alpaca_eval_sends(monkeypatch):
    from alpaca_eval.decoders.openai import openai_completions

    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    pair = Pair("Say something.", "Something.", "No, I would\n\nrather not.")
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}\n<|im_end|>" for m in messages(pair))
    with JudgeServer() as server:
        make(server.url, temperature=1).judge([pair])
        openai_completions(
            [text],
            model_name="judge-1",
            max_tokens=1,
            temperature=1,
            logprobs=True,
            top_logprobs=5,
            num_procs=1,
            openai_api_keys=[CANARY],
            openai_api_base=server.url,
        )
    ours, theirs = server.requests
    assert theirs.pop("top_p") == 1.0  # the protocol's default
    assert ours == theirs
    assert server.headers[0]["authorization"] == server.headers[1]["authorization"]


def test_long_outputs_are_cut_on_both_sides_and_counted():
    pairs = [Pair("q", "a" * 50, "b" * 12), Pair("r", "a" * 50, "b" * 40)]
    with JudgeServer() as server:
        verdicts = make(server.url, max_output_characters=12).judge(pairs)
    assert [verdict.n_cut for verdict in verdicts] == [1, 2]
    sent = [request["messages"][-1]["content"] for request in server.requests]
    assert all("a" * 12 in text and "a" * 13 not in text and "b" * 13 not in text for text in sent)


# --- identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"model": "judge-2"},
        {"temperature": 1.0},
        {"max_tokens": 2},
        {"logprobs": False},
        {"top_logprobs": 20},
        {"max_output_characters": 100},
    ],
)
def test_what_decides_verdicts_is_in_the_identity(change):
    assert make("http://a/v1", **change).judge_id != make("http://a/v1").judge_id


def test_what_decides_no_verdict_is_not():
    other = {
        "base_url": "http://b/v1",
        "api_key_env": "OTHER",
        "concurrency": 3,
        "requests_per_minute": 9,
        "timeout_s": 1,
        "max_retries": 0,
        "max_usd": 1,
        "usd_per_million_input_tokens": 1,
        "usd_per_million_output_tokens": 1,
        "max_failed": 4,
    }
    assert make(None, **other).judge_id == make("http://a/v1").judge_id


# --- whole comparisons -----------------------------------------------------------------------------


def faulty(request, earlier):
    """Every fifth question meets a fault, each kind in turn; some meet two, one after the other."""
    number = int(request["messages"][-1]["content"].split("question ")[1].split('"')[0])
    faults = ["429", "500", "cut within the body", "truncated", "malformed", "429 with Retry-After"]
    if number % 5 == 0 and earlier <= number % 2:
        return PASSING[faults[number // 5 % len(faults)]]
    return good(request, earlier)


def test_805_pairs_with_faults_end_complete_and_no_good_call_is_repeated(tmp_path):
    outputs, references = some_rows("m", 805, "longer output "), some_rows("r", 805, "short ")
    cache = tmp_path / "verdicts.jsonl"
    with JudgeServer(faulty) as server:
        judge = make(server.url, concurrency=16)
        comparison = judge_outputs(outputs, references, judge, cache=cache)
        asked = len(server.requests)
        again = judge_outputs(outputs, references, make(server.url), cache=cache)
    assert comparison.summary["n_total"] == comparison.summary["n_with_logprobs"] == 805
    assert {row["status"] for row in comparison.annotations} == {"ok"}
    assert asked == len(server.requests) > 805 + 161
    assert set(server.answered.values()) == {1}
    keys = Counter(json.loads(line)["key"] for line in cache.read_text().splitlines())
    assert (len(keys), set(keys.values())) == (805, {1})
    assert again == comparison


def test_the_next_run_asks_only_for_what_failed(tmp_path):
    outputs, references = some_rows("m", 40, "longer output "), some_rows("r", 40, "short ")
    cache = tmp_path / "verdicts.jsonl"
    down = {"question 7", "question 21"}

    def reply(request, earlier):
        content = request["messages"][-1]["content"]
        bad = any(f'"{question}"' in content for question in down)
        return PASSING["500"] if bad else good(request, earlier)

    with JudgeServer(reply) as server:
        judge = make(server.url, max_retries=1)
        with pytest.raises(JudgingFailed, match="2 of 40 pairs without a verdict"):
            judge_outputs(outputs, references, judge, cache=cache)
        assert len(server.requests) == 42
        down.clear()
        mended = judge_outputs(outputs, references, make(server.url), cache=cache)
        assert len(server.requests) == 44
    assert mended.summary["n_total"] == 40
    assert set(server.answered.values()) == {1}


def test_one_changed_output_costs_one_call(tmp_path):
    outputs, references = some_rows("m", 30, "longer output "), some_rows("r", 30, "short ")
    cache = tmp_path / "verdicts.jsonl"
    with JudgeServer() as server:
        judge_outputs(outputs, references, make(server.url), cache=cache)
        outputs[11]["output"] = "another"
        judge_outputs(outputs, references, make(server.url), cache=cache)
    assert len(server.requests) == 31


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from served_judge import make, some_rows
from implicit_tuning.judging.alpaca import judge_outputs

outputs, references = some_rows("m", 200, "longer output "), some_rows("r", 200, "short ")
judge_outputs(outputs, references, make(sys.argv[2], concurrency=4), cache=Path(sys.argv[3]))
"""


def test_a_killed_judge_loses_only_the_calls_under_way(tmp_path, repository):
    cache = tmp_path / "verdicts.jsonl"
    with JudgeServer(lambda r, _: Reply(body=longer_wins(r), delay_s=0.05)) as server:
        command = [
            sys.executable,
            "-c",
            PROGRAM,
            str(repository / "tests/support"),
            server.url,
            cache,
        ]
        environment = {**os.environ, "PYTHONPATH": str(repository / "workflow/scripts")}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while len(server.requests) < 60:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1)  # what was sent before the kill still arrives
        asked = len(server.requests)
        kept = len(cache.read_text().splitlines())
        outputs, references = some_rows("m", 200, "longer output "), some_rows("r", 200, "short ")
        comparison = judge_outputs(
            outputs, references, make(server.url, concurrency=16), cache=cache
        )
    assert 0 <= asked - kept <= 4
    assert comparison.summary["n_total"] == 200
    assert len(server.requests) == asked + 200 - kept
