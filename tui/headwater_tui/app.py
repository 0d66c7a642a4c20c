"""The application: its views, what they share, and the keys that work everywhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import difflib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

from headwater.errors import AuthError, ConfigError, HeadwaterError
from headwater.records import Status
from headwater.verbs import Verbs
from headwater_tui.kept import Kept
from headwater_tui.messages import Looked
from headwater_tui.screens.anomalies import Anomalies
from headwater_tui.screens.ask import Ask
from headwater_tui.screens.asking_for import Choose, Keys, Prompt
from headwater_tui.screens.live import Live
from headwater_tui.screens.patterns import Patterns
from headwater_tui.screens.pipelines import Pipelines
from headwater_tui.screens.record import Beside, Record
from headwater_tui.screens.search import Scope, Search
from headwater_tui.screens.status import StatusView
from headwater_tui.screens.topics import Topics
from headwater_tui.screens.view import RecordsView, View
from headwater_tui.screens.watches import Watches
from headwater_tui.vocabulary import Vocabulary
from headwater_tui.widgets.histogram import Histogram
from headwater_tui.widgets.query_bar import QueryBar
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table

_LOOK_S = 1.0
_WITH_KEY = "; set HEADWATER_SERVER_API_KEY and start again"
_FAILURE_S = 10.0  # that an error stays in sight
_MOST_OSC52 = 74_000  # characters that terminals take into their clipboard in one go
VIEWS: tuple[type[View], ...] = (Topics, Live, Search, Patterns, Ask, Anomalies, Watches, Pipelines, StatusView)


class Actions(Provider):
    """Every action of the view in sight, for the palette."""

    async def discover(self) -> Hits:
        for does, run in self._actions():
            yield DiscoveryHit(does, run)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for does, run in self._actions():
            if (score := matcher.match(does)) > 0:
                yield Hit(score, matcher.highlight(does), run)

    def _actions(self) -> list[tuple[str, Callable[[], Any]]]:
        app, focused = cast(HeadwaterApp, self.app), self.focused
        return [
            (f"{binding.description} ({keys})", partial(self._run, binding.action, node, focused))
            for node, binding, keys in app.reachable(self.screen)
        ]

    async def _run(self, action: str, node: DOMNode, focused: Widget | None) -> None:
        if isinstance(node, Widget) and node.focusable and not isinstance(node, Screen):
            node.focus()
        elif focused is not None:
            focused.focus()
        await self.app.run_action(action, node)


class HeadwaterApp(App[None]):
    """The terminal UI over `verbs`. `kept` is what it remembers between runs; `keys` are `NAME=KEY` (see `keymap`)."""

    TITLE = "Headwater"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS = App.COMMANDS | {Actions}
    MOST_EXPORTED = 100_000
    BINDINGS: ClassVar[list[BindingType]] = [
        *[Binding(str(n), f"view('{v.NAME}')", v.NAME, show=False, id=f"view.{n}") for n, v in enumerate(VIEWS, 1)],
        Binding("question_mark,f1", "keys", "Help", key_display="?", id="app.help"),
        Binding("apostrophe", "marks", "Marked records", show=False, id="app.marks"),
        Binding("colon", "command_palette", "Palette", show=False, id="app.palette"),
        Binding("ctrl+q", "quit", "Quit", id="app.quit"),
    ]  # fmt: skip
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {view.NAME: view for view in VIEWS}
    DEFAULT_MODE = Topics.NAME

    def __init__(self, verbs: Verbs, kept: Kept | None = None, *, theme: str | None = None, keys: Iterable[str] = ()) -> None:
        super().__init__()
        self.verbs, self.kept = verbs, kept or Kept()
        self.names = [view.NAME for view in VIEWS]
        self.seen: Status | None = None
        self.trouble, self._told = "", ""
        self.vocabulary = Vocabulary()
        if theme is not None:
            if theme not in self.available_themes:
                raise ConfigError(f"there is no theme {theme!r}; there are {', '.join(sorted(self.available_themes))}")
            self.theme = theme
        self.keys = keymap(keys)
        self.set_keymap(self.keys)

    def on_mount(self) -> None:
        self._look()

    @work(group="look")
    async def _look(self) -> None:
        """The daemon's state, again and again; a daemon that has gone is said, and found again when it is back."""
        while True:
            try:
                self.seen = await self.verbs.status()
            except HeadwaterError as error:
                why = f"{error}{_WITH_KEY if isinstance(error, AuthError) else ''}"
                self.failed(why)  # once: the bar goes on saying it
                self.trouble = why
            else:
                if self.trouble:
                    self.notify("the daemon answers again", timeout=4)
                self.trouble, self._told = "", ""
                self.vocabulary.topics = tuple(t.name for t in self.seen.topics)
            self.screen.post_message(Looked(self.seen, fresh=not self.trouble))
            await asyncio.sleep(_LOOK_S)

    def failed(self, why: str) -> None:
        """Say why something did not work: a daemon that is away once, not for every view that asked it."""
        if why not in (self._told, self.trouble):
            self.notify(why, severity="error", timeout=_FAILURE_S, markup=False)
        self._told = why

    async def answering(self) -> None:
        """Wait until the daemon answers."""
        while self.trouble or self.seen is None:  # noqa: ASYNC110 - what is waited for is polled for every view alike
            await asyncio.sleep(_LOOK_S)

    # ------------------------------------------------------------------ going somewhere

    async def action_view(self, name: str) -> None:
        await self.switch_mode(name)

    def _view(self, kind: type[View]) -> View:
        """A view, in sight: what was opened over it closes."""
        self.switch_mode(kind.NAME)
        for _ in self.screen_stack[1:]:
            self.pop_screen()
        view = self.screen_stack[0]
        assert isinstance(view, kind)
        return view

    def open_live(self, topics: list[str], *, partition: int = 0, offset: int | None = None) -> None:
        """The records of topics; of one partition at an offset."""
        live = self._view(Live)
        assert isinstance(live, Live)
        live.open(topics, partition=partition, offset=offset)

    def open_patterns(self, topic: str) -> None:
        """The patterns of a topic."""
        patterns = self._view(Patterns)
        assert isinstance(patterns, Patterns)
        patterns.open(topic)

    def open_search(self, q: str, scope: Scope | None = None) -> None:
        """A search."""
        search = self._view(Search)
        assert isinstance(search, Search)
        search.ask(q, scope)

    def open_record(self, address: str, *, beside: Beside = "neighbours") -> None:
        """A record over the view in sight, with what stands beside it."""
        self.push_screen(Record(address, beside=beside))

    def ask_about(self, address: str, text: str) -> None:
        """The question of a record, ready to be sent."""
        ask = self._view(Ask)
        assert isinstance(ask, Ask)
        ask.propose(f'Has this been seen before: "{text[:200]}"?')

    # ------------------------------------------------------------------ shared by the views

    def remember(self, q: str) -> None:
        """Keep a query for the next time."""
        with contextlib.suppress(HeadwaterError):  # a history that cannot be kept must not stop the search
            self.kept.asked(q)

    def copy(self, text: str) -> None:
        """Into the clipboard, also over SSH (OSC 52), and into a file for terminals that do not take that, or not so much."""
        try:
            file = self.kept.copied(text)
        except HeadwaterError as error:
            self.failed(str(error))
            file = None
        also = f"; also in {file}" if file is not None else ""
        if len(base64.b64encode(text.encode())) <= _MOST_OSC52:
            self.copy_to_clipboard(text)
            self.notify(f"copied {len(text):,} characters{also}", timeout=4, markup=False)
        else:
            self.notify(f"{len(text):,} characters are too many for the clipboard{also}", timeout=8, markup=False)

    @work(group="dialog")
    async def action_marks(self) -> None:
        """Open one of the marked records."""
        if not self.kept.marks:
            self.notify("no record is marked; m marks the one under the cursor", timeout=3)
        elif chosen := await self.push_screen_wait(Choose("Marked records, the newest first", self.kept.marks[::-1])):
            self.open_record(chosen[0])

    def action_keys(self) -> None:
        """Every key that works here."""
        name = self.screen.NAME if isinstance(self.screen, View) else self.title
        rows = [(keys, binding.description, binding.id or "") for _, binding, keys in self.reachable(self.screen)]
        self.push_screen(Keys(f"{name}: keys, what they do, their names in the settings", rows))

    def reachable(self, screen: Screen[Any]) -> list[tuple[DOMNode, Binding, str]]:
        """What can be done in a screen, by itself or by a widget that can be gone to: whose it is, and its keys in words."""
        found: dict[str, tuple[DOMNode, Binding, list[str]]] = {}
        widgets = [widget for widget in screen.query("RecordList, Table, Histogram, QueryBar") if widget.display]
        for node in (screen, *widgets, self):
            for binding in own_bindings(type(node)):
                name = binding.id or binding.description
                keys = self.keys.get(name, binding.key).split(",")
                found.setdefault(name, (node, binding, []))[2].extend(
                    self.get_key_display(replace(binding, key=k)) for k in keys
                )
        return [(node, binding, " ".join(dict.fromkeys(keys))) for node, binding, keys in found.values()]


