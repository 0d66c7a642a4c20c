"""Raw log lines in the manner of many systems, for benchmarks: how many kinds there are is an argument.

A kind (template) is a layout (sshd-like, klog-like, Windows CSV ...), a level, a component and a message of random words, so
that any two kinds of a layout differ in most of their words and not only in their numbers. Frequencies follow Zipf's law;
every kind occurs. All of it is invented.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from string import Formatter
from typing import NamedTuple
from uuid import UUID

BEGIN = datetime(2026, 11, 2, 6, 0, tzinfo=UTC)
LINES_PER_SECOND = 120  # of the clock in the lines
_ZIPF_EXPONENT = 1.05
_POOL = 1024  # values of a kind to draw from; a power of two

_THINGS = """
replica shard broker ledger socket cursor tablet scheduler listener volume quorum follower snapshot bucket router
tenant kernel daemon session token manifest segment journal partition allocator watchdog resolver namespace endpoint
pipeline container kubelet hypervisor bridge proxy gatekeeper inode superblock datanode namenode container-runtime
heartbeat certificate keyring mailbox firmware sensor antenna battery display compositor renderer activity
service-manager keyguard telephony radio warehouse cart invoice voucher basket subscription payment refund catalogue
thumbnail crawler indexer tokenizer optimizer planner executor coordinator worker supervisor reaper janitor compactor
migrator archiver backup mirror changelog checkpoint barrier semaphore mutex spinlock interrupt timer clocksource
thermal fan chassis backplane transceiver modem switch uplink vlan subnet firewall policy ruleset bloom-filter
memtable hint tombstone rowset lease epoch term election candidate observer participant"""
_VERBS = """
accepted rejected promoted demoted flushed truncated rotated sealed reopened detached attached mounted unmounted
probed scanned repaired rebuilt verified signed revoked renewed expired evicted admitted throttled drained cordoned
scheduled preempted resumed suspended hibernated woke crashed restarted spawned forked joined left announced withdrew
elected deposed replicated lagged caught-up diverged merged split compacted vacuumed analysed indexed cached
prefetched invalidated purged archived restored imported exported parsed decoded encoded compressed inflated encrypted
decrypted hashed salted matched filtered routed forwarded dropped queued dequeued acknowledged redelivered retried
abandoned escalated silenced sampled traced profiled aligned calibrated dimmed connected disconnected negotiated
downgraded upgraded patched configured reloaded overridden inherited resolved delegated"""
_OBJECTS = """
header payload envelope batch window chunk extent stripe block page frame buffer ring queue stack heap arena pool
cache table column row index key value tuple record event message packet datagram stream channel topic subject mailbox
thread fiber process signal handle descriptor pointer register counter gauge histogram metric label annotation
selector taint toleration quota limit budget deadline timeout backoff interval schedule calendar ticket alert incident
report summary digest fingerprint signature challenge cookie credential principal role permission grant audit trail
history revision branch commit tag release artifact image layer digest-list sidecar probe hook callback plugin
extension driver adapter codec schema migration fixture dataset feature gradient tensor embedding vocabulary corpus
document paragraph sentence attachment recipient alias domain zone delegation"""
_MANNERS = """
stale orphaned partial duplicate oversized malformed pending idle dirty clean remote local foreign primary secondary
transient persistent volatile immutable encrypted plain compressed sparse dense hot cold warm frozen degraded healthy
unknown unexpected missing spurious late early concurrent nested recursive implicit explicit default custom legacy
experimental shared exclusive anonymous privileged virtual physical logical incremental full differential nightly
weekly manual automatic"""
_LINKS = """
after before during without despite because-of instead-of beyond under over against toward inside outside behind near
across through within until since via per alongside upon onto beneath amid regarding following pending unlike"""
_ENDINGS = """
successfully partially cleanly abruptly silently gracefully eventually immediately twice again anyway elsewhere
upstream downstream offline online ahead overnight manually lazily eagerly backwards sideways unattended unexpectedly"""
_COMPONENTS = """
Storage Network Session Auth Replication Cache Planner Index Queue Gateway Metrics Config Cluster Recovery Transport
Compaction Billing Search Media Sync Power Audio Camera Wifi Input Package Update Defender Crypto Installer"""

_PLACES: tuple[str, ...] = ("{ip}", "{ip}:{port}", "{path}", "{host}")
_NUMBERS: tuple[str, ...] = ("{n}", "{ms}ms", "{n}", "0x{hex}", "{uuid}", "{kb}kB", "{ms}")


class Layout(NamedTuple):
    """A way of writing lines. `{stamp}` is the time by `time`; `{level} {part} {text}` are fixed for a
    kind of line; `parts` is how components are spelt: plain StorageWorker, java org.acme.storage.StorageWorker, path
    storage-worker, snake storage.worker."""

    name: str
    line: str
    time: str
    levels: tuple[str, ...]
    parts: str = "plain"


LAYOUTS = (
    Layout("sshd", "{stamp} {host} sshd[{pid}]: {text}", "%b %d %H:%M:%S", ("",)),
    Layout("kernel", "{stamp} {host} kernel: [{up}] {part}: {text}", "%b %d %H:%M:%S", ("",), "snake"),
    Layout("systemd", "{stamp} {host} systemd[1]: {part}.service: {text}", "%b %d %H:%M:%S", ("",), "path"),
    Layout("nginx", "{stamp} [{level}] {pid}#{tid}: *{n} {text}", "%Y/%m/%d %H:%M:%S", ("error", "warn", "notice")),
    Layout("apache", "[{stamp}] [{level}] [client {ip}] {text}", "%a %b %d %H:%M:%S %Y", ("error", "notice", "warn")),
    Layout("postgres", "{stamp}.{milli} UTC [{pid}] {level}:  {text}", "%Y-%m-%d %H:%M:%S", ("LOG", "WARNING", "ERROR")),
    Layout("log4j", "{stamp},{milli} {level} [{thread}] {part}: {text}", "%Y-%m-%d %H:%M:%S", ("INFO", "WARN"), "java"),
    Layout("hadoop", "{stamp},{milli} {level} [main] {part}: {text}", "%Y-%m-%d %H:%M:%S", ("INFO", "WARN", "FATAL"), "java"),
    Layout("hdfs", "{stamp} {tid} {level} dfs.{part}: {text}", "%y%m%d %H%M%S", ("INFO", "WARN")),
    Layout("zookeeper", "{stamp},{milli} - {level}  [{thread}:{part}@{port}] - {text}", "%Y-%m-%d %H:%M:%S", ("INFO", "WARN")),
    Layout("openstack", "{stamp}.{milli} {pid} {level} {part} [req-{uuid} - - - - -] {text}", "%Y-%m-%d %H:%M:%S",
           ("INFO", "WARNING", "ERROR"), "snake"),
    Layout("klog", "{level}{stamp}.{milli}{milli} {tid} {part}.go:{tid}] {text}", "%m%d %H:%M:%S", ("I", "W", "E"), "path"),
    Layout("docker", '{{"log":"{text}\\n","stream":"stderr","time":"{stamp}.{milli}Z"}}', "%Y-%m-%dT%H:%M:%S", ("",)),
    Layout("android", "{stamp}.{milli}  {pid}  {tid} {level} {part}: {text}", "%m-%d %H:%M:%S", ("I", "D", "W", "E")),
    Layout("windows", "{stamp}, {level}                  {part}    {text}", "%Y-%m-%d %H:%M:%S", ("Info", "Error")),
    Layout("app", '{{"ts":"{stamp}.{milli}Z","level":"{level}","logger":"{part}","msg":"{text}","trace":"{hex}{hex}"}}',
           "%Y-%m-%dT%H:%M:%S", ("info", "warn", "error"), "snake"),
    Layout("python", "{stamp},{milli} - {part} - {level} - {text}", "%Y-%m-%d %H:%M:%S", ("INFO", "WARNING", "ERROR"), "snake"),
    Layout("hpc", "{n} {host} {part} unix.hw {stamp} 1 {text}", "%s", ("",), "snake"),
)  # fmt: skip


class _Kind(NamedTuple):
    """A template ready to fill: `line % values`, one value of each pool, with the layout's time inserted at `stamp_at`."""

    line: str
    layout: int
    stamp_at: int
    pools: tuple[Sequence[str], ...]


