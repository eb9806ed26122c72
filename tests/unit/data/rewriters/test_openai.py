"""Rewriting by an endpoint on loopback: the request, faults, the cache, money, the key; the kinds."""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from implicit_tuning.data.rewriters.kinds import (
    REWRITER_KINDS,
    identity_settings,
    runtime_settings,
)
from implicit_tuning.data.rewriters.openai import GIVE_UP_AFTER
from implicit_tuning.data.rewriters.rewriter import RewritingFailed
from implicit_tuning.nodes.code import PACKAGE
from judge_server import INPUT_TOKENS, OUTPUT_TOKENS, JudgeServer, Reply, completion
from served_judge import CANARY, PASSING
from served_rewriter import make, rows, run

pytestmark = pytest.mark.usefixtures("no_openai_environment")

CUT_OFF = Reply(body=completion("The city").replace(b'"stop"', b'"length"'))
CUT_OFF_UNCOUNTED = Reply(body=completion("The city", usage=False).replace(b'"stop"', b'"length"'))
CUT_OFF_WITHOUT_REASON = Reply(
    body=completion("The city")
    .replace(b'"stop"', b"null")
    .replace(b'_tokens": 1', b'_tokens": 2048')
)
PRICES = {"usd_per_million_input_tokens": 10.0, "usd_per_million_output_tokens": 30.0}


def number_of(request):
    return int(request["messages"][-1]["content"].split("capital of land ")[1].split("?")[0])


def answer(request, earlier=0):
    """Answers as asked."""
    return Reply(body=completion(f"City-{number_of(request)}."))


def but(reply, *numbers):
    """A server that replies so to these rows, always, and well to the others."""
    return lambda request, earlier: reply if number_of(request) in numbers else answer(request)


# --- one request -----------------------------------------------------------------------------------


def test_the_request_shows_both_texts_and_asks_for_one(tmp_path):
    conversations = rows(1)
    conversations[1][1]["content"] += " {response} stays."
    with JudgeServer(answer) as server:
        rephrased, report = run(make(server.url), tmp_path / "c", conversations)
    (request,) = server.requests
    (message,) = request.pop("messages")
    assert request == {"model": "writer-1", "temperature": 0.0, "max_tokens": 2048}
    assert message["role"] == "user"
    for said in conversations[1]:
        assert message["content"].count(said["content"]) == 1
    assert "without restating the request" in message["content"]
    assert rephrased[1][1]["content"] == "City-1."
    assert report.n_rewritten == 1


def test_outer_white_space_of_an_answer_is_not_kept(tmp_path):
    with JudgeServer(lambda *_: Reply(body=completion("\n Lima.\n\n"))) as server:
        rephrased, _ = run(make(server.url), tmp_path / "c", rows(1))
    assert rephrased[1][1]["content"] == "Lima."


def test_no_more_calls_at_once_than_concurrency(tmp_path):
    with JudgeServer(lambda r, _: Reply(body=answer(r).body, delay_s=0.02)) as server:
        run(make(server.url, concurrency=3), tmp_path / "c")
    assert 1 < server.most_at_once <= 3


# --- faults and the cache --------------------------------------------------------------------------


