"""Syslog: messages read as their senders meant them, over real sockets, held back or counted when the log is slow."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import source_settings
from headwater.errors import ConfigError, StorageError
from headwater.records import Draft, from_ms
from headwater.sources import Batch
from headwater.sources.syslog import Frames, Syslog
from headwater.sources.syslog_parse import SyslogParser

NOW_MS = 1_795_000_000_000  # 2026-11-18


def read(message: bytes | str, peer: str | None = None) -> Draft:
    sent = message.encode() if isinstance(message, str) else message
    return SyslogParser(lambda: NOW_MS).draft(sent, peer)


def when(draft: Draft) -> str | None:
    return None if draft.time_ms is None else from_ms(draft.time_ms).isoformat()


# ---------------------------------------------------------------------- one message


def test_a_message_of_rfc_5424_gives_text_time_level_and_its_header_as_attributes() -> None:
    element = r'[shop@32473 order="7" note="a \"b\" \] \\ c"][origin ip="10.0.0.1"]'
    draft = read(f"<165>1 2003-10-11T22:14:15.003Z web-1 checkout 812 ID47 {element} \ufeffpayment failed", "10.9.8.7")
    assert draft.value == "payment failed"
    assert when(draft) == "2003-10-11T22:14:15.003000+00:00"
    assert draft.attributes == {
        "level": "info", "facility": "local4", "severity": "notice", "hostname": "web-1", "app": "checkout", "procid": "812",
        "msgid": "ID47", "shop@32473.order": "7", "shop@32473.note": 'a "b" ] \\ c', "origin.ip": "10.0.0.1",
        "peer": "10.9.8.7",
    }  # fmt: skip


def test_nil_values_are_left_out_and_a_message_without_text_is_kept_whole() -> None:
    assert read("<34>1 - - - - - - su failed").attributes == {"level": "fatal", "facility": "auth", "severity": "crit"}
    assert read("<34>1 - - - - - -").value == "<34>1 - - - - - -"
    assert read('<34>1 - h - - - [a b="c"]').attributes["a.b"] == "c"


@pytest.mark.parametrize(
    ("message", "value", "time", "about"),
    [
        (
            "<34>Oct 11 22:14:15 gate su: 'su root' failed",
            "'su root' failed",
            "2026-10-11T22:14:15+00:00",
            ("gate", "su", None),
        ),
        ("<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", "Use the BFG!", "2026-02-05T17:32:18+00:00", ("10.0.0.99", None, None)),
        ("<30>Dec 31 23:59:60 kernel: up", "up", "2025-12-31T23:59:59+00:00", (None, "kernel", None)),
        ("<13>2026-01-02T03:04:05+02:00 web nginx[12]: GET /", "GET /", "2026-01-02T01:04:05+00:00", ("web", "nginx", "12")),
        ("<13>Nov 20 2024 10:00:00 asa : %ASA-6: x", ": %ASA-6: x", "2024-11-20T10:00:00+00:00", ("asa", None, None)),
    ],
)
def test_a_message_of_rfc_3164_is_read_as_it_is_sent(
    message: str, value: str, time: str, about: tuple[str | None, str | None, str | None]
) -> None:
    draft = read(message)
    assert (draft.value, when(draft)) == (value, time)
    assert tuple(draft.attributes.get(name) for name in ("hostname", "app", "procid")) == about


@pytest.mark.parametrize("garbage", ["hello", "<999>x", "<", "<14>", "<34>1 2003 h a", "<34>1 - h - - - [bad x", "1 2 3", "{}"])
def test_garbage_is_kept_as_it_is(garbage: str) -> None:
    assert read(garbage).value == garbage
    broken = read(b"caf\xe9 \xff")
    assert broken.value == "caf\ufffd \ufffd"
    assert broken.raw == b"caf\xe9 \xff"


@given(st.binary(max_size=200), st.integers(0, 191))
def test_no_message_is_too_strange(message: bytes, priority: int) -> None:
    for prefix in (b"", b"<%d>" % priority, b"<%d>1 - - - - - " % priority, b"<%d>Oct 11 22:14:15 " % priority):
        draft = read(prefix + message)
        assert bool(draft.value) == bool(prefix + message)


# ---------------------------------------------------------------------- framing


@given(st.lists(st.tuples(st.booleans(), st.text("ab <1>", min_size=1, max_size=30)), max_size=8), st.data())
def test_both_framings_are_told_apart_frame_by_frame_however_the_bytes_come(
    messages: list[tuple[bool, str]], data: st.DataObject
) -> None:
    wanted = [b"<1>" + text.strip().encode() + b"x" for _, text in messages]
    counts = [counted for counted, _ in messages]
    sent = b"".join(b"%d %b" % (len(m), m) if c else m + b"\n" for c, m in zip(counts, wanted, strict=True))
    frames, got, at = Frames(480), list[bytes](), 0
    while at < len(sent):
        step = data.draw(st.integers(1, len(sent) - at))
        got += frames.feed(sent[at : at + step])
        at += step
    assert got + list(frames.rest()) == wanted


def test_a_message_that_is_too_long_is_cut_and_nothing_of_it_is_lost() -> None:
    frames = Frames(480)
    long = b"<1>" + b"a" * 1000
    got = [*frames.feed(long + b"\n<2>next\n"), *frames.feed(b"1003 " + long + b"<3>last\n")]
    assert b"".join(got) == long + b"<2>next" + long + b"<3>last"
    assert max(map(len, got)) == 480


# ---------------------------------------------------------------------- over sockets


@asynccontextmanager
async def listening(source: Syslog, take: Callable[[Batch], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """A source whose batches go to `take`, one after the other, from when it listens until its end."""

    async def follow() -> None:
        async for batch in source.batches(None):
            await take(batch)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(240):
        while not source.condition.state.startswith("listening"):
            assert not task.done(), task.result()
            await asyncio.sleep(0.005)
        yield task
    source.stop()
    async with asyncio.timeout(240):
        await task


def test_what_comes_over_udp_and_tcp_is_stored_also_what_was_read_when_it_ends() -> None:
    async def check() -> None:
        got: list[Draft] = []

        async def take(batch: Batch) -> None:
            got.extend(batch.drafts)

        source = Syslog("t", port=0)
        async with listening(source, take):
            _, writer = await asyncio.open_connection("127.0.0.1", source.ports["tcp"])
            writer.write(b"<34>1 - h - - - - one\n19 <34>1 - h - - - - 2<34>1 - h - - - - without an end")
            await writer.drain()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"<34>1 - h - - - - datagram\n", ("127.0.0.1", source.ports["udp"]))
            while len(got) < 3:
                await asyncio.sleep(0.005)
            assert source.condition.counts == {"dropped": 0, "connections": 1}
        writer.close()
        assert sorted(d.value for d in got) == ["2", "datagram", "one", "without an end"]
        assert {d.attributes["peer"] for d in got} == {"127.0.0.1"}

    asyncio.run(check())


def test_a_slow_log_holds_senders_back_over_tcp_and_nothing_is_lost() -> None:
    async def check() -> None:
        got: list[Draft] = []
        release = asyncio.Event()

        async def take(batch: Batch) -> None:
            await release.wait()
            got.extend(batch.drafts)

        source, many = Syslog("t", port=0, transport="tcp", batch_records=100), 60_000
        async with listening(source, take):
            _, writer = await asyncio.open_connection("127.0.0.1", source.ports["tcp"])
            line = b"<34>1 - h - - - - " + b"x" * 200 + b"\n"

            async def send() -> None:
                for _ in range(many // 100):
                    writer.write(line * 100)
                    await writer.drain()

            sending = asyncio.create_task(send())
            await asyncio.wait({sending}, timeout=0.5)
            assert not sending.done(), "the sender must wait"
            held = source._being_stored + len(source._waiting)
            assert held < 2 * 100 + 600, "two batches and what one read brings"
            release.set()
            await sending
            while len(got) < many:
                await asyncio.sleep(0.005)
            writer.close()
        assert len(got) == many

    asyncio.run(check())


def test_datagrams_that_find_no_room_are_counted_to_the_last() -> None:
    async def check() -> None:
        got: list[Draft] = []
        release = asyncio.Event()

        async def take(batch: Batch) -> None:
            await release.wait()
            got.extend(batch.drafts)

        source, many = Syslog("t", port=0, transport="udp", queue=50, batch_records=10), 400
        async with listening(source, take):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for n in range(many):
                    sender.sendto(b"<34>1 - h - - - - %d" % n, ("127.0.0.1", source.ports["udp"]))
                    await asyncio.sleep(0)
            while source.condition.counts["dropped"] + len(source._waiting) + source._being_stored < many:
                await asyncio.sleep(0.005)
            release.set()
        assert source.condition.counts["dropped"] >= many - 60 > 0
        assert len(got) + source.condition.counts["dropped"] == many

    asyncio.run(check())


def test_a_port_that_is_taken_is_told_and_free_again_after_the_end() -> None:
    async def check() -> None:
        async def take(batch: Batch) -> None:
            pass

        first = Syslog("t", port=0)
        async with listening(first, take):
            second = Syslog("t", port=first.ports["udp"])
            with pytest.raises(StorageError, match=f"port {first.ports['udp']}"):
                await anext(second.batches(None))
        async with listening(Syslog("t", port=first.ports["udp"]), take):
            pass

    asyncio.run(check())


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, secret = directory / f"{name}.pem", directory / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return pem, secret


def test_messages_over_tls_are_stored_and_strangers_are_not_let_in(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    source = Syslog("s", port=0, transport="tcp", tls_cert=str(server[0]), tls_key=str(server[1]), tls_client_ca=str(client[0]))
    stored: list[str] = []

    async def take(batch: Batch) -> None:
        stored.extend(draft.value for draft in batch.drafts)

    async def send(shown: tuple[Path, Path] | None, text: bytes) -> None:
        context = ssl.create_default_context(cafile=str(server[0]))
        if shown is not None:
            context.load_cert_chain(*map(str, shown))
        reader, writer = await asyncio.open_connection("127.0.0.1", source.ports["tcp"], ssl=context)
        try:
            writer.write(text)
            await writer.drain()
            writer.write_eof() if writer.can_write_eof() else writer.close()
            await asyncio.wait_for(reader.read(), 240)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def run() -> None:
        async with listening(source, take):
            await send(client, b"23 <13>1 - h a - - - hello")
            for stranger in (None, server):
                with contextlib.suppress(OSError):  # TLS 1.3 tells a client only behind its first message
                    await send(stranger, b"<13>1 - h a - - - intruder\n")
            await send(client, b"<13>1 - h a - - - goodbye\n")
            async with asyncio.timeout(240):
                while len(stored) < 2:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert stored == ["hello", "goodbye"]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"tls_cert": "a.pem"}, "tls_key"),
        ({"tls_cert": "a.pem", "tls_key": "a.key"}, "transport"),
        ({"tls_client_ca": "a.pem", "transport": "tcp"}, "tls_cert"),
    ],
)
def test_half_of_what_tls_needs_is_refused(given: dict[str, str], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        source_settings({"type": "syslog", **given}, {})


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    source = Syslog("s", port=0, transport="tcp", tls_cert=str(tmp_path / "none.pem"), tls_key=str(tmp_path / "none.key"))

    async def run() -> None:
        async for _ in source.batches(None):
            pass

    with pytest.raises(StorageError, match=r"none\.pem"):
        asyncio.run(run())
