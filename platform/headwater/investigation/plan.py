"""The fixed plan of an investigation, which needs no model, and its report in the records' own words.

    topics -> what is new since, the worst first -> what detectors found -> what changed just before -> how it went
    -> the same earlier, and what helped -> what is said of it since

The likely cause is the change before the trouble began that names what failed (the same service, key or attribute), is near to
it in time, and says in meaning what the new patterns say. It is called likely because that is all it is.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

from headwater.errors import HeadwaterError, NotFoundError
from headwater.llm.extractive import Embed, content_words
from headwater.rag.news import (
    HINT,
    WARN,
    Found,
    Known,
    bullet,
    first_record,
    known,
    known_bullet,
    last_day,
    plain,
    rank,
    telling_sentences,
)
from headwater.rag.place import Placed, Scope, when
from headwater.rag.question import EVENTS
from headwater.rag.say import Page, bounds, code_span, quote, stretch, whose
from headwater.records import Hit, Pattern, Record, Timeline, from_ms, to_ms
from headwater.records.anomalies import Anomaly
from headwater.records.investigations import Step
from headwater.verbs import Verbs
from headwater.visible import visible

T = TypeVar("T")
_MOST_TOPICS = 8  # of logs that are looked through for what is new
_MOST_SHOWN = 6
_MOST_CHANGES = 3
_MOST_ANOMALIES = 3
_MOST_PATTERNS = 200
_BUCKETS = 24
_BEFORE_MS = 3_600_000  # in which a change may be the cause
_ONSET_MS = 1_800_000
_LATE_MS = 60_000  # clocks differ: a change told of a minute late may still be it
_BACK_MS = (0, 3_600_000, 86_400_000)  # how much earlier it may have begun than the question says
_CHANGE = re.compile(
    rf"(?<![a-z])(?:{'|'.join(EVENTS[kind] for kind in ('deploy', 'rollback', 'upgrade', 'restart'))}|config\w*|"
    r"chang(?:ed|ing)\b|enabled?|disabled?|switched|feature flag|scal(?:ed|ing)|failover|failed over)",
    re.IGNORECASE,
)
_IN_LOGS = "deploy deployed release released rollback restart restarted upgrade migration config reloaded started"
_W_NAMED, _W_NEAR, _W_MEANING, _W_TOPIC = 2.0, 1.0, 1.5, 0.5
_NAME = re.compile(r"[a-z][a-z0-9_.-]{2,40}")


@dataclass(slots=True)
class Plan:
    """One investigation without a model. `page` is its report, `steps` what was looked at, `confidence` (0-1) how much speaks
    for the cause it names."""

    verbs: Verbs
    placed: Placed
    embed: Embed | None
    most_steps: int
    page: Page = field(default_factory=Page)
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    confidence: float = 0.0
    cause: str | None = None  # its address
    _timed: bool = True

    async def run(self) -> AsyncGenerator[Step, None]:
        """The steps, each when it was taken; the report stands in `page` then."""
        await self._noted("topics", {}, self.verbs.topics(), lambda found: (f"{len(found)} topics", 0))
        yield self.steps[-1]
        since_ms = await self._begin()
        patterns: list[Pattern] = []
        for back in _BACK_MS:
            if not self._may_go_on():
                break
            scope = self.placed.scope.within(since_ms - back, self.placed.scope.until_ms)
            async for step in self._new(scope, patterns):
                yield step
            if any(rank(p) >= WARN for p in patterns):
                break
        self.placed = replace(self.placed, scope=scope if patterns else self.placed.scope.within(since_ms, None))
        trouble, begun = await self._trouble(patterns)
        odd: list[Anomaly] = []
        if self._may_go_on():
            yield await self._anomalies(odd)
        if trouble:
            async for step in self._cause(trouble, begun, odd):
                yield step
        elif odd:
            await self._tell_anomalies(odd)

    def _may_go_on(self) -> bool:
        return len(self.steps) < self.most_steps

    # ------------------------------------------------------------------ what is new

    async def _begin(self) -> int:
        """Since when: as the question or the caller says, else a day before the newest record."""
        scope = self.placed.scope
        self._timed = scope.since_ms is not None
        if scope.since_ms is not None:
            self.page.lines.append(f"{self.placed.reading or f'Looked at {bounds(scope.since_ms, None)}'}:")
            return scope.since_ms
        newest = await scope.newest()
        since_ms = last_day(to_ms(newest.timestamp)) if newest else 0
        self.page.lines.append(f"Looked at {bounds(since_ms, None)}, a day before the newest record:")
        return since_ms

    async def _new(self, scope: Scope, found: list[Pattern]) -> AsyncGenerator[Step, None]:
        """The patterns first seen in scope, of topics of logs."""
        every = (await scope.within(None, None).search("", 1)).coverage.topics
        logs = [t for t in every if scope.kind_of(t) == "template"] or scope.events(every)
        found.clear()
        since = when(scope.since_ms)
        for topic in logs[:_MOST_TOPICS]:
            if not self._may_go_on():
                break
            arguments = {"topic": topic, "new_since": _iso(scope.since_ms)}
            looked = self.verbs.patterns(topic, new_since=since, until=when(scope.until_ms), limit=_MOST_PATTERNS)
            reply = await self._noted(
                "patterns", arguments, looked,
                lambda reply: (f"{len(reply.patterns)} patterns first seen since", len(reply.patterns)),
            )  # fmt: skip
            found += reply.patterns if reply else ()
            yield self.steps[-1]

    async def _trouble(self, patterns: Sequence[Pattern]) -> tuple[list[Found], int]:
        """What tells of trouble (else all that is new), the worst first, and when it began. Where the question names no time,
        only what is new from then on."""
        chosen = [p for p in patterns if rank(p) >= WARN] or list(patterns)
        begun = _onset(chosen)
        if not self._timed:
            chosen = [p for p in chosen if to_ms(p.passage.first_seen) >= begun]
        ranked = sorted(chosen, key=lambda p: (-rank(p), -p.count, p.topic, p.passage.id))
        if len(ranked) > _MOST_SHOWN:
            self.notes.append(f"new patterns not shown: {len(ranked) - _MOST_SHOWN:,}; `patterns` lists all")
        return [Found(p, await first_record(self.placed.scope, p, first=True)) for p in ranked[:_MOST_SHOWN]], begun

    async def _anomalies(self, found: list[Anomaly]) -> Step:
        scope = self.placed.scope
        since = when(None if scope.since_ms is None else scope.since_ms)
        on = [d.topic for d in await self.verbs.detecting() if scope.topics is None or d.topic in scope.topics]
        reply = await self._noted(
            "anomalies", {"since": _iso(scope.since_ms)},
            self.verbs.anomalies(on, since=since, until=when(scope.until_ms), limit=_MOST_ANOMALIES) if on else None,
            lambda reply: (f"{len(reply)} anomalies", len(reply)),
        )  # fmt: skip
        if reply is not None:
            found += reply.anomalies
        elif not on:
            self.notes.append("no detectors are on; `headwater anomaly enable` switches them on")
        return self.steps[-1]

    # ------------------------------------------------------------------ why

    async def _cause(self, new: Sequence[Found], begun: int, odd: Sequence[Anomaly]) -> AsyncGenerator[Step, None]:
        scope = self.placed.scope
        changes: list[Hit] = []
        if self._may_go_on():
            changes = await self._changes(new, begun)
            yield self.steps[-1]
        texts = [plain(f.pattern.passage.text) for f in new]
        await self._tell_changes(changes, texts, begun)
        self.page.lines.append("What is new, the worst first:")
        self.page.lines += [bullet(self.page, f, scope) for f in new]
        mark = {i: f"[{self._number(f.record.address)}]" for i, f in enumerate(new)}
        if self._may_go_on():
            yield await self._course(new, begun, mark[0])
        await self._tell_anomalies(odd)
        homes = {f.pattern.topic for f in new}
        for title, tool, place in (
            ("Seen before:", "similar", scope.within(None, scope.since_ms)), ("Said of it since:", "search", scope)
        ):  # fmt: skip
            if not self._may_go_on():
                return
            arguments = (
                {"address": new[0].record.address} if tool == "similar" else {"q": texts[0], "since": _iso(scope.since_ms)}
            )
            alike = await self._noted(
                tool, arguments, known(place, texts, homes, by_meaning=self.embed is not None, documents=tool == "similar"),
                lambda found: (f"{len(found)} records that tell of the same", len(found)),
            )  # fmt: skip
            yield self.steps[-1]
            await self._tell_known(title, alike or [], texts, mark)

    async def _changes(self, new: Sequence[Found], begun: int) -> list[Hit]:
        """The records that tell of a change before the trouble began, the likeliest cause first."""
        scope = self.placed.scope.within(begun - _BEFORE_MS, begun + _LATE_MS)
        every = (await scope.within(None, None).search("", 1)).coverage.topics
        written = [t for t in scope.events(every) if scope.kind_of(t) != "template"]
        logs = [t for t in every if scope.kind_of(t) == "template"]
        arguments = {"q": "", "topics": written or logs, "since": _iso(scope.since_ms), "until": _iso(scope.until_ms)}
        arguments |= {} if written else {"q": _IN_LOGS, "mode": "keyword"}
        looked = scope.search("", 100, topics=written) if written else scope.search(_IN_LOGS, 50, mode="keyword", topics=logs)
        reply = await self._noted("search", arguments, looked, lambda reply: (f"{len(reply)} records", len(reply)))
        found = [hit for hit in reply or () if _tells_change(hit)]
        fresh = {f.record.address for f in new}
        scores = await self._scored([hit for hit in found if hit.address not in fresh], new, begun)
        return [hit for _, hit in scores[:_MOST_CHANGES]]

    async def _scored(self, found: Sequence[Hit], new: Sequence[Found], begun: int) -> list[tuple[float, Hit]]:
        if not found:
            return []
        names = {name for f in new for name in _names(f.record)}
        texts = [plain(f.pattern.passage.text) for f in new]
        near = [0.0] * len(found)
        if self.embed is not None:
            vectors = await self.embed([*texts, *(hit.value[:2000] for hit in found)], "passage")
            near = (vectors[len(texts) :] @ vectors[: len(texts)].T).max(axis=1).tolist()
        else:
            said = {w for text in texts for w in content_words(text)}
            near = [len(said & set(content_words(hit.value))) / (len(said) or 1) for hit in found]
        scored = []
        for hit, meaning in zip(found, near, strict=True):
            gap = abs(begun - to_ms(hit.timestamp)) / _BEFORE_MS
            named = bool(names & set(_names(hit)))
            score = _W_NAMED * named + _W_NEAR * (1 - min(1.0, gap)) + _W_MEANING * meaning
            scored.append((score + _W_TOPIC * bool(_CHANGE.search(hit.topic)), hit))
        return sorted(scored, key=lambda pair: (-pair[0], -to_ms(pair[1].timestamp), pair[1].address))

    async def _tell_changes(self, changes: Sequence[Hit], texts: Sequence[str], begun: int) -> None:
        for n, hit in enumerate(changes):
            text = max(texts, key=lambda text: len(set(content_words(text)) & set(content_words(hit.value))))
            spans = (await telling_sentences(hit, text, self.embed))[:2]
            said = " ... ".join(quote(hit.value, *span) for span in spans)
            marks = "".join(self.page.cite(hit, *span) for span in spans)
            at = stretch(hit.timestamp, hit.timestamp)
            gap = _ago(begun - to_ms(hit.timestamp))
            if n == 0:
                self.page.lines += ["Likely cause, the change before it began that fits best:"]
                self.cause, self.confidence = hit.address, 0.7
            elif n == 1:
                self.page.lines += ["Changed in that hour too:"]
            self.page.lines.append(f"- {said} ({whose(hit)}, {at}, {gap} it began) {marks}")
        if not changes:
            self.confidence = 0.4
            self.notes.append("no record tells of a change in the hour before it began; the cause is not named")

    async def _course(self, new: Sequence[Found], begun: int, mark: str) -> Step:
        """How many warnings and errors there were, before and since."""
        homes = sorted({f.pattern.topic for f in new})
        since, q = from_ms(begun - _BEFORE_MS // 2), "level:>=warn"
        course = await self._noted(
            "timeline", {"q": q, "topics": homes, "since": since.isoformat(), "buckets": _BUCKETS},
            self.verbs.timeline(q, topics=homes, since=since, until=when(self.placed.scope.until_ms), buckets=_BUCKETS),
            lambda found: (f"{sum(b.count for b in found.buckets):,} records", sum(b.count for b in found.buckets)),
        )  # fmt: skip
        if course is not None and (said := _course_said(course, begun)):
            self.page.lines += ["How it went:", f"- {said} {mark}"]
        return self.steps[-1]

    async def _tell_known(self, title: str, alike: Sequence[Known], texts: Sequence[str], mark: Mapping[int, str]) -> None:
        cited = {claim.address for claim in self.page.claims}
        told = [k for k in alike if k.hit.address not in cited and max(k.like.values()) >= HINT]
        self.page.lines += [title] * bool(told)
        self.page.lines += [
            await known_bullet(self.page, k, texts, mark, self.embed, self.placed.scope.documents) for k in told
        ]

    async def _tell_anomalies(self, odd: Sequence[Anomaly]) -> None:
        shown = [a for a in odd if a.addresses]
        self.page.lines += ["Odd, as detectors see it:"] * bool(shown)
        for anomaly in shown:
            try:
                record = (await self.verbs.read(anomaly.addresses[0])).record
            except NotFoundError:
                continue
            line = re.search(r"\S[^\n]{0,299}", record.value)
            mark = self.page.cite(record, *(line.span() if line else (0, len(record.value))))
            what = code_span(visible(anomaly.what[:300], newlines="mark"))
            self.page.lines.append(
                f"- {anomaly.severity}, {what} ({anomaly.topic}, {stretch(anomaly.start, anomaly.end)}) {mark}"
            )
            self.confidence = max(self.confidence, 0.3)

    # ------------------------------------------------------------------ small things

    def _number(self, address: str) -> int:
        return next(claim.n for claim in self.page.claims if claim.address == address)

    async def _noted(
        self, tool: str, arguments: Mapping[str, Any], looking: Awaitable[T] | None, told: Callable[[T], tuple[str, int]]
    ) -> T | None:
        """What a look gives; it is a step. None where it failed, which the step says."""
        begun, found, records = time.perf_counter(), "nothing to look at", 0
        reply: T | None = None
        error: str | None = None
        try:
            if looking is not None:
                reply = await looking
                found, records = told(reply)
        except HeadwaterError as failure:
            error, found = str(failure)[:300], ""
        seconds = round(time.perf_counter() - begun, 4)
        self.steps.append(Step(len(self.steps) + 1, tool, dict(arguments), "", found, records, 0, seconds, error))
        return reply


def _onset(patterns: Sequence[Pattern]) -> int:
    """When trouble began: the first of the half hour in which most of it did, the worse and the more frequent counting more."""
    begins = sorted((to_ms(p.passage.first_seen), (1 + max(0, rank(p) - WARN)) * math.log1p(p.count)) for p in patterns)
    weights = [sum(w for at, w in begins[i:] if at <= start + _ONSET_MS) for i, (start, _) in enumerate(begins)]
    return begins[weights.index(max(weights))][0] if begins else 0


def _tells_change(hit: Hit) -> bool:
    """Whether a record tells that something was changed; a question does not."""
    return bool(_CHANGE.search(hit.topic) or (_CHANGE.search(hit.value) and not hit.value.rstrip().endswith("?")))


def _names(record: Hit | Record) -> list[str]:
    """What a record says it is of: its key, its attributes, without versions and numbers behind them."""
    given = [record.key or "", *(v for v in record.attributes.values() if isinstance(v, str) and len(v) <= 60)]
    found = [name.strip("-._") for text in given for name in _NAME.findall(text.lower())]
    stems = [re.sub(r"[-._]v?\d.*$", "", name) for name in found]
    return [name for name in dict.fromkeys([*found, *stems]) if len(name) > 2 and name not in _COMMON]


_COMMON = frozenset(("error", "warn", "warning", "info", "debug", "fatal", "critical", "prod", "production", "main", "default"))


def _course_said(course: Timeline, begun: int) -> str:
    before = sum(b.count for b in course.buckets if to_ms(b.start) + course.interval_s * 1000 <= begun)
    after = [b for b in course.buckets if to_ms(b.start) + course.interval_s * 1000 > begun]
    if not (total := sum(b.count for b in after)):
        return ""
    peak = max(after, key=lambda b: b.count)
    last = max(b.start for b in after if b.count) + timedelta(seconds=course.interval_s)
    until = stretch(peak.start, peak.start + timedelta(seconds=course.interval_s))
    return (
        f"warnings and errors: {before:,} in the half hour before, {total:,} since it began, "
        f"most of them ({peak.count:,}) {until}, the last until {last:%H:%M:%S}"
    )


def _ago(ms: int) -> str:
    minutes = abs(ms) / 60_000
    amount = f"{round(minutes)} minutes" if minutes >= 2 else f"{round(abs(ms) / 1000)} seconds"
    return f"{amount} {'before' if ms >= 0 else 'after'}"


def _iso(ms: int | None) -> str | None:
    return None if ms is None else from_ms(ms).isoformat()
