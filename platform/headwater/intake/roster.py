"""The roster: which sources there are, and how each is doing.

Entries come from the settings, from the paths a daemon was started with, and from `add`: those are kept in the log and come
back after a restart. Any entry can be paused, which is kept too; only those that were added can be removed. Who runs sources
(headwater.feed, headwater.intake.doors) asks for the entries and writes what it sees into a Tally each.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
import orjson

from headwater.config import LOOPBACK, REFERENCE, Settings, source_settings
from headwater.errors import ConfigError, ConflictError, NotFoundError, UsageError
from headwater.log.store import Log
from headwater.records import SourceInfo
from headwater.source_settings import (
    LIVE_VARIABLES,
    AnySource,
    OtlpSettings,
    SourceSettings,
    WebhookSettings,
    check_package,
    entry_name,
)
from headwater.views import Rates

Where = Literal["settings", "argument", "live", "default"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One source of the roster. `settings` is None where they cannot be read now; `error` then says why."""

    name: str
    kind: str
    topic: str
    origin: Where
    settings: AnySource | None
    paused: bool = False
    error: str | None = None


@dataclass(slots=True)
class Tally:
    """What is known of one running source; written by who runs it, read by everybody."""

    name: str
    entry: str
    kind: str
    topic: str
    state: str = "starting"
    stored: int = 0
    lag: int | None = None
    error: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)

    def count(self, what: str, more: int = 1) -> None:
        if more:
            self.counts[what] = self.counts.get(what, 0) + more