def own_bindings(kind: type[DOMNode]) -> list[Binding]:
    """The bindings that a class and those it is made of give to keys, each key once."""
    taken: dict[str, Binding] = {}
    for part in kind.__mro__:
        if part.__module__.startswith("headwater_tui."):
            for binding in Binding.make_bindings(vars(part).get("BINDINGS", ())):
                taken.setdefault(binding.key, binding)
    return list(taken.values())


def bindings() -> dict[str, Binding]:
    """Every binding that settings may give another key, by name."""
    found: dict[str, Binding] = {}
    kinds: list[type[DOMNode]] = [HeadwaterApp, *VIEWS, RecordsView, Record, RecordList, Table, Histogram, QueryBar]
    kinds += [Prompt, Choose, Keys]
    for kind in kinds:
        for binding in kind.BINDINGS:
            if isinstance(binding, Binding) and binding.id:
                found[binding.id] = binding
    return found


def keymap(given: Iterable[str]) -> dict[str, str]:
    """`NAME=KEY` as the settings have them; ConfigError names the nearest known one."""
    keys = {}
    known = bindings()
    for pair in given:
        name, equals, key = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise ConfigError(f"tui.keys: {pair!r} is not NAME=KEY, such as live.follow=F")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise ConfigError(f"tui.keys: there is no {name!r}; did you mean {near!r}? `?` in a view shows the names")
        keys[name] = key
    return keys
