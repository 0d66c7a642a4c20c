"""What the log keeps of webhooks: whom to call, for what, and the outbox of calls to be made.

The outbox is filled by triggers of the tables of hits and of anomalies (`schema`): whatever writes them, what is to be sent of
them is in the same transaction. How a try went is written here, so that a restart goes on with the same tries and ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from headwater.log.store import Log
from headwater.records.webhooks import CallKind

if TYPE_CHECKING:
    import apsw

_HOOK = "id, name, url, secret, private, tries, paused, created_ms, sent, dropped, failures, wait_ms, sent_ms, failed_ms, error"
_CALL = "webhook, n, id, kind, of, at, made_ms, tries, due_ms, error"


class Hook(NamedTuple):
    """A webhook as stored. It is not called before `wait_ms`; `failures` counts tries in a row that its receiver did not
    answer."""

    id: int
    name: str
    url: str
    secret: str
    private: bool
    tries: int
    paused: str | None
    created_ms: int
    sent: int
    dropped: int
    failures: int
    wait_ms: int
    sent_ms: int | None
    failed_ms: int | None
    error: str | None


class CallRow(NamedTuple):
    """A call as stored: `of` and `at` are topic and number of an anomaly, or watch and number of a hit; `due_ms` is None once
    it was given up."""

    webhook: int
    n: int
    id: str
    kind: CallKind
    of: int
    at: int
    made_ms: int
    tries: int
    due_ms: int | None
    error: str | None


def read(log: Log) -> list[Hook]:
    """Every webhook, oldest first."""
    with log.reading() as db:
        found = db.execute(f"SELECT {_HOOK} FROM webhook ORDER BY id")
        return [Hook._make(r)._replace(private=bool(r[4])) for r in found]


def meant(log: Log) -> dict[int, list[tuple[CallKind, int]]]:
    """webhook -> what it is called for: kind, and the id of a topic or a watch (0 for all)."""
    found: dict[int, list[tuple[CallKind, int]]] = {}
    with log.reading() as db:
        for webhook, kind, of in db.execute("SELECT webhook, kind, of FROM webhook_for ORDER BY kind, of"):
            found.setdefault(webhook, []).append((kind, of))
    return found


def create(
    db: apsw.Connection, name: str | None, url: str, secret: str, private: bool, tries: int, now_ms: int,
    wanted: Sequence[tuple[CallKind, int]],
) -> int:  # fmt: skip
    """Keep a new webhook: its id. Without a name it is called after that."""
    made = "INSERT INTO webhook(name, url, secret, private, tries, created_ms) VALUES(?,?,?,?,?,?)"
    db.execute(made, (name or "", url, secret, private, tries, now_ms))
    id = db.last_insert_rowid()
    if name is None:
        db.execute("UPDATE webhook SET name = ? WHERE id = ?", (f"webhook{id}", id))
    db.executemany("INSERT INTO webhook_for VALUES(?,?,?)", [(kind, of, id) for kind, of in wanted])
    return id


def drop(db: apsw.Connection, id: int) -> None:
    """Forget a webhook with its calls."""
    db.execute("DELETE FROM webhook WHERE id = ?", (id,))
    db.execute("DELETE FROM webhook_for WHERE webhook = ?", (id,))
    db.execute("DELETE FROM outbox WHERE webhook = ?", (id,))


def pause(db: apsw.Connection, id: int, why: str) -> None:
    """Call it no more."""
    db.execute("UPDATE webhook SET paused = ? WHERE id = ?", (why, id))


def resume(db: apsw.Connection, id: int) -> None:
    """Call it again, with everything it has not got, as if for the first time."""
    db.execute("UPDATE webhook SET paused = NULL, failures = 0, wait_ms = 0, error = NULL WHERE id = ?", (id,))
    db.execute("UPDATE outbox SET due_ms = 0, tries = 0 WHERE webhook = ?", (id,))


def next_call(log: Log, id: int, now_ms: int) -> CallRow | None:
    """The oldest call of a webhook that is due."""
    with log.reading() as db:
        chosen = f"SELECT {_CALL} FROM outbox WHERE webhook = ? AND due_ms <= ? ORDER BY n LIMIT 1"
        found = db.execute(chosen, (id, now_ms)).fetchone()
    return None if found is None else CallRow._make(found)


def due(log: Log) -> dict[int, int]:
    """webhook -> when it is to be called next (ms), for those that are to be."""
    query = (
        "SELECT w.id, max(w.wait_ms, (SELECT min(due_ms) FROM outbox WHERE webhook = w.id)) AS at FROM webhook w"
        " WHERE paused IS NULL AND at IS NOT NULL"
    )
    with log.reading() as db:
        return dict(db.execute(query))


def calls(log: Log, id: int, limit: int) -> list[CallRow]:
    """The oldest calls of a webhook that have not succeeded."""
    with log.reading() as db:
        found = db.execute(f"SELECT {_CALL} FROM outbox WHERE webhook = ? ORDER BY n LIMIT ?", (id, limit))
        return [CallRow._make(r) for r in found]


def counts(log: Log) -> dict[int, tuple[int, int]]:
    """webhook -> calls that wait, calls given up."""
    with log.reading() as db:
        found = db.execute("SELECT webhook, count(due_ms), sum(due_ms IS NULL) FROM outbox GROUP BY webhook")
        return {id: (waiting, lost) for id, waiting, lost in found}


def succeeded(db: apsw.Connection, call: CallRow, now_ms: int) -> None:
    """A call arrived."""
    db.execute("DELETE FROM outbox WHERE webhook = ? AND n = ?", (call.webhook, call.n))
    done = "UPDATE webhook SET sent = sent + 1, failures = 0, wait_ms = 0, sent_ms = ?, error = NULL WHERE id = ?"
    db.execute(done, (now_ms, call.webhook))


def vanished(db: apsw.Connection, call: CallRow) -> None:
    """What a call was about is not kept any more."""
    db.execute("DELETE FROM outbox WHERE webhook = ? AND n = ?", (call.webhook, call.n))
    db.execute("UPDATE webhook SET dropped = dropped + ? WHERE id = ?", (db.changes(), call.webhook))


def failed(
    db: apsw.Connection, call: CallRow, now_ms: int, error: str, *, due_ms: int | None, wait_ms: int | None, counts: bool
) -> None:
    """A try failed: the call is due again at `due_ms` (None: it is given up), its receiver at `wait_ms` where it did not answer
    at all. One that did not leave this machine does not count."""
    tried = "UPDATE outbox SET tries = tries + ?, due_ms = ?, error = ? WHERE webhook = ? AND n = ?"
    db.execute(tried, (int(counts), due_ms, error, call.webhook, call.n))
    db.execute("UPDATE webhook SET failed_ms = ?, error = ? WHERE id = ?", (now_ms, error, call.webhook))
    if wait_ms is not None:
        db.execute("UPDATE webhook SET failures = failures + 1, wait_ms = ? WHERE id = ?", (wait_ms, call.webhook))
