"""Calls of an endpoint on loopback: passing and lasting faults, refusals, limits, and the key."""

import json
import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from implicit_tuning.judging.judge import JudgingFailed
from implicit_tuning.remote.endpoint import read_answer, retry_after_s
from judge_server import (
    JudgeServer,
    Reply,
    completion,
    good,
    longer_wins,
)
from served_judge import CANARY, PASSING, make, once, some_pairs

pytestmark = pytest.mark.usefixtures("no_openai_environment")


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_tried_again(fault):
    with JudgeServer(once(PASSING[fault])) as server:
        verdicts = make(server.url, timeout_s=0.4).judge(some_pairs(3))
    assert [verdict.status for verdict in verdicts] == ["ok"] * 3
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("fault", "status"),
    [("500", "judge_failed"), ("slow body", "judge_failed"), ("cut within the body", "judge_failed"),
     ("truncated", "parse_failed"), ("malformed", "parse_failed")],
)  # fmt: skip
def test_a_lasting_fault_costs_its_pair_alone(fault, status, caplog):
    def reply(request, earlier):
        bad = "question 1\n" in request["messages"][-1]["content"].replace('"', "\n")
        return PASSING[fault] if bad else good(request, earlier)

    with JudgeServer(reply) as server, caplog.at_level(logging.WARNING):
        verdicts = make(server.url, timeout_s=0.4, max_retries=2).judge(some_pairs(4))
    assert [verdict.status for verdict in verdicts] == ["ok", status, "ok", "ok"]
    assert sorted(server.asked.values()) == [1, 1, 1, 3]
    assert "no verdict on 'question 1'" in caplog.text


def test_a_request_that_the_server_finds_bad_is_not_repeated(caplog):
    too_long = b'{"error": {"message": "maximum context length is 10 tokens"}}'
    with JudgeServer(lambda *_: Reply(400, too_long)) as server:
        verdicts = make(server.url).judge(some_pairs(2))
    assert [verdict.status for verdict in verdicts] == ["judge_failed"] * 2
    assert len(server.requests) == 2
    assert "maximum context length is 10 tokens" in caplog.text


def test_back_off_grows():
    with JudgeServer(lambda *_: PASSING["500"]) as server:
        judge = make(server.url, max_retries=4)
        judge._endpoint.first_backoff_s = 0.1
        judge.judge(some_pairs(1))
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert len(waits) == 4
    assert all(wait >= 0.05 * 2**i for i, wait in enumerate(waits))


def test_back_off_is_jittered_so_that_calls_do_not_come_back_together():
    with JudgeServer(once(PASSING["500"])) as server:
        judge = make(server.url, concurrency=10)
        judge._endpoint.first_backoff_s = 1.0
        judge.judge(some_pairs(10))
    again = server.times[10:]
    assert len(again) == 10
    assert again[-1] - again[0] > 0.3  # drawn from one second


def test_retry_after_holds_every_call():
    limited = Reply(429, b"", {"Retry-After": "1"})
    lock, seen = threading.Lock(), []

    def reply(request, earlier):
        with lock:
            seen.append(time.monotonic())
            return limited if len(seen) == 3 else Reply(body=longer_wins(request), delay_s=0.05)

    with JudgeServer(reply) as server:
        verdicts = make(server.url, concurrency=4).judge(some_pairs(40))
    assert all(verdict.status == "ok" for verdict in verdicts)
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    # Calls under way at the limit may still arrive; then nobody calls until the second is over.
    assert max(gaps[2:8]) > 0.85
    assert len(server.requests) == 41


