"""What workers and widgets tell the screens. A worker never touches a widget: it posts one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from textual.message import Message

from headwater.records import Answer, Citation, PatternsReply, Record, RecordView, SearchReply, Status, Timeline
from headwater.records.anomalies import AnomaliesReply, Detecting
from headwater.records.answers import Message as Turn
from headwater.records.drifts import Drift
from headwater.records.labels import Pipeline
from headwater.records.watches import Watch, Woken
from headwater.records.webhooks import Webhook
from headwater_tui.rows import Row


@dataclass
class Failed(Message):
    """A call did not work; `text` says why and how to mend it."""

    text: str


@dataclass
class Opened(Message):
    """A person wants to see the record at an address."""

    address: str


@dataclass
class Pointed(Message):
    """The cursor of a list is on a row."""

    row: Row
    index: int


@dataclass
class Asked(Message):
    """A person has given a query."""

    q: str


@dataclass
class Picked(Message):
    """A person has chosen a stretch of time in a histogram, ISO 8601."""

    since: str
    until: str


@dataclass
class Grown(Message):
    """There are more rows, or rows that were being read are here. `gone` of the oldest went."""

    gone: int = 0


@dataclass
class Looked(Message):
    """The daemon's state, as of now; not `fresh` where it did not answer and this is what it said last."""

    status: Status | None
    fresh: bool = True


@dataclass
class Searched(Message):
    """What a search found, and when."""

    q: str
    reply: SearchReply
    timeline: Timeline | None


@dataclass
class Listed(Message):
    """Patterns of a topic."""

    reply: PatternsReply


@dataclass
class Drifted(Message):
    """Whether a topic says other things than before."""

    drift: Drift


@dataclass
class Hooked(Message):
    """The webhooks; `why` where they could not be asked for."""

    webhooks: list[Webhook]
    why: str = ""


@dataclass
class Read(Message):
    """A record with its neighbours and its text as it is read, or what is near to it in meaning."""

    view: RecordView
    similar: SearchReply | None
    text: str = ""


@dataclass
class Said(Message):
    """A step of an answer."""

    event: Literal["retrieval", "token", "citation", "done"]
    data: str | Citation | Answer | Any


@dataclass
class Detected(Message):
    """What was found odd, and how detectors stand."""

    reply: AnomaliesReply
    detecting: list[Detecting]


@dataclass
class Shown(Message):
    """What shows an anomaly: its topic's records by time, and the records themselves."""

    id: str
    timeline: Timeline | None
    records: list[Record]


@dataclass
class Piped(Message):
    """Every pipeline."""

    pipelines: list[Pipeline]


@dataclass
class Resumed(Message):
    """A conversation to go on with, and what was said in it."""

    id: str
    title: str
    said: list[Turn]


@dataclass
class Watched(Message):
    """Every watch."""

    watches: list[Watch]


@dataclass
class Fired(Message):
    """Hits of a watch."""

    reply: Woken
