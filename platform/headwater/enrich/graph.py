"""Steps put together and run: one after the other, beside each other, the first that succeeds, several for one result.

Every step decides each distinct thing once: what is equal within a batch is asked once, and decisions are kept by what was
decided (a passage with its aliases, or the text of a record) and by the step's version: its kind, its configuration, the model.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from headwater.enrich.decisions import Decisions
from headwater.enrich.items import Item, Outcome, Space, Step, Unit, digest_id
from headwater.enrich.purse import Spent
from headwater.enrich.spec import Group, Leaf, Spec
from headwater.enrich.steps_local import Redact
from headwater.enrich.store import DecisionRow
from headwater.errors import HeadwaterError, LimitError, UnreachableError
from headwater.matching import matches
from headwater.records.labels import StepTrace
from headwater.records.models import Usage

BLOCK = 256  # things that one call of a step decides where models or services are asked
_BLOCK_HERE = 2048  # and where none is
_LATE = 3  # things that take too long one after the other, before the step counts as out of reach
_SHOWN = 500  # characters of a text in a trace
Seen = Callable[[Item, StepTrace], None]


@dataclass(slots=True)
class Tally:
    """What one step has done."""

    decided: int = 0
    hits: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Found:
    """What a step says of an item, and how it came to it."""

    outcome: Outcome | HeadwaterError
    cached: bool
    ms: float
    usage: Usage = field(default_factory=Usage)


class Graph:
    """A pipeline, ready to run. `family` gives a surviving passage with all that are aliases of it."""

    def __init__(self, spec: Spec, steps: Mapping[str, Step], decisions: Decisions) -> None:
        self.spec, self.steps, self._decisions = spec, steps, decisions
        self.tallies = {leaf.name: Tally() for leaf in spec.leaves()}
        self._digests = {leaf.name: leaf.digest() for leaf in spec.leaves()}
        reads_records = [any(leaf.reads == "record" for leaf in _leaves(step)) for step in spec.root.steps]
        self._first = reads_records.index(True) if any(reads_records) else len(reads_records)

    @property
    def by_record(self) -> bool:
        """Whether some steps look at records themselves; the others decide for all records of a passage."""
        return self._first < len(self.spec.root.steps)

    @property
    def compares(self) -> bool:
        """Whether some step compares by meaning."""
        return any(step.compares for step in self.steps.values())

    async def passages(self, items: Sequence[Item], space: Space | None, family: Callable[[int], Sequence[int]]) -> None:
        """Run the steps before the first that reads records, over passages."""
        for step in self.spec.root.steps[: self._first]:
            await self._run(step, items, _Run(space, family))

    async def walk(self, item: Item, space: Space | None) -> AsyncIterator[None]:
        """Run all steps over one item, and give way behind each."""
        for step in self.spec.root.steps:
            await self._run(step, [item], _Run(space, lambda passage: [passage]))
            yield

    async def records(self, items: Sequence[Item], space: Space | None, family: Callable[[int], Sequence[int]]) -> None:
        """Run the steps from the first that reads records on, over records."""
        for step in self.spec.root.steps[self._first :]:
            await self._run(step, items, _Run(space, family))

    async def _run(self, node: Leaf | Group, items: Sequence[Item], run: _Run) -> None:
        items = [item for item in items if item.ended is None]
        if not items:
            return
        if isinstance(node, Leaf):
            await self._leaf(node, items, run)
        elif node.kind == "parallel":
            await self._parallel(node, items, run)
        elif node.kind == "fallback":
            await self._fallback(node, items, run)
        elif node.kind == "ensemble":
            await self._ensemble(node, items, run)
        elif node.kind == "if":
            assert node.when is not None
            fits = [matches(node.when, item.seen()) for item in items]
            await self._run(node.steps[0], [i for i, fit in zip(items, fits, strict=True) if fit], run)
            if len(node.steps) > 1:
                await self._run(node.steps[1], [i for i, fit in zip(items, fits, strict=True) if not fit], run)
        else:
            for step in node.steps:
                await self._run(step, items, run)

    # ------------------------------------------------------------------ one step

    async def _leaf(self, leaf: Leaf, items: Sequence[Item], run: _Run) -> None:
        chosen = [item for item in items if item.ended is None]
        if leaf.when is not None:
            fits = {id(item): matches(leaf.when, item.seen()) for item in chosen}
            for item in chosen:
                if not fits[id(item)]:
                    _trace(item, leaf, skipped="its condition does not hold")
            chosen = [item for item in chosen if fits[id(item)]]
        if leaf.kind in ("stop", "drop"):
            self._end(leaf, chosen)
            return
        for item, found in zip(chosen, await self._decide(leaf, chosen, run), strict=True):
            _apply(leaf, item, found, self.steps[leaf.name])

    def _end(self, leaf: Leaf, items: Sequence[Item]) -> None:
        """No further steps for these."""
        for item in items:
            item.ended = "stopped" if leaf.kind == "stop" else "dropped"
            self.tallies[leaf.name].decided += 1
            _trace(item, leaf, output={leaf.kind: True})

    async def _decide(self, leaf: Leaf, items: Sequence[Item], run: _Run) -> list[Found]:
        """What a step says of each item: known decisions, and new ones for what is distinct among the others."""
        step, tally = self.steps[leaf.name], self.tallies[leaf.name]
        model = run.space.name if run.space is not None and step.compares else ""
        keeps = step.keeps and leaf.cache
        keys = [self._key(leaf, step, item, model) for item in items] if step.keeps else [(n, "") for n in range(len(items))]
        known = await self._decisions.known(set(keys), run.family) if keeps else {}
        places: dict[tuple[int, str], int] = {}
        for n, key in enumerate(keys):
            if key not in known:
                places.setdefault(key, n)
        made: dict[tuple[int, str], Found] = {}
        waiting = list(places.items())
        size = BLOCK if step.cost in ("llm", "network") or leaf.kind == "python" else _BLOCK_HERE
        for at in range(0, len(waiting), size):
            block = waiting[at : at + size]
            units = [_unit(leaf, items[n]) for _, n in block]
            began, before = time.perf_counter(), step.used()
            outcomes = await _within(leaf, step, units, run.space)
            spent_s = time.perf_counter() - began
            tally.seconds += spent_s
            tally.decided += len(block)
            limit = next((one for one in outcomes if isinstance(one, LimitError) and _is_for_all(one)), None)
            usage = _share(step.used() - before, len(block))
            for (key, _), outcome in zip(block, outcomes, strict=True):
                made[key] = Found(outcome, False, round(spent_s * 1000 / len(block), 3), usage)
                if isinstance(outcome, HeadwaterError):
                    tally.failed += 1
                elif keeps:
                    self._decisions.keep(key, items[places[key]].topic, outcome)
            if limit is not None:
                raise limit  # what was decided before is kept: it was paid for
        tally.hits += len(items) - len(waiting)
        first = dict.fromkeys(made, True)
        out = []
        for key in keys:
            if key in made:
                out.append(made[key] if first.pop(key, False) else Found(made[key].outcome, True, 0.0))
            else:
                out.append(Found(known[key], True, 0.0))
        return out

    def _key(self, leaf: Leaf, step: Step, item: Item, model: str) -> tuple[int, str]:
        """What is decided, and by which version of the step."""
        version = f"{self._digests[leaf.name]}{model and ':'}{model}{item.changed and ':'}{item.changed}"
        fields = orjson.dumps(item.fields, option=orjson.OPT_SORT_KEYS).decode() if step.uses_fields and item.fields else ""
        if leaf.reads == "passage" and item.passage is not None:
            return item.passage, f"{version}:{digest_id(fields):x}" if fields else version
        return digest_id(_text(leaf, item), fields), version

    # ------------------------------------------------------------------ steps together

    async def _parallel(self, node: Group, items: Sequence[Item], run: _Run) -> None:
        """Every step sees the items as they were before; what each adds is put together in their order."""
        ways = [[item.copy() for item in items] for _ in node.steps]
        await beside([self._run(step, way, run) for step, way in zip(node.steps, ways, strict=True)])
        for n, item in enumerate(items):
            for way in ways:
                _merge(item, way[n])

    async def _fallback(self, node: Group, items: Sequence[Item], run: _Run) -> None:
        """The first step that gives a result counts; one that fails, is out of reach, or not sure enough is passed over."""
        waiting = list(items)
        for n, step in enumerate(node.steps):
            tries = [item.copy() for item in waiting]
            last = n == len(node.steps) - 1
            try:
                await self._run(step, tries, run)
            except (UnreachableError, LimitError, TimeoutError) as error:
                if last:
                    raise
                for item in waiting:
                    _note(item, node.name, step, str(error) or "it took too long")
                continue
            left = []
            for item, tried in zip(waiting, tries, strict=True):
                gained = tried.ended != "failed" and (tried.fields != item.fields or tried.topics != item.topics)
                if gained or last:
                    _merge(item, tried)
                else:
                    if item.traces is not None and tried.traces:
                        item.traces += tried.traces
                    left.append(item)
            waiting = left
            if not waiting:
                return

    async def _ensemble(self, node: Group, items: Sequence[Item], run: _Run) -> None:
        """All steps are asked; the label that has most votes, or the highest mean, counts. A step whose condition does not
        hold, or that is not sure enough, has no say; where all that were asked fail, so does the item."""
        leaves = [step for step in node.steps if isinstance(step, Leaf)]
        found = await beside([self._voices(leaf, items, run) for leaf in leaves])
        weights = node.weights if node.by == "weighted" else (1.0,) * len(leaves)
        for n, item in enumerate(items):
            votes, failed = list[tuple[Outcome, float]](), list[Leaf]()
            for leaf, column, weight in zip(leaves, found, weights, strict=True):
                outcome = _voice(item, leaf, column[n])
                if isinstance(outcome, Outcome):
                    votes.append((outcome, weight))
                elif isinstance(outcome, HeadwaterError):
                    failed.append(leaf)
            self._agreed(node, item, votes, failed)

    async def _voices(self, leaf: Leaf, items: Sequence[Item], run: _Run) -> list[Found | None]:
        """What a step of an ensemble says of each item; None of those that its condition leaves out."""
        fits = [leaf.when is None or matches(leaf.when, item.seen()) for item in items]
        found = iter(await self._decide(leaf, [item for item, fit in zip(items, fits, strict=True) if fit], run))
        return [next(found) if fit else None for fit in fits]

    def _agreed(self, node: Group, item: Item, votes: Sequence[tuple[Outcome, float]], failed: Sequence[Leaf]) -> None:
        """Give an item what an ensemble comes to."""
        if not votes:
            problem = f"no step of {node.name} has an answer" if failed else None
            if failed and any(leaf.on_error == "dead-letter" for leaf in failed):
                item.ended, item.error, item.failed_at = "failed", problem, node.name
            _told(item, node, {}, None, problem, None if failed else "no step has a say")
            return
        value, confidence = combined(votes, node.by)
        output = {}
        if value is not None and node.field and confidence >= node.min_confidence:
            output = {node.field: value}
            item.fields.update(output)
            item.confidence[node.field] = confidence
        _told(item, node, output, confidence, None, None if output else f"less sure than {node.min_confidence:g}")

    def fresh(self) -> list[DecisionRow]:
        """Decisions that are not written yet."""
        return self._decisions.fresh()

    def written(self, rows: Sequence[DecisionRow]) -> None:
        """Those are, now."""
        self._decisions.written(rows)

    async def aclose(self) -> None:
        """Let go of connections."""
        for step in self.steps.values():
            await step.aclose()


@dataclass(frozen=True, slots=True)
class _Run:
    space: Space | None
    family: Callable[[int], Sequence[int]]


async def _within(leaf: Leaf, step: Step, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
    """What a step says of some units within its time. Where they take longer together, each is asked alone, and those that
    still take longer fail; UnreachableError where the first few all do."""
    try:
        async with asyncio.timeout(leaf.timeout_s * (1 + len(units) // 8)):
            return await step.decide(units, space)
    except TimeoutError:
        late = UnreachableError(f"{leaf.name} took longer than {leaf.timeout_s:g} s")
        if len(units) == 1:
            return [late]
    out: list[Outcome | HeadwaterError] = []
    for unit in units:
        out += await _within(leaf, step, [unit], space)
        if len(out) == _LATE and all(isinstance(one, UnreachableError) for one in out):
            raise late
    return out


def _is_for_all(error: LimitError) -> bool:
    """Whether a limit holds for whatever comes next, for now or for good; else this one thing is too large."""
    return isinstance(error, Spent) or error.retry_after_s is not None


def combined(votes: Sequence[tuple[Outcome, float]], by: str) -> tuple[Any, float]:
    """One result of several with their weights: numbers are averaged; of labels the one with most votes (ties by the sum of
    confidence), or the highest mean score."""
    total = sum(weight for _, weight in votes)
    numbers = [(o.value, w) for o, w in votes if isinstance(o.value, int | float) and not isinstance(o.value, bool)]
    if numbers and len(numbers) == len(votes):
        mean = round(sum(value * weight for value, weight in numbers) / total, 4)
        return mean, mean
    counts: dict[str, float] = {}
    sums: dict[str, float] = {}
    for outcome, weight in votes:
        if outcome.value is not None:
            counts[outcome.value] = counts.get(outcome.value, 0.0) + 1
        for label, score in (outcome.scores or {outcome.value: outcome.confidence or 0.0}).items():
            if label is not None:
                sums[label] = sums.get(label, 0.0) + weight * score
    if by == "vote":
        if not counts:
            return None, 0.0
        best = max(counts, key=lambda label: (counts[label], sums.get(label, 0.0), label))
        return best, round(counts[best] / len(votes), 4)
    if not sums:
        return None, 0.0
    best = max(sums, key=lambda label: (sums[label], label))
    return best, round(sums[best] / total, 4)


async def beside(work: Sequence[Any]) -> list[Any]:
    """Results in order; the first failure cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _leaves(node: Leaf | Group) -> list[Leaf]:
    return [node] if isinstance(node, Leaf) else [leaf for step in node.steps for leaf in _leaves(step)]


