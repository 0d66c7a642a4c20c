"""Anomalies: what was found odd, how odd, why, and what a person says of it."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Static

from headwater.errors import HeadwaterError, NotFoundError
from headwater.records.anomalies import Anomaly, Detecting, Verdict
from headwater_tui.lines import clock, flat, number
from headwater_tui.messages import Detected, Failed, Opened, Picked, Pointed, Shown
from headwater_tui.rows import FixedRows
from headwater_tui.screens.asking_for import Choose, Prompt
from headwater_tui.screens.search import Scope
from headwater_tui.screens.view import RecordsView
from headwater_tui.widgets.histogram import Histogram
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table

_COLUMNS = ("severity", "when", "topic", "kind", "said", "what")
_STYLES = {"low": "dim", "medium": "yellow", "high": "bold red", "critical": "bold white on red"}
_LIMIT = 200
_AROUND, _LEAST_AROUND = 3, timedelta(minutes=30)  # shown before and after an anomaly: so many times its length
_MOST_EVIDENCE = 50
_TEN_YEARS_DAYS = 3650  # beyond it detectors do not tell chances apart
_LOOK_EVERY = 5  # looks at the daemon between two looks at its anomalies


class Anomalies(RecordsView):
    NAME = "Anomalies"
    AUTO_FOCUS = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "judge('anomaly')", "It is one", id="anomalies.confirm"),
        Binding("d", "judge('not an anomaly')", "Not an anomaly", id="anomalies.dismiss"),
        Binding("u", "judge('')", "Take back", show=False, id="anomalies.take-back"),
        Binding("i", "quiet", "Quiet ones", id="anomalies.quiet"),
        Binding("o", "enable", "Detectors of a topic", id="anomalies.enable"),
        Binding("b", "budget", "Budget", show=False, id="anomalies.budget"),
        Binding("r", "refresh", "Refresh", show=False, id="anomalies.refresh"),
        Binding("tab", "other", "Its records", id="anomalies.other"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.quiet = False
        self._anomalies: tuple[Anomaly, ...] = ()
        self._looks = 0
        self._shown = ""  # the id of the anomaly whose evidence is in sight

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS)
        yield Histogram(id="when")
        with Horizontal(id="beside"):
            with VerticalScroll(id="why"):
                yield Static(id="explained")
            yield RecordList(id="evidence")
        yield Static(id="state", markup=False)

    def looked(self) -> None:
        if self._looks % _LOOK_EVERY == 0:
            self.look()
        self._looks += 1

    @work(group="anomalies", exclusive=True)
    async def look(self) -> None:
        detecting = await self.calling(self.verbs.detecting())
        reply = await self.calling(self.verbs.anomalies(quiet=self.quiet, dismissed=self.quiet, limit=_LIMIT))
        if detecting is not None and reply is not None:
            self.post_message(Detected(reply, detecting))

    def on_detected(self, message: Detected) -> None:
        self._anomalies = message.reply.anomalies
        self.query_one(Table).fill([(a.id, _cells(a)) for a in self._anomalies])
        said = [_standing(d) for d in message.detecting] or ["no detectors are on; o switches those of a topic on"]
        said += message.reply.coverage.notes
        self.query_one("#state", Static).update("  ·  ".join(said))
        self._explain()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._explain()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if (anomaly := self.here) is not None and anomaly.addresses:
            self.post_message(Opened(anomaly.addresses[0]))

    @property
    def here(self) -> Anomaly | None:
        """The anomaly under the cursor."""
        key = self.query_one(Table).here
        return next((a for a in self._anomalies if a.id == key), None)

    def _explain(self) -> None:
        anomaly = self.here
        none = "nothing odd was found" + ("" if self.quiet else "; i shows what did not alert, too")
        self.query_one("#explained", Static).update(explanation(anomaly) if anomaly else Text(none, "dim"))
        if (id := anomaly.id if anomaly else "") != self._shown:
            self._shown = id
            self.listed.show(FixedRows())
            self.query_one(Histogram).timeline = None
            if anomaly is not None:
                self._read_evidence(anomaly)

    @work(group="evidence", exclusive=True)
    async def _read_evidence(self, anomaly: Anomaly) -> None:
        """Its topic's records by time, before and after it, and the records that show it."""
        around = max((anomaly.end - anomaly.start) * _AROUND, _LEAST_AROUND)
        since, until = anomaly.start - around, anomaly.end + around
        buckets = max(self.size.width - 4, 20)
        timeline = await self.calling(self.verbs.timeline(topics=[anomaly.topic], since=since, until=until, buckets=buckets))
        records = []
        for address in anomaly.addresses[:_MOST_EVIDENCE]:
            try:
                records.append((await self.verbs.read(address)).record)
            except NotFoundError:  # it is past its retention
                continue
            except HeadwaterError as error:
                self.post_message(Failed(str(error)))
                break
        self.post_message(Shown(anomaly.id, timeline, records))

    def on_shown(self, message: Shown) -> None:
        if message.id == self._shown:
            self.query_one(Histogram).timeline = message.timeline
            self.listed.marks = frozenset(self.hw.kept.marks)
            self.listed.show(FixedRows(message.records))

    def on_picked(self, message: Picked) -> None:
        """A stretch of its time: what was said in it."""
        message.stop()
        if (anomaly := self.here) is not None:
            self.hw.open_search("", Scope((anomaly.topic,), None, message.since, message.until))

    def on_pointed(self, message: Pointed) -> None:
        message.stop()

    # ------------------------------------------------------------------ what can be done

    @work(group="judge")
    async def action_judge(self, verdict: str) -> None:
        """Say what the anomaly under the cursor was."""
        verdicts: dict[str, Verdict] = {"anomaly": "anomaly", "not an anomaly": "not an anomaly"}
        if (anomaly := self.here) is None:
            return
        if await self.calling(self.verbs.judge_anomaly(anomaly.id, verdicts.get(verdict))) is not None:
            self.notify(f"{anomaly.id}: {verdict or 'no verdict'}", timeout=2, markup=False)
            self.look()

    def action_quiet(self) -> None:
        """Show those that did not alert and those that were dismissed, too."""
        self.quiet = not self.quiet
        self.look()

    def action_other(self) -> None:
        """From the anomalies to their records, to when they were, and back."""
        order = [self.query_one(Table), self.listed, self.query_one(Histogram)]
        here = next((n for n, widget in enumerate(order) if widget.has_focus), -1)
        order[(here + 1) % len(order)].focus()

    def action_refresh(self) -> None:
        self.look()

    @work(group="dialog")
    async def action_enable(self) -> None:
        """Switch the detectors of topics on or off."""
        names = [t.name for t in self.hw.seen.topics] if self.hw.seen else []
        try:
            on = {d.topic for d in await self.verbs.detecting() if d.state != "off"}
            chosen = await self.app.push_screen_wait(Choose("Detectors on for", names, sorted(on)))
            if chosen is None:
                return
            for topic in sorted(on ^ set(chosen)):
                await self.verbs.set_detecting(topic, enabled=topic in chosen)
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
        self.look()

    @work(group="dialog")
    async def action_budget(self) -> None:
        """Change how many alerts a day the topic of the anomaly under the cursor may cost."""
        if (anomaly := self.here) is None:
            return
        said = await self.app.push_screen_wait(Prompt(f"Alerts a day at most for {anomaly.topic}", example="3/day"))
        if not said:
            return
        await self.calling(self.verbs.set_detecting(anomaly.topic, budget=said))
        self.look()


