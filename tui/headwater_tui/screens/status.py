"""Status: the daemon, its problems, its sources and whom it calls."""

from __future__ import annotations

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from headwater.errors import HeadwaterError
from headwater.records import SourceInfo, Status
from headwater.records.webhooks import ALL, Webhook
from headwater_tui.lines import clock, flat, number
from headwater_tui.messages import Hooked
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_HOOKS = ("webhook", "calls for", "state", "sent", "waiting", "given up", "last", "error")
_COLUMNS = ("source", "kind", "topic", "state", "records", "rate", "lag", "error")


class StatusView(View):
    NAME = "Status"
    AUTO_FOCUS = "Table"

    def body(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="daemon")
            yield Static("Sources", classes="title", id="of-sources", markup=False)
            yield Table(_COLUMNS, id="sources")
            yield Static("Webhooks", classes="title", id="of-webhooks", markup=False)
            yield Table(_HOOKS, id="webhooks")

    def looked(self) -> None:
        if self.hw.seen is not None:
            self._show(self.hw.seen)
        self._look()

    @work(group="webhooks", exclusive=True)
    async def _look(self) -> None:
        try:
            self.post_message(Hooked(await self.verbs.webhooks()))
        except HeadwaterError as error:
            self.post_message(Hooked([], str(error)))

    def on_hooked(self, message: Hooked) -> None:
        none = message.why or "none; `headwater webhook add` calls an address for alerts and hits"
        self._fill("webhooks", "Webhooks", none, [(str(w.id), _called(w)) for w in message.webhooks])

    def _fill(self, id: str, title: str, none: str, rows: list[tuple[str, list[Text]]]) -> None:
        """A table under its title, which says why where there is none."""
        self.query_one(f"#of-{id}", Static).update(title if rows else f"{title}: {flat(none)}")
        table = self.query_one(f"#{id}", Table)
        table.display = bool(rows)
        table.fill(rows)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """The records of a source."""
        event.stop()
        sources = self.hw.seen.sources if self.hw.seen else ()
        if event.data_table.id == "sources" and (chosen := [s for s in sources if s.name == event.row_key.value]):
            self.hw.open_live([chosen[0].topic])

    def _show(self, status: Status) -> None:
        text = Text()
        facts = [
            ("version", status.version), ("data", status.data_dir), ("url", status.url or ""), ("process", str(status.pid)),
            ("up", f"{status.uptime_s / 3600:.1f} h"), ("model", status.model or "none"),
            ("watches", ", ".join(f"{count:,} {name}" for name, count in status.watches.items())),
        ]  # fmt: skip
        for name, value in facts:
            text.append(f"{name:<9}", "dim").append(f"{flat(value)}\n")
        for problem in status.problems:
            text.append("! ", "bold red").append(f"{flat(problem)}\n", "red")
        if not status.problems:
            text.append("no problems\n", "green")
        self.query_one("#daemon", Static).update(text)
        rows = [(source.name, _cells(source)) for source in status.sources]
        self._fill("sources", "Sources", "none; `headwater up FILE` or `headwater sources add` follows some", rows)


def _cells(source: SourceInfo) -> list[Text]:
    cells = [source.name, source.kind, source.topic, "paused" if source.paused else source.state]
    cells += [number(source.records), number(source.rate), "" if source.lag is None else number(source.lag), source.error or ""]
    return [Text(flat(cell)[:200], "red" if name == "error" else "") for name, cell in zip(_COLUMNS, cells, strict=True)]


def _called(hook: Webhook) -> list[Text]:
    about = [
        f"{kind} of {'all' if ALL in of else ', '.join(of)}"
        for kind, of in (("alerts", hook.alerts), ("hits", hook.watches))
        if of
    ]
    state = "" if hook.state == "ready" else "red" if hook.state == "failing" else "yellow"
    return [
        Text(flat(hook.name), "bold"),
        Text(flat("; ".join(about))[:200]),
        Text(hook.state, state),
        *(Text(number(count), justify="right") for count in (hook.sent, hook.waiting, hook.given_up)),
        Text(clock(hook.last_sent) if hook.last_sent else ""),
        Text(flat(hook.error or "")[:200], "red"),
    ]
