"""What judging costs: said before, counted by the server after, and never over the cap."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from implicit_tuning.judging.alpaca import judge_outputs
from implicit_tuning.judging.judge import JudgingFailed, Pair
from implicit_tuning.judging.kinds import identity_settings, runtime_settings
from implicit_tuning.nodes.job import Job
from implicit_tuning.remote.ledger import Ledger
from implicit_tuning.remote.spending import Spending
from judge import judge_of
from judge_server import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    JudgeServer,
    Reply,
    completion,
    good,
    longer_wins,
)
from served_judge import PASSING, make, once, some_pairs, some_rows

pytestmark = pytest.mark.usefixtures("no_openai_environment")


PRICES = {"usd_per_million_input_tokens": 10.0, "usd_per_million_output_tokens": 30.0}
ONE_CALL_USD = (INPUT_TOKENS * 10 + OUTPUT_TOKENS * 30) / 1e6


def test_the_plan_is_said_before_the_first_call(caplog, tmp_path):
    pairs = [Pair("i" * 100, "a" * 1000, "b" * 5000)] * 1 + some_pairs(2)
    characters = 1000 + 2000 + 20 + 11 + 20 + 11
    tokens = round(3 * 315 + 0.194 * (100 + 10 + 10) + 0.20 * characters)
    said = []

    def reply(request, earlier):
        said.append("3 calls not in the cache" in caplog.text)
        return good(request, earlier)

    with JudgeServer(reply) as server, caplog.at_level(logging.INFO):
        judge = make(server.url, tmp_path, max_output_characters=2000, max_usd=5, **PRICES)
        judge.judge(pairs)
    assert said == [True] * 3
    ledger = tmp_path / f"{judge.judge_id}.json"
    assert f"about {tokens} tokens, about 0.02 USD, max_usd 5, of which 0.0000 is spent or " in (
        caplog.text
    )
    assert f"promised already ({ledger})" in caplog.text
    assert f"2700 input and 3 output tokens counted by the server, {3 * ONE_CALL_USD:.4f}" in (
        caplog.text
    )


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_cap_is_reached_but_never_passed(concurrency, tmp_path):
    cap = 20.5 * ONE_CALL_USD
    with JudgeServer(lambda r, _: Reply(body=longer_wins(r), delay_s=0.01)) as server:
        judge = make(server.url, tmp_path, concurrency=concurrency, max_usd=cap, **PRICES)
        kept = []
        with pytest.raises(JudgingFailed, match="the next run asks for the rest only") as caught:
            kept.extend(judge.stream(some_pairs(60)))
    spent = len(server.requests) * ONE_CALL_USD
    most_of_a_call = 10 * len(json.dumps(server.requests[0]["messages"])) / 1e6
    assert cap - 2 * most_of_a_call < spent <= cap
    assert len(kept) == len(server.requests)
    assert f"spent {spent:.4f} USD of max_usd {cap:g}" in str(caught.value)
    assert f"judged {len(kept)} of 60 pairs, {60 - len(kept)} remain" in str(caught.value)


def test_what_the_server_does_not_count_costs_the_most_it_can(tmp_path):
    body = completion("m", {"m": -0.1}, usage=False)
    with JudgeServer(lambda *_: Reply(body=body)) as server:
        judge = make(server.url, tmp_path, concurrency=4, max_usd=0.2, **PRICES)
        with pytest.raises(JudgingFailed):
            judge.judge(some_pairs(60))
    bytes_sent = sum(
        len((m["role"] + m["content"]).encode()) for r in server.requests for m in r["messages"]
    )
    assert (10 * bytes_sent + 30 * len(server.requests)) / 1e6 <= 0.2
    assert len(server.requests) > 5


def test_faults_that_cost_nothing_are_not_charged(tmp_path):
    cap = 30.0 * ONE_CALL_USD
    with JudgeServer(once(PASSING["500"])) as server:
        judge = make(server.url, tmp_path, max_usd=cap, **PRICES)
        assert len(judge.judge(some_pairs(15))) == 15
    assert judge._endpoint.spending.spent_usd == pytest.approx(15 * ONE_CALL_USD)
    assert len(server.requests) == 30


# --- one cap for all comparisons ------------------------------------------------------------------


def held(folder):
    """What the only ledger of a folder holds."""
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text())


def test_two_comparisons_share_the_cap(tmp_path):
    reference, sides = some_rows("r", 30, "short "), ("a", "b")
    outputs = {side: some_rows(side, 30, f"longer {side} ") for side in sides}
    ledgers = tmp_path / "spending"

    def run(side, calls):
        judge = make(server.url, ledgers, max_usd=calls * ONE_CALL_USD, **PRICES)
        cache = tmp_path / f"{side}.jsonl"
        return judge_outputs(outputs[side], reference, judge, cache=cache).summary["n_total"]

    with JudgeServer() as server:
        assert run("a", 45.5) == 30
        with pytest.raises(JudgingFailed, match="raise max_usd to go on; judged") as caught:
            run("b", 45.5)
        asked = len(server.requests)
        assert 30 < asked <= 45
        assert f"spent {asked * ONE_CALL_USD:.4f} USD of max_usd" in str(caught.value)
        assert held(ledgers) == {"open": {}, "spent_usd": pytest.approx(asked * ONE_CALL_USD)}
        assert run("b", 75) == 30
    assert len(server.requests) == 60


def test_the_jobs_of_all_comparisons_have_one_ledger(tmp_path):
    entry = {"kind": "openai", "model": "judge-1", "max_usd": 1, **PRICES}
    caches = [tmp_path / f"results/cache/judge/{name}.jsonl" for name in "ab"]
    jobs = [
        Job(
            settings={"judge": identity_settings(entry)},
            runtime=runtime_settings(entry),
            upstream={},
            data=tmp_path,
            partial=tmp_path,
            cache=cache,
            spending=tmp_path / "results/cache/spending",
        )
        for cache in caches
    ]
    ledgers = {judge_of(job)._endpoint.spending.ledger.path for job in jobs}
    (ledger,) = ledgers
    assert ledger == tmp_path / f"results/cache/spending/{judge_of(jobs[0]).judge_id}.json"


def test_two_comparisons_at_once_never_pass_the_cap_together(tmp_path):
    cap = 40.5 * ONE_CALL_USD
    caught = []

    def run(text):
        judge = make(server.url, tmp_path, concurrency=4, max_usd=cap, **PRICES)
        try:
            judge.judge(some_pairs(60, text))
        except JudgingFailed as reached:
            caught.append(reached)

    answer = JudgeServer(lambda r, _: Reply(body=longer_wins(r), delay_s=0.01))
    with answer as server, ThreadPoolExecutor(2) as threads:
        list(threads.map(run, "xy"))
    assert len(caught) == 2
    assert 20 < len(server.requests) <= 40
    assert held(tmp_path)["spent_usd"] == pytest.approx(len(server.requests) * ONE_CALL_USD)


def test_a_call_waits_for_what_the_others_of_its_run_really_cost(tmp_path):
    spending = Spending(Ledger(tmp_path / "judge-1.json", max_usd=1.0), 1e6, 1e6)

    async def two_calls():
        first = await spending.promise(0.5, 0.25)
        second = asyncio.create_task(spending.promise(0.5, 0))
        await asyncio.sleep(0.2)
        assert not second.done()
        spending.settle(first, (0.25, 0), billed=True)
        return await asyncio.wait_for(second, timeout=10)

    assert asyncio.run(two_calls()).usd == 0.5
    assert spending.ledger.committed_usd() == 0.75


def test_no_call_is_made_over_a_damaged_ledger(tmp_path):
    with JudgeServer() as server:
        judge = make(server.url, tmp_path, max_usd=1, **PRICES)
        file = tmp_path / f"{judge.judge_id}.json"
        file.write_text("")
        with pytest.raises(JudgingFailed, match="is damaged") as caught:
            judge.judge(some_pairs(5))
    assert str(file) in str(caught.value)
    assert server.requests == []


def test_a_ledger_that_breaks_under_way_stops_the_judging(tmp_path):
    def reply(request, earlier):
        if len(server.requests) == 10:
            file.write_text("")
        return good(request, earlier)

    with JudgeServer(reply) as server:
        judge = make(server.url, tmp_path, concurrency=1, max_usd=1, **PRICES)
        file = tmp_path / f"{judge.judge_id}.json"
        with pytest.raises(JudgingFailed, match="judged 9 of 30 pairs"):
            judge.judge(some_pairs(30))
    assert len(server.requests) == 10


def test_without_a_cap_there_is_no_ledger(tmp_path):
    with JudgeServer() as server:
        judge = make(server.url, tmp_path, **PRICES)
        judge.judge(some_pairs(5))
    assert judge._endpoint.spending.spent_usd == pytest.approx(5 * ONE_CALL_USD)
    assert list(tmp_path.iterdir()) == []
