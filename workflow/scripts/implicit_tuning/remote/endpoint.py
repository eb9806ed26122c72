"""Calls of an OpenAI-compatible chat endpoint that survive its faults and keep its secret.

The client is `openai`'s, which is also alpaca-eval's. Not used is alpaca-eval's wrapper around it,
`openai_completions`: it takes one text and splits it at chat markers, those of the outputs too;
swallows a 429 with its Retry-After, and any error that has "rate " in its text ("generate a
key"), and returns an empty completion instead; lets one failed call end the batch; and prints
what a server says of a refused key. A test holds our requests against its requests.
"""

import asyncio
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import openai
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from implicit_tuning.remote.failures import EndpointFailed, EndpointRefused
from implicit_tuning.remote.ledger import Ledger
from implicit_tuning.remote.spending import Spending, most_input_tokens

Messages = Sequence[Mapping[str, str]]

# Who asks for more patience than this is asked again by the next run.
LONGEST_RETRY_AFTER_S = 120.0
LONGEST_BACKOFF_S = 30.0
# A local server needs no key, but the client sends one always.
NO_KEY = "none"
SHOWN_OF_A_REPLY = 200
# Names of the HTTP client's errors after which nothing was sent, so nothing can be billed.
NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
WORTH_ANOTHER_TRY = frozenset({408, 409, 429})


class NoAnswer(RuntimeError):
    """One call brought no answer.

    `unreadable`: a reply came that could not be read. `again`: another try may help. `billed`: the
    server may have done the work, and count it.
    """

    def __init__(
        self, reason: str, unreadable: bool = False, again: bool = True, billed: bool = True
    ) -> None:
        super().__init__(reason)
        self.unreadable = unreadable
        self.again = again
        self.billed = billed


@dataclass(frozen=True)
class Answer:
    """One answer.

    `logprobs` has the log-probability of each likely first token, `usage` the tokens of question
    and answer as the server counted them. `finish_reason` is "length" for an answer that was cut
    off at max_tokens. None means that the server does not say.
    """

    text: str
    logprobs: Mapping[str, float] | None
    usage: tuple[int, int] | None
    finish_reason: str | None


def make_endpoint(model: str, runtime: Mapping[str, Any], spending: Path, asker: str) -> "Endpoint":
    """Returns the endpoint of a judge or rewriter of kind `openai`.

    `runtime` is `kinds.runtime_settings` of its config entry. `spending` is the folder for the
    ledger, kept where `max_usd` caps the cost; `asker`, the identity of the judge or rewriter,
    names it.
    """
    ledger = None
    if runtime["max_usd"] is not None:
        ledger = Ledger(spending / f"{asker}.json", runtime["max_usd"])
    prices = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
    address = ("base_url", "api_key_env", "requests_per_minute", "timeout_s", "max_retries")
    return Endpoint(
        model=model,
        spending=Spending(ledger, **{key: runtime[key] for key in prices}),
        **{key: runtime[key] for key in address},
    )


