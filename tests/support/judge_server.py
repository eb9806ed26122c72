"""A real HTTP server on loopback that speaks the chat-completions protocol, faults included.

It judges by length: the longer output wins, with log-probabilities that say so. As a program it
prints its address and answers each call after `--delay` seconds until it is stopped.
"""

import argparse
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

OUTPUT = re.compile(r'"output": """(.*?)"""', re.DOTALL)
INPUT_TOKENS, OUTPUT_TOKENS = 900, 1


@dataclass(frozen=True)
class Reply:
    """What the server sends back.

    Attributes:
        delay_s: wait before the first byte.
        drip_s: wait between bytes of the body.
        cut_at: bytes of the body after which the connection is cut.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0
    cut_at: int | None = None

    @property
    def is_good(self) -> bool:
        """Whether a client can use it, if it waits long enough."""
        try:
            is_completion = bool(json.loads(self.body)["choices"][0]["message"])
        except (ValueError, LookupError, TypeError):
            return False
        return is_completion and self.status == 200 and self.cut_at is None


def completion(text: str, logprobs: Mapping[str, float] | None = None, usage: bool = True) -> bytes:
    """Returns a chat completion of one token."""
    top = [{"token": token, "logprob": value} for token, value in (logprobs or {}).items()]
    tokens = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]}
    content = {
        "id": "1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
                "logprobs": tokens if logprobs else None,
            }
        ],
    }
    if usage:
        counts = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
        content["usage"] = counts | {"total_tokens": INPUT_TOKENS + OUTPUT_TOKENS}
    return json.dumps(content).encode()


def longer_wins(request: Mapping) -> bytes:
    """Returns the verdict on the two outputs of a request, weighted if the request asks for that."""
    first, second = OUTPUT.findall(request["messages"][-1]["content"])
    winner, loser = ("m", "M") if len(first) >= len(second) else ("M", "m")
    weighted = {winner: -0.1, loser: -2.4, "The": -9.0} if request.get("logprobs") else None
    return completion(winner, weighted)


def good(request: Mapping, earlier: int) -> Reply:
    """Answers every request at once."""
    return Reply(body=longer_wins(request))


class JudgeServer:
    """Runs in a thread; use it as a context.

    `reply` gets each request's body and how many requests with the same messages came before.
    """

    def __init__(self, reply: Callable[[Mapping, int], Reply] = good) -> None:
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []  # names in lower case
        self.times: list[float] = []
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.most_at_once = self._at_once = 0
        self._reply = reply
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """The `base_url` of a client."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def receive(self, request: dict, headers: dict[str, str]) -> tuple[str, Reply]:
        """Records a request and decides about its reply."""
        question = json.dumps(request["messages"])
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.requests.append(request)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            earlier = self.asked[question]
            self.asked[question] += 1
        return question, self._reply(request, earlier)

    def sent(self, question: str, reply: Reply, whole: bool) -> None:
        """Records whether the reply went out."""
        with self._lock:
            self._at_once -= 1
            self.answered[question] += reply.is_good and whole


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question, reply = server.receive(
                request, {name.lower(): value for name, value in self.headers.items()}
            )
            try:
                self._send(reply)
                whole = True
            except OSError:  # the client has left
                whole, self.close_connection = False, True
            server.sent(question, reply, whole)

        def _send(self, reply: Reply) -> None:
            time.sleep(reply.delay_s)
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", "Content-Length": len(reply.body)}
            for name, value in {**headers, **reply.headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            body = reply.body[: reply.cut_at]
            for piece in [bytes([b]) for b in body] if reply.drip_s else [body]:
                self.wfile.write(piece)
                time.sleep(reply.drip_s)
            self.close_connection = self.close_connection or reply.cut_at is not None

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds")
    delay_s = parser.parse_args().delay
    with JudgeServer(lambda request, _: Reply(body=longer_wins(request), delay_s=delay_s)) as judge:
        print(judge.url, flush=True)
        threading.Event().wait()