def faulty(request, earlier):
    """Every second row meets a fault, each kind in turn."""
    faults = ["429", "500", "cut within the body", "cut before the body", "malformed"]
    number = number_of(request)
    if number % 2 == 0 and not earlier:
        return PASSING[faults[number // 2 % len(faults)]]
    return answer(request)


def test_30_rows_with_faults_end_complete_and_a_second_run_is_free(tmp_path):
    cache = tmp_path / "cache.jsonl"
    with JudgeServer(faulty) as server:
        first = run(make(server.url), cache)
        asked = len(server.requests)
        second = run(make(server.url), cache)
    rephrased, report = first
    assert [rephrased[n][1]["content"] for n in rows(30)] == [f"City-{n}." for n in rows(30)]
    assert (report.n_restating, report.n_rewritten, report.n_still_restating) == (30, 30, 0)
    assert asked == len(server.requests) == 45
    assert set(server.answered.values()) == {1}
    assert second == first


def test_one_changed_row_costs_one_call(tmp_path):
    conversations = rows(30)
    with JudgeServer(answer) as server:
        run(make(server.url), tmp_path / "c", conversations)
        conversations[17][1]["content"] = "Well, the capital of land 17 is City-17."
        run(make(server.url), tmp_path / "c", conversations)
    assert len(server.requests) == 31


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (PASSING["500"], "500: oops"),
        (PASSING["malformed"], "the reply is not JSON"),
        (Reply(body=completion("")), "an empty answer"),
        (Reply(body=completion(" \n")), "an empty answer"),
        (CUT_OFF, "cut off at max_tokens 2048: raise that"),
        (CUT_OFF_UNCOUNTED, "cut off at max_tokens 2048: raise that"),
        (CUT_OFF_WITHOUT_REASON, "cut off at max_tokens 2048: raise that"),
    ],
    ids=["500", "malformed", "empty", "blank", "cut off", "uncounted", "without reason"],
)
def test_a_row_without_a_rewrite_fails_the_run_and_costs_no_other(reply, said, tmp_path):
    cache = tmp_path / "cache.jsonl"
    with JudgeServer(but(reply, 3, 21)) as server, pytest.raises(RewritingFailed) as caught:
        run(make(server.url, max_retries=1), cache)
    message = str(caught.value)
    assert said in message
    assert "no rewrite of the response to 'What is the capital of land" in message
    assert "rewrote 28 of 30 responses, 2 remain" in message
    assert "run again" in message
    with JudgeServer(answer) as server:
        _, report = run(make(server.url), cache)
    assert sorted(map(number_of, server.requests)) == [3, 21]
    assert report.n_rewritten == 30


@pytest.mark.parametrize("reason", [b"null", b'"stop"'])
def test_a_server_that_counts_no_tokens_is_believed(reason, tmp_path):
    body = completion("Lima.", usage=False).replace(b'"stop"', reason)
    with JudgeServer(lambda *_: Reply(body=body)) as server:
        rephrased, _ = run(make(server.url), tmp_path / "c", rows(1))
    assert rephrased[1][1]["content"] == "Lima."


def test_a_rewrite_that_still_restates_is_kept_and_counted(tmp_path):
    restating = Reply(body=completion("It is the capital of land 5: City-5."))
    with JudgeServer(but(restating, 5)) as server:
        rephrased, report = run(make(server.url), tmp_path / "c")
    assert rephrased[5][1]["content"] == "It is the capital of land 5: City-5."
    assert (report.n_rewritten, report.n_still_restating) == (30, 1)


def test_an_endpoint_that_never_rewrites_is_given_up(tmp_path):
    down = pytest.raises(
        RewritingFailed, match="10 times in a row, the last time: 500: oops; rewrote 0 of 30"
    )
    with JudgeServer(lambda *_: PASSING["500"]) as server, down:
        run(make(server.url, max_retries=0, concurrency=2), tmp_path / "c")
    assert GIVE_UP_AFTER <= len(server.requests) <= GIVE_UP_AFTER + 2


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from served_rewriter import make, rows, run

