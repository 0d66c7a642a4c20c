"""Pipelines: what enriches records, how far it is, what each step did and cost."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from headwater.records.labels import Pipeline
from headwater_tui.lines import flat, number
from headwater_tui.messages import Piped
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_COLUMNS = ("pipeline", "state", "records", "rate", "behind", "passages", "failed", "tokens", "cost", "into")
_STEPS = ("step", "kind", "decided", "known", "failed", "ms each", "tokens", "cost")


class Pipelines(View):
    NAME = "Pipelines"
    AUTO_FOCUS = "#pipelines"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "start_stop", "Start / stop", id="pipelines.start-stop"),
        Binding("v", "output", "What it wrote", id="pipelines.output"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._pipelines: list[Pipeline] = []

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS, id="pipelines")
        yield Static("Steps", classes="title", id="of", markup=False)
        yield Table(_STEPS, id="steps")
        yield Static(id="state", markup=False)

    def looked(self) -> None:
        self.look()

    @work(group="pipelines", exclusive=True)
    async def look(self) -> None:
        if (pipelines := await self.calling(self.verbs.pipelines())) is not None:
            self.post_message(Piped(pipelines))

    def on_piped(self, message: Piped) -> None:
        self._pipelines = message.pipelines
        self.query_one("#pipelines", Table).fill([(p.name, _cells(p)) for p in self._pipelines])
        self._show()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._show()

    @property
    def here(self) -> Pipeline | None:
        """The pipeline under the cursor."""
        key = self.query_one("#pipelines", Table).here
        return next((p for p in self._pipelines if p.name == key), None)

    def _show(self) -> None:
        pipeline = self.here
        rows = [] if pipeline is None else [(str(n), _step(pipeline, n)) for n in range(len(pipeline.steps))]
        self.query_one("#steps", Table).fill(rows)
        said = "no pipelines; `headwater enrich create NAME --config FILE` makes one"
        if pipeline is not None:
            said = pipeline.error or f"version {pipeline.version}, reads {', '.join(pipeline.topics or ('all topics',))}"
        self.query_one("#of", Static).update(f"Steps of {pipeline.name}" if pipeline else "Steps")
        self.query_one("#state", Static).update(flat(said))

    @work(group="start")
    async def action_start_stop(self) -> None:
        """Stop the pipeline under the cursor, or start it again."""
        if (pipeline := self.here) is None:
            return
        verb = self.verbs.start_pipeline if pipeline.state == "stopped" else self.verbs.stop_pipeline
        await self.calling(verb(pipeline.name))
        self.look()

    def action_output(self) -> None:
        """Show the topic the pipeline writes to."""
        if (pipeline := self.here) is not None and pipeline.output:
            self.hw.open_live([pipeline.output])


def _cells(pipeline: Pipeline) -> list[Text]:
    state = "red" if pipeline.error else "" if pipeline.state == "running" else "yellow"
    numbers = (
        pipeline.records,
        pipeline.rate,
        pipeline.behind,
        pipeline.passages,
        pipeline.dead_letters,
        pipeline.usage.tokens,
    )
    return [
        Text(pipeline.name, "bold"),
        Text(pipeline.state, state),
        *(Text(number(value), justify="right") for value in numbers),
        Text(f"{pipeline.usage.cost or 0:.4f}", justify="right"),
        Text(pipeline.output or ""),
    ]


def _step(pipeline: Pipeline, n: int) -> list[Text]:
    step = pipeline.steps[n]
    each = step.seconds * 1000 / step.decided if step.decided else 0.0
    numbers = (step.decided, step.hits, step.failed, round(each, 2), step.usage.tokens)
    cells = [Text(step.name, "bold"), Text(step.kind), *(Text(number(value), justify="right") for value in numbers)]
    return [*cells, Text(f"{step.usage.cost or 0:.4f}", justify="right")]
