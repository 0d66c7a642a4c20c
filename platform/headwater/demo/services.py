"""The services of the demo shop and what they log: eight real-life formats, a healthy baseline, and the incident's lines.

A line is `(service, weight, level, component, text)`. `{name}` in a text is a value drawn for every line (`VALUES`);
lines of the gateway are `status method path` with the upstream time and are written as nginx access lines.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple


class Line(NamedTuple):
    """A kind of log line. `weight` is its share among its list."""

    service: str
    weight: float
    level: str
    component: str
    text: str


class Wave(NamedTuple):
    """A kind of line that appears in the incident: from `since` minutes after the deploy on."""

    since: float
    line: Line


def _hex(rng: random.Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


VALUES: Mapping[str, Callable[[random.Random], str]] = {
    "n": lambda r: str(r.randrange(1, 9000)),
    "few": lambda r: str(r.randrange(1, 9)),
    "some": lambda r: str(r.randrange(9, 60)),
    "ms": lambda r: str(int(r.lognormvariate(3.6, 0.7)) + 2),
    "slow": lambda r: str(r.randrange(1200, 4800)),
    "s": lambda r: f"{r.uniform(0.2, 9):.2f}",
    "pct": lambda r: f"{r.uniform(0.4, 7):.1f}",
    "hit": lambda r: f"{r.uniform(91, 99):.1f}",
    "kb": lambda r: str(r.randrange(40, 90_000)),
    "mb": lambda r: str(r.randrange(180, 900)),
    "hex": lambda r: _hex(r, 12),
    "trace": lambda r: _hex(r, 16),
    "uuid": lambda r: f"{_hex(r, 8)}-{_hex(r, 4)}-4{_hex(r, 3)}-a{_hex(r, 3)}-{_hex(r, 12)}",
    "ip": lambda r: f"10.{r.randrange(4)}.{r.randrange(256)}.{r.randrange(1, 255)}",
    "port": lambda r: str(r.randrange(32768, 60999)),
    "order": lambda r: f"O-{r.randrange(700_000, 799_999)}",
    "sku": lambda r: f"SKU-{r.randrange(1000, 9999)}",
    "user": lambda r: f"u{r.randrange(10_000, 99_999)}",
    "money": lambda r: f"{r.uniform(4, 480):.2f}",
    "cur": lambda r: r.choice(("EUR", "EUR", "EUR", "GBP", "USD")),
    "country": lambda r: r.choice(("DE", "FR", "NL", "GB", "ES", "IT", "PL", "SE")),
    "card": lambda r: r.choice(("visa", "mastercard", "amex")),
    "attempt": lambda r: r.choice(("1", "1", "2", "2", "3")),
    "waiting": lambda r: str(r.randrange(11, 96)),
    "limit": lambda r: str(30_000 + r.randrange(1, 40)),
    "urt": lambda r: f"{r.uniform(0.004, 0.28):.3f}",
    "cut": lambda r: f"30.{r.randrange(1, 30):03d}",
    "size": lambda r: str(r.randrange(180, 24_000)),
}

_AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/142.0",
    "ShopApp/7.3.1 (Android)",
    "kube-probe/1.31",
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _millis(when: datetime) -> str:
    return f"{when.microsecond // 1000:03d}"


def _access(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    status, method, path, upstream = text.split()
    stamp = f"{when.day:02d}/{_MONTHS[when.month - 1]}/{when:%Y:%H:%M:%S} +0000"
    agent = _AGENTS[4] if path.startswith("/health") else rng.choice(_AGENTS[:4])
    return (
        f'{VALUES["ip"](rng)} - - [{stamp}] "{method} {path} HTTP/1.1" {status} {VALUES["size"](rng)} "-" "{agent}" '
        f"rt={upstream} uct=0.00{rng.randrange(1, 9)} urt={upstream}"
    )


def _nginx_error(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    return f"{when:%Y/%m/%d %H:%M:%S} [{line.level.lower()}] {rng.randrange(20, 40)}#0: *{rng.randrange(90_000)} {text}"


def _gateway(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    return (_access if line.component == "access" else _nginx_error)(line, text, when, rng)


def _json(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    entry = {
        "ts": f"{when:%Y-%m-%dT%H:%M:%S}.{_millis(when)}Z",
        "level": line.level.lower(),
        "service": line.service,
        "logger": line.component,
        "msg": text,
        "trace_id": VALUES["trace"](rng),
    }
    return json.dumps(entry, ensure_ascii=False)


def _logback(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    thread = f"http-nio-8080-exec-{rng.randrange(1, 33)}"
    return f"{when:%Y-%m-%d %H:%M:%S},{_millis(when)} {line.level:<5} [{thread}] {line.component} - {text}"


def _logfmt(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    stamp = f"{when:%Y-%m-%dT%H:%M:%S}.{_millis(when)}Z"
    return f"ts={stamp} level={line.level.lower()} caller={line.component} {text}"


def _plain(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%S}.{_millis(when)}Z {line.level:<5} {line.component}: {text}"


def _python(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S},{_millis(when)} - {line.component} - {line.level} - {text}"


def _postgres(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S}.{_millis(when)} UTC [{rng.randrange(60, 900)}] {line.component} {line.level}:  {text}"


def _redis(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    return f"1:M {when:%d %b %Y %H:%M:%S}.{_millis(when)} {line.component} {text}"


def _klog(line: Line, text: str, when: datetime, rng: random.Random) -> str:
    stamp = f"{when:%m%d %H:%M:%S}.{when.microsecond:06d}"
    return f"{line.level[0]}{stamp}       1 {line.component}] {text}"


FORMATS: Mapping[str, Callable[[Line, str, datetime, random.Random], str]] = {
    "gateway": _gateway,
    "checkout": _json,
    "payments": _logback,
    "orders": _logfmt,
    "inventory": _plain,
    "accounts": _python,
    "postgres": _postgres,
    "redis": _redis,
    "scheduler": _klog,
}


class _Drawn(dict[str, str]):
    """Values of one line, drawn when the text asks for them; a name asked twice has one value."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def __missing__(self, name: str) -> str:
        self[name] = VALUES[name](self._rng)
        return self[name]


