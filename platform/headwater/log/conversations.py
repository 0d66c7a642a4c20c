"""What is kept of conversations and of answers: the SQL, over the log or over a database in memory alone.

A conversation that is not to persist lives in `Volatile`, a second place of the same tables that ends with the process.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import orjson

from headwater.log.schema import CONVERSATIONS, SEQ_BITS

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")
REMOVED = "(removed: it told of records that were deleted)"
_COLUMNS = "id, title, system, model, max_context_tokens, ttl_ms, created_ms, updated_ms, expires_ms, summary, summarized"
_SETTABLE = ("title", "system", "model", "max_context_tokens", "ttl_ms", "expires_ms")


class Shelf(Protocol):
    """A database with the tables of conversations: the log, or memory."""

    def write(self, write: Callable[[apsw.Connection], T]) -> T: ...

    def reading(self) -> contextlib.AbstractContextManager[apsw.Connection]: ...


class Volatile:
    """The tables in memory, for what is not to persist. Thread-safe."""

    def __init__(self) -> None:
        import apsw

        self._db, self._alone = apsw.Connection(":memory:"), threading.Lock()
        for _ in self._db.execute(CONVERSATIONS):
            pass

    def write(self, write: Callable[[apsw.Connection], T]) -> T:
        """Run a write as one transaction."""
        with self._alone:
            self._db.execute("SAVEPOINT one")
            try:
                done = write(self._db)
            except BaseException:
                self._db.execute("ROLLBACK TO one")
                raise
            finally:
                self._db.execute("RELEASE one")
            return done

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """The connection, for reads."""
        with self._alone:
            yield self._db

    def close(self) -> None:
        self._db.close()


class ConversationRow(NamedTuple):
    """A conversation as stored. Messages up to `summarized` are told by `summary`."""

    id: str
    title: str
    system: str
    model: str | None
    max_context_tokens: int
    ttl_ms: int | None
    created_ms: int
    updated_ms: int
    expires_ms: int | None
    summary: str = ""
    summarized: int = 0
    messages: int = 0


class MessageRow(NamedTuple):
    """A message as stored."""

    n: int
    role: str
    text: str
    created_ms: int
    answer: str | None = None
    model: str | None = None


class AnswerRow(NamedTuple):
    """An answer as stored: `body` is the Answer as JSON, `made` what it was made of, `shown` the text its stream showed."""

    id: str
    conversation: str | None
    created_ms: int
    body: bytes
    made: bytes
    shown: str


# ------------------------------------------------------------------------------------------------------- conversations


def create(db: apsw.Connection, row: ConversationRow) -> bool:
    """Keep a new conversation; False where there is one of its id."""
    db.execute(f"INSERT OR IGNORE INTO conversation({_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?)", row[:11])
    return bool(db.changes())


def change(db: apsw.Connection, id: str, values: Mapping[str, Any]) -> bool:
    """Set columns of a conversation; False where there is none."""
    names = [name for name in _SETTABLE if name in values]
    sets = ", ".join(f"{name} = ?" for name in names) or "id = id"
    db.execute(f"UPDATE conversation SET {sets} WHERE id = ?", (*(values[name] for name in names), id))
    return bool(db.changes())


def read(shelf: Shelf, id: str | None = None) -> list[ConversationRow]:
    """The conversation of that id, or all, the one spoken in last first."""
    chosen = "" if id is None else "WHERE id = ?"
    counted = "(SELECT COUNT(*) FROM message m WHERE m.conversation = c.id)"
    query = f"SELECT {_COLUMNS}, {counted} FROM conversation c {chosen} ORDER BY updated_ms DESC, id"
    with shelf.reading() as db:
        return [ConversationRow._make(r) for r in db.execute(query, () if id is None else (id,))]


def messages(shelf: Shelf, id: str, *, after: int = 0, before: int | None = None, limit: int = 1000) -> list[MessageRow]:
    """The newest `limit` messages with number > `after` and < `before`, oldest first."""
    query = (
        "SELECT n, role, text, created_ms, answer, model FROM message WHERE conversation = ? AND n > ? AND n < ?"
        " ORDER BY n DESC LIMIT ?"
    )
    with shelf.reading() as db:
        found = [MessageRow._make(r) for r in db.execute(query, (id, after, (1 << 62) if before is None else before, limit))]
    return found[::-1]


def say(db: apsw.Connection, id: str, said: Sequence[MessageRow], now_ms: int) -> None:
    """Put messages behind those of a conversation, numbered on; its end moves on by its ttl. One that is gone stays so."""
    last = db.execute("SELECT COALESCE(MAX(n), 0) FROM message WHERE conversation = ?", (id,)).get
    rows = [(id, last + k, m.role, m.text, m.created_ms, m.answer, m.model) for k, m in enumerate(said, 1)]
    known = "WHERE EXISTS (SELECT 1 FROM conversation WHERE id = ?1)"
    db.executemany(f"INSERT INTO message SELECT ?1,?2,?3,?4,?5,?6,?7 {known}", rows)
    moved = "updated_ms = MAX(updated_ms, ?1), expires_ms = ?1 + ttl_ms"
    titled = "title = CASE WHEN title = '' THEN ?3 ELSE title END"
    first = next((m.text for m in said if m.role == "user"), "")
    db.execute(f"UPDATE conversation SET {moved}, {titled} WHERE id = ?2", (now_ms, id, " ".join(first.split())[:80]))


def summarized(db: apsw.Connection, id: str, summary: str, upto: int) -> None:
    """Keep a summary of a conversation's messages up to one."""
    db.execute("UPDATE conversation SET summary = ?, summarized = ? WHERE id = ? AND summarized < ?", (summary, upto, id, upto))


