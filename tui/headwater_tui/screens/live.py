"""Live: the records of one partition from its first to its newest, or a filtered stream of several topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.widgets import Static

from headwater.errors import HeadwaterError, NotFoundError, UnreachableError
from headwater.query import parse_time
from headwater.records import Record, from_ms
from headwater_tui.lines import flat, number, words_of
from headwater_tui.messages import Asked, Failed, Grown, Pointed
from headwater_tui.rows import KEPT, PartitionRows, StreamRows
from headwater_tui.screens.asking_for import Choose, Prompt
from headwater_tui.screens.view import RecordsView
from headwater_tui.widgets.query_bar import QueryBar
from headwater_tui.widgets.record_list import RecordList

_LOOK_S = 0.25  # between two looks for new records of a partition
_SEND_S = 0.1  # records of a stream are shown so often
_BREATH = 50  # records of a stream between two chances for a key
_AGAIN_S = 1.0  # before a stream that broke is followed again
_SAMPLE = 20  # of the records that came at once, from which completion learns
_BACK = 1000  # records of each topic with which a stream begins


class Live(RecordsView):
    NAME = "Live"
    AUTO_FOCUS = "RecordList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="live.filter"),
        Binding("f", "follow", "Follow", id="live.follow"),
        Binding("space", "pause", "Pause", id="live.pause"),
        Binding("t", "go_to_time", "Go to time", id="live.time"),
        Binding("o", "topics", "Topics", id="live.topics"),
        Binding("p", "partition", "Next partition", show=False, id="live.partition"),
        Binding("escape", "clear", "Clear filter", show=False, id="live.clear"),
    ]
    paused: reactive[bool] = reactive(False)

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []
        self.q = ""
        self._begin_at: tuple[int, int | None] = (0, None)
        self._rows: PartitionRows | StreamRows = StreamRows()
        self._incoming: list[Record] = []
        self._waiting: list[Record] = []  # while paused
        self._skipped = 0
        self._follows = True  # as the list does: workers ask no widget

    def body(self) -> ComposeResult:
        yield QueryBar(placeholder="filter: words, level:error, since:1h ... (Enter)", id="filter")
        yield RecordList(id="records")
        yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        self.query_one(QueryBar).display = False
        if not self.topics and self.hw.seen and self.hw.seen.topics:
            newest = max(self.hw.seen.topics, key=lambda t: (t.last is not None, t.last))
            self.topics = [newest.name]
        self.set_interval(_SEND_S, self._take)
        self.start(self._begin_at[0])

    def open(self, topics: Sequence[str], q: str = "", *, partition: int = 0, offset: int | None = None) -> None:
        """Show other topics; with an offset, that record of one partition."""
        self.topics, self.q = list(topics), q
        self._begin_at = (partition, offset)
        if self.is_mounted:
            self.start(partition)

    # ------------------------------------------------------------------ reading

    def start(self, partition: int = 0) -> None:
        """Begin anew with the topics and filter there are."""
        self.workers.cancel_node(self)
        self._incoming, self._waiting, self._skipped = [], [], 0
        self.set_reactive(Live.paused, False)
        listed = self.listed
        listed.topics = len(self.topics) > 1
        listed.marks = frozenset(self.hw.kept.marks)
        listed.following = True
        if not self.topics:
            self._rows = StreamRows()
        elif len(self.topics) == 1 and not self.q:
            self._rows = PartitionRows(self.topics[0], partition)
            self._grow(self._rows)
        else:
            self._rows = StreamRows(by_time=len(self.topics) > 1)
            for topic in self.topics:
                self._stream(topic, self.q)
        listed.show(self._rows, words=words_of(self.q))
        self._state()

    @work(group="grow")
    async def _grow(self, rows: PartitionRows) -> None:
        """Look for new records of a partition, again and again."""
        told = ""
        while True:
            if not self.paused:
                try:
                    if await rows.grow(self.verbs, 2 * self.size.height if self._follows else 0):
                        self.post_message(Grown())
                    told = ""
                except HeadwaterError as error:
                    if str(error) != told:
                        self.post_message(Failed(told := str(error)))
            await asyncio.sleep(_LOOK_S)

    @work(group="page")
    async def _load(self, rows: PartitionRows, page: int) -> None:
        try:
            self.hw.vocabulary.learn(record.attributes for record in (await rows.load(self.verbs, page))[:_SAMPLE])
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
        else:
            self.post_message(Grown())

    @work(group="stream")
    async def _stream(self, topic: str, q: str) -> None:
        """The newest records of a topic that match, and those that come."""
        after: str | None = None
        begun = False
        try:
            while True:
                try:
                    if not begun:
                        head = (await self.verbs.topic(topic)).heads[0]
                        after, begun = f"{topic}/0/{head - 1 - _BACK}" if head > _BACK else None, True
                    async for record in self.verbs.tail(topic, q, after=after, from_start=after is None):
                        self._incoming.append(record)
                        after = record.address
                        if len(self._incoming) % _BREATH == 0:
                            await asyncio.sleep(0)  # keys come first
                except NotFoundError:  # that record is past its retention; so begin with what is kept
                    if after is None:
                        raise
                    after = None
                except UnreachableError as error:  # a daemon that comes back is followed where it stopped
                    self.post_message(Failed(str(error)))
                    await asyncio.sleep(_AGAIN_S)
                    await self.hw.answering()
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))

    # ------------------------------------------------------------------ what came

    def on_grown(self, message: Grown) -> None:
        self.listed.grown(message.gone)
        offset = self._begin_at[1]
        if offset is not None and isinstance(self._rows, PartitionRows) and self._rows.count > offset:
            self._begin_at = (0, None)
            self.listed.go(offset)
        self._state()

    def _take(self) -> None:
        """Show what streams have brought since the last time."""
        if not self._incoming:
            return
        records, self._incoming = self._incoming, []
        self.hw.vocabulary.learn(record.attributes for record in records[:_SAMPLE])
        if self.paused:
            self._waiting += records
            if len(self._waiting) > KEPT:
                self._skipped += len(self._waiting) - KEPT
                del self._waiting[:-KEPT]
        elif isinstance(self._rows, StreamRows):
            self.listed.grown(self._rows.add(records))
        self._state()

    def on_record_list_wanted(self, message: RecordList.Wanted) -> None:
        message.stop()
        if isinstance(self._rows, PartitionRows):
            for page in self._rows.lacking(message.first, message.last):
                self._load(self._rows, page)

    def on_pointed(self, message: Pointed) -> None:
        message.stop()
        self._state()

    def _state(self) -> None:
        """The line below: what is shown, where the cursor is, whether it follows."""
        rows, listed = self._rows, self.listed
        self._follows = listed.following
        what = ", ".join(self.topics) or "no topic yet; `headwater up FILE` or `headwater demo` makes some"
        if isinstance(rows, PartitionRows):
            what = f"{rows.topic}/{rows.partition}"
        said = [what, f"{listed.cursor + 1:,} of {rows.count:,}" if rows.count else "no records"]
        if self.q:
            said.append(f"filter: {flat(self.q)}")
        if isinstance(rows, StreamRows) and rows.dropped:
            said.append(f"{rows.dropped:,} older ones are no longer held")
        said.append(f"paused, {number(len(self._waiting))} waiting" if self.paused else "following" if listed.following else "")
        if self._skipped:
            said.append(f"{self._skipped:,} passed unseen while paused")
        self.query_one("#state", Static).update("  ·  ".join(filter(None, said)))

    # ------------------------------------------------------------------ what can be done

    def action_filter(self) -> None:
        bar = self.query_one(QueryBar)
        bar.remember(self.hw.kept.history, self.hw.vocabulary)
        bar.value, bar.display = self.q, True
        bar.focus()

    def on_asked(self, message: Asked) -> None:
        message.stop()
        self.hw.remember(message.q)
        self.query_one(QueryBar).display = False
        self.listed.focus()
        if message.q != self.q:
            self.q = message.q
            self.start()

    def action_clear(self) -> None:
        bar = self.query_one(QueryBar)
        if bar.display:
            bar.display = False
            self.listed.focus()
        elif self.q:
            self.q = ""
            self.start()

    def action_follow(self) -> None:
        self.listed.following = not self.listed.following
        self.listed.grown()
        self._state()

    def action_pause(self) -> None:
        self.paused = not self.paused
        if not self.paused and isinstance(self._rows, StreamRows):
            self.listed.grown(self._rows.add(self._waiting))
            self._waiting = []
        self._state()

    def action_partition(self) -> None:
        """The next partition of the topic."""
        rows = self._rows
        known = next((t for t in (self.hw.seen.topics if self.hw.seen else ()) if [t.name] == self.topics), None)
        if isinstance(rows, PartitionRows) and known is not None:
            self.start((rows.partition + 1) % known.partitions)

    @work(group="dialog")
    async def action_topics(self) -> None:
        """Choose the topics shown."""
        names = [t.name for t in self.hw.seen.topics] if self.hw.seen else []
        if chosen := await self.app.push_screen_wait(Choose("Topics", names, self.topics)):
            self.open(chosen, self.q)

    @work(group="dialog")
    async def action_go_to_time(self) -> None:
        """Put the cursor on the first record of a time."""
        said = await self.app.push_screen_wait(Prompt("Go to time", example="14:05, 2h, 2026-11-21T14:05"))
        if not said:
            return
        try:
            await self.go_to(from_ms(parse_time(said, now_ms=round(time.time() * 1000))))
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))

    async def go_to(self, moment: datetime) -> None:
        """Put the cursor on the first record at or after a time; on the last where there is none."""
        rows = self._rows
        if isinstance(rows, PartitionRows):
            self.listed.go(await rows.at(self.verbs, moment))
        else:
            held = list(rows.held)
            self.listed.go(next((n for n, r in enumerate(held) if r.timestamp >= moment), len(held) - 1))