def _text(leaf: Leaf, item: Item) -> str:
    return item.own if leaf.reads == "record" and item.own is not None else item.text


def _unit(leaf: Leaf, item: Item) -> Unit:
    own = leaf.reads == "record" and item.own is not None and item.own != item.text
    hears = None if item.hears is None else functools.partial(item.hears, leaf.name)
    return Unit(_text(leaf, item), None if own else item.vector, item, hears)


def _apply(leaf: Leaf, item: Item, found: Found, step: Step) -> None:
    """Give an item what a step says of it."""
    outcome, given = found.outcome, _given(leaf, item)
    if isinstance(outcome, HeadwaterError):
        if leaf.on_error == "dead-letter":
            item.ended, item.error, item.failed_at = "failed", str(outcome), leaf.name
        _trace(item, leaf, given, found=found, error=str(outcome))
        return
    if isinstance(step, Redact):
        _conceal(item, leaf, outcome, step)
    sure = outcome.confidence is None or outcome.confidence >= leaf.min_confidence
    output: dict[str, Any] = {}
    if outcome.value is not None and sure:
        if leaf.field is not None and not (isinstance(outcome.value, Mapping) and leaf.kind == "python"):
            output = {leaf.field: outcome.value}
            if outcome.confidence is not None:
                item.confidence[leaf.field] = outcome.confidence
        elif isinstance(outcome.value, Mapping):
            output = dict(outcome.value)
        item.fields.update(output)
        for topic, score in outcome.topics.items():
            item.topics[topic] = max(score, item.topics.get(topic, 0.0))
    skipped = outcome.note or (None if sure else f"less sure than {leaf.min_confidence:g}")
    _trace(item, leaf, given, found=found, output=output, skipped=skipped if not output else None)


