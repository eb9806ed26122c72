"""Endpoint judges as a config entry makes them, what they judge, and the faults they meet."""

import os
from pathlib import Path

from implicit_tuning.judging.judge import Needs, Pair
from implicit_tuning.judging.kinds import identity_settings, make_judge, runtime_settings
from judge_server import Reply, completion, good

CANARY = "sk-canary-0123456789abcdef"
BODY = completion("m", {"m": -0.1, "M": -2.4})
PASSING = {
    "429": Reply(429, b'{"error": {"message": "slow down"}}'),
    "429 with Retry-After": Reply(429, b"", {"Retry-After": "0.1"}),
    "500": Reply(500, b"oops"),
    "503 with a page": Reply(503, b"<html>busy</html>", {"Content-Type": "text/html"}),
    "no first byte": Reply(body=BODY, delay_s=1.0),
    "slow body": Reply(body=BODY, drip_s=0.01),
    "cut before the body": Reply(body=BODY, cut_at=0),
    "cut within the body": Reply(body=BODY, cut_at=40),
    "malformed": Reply(body=b'{"choices": [}'),
    "truncated": Reply(body=BODY[:60]),
    "empty": Reply(body=b""),
    "another object": Reply(body=b'["m"]'),
    "no choices": Reply(body=b'{"choices": []}'),
    "null choices": Reply(body=b'{"choices": null}'),
    "not UTF-8": Reply(body=b'{"choices": "\xff"}'),
    "empty logprobs": Reply(body=completion("m", {"m": -1}).replace(b"top_logprobs", b"other")),
}


def make(url, spending=Path(os.devnull), **entry):
    """A judge as a config entry makes it, with a back-off short enough for tests.

    One with `max_usd` needs `spending`, a folder.
    """
    entry = {"kind": "openai", "model": "judge-1", "base_url": url, **entry}
    needs = Needs(truths=dict, model=lambda: None, chat={}, spending=spending)
    judge = make_judge(identity_settings(entry), runtime_settings(entry), needs)
    judge._endpoint.first_backoff_s = 0.02
    return judge


def some_pairs(count, text="x"):
    return [Pair(f"question {i}", text * 20, f"{text * 10}{i}") for i in range(count)]


def some_rows(generator, count, text):
    return [
        {"instruction": f"question {i}", "output": text + str(i), "generator": generator}
        for i in range(count)
    ]


def once(reply):
    """A server that answers each question with `reply` first, and well from then on."""
    return lambda request, earlier: good(request, earlier) if earlier else reply