def drop(db: apsw.Connection, ids: Sequence[str]) -> int:
    """Forget conversations with their messages and answers: how many there were."""
    chosen = (_list(ids),)
    db.execute("DELETE FROM message WHERE conversation IN (SELECT value FROM json_each(?))", chosen)
    _drop_answers(db, "conversation IN (SELECT value FROM json_each(?))", chosen)
    db.execute("DELETE FROM conversation WHERE id IN (SELECT value FROM json_each(?))", chosen)
    return int(db.changes())


def expired(shelf: Shelf, now_ms: int) -> list[str]:
    """Conversations whose end has come."""
    with shelf.reading() as db:
        return [r[0] for r in db.execute("SELECT id FROM conversation WHERE expires_ms <= ?", (now_ms,))]


# ------------------------------------------------------------------------------------------------------------- answers


def keep(db: apsw.Connection, row: AnswerRow, records: Iterable[int], most: int) -> None:
    """Keep an answer made of records (by id); the oldest beyond `most` go."""
    db.execute("INSERT OR REPLACE INTO answer VALUES(?,?,?,?,?,?)", row)
    db.executemany("INSERT OR IGNORE INTO answer_record VALUES(?,?)", [(record, row.id) for record in set(records)])
    old = "id IN (SELECT id FROM answer ORDER BY created_ms DESC, id DESC LIMIT -1 OFFSET ?)"
    _drop_answers(db, old, (most,))


def answers(shelf: Shelf, *, conversation: str | None = None, limit: int = 50) -> list[AnswerRow]:
    """The newest answers (of a conversation), newest first."""
    chosen, values = ("", ()) if conversation is None else ("WHERE conversation = ?", (conversation,))
    columns = "id, conversation, created_ms, body, made, shown"
    query = f"SELECT {columns} FROM answer {chosen} ORDER BY created_ms DESC, id DESC LIMIT ?"
    with shelf.reading() as db:
        return [AnswerRow._make(r) for r in db.execute(query, (*values, limit))]


def answer(shelf: Shelf, id: str) -> AnswerRow | None:
    """An answer that is kept."""
    query = "SELECT id, conversation, created_ms, body, made, shown FROM answer WHERE id = ?"
    with shelf.reading() as db:
        return next((AnswerRow._make(r) for r in db.execute(query, (id,))), None)


def purge(db: apsw.Connection, topic: int) -> int:
    """Forget the answers that were made of records of a topic that are gone, and what conversations say after them: how many
    answers. Summaries of those conversations are made anew from what is left."""
    low, high = topic << SEQ_BITS, (topic + 1) << SEQ_BITS
    gone = f"SELECT answer FROM answer_record a WHERE record >= {low} AND record < {high}"
    gone += " AND NOT EXISTS (SELECT 1 FROM record r WHERE r.id = a.record)"
    ids = [r[0] for r in db.execute(f"SELECT DISTINCT answer FROM ({gone})")]
    if not ids:
        return 0
    chosen = _list(ids)
    among = "(SELECT value FROM json_each(?))"
    spoken = list(db.execute(f"SELECT DISTINCT conversation FROM message WHERE answer IN {among}", (chosen,)))
    db.execute(f"UPDATE message SET text = ?, answer = NULL WHERE answer IN {among}", (REMOVED, chosen))
    db.executemany("UPDATE conversation SET summary = '', summarized = 0 WHERE id = ?", spoken)
    _drop_answers(db, f"id IN {among}", (chosen,))
    return len(ids)


def _drop_answers(db: apsw.Connection, where: str, values: Sequence[Any]) -> None:
    db.execute(f"DELETE FROM answer_record WHERE answer IN (SELECT id FROM answer WHERE {where})", values)
    db.execute(f"DELETE FROM answer WHERE {where}", values)


def _list(ids: Sequence[str]) -> str:
    return orjson.dumps(list(ids)).decode()
