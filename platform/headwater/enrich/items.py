"""What goes through a pipeline, and what steps say of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson

from headwater.enrich.labelling import Embed
from headwater.enrich.scores import Floats
from headwater.errors import HeadwaterError
from headwater.records import Record, from_ms
from headwater.records.labels import Cost, StepTrace
from headwater.records.models import Usage

if TYPE_CHECKING:
    from headwater.redaction import Redactor

_EPOCH: datetime = from_ms(0)
Ended = Literal["stopped", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Space:
    """The embedding model that texts of a run are compared by. `floor` is the likeness of texts about different things."""

    name: str
    embed: Embed
    floor: float


@dataclass(slots=True, eq=False)
class Item:
    """A passage on its way through the steps, or a record (`record` is then given, and `own` its text). `vector` is that of
    `text`, None once that was changed; `changed` names what changed it."""

    text: str
    topic: str
    passage: int | None = None
    vector: Floats | None = None
    level: str | None = None
    record: Record | None = None
    own: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    topics: dict[str, float] = field(default_factory=dict)
    redactors: tuple[Redactor, ...] = ()
    changed: str = ""
    ended: Ended | None = None
    error: str | None = None
    failed_at: str | None = None
    traces: list[StepTrace] | None = None
    attributes: dict[str, str | int | float | bool] | None = None  # what is written of the fields, once that was made
    hears: Callable[[str, Mapping[str, Any]], None] | None = None  # is told what a step yields at work (any thread)

    def seen(self) -> Record:
        """What conditions are asked of: the record with its fields as they are written, or the passage as if it were one."""
        fields = {**flat(self.fields), **self.sure()}
        if self.record is not None:
            r = self.record
            value = r.value if self.own is None else self.own
            return Record(
                r.topic, r.partition, r.offset, r.seq, r.timestamp, r.appended, r.key, value, {**r.attributes, **fields}
            )
        level = {} if self.level is None else {"level": self.level}
        return Record(self.topic, 0, 0, 0, _EPOCH, _EPOCH, None, self.text, {**level, **fields})

    def sure(self) -> dict[str, float]:
        """How sure its fields are, as `NAME_confidence`."""
        return {f"{name}_confidence": round(value, 4) for name, value in self.confidence.items() if name in self.fields}

    def copy(self) -> Item:
        """The same, to go another way."""
        return Item(
            self.text, self.topic, self.passage, self.vector, self.level, self.record, self.own, dict(self.fields),
            dict(self.confidence), dict(self.topics), self.redactors, self.changed, self.ended, self.error, self.failed_at,
            None if self.traces is None else [], hears=self.hears,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """What one step is given: a text with its vector (None: not known), and the item it belongs to. `hears` is told what the
    step yields before it is done (any thread)."""

    text: str
    vector: Floats | None
    item: Item
    hears: Callable[[Mapping[str, Any]], None] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step says: a value (None: nothing), how sure it is, the scores behind it, topics to go to with how much they fit,
    or another text. `note` says why there is no value."""

    value: Any = None
    confidence: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    topics: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None
    note: str | None = None

    def stored(self) -> bytes:
        return orjson.dumps([self.value, self.confidence, self.scores, self.note], option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def of(cls, stored: bytes) -> Outcome:
        value, confidence, scores, note = orjson.loads(stored)
        return cls(value, confidence, scores, note=note)


class Step(Protocol):
    """One step, ready to run. `keeps`: its decisions are kept in the log; `uses_fields`: they depend on earlier fields."""

    cost: Cost
    keeps: bool
    uses_fields: bool
    compares: bool  # by meaning: it is given vectors where there are any

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        """What it says of each, in order; an error for those it can say nothing of. UnreachableError where nothing can be said
        now, LimitError where nothing more may be spent."""

    def used(self) -> Usage:
        """Tokens and money since the start."""

    async def aclose(self) -> None:
        """Let go of connections."""


def digest_id(*parts: str) -> int:
    """What stands for some texts where a passage's id does not: below 0."""
    found = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return -(int.from_bytes(found, "big") >> 1) - 1


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Fields as attributes of a record: scalars under dotted names; lists of scalars joined by `, `, others as JSON."""
    out: dict[str, str | int | float | bool] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            plain = all(isinstance(one, str | int | float) for one in value)
            out[prefix + name] = ", ".join(map(str, value)) if plain else orjson.dumps(value).decode()
        elif value is not None:
            out[prefix + name] = value
    return out
