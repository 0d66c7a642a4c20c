"""Completions of the arguments of prompts and resource templates: topics, places in them, watches, fields and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.types import CompleteRequestParams, CompleteResult, Completion

from headwater.errors import HeadwaterError
from headwater.query import KNOWN_FIELDS
from headwater.records.levels import LEVELS
from headwater.verbs import Verbs
from headwater.visible import visible
from headwater_mcp.render import as_is

_MOST = 100  # by the protocol
_SAMPLE = 100  # records whose attributes are looked at
_LONGEST = 80
_AGES = ("15m", "1h", "2h", "6h", "24h", "7d")


class Completions:
    """Completions over one set of verbs."""

    def __init__(self, verbs: Verbs, redact: Callable[[str], str] = as_is) -> None:
        self._verbs, self._redact = verbs, redact

    async def complete(self, _: ServerRequestContext[Any, Any], params: CompleteRequestParams) -> CompleteResult:
        """What the argument may go on as; nothing where the daemon cannot be asked."""
        given = dict(params.context.arguments or {}) if params.context else {}
        try:
            options = list(await self._options(params.argument.name, params.argument.value[:2000], given))
        except HeadwaterError:
            options = []
        found = Completion(values=options[:_MOST], total=len(options), has_more=len(options) > _MOST)
        return CompleteResult(completion=found)

    async def _options(self, name: str, value: str, given: dict[str, str]) -> Iterable[str]:
        if name == "topic":
            return _starting(await self._topics(), value)
        if name == "topics":  # a list with commas: the last name is completed
            before, _, last = value.rpartition(",")
            chosen = {n.strip() for n in before.split(",")}
            return [f"{before},{n}" if before else n for n in _starting(await self._topics(), last.strip()) if n not in chosen]
        if name in ("since", "until"):
            return _starting(_AGES, value)
        if name == "id":
            return _starting([str(w.id) for w in await self._verbs.watches()], value)
        if name in ("partition", "offset") and "topic" in given:
            topic = await self._verbs.topic(given["topic"])
            if name == "partition":
                return _starting(map(str, range(topic.partitions)), value)
            newest = topic.watermark.stored
            return _starting(map(str, range(newest - 1, max(-1, newest - 1 - _MOST), -1)), value)
        if name == "q":
            return await self._of_query(value, given)
        return ()

    async def _topics(self) -> list[str]:
        return [topic.name for topic in await self._verbs.topics()]

    async def _of_query(self, value: str, given: dict[str, str]) -> list[str]:
        """The last word of a query: a field, or behind `field:` a value that recent records have."""
        before, _, word = value.rpartition(" ")
        lead = f"{before} " if before else ""
        field, colon, start = word.partition(":")
        topics = [n.strip() for n in (given.get("topics") or given.get("topic") or "").split(",") if n.strip()]
        if colon and field == "level":
            return [f"{lead}level:{level}" for level in _starting(LEVELS, start)]
        reply = await self._verbs.search("", topics=topics or None, top_k=_SAMPLE)
        if not colon:
            names = dict.fromkeys([*KNOWN_FIELDS, *(name for hit in reply.hits for name in hit.attributes)])
            return [f"{lead}{_shown(name)}:" for name in _starting(names, word)]
        values = dict.fromkeys(
            self._redact(str(hit.key if field == "key" else hit.attributes[field]))
            for hit in reply.hits
            if (field == "key" and hit.key) or field in hit.attributes
        )
        return [f"{lead}{field}:{_quoted(found)}" for found in _starting(values, start.strip('"'))]


def _starting(options: Iterable[str], start: str) -> list[str]:
    return [option for option in options if option.lower().startswith(start.lower())][: _MOST + 1]


def _quoted(text: str) -> str:
    shown = _shown(text)
    return f'"{shown}"' if " " in shown else shown


def _shown(text: str) -> str:
    return visible(text[:_LONGEST], newlines="mark")