@dataclass
class Endpoint:
    """One model behind one address; use it as an asynchronous context, in one event loop.

    Attributes:
        base_url: None for OPENAI_BASE_URL of the environment, else OpenAI's own.
        api_key_env: name of the environment variable that holds the key.
        requests_per_minute: at most, evenly spread; None for no limit.
        timeout_s: for a whole call, however slowly its bytes come.
        spending: what the calls cost, and their cap.
        first_backoff_s: mean wait before the first retry; it doubles each time.
        calls: requests sent so far.
    """

    model: str
    base_url: str | None
    api_key_env: str
    requests_per_minute: float | None
    timeout_s: float
    max_retries: int
    spending: Spending
    first_backoff_s: float = 0.5
    calls: int = 0

    async def __aenter__(self) -> Self:
        self._key = self._read_key()
        self._refusal: EndpointFailed | None = None
        self._next_turn = self._held_until = 0.0
        self._client = openai.AsyncOpenAI(
            api_key=self._key, base_url=self.base_url, max_retries=0, timeout=self.timeout_s
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def address(self) -> str:
        """Where the calls go."""
        return str(self._client.base_url).rstrip("/")

    async def ask(self, messages: Messages, **parameters: object) -> Answer:
        """Returns the answer to a chat; `parameters` are those of the protocol.

        Passing faults (429, 5xx, time-outs, cut connections, broken JSON) are tried again, with
        exponential back-off and jitter and no sooner than the server's Retry-After.

        Raises NoAnswer when there is none in the end, and EndpointRefused, CostCapReached or
        UnusableLedger when no further call makes sense; from then on every call raises it.
        """
        tries = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, NoAnswer) and error.again),
            stop=stop_after_attempt(1 + self.max_retries),
            wait=wait_exponential(self.first_backoff_s / 2, LONGEST_BACKOFF_S)
            + wait_random(0, self.first_backoff_s),
            reraise=True,
        )
        try:
            return await tries(self._ask_once, messages, parameters)
        except EndpointFailed as refusal:
            self._refusal = refusal
            raise

    async def _ask_once(self, messages: Messages, parameters: Mapping[str, Any]) -> Answer:
        await self._wait_for_turn()
        if self._refusal is not None:
            raise self._refusal
        promised = await self.spending.promise(
            most_input_tokens(messages), parameters.get("max_tokens", 0)
        )
        usage, billed = None, True
        try:
            answer = await self._send(messages, parameters)
            usage = answer.usage
            return answer
        except NoAnswer as failure:
            billed = failure.billed
            raise
        except EndpointRefused:
            billed = False
            raise
        finally:
            self.spending.settle(promised, usage, billed)

    async def _send(self, messages: Messages, parameters: Mapping[str, Any]) -> Answer:
        self.calls += 1
        failure: Exception
        try:
            async with asyncio.timeout(self.timeout_s):
                # `chat.completions.create` takes half as long again, for types we do not use.
                content = await self._client.post(
                    "/chat/completions",
                    cast_to=object,
                    body={"model": self.model, "messages": messages, **parameters},
                )
            return read_answer(content)
        except ValueError:  # not JSON, or cut off
            failure = NoAnswer("the reply is not JSON", unreadable=True)
        except openai.APIStatusError as error:
            failure = self._failure_of_status(error)
        except TimeoutError:
            failure = NoAnswer(f"no answer within timeout_s {self.timeout_s:g}")
        except openai.APIConnectionError as error:  # time-outs of the client among them
            cause = type(error.__cause__).__name__
            failure = NoAnswer(f"connection failed ({cause})", billed=cause not in NEVER_SENT)
        # Outside the handlers, so that no traceback shows the server's words or our headers.
        raise failure

    def _failure_of_status(self, error: openai.APIStatusError) -> Exception:
        status, said = error.status_code, self._without_key(error.response.text)
        where = f"the endpoint {self.address} answers {status}"
        if status in (401, 403):
            has = "is not set" if self._key == NO_KEY else "holds a key that it does not accept"
            return EndpointRefused(f"{where}: the environment variable {self.api_key_env} {has}")
        if status == 404:
            return EndpointRefused(
                f"{where}: it has no model '{self.model}', or is no chat endpoint; correct its model or "
                "base_url in the config"
            )
        if status == 429 and "insufficient_quota" in said:
            return EndpointRefused(
                f"{where}: the quota of the key in {self.api_key_env} is used up; what was answered "
                "is kept"
            )
        wait = retry_after_s(error.response.headers.get("retry-after"))
        if wait > LONGEST_RETRY_AFTER_S:
            return EndpointRefused(f"{where} and asks to wait {wait:g} s: run again then")
        # For all calls: a limit is the key's, not the call's.
        self._held_until = max(self._held_until, time.monotonic() + wait)
        again = status in WORTH_ANOTHER_TRY or status >= 500
        return NoAnswer(f"{status}: {said[:SHOWN_OF_A_REPLY]}", again=again, billed=False)

    async def _wait_for_turn(self) -> None:
        turn = max(time.monotonic(), self._next_turn)
        if self.requests_per_minute is not None:
            self._next_turn = turn + 60 / self.requests_per_minute
        while (wait := max(turn, self._held_until) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def _read_key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
            raise EndpointRefused(
                f"the environment variable {self.api_key_env} is not set: put the endpoint's key "
                "there, or give the base_url of a server that needs none"
            )
        if not key.isascii() or not key.isprintable():
            raise EndpointRefused(
                f"the environment variable {self.api_key_env} holds characters that no key has"
            )
        return key or NO_KEY

    def _without_key(self, text: str) -> str:
        """The server's words in one line; some echo the header that holds the key."""
        return " ".join(text.replace(self._key, f"[{self.api_key_env}]").split())


def read_answer(content: Any) -> Answer:
    """Returns the first choice of a chat completion; raises NoAnswer (parse_failed) for others."""
    try:
        choice = content["choices"][0]
        text = choice["message"]["content"] or ""
        reason = choice.get("finish_reason")
        return Answer(text, _first_logprobs(choice), _usage(content), reason)
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise NoAnswer("the reply is no chat completion", unreadable=True)


def _first_logprobs(choice: Mapping) -> dict[str, float] | None:
    tokens = (choice.get("logprobs") or {}).get("content")
    if not tokens:
        return None
    return {entry["token"]: float(entry["logprob"]) for entry in tokens[0]["top_logprobs"]}


def _usage(content: Mapping) -> tuple[int, int] | None:
    usage = content.get("usage")
    return (int(usage["prompt_tokens"]), int(usage["completion_tokens"])) if usage else None


def retry_after_s(header: str | None) -> float:
    """Returns how long a Retry-After header, in seconds or as a date, asks to wait; 0 if it does not."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