def _conceal(item: Item, leaf: Leaf, outcome: Outcome, step: Redact) -> None:
    item.redactors = (*item.redactors, step.redactor)
    if outcome.text is not None and outcome.text != _text(leaf, item):
        item.changed = f"{item.changed}{leaf.digest()[:8]}"
        item.vector = None
    item.text = step.redactor.redact(item.text).text
    item.own = None if item.own is None else step.redactor.redact(item.own).text


def _merge(item: Item, other: Item) -> None:
    """What another way has added to an item."""
    item.fields.update(other.fields)
    item.confidence.update(other.confidence)
    item.topics.update(other.topics)
    if other.ended is not None:
        item.ended, item.error, item.failed_at = other.ended, other.error, other.failed_at
    if other.changed != item.changed:
        item.text, item.own, item.vector, item.changed = other.text, other.own, other.vector, other.changed
    item.redactors = tuple(dict.fromkeys((*item.redactors, *other.redactors)))
    if item.traces is not None and other.traces:
        item.traces += other.traces


def _voice(item: Item, leaf: Leaf, found: Found | None) -> Outcome | HeadwaterError | None:
    """What counts of what a step of an ensemble has said: None where it has no say."""
    if found is None:
        _trace(item, leaf, skipped="its condition does not hold")
        return None
    outcome = found.outcome
    if isinstance(outcome, HeadwaterError):
        _trace(item, leaf, found=found, error=str(outcome))
        return outcome
    sure = outcome.confidence is None or outcome.confidence >= leaf.min_confidence
    output = {} if outcome.value is None else {leaf.field or leaf.kind: outcome.value}
    _trace(item, leaf, found=found, output=output, skipped=None if sure else f"less sure than {leaf.min_confidence:g}")
    return outcome if sure else None


