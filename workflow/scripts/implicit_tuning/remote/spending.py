"""What judging by a paid endpoint costs: the estimate before, the server's own count after."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicit_tuning.remote.ledger import Ledger

# Tokens of one annotation, fitted to 41,732 stored ones of the packaged prompt.
PROMPT_TOKENS = 315
TOKENS_A_CHARACTER_OF_INSTRUCTION = 0.194
TOKENS_A_CHARACTER_OF_OUTPUT = 0.20
POLL_S = 0.05


def most_input_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """Returns a number of tokens that a chat cannot exceed: no token is shorter than a byte."""
    return sum(len(text.encode()) for message in messages for text in message.values())


@dataclass(frozen=True)
class Promise:
    """The most that a call under way can cost, and its id in the ledger if there is one."""

    usd: float
    call: str | None


@dataclass
class Spending:
    """Money that one run of a judge spends, in USD; all zero without prices.

    Attributes:
        ledger: keeps the judge's cap over all its runs; None for no cap.
        usd_per_million_input_tokens, usd_per_million_output_tokens: prices; None for free.
        spent_usd: what the server counted, and the upper bound of calls of which it said nothing.
    """

    ledger: Ledger | None
    usd_per_million_input_tokens: float | None
    usd_per_million_output_tokens: float | None
    spent_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def is_paid(self) -> bool:
        """Whether tokens have a price."""
        return self.usd_per_million_input_tokens is not None

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Returns the price of so many tokens."""
        return (
            input_tokens * (self.usd_per_million_input_tokens or 0.0)
            + output_tokens * (self.usd_per_million_output_tokens or 0.0)
        ) / 1e6

    async def promise(self, input_tokens: int, output_tokens: int) -> Promise:
        """Sets aside the most that a call can cost.

        While other calls of this run hold money that it would need, it waits for what they cost.

        Raises CostCapReached and UnusableLedger as the ledger does.
        """
        usd = self.usd(input_tokens, output_tokens)
        if self.ledger is None:
            return Promise(usd, None)
        while (call := self.ledger.promise(usd)) is None:
            await asyncio.sleep(POLL_S)
        return Promise(usd, call)

    def settle(self, promise: Promise, usage: tuple[int, int] | None, billed: bool) -> None:
        """Ends a call: its (input, output) tokens as the server counted them, if it did.

        A call that was `billed`, or may have been, without a count costs all that was promised.
        """
        usd = promise.usd if billed else 0.0
        if usage is not None:
            self.input_tokens += usage[0]
            self.output_tokens += usage[1]
            usd = self.usd(*usage)
        self.spent_usd += usd
        if self.ledger is not None and promise.call is not None:
            self.ledger.settle(promise.call, usd)
