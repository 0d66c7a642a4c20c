"""Sources: where records come from. One protocol, one file per source.

A source yields batches of drafts with a state that resumes AFTER the last record of the batch. The caller stores
drafts and state in one transaction and only then asks for the next batch: a crash in between delivers the same
batch again with the same positions, and a slow store holds the source back, at most one batch ahead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from headwater.batches import Fault
from headwater.records import Draft

__all__ = ["Batch", "Condition", "Draining", "Fault", "Source", "State"]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Drafts with their positions, in order, and the state (JSON-able) that resumes after them.

    `stream` is the identity in which positions count: (stream, position) names one piece of input for ever. `drafts`
    may be empty where only the state has moved or only faults were found. `lag_bytes` is what is known to be there
    and not yet read, None where that cannot be known.
    """

    drafts: Sequence[Draft]
    state: State
    stream: str
    lag_bytes: int | None = None
    faults: Sequence[Fault] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """How a source is doing: a word or two for people, the last error, and counts of what may have cost records."""

    state: str = "starting"
    error: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


class Source(Protocol):
    """Where records of one topic come from. `name` is stable over restarts: the state is kept under it."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def topic(self) -> str: ...

    @property
    def condition(self) -> Condition: ...

    def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Batches from where `state` left off: endless for a source that follows, else it ends with its input. The
        iterator is to be closed (`aclose`) when it is given up; a batch that could not be stored comes again from a
        new iterator started with the last stored state."""


@runtime_checkable
class Draining(Protocol):
    """A source that cannot be asked again for what it holds, or tells others how far it was stored: before it is given up it is
    stopped, and ends by itself."""

    def stop(self) -> None:
        """Take nothing more; the batches of what was taken are still to be had."""
