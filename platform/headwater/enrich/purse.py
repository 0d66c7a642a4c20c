"""What a piece of work may spend on models: a cap that holds, because what a call can take at most is set aside before it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from headwater.embed.fault import Fault
from headwater.errors import LimitError, ModelError
from headwater.llm.structured import Unusable
from headwater.records.models import Message, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

_AROUND = 320  # tokens that a server may write around a prompt and a schema, at most


class Spent(LimitError):
    """Nothing more may be spent, on whatever it is."""


class Purse:
    """Tokens and US dollars that may be spent, None for no limit. `spent` is what was, `calls` how often a model was asked."""

    def __init__(
        self, tokens: int | None = None, cost: float | None = None, *, price: float = 0.0, of: Purse | None = None
    ) -> None:
        """`price`: US dollars for the dearest token, where that is known; else it is learned from the first call."""
        self.tokens, self.cost = tokens, cost
        self.spent, self.calls, self._held = Usage(), 0, 0
        self._dearest, self._of = price, of

    def part(self) -> Purse:
        """A purse that is paid out of this one, whose limits hold for all such together; each counts what it took itself."""
        return Purse(of=self)

    @contextmanager
    def paying(self, most_tokens: int) -> Iterator[Bill]:
        """Set aside what a call can take at most; LimitError where that is more than is left. What it took is said by
        `Bill.paid`; where nothing is, all that was set aside counts as spent."""
        if self._of is None:
            with self._paying(most_tokens) as bill:
                yield bill
            return
        whole: Bill | None = None
        try:
            with self._of.paying(most_tokens) as whole:
                yield whole
        finally:
            if whole is not None:  # else the limit refused it
                self.calls += 1
                self.spent += whole.usage or Usage()

    @contextmanager
    def _paying(self, most_tokens: int) -> Iterator[Bill]:
        if self.tokens is not None and self.spent.tokens + self._held + most_tokens > self.tokens:
            raise Spent(f"the next call could take more than the {self.tokens:,} tokens that may be spent")
        if self.cost is not None and self.spent.cost is None:
            raise Spent("what the model costs is not known, so no limit in money can hold; set llm.price_input, price_output")
        if self.cost is not None and (self.spent.cost or 0.0) + (self._held + most_tokens) * self._dearest > self.cost:
            raise Spent(f"the next call could take more than the {self.cost:g} US dollars that may be spent")
        self._held += most_tokens
        bill = Bill()
        try:
            yield bill
        except ModelError as error:
            bill.refused(error)
            raise
        finally:
            self._held -= most_tokens
            self.calls += 1
            if bill.usage is None:
                bill.usage = Usage(most_tokens, 0, most_tokens * self._dearest)
            self._settle(bill.usage)

    def _settle(self, usage: Usage) -> None:
        self.spent += usage
        if usage.tokens and usage.cost:
            self._dearest = max(self._dearest, usage.cost / usage.tokens)

    @property
    def learns(self) -> bool:
        """Whether the price is still to be learned: calls should then not run beside each other."""
        if self._of is not None:
            return self._of.learns
        return self.cost is not None and not self._dearest and not self.calls


class Bill:
    """What one call took."""

    def __init__(self) -> None:
        self.usage: Usage | None = None

    def refused(self, error: ModelError) -> None:
        """It failed: it took nothing where the model was not reached, or refused to work. Else it may have worked."""
        cause = error.__cause__
        if isinstance(error, Unusable):
            self.usage = error.usage
        elif isinstance(cause, Fault) and cause.status is not None:
            self.usage = Usage()

    def paid(self, usage: Usage, *, cached: bool = False) -> Usage:
        """It took so much: nothing where the answer was kept from before."""
        self.usage = Usage() if cached else usage
        return self.usage


def most_tokens(messages: Sequence[Message], answer: int, schema: Any = None, *, tries: int = 1) -> int:
    """What asking can take at most: no tokenizer makes more of a text than one token a byte."""
    said = sum(len(m.text.encode("utf-8", "replace")) for m in messages) + _AROUND
    said += 0 if schema is None else len(orjson.dumps(schema))
    return sum(said + answer + n * (answer + 1500) for n in range(tries))
