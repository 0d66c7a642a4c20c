"""Webhooks as they are sent: at least once, again after faults, given up at last, to allowed addresses alone."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

import headwater
from headwater.blocking import Headwater
from headwater.cli.app import app
from headwater.engine import Engine
from headwater.errors import ConflictError, NotFoundError, UsageError
from headwater.log import webhooks as store
from headwater.log.store import Log
from headwater.log.webhooks import CallRow
from headwater.webhooks import calling, signing
from headwater.webhooks.running import FIRST_S, LONGEST_S, Calling
from receiver import Got, Receiver, receiving
from serving import eventually, live_and_die, serving, settings_in

KEY = bytes(range(32))
SECRET = signing.secret_of(KEY)
WORKER = Path(__file__).parent / "webhook_worker.py"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


# ---------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "172.16.9.9", "100.64.0.1", "0.0.0.0", "[::1]", "[fd12::1]",
             "[::ffff:10.0.0.1]", "224.0.0.1"],
)  # fmt: skip
def test_private_addresses_are_refused_unless_they_are_allowed(host: str) -> None:
    with pytest.raises(UsageError, match="allow_private"):
        calling.check_url(f"http://{host}/x", allow_private=False)
    calling.check_url(f"http://{host}/x", allow_private=True)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "metadata.google.internal", "2852039166", "[fd00:ec2::254]"])
def test_link_local_and_metadata_addresses_are_refused_always(host: str) -> None:
    for allowed in (False, True):
        with pytest.raises(UsageError, match="link-local"):
            calling.check_url(f"http://{host}/x", allow_private=allowed)


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com", "https://a:b@example.com/", "http://", "http://x:99999/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="url"):
        calling.check_url(url, allow_private=True)


def test_a_name_that_points_to_a_private_address_is_refused_when_it_is_called(receiver: Receiver) -> None:
    async def resolved(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    done = asyncio.run(calling.call(url, {}, b"{}", allow_private=False, resolve=resolved))
    assert (done.status, done.left) == (None, False)
    assert receiver.got == []
    done = asyncio.run(calling.call(url, {}, b"{}", allow_private=True, resolve=resolved))
    assert done.ok
    assert receiver.got[0].headers["host"] == url.split("/")[2]


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answers.append((307, {"location": "http://169.254.169.254/"}))
    done = asyncio.run(calling.call(receiver.url, {}, b"{}", allow_private=True))
    assert (done.ok, done.busy, done.status) == (False, False, 307)
    assert len(receiver.got) == 1


def test_a_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert calling.retry_after_s("120") == 120
    assert calling.retry_after_s("9999999999") == 86_400
    assert calling.retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT") == 86_400
    assert calling.retry_after_s("Thu, 01 Jan 2015 00:00:00 GMT") == 0
    assert calling.retry_after_s("soon") is None


# ---------------------------------------------------------------------- tries


class Desk:
    """A log with one webhook, and a clock that is set by hand."""

    def __init__(self, log: Log, receiver: Receiver, tries: int = 5) -> None:
        self.log, self.now_ms = log, 1_700_000_000_000
        self.hook = log.write(
            lambda db: store.create(db, "pager", receiver.url, "WEBHOOK_SECRET", True, tries, 0, [("watch", 0)])
        )
        self.environment = {"WEBHOOK_SECRET": SECRET}
        self.calling = Calling(
            log, lambda call: {"hit": f"{call.of}-{call.at}"}, bells=lambda: (), environment=self.environment,
            clock_ms=lambda: self.now_ms, rng=random.Random(1),
        )  # fmt: skip

    def fire(self, *numbers: int, watch: int = 1) -> None:
        hits = [(watch, n, 1, "t/0/1", "words", 1.0, None, self.now_ms) for n in numbers]
        self.log.write(lambda db: db.executemany("INSERT INTO watch_hit VALUES(?,?,?,?,?,?,?,?)", hits))
        self.calling.wake()

    def later(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self.calling.wake()

    def calls(self) -> list[CallRow]:
        return store.calls(self.log, self.hook, 100)

    @property
    def row(self) -> store.Hook:
        return store.read(self.log)[0]


@asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[None]:
    task = asyncio.create_task(desk.calling.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(240):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def desk(tmp_path: Path, receiver: Receiver) -> Iterator[Desk]:
    with Log(tmp_path, clock_ms=lambda: 0) as log:
        yield Desk(log, receiver)


def test_calls_come_in_order_each_with_its_own_id_and_a_signature(desk: Desk, receiver: Receiver) -> None:
    async def play() -> None:
        async with running(desk):
            desk.fire(1, 2, 3)
            await until(lambda: desk.row.sent == 3)

    asyncio.run(play())
    assert [got.plain["data"]["hit"] for got in receiver.got] == ["1-1", "1-2", "1-3"]
    assert len(set(receiver.ids())) == 3
    for got in receiver.got:
        signing.verify([KEY], got.headers, got.body, now_s=desk.now_ms / 1000)
        assert (got.plain["type"], got.headers["content-type"]) == ("watch.hit", "application/json")
    assert desk.calls() == []


@pytest.mark.parametrize("fault", [500, 503, 429, 408, 0])
def test_a_receiver_that_is_not_there_is_left_alone_and_then_gets_the_same_call(
    desk: Desk, receiver: Receiver, fault: int
) -> None:
    async def play() -> None:
        receiver.answers += [(fault, {}), (fault, {})]
        async with running(desk):
            desk.fire(1, 2)
            await until(lambda: desk.row.failures == 1)
            assert FIRST_S * 0.79 < (desk.row.wait_ms - desk.now_ms) / 1000 < FIRST_S * 1.21
            desk.later(FIRST_S * 1.3)
            await until(lambda: desk.row.failures == 2)
            assert (desk.row.wait_ms - desk.now_ms) / 1000 > FIRST_S * 2.3  # longer each time
            assert [call.tries for call in desk.calls()] == [2, 0]  # the second was not even tried
            assert desk.row.error is not None
            desk.later(LONGEST_S)
            await until(lambda: desk.row.sent == 2)

    asyncio.run(play())
    first, again, third, second = receiver.ids()
    assert first == again == third != second
    assert (desk.row.failures, desk.row.wait_ms, desk.row.error) == (0, 0, None)


def test_what_the_receiver_asks_to_wait_is_waited(desk: Desk, receiver: Receiver) -> None:
    async def play() -> None:
        receiver.answers.append((429, {"retry-after": "1234"}))
        async with running(desk):
            desk.fire(1)
            await until(lambda: desk.row.failures == 1)
        assert desk.row.wait_ms - desk.now_ms == 1_234_000

    asyncio.run(play())


def test_a_call_that_is_refused_comes_again_later_and_the_others_meanwhile(desk: Desk, receiver: Receiver) -> None:
    async def play() -> None:
        receiver.answers.append((422, {}))
        async with running(desk):
            desk.fire(1, 2, 3)
            await until(lambda: desk.row.sent == 2)
            (left,) = desk.calls()
            assert (left.at, left.tries, left.error) == (1, 1, "it answered 422")
            desk.later(LONGEST_S)
            await until(lambda: desk.row.sent == 3)

    asyncio.run(play())
    assert receiver.ids()[0] == receiver.ids()[-1]


def test_a_call_is_given_up_after_its_tries_and_resumed_by_hand(desk: Desk, receiver: Receiver) -> None:
    async def play() -> None:
        receiver.answers += [(500, {})] * 5
        async with running(desk):
            desk.fire(1)
            for tries in range(1, 6):
                await until(lambda tries=tries: desk.calls()[0].tries == tries)  # type: ignore[misc]  # a lambda's default
                desk.later(2 * LONGEST_S)
            assert desk.calls()[0].due_ms is None
            assert store.counts(desk.log)[desk.hook] == (0, 1)
            desk.fire(2)
            await until(lambda: desk.row.sent == 1)  # nothing waits for it
            desk.log.write(lambda db: store.resume(db, desk.hook))
            desk.calling.wake()
            await until(lambda: desk.row.sent == 2)

    asyncio.run(play())
    ids = receiver.ids()
    assert len(ids) == 7
    assert ids[:5] == [ids[0]] * 5
    assert ids[6] == ids[0]


def test_a_receiver_that_wants_no_more_is_paused(desk: Desk, receiver: Receiver) -> None:
    async def play() -> None:
        receiver.answers.append((410, {}))
        async with running(desk):
            desk.fire(1)
            await until(lambda: desk.row.paused is not None)
            desk.fire(2)
            desk.later(2 * LONGEST_S)
            await asyncio.sleep(0.05)

    asyncio.run(play())
    assert len(receiver.got) == 1
    assert len(desk.calls()) == 2


def test_a_secret_that_is_gone_holds_calls_up_and_costs_no_tries(desk: Desk, receiver: Receiver) -> None:
    async def play() -> None:
        del desk.environment["WEBHOOK_SECRET"]
        async with running(desk):
            desk.fire(1)
            await until(lambda: desk.row.error is not None)
            assert "WEBHOOK_SECRET is not set" in str(desk.row.error)
            assert [call.tries for call in desk.calls()] == [0]
            desk.environment["WEBHOOK_SECRET"] = SECRET
            desk.later(60)
            await until(lambda: desk.row.sent == 1)

    asyncio.run(play())
    assert len(receiver.got) == 1


def test_a_call_that_cannot_be_read_holds_up_nobody_else(
    desk: Desk, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def about(call: CallRow) -> dict[str, str] | None:
        if call.at == 1 and not receiver.got:
            raise KeyError("a record that nobody foresaw")
        return {"hit": str(call.at)}

    async def play() -> None:
        desk.calling = Calling(
            desk.log, about, bells=lambda: (), environment=desk.environment, clock_ms=lambda: desk.now_ms, rng=random.Random(1)
        )
        other = desk.log.write(lambda db: store.create(db, "other", receiver.url, "WEBHOOK_SECRET", True, 5, 0, [("watch", 2)]))
        async with running(desk):
            desk.fire(1)
            desk.fire(7, watch=2)
            await until(lambda: len(receiver.got) == 3)  # the other's, and then both of this one
            await until(lambda: other not in store.due(desk.log))  # its call has been written down as sent
        assert receiver.got[0].plain["data"]["hit"] == "7"

    asyncio.run(play())
    assert "nobody foresaw" in caplog.text


def test_the_outbox_is_bounded_and_says_what_it_dropped(desk: Desk) -> None:
    desk.fire(*range(1, 10_031))
    assert store.counts(desk.log)[desk.hook] == (10_000, 0)
    assert desk.row.dropped == 30
    assert desk.calls()[0].at == 31


# ---------------------------------------------------------------------- verbs


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def test_a_webhook_is_made_listed_tested_paused_resumed_and_removed(hw: Headwater, receiver: Receiver) -> None:
    hw.create_topic("logs", passages="exact")
    watch = hw.add_watch("refused", name="refusals", topics=["logs"])
    made = hw.add_webhook(receiver.url, name="pager", alerts=["logs"], watches=["refusals"], allow_private=True, tries=3)
    assert (made.state, made.alerts, made.watches, made.secret, made.tries) == (
        "ready",
        ("logs",),
        ("refusals",),
        "WEBHOOK_SECRET",
        3,
    )
    assert hw.add_webhook(receiver.url, alerts=["*"], watches=["*"], allow_private=True).alerts == ("*",)
    assert [w.name for w in hw.webhooks()] == ["pager", "webhook2"]
    done = hw.test_webhook("pager")
    assert (done.ok, done.status) == (True, 200)
    (got,) = receiver.got
    signing.verify([KEY], got.headers, got.body, now_s=time.time())
    assert got.plain["type"] == "test"
    receiver.answers.append((500, {}))
    assert (hw.test_webhook(made.id).ok, hw.test_webhook(made.id).ok) == (False, True)
    hw.append("logs", ["the ledger refused a booking"])
    eventually(lambda: hw.webhook("pager").waiting == 1)  # nobody calls webhooks here: a daemon does
    (call,) = hw.webhook("pager").calls
    assert (call.kind, call.about, call.state, call.tries) == ("watch", f"{watch.id}-1", "waiting", 0)
    eventually(lambda: hw.webhook("webhook2").waiting == 1)
    counted = {"ready": 2, "failing": 0, "paused": 0, "sent": 0, "waiting": 2, "given up": 0, "dropped": 0}
    assert hw.status().webhooks == counted
    assert hw.pause_webhook("pager").state == "paused"
    assert hw.status().webhooks == {**counted, "ready": 1, "paused": 1}
    assert hw.resume_webhook("pager").state == "ready"
    hw.remove_watch("refusals")
    assert (hw.webhook("pager").waiting, hw.webhook("pager").watches) == (0, ())
    hw.remove_webhook("pager")
    with pytest.raises(NotFoundError, match="webhook list"):
        hw.webhook("pager")


def test_what_is_wrong_with_a_webhook_is_said_and_nothing_is_kept(
    hw: Headwater, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hw.create_topic("logs")
    with pytest.raises(UsageError, match="say what"):
        hw.add_webhook(receiver.url, allow_private=True)
    with pytest.raises(UsageError, match="allow-private"):
        hw.add_webhook(receiver.url, alerts=["logs"])
    with pytest.raises(NotFoundError):
        hw.add_webhook(receiver.url, alerts=["nothing"], allow_private=True)
    with pytest.raises(NotFoundError):
        hw.add_webhook(receiver.url, watches=["nothing"], allow_private=True)
    with pytest.raises(UsageError, match="tries"):
        hw.add_webhook(receiver.url, alerts=["logs"], allow_private=True, tries=0)
    with pytest.raises(UsageError, match="WEBHOOK_OTHER"):
        hw.add_webhook(receiver.url, alerts=["logs"], allow_private=True, secret="WEBHOOK_OTHER")
    assert hw.webhooks() == []
    hw.add_webhook(receiver.url, name="a", alerts=["logs"], allow_private=True)
    with pytest.raises(ConflictError):
        hw.add_webhook(receiver.url, name="a", alerts=["logs"], allow_private=True)


# ---------------------------------------------------------------------- the whole way


def test_an_alert_and_a_hit_arrive_as_the_api_tells_them(tmp_path: Path, receiver: Receiver) -> None:
    from detect_worker import batches

    async def play() -> tuple[list[Got], str]:
        async with Engine(settings_in(tmp_path)) as engine:
            calling = asyncio.create_task(engine.hooks.run())
            await engine.create_topic("logs", passages="exact", embedding_model="none")
            await engine.set_detecting("logs")
            await engine.add_watch("ledger refused", name="refusals", topics=["logs"], more_than=2, within="1h")
            await engine.add_webhook(receiver.url, alerts=["logs"], watches=["refusals"], allow_private=True)
            for batch in batches():
                await engine.append("logs", batch)
            await until(lambda: len(receiver.got) == 2)
            (alert,) = (await engine.anomalies()).anomalies
            await until(lambda: store.read(engine.log)[0].sent == 2)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            return list(receiver.got), alert.id

    got, alert = asyncio.run(play())
    kinds = {one.plain["type"]: one.plain["data"] for one in got}
    assert kinds["anomaly.alert"]["id"] == alert
    assert kinds["anomaly.alert"]["signals"][0]["what"]
    assert kinds["watch.hit"]["record"]["value"] == "the ledger refused a booking"
    assert (kinds["watch.hit"]["watch"], kinds["watch.hit"]["count"]) == ("refusals", 3)


@pytest.mark.slow
def test_four_kills_lose_no_call_and_change_no_id(tmp_path: Path) -> None:
    rng = random.Random(11)
    with receiving() as receiver:
        for _ in range(4):
            receiver.answers += [(rng.choice((200, 200, 503, 0)), {}) for _ in range(4)]
            live_and_die(WORKER, str(tmp_path), receiver.url, steps=rng.randrange(5, 35), more_s=rng.uniform(0.0, 0.1))
        receiver.answers.clear()
        drain = [sys.executable, str(WORKER), str(tmp_path), receiver.url, "drain"]
        last = subprocess.run(drain, cwd=WORKER.parent, capture_output=True, timeout=240)
        assert last.returncode == 0, last.stderr
        fired = int(last.stdout.split()[-1])
        got = [(one.id, orjson.loads(one.body)["data"]["id"]) for one in receiver.got]
    assert fired > 10
    assert {hit for _, hit in got} == {f"1-{n}" for n in range(1, fired + 1)}
    assert len({id for id, _ in got}) == fired == len(set(got))  # the same hit comes under the same id, always


# ---------------------------------------------------------------------- the command line


def test_webhooks_by_command(tmp_path: Path, receiver: Receiver) -> None:
    runner = CliRunner()
    made = runner.invoke(app, ["webhook", "secret"])
    assert signing.keys_of("WEBHOOK_A", {"WEBHOOK_A": made.stdout.strip()})
    with serving(settings_in(tmp_path)) as url, headwater.connect(url) as hw:
        hw.create_topic("logs")

        def ran(*words: str, code: int = 0) -> str:
            done = runner.invoke(app, ["webhook", *words, "--url", url])
            assert done.exit_code == code, done.output
            return done.output

        assert "pager" in ran("add", receiver.url, "--alerts", "logs", "--name", "pager", "--allow-private")
        assert "alerts of logs" in ran("list")
        assert '"url":' in ran("list", "--json")
        assert "it answered 200" in ran("test", "pager")
        receiver.answers.append((404, {}))
        assert "it answered 404" in ran("test", "pager", code=1)
        assert "signed with WEBHOOK_SECRET" in ran("show", "pager")
        assert "paused" in ran("pause", "pager")
        assert "ready" in ran("resume", "pager")
        assert "removed 1 webhook" in ran("rm", "pager")
        assert "no webhooks" in ran()
