"""Status: the daemon, its sources, its problems."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from headwater.records import SourceInfo, Status
from headwater_tui.lines import flat, number
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_COLUMNS = ("source", "kind", "topic", "state", "records", "rate", "lag", "error")


class StatusView(View):
    NAME = "Status"
    AUTO_FOCUS = "Table"

    def body(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="daemon")
            yield Static("Sources", classes="title")
            yield Table(_COLUMNS)

    def looked(self) -> None:
        if self.hw.seen is not None:
            self._show(self.hw.seen)

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
        self.query_one(Table).fill([(source.name, _cells(source)) for source in status.sources])


def _cells(source: SourceInfo) -> list[Text]:
    cells = [source.name, source.kind, source.topic, "paused" if source.paused else source.state]
    cells += [number(source.records), number(source.rate), "" if source.lag is None else number(source.lag), source.error or ""]
    return [Text(flat(cell)[:200], "red" if name == "error" else "") for name, cell in zip(_COLUMNS, cells, strict=True)]
