"""What can be read by its URI: topics, records, watches. The text is that of the tools: fenced, within a budget."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import Annotations, Resource

from headwater.errors import HeadwaterError, NotFoundError, UsageError
from headwater.records import parse_address
from headwater.verbs import Verbs
from headwater_mcp import render, render_found, render_watch
from headwater_mcp.render import Page, as_is
from headwater_mcp.wording import explained

TOPICS = "headwater://topics"
_TOKENS = 6000
_RECORD_TOKENS = 20_000
_PATTERNS = 30
_LISTED = 200
_ALL = "Every topic with counts, time range and indexing lag."


def topic_uri(name: str) -> str:
    return f"{TOPICS}/{name}"


def watch_uri(id: int | str) -> str:
    return f"headwater://watches/{id}"


def anomalies_uri(topic: str) -> str:
    return f"headwater://anomalies/{topic}"


class Resources:
    """The resources over one set of verbs."""

    def __init__(self, verbs: Verbs, redact: Callable[[str], str] = as_is) -> None:
        self._verbs, self._redact = verbs, redact

    def install(self, server: MCPServer[None]) -> None:
        """Serve them. Their list is `listed`: it changes while the server runs."""
        add = partial(server.resource, mime_type="text/plain", annotations=Annotations(audience=["assistant", "user"]))
        add(TOPICS, name="topics", title="Topics", description=_ALL)(self.topics)
        about = "A topic: its settings and most frequent patterns."
        add(TOPICS + "/{topic}", name="topic", title="A topic", description=about)(self.topic)
        add(
            "headwater://records/{topic}/{partition}/{offset}", name="record", title="A record",
            description="One record in full; tools give such addresses as topic/partition/offset.",
        )(self.record)  # fmt: skip
        add(
            "headwater://watches/{id}", name="watch", title="A watch",
            description="A watch and its latest hits. Subscribe to be told when it fires, instead of calling `wait`.",
        )(self.watch)  # fmt: skip

        add(
            "headwater://anomalies/{topic}", name="anomalies", title="Anomalies of a topic",
            description="What detectors found odd in a topic, newest first. Subscribe to be told of new ones.",
        )(self.anomalies)  # fmt: skip

    async def listed(self) -> list[Resource]:
        """The list of topics, each topic, and each watch; a daemon that cannot be reached leaves the first alone."""
        found = [_resource(TOPICS, "topics", "Topics", _ALL)]
        try:
            topics, watches = await self._verbs.topics(), await self._verbs.watches()
        except HeadwaterError:
            return found
        found += [_resource(topic_uri(t.name), t.name, f"Topic {t.name}", f"{t.records} records") for t in topics[:_LISTED]]
        with contextlib.suppress(HeadwaterError):
            found += [
                _resource(anomalies_uri(d.topic), f"anomalies of {d.topic}", f"Anomalies of {d.topic}", f"{d.alerted} alerts")
                for d in (await self._verbs.detecting())[:_LISTED]
            ]
        return found + [
            _resource(watch_uri(w.id), f"watch {w.name}", f"Watch {w.name}", "Its latest hits") for w in watches[:_LISTED]
        ]

    async def topics(self) -> str:
        """Every topic."""
        return await self._told(self._topics)

    async def topic(self, topic: str) -> str:
        """One topic and its most frequent patterns."""
        return await self._told(partial(self._topic, topic))

    async def record(self, topic: str, partition: str, offset: str) -> str:
        """One record in full."""
        return await self._told(partial(self._record, f"{topic}/{partition}/{offset}"))

    async def watch(self, id: str) -> str:
        """A watch and its latest hits."""
        return await self._told(partial(self._watch, id))

    async def anomalies(self, topic: str) -> str:
        """What was odd in a topic."""
        return await self._told(partial(self._anomalies, topic))

    async def _anomalies(self, topic: str) -> str:
        reply = await self._verbs.anomalies([topic])
        return render_found.anomalies(reply, Page(_TOKENS, redact=self._redact))

    async def _topics(self) -> str:
        return render.topics(await self._verbs.topics(), Page(_TOKENS, "detailed", redact=self._redact))

    async def _topic(self, name: str) -> str:
        topic = await self._verbs.topic(name)
        frequent = await self._verbs.patterns(name, limit=_PATTERNS)
        head = render.topics([topic], Page(_TOKENS, "detailed", redact=self._redact))
        return f"{head}\n{render.patterns(frequent, Page(_TOKENS, redact=self._redact), f'most frequent patterns of {name}')}"

    async def _record(self, address: str) -> str:
        name, partition, offset = parse_address(address)
        view = await self._verbs.read(f"{name}/{partition}/{offset}")
        return render.read(view, Page(_RECORD_TOKENS, "detailed", redact=self._redact), 0)

    async def _watch(self, id: str) -> str:
        watch = await self._verbs.watch(id)
        head = render_watch.watches([watch], Page(_TOKENS, redact=self._redact))
        after = max(0, watch.fired - 20)
        told = await self._verbs.wait(watch.id, cursor=str(after), timeout=0)
        return f"{head}\n{render_watch.woken(told, Page(_TOKENS, redact=self._redact))}"

    async def _told(self, read: Callable[[], Awaitable[str]]) -> str:
        try:
            return await read()
        except (NotFoundError, UsageError) as error:
            raise ResourceNotFoundError(await explained(error, self._verbs)) from error
        except HeadwaterError as error:
            raise ResourceError(await explained(error, self._verbs)) from error


def _resource(uri: str, name: str, title: str, description: str) -> Resource:
    return Resource(uri=uri, name=name, title=title, description=description, mime_type="text/plain")
