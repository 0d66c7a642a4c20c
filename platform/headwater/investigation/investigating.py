"""Investigations of an engine: the verbs of headwater.verbs.investigate.

    question -> its time and scope -> the model's looks, or the plan's -> evidence -> report, checked

A model that fails, or whose report no record supports, leaves the report to the plan, which says so: who has paid for an
answer gets one.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

from headwater import telemetry
from headwater.config import AskSettings
from headwater.errors import LimitError, ModelError, UsageError
from headwater.investigation.agent import Agent, Bounds
from headwater.investigation.plan import Plan
from headwater.investigation.report import Writer, noted
from headwater.investigation.toolbox import open_toolbox, reader
from headwater.llm.chat import Chat
from headwater.llm.extractive import Embed
from headwater.llm.models import Models
from headwater.rag.chain import MODEL
from headwater.rag.place import Look, Scope, place
from headwater.records import Answer, PassageForm, from_ms
from headwater.records.investigations import Ended, InvestigateEvent, Investigation, Step
from headwater.records.models import Usage
from headwater.scoped import scoped
from headwater.search.planning import now_ms, window
from headwater.stock import Stock
from headwater.verbs import Verbs
from headwater.verbs.investigate import When

_LONGEST = 4000  # characters of a question
_MOST_STEPS = 100
_OVERHEAD = 400  # tokens of the report's instructions
_WHY = {
    "steps": "the steps allowed were taken", "tokens": "the tokens allowed were used", "cost": "the cost allowed was reached",
    "time": "the time allowed was up", "model": "the model gave no usable reply",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question with all it takes to look into it."""

    id: str
    question: str
    scope: Scope
    chat: Chat | None
    bounds: Bounds