run(make(sys.argv[2], concurrency=4), Path(sys.argv[3]), rows(100))
"""


def test_a_killed_run_loses_only_the_calls_under_way(tmp_path, repository):
    cache = tmp_path / "cache.jsonl"
    with JudgeServer(lambda r, _: Reply(body=answer(r).body, delay_s=0.05)) as server:
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
        while len(server.requests) < 30:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.5)  # what was sent before the kill still arrives
        asked, kept = len(server.requests), len(cache.read_text().splitlines())
        _, report = run(make(server.url, concurrency=16), cache, rows(100))
    assert 0 <= asked - kept <= 4
    assert len(server.requests) == asked + 100 - kept
    assert report.n_rewritten == 100


# --- refusals, the key, money ----------------------------------------------------------------------


def test_a_refused_key_ends_in_one_error_that_does_not_show_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    echo = Reply(401, f'{{"error": {{"message": "bad key {CANARY}"}}}}'.encode())
    cache = tmp_path / "cache.jsonl"
    caplog.set_level(logging.DEBUG)
    with JudgeServer(lambda *_: echo) as server, pytest.raises(RewritingFailed) as caught:
        run(make(server.url, concurrency=2), cache)
    assert "answers 401: the environment variable OPENAI_API_KEY holds a key" in str(caught.value)
    assert "rewrote 0 of 30 responses, 30 remain" in str(caught.value)
    assert len(server.requests) <= 2
    assert all(h["authorization"] == f"Bearer {CANARY}" for h in server.headers)
    assert CANARY not in str(caught.value) + caplog.text
    assert not cache.exists()


def test_the_key_stands_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WRITER_KEY", CANARY)
    with JudgeServer(faulty) as server:
        entry = {"api_key_env": "WRITER_KEY", "max_usd": 100, **PRICES}
        run(make(server.url, tmp_path / "spending", **entry), tmp_path / "cache.jsonl")
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 2
    assert CANARY not in "".join(written)


def test_without_a_key_nothing_is_asked_and_with_nothing_to_ask_none_is_needed(tmp_path):
    with pytest.raises(RewritingFailed, match="OPENAI_API_KEY is not set.*rewrote 0 of 30"):
        run(make(None), tmp_path / "c")
    nothing = {1: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    rephrased, report = run(make(None), tmp_path / "c", nothing)
    assert (rephrased, report.n_restating) == (nothing, 0)


def test_max_usd_holds_over_all_runs_and_what_it_paid_for_is_kept(tmp_path):
    cache, spending = tmp_path / "cache.jsonl", tmp_path / "spending"
    conversations = rows(30)
    for messages in conversations.values():  # no token is shorter than a byte, on this server too
        messages[1]["content"] += " It is old." * 100
    usd_a_call = (INPUT_TOKENS * 10.0 + OUTPUT_TOKENS * 30.0) / 1e6
    entry = {"max_tokens": 16, "concurrency": 3, **PRICES}
    with JudgeServer(answer) as server:
        for _ in range(2):
            rewriter = make(server.url, spending, max_usd=0.1, **entry)
            with pytest.raises(RewritingFailed, match="of max_usd 0.1, .* remain"):
                run(rewriter, cache, conversations)
        asked = len(server.requests)
        ledger = json.loads((spending / f"{rewriter.rewriter_id}.json").read_text())
        assert 6 <= asked <= 0.1 / usd_a_call
        assert ledger == {"open": {}, "spent_usd": pytest.approx(asked * usd_a_call)}
        run(make(server.url, spending, max_usd=10, **entry), cache, conversations)
    assert len(server.requests) == 30


def test_the_cost_is_said_before_anything_is_asked(tmp_path, caplog):
    with JudgeServer(answer) as server, caplog.at_level(logging.INFO):
        run(make(server.url, tmp_path, max_usd=100, **PRICES), tmp_path / "c")
    said = [record.getMessage() for record in caplog.records if "calls not in" in record.message]
    assert len(said) == 1
    assert f"30 calls not in the cache to writer-1 at {server.url}, at most" in said[0]
    assert "USD, max_usd 100" in said[0]
    spent = 30 * (INPUT_TOKENS * 10 + OUTPUT_TOKENS * 30) / 1e6
    assert f"30 requests, {30 * INPUT_TOKENS} input and 30 output tokens" in caplog.text
    assert f"{spent:.4f} USD" in caplog.text


# --- kinds and identity ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"model": "writer-2"}, {"temperature": 1}, {"max_tokens": 9}])
def test_what_decides_rewrites_is_in_the_identity(change):
    assert make("http://a/v1", **change).rewriter_id != make("http://a/v1").rewriter_id


def test_what_decides_no_rewrite_is_not(tmp_path):
    other = {
        "api_key_env": "OTHER",
        "concurrency": 3,
        "requests_per_minute": 9,
        "timeout_s": 1,
        "max_retries": 0,
        "max_usd": 1,
        "threshold": 0.7,
        **PRICES,
    }
    assert make("http://b/v1", tmp_path, **other).rewriter_id == make("http://a/v1").rewriter_id


def test_every_kind_has_a_module_and_a_maker():
    for name in REWRITER_KINDS:
        assert callable(importlib.import_module(f"{PACKAGE}.data.rewriters.{name}").make)


def test_settings_have_their_defaults_and_no_runtime_key():
    entry = {"kind": "openai", "model": "writer-1", "base_url": "http://a/v1", "threshold": 0.6}
    settings, runtime = identity_settings(entry), runtime_settings(entry)
    assert settings == {
        "kind": "openai",
        "model": "writer-1",
        "temperature": 0.0,
        "max_tokens": 2048,
        "threshold": 0.6,
    }
    assert runtime["base_url"] == "http://a/v1"
    assert not set(settings) & set(runtime)
    assert set(settings) | set(runtime) == REWRITER_KINDS["openai"].keys
    assert identity_settings({"kind": "organism"}) == {"kind": "organism", "threshold": 0.5}
    assert runtime_settings({"kind": "organism"}) == {}
