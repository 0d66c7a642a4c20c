"""The tools: each is one verb, its reply as text. Parameter names are the verbs' own.

Descriptions are written for models: when to use the tool, in what units, what to call next.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context as Call
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import BeforeValidator, Field

from headwater.config import duration_s
from headwater.errors import ConfigError, UsageError
from headwater.records import Mode, parse_address
from headwater.records.anomalies import Severity
from headwater.verbs import Verbs
from headwater_mcp import noting, render, render_found, render_watch
from headwater_mcp.render import Page

MIN_TOKENS, MAX_TOKENS = 300, 100_000
_UNSAID = ("title", "maxLength", "minLength", "maxItems", "minItems", "maximum", "minimum")
_EVERYWHERE = ("response_format", "max_tokens")  # parameters of every tool: the server's instructions tell of them once
_TOLD_ONCE = ("q", "since", "until", "topics")  # parameters that mean everywhere what `search` says they mean
_MOST_TOPICS = 1000  # of one request
_MOST_CLASSIFIED = 5000  # patterns judged in one call
_LONGEST_WATCH_S = 30 * 86_400.0
_CURSOR = re.compile(r"(\d{1,12})~(.*)", re.DOTALL)


def _as_list(value: object) -> object:
    """Models write `"a,b"` where a list is wanted."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    """Epoch seconds may come as a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Q = Annotated[str, Field(max_length=4000, description='words, "phrase", -not, level:error, field:value, field:>=10')]
Topics = Annotated[list[str] | None, BeforeValidator(_as_list), Field(description="only these; default all")]
TopicName = Annotated[str, Field(max_length=100, description="a name from `topics`")]
Since = Annotated[str | None, BeforeValidator(_as_text), Field(max_length=100, description="age (2h) or UTC time")]
Until = Annotated[str | None, BeforeValidator(_as_text), Field(max_length=100, description="like since, exclusive")]
TopK = Annotated[int, Field(ge=1, le=100, description="results wanted")]
Cursor = Annotated[str | None, Field(max_length=2000)]
Format = Literal["concise", "detailed"]
MaxTokens = Annotated[int, Field(ge=MIN_TOKENS, le=MAX_TOKENS)]
Limit = Annotated[int, Field(ge=1, le=500)]
Context = Annotated[int, Field(ge=0, le=100, description="records before and after")]
Whole = Annotated[int, Field(ge=0)]
Score = Annotated[float | None, Field(ge=0, le=1, description="0..1")]


