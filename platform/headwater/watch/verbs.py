"""The verbs of watches: made, listed, removed, waited for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio.to_thread

from headwater.config import duration_s
from headwater.errors import ConfigError, ConflictError, LimitError, NotFoundError, UsageError
from headwater.index.topic import TopicIndex
from headwater.log import watches as watch_store
from headwater.log.store import Log
from headwater.log.watches import HitRow, Like, Spec, State, WatchRow
from headwater.passages import embedding_text
from headwater.query import parse_time
from headwater.records import Mode, from_ms, parse_address
from headwater.records.watches import Watch, WatchHit, WatchState, Woken
from headwater.stock import Stock
from headwater.verbs import When
from headwater.watch.judging import Standing
from headwater.watch.live import MIN_SCORE, wish
from headwater.watch.running import Watching, standing, why_held_up

T = TypeVar("T")
MOST = 2000  # watches of an engine
MOST_OF_OWNER = 20
MOST_COUNTED = 10_000
MOST_HITS = 1000
LIKE_SCORE = 0.6  # of meaning, between two records rather than a query and a record
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST_S = 10 * 366 * 86_400.0
_LIKE_PASSAGES = 8  # of a record that others are to be like


class Watches:
    """Implements the verbs of watches over those that are judged."""

    def __init__(self, log: Log, stock: Stock, watching: Watching, *, clock_ms: Callable[[], int]) -> None:
        self._log, self._stock, self._watching, self._clock_ms = log, stock, watching, clock_ms
        self._waiters = 0

    # ------------------------------------------------------------------ made and removed

    async def add(
        self,
        q: str = "",
        *,
        name: str | None = None,
        topics: Sequence[str] | None = None,
        mode: Mode | None = None,
        min_score: float | None = None,
        like: str | None = None,
        more_than: int | None = None,
        within: float | str | None = None,
        ttl: float | str | None = None,
        since: When | None = None,
        owner: str | None = None,
    ) -> Watch:
        """As Verbs.add_watch."""
        now = self._clock_ms()
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(f"{name[:40]!r} is no name of a watch: letters, digits and ._- (at most 100), not digits alone")
        more_than, within_ms = _window(more_than, within)
        expires = None if ttl is None else now + round(_seconds("ttl", ttl) * 1000)
        wanted = wish(q, now_ms=now, topics=topics, mode=mode, min_score=min_score)
        found = None if like is None else await _thread(self._like, like)
        chosen = wanted.topics
        if found is not None:
            chosen = chosen or (parse_address(found.address)[0],)
        self._stock.choose(chosen)
        least = (MIN_SCORE if found is None else LIKE_SCORE) if min_score is None else wanted.min_score
        spec = watch_store.Spec(q, chosen, wanted.mode, least, found, more_than, within_ms)
        _check(spec, wanted.query.text)
        since_ms = None if since is None else parse_time(since, now_ms=now, begins=True)
        made = await _thread(self._create, name, spec, now, expires, owner, since_ms)
        return await self.one(made.id)

    def _create(
        self, name: str | None, spec: Spec, now: int, expires: int | None, owner: str | None, since_ms: int | None
    ) -> Standing:
        watching = self._watching
        with watching.lock:  # no record is judged between the place it starts from and its being known
            held = list(watching.watches.values())
            if len(held) >= MOST:
                raise LimitError(f"there are {MOST:,} watches, the most there can be; `headwater watch rm` removes one")
            if owner is not None and sum(w.owner == owner for w in held) >= MOST_OF_OWNER:
                raise LimitError(f"this client has {MOST_OF_OWNER} watches, the most it may have; let one expire or remove it")
            if any(w.name == name for w in held):
                raise ConflictError(f"a watch {name!r} exists already; `headwater watch rm {name}` removes it")
            write = watch_store.create
            id, made, starts = self._log.write(lambda db: write(db, name, spec, now, expires, owner))
            watch = standing(WatchRow(id, made, spec, State(starts), now, expires, owner))
            if since_ms is not None:
                self._look_back(watch, since_ms)
            watching.enter(watch)
        return watch

    def _look_back(self, watch: Standing, since_ms: int) -> None:
        """Let a new watch begin with the records stored since then, at places of its own until it has caught up."""
        state = watch.state
        for row in self._log.topics():
            if watch.concerns(row.name) and (end := state.starts.get(row.id)) is not None:
                start = watch_store.seq_since(self._log, row.id, row.first_seq, end, since_ms)
                state.starts[row.id], state.own[row.id] = start, [start, start]
        self._log.write(lambda db: watch_store.move_back(db, watch.id, state))

    def _like(self, place: str) -> Like:
        """What a watch needs to know of the record at an address. NotFoundError; UsageError before it has passages."""
        name, partition, offset = parse_address(place)
        topic = self._stock.find(name)
        row = self._log.find(self._log.topic(name), partition, offset)
        found = topic.catalogue.places([row.id]).get(row.id, [])[:_LIKE_PASSAGES]
        passages = tuple(dict.fromkeys(topic.resolve(p.passage) for p in found if p.passage))
        if not passages:
            raise UsageError(f"{place} is not indexed yet, or has no text; try again in a moment")
        rows = topic.catalogue.rows(passages)
        text = "\n".join(embedding_text(topic.kind, rows[p].text, rows[p].context) for p in passages if p in rows)
        return Like(f"{name}/{partition}/{offset}", topic.row.id, row.id, passages, text)

    async def remove(self, id: int | str) -> None:
        """As Verbs.remove_watch."""
        watch = self._find(id)

        def remove() -> None:
            with self._watching.lock:
                self._log.write(lambda db: watch_store.drop(db, [watch.id]))
                self._watching.leave([watch.id])

        await _thread(remove)

    # ------------------------------------------------------------------ seen

    async def all(self) -> list[Watch]:
        """Every watch, oldest first."""
        return await _thread(self._all)

    async def one(self, id: int | str) -> Watch:
        """The watch of that id or name; NotFoundError."""
        return await _thread(self._one, id)

    def _all(self) -> list[Watch]:
        with self._watching.lock:  # between two steps: what is seen is in the log
            stored = self._log.stored()
            present = {topic.row.name: topic for topic in self._stock.choose(None)}
            return [self._view(watch, stored, present) for watch in self._watching.watches.values()]

    def _one(self, id: int | str) -> Watch:
        with self._watching.lock:
            present = {topic.row.name: topic for topic in self._stock.choose(None)}
            return self._view(self._find(id), self._log.stored(), present)

    async def counts(self) -> Mapping[str, int]:
        """Watches by state, hits ever fired by those there are, and clients that wait."""
        seen = await self.all()
        states = {state: sum(w.state == state for w in seen) for state in ("watching", "held up", "expired")}
        behind = max((w.behind for w in seen), default=0)
        return {**states, "fired": sum(w.fired for w in seen), "waiting": self._waiters, "behind": behind}

    def _find(self, id: int | str) -> Standing:
        watches = self._watching.watches
        text = str(id)
        found = watches.get(int(text)) if text.isdecimal() and len(text) < 19 else None
        found = found or next((w for w in list(watches.values()) if w.name == text), None)
        if found is None:
            raise NotFoundError(f"no watch {text[:100]!r}; `headwater watch list` shows them")
        return found

    def _view(self, watch: Standing, stored: Mapping[int, int], present: Mapping[str, TopicIndex]) -> Watch:
        spec, state = watch.spec, watch.state
        error = why_held_up(self._watching, watch, present)
        ended = self._expired(watch)
        return Watch(
            watch.id, watch.name, spec.q, spec.topics, spec.mode, spec.min_score,
            None if spec.like is None else spec.like.address, spec.more_than,
            None if spec.within_ms is None else spec.within_ms / 1000, from_ms(watch.created_ms),
            None if watch.expires_ms is None else from_ms(watch.expires_ms), watch.owner,
            "expired" if ended else "held up" if error else "watching", None if ended else error, state.fired,
            None if state.last_ms is None else from_ms(state.last_ms), 0 if ended else self._watching.behind(watch, stored),
            str(state.fired),
        )  # fmt: skip

    def _expired(self, watch: Standing) -> bool:
        return watch.expires_ms is not None and watch.expires_ms <= self._clock_ms()

    # ------------------------------------------------------------------ waited for

    async def wait(self, id: int | str, *, cursor: str | None = None, timeout: float | None = 25.0, limit: int = 100) -> Woken:
        """As Verbs.wait; no end with timeout None. No thread is held meanwhile."""
        if not 1 <= limit <= MOST_HITS:
            raise UsageError(f"limit must be between 1 and {MOST_HITS}")
        if timeout is not None and not timeout >= 0:
            raise UsageError("timeout is a number of seconds, 0 or more")
        watch, after = self._find(id), _place(cursor)
        if after > watch.state.fired:
            raise UsageError(f"{watch.name!r} has not fired {after} times; its cursor is {watch.state.fired}")
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        self._waiters += 1
        try:
            while True:
                bell = self._watching.bell(watch.id)
                watch = self._find(watch.id)
                if watch.state.fired > after and (reply := await _thread(self._read, watch, after, limit)).hits:
                    return reply
                ended = self._expired(watch)
                left = None if end is None else end - loop.time()
                if ended or self._watching.closed or (left is not None and left <= 0):
                    return Woken(watch.name, (), cursor or "0", timed_out=not ended, state="expired" if ended else "watching")
                await _within(bell, left, watch.expires_ms and (watch.expires_ms - self._clock_ms()) / 1000)
        finally:
            self._waiters -= 1

    async def events(self, id: int | str, *, cursor: str | None = None) -> AsyncIterator[WatchHit]:
        """As Verbs.watch_events."""
        while True:
            reply = await self.wait(id, cursor=cursor, timeout=None)
            for hit in reply.hits:
                yield hit
            cursor = reply.cursor
            if not reply.hits:  # it has expired, or the engine closes
                return

    def _read(self, watch: Standing, after: int, limit: int) -> Woken:
        """The hits behind a place. A record that is gone is None."""
        rows = watch_store.hits(self._log, watch.id, after, limit)
        if not rows:
            return Woken(watch.name, (), str(after))
        hits = self._told(watch.name, rows)
        state: WatchState = "expired" if self._expired(watch) else "watching"
        missed = max(rows[0].n - after - 1, 0)
        return Woken(watch.name, tuple(hits), str(rows[-1].n), False, missed, watch.state.fired > rows[-1].n, state)

    def _told(self, name: str, rows: Sequence[HitRow]) -> list[WatchHit]:
        records = self._log.rows_of({row.record for row in rows})
        hits = []
        for row in rows:
            record = records.get(row.record)
            seen = None if record is None else record.record(parse_address(row.address)[0])
            fired = from_ms(row.fired_ms)
            hits.append(WatchHit(hit_id(row), name, row.address, seen, row.why, row.score, row.counted, fired))
        return hits

    # ------------------------------------------------------------------ for webhooks

    def hit(self, watch: int, n: int) -> WatchHit | None:
        """The hit of that number; None where it is no longer kept."""
        rows = [row for row in watch_store.hits(self._log, watch, n - 1, 1) if row.n == n]
        name = self.name_of(watch)
        return self._told(name, rows)[0] if rows and name is not None else None

    def id_of(self, id: int | str) -> int:
        """The number of a watch; NotFoundError."""
        return self._find(id).id

    def name_of(self, id: int) -> str | None:
        """The name of a watch; None where there is none."""
        found = self._watching.watches.get(id)
        return None if found is None else found.name


def hit_id(row: HitRow) -> str:
    """`3-17`: the 17th hit of watch 3. What follows the dash is the cursor behind it."""
    return f"{row.watch}-{row.n}"


def _place(cursor: str | None) -> int:
    if not cursor:
        return 0
    if not re.fullmatch(r"[0-9]{1,15}", cursor):
        raise UsageError(f"{cursor[:40]!r} is not a cursor that a wait gave; leave it out for all hits that are kept")
    return int(cursor)


def _window(more_than: int | None, within: float | str | None) -> tuple[int | None, int | None]:
    if (more_than is None) != (within is None):
        raise UsageError("more_than and within belong together: more than 5 within 10m")
    if more_than is None or within is None:
        return None, None
    if not 1 <= more_than <= MOST_COUNTED:
        raise UsageError(f"more_than must be between 1 and {MOST_COUNTED:,}")
    return more_than, round(_seconds("within", within) * 1000)


def _seconds(what: str, given: float | str) -> float:
    try:
        seconds = duration_s(given) if isinstance(given, str) else float(given)
    except (ConfigError, ValueError) as error:
        raise UsageError(f"{what}: {error}") from error
    if not 0.001 <= seconds <= _LONGEST_S:
        raise UsageError(f"{what} must be between 1 ms and 10 years")
    return seconds


def _check(spec: Spec, text: str) -> None:
    """UsageError for a watch that says nothing of the records, or two things at once."""
    if spec.like is not None and text:
        raise UsageError("a watch is like a record or looks for words; with `like` the query has filters alone")
    if spec.like is None and not spec.q.strip() and spec.topics is None:
        raise UsageError("say what to watch for: words, filters, a record to be like, or topics for all they get")
    if text and not re.search(r"\w", text):
        raise UsageError(f"{text[:40]!r} has no letter or digit to look for")
    if spec.like is not None and spec.mode == "keyword":
        raise UsageError("what is like a record is found by meaning; leave mode out")


async def _within(bell: asyncio.Event, left_s: float | None, expires_s: float | None) -> None:
    limits = [s for s in (left_s, expires_s) if s is not None]
    try:
        async with asyncio.timeout(max(min(limits), 0.0) if limits else None):
            await bell.wait()
    except TimeoutError:
        return


async def _thread(work: Callable[..., T], *args: Any) -> T:
    return await anyio.to_thread.run_sync(work, *args)