class Investigating:
    """Investigations over `verbs`, by the chat models of an engine. `reading` gives what judges meaning, and its floor."""

    def __init__(
        self, verbs: Verbs, models: Models, settings: AskSettings, stock: Stock,
        reading: Callable[[], tuple[Embed | None, float]],
    ) -> None:  # fmt: skip
        self._verbs, self._models, self._settings, self._stock, self._reading = verbs, models, settings, stock, reading

    def _kind_of(self, topic: str) -> PassageForm:
        return self._stock.find(topic).kind

    @telemetry.traced("headwater.investigate")
    async def investigate(self, question: str, **scope: Any) -> Investigation:
        """As Verbs.investigate."""
        async with aclosing(self._told(self._asked(question, **scope))) as events:
            async for event in events:
                if isinstance(event.data, Investigation):
                    return event.data
        raise AssertionError("the last event is the investigation")

    async def events(self, question: str, **scope: Any) -> AsyncIterator[InvestigateEvent]:
        """As Verbs.investigate_events."""
        async with aclosing(self._told(self._asked(question, **scope))) as events:
            async for event in events:
                yield event

    def _asked(
        self, question: str, *, topics: Sequence[str] | None = None, since: When | None = None, until: When | None = None,
        model: str | None = None, steps: int | None = None, max_tokens: int | None = None, max_cost: float | None = None,
        timeout_s: float | None = None,
    ) -> _Asked:  # fmt: skip
        if not question.strip():
            raise UsageError('the question is empty; say what went wrong, such as "why is checkout failing since 14:05?"')
        if len(question) > _LONGEST:
            raise UsageError(f"a question has at most {_LONGEST:,} characters")
        settings, begun = self._settings, time.monotonic()
        steps = settings.investigate_steps if steps is None else steps
        timeout_s = settings.investigate_timeout_s if timeout_s is None else timeout_s
        most = settings.investigate_tokens if max_tokens is None else max_tokens
        cost = settings.investigate_cost if max_cost is None else max_cost
        if not 1 <= steps <= _MOST_STEPS:
            raise UsageError(f"steps must be between 1 and {_MOST_STEPS}")
        if most < 0 or (cost is not None and cost < 0) or not 0 < timeout_s <= 86_400:
            raise UsageError("max_tokens and max_cost must be at least 0, timeout_s between 0 and 86,400")
        report = settings.context_tokens + settings.answer_tokens + _OVERHEAD
        bounds = Bounds(steps, most, cost, begun, begun + timeout_s, report)
        since_ms, until_ms = window(since, until)
        scope = Scope(cast("Look", self._verbs), self._kind_of, topics, since_ms, until_ms)
        return _Asked(uuid.uuid4().hex, question, scope, self._models.get(model), bounds)

    async def _told(self, asked: _Asked) -> AsyncGenerator[InvestigateEvent, None]:
        """A step as it is taken, and what came of all of them."""
        steps: list[Step] = []
        usage, report, note = Usage(), None, ""
        ended: Ended = "done"
        if asked.chat is not None:
            toolbox = await open_toolbox(self._verbs, asked.scope.topics)
            agent = Agent(asked.chat, toolbox, asked.bounds, time.monotonic)
            now = f"{from_ms(now_ms()):%Y-%m-%d %H:%M} UTC"
            try:
                async with aclosing(agent.look(_scoped_question(asked), now)) as looked:
                    async for step in looked:
                        steps.append(step)
                        yield InvestigateEvent("step", step)
                report = await self._writer(asked).write(agent, asked.id, asked.question, now)
                note = "" if report else "no record supports what the model reported, so the report is made without it"
            except (ModelError, LimitError) as error:
                if len(steps) <= 1 and not self._models.or_extractive:
                    raise
                agent.ended, note = "model", f"reported without the model: {error}"
            usage, ended = agent.usage, agent.ended
        if report is None:
            plan = await self._plan(asked)
            async with aclosing(plan.run()) as planned:
                async for step in planned:
                    step = replace(step, n=len(steps) + 1)
                    steps.append(step)
                    yield InvestigateEvent("step", step)
            report = await self._of_plan(plan, asked)
        why = "" if ended == "done" else f"no more was looked at: {_WHY[ended]}"
        report = noted(
            replace(report, timings={"total_ms": round((time.monotonic() - asked.bounds.begun) * 1000, 3)}), note, why
        )
        yield InvestigateEvent("done", Investigation(asked.id, asked.question, report, tuple(steps), ended, usage))

    def _writer(self, asked: _Asked) -> Writer:
        embed, floor = self._reading()
        return Writer(
            scoped(self._verbs, reader(asked.scope.topics)), self._kind_of, embed, floor, secrets.token_hex(10),
            self._settings.context_tokens, self._settings.answer_tokens,
        )  # fmt: skip

    async def _plan(self, asked: _Asked) -> Plan:
        scope = await asked.scope.knowing_documents()
        placed = await place(asked.question, scope, now_ms())
        return Plan(scoped(self._verbs, reader(asked.scope.topics)), placed, self._reading()[0], asked.bounds.steps)

    async def _of_plan(self, plan: Plan, asked: _Asked) -> Answer:
        checked, scope = plan.page.checked(), plan.placed.scope
        coverage = (await scope.search("", 1)).coverage
        abstained = not checked.citations
        why = "No answer: nothing is new in that time, and nothing is odd. Try an earlier since, or `ask` in other words."
        answer = Answer(
            id=asked.id, question=asked.question, text=why if abstained else checked.text, citations=checked.citations,
            unsupported=() if abstained else checked.unsupported, abstained=abstained,
            confidence=0.0 if abstained else plan.confidence, coverage=replace(coverage, next_cursor=None), model=MODEL,
            usage={"records": len(plan.page.records)}, timings={},
        )  # fmt: skip
        return noted(answer, *plan.notes)


def _scoped_question(asked: _Asked) -> str:
    """The question with what else the caller said of where to look."""
    scope = asked.scope
    said = [f"only the topics {', '.join(scope.topics)}"] if scope.topics else []
    said += [f"since {from_ms(scope.since_ms).isoformat()}"] if scope.since_ms is not None else []
    said += [f"until {from_ms(scope.until_ms).isoformat()}"] if scope.until_ms is not None else []
    return f"{asked.question} ({'; '.join(said)})" if said else asked.question