def write(line: Line, when: datetime, rng: random.Random) -> str:
    """The line as its service would have logged it at `when`."""
    return FORMATS[line.service](line, line.text.format_map(_Drawn(rng)), when, rng)


def _lines(service: str, *rows: tuple[float, str, str, str]) -> list[Line]:
    return [Line(service, *row) for row in rows]


BASELINE: list[Line] = [
    *_lines(
        "gateway",
        (30, "INFO", "access", "200 GET /api/products/{n} {urt}"),
        (18, "INFO", "access", "200 GET /api/search?q={sku} {urt}"),
        (12, "INFO", "access", "200 GET /api/cart/{hex} {urt}"),
        (8, "INFO", "access", "201 POST /api/cart/{hex}/items {urt}"),
        (6, "INFO", "access", "200 POST /api/pay {urt}"),
        (5, "INFO", "access", "304 GET /static/app.{hex}.js {urt}"),
        (4, "INFO", "access", "200 GET /healthz 0.001"),
        (2, "INFO", "access", "404 GET /wp-login.php 0.001"),
        (1, "INFO", "access", "401 GET /api/account {urt}"),
        (0.6, "WARN", "error", "client request body is buffered to a file /var/cache/nginx/client_temp/{n}, client: {ip}"),
        (0.4, "INFO", "error", "client {ip} closed keepalive connection"),
    ),
    *_lines(
        "checkout",
        (14, "INFO", "cart", "Cart {hex} priced: {few} items, total {money} {cur}"),
        (9, "INFO", "session", "Checkout started for user {user} from {country}"),
        (7, "INFO", "payment", "Payment step finished for order {order} in {ms} ms"),
        (5, "DEBUG", "voucher", "Voucher lookup missed cache, loaded {few} rules in {ms} ms"),
        (3, "INFO", "shipping", "Shipping options computed for {country}: {few} carriers"),
        (1, "WARN", "address", "Address autocomplete answered slowly ({slow} ms), falling back to free text"),
        (0.5, "WARN", "voucher", "Voucher code rejected: already redeemed by user {user}"),
    ),
    *_lines(
        "payments",
        (9, "INFO", "c.s.payments.ChargeService", "Authorized {money} {cur} on {card} for order {order} in {ms} ms"),
        (8, "INFO", "c.s.payments.ChargeService", "Captured payment pay_{hex} for order {order}"),
        (4, "INFO", "c.s.payments.FraudScore", "Risk score {few} for order {order}, accepted"),
        (3, "DEBUG", "c.z.hikari.pool.HikariPool", "Pool stats (total=20, active={few}, idle=12, waiting=0)"),
        (2, "INFO", "c.s.payments.Ledger", "Ledger batch {n} balanced: {some} entries"),
        (0.8, "WARN", "c.s.payments.ChargeService", "Card declined by issuer for order {order}: insufficient funds"),
        (0.5, "INFO", "c.s.payments.Refunds", "Refund of {money} {cur} queued for order {order}"),
    ),
    *_lines(
        "orders",
        (9, "INFO", "placer.go:88", 'msg="order placed" order={order} items={few} total={money} currency={cur}'),
        (5, "INFO", "state.go:141", 'msg="order state changed" order={order} from=paid to=packing'),
        (4, "INFO", "outbox.go:52", 'msg="published event" topic=order.events key={order} bytes={size}'),
        (2, "DEBUG", "outbox.go:77", 'msg="outbox drained" pending=0 took={ms}ms'),
        (0.7, "WARN", "mailer.go:31", 'msg="confirmation mail deferred by remote server" order={order} retry_in=60s'),
    ),
    *_lines(
        "inventory",
        (8, "INFO", "stock.reserve", "reserved {few} x {sku} in warehouse FRA-{few}"),
        (4, "INFO", "stock.release", "released hold on {sku} after cart expiry"),
        (3, "INFO", "feed.import", "supplier feed {n} imported: {some} rows, 0 rejected"),
        (0.8, "WARN", "stock.level", "{sku} fell below its reorder point, {few} left"),
    ),
    *_lines(
        "accounts",
        (7, "INFO", "accounts.login", "User {user} signed in from {ip}"),
        (5, "INFO", "accounts.tokens", "Refreshed access token for user {user}, expires in 900 s"),
        (1, "WARNING", "accounts.login", "Wrong password for user {user} from {ip}, attempt {few}"),
        (0.6, "INFO", "accounts.mail", "Password reset link sent to user {user}"),
    ),
    *_lines(
        "postgres",
        (2, "LOG", "shop@orders", "duration: {ms}.412 ms  execute fetch_cart: SELECT * FROM carts WHERE id = $1"),
        (1, "LOG", "-", "checkpoint complete: wrote {some} buffers ({pct}%); 0 WAL file(s) added, 0 removed, 1 recycled"),
        (0.7, "LOG", "-", 'automatic vacuum of table "shop.public.carts": index scans: 1, pages: {few} removed, {n} remain'),
        (0.4, "ERROR", "shop@accounts", 'duplicate key value violates unique constraint "newsletter_email_key"'),
    ),
    *_lines(
        "redis",
        (2, "INFO", "*", "100 changes in 300 seconds. Saving..."),
        (2, "INFO", "*", "Background saving terminated with success, {mb} MB of memory used by copy-on-write"),
        (1, "INFO", "-", "DB 0: {n} keys ({mb} volatile) in {kb} slots HT, hit rate {hit}%"),
    ),
    *_lines(
        "scheduler",
        (4, "INFO", "heartbeat.go:24", '"Heartbeat" node="worker-{few}" lag="{ms}ms"'),
        (2, "INFO", "jobs.go:117", '"Job finished" job="sitemap" duration="{s}s"'),
        (2, "INFO", "jobs.go:117", '"Job finished" job="abandoned-carts" duration="{s}s" mails={some}'),
        (0.8, "WARN", "jobs.go:131", '"Job still running at its next start, skipped" job="recommendations"'),
    ),
]

