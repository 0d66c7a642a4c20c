"""Search: hits by words and meaning, with when they were, and a histogram that filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from headwater.errors import HeadwaterError
from headwater.records import Coverage, Mode
from headwater_tui.lines import plural, words_of
from headwater_tui.messages import Asked, Failed, Picked, Pointed, Searched
from headwater_tui.rows import FixedRows, Found
from headwater_tui.screens.asking_for import Choose
from headwater_tui.screens.view import RecordsView
from headwater_tui.widgets.histogram import Histogram
from headwater_tui.widgets.query_bar import QueryBar
from headwater_tui.widgets.record_list import RecordList

_TOP_K = 50
_MODES: tuple[Mode | None, ...] = (None, "keyword", "semantic", "hybrid")


@dataclass(frozen=True, slots=True)
class Scope:
    """In what is searched."""

    topics: tuple[str, ...] = ()
    mode: Mode | None = None
    since: str | None = None
    until: str | None = None


class Search(RecordsView):
    NAME = "Search"
    AUTO_FOCUS = "QueryBar"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="search.back"),
        Binding("slash", "query", "Query", id="search.query"),
        Binding("o", "topics", "Topics", id="search.topics"),
        Binding("c", "mode", "Mode", id="search.mode"),
        Binding("i", "histogram", "Histogram", id="search.histogram"),
        Binding("plus", "more", "More hits", show=False, id="search.more"),
        Binding("b", "save", "Save search", show=False, id="search.save"),
        Binding("B", "saved", "Saved searches", show=False, id="search.saved"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.q, self.scope = "", Scope()
        self._coverage: Coverage | None = None
        self._top_k = _TOP_K
        self._asked = False

    def body(self) -> ComposeResult:
        yield QueryBar(placeholder='words, "a phrase", -not, level:error, since:2h ... (Enter)', id="query")
        yield Histogram(id="when")
        yield RecordList(id="hits", topics=True, score=True)
        yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        self.query_one(QueryBar).remember(self.hw.kept.history, self.hw.vocabulary)
        self._state()
        if self._asked:
            self._begin()

    def ask(self, q: str, scope: Scope | None = None) -> None:
        """Search for this."""
        self.q, self.scope, self._top_k, self._asked = q, scope or self.scope, _TOP_K, True
        if self.is_mounted:
            self._begin()

    def _begin(self) -> None:
        self.query_one(QueryBar).value = self.q
        self.search(self.q, self.scope, self._top_k)

    @work(group="search", exclusive=True)
    async def search(self, q: str, scope: Scope, top_k: int) -> None:
        """Look, and tell what was found."""
        topics = list(scope.topics) or None
        try:
            reply = await self.verbs.search(
                q, topics=topics, top_k=top_k, mode=scope.mode, since=scope.since, until=scope.until
            )
            buckets = max(self.size.width - 4, 20)
            words = " ".join(f'"{w}"' if " " in w else w for w in words_of(q)) if scope.mode == "semantic" else q
            timeline = await self.verbs.timeline(words, topics=topics, since=scope.since, until=scope.until, buckets=buckets)
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return
        self.post_message(Searched(q, reply, timeline))

    def on_searched(self, message: Searched) -> None:
        self._coverage = message.reply.coverage
        self.hw.vocabulary.learn(hit.attributes for hit in message.reply)
        listed = self.listed
        listed.marks = frozenset(self.hw.kept.marks)
        listed.show(FixedRows([Found(hit) for hit in message.reply]), words=words_of(message.q), cursor=listed.cursor)
        self.query_one(Histogram).timeline = message.timeline
        self._state()
        if len(message.reply) and self.focused is self.query_one(QueryBar):
            listed.focus()

    def on_asked(self, message: Asked) -> None:
        message.stop()
        self.hw.remember(message.q)
        self.query_one(QueryBar).remember(self.hw.kept.history, self.hw.vocabulary)
        self.listed.cursor = 0
        self.ask(message.q)

    def on_picked(self, message: Picked) -> None:
        message.stop()
        self._scoped(since=message.since, until=message.until)

    def on_pointed(self, message: Pointed) -> None:
        message.stop()

    def _scoped(self, **changes: object) -> None:
        self.scope = replace(self.scope, **changes)  # type: ignore[arg-type]  # names of Scope's own fields
        self.search(self.q, self.scope, self._top_k)
        self._state()

    def _state(self) -> None:
        """What was searched, in words: scope, coverage, what was left out."""
        scope, coverage = self.scope, self._coverage
        said = [f"{plural(self._hits.count, 'hit')} in {plural(coverage.searched, 'record')}"] if coverage is not None else []
        if scope.since:
            said.append(f"{scope.since[:19]} to {(scope.until or '')[:19]} (Esc: all times)")
        said += [f"mode {scope.mode or 'hybrid, or as the query says'}", ", ".join(scope.topics) or "all topics"]
        if coverage is not None:
            said += [f"{coverage.backlog:,} records not embedded yet"] if coverage.backlog else []
            said += ["more with +"] if coverage.next_cursor or coverage.truncated else []
            said += coverage.notes
        self.query_one("#state", Static).update("  ·  ".join(said))

    @property
    def _hits(self) -> FixedRows:
        rows = self.listed.rows
        return rows if isinstance(rows, FixedRows) else FixedRows()

    # ------------------------------------------------------------------ what can be done

    def action_query(self) -> None:
        self.query_one(QueryBar).focus()

    def action_mode(self) -> None:
        self._scoped(mode=_MODES[(_MODES.index(self.scope.mode) + 1) % len(_MODES)])

    def action_more(self) -> None:
        self._top_k = min(self._top_k * 2, 1000)
        self.search(self.q, self.scope, self._top_k)

    def action_histogram(self) -> None:
        histogram = self.query_one(Histogram)
        if histogram.display and not histogram.has_focus:
            histogram.focus()
        else:
            histogram.display = not histogram.display
            self.listed.focus()

    def action_back(self) -> None:
        """From the query to the hits, from a chosen time to all times, from the histogram to the hits."""
        if self.focused is not self.listed:
            self.listed.focus()
        elif self.scope.since:
            self._scoped(since=None, until=None)

    def action_save(self) -> None:
        if not self.q:
            return
        try:
            saved = self.hw.kept.save_search(self.q)
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return
        self.notify(f"{'saved' if saved else 'no longer saved'}: {self.q}", timeout=2, markup=False)

    @work(group="dialog")
    async def action_saved(self) -> None:
        """Choose one of the saved searches."""
        if not self.hw.kept.searches:
            self.notify("no search is saved; b saves the one in sight", timeout=3)
            return
        if chosen := await self.app.push_screen_wait(Choose("Saved searches", self.hw.kept.searches[::-1])):
            self.ask(chosen[0])

    @work(group="dialog")
    async def action_topics(self) -> None:
        """Choose the topics that are searched."""
        names = [t.name for t in self.hw.seen.topics] if self.hw.seen else []
        chosen = await self.app.push_screen_wait(Choose("Topics (all ticked: everything)", names, self.scope.topics or names))
        if chosen is not None:
            self._scoped(topics=() if len(chosen) == len(names) else tuple(chosen))