def mixed_lines(n: int, *, seed: int, per_passage: int) -> Iterator[str]:
    """`n` raw lines of `n / per_passage` kinds (at least one), interleaved; the same for the same arguments."""
    if n < 1 or per_passage < 1:
        return
    rng = random.Random(seed)
    kinds = _kinds(rng, max(1, round(n / per_passage)))
    stamps: list[str] = []
    at = seed
    for i, index in enumerate(_order(rng, n, len(kinds))):
        if i % LINES_PER_SECOND == 0:
            now = BEGIN + timedelta(seconds=i // LINES_PER_SECOND)
            stamps = [now.strftime(layout.time) for layout in LAYOUTS]
        line, layout, stamp_at, pools = kinds[index]
        values = []
        for pool in pools:
            at = (at * 1_103_515_245 + 12_345) & 0x7FFFFFFF  # a linear congruence: much faster than Random here
            values.append(pool[at >> 16 & _POOL - 1])
        values.insert(stamp_at, stamps[layout])
        yield line % tuple(values)


def _order(rng: random.Random, n: int, kinds: int) -> list[int]:
    """Which kind each line is of: every kind once, the rest by Zipf's law, shuffled."""
    totals = list(accumulate((rank + 1) ** -_ZIPF_EXPONENT for rank in range(kinds)))
    order = [*range(kinds), *rng.choices(range(kinds), cum_weights=totals, k=n - kinds)]
    rng.shuffle(order)
    return order


def _kinds(rng: random.Random, count: int) -> list[_Kind]:
    pools, message = _pools(rng), messages(rng)
    kinds: list[_Kind] = []
    for i in range(count):
        index = i % len(LAYOUTS)
        layout = LAYOUTS[index]
        level = layout.levels[min(int(rng.expovariate(1.2)), len(layout.levels) - 1)]
        line = layout.line.replace("{level}", level).replace("{part}", _part(rng, layout.parts))
        line = line.replace("{text}", next(message))
        pieces, names = list[str](), list[str]()
        for literal, name, _, _ in Formatter().parse(line):
            pieces.append(literal.replace("%", "%%") + ("%s" if name else ""))
            names += [name] if name else []
        stamp_at = names.index("stamp")
        names.remove("stamp")
        kinds.append(_Kind("".join(pieces), index, stamp_at, tuple(pools[name] for name in names)))
    rng.shuffle(kinds)  # no layout owns the frequent ranks
    return kinds


def messages(rng: random.Random) -> Iterator[str]:
    """Endless distinct messages of 4 to 11 words with 0 to 3 values; values never make up half of the words."""
    things, verbs, objects = _THINGS.split(), _VERBS.split(), _OBJECTS.split()
    manners, links, endings = _MANNERS.split(), _LINKS.split(), _ENDINGS.split()
    seen: set[str] = set()
    while True:
        subject = [rng.choice(manners)] if rng.random() < 0.5 else []
        words = [*subject, rng.choice(things), rng.choice(verbs), rng.choice(manners), rng.choice(objects)]
        values = 0
        if rng.random() < 0.7:
            words += [rng.choice(links), rng.choice(things), rng.choice(objects)]
            if rng.random() < 0.5:
                words.append(rng.choice(_PLACES))
                values += 1
        if rng.random() < 0.4:
            words.append(rng.choice(endings))
        for _ in range(rng.choice((0, 1, 1, 2))):
            if values < 2 + (len(words) > 8):
                words.append(f"{rng.choice(objects)}={rng.choice(_NUMBERS)}")
                values += 1
        if rng.random() < 0.2:
            words.insert(rng.randrange(2), rng.choice(objects) + ":")
        text = " ".join(words)
        if text not in seen:
            seen.add(text)
            yield text


def _part(rng: random.Random, style: str) -> str:
    name, role = rng.choice(_COMPONENTS.split()), rng.choice(_THINGS.split()).replace("-", "")
    if style == "java":
        return f"org.acme.{name.lower()}.{name}{role.title()}"
    if style == "snake":
        return f"{name.lower()}.{role}"
    return f"{name.lower()}-{role}" if style == "path" else f"{name}{role.title()}"


def _pools(rng: random.Random) -> dict[str, list[str]]:
    """Values by name, `_POOL` of each."""
    things = _THINGS.split()
    makers: dict[str, Callable[[], object]] = {
        "host": lambda: f"node-{rng.randrange(1, 40):02d}",
        "pid": lambda: rng.randrange(300, 32_000),
        "tid": lambda: rng.randrange(10, 3000),
        "up": lambda: f"{rng.uniform(1, 900_000):.6f}",
        "thread": lambda: f"worker-{rng.randrange(1, 64)}",
        "port": lambda: rng.randrange(1024, 65_000),
        "milli": lambda: f"{rng.randrange(1000):03d}",
        "ip": lambda: ".".join(str(rng.randrange(1, 255)) for _ in range(4)),
        "path": lambda: f"/var/lib/{rng.choice(things)}/{rng.getrandbits(24):06x}/{rng.randrange(999)}.dat",
        "n": lambda: rng.randrange(1, 10 ** rng.randrange(1, 7)),
        "ms": lambda: int(rng.lognormvariate(3, 1.5)) + 1,
        "kb": lambda: rng.randrange(1, 900_000),
        "hex": lambda: f"{rng.getrandbits(32):08x}",
        "uuid": lambda: str(UUID(int=rng.getrandbits(128), version=4)),
    }
    return {name: [str(make()) for _ in range(_POOL)] for name, make in makers.items()}
