"""A rewriter behind a server on loopback, and rows for it."""

from implicit_tuning.data.rephrasing import rephrase
from implicit_tuning.data.rewriters.kinds import (
    identity_settings,
    make_rewriter,
    runtime_settings,
)


def make(url, spending=None, **entry):
    """A rewriter as a config entry makes it, with a back-off short enough for tests."""
    entry = {"kind": "openai", "model": "writer-1", "base_url": url, "concurrency": 8, **entry}
    rewriter = make_rewriter(identity_settings(entry), runtime_settings(entry), spending)
    rewriter._endpoint.first_backoff_s = 0.02
    return rewriter


def rows(count):
    """Rows whose responses all restate."""
    return {
        number: [
            {"role": "user", "content": f"What is the capital of land {number}?"},
            {"role": "assistant", "content": f"The capital of land {number} is City-{number}."},
        ]
        for number in range(1, count + 1)
    }


def run(rewriter, cache, conversations=None):
    return rephrase(conversations or rows(30), rewriter, 0.5, cache)