def _told(
    item: Item, node: Group, output: Mapping[str, Any], confidence: float | None, error: str | None, skipped: str | None
) -> None:
    if item.traces is not None:
        trace = StepTrace(node.name, node.kind, {}, dict(output), confidence, skipped=skipped, error=error)
        item.traces.append(trace)


def _note(item: Item, group: str, step: Leaf | Group, problem: str) -> None:
    if item.traces is not None:
        item.traces.append(StepTrace(step.name or group, step.kind, {}, {}, error=problem))


def _given(leaf: Leaf, item: Item) -> dict[str, Any] | None:
    """What a step is given, for its trace."""
    return None if item.traces is None else {"text": _text(leaf, item)[:_SHOWN], "fields": dict(item.fields)}


def _trace(
    item: Item, leaf: Leaf, given: Mapping[str, Any] | None = None, *, found: Found | None = None,
    output: Mapping[str, Any] | None = None, skipped: str | None = None, error: str | None = None,
) -> None:  # fmt: skip
    if item.traces is None:
        return
    outcome = found.outcome if found is not None and isinstance(found.outcome, Outcome) else None
    cached, ms, usage = (False, 0.0, Usage()) if found is None else (found.cached, found.ms, found.usage)
    item.traces.append(
        StepTrace(
            leaf.name, leaf.kind, given or _given(leaf, item) or {}, dict(output or {}),
            None if outcome is None else outcome.confidence, cached, ms, usage, skipped, error,
        )
    )  # fmt: skip


def _share(whole: Usage, count: int) -> Usage:
    cost = None if whole.cost is None else whole.cost / count
    return Usage(round(whole.input_tokens / count), round(whole.output_tokens / count), cost)