class Roster:
    """All sources of one data directory. Its coroutines are the verbs of sources. Nothing runs until somebody follows."""

    def __init__(self, log: Log, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._log, self._settings, self._environment = log, settings, environment
        self._tallies: dict[str, Tally] = {}
        self._notes: dict[str, str] = {}
        self._listeners: list[Callable[[], None]] = []
        self._entries: dict[str, Entry] = {}
        with log.reading() as db:
            kept = list(db.execute("SELECT name, settings, paused FROM roster ORDER BY created_ms, name"))
        self._paused = {name for name, _, paused in kept if paused}
        for source in settings.sources:
            self._enlist(source, "settings")
        for name, text, _ in kept:
            if text is not None and name not in self._entries:
                self._entries[name] = self._read(name, orjson.loads(text))

    def given(self, sources: Sequence[SourceSettings]) -> None:
        """Enlist the paths a daemon was started with."""
        for source in sources:
            if entry_name(source) not in self._entries:
                self._enlist(source, "argument")

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def door(self, name: str) -> Entry:
        """The entry of that name for what is pushed; NotFoundError."""
        found = self._entries.get(name)
        if found is None or not isinstance(found.settings, WebhookSettings | OtlpSettings):
            raise NotFoundError(f"no source {name!r} takes what is pushed; `headwater sources` lists them")
        return found

    def first_otlp(self) -> Entry:
        """Where logs over OTLP go that come to the API: the first such entry; one of its own where there is none."""
        for entry in self._entries.values():
            if isinstance(entry.settings, OtlpSettings):
                return entry
        self._enlist(OtlpSettings(), "default")
        return self._entries["otlp"]

    def tally(self, name: str, entry: Entry, *, topic: str | None = None, kind: str | None = None) -> Tally:
        """The tally of a running source; the same one at every call."""
        found = self._tallies.get(name)
        if found is None or (topic is not None and found.topic != topic):
            found = self._tallies[name] = Tally(name, entry.name, kind or entry.kind, topic or entry.topic)
        return found

    def look(self) -> None:
        """Bring the rates up to date."""
        for tally in self._tallies.values():
            tally.rates.look(0, tally.stored)

    def note(self, entry: str, error: str | None) -> bool:
        """Say why an entry has no source yet; None: nothing is wrong with it. Whether that is news."""
        is_news = self._notes.get(entry) != error
        if error is None:
            self._notes.pop(entry, None)
        else:
            self._notes[entry] = error
        return is_news

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener()` whenever an entry came, went, was paused or resumed."""
        self._listeners.append(listener)

    def infos(self, entry: str | None = None) -> list[SourceInfo]:
        """Every source, or those of an entry; an entry that has none yet stands for itself."""
        out: list[SourceInfo] = []
        for one in self._entries.values():
            if entry in (None, one.name):
                running = [t for t in self._tallies.values() if t.entry == one.name]
                out += [_info(t, one) for t in running] or [self._idle(one)]
        return out

    # ------------------------------------------------------------------ verbs

    async def sources(self) -> list[SourceInfo]:
        self.look()
        return self.infos()

    async def add(self, /, **settings: Any) -> list[SourceInfo]:
        given = {name: value for name, value in settings.items() if value is not None}
        self._check_references(given)
        source = source_settings(given, self._environment, where="source")
        check_package(source)
        if isinstance(source, SourceSettings):
            source = replace(source, path=await anyio.to_thread.run_sync(self._live_path, source.path))
            given["path"] = source.path
        name = entry_name(source)
        held = self._entries.get(name)
        if held is not None and held.origin != "default":
            raise ConflictError(f"there is a source {name!r} already; give this one another name, or remove that one first")
        kept = (name, orjson.dumps(given).decode(), time.time_ns() // 1_000_000)
        await self._write("INSERT OR REPLACE INTO roster VALUES(?, ?, 0, ?)", kept)
        self._paused.discard(name)
        self._enlist(source, "live")
        return self._changed(name)

    async def pause(self, name: str) -> list[SourceInfo]:
        return await self._set_paused(name, True)

    async def resume(self, name: str) -> list[SourceInfo]:
        return await self._set_paused(name, False)

    async def remove(self, name: str) -> None:
        entry = self._named(name)
        if entry.origin != "live":
            raise UsageError(
                f"source {entry.name!r} comes from the {entry.origin}, not from `headwater sources add`, and would come back; "
                "pause it, or take it out there"
            )
        await self._write("DELETE FROM roster WHERE name = ?", (entry.name,))
        del self._entries[entry.name]
        self._paused.discard(entry.name)
        for tally in [t for t in self._tallies.values() if t.entry == entry.name]:
            del self._tallies[tally.name]
        self._changed(None)

    # ------------------------------------------------------------------ inside

    async def _set_paused(self, name: str, paused: bool) -> list[SourceInfo]:
        entry = self._named(name)
        if entry.settings is not None and isinstance(entry.settings, SourceSettings) and entry.settings.path == "-":
            raise UsageError("standard input cannot be paused: what the pipe holds cannot be asked for again")
        keep = "INSERT INTO roster VALUES(?, NULL, ?, ?) ON CONFLICT(name) DO UPDATE SET paused = excluded.paused"
        await self._write(keep, (entry.name, paused, time.time_ns() // 1_000_000))
        (self._paused.add if paused else self._paused.discard)(entry.name)
        self._entries[entry.name] = replace(entry, paused=paused)
        return self._changed(entry.name)

    def _named(self, name: str) -> Entry:
        """The entry of that name, or that of the running source of that name; NotFoundError."""
        tally = self._tallies.get(name)
        for known in (name, tally.entry if tally else name, os.path.abspath(os.path.expanduser(name))):
            if known in self._entries:
                return self._entries[known]
        raise NotFoundError(f"no source {name!r}; `headwater sources` lists them")

    def _changed(self, name: str | None) -> list[SourceInfo]:
        for listener in self._listeners:
            listener()
        return self.infos(name) if name is not None else []

    def _idle(self, entry: Entry) -> SourceInfo:
        """An entry of which nothing runs."""
        error = entry.error or self._notes.get(entry.name)
        state = "listening" if isinstance(entry.settings, OtlpSettings | WebhookSettings) else "waiting"
        state = "paused" if entry.paused else "failing" if error else state if self._listeners else "not running"
        return SourceInfo(entry.name, entry.kind, entry.topic, state, 0, None, error, entry.name, entry.origin, entry.paused)

    async def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        await anyio.to_thread.run_sync(lambda: self._log.write(lambda db: db.execute(statement, values) and None))

    def _enlist(self, source: AnySource, origin: Where) -> None:
        name = entry_name(source)
        topic = source.topic or ("" if isinstance(source, SourceSettings) else name)
        self._entries[name] = Entry(name, source.type, topic, origin, source, name in self._paused)

    def _read(self, name: str, given: Mapping[str, Any]) -> Entry:
        """A kept entry; with its error where its settings cannot be read now, as when a variable is not set."""
        topic, kind = str(given.get("topic") or ""), str(given.get("type", "path"))
        try:
            source = source_settings(given, self._environment, where=f"source {name}")
        except ConfigError as error:
            return Entry(name, kind, topic, "live", None, name in self._paused, str(error))
        return Entry(name, kind, topic or ("" if kind == "path" else name), "live", source, name in self._paused)

    def _check_references(self, given: Mapping[str, Any]) -> None:
        """Who may add a source may not read the daemon's environment with one."""
        for name, value in given.items():
            found = REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if found is not None and not found[1].startswith(LIVE_VARIABLES):
                raise ConfigError(
                    f"{name}: a source added live may refer only to variables whose names begin with {LIVE_VARIABLES}, "
                    f"not to {found[1]}; one of the settings file may refer to any"
                )

    def _live_path(self, path: str) -> str:
        """The absolute path, where a source added live may read it: never hidden files, and where others reach the API only
        below `server.live_paths`."""
        if path == "-":
            raise UsageError("standard input belongs to the process that is started; pipe into `headwater up -`")
        server = self._settings.server
        absolute = Path(os.path.abspath(os.path.expanduser(path)))
        resolved = absolute.resolve()
        if any(part.startswith(".") for part in (*absolute.parts, *resolved.parts)):
            raise UsageError(f"{path} is hidden or lies in a hidden folder; name it in [[sources]] of the settings file")
        roots = [Path(root).expanduser().resolve() for root in server.live_paths]
        if (roots or server.host not in LOOPBACK) and not any(resolved.is_relative_to(root) for root in roots):
            raise UsageError(f"{path} is below none of server.live_paths, so it cannot be added live; [[sources]] can name it")
        if not glob.has_magic(path) and not absolute.exists():
            raise NotFoundError(f"there is no {absolute}")
        return str(absolute)


def _info(tally: Tally, entry: Entry) -> SourceInfo:
    state = "paused" if entry.paused else tally.state
    return SourceInfo(
        tally.name, tally.kind, tally.topic, state, tally.stored, tally.lag, tally.error, entry.name, entry.origin,
        entry.paused, tally.rates.look(0, tally.stored), dict(tally.counts),
    )  # fmt: skip