def test_retry_after_in_any_spelling():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after_s(later) <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    spellings = {None: 0, "7": 7, "0.5": 0.5, "-3": 0, past: 0, "soon": 0, "nan": 0, "inf": 0}
    assert {header: retry_after_s(header) for header in spellings} == spellings


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(401, b'{"error": {"message": "bad key"}}'), "answers 401.*variable JUDGE_KEY holds"),
        (Reply(403, b"{}"), "answers 403.*variable JUDGE_KEY holds a key that it does not accept"),
        (Reply(404, b"{}"), "answers 404: it has no model 'judge-1'.*model or base_url"),
        (
            Reply(429, b'{"error": {"code": "insufficient_quota"}}'),
            "quota of the key in JUDGE_KEY is used up",
        ),
        (Reply(429, b"", {"Retry-After": "3600"}), "asks to wait 3600 s: run again then"),
    ],
)
def test_what_no_retry_can_mend_ends_at_once(reply, message, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    reply = replace(reply, body=reply.body + f" you sent {CANARY}".encode())
    with JudgeServer(lambda *_: reply) as server:
        judge = make(server.url, api_key_env="JUDGE_KEY", concurrency=2)
        with pytest.raises(JudgingFailed, match=message) as caught:
            judge.judge(some_pairs(30))
    assert len(server.requests) <= 2
    assert "judged 0 of 30 pairs, 30 remain" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_refused_call_says_so_where_no_key_is_set():
    refusal = pytest.raises(JudgingFailed, match="variable OPENAI_API_KEY is not set")
    with JudgeServer(lambda *_: Reply(401, b"{}")) as server, refusal:
        make(server.url).judge(some_pairs(1))
    assert server.headers[0]["authorization"] == "Bearer none"


def test_the_paid_endpoint_is_not_called_without_a_key():
    with pytest.raises(JudgingFailed, match="variable OPENAI_API_KEY is not set: put"):
        make(None).judge(some_pairs(1))


def test_a_key_that_cannot_be_sent_is_refused_unseen(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY}\nX-Other: 1")
    with JudgeServer() as server, pytest.raises(JudgingFailed, match="OPENAI_API_KEY") as caught:
        make(server.url).judge(some_pairs(1))
    assert CANARY not in str(caught.value)
    assert server.requests == []


def test_the_address_may_come_from_the_environment(monkeypatch):
    with JudgeServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert make(None).judge(some_pairs(2))[0].status == "ok"
    assert len(server.requests) == 2


def test_a_server_that_is_down_is_given_up():
    with JudgeServer() as server:
        url = server.url
    judge = make(url, max_retries=0)
    with pytest.raises(
        JudgingFailed,
        match="no answer 25 times in a row, the last time: .*; judged 0 of 90 pairs, 90 remain",
    ):
        judge.judge(some_pairs(90))
    assert judge.calls < 50


def test_after_a_refusal_the_calls_under_way_still_count():
    def reply(request, earlier):
        if '"question 5"' in request["messages"][-1]["content"]:
            return Reply(401, b"{}")
        return Reply(body=longer_wins(request), delay_s=0.3)

    with JudgeServer(reply) as server:
        stream = make(server.url, concurrency=6).stream(some_pairs(50))
        kept = []
        with pytest.raises(JudgingFailed, match="judged 5 of 50 pairs, 45 remain"):
            kept.extend(stream)
    assert len(kept) == 5
    assert len(server.requests) == 6


@pytest.mark.parametrize(("said", "kept"), [(b'"length"', "length"), (b"null", None)])
def test_an_answer_says_why_it_ended_where_the_server_does(said, kept):
    content = json.loads(completion("m").replace(b'"stop"', said))
    assert read_answer(content).finish_reason == kept
    del content["choices"][0]["finish_reason"]
    assert read_answer(content).finish_reason is None


# --- speed and limits ------------------------------------------------------------------------------


def test_as_many_calls_at_once_as_asked_for_and_no_more():
    with JudgeServer(lambda r, _: Reply(body=longer_wins(r), delay_s=0.05)) as server:
        make(server.url, concurrency=5).judge(some_pairs(30))
    assert server.most_at_once == 5


def test_the_rate_limit_spreads_calls_evenly():
    start = time.monotonic()
    with JudgeServer() as server:
        make(server.url, requests_per_minute=1200).judge(some_pairs(20))
    # One every 50 ms: a busy machine may be late, but nothing is early.
    assert all(arrived - start >= 0.05 * n for n, arrived in enumerate(sorted(server.times)))


def test_judging_works_where_an_event_loop_runs_already():
    import asyncio

    async def notebook(url):
        return make(url).judge(some_pairs(3))

    with JudgeServer() as server:
        assert len(asyncio.run(notebook(server.url))) == 3


def test_a_consumer_may_leave_early():
    with JudgeServer(lambda r, _: Reply(body=longer_wins(r), delay_s=0.02)) as server:
        stream = make(server.url, concurrency=2).stream(some_pairs(200))
        next(stream)
        stream.close()
        asked = len(server.requests)
        time.sleep(0.2)
    assert len(server.requests) == asked < 20