_POOL_TRACE = """Could not open a transaction for order {order}
org.springframework.transaction.CannotCreateTransactionException: Could not open JPA EntityManager for transaction
\tat org.springframework.orm.jpa.JpaTransactionManager.doBegin(JpaTransactionManager.java:467)
\tat com.shop.payments.ChargeService.capture(ChargeService.java:214)
\tat com.shop.payments.api.PayController.pay(PayController.java:88)
Caused by: java.sql.SQLTransientConnectionException: payments-pool - Connection is not available, request timed out after \
{limit}ms (total=8, active=8, idle=0, waiting={waiting})
\tat com.zaxxer.hikari.pool.HikariPool.createTimeoutException(HikariPool.java:686)
\t... 34 common frames omitted"""

INCIDENT: list[Wave] = [
    Wave(since, Line(*row))
    for since, row in (
        (3.5, ("payments", 22, "WARN", "c.z.hikari.pool.HikariPool",
               "payments-pool - Connection is not available, request timed out after {limit}ms "
               "(total=8, active=8, idle=0, waiting={waiting})")),
        (4.0, ("payments", 9, "ERROR", "c.s.payments.ChargeService", _POOL_TRACE)),
        (5.0, ("payments", 20, "WARN", "c.s.payments.BankGatewayClient",
               "Bank gateway authorize attempt {attempt} of 3 for order {order} got no answer within 10000 ms, "
               "retrying with a new idempotency key")),
        (6.5, ("payments", 12, "ERROR", "c.s.payments.DuplicateChargeGuard",
               "Duplicate charge guard tripped: order {order} is already authorized, "
               "second capture of {money} blocked for review")),
        (4.5, ("checkout", 14, "ERROR", "payment",
               "Payment step failed for order {order}: payments answered 503 after 30 s")),
        (6.0, ("checkout", 6, "WARN", "circuit", "Circuit breaker for payments half-open, {some} of 60 probes failed")),
        (4.5, ("gateway", 16, "INFO", "access", "504 POST /api/pay {cut}")),
        (4.5, ("gateway", 8, "ERROR", "error",
               "upstream timed out (110: Connection timed out) while reading response header from upstream, "
               'client: {ip}, request: "POST /api/pay HTTP/1.1", upstream: "http://payments:8080/pay"')),
        (9.0, ("orders", 7, "WARN", "state.go:158",
               'msg="order stuck in pending_payment" order={order} age={some}m next=manual_review')),
    )
]  # fmt: skip