def explanation(anomaly: Anomaly) -> Text:
    """Why an anomaly is one: what was seen, how unlikely it is, what is normal, and its records."""
    text = Text()
    text.append(f"{flat(anomaly.what)}\n", "bold")
    text.append(f"{clock(anomaly.start).strip()} to {clock(anomaly.end).strip()} UTC; ")
    rare = anomaly.by_chance_days >= _TEN_YEARS_DAYS
    text.append(
        "by chance less than once in ten years\n" if rare else f"by chance once in {anomaly.by_chance_days:,.3g} days\n"
    )
    if anomaly.feedback:
        text.append(f"  said to be {anomaly.feedback}{': ' + flat(anomaly.note) if anomaly.note else ''}\n", "magenta")
    if not anomaly.alerted and anomaly.why_quiet:
        text.append(f"  did not alert: {flat(anomaly.why_quiet)}\n", "dim")
    for signal in anomaly.signals[:5]:
        measured = ""
        if signal.observed is not None and signal.expected is not None:
            measured = f" ({number(signal.observed)} {signal.unit}, expected {number(signal.expected)})"
        text.append(f"  {signal.kind}: ", "cyan").append(f"{flat(signal.what)}{measured}\n")
    for normal in anomaly.normal[:3]:
        near = "" if normal.similarity is None else f", {normal.similarity:.2f} alike"
        text.append("  normal: ", "green").append(f"{flat(normal.text)[:200]} (×{number(normal.count)}{near})\n")
    if anomaly.addresses:
        text.append(f"  {len(anomaly.addresses):,} records show it (Enter opens the first, Tab goes to them)\n", "dim")
    return text


def _standing(detecting: Detecting) -> str:
    spent = f"{detecting.alerts_24h} of {detecting.budget_per_day:g} alerts today"
    return f"{detecting.topic}: {detecting.state}, {spent}" + (f", {detecting.error}" if detecting.error else "")


def _cells(anomaly: Anomaly) -> list[Text]:
    said = {"anomaly": "yes", "not an anomaly": "no"}.get(anomaly.feedback or "", "")
    return [
        Text(anomaly.severity, _STYLES[anomaly.severity] if anomaly.alerted else "dim"),
        Text(clock(anomaly.start)),
        Text(anomaly.topic),
        Text(anomaly.kind),
        Text(said, "magenta"),
        Text(flat(anomaly.what)[:300], no_wrap=True),
    ]