class Tools:
    """The tool functions over one set of verbs. HeadwaterError passes through; the server words it for the model."""

    def __init__(
        self, verbs: Verbs, redact: Callable[[str], str] = render.as_is, notes: str = "notes", roots: Sequence[Path] = ()
    ) -> None:
        """`redact` takes secrets out of what goes out; `notes` is the topic of records that name none; files are loaded from
        below `roots`."""
        self._verbs, self._redact, self._notes, self._roots = verbs, redact, notes, roots
        self._owner = f"mcp-{secrets.token_hex(4)}"  # whose watches are counted

    async def topics(self, cursor: Cursor = None, response_format: Format = "concise", max_tokens: MaxTokens = 6000) -> str:
        """List the topics (streams) with record and pattern counts, time range and indexing lag. Call this first. Next:
        search, ask or patterns."""
        return render.topics(await self._verbs.topics(), self._page(cursor, response_format, max_tokens))

    async def search(
        self,
        q: Q,
        topics: Topics = None,
        since: Since = None,
        until: Until = None,
        mode: Mode | None = None,
        top_k: TopK = 10,
        min_score: Score = None,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Find records by meaning and keywords over all topics: logs, tickets, chat, documents. Describe what you look for
        in plain words ("customers billed twice"); mode=keyword for exact ids or names. Similar records are one result
        [n] address time level score(0-1) xCOUNT. Next: read an address with context, similar, or patterns."""
        page = self._page(cursor, response_format, max_tokens)
        reply = await self._verbs.search(
            q, topics=topics, top_k=top_k, mode=mode, since=since, until=until, min_score=min_score, cursor=page.inner or None
        )
        return render.search(reply, page, "search")

    async def read(
        self,
        address: Annotated[str, Field(max_length=200, description="topic/partition/offset, such as logs/0/42")],
        context: Context = 0,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Read one record in full, with its attributes and, with context=N, the N records stored before
        and after it. A long record goes on with cursor."""
        page = self._page(cursor, response_format, max_tokens)
        return render.read(await self._verbs.read(address, context=context), page, page.skip)

    async def similar(
        self,
        address: Annotated[str | None, Field(max_length=200, description="such as logs/0/42")] = None,
        topic: Annotated[str | None, Field(max_length=100, description="or topic and offset")] = None,
        offset: Annotated[int | None, Field(ge=0)] = None,
        partition: Whole = 0,
        top_k: TopK = 10,
        topics: Topics = None,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Find records whose meaning is nearest to a record you have, in all topics or those named: has this happened before,
        who else reports it, what helped?"""
        page = self._page(cursor, response_format, max_tokens)
        topic, partition, offset = _place(address, topic, partition, offset)
        chosen = topics or [found.name for found in await self._verbs.topics()][:_MOST_TOPICS]  # the verb's own is one topic
        reply = await self._verbs.similar(topic, offset=offset, partition=partition, top_k=top_k, topics=chosen or None)
        whole = replace(reply, coverage=replace(reply.coverage, next_cursor=None))  # the verb itself has no pages
        return render.search(whole, page, "similar")

    async def patterns(
        self,
        topic: TopicName,
        q: Q = "",
        since: Since = None,
        until: Until = None,
        new_since: Since = None,
        limit: Limit = 50,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Summarise a topic as its distinct message patterns with counts: the cheapest look at a log. With new_since (the
        time of a deploy, the start of an incident) only patterns never seen before it: what changed? Next: read the
        example address. Detailed also says what varying places and attributes hold."""
        page = self._page(cursor, response_format, max_tokens)
        reply = await self._verbs.patterns(
            topic, q=q, since=since, until=until, new_since=new_since, limit=min(limit, 100) if page.detailed else limit,
            cursor=page.inner or None, fields=page.detailed,
        )  # fmt: skip
        return render.patterns(reply, page, f"patterns of {topic}")

    async def timeline(
        self,
        q: Q = "",
        topics: Topics = None,
        since: Since = None,
        until: Until = None,
        buckets: Annotated[int, Field(ge=1, le=200)] = 24,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Count matching records over time (words and filters, not meaning): when did it start, is it over? Next: search or
        patterns within one bucket."""
        page = self._page(cursor, response_format, max_tokens)
        reply = await self._verbs.timeline(q, topics=topics, since=since, until=until, buckets=buckets)
        return render_watch.timeline(reply, page)

    async def watch(
        self,
        q: Q = "",
        like: Annotated[str | None, Field(max_length=200, description="address of a record")] = None,
        topics: Topics = None,
        min_score: Score = None,
        more_than: Annotated[int | None, Field(ge=1, description="records, within")] = None,
        within: Annotated[str | None, BeforeValidator(_as_text), Field(max_length=40, description="such as 10m")] = None,
        ttl: Annotated[str, BeforeValidator(_as_text), Field(max_length=40)] = "24h",
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Be told when something happens from now on: give q (words, meaning, filters), or like to catch a record's recurrence.
        Returns an id for `wait`. Ends after ttl. Without q and like: lists the watches."""
        page = self._page(cursor, response_format, max_tokens)
        if not q.strip() and like is None:
            return render_watch.watches(await self._verbs.watches(), page)
        made = await self._verbs.add_watch(
            q, like=like, topics=topics, min_score=min_score, more_than=more_than, within=within, ttl=_ttl_s(ttl),
            owner=self._owner,
        )  # fmt: skip
        return render_watch.made(made)

    async def wait(
        self,
        id: Annotated[str, BeforeValidator(_as_text), Field(max_length=100, description="of a watch")],
        cursor: Annotated[str | None, BeforeValidator(_as_text), Field(max_length=20)] = None,
        timeout: Annotated[float, Field(ge=0, le=25, description="seconds")] = 25,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Sleep until a watch fires, then show what and why; on timeout call again. Always pass the last reply's next_cursor:
        nothing is missed between calls."""
        page = self._page(None, response_format, max_tokens)
        return render_watch.woken(await self._verbs.wait(id, cursor=cursor, timeout=timeout), page)

    async def ask(
        self,
        question: Annotated[str, Field(max_length=4000)],
        topics: Topics = None,
        since: Since = None,
        until: Until = None,
        top_k: TopK = 12,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Answer a question from the records, each sentence with citations [n] checked against the records' text, or say that
        support is too weak. Next: read a cited address."""
        page = self._page(cursor, response_format, max_tokens)
        answer = await self._verbs.ask(question, topics=topics, since=since, until=until, top_k=top_k)
        return render.ask(answer, page)

    async def status(self, cursor: Cursor = None, response_format: Format = "concise", max_tokens: MaxTokens = 6000) -> str:
        """Readiness, sources, problems. Call it when results look incomplete or a tool fails."""
        return render.status(await self._verbs.status(), self._page(cursor, response_format, max_tokens))

    async def anomalies(
        self,
        topics: Topics = None,
        since: Since = None,
        until: Until = None,
        severity: Annotated[Severity | None, Field(description="at least")] = None,
        quiet: Annotated[bool, Field(description="also those that did not alert")] = False,
        limit: Limit = 20,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """What detectors found odd: bursts, silences, new messages, drift, odd numbers; newest first, with the records that
        show it. Call it early in an incident. Next: read an address, or patterns."""
        page = self._page(cursor, response_format, max_tokens)
        reply = await self._verbs.anomalies(
            topics, since=since, until=until, severity=severity, quiet=quiet, limit=limit, cursor=page.inner or None
        )
        return render_found.anomalies(reply, page)

    async def classify(
        self,
        labels: Annotated[list[str] | dict[str, str], Field(description="names, or {name: meaning}")],
        texts: Annotated[list[str] | None, Field(max_length=200, description="these; else records of topics")] = None,
        topics: Topics = None,
        q: Q = "",
        since: Since = None,
        until: Until = None,
        cursor: Cursor = None,
        response_format: Format = "concise",
        max_tokens: MaxTokens = 6000,
    ) -> str:
        """Sort texts, or all records of topics, into labels you name: how many complaints are about billing? Gives each
        text's label and confidence, or for topics counts."""
        page = self._page(cursor, response_format, max_tokens)
        reply = await self._verbs.classify(
            texts, labels=labels, topics=topics, q=q, since=since, until=until, limit=_MOST_CLASSIFIED
        )
        return render_found.classified(reply, texts or (), page)

    async def append(
        self,
        ctx: Call[Any, Any],
        records: Annotated[
            list[str | dict[str, Any]],
            Field(min_length=1, max_length=1000, description="texts, or {value, key, timestamp, attributes}"),
        ],
        topic: Annotated[str | None, Field(max_length=100, description="default: your notes")] = None,
        idempotency_key: Annotated[str | None, Field(max_length=200, description="for retries")] = None,
        wait: Literal["stored", "searchable"] = "stored",
    ) -> str:
        """Remember: store records in a topic (created if new), such as findings with the addresses they rest on,
        signed with the attribute agent. search finds them, with wait=searchable at once. Returns addresses."""
        agent = noting.client_of(ctx) or "unknown"
        signed = [_signed(record, agent) for record in records]
        made = await self._verbs.append(topic or self._notes, signed, idempotency_key=idempotency_key, wait=wait)
        return render.appended(made)

    async def enrich(
        self,
        name: Annotated[str, Field(max_length=100)],
        labels: Annotated[list[str] | dict[str, str], Field(min_length=2, description="names, or {name: meaning}")],
        topics: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)],
        output: Annotated[str | None, Field(max_length=100, description="topic; default TOPIC.NAME")] = None,
    ) -> str:
        """Label every record of topics from now on, and those stored before: a pipeline that writes each record with its label
        into another topic. Try the labels with classify first. By embeddings alone; no chat model is paid."""
        into = output or f"{topics[0]}.{name}"
        step = {"classify": {"labels": labels, "method": "zero-shot"}}
        made = await self._verbs.create_pipeline(name, {"topics": topics, "output": into, "steps": [step]})
        return render_found.enriching(made)

    async def ingest(
        self,
        path: Annotated[str, Field(max_length=1000, description="a file or folder below an allowed one")],
        topic: TopicName,
    ) -> str:
        """Load a log, a document or a folder of them into a topic, and follow what is added to it."""
        found = _below(path, self._roots)
        told = await self._verbs.add_source(path=str(found), topic=topic)
        return render_found.ingesting(told)

    def _page(self, cursor: str | None, response_format: render.Format, max_tokens: int) -> Page:
        """How to reply. Raises UsageError for a cursor that no tool gave."""
        if not cursor:
            return Page(max_tokens, response_format, redact=self._redact)
        if (parts := _CURSOR.fullmatch(cursor)) is None:
            raise UsageError("cursor is not one a reply gave; pass next_cursor as it stands, or leave cursor out to start anew")
        return Page(max_tokens, response_format, int(parts[1]), parts[2], self._redact)


def tools(
    verbs: Verbs, *, allow_write: bool, redact: Callable[[str], str] = render.as_is, notes: str = "notes",
    roots: Sequence[Path] = (),
) -> list[Tool]:  # fmt: skip
    """The tools to serve: those that write only where writing is allowed, `ingest` only where there are `roots`, too."""
    made = Tools(verbs, redact, notes, roots)
    reading: Sequence[Callable[..., Awaitable[str]]] = (
        made.topics, made.search, made.read, made.similar, made.patterns, made.timeline, made.ask, made.anomalies,
        made.classify, made.wait, made.status,
    )  # fmt: skip
    read_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    adding = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    found = [_tool(function, read_only) for function in reading]
    found.insert(-2, _tool(made.watch, adding))  # it keeps a question for a while, and changes no data
    writing: Sequence[Callable[..., Awaitable[str]]] = (made.append, made.enrich, *((made.ingest,) if roots else ()))
    return [*found, *(_tool(function, adding) for function in writing)] if allow_write else found


def _tool(function: Callable[..., Awaitable[str]], annotations: ToolAnnotations) -> Tool:
    description = " ".join((function.__doc__ or "").split())
    tool = Tool.from_function(function, description=description, annotations=annotations, structured_output=False)
    tool.parameters = _slim(tool.parameters, _TOLD_ONCE if tool.name != "search" else ())
    return tool


def _slim(schema: dict[str, Any], told: Sequence[str]) -> dict[str, Any]:
    """The schema without what costs tokens and tells a model little: titles, bounds no one meets, numbers as defaults, null
    as an alternative, and what another tool has `told` of a parameter."""
    properties = {}
    for name, entry in schema.get("properties", {}).items():
        options = [option for option in entry.get("anyOf", ()) if option.get("type") != "null"]
        if len(options) == 1:
            entry = {**options[0], **{key: value for key, value in entry.items() if key != "anyOf"}}
        if name == "response_format" and told:
            entry = {"type": "string"}
        unsaid = {*_UNSAID, *(("type",) if "enum" in entry else ()), *(("description",) if name in told else ())}
        if name in _EVERYWHERE or not isinstance(entry.get("default"), str) or not entry["default"]:
            unsaid.add("default")
        properties[name] = {key: value for key, value in entry.items() if key not in unsaid}
    slim = {key: value for key, value in schema.items() if key not in ("title", "properties")}
    return {**slim, "properties": properties}


def _below(path: str, roots: Sequence[Path]) -> Path:
    """The place a path leads to, links followed, where that is below an allowed folder, and neither it nor a folder on the way
    is hidden. Raises UsageError, which says no more of places outside than of those that are not there."""
    for root in (allowed.expanduser().resolve() for allowed in roots):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # what is no path, a link to itself, nobody's home
            found = (root / Path(path).expanduser()).resolve()
            inside = found.is_relative_to(root) and not any(part.startswith(".") for part in found.relative_to(root).parts)
            if inside and (found.is_file() or found.is_dir()):
                return found
    raise UsageError("there is no such file or folder below those that may be read: " + ", ".join(map(str, roots)))


def _ttl_s(ttl: str) -> float:
    """How long a watch lives: an agent may be gone tomorrow, and nobody else will think of removing it. Raises UsageError."""
    try:
        seconds = duration_s(ttl)
    except ConfigError as error:
        raise UsageError("ttl is a time, such as 30m, 24h or 7d") from error
    if not 0 < seconds <= _LONGEST_WATCH_S:
        raise UsageError(f"ttl is at most {_LONGEST_WATCH_S // 86_400:.0f}d; make the watch anew when it has ended")
    return seconds


def _signed(record: str | dict[str, Any], agent: str) -> dict[str, Any]:
    """A record that says which agent wrote it; it cannot say that another did."""
    whole = {"value": record} if isinstance(record, str) else dict(record)
    attributes = whole.get("attributes")
    return {**whole, "attributes": {**(attributes if isinstance(attributes, dict) else {}), "agent": agent}}


def _place(address: str | None, topic: str | None, partition: int, offset: int | None) -> tuple[str, int, int]:
    """The record that is meant. Raises UsageError where none, or two different ones, are."""
    given = None if topic is None or offset is None else (topic, partition, offset)
    if address is None:
        if given is None:
            raise UsageError("say which record: address=logs/0/42, or topic and offset")
        return given
    found = parse_address(address)
    if given not in (None, found) or (given is None and (topic not in (None, found[0]) or offset not in (None, found[2]))):
        raise UsageError("address and topic, partition, offset name different records; give the address alone")
    return found
