"""Many questions to one endpoint at once, until no further call makes sense."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from tqdm import tqdm

from implicit_tuning.remote.endpoint import Endpoint, NoAnswer
from implicit_tuning.remote.failures import EndpointFailed, EndpointRefused

logger = logging.getLogger(__name__)

PROGRESS_S = 10.0

Question = TypeVar("Question")
Reply = TypeVar("Reply")


@dataclass
class Asking(Generic[Question, Reply]):
    """How questions are asked; each instance asks once.

    Attributes:
        who: judge or rewriter by kind and identity, for the log.
        ask: returns the reply to one question, or raises NoAnswer or EndpointFailed.
        announce: is called before the first question, when the endpoint is open.
        give_up_after: questions in a row without a reply after which the endpoint counts as down.
    """

    endpoint: Endpoint
    who: str
    ask: Callable[[Question], Awaitable[Reply]]
    announce: Callable[[], None]
    concurrency: int
    give_up_after: int

    def __post_init__(self) -> None:
        self._failed_in_a_row = 0
        self._stopped: EndpointFailed | None = None

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | NoAnswer]]:
        """Position and reply of each question as it comes in; NoAnswer where there is none.

        Raises:
            EndpointFailed: no further call makes sense; raised when the calls under way have ended.
        """
        # The event loop has a thread of its own: in a notebook one is running in ours.
        with ThreadPoolExecutor(1) as thread:
            runner = asyncio.Runner()
            replies = self._replies(questions)
            try:
                with tqdm(total=len(questions), desc=self.who, mininterval=PROGRESS_S) as bar:
                    while item := thread.submit(runner.run, _next(replies)).result():
                        bar.update()
                        yield item
            finally:
                thread.submit(runner.close).result()

    async def _replies(
        self, questions: Sequence[Question]
    ) -> AsyncIterator[tuple[int, Reply | NoAnswer]]:
        free = asyncio.Semaphore(self.concurrency)
        async with self.endpoint:
            self.announce()
            calls = [
                asyncio.create_task(self._reply(position, question, free))
                for position, question in enumerate(questions)
            ]
            for call in asyncio.as_completed(calls):
                if item := await call:
                    yield item
                free.release()  # only now: a process that is killed loses `concurrency` replies at most
        spending = self.endpoint.spending
        logger.info(
            "%s: %d requests, %d input and %d output tokens counted by the server, %.4f USD",
            *(self.who, self.endpoint.calls),
            *(spending.input_tokens, spending.output_tokens, spending.spent_usd),
        )
        if self._stopped is not None:
            raise self._stopped

    async def _reply(
        self, position: int, question: Question, free: asyncio.Semaphore
    ) -> tuple[int, Reply | NoAnswer] | None:
        """Returns None for a question that is not asked because asking has stopped."""
        await free.acquire()
        if self._stopped is not None:
            return None
        try:
            reply = await self.ask(question)
        except EndpointFailed as failure:
            self._stopped = self._stopped or failure
            return None
        except NoAnswer as failure:
            self._failed_in_a_row += 1
            if self._failed_in_a_row == self.give_up_after:
                self._stopped = EndpointRefused(
                    f"the endpoint {self.endpoint.address} gave no answer {self.give_up_after} "
                    f"times in a row, the last time: {failure}"
                )
            return position, failure
        self._failed_in_a_row = 0
        return position, reply


async def _next(replies: AsyncIterator[tuple[int, Reply]]) -> tuple[int, Reply] | None:
    return await anext(replies, None)
