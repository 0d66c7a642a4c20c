"""A NATS JetStream stream as a source: every message once in the log, whoever dies and whenever.

Where reading goes on is kept in the log, in the transaction that stores the records. The durable consumer at the server is
set to that place at the start, after every broken connection, and whenever a delivery is missing (deliveries are counted): it
is made anew there, so messages come in order without waiting for an acknowledgement to time out. Messages are acknowledged once
the log has committed. A stream's messages are named by its name, the time it was made, and their sequence; one that is
deleted and made anew is another stream, and read from its start. One durable consumer serves one log.

Needs nats-py: `pip install 'headwater[nats]'`. Credentials that are not given come from the environment, by the names that the
`nats` tool has: NATS_USER and NATS_PASSWORD, NATS_TOKEN, NATS_CREDS and NATS_NKEY (files; they need `nats-py[nkeys]`), NATS_CA,
NATS_CERT and NATS_KEY (files, for TLS).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from headwater.batches import Fault
from headwater.errors import ConfigError
from headwater.records import Draft, Scalar
from headwater.sources import Batch, Condition, State
from headwater.sources.messages import Message, MessageForm, Reading

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext
    from nats.js.api import ConsumerConfig, ConsumerInfo, StreamInfo

logger = logging.getLogger(__name__)
_WAIT_S = 1.0  # for messages, in one request
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries; the last for all further ones
_LOOK_AFTER = 5  # requests without a message, behind which the stream is looked at
_ACK_WAIT_S = 60.0
_NO_STREAM = 10059  # JetStream's error code
_BATCH_BYTES = 8 << 20


class NatsSource:
    """Source of the messages of a JetStream stream into one topic of Headwater.

    servers           nats:// or tls:// addresses of one or more servers, with commas between; no credentials in them
    stream            the JetStream stream; it may be made later
    topic             where the records go
    durable           name of the durable consumer, which the source makes, sets and makes anew
    subjects          only messages of these subjects (wildcards * and >); none: all
    from_start        begin with the oldest message, else with those that come from now on
    form              auto, text or json: see `messages`
    value_field, key_field, time_field, time, headers     see `messages.Reading`
    key               subject: the message's subject is the key where the object has none; none: it is not
    coordinates       whether records get the attributes nats.stream, nats.subject and nats.sequence
    batch_records     most records of one transaction
    username, password, token     of the server
    credentials       what the names of the environment's variables begin with, for a server of its own: NATS
    label             tells sources apart that have topic, stream and durable in common
    """

    kind = "nats"

    def __init__(
        self,
        servers: str,
        stream: str,
        topic: str,
        *,
        durable: str = "headwater",
        subjects: str | Sequence[str] = (),
        from_start: bool = True,
        form: MessageForm = "auto",
        value_field: str | None = None,
        key_field: str | None = None,
        time_field: str | None = None,
        time: Literal["message", "value"] = "message",
        headers: Sequence[str] | None = None,
        key: Literal["subject", "none"] = "subject",
        coordinates: bool = True,
        batch_records: int = 1000,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        credentials: str = "NATS",
        label: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        if importlib.util.find_spec("nats") is None:
            raise ConfigError("NATS needs the package nats-py: pip install 'headwater[nats]'")
        self.servers = [server.strip() for server in servers.split(",") if server.strip()]
        if not self.servers or any("@" in server for server in self.servers):
            raise ConfigError("servers is nats://host:port, with commas between several, and without a user or password")
        for what, name in (("stream", stream), ("durable", durable)):
            if not name or any(c in ". *>/\\" or c.isspace() for c in name):
                raise ConfigError(f"{name!r} cannot be the name of a {what}: no dots, spaces, wildcards or slashes")
        if batch_records < 1:
            raise ConfigError("batch_records must be at least 1")
        self.stream, self.topic, self.durable = stream, topic, durable
        self.subjects = (subjects,) if isinstance(subjects, str) else tuple(subjects)
        self.from_start, self.batch_records, self.key, self.coordinates = from_start, batch_records, key, coordinates
        self.reading = Reading(form, value_field, key_field, time_field, time, None if headers is None else tuple(headers))
        self.login = _login(credentials, environment, {"user": username, "password": password, "token": token})
        self._label = label or f"{stream}/{durable}"
        self._condition = Condition()
        self._counts: Counter[str] = Counter()
        self.lag: Mapping[str, int] = {}  # messages not yet read, by stream

    @property
    def name(self) -> str:
        return f"nats:{self.topic}:{self._label}"

    @property
    def condition(self) -> Condition:
        return self._condition

    def note(self, state: str, error: str | None = None, count: str | None = None) -> None:
        """Say how it goes; `count` adds one to that count."""
        if count:
            self._counts[count] += 1
        self._condition = Condition(state, error, dict(self._counts))

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless. State: `{created, generation, last}`, the identity of the stream and the last sequence that was read.
        `lag_bytes` counts messages, as JetStream does."""
        reader = _Reader(self, Place(**state) if state else None)
        try:
            while True:
                batch, messages = await reader.step()
                if batch is not None:
                    yield batch
                    await reader.acknowledge(messages)
        finally:
            await asyncio.shield(asyncio.ensure_future(reader.close()))


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading stands: `last` is the sequence read last, in the stream that was made at `created`. `generation` counts how
    often that was cut behind what was read, as a restored backup is."""

    created: str
    last: int = 0
    generation: int = 0

    def to_state(self) -> State:
        return {"created": self.created, "last": self.last, "generation": self.generation}


class _Reader:
    """The reading of one run."""

    def __init__(self, source: NatsSource, place: Place | None) -> None:
        self._source, self._place = source, place
        self._client: Client | None = None
        self._pull: JetStreamContext.PullSubscription | None = None
        self._settled = False  # whether the consumer at the server stands where the log does
        self._each = False  # whether every message is to be acknowledged, and not the last for all
        self._delivery: int | None = None  # the number of the next delivery; None where messages may come out of order
        self._idle = self._tries = 0
        self._heard = ""  # what the server or the connection last complained of
        self._request = source.batch_records

    async def step(self) -> tuple[Batch | None, Sequence[Msg]]:
        """The next batch and its messages, to be acknowledged once it is stored; None where nothing came."""
        from nats import errors

        try:
            if self._client is None or self._client.is_closed:
                await self.close()
                self._settled = False
                self._client = await self._connect()
            if self._pull is None or not self._settled:
                return await self._settle(self._client.jetstream()), ()
            try:
                messages = await self._pull.fetch(self._request, timeout=_WAIT_S)
            except TimeoutError:  # that of nats is one
                await self._nothing(self._client.jetstream())
                return None, ()
            return self._batch(messages)
        except (errors.Error, OSError, TimeoutError) as error:
            await self._failed(error)
            return None, ()

    async def acknowledge(self, messages: Sequence[Msg]) -> None:
        """The batch of these messages is stored. An acknowledgement that is lost costs a delivery, which the log drops."""
        from nats import errors

        try:
            for message in messages if self._each else messages[-1:]:
                await message.ack()
        except (errors.Error, OSError) as error:
            logger.info("not acknowledged: %s", error)
            self._settled = False

    async def close(self) -> None:
        from nats import errors

        client, self._client, self._pull = self._client, None, None
        if client is not None:
            with contextlib.suppress(errors.Error, OSError, TimeoutError):
                if client.is_connected:
                    await client.flush(timeout=2)  # acknowledgements
            await client.close()

    async def _connect(self) -> Client:
        import nats

        servers = self._source.servers
        at = self._tries % len(servers)
        self._heard = ""

        async def heard(error: Exception) -> None:
            words = str(error) or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)
            logger.log(logging.INFO if words != self._heard or not self._tries else logging.DEBUG, "NATS: %s", words)
            self._heard = words

        try:
            return await self._connected(servers[at:] + servers[:at], heard)
        except nats.errors.NoServersError as error:
            raise OSError(f"none of {', '.join(servers)} can be reached: {self._heard or error}") from error

    async def _connected(self, servers: list[str], heard: Callable[[Exception], Awaitable[None]]) -> Client:
        login = self._source.login()
        client = _client(secure="tls" in login or any(server.startswith("tls:") for server in servers))
        options: dict[str, Any] = {"reconnect_time_wait": 0.2, **login}
        try:
            await client.connect(
                servers,
                name="headwater",
                connect_timeout=2,
                allow_reconnect=False,  # a new connection begins from the log's place, as the first one does
                max_reconnect_attempts=1,  # of the first one too; 0 is without end
                dont_randomize=True,
                ping_interval=10,
                error_cb=heard,
                **options,
            )
        except BaseException:
            await client.close()  # it leaves a connection that failed half way open
            raise
        return client

    async def _failed(self, error: Exception) -> None:
        from nats.js.errors import NotFoundError

        self._settled = False
        if isinstance(error, NotFoundError) and error.err_code == _NO_STREAM:
            self._source.note("waiting for the stream", f"there is no stream {self._source.stream!r}")
        elif isinstance(error, NotFoundError):
            self._source.note("making the consumer anew", str(error))
        elif isinstance(error, TimeoutError):  # a server that forbids something says so, and does not answer
            self._source.note("unreachable", f"{', '.join(self._source.servers)}: {self._heard or 'no answer'}")
        else:
            self._source.note("unreachable", str(error) or type(error).__name__)
        await asyncio.sleep(_PAUSES_S[min(self._tries, len(_PAUSES_S) - 1)])
        self._tries += 1

    # --------------------------------------------------------------------------------------------------- the place
    async def _settle(self, js: JetStreamContext) -> Batch:
        """Set the consumer at the server to the log's place; the batch tells the log of it."""
        info = await js.stream_info(self._source.stream)
        place = self._placed(info)
        await self._consume(js, info, place)
        if self._pull is not None:
            await self._pull.unsubscribe()
        self._pull = await js.pull_subscribe_bind(durable=self._source.durable, stream=self._source.stream)
        self._place, self._settled, self._tries, self._idle = place, True, 0, 0
        self._source.note("following")
        return Batch((), place.to_state(), self._stream(place))

    def _placed(self, info: StreamInfo) -> Place:
        """The log's place in the stream as it is now."""
        note, place = self._source.note, self._place
        created = info.created.isoformat() if info.created is not None else ""
        if place is None:
            return Place(created, 0 if self._source.from_start else info.state.last_seq)
        if place.created != created:
            logger.warning("the stream %s was deleted and made anew; it is read from its start", self._source.stream)
            note("following", count="streams_made_anew")
            return Place(created)
        if info.state.last_seq < place.last:  # its end is gone, and the sequences will be used again
            logger.warning("the stream %s lost its end: %s of %s", self._source.stream, info.state.last_seq, place.last)
            note("following", count="cuts")
            return Place(created, info.state.last_seq, place.generation + 1)
        if _is_kept(info) and info.state.first_seq > place.last + 1:
            note("following", count="gaps")
            return replace(place, last=info.state.first_seq - 1)
        return place

    async def _consume(self, js: JetStreamContext, info: StreamInfo, place: Place) -> None:
        """Have the durable consumer deliver what lies behind the place, in order.

        Where acknowledged messages leave the stream, a consumer that was deleted could take messages with it: there it
        stays, every message is acknowledged, and what a dead process had been given comes again after a while, out of order."""
        from nats.js.errors import NotFoundError

        stream, durable = self._source.stream, self._source.durable
        wanted = self._wanted(info, place)
        try:
            there: ConsumerInfo | None = await js.consumer_info(stream, durable)
        except NotFoundError:
            there = None
        self._each = not _is_kept(info)
        if there is not None and (self._each or _stands(there, wanted, place)):
            self._delivery = None if self._each or there.delivered is None else there.delivered.consumer_seq + 1
            return
        if there is not None:
            await js.delete_consumer(stream, durable)
        await js.add_consumer(stream, wanted)
        self._delivery = None if self._each else 1

    def _wanted(self, info: StreamInfo, place: Place) -> ConsumerConfig:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        subjects = self._source.subjects
        config = ConsumerConfig(
            durable_name=self._source.durable,
            description="headwater: set to the place that the log has; do not share",
            ack_policy=AckPolicy.ALL if _is_kept(info) else AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=max(1000, 2 * self._source.batch_records),
            filter_subject=subjects[0] if len(subjects) == 1 else None,
            filter_subjects=list(subjects) if len(subjects) > 1 else None,
            deliver_policy=DeliverPolicy.ALL,
        )
        if _is_kept(info):
            return config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=place.last + 1)
        return config

    def _stream(self, place: Place) -> str:
        again = f"~{place.generation}" if place.generation else ""
        return f"nats:{self._source.stream}#{place.created}{again}"

    # ------------------------------------------------------------------------------------------------------ messages
    async def _nothing(self, js: JetStreamContext) -> None:
        """No message came; now and then see whether the stream and the consumer still are what they were."""
        self._idle += 1
        self._source.lag = {self._source.stream: 0}
        if self._idle % _LOOK_AFTER == 0:
            info = await js.stream_info(self._source.stream)
            await js.consumer_info(self._source.stream, self._source.durable)
            created = info.created.isoformat() if info.created is not None else ""
            place = self._place
            if place is None or place.created != created or info.state.last_seq < place.last:
                self._settled = False

    def _batch(self, messages: Sequence[Msg]) -> tuple[Batch | None, Sequence[Msg]]:
        source, place = self._source, self._place
        assert place is not None
        drafts: list[Draft] = []
        faults: list[Fault] = []
        taken: list[Msg] = []
        last, pending, size = place.last, 0, 0
        for message in messages:
            delivered, sequence, delivery, at_ms, pending = _told(message.reply)
            if self._delivery is not None and delivery != self._delivery:
                self._settled = False  # a delivery was lost on the way
                break
            if self._delivery is not None:
                self._delivery += 1
            taken.append(message)
            last = max(last, sequence)
            size += len(message.data)
            if delivered > 1:
                source.note("following", count="redelivered")
            found = self._draft(message, sequence, at_ms)
            if isinstance(found, Draft):
                drafts.append(found)
            elif found is not None:
                faults.append(found)
        if not taken:
            return None, ()
        self._idle = 0
        self._request = max(1, min(source.batch_records, _BATCH_BYTES * len(taken) // max(size, 1)))
        self._place = replace(place, last=last)
        source.lag = {source.stream: pending}
        if source.condition.state != "following":
            source.note("following")
        return Batch(drafts, self._place.to_state(), self._stream(place), pending, faults), taken

    def _draft(self, message: Msg, sequence: int, at_ms: int) -> Draft | Fault | None:
        source = self._source
        if not message.data:
            source.note("following", count="empty")
            return None
        attributes: dict[str, Scalar] = {}
        if source.coordinates:
            attributes = {"nats.stream": source.stream, "nats.subject": message.subject, "nats.sequence": sequence}
        headers = tuple((message.headers or {}).items())
        found = source.reading.draft(Message(message.data, sequence, None, at_ms, headers, attributes))
        if isinstance(found, Draft) and found.key is None and source.key == "subject":
            return found._replace(key=message.subject)
        return found


def _client(*, secure: bool) -> Client:
    """A client; one that is to be `secure` tells its user and password to no server that does not speak TLS."""
    from nats.aio.client import Client
    from nats.errors import Error

    class Secure(Client):
        def _connect_command(self) -> bytes:
            if not self._server_info.get("tls_required"):
                raise Error("TLS is asked for, and the server does not offer it: no user or password was told to it")
            return super()._connect_command()

    return Secure() if secure else Client()


def _is_kept(info: StreamInfo) -> bool:
    """Whether messages stay in the stream when they are acknowledged."""
    from nats.js.api import RetentionPolicy

    return info.config.retention in (None, RetentionPolicy.LIMITS)


def _stands(there: ConsumerInfo, wanted: ConsumerConfig, place: Place) -> bool:
    """Whether the consumer is as wanted and has just delivered the place's last message, and nothing that is not
    acknowledged."""
    config, delivered = there.config, there.delivered
    same = (config.ack_policy, config.filter_subject, config.filter_subjects) == (
        wanted.ack_policy, wanted.filter_subject, wanted.filter_subjects,
    )  # fmt: skip
    return same and not there.num_ack_pending and delivered is not None and 0 < delivered.stream_seq == place.last


def _told(reply: str) -> tuple[int, int, int, int, int]:
    """What a delivery says of itself: how often it was made, sequence in the stream, number of the delivery, time of the
    message in ms, messages still to come."""
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6  # with the account's domain and hash before
    delivered, sequence, delivery, at_ns, pending = (int(token) for token in tokens[at : at + 5])
    return delivered, sequence, delivery, at_ns // 1_000_000, pending


def _login(prefix: str, environment: Mapping[str, str], said: Mapping[str, str | None]) -> Callable[[], dict[str, Any]]:
    """What makes the arguments of a connection that say who asks. Files are read anew each time. Raises ConfigError."""
    given = {name: environment.get(f"{prefix}_{name}") for name in ("USER", "PASSWORD", "TOKEN", "CREDS", "NKEY")}
    files = [environment.get(f"{prefix}_{name}") for name in ("CA", "CERT", "KEY")]
    if (given["CREDS"] or given["NKEY"]) and importlib.util.find_spec("nkeys") is None:
        raise ConfigError(f"{prefix}_CREDS and {prefix}_NKEY need the package nkeys: pip install 'nats-py[nkeys]'")
    names = {"USER": "user", "PASSWORD": "password", "TOKEN": "token", "CREDS": "user_credentials", "NKEY": "nkeys_seed"}
    secrets: dict[str, Any] = {names[name]: value for name, value in given.items() if value}
    secrets |= {name: value for name, value in said.items() if value}

    def login() -> dict[str, Any]:
        ca, cert, key = files
        if not (ca or cert):
            return secrets
        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(cert, key)
        return {**secrets, "tls": context}

    return login
