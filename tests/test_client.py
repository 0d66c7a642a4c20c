"""The client over HTTP: broken connections, errors carried across, streams that go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import free_port
from headwater import errors, wire
from headwater.api import problems
from headwater.client import Client
from headwater.client.events import EventReader
from headwater.config import SecretStr
from headwater.records import Answer, Citation, Coverage, Hit, Passage, SearchReply, Span, Watermark, from_ms
from serving import serving, settings_in


@dataclass
class Breaking(httpx.AsyncBaseTransport):
    """A real connection that breaks: `after` lets the request through and loses its reply; a stream is cut in the middle
    of a piece. Each of the next `times` requests breaks."""

    times: int = 1
    requests: list[httpx.Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._real = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = await self._real.handle_async_request(request)
        if self.times <= 0:
            return reply
        self.times -= 1
        if reply.headers["content-type"].startswith("text/event-stream"):
            assert isinstance(reply.stream, httpx.AsyncByteStream)
            return httpx.Response(reply.status_code, headers=reply.headers, stream=_Cut(reply.stream))
        await reply.aread()
        raise httpx.ReadError("the connection broke", request=request)

    async def aclose(self) -> None:
        await self._real.aclose()


class _Cut(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            if b"data:" in piece:
                yield piece[: len(piece) * 2 // 3]
                raise httpx.ReadError("the connection broke")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


def test_an_append_whose_reply_is_lost_is_sent_again_and_stored_once(tmp_path: Path) -> None:
    async def check(url: str) -> None:
        transport = Breaking(times=3)
        async with Client(url, transport=transport, pause=_at_once) as hw:
            done = await hw.append("t", ["one", "two"])
            assert [r.duplicate for r in done.records] == [True, True]
            assert len({r.headers["idempotency-key"] for r in transport.requests}) == 1
            assert [r.value for r in (await hw.records("t")).records] == ["one", "two"]
            await hw.append("t", ["one", "two"])
            assert (await hw.topic("t")).records == 4

    with serving(settings_in(tmp_path)) as url:
        asyncio.run(check(url))


def test_what_must_not_be_done_twice_is_not_sent_twice(tmp_path: Path) -> None:
    async def check(url: str) -> None:
        transport = Breaking(times=1)
        async with Client(url, transport=transport, pause=_at_once) as hw:
            with pytest.raises(errors.UnreachableError):
                await hw.create_topic("t")
            assert len(transport.requests) == 1

    with serving(settings_in(tmp_path)) as url:
        asyncio.run(check(url))


def test_a_tail_goes_on_over_broken_connections_without_loss_or_repeat(tmp_path: Path) -> None:
    async def check(url: str) -> None:
        transport = Breaking(times=0)
        async with Client(url, transport=transport, pause=_at_once) as hw:
            await hw.append("t", [str(n) for n in range(50)], idempotency_key="a")
            transport.times = 4
            found = []
            async for record in hw.tail("t", from_start=True):
                found.append(record.value)
                if len(found) == 50:
                    break
            assert found == [str(n) for n in range(50)]
            resumed = [r.headers.get("last-event-id") for r in transport.requests if r.url.path.endswith("/tail")]
            assert resumed[0] is None
            assert len([place for place in resumed if place]) >= 3

    with serving(settings_in(tmp_path)) as url:
        asyncio.run(check(url))


def test_a_rate_limit_is_waited_out(tmp_path: Path) -> None:
    waits: list[float] = []

    async def pause(wait_s: float) -> None:
        waits.append(wait_s)
        await asyncio.sleep(wait_s / 2)

    async def check(url: str) -> None:
        async with Client(url, pause=pause) as hw:
            async with asyncio.timeout(240):
                while not waits:  # a machine so slow that none came too soon
                    await asyncio.gather(*(hw.dead_letters() for _ in range(8)))

    with serving(settings_in(tmp_path, requests_per_s=5.0)) as url:
        asyncio.run(check(url))
    assert waits
    assert set(waits) == {1.0}


def test_nobody_there_is_said_with_what_to_do() -> None:
    async def check() -> None:
        async with Client("http://127.0.0.1:9", pause=_at_once) as hw:
            with pytest.raises(errors.UnreachableError, match="headwater up"):
                await hw.status()
            with pytest.raises(errors.UnreachableError):
                async for _ in hw.tail("t"):
                    pass

    asyncio.run(check())
    with pytest.raises(errors.ConfigError, match="not the URL"):
        Client("ftp://x")


def test_a_wrong_token_is_refused_and_never_shown(tmp_path: Path) -> None:
    async def check(url: str) -> None:
        async with Client(url, "wr0ng") as hw:
            with pytest.raises(errors.AuthError) as caught:
                await hw.topics()
            assert "wr0ng" not in str(caught.value) + repr(caught.value)
        async with Client(url, "right") as hw:
            assert await hw.topics() == []

    with serving(settings_in(tmp_path, api_key=SecretStr("right"))) as url:
        asyncio.run(check(url))


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("u"),
        errors.QueryError("bad time", query="since:x", position=6, expected="a time"),
        errors.ConfigError("c"),
        errors.ConflictError("taken"),
        errors.NotFoundError("n"),
        errors.UnreachableError("r"),
        errors.EmbedError("e", retry_after_s=3.0),
        errors.ModelError("m", retry_after_s=4.0),
        errors.AuthError("a"),
        errors.LimitError("too fast", retry_after_s=2.0),
        errors.LimitError("too large"),
        errors.WaitTimeout("w"),
        errors.StorageError("full"),
        errors.DamageError("d"),
        errors.OwnedError("o"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_error_crosses_the_wire_as_it_was(error: errors.HeadwaterError) -> None:
    reply = problems.of(error)
    back = wire.error_of(wire.parse_json(bytes(reply.body)), reply.status_code)
    assert (type(back), str(back)) == (type(error), str(error))
    for name in ("position", "query", "expected", "retry_after_s"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_values_cross_the_wire_as_they_were() -> None:
    at = from_ms(1_772_373_900_123)
    passage = Passage(7, "disk <*> full", 3, 9, at, from_ms(-1))
    full = Hit("t/0/1", "t", 0, 1, at, None, "é\u202e\x00", {"a": 1, "b": True}, 0.5, {"keyword": 1.0}, None, passage)
    chunk = Hit("t/0/2", "t", 0, 2, at, "k", "v", {}, 0.1, {}, 0.2, passage, Span(0, 1), (1.0, 0.0))
    coverage = Coverage({"t": Watermark(3, 2, 1)}, 2, ("t",), at, None, 3, 0, False, None, ("a note",))
    reply = SearchReply((full, chunk), coverage, {"ms": 1.5})
    assert wire.decode(SearchReply, wire.encode(reply)) == reply
    answer = Answer(
        "i", "q", "t [1]", (Citation(1, "t/0/1", "q", 0, 1, True),), (), False, 0.5, coverage, "m", {"n": 1}, {"s": 0.1}
    )
    assert wire.decode(Answer, wire.encode(answer)) == answer
    with pytest.raises(errors.UsageError, match="not of this version"):
        wire.decode(SearchReply, b'{"hits": 3}')


@given(st.data())
def test_events_are_the_same_however_the_bytes_are_cut(data: st.DataObject) -> None:
    wanted = [EventReader.Event("message", b'{"n":1}', "0:1"), EventReader.Event("done", b"x\ny", None)]
    stream = b': hello\r\n\r\nid: 0:1\r\ndata: {"n":1}\r\n\r\n: beat\n\nevent: done\ndata: x\ndata: y\n\nid: half'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = EventReader()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [event for piece in pieces for event in reader.feed(piece)] == wanted


def test_a_closed_client_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        with serving(settings_in(tmp_path)) as url:
            client = Client(url)
            await client.topics()
            await client.aclose()
            with pytest.raises(errors.UsageError, match="closed"):
                await client.topics()
            with pytest.raises(errors.UsageError, match="closed"):
                async for _ in client.tail("t"):
                    pass

    asyncio.run(main())


def test_a_stream_that_had_begun_waits_for_a_daemon_that_starts_again_and_one_to_nobody_ends_soon(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def main() -> None:
        stop = contextlib.ExitStack()
        with stop:
            settings = settings_in(tmp_path, port=free_port())
            at = stop.enter_context(serving(settings))

            async def pause(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 5:  # longer than any single call is repeated
                    stop.enter_context(serving(settings))

            async with Client(at, pause=pause) as client:
                await client.append("t", ["before"])
                tail = client.tail("t", from_start=True)
                assert (await anext(tail)).value == "before"
                await asyncio.to_thread(stop.close)
                coming = asyncio.ensure_future(anext(tail))
                while len(pauses) < 5:
                    await asyncio.sleep(0.01)
                async with Client(at) as other:
                    await other.append("t", ["after"])
                assert (await coming).value == "after"
            pauses.clear()
        async with Client("http://127.0.0.1:9", pause=pause) as nobody:
            with pytest.raises(errors.UnreachableError):
                await anext(nobody.tail("t"))
        assert len(pauses) == 3

    asyncio.run(main())
