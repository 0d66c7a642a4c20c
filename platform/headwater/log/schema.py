"""The tables of `log.db`, and how an older database becomes the present one.

A record's id is `topic << 40 | seq`: records of a topic lie together in arrival order, and one integer names a record
in every derived index. With one partition (the default) a record's offset IS its seq; only topics with several
partitions need rows in `spread` to find a record by its address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.errors import StorageError

if TYPE_CHECKING:
    import apsw

SEQ_BITS = 40
SEQ_MASK = (1 << SEQ_BITS) - 1

# Conversations and answers; also the tables of those kept in memory alone. Part of an entry below: never edited once released.
CONVERSATIONS = """
    CREATE TABLE conversation(
        id TEXT PRIMARY KEY, title TEXT NOT NULL, system TEXT NOT NULL, model TEXT, max_context_tokens INTEGER NOT NULL,
        ttl_ms INTEGER, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, expires_ms INTEGER,
        summary TEXT NOT NULL DEFAULT '', summarized INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
    CREATE TABLE message(conversation TEXT, n INTEGER, role TEXT NOT NULL, text TEXT NOT NULL, created_ms INTEGER NOT NULL,
        answer TEXT, model TEXT, PRIMARY KEY(conversation, n)) WITHOUT ROWID;
    CREATE INDEX message_answer ON message(answer) WHERE answer IS NOT NULL;
    CREATE TABLE answer(id TEXT PRIMARY KEY, conversation TEXT, created_ms INTEGER NOT NULL, body BLOB NOT NULL,
        made BLOB NOT NULL, shown TEXT NOT NULL);
    CREATE INDEX answer_age ON answer(created_ms);
    CREATE INDEX answer_conversation ON answer(conversation) WHERE conversation IS NOT NULL;
    CREATE TABLE answer_record(record INTEGER, answer TEXT, PRIMARY KEY(record, answer)) WITHOUT ROWID;
    CREATE INDEX answer_record_answer ON answer_record(answer);
    """

# One entry a version, each run in one transaction with the bump of user_version. Entries are never edited once released.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE topic(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL, passages TEXT,
        model TEXT, generation INTEGER NOT NULL DEFAULT 1, created_ms INTEGER NOT NULL, next_seq INTEGER NOT NULL DEFAULT 0,
        first_seq INTEGER NOT NULL DEFAULT 0, records INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE head(topic INTEGER, partition INTEGER, next_offset INTEGER NOT NULL,
        PRIMARY KEY(topic, partition)) WITHOUT ROWID;
    CREATE TABLE record(
        id INTEGER PRIMARY KEY, partition INTEGER NOT NULL, offset INTEGER NOT NULL, time_ms INTEGER NOT NULL,
        appended_ms INTEGER NOT NULL, key TEXT, value TEXT NOT NULL, attributes BLOB, stream INTEGER, position INTEGER,
        raw BLOB, vector BLOB, body INTEGER);
    CREATE UNIQUE INDEX record_position ON record(stream, position) WHERE stream IS NOT NULL;
    CREATE TABLE spread(topic INTEGER, partition INTEGER, offset INTEGER, seq INTEGER NOT NULL,
        PRIMARY KEY(topic, partition, offset)) WITHOUT ROWID;
    CREATE TABLE stream(id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, name TEXT NOT NULL,
        last_position INTEGER NOT NULL DEFAULT -1, UNIQUE(topic, name));
    CREATE TABLE source(name TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE delivery(topic INTEGER, key TEXT, digest BLOB NOT NULL, receipts BLOB NOT NULL, created_ms INTEGER NOT NULL,
        PRIMARY KEY(topic, key)) WITHOUT ROWID;
    CREATE INDEX delivery_age ON delivery(created_ms);
    CREATE TABLE cursor(topic INTEGER, name TEXT, seq INTEGER NOT NULL, PRIMARY KEY(topic, name)) WITHOUT ROWID;
    CREATE TABLE dead_letter(
        id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL, seq INTEGER,
        source TEXT, payload TEXT NOT NULL, created_ms INTEGER NOT NULL);
    CREATE INDEX dead_letter_seq ON dead_letter(topic, seq);

    CREATE TABLE passage(
        id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, digest BLOB NOT NULL, text TEXT NOT NULL, context TEXT,
        level TEXT, count INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, first_ms INTEGER NOT NULL,
        last_ms INTEGER NOT NULL, UNIQUE(topic, digest));
    CREATE INDEX passage_topic ON passage(topic, id);
    CREATE TABLE alias(old INTEGER PRIMARY KEY, new INTEGER NOT NULL);
    CREATE INDEX alias_new ON alias(new);
    CREATE TABLE occurrence(record INTEGER, n INTEGER, passage INTEGER NOT NULL, start INTEGER, stop INTEGER,
        PRIMARY KEY(record, n)) WITHOUT ROWID;
    CREATE INDEX occurrence_passage ON occurrence(passage, record);
    CREATE TABLE template(topic INTEGER, text TEXT, state TEXT NOT NULL, PRIMARY KEY(topic, text)) WITHOUT ROWID;
    CREATE TABLE model(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE vector(topic INTEGER, model INTEGER, passage INTEGER, segment TEXT, data BLOB NOT NULL,
        PRIMARY KEY(topic, model, passage)) WITHOUT ROWID;
    CREATE INDEX vector_segment ON vector(segment) WHERE segment IS NOT NULL;
    CREATE TABLE segment(name TEXT PRIMARY KEY, topic INTEGER NOT NULL, model INTEGER NOT NULL, count INTEGER NOT NULL,
        min_id INTEGER NOT NULL, max_id INTEGER NOT NULL, manifest TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE shadow(topic INTEGER PRIMARY KEY, model INTEGER NOT NULL, state TEXT NOT NULL, config TEXT NOT NULL,
        threshold REAL, next_passage INTEGER NOT NULL DEFAULT 0, started_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
        report TEXT);
    CREATE TABLE asked(topic INTEGER, text TEXT, at_ms INTEGER NOT NULL, PRIMARY KEY(topic, text)) WITHOUT ROWID;
    """,
    """
    ALTER TABLE stream ADD COLUMN floor INTEGER NOT NULL DEFAULT -1;
    CREATE TABLE gone(stream INTEGER, position INTEGER, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
        seq INTEGER NOT NULL, PRIMARY KEY(stream, position)) WITHOUT ROWID;
    CREATE TABLE unindexed(topic INTEGER, seq INTEGER, PRIMARY KEY(topic, seq)) WITHOUT ROWID;
    """,
    """
    CREATE TABLE roster(name TEXT PRIMARY KEY, settings TEXT, paused INTEGER NOT NULL, created_ms INTEGER NOT NULL)
        WITHOUT ROWID;
    """,
    # Which vectors a segment holds stands in its own row: a new one costs one row, not an update of a million. Segments of
    # before are built anew.
    """
    DROP INDEX vector_segment;
    ALTER TABLE vector DROP COLUMN segment;
    DELETE FROM segment;
    ALTER TABLE segment ADD COLUMN runs BLOB NOT NULL DEFAULT x'';
    """,
    """
    CREATE TABLE watch(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, starts TEXT NOT NULL,
        own TEXT NOT NULL, times TEXT NOT NULL, armed INTEGER NOT NULL, fired INTEGER NOT NULL, last_ms INTEGER,
        created_ms INTEGER NOT NULL, expires_ms INTEGER, owner TEXT);
    CREATE TABLE watch_hit(watch INTEGER, n INTEGER, record INTEGER NOT NULL, address TEXT NOT NULL, why TEXT NOT NULL,
        score REAL NOT NULL, count INTEGER, fired_ms INTEGER NOT NULL, PRIMARY KEY(watch, n)) WITHOUT ROWID;
    """,
    CONVERSATIONS,
    # What chat models took, by day (of the epoch, UTC); `held_*` is what calls under way may take at most.
    """
    CREATE TABLE model_use(day INTEGER, model TEXT, calls INTEGER NOT NULL DEFAULT 0, input INTEGER NOT NULL DEFAULT 0,
        output INTEGER NOT NULL DEFAULT 0, cost REAL NOT NULL DEFAULT 0, unpriced INTEGER NOT NULL DEFAULT 0,
        held_tokens INTEGER NOT NULL DEFAULT 0, held_cost REAL NOT NULL DEFAULT 0, PRIMARY KEY(day, model)) WITHOUT ROWID;
    """,
    # Who called which tool of agents: rows are added and never changed.
    """
    CREATE TABLE tool_call(n INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, who TEXT NOT NULL, tool TEXT NOT NULL,
        arguments TEXT NOT NULL, size INTEGER NOT NULL, seconds REAL NOT NULL, failed INTEGER NOT NULL);
    CREATE TRIGGER tool_call_stays BEFORE DELETE ON tool_call BEGIN SELECT RAISE(ABORT, 'the log of calls is append-only'); END;
    CREATE TRIGGER tool_call_holds BEFORE UPDATE ON tool_call BEGIN SELECT RAISE(ABORT, 'the log of calls is append-only'); END;
    """,
    # Versions of documents that were replaced, and by which seq.
    "CREATE TABLE former(record INTEGER PRIMARY KEY, until INTEGER NOT NULL);",
    # Pipelines, and what steps have decided: of a passage (its id), or of a text (below 0). Decisions go with their passage.
    """
    CREATE TABLE pipeline(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, version INTEGER NOT NULL,
        state TEXT NOT NULL, created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, starts TEXT NOT NULL,
        records INTEGER NOT NULL DEFAULT 0, written INTEGER NOT NULL DEFAULT 0, passages INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
        cost REAL DEFAULT 0);
    CREATE TABLE decision(item INTEGER, version TEXT, topic INTEGER, outcome BLOB NOT NULL, made_ms INTEGER NOT NULL,
        PRIMARY KEY(item, version)) WITHOUT ROWID;
    CREATE TRIGGER decision_of_passage AFTER DELETE ON passage BEGIN DELETE FROM decision WHERE item = OLD.id; END;
    CREATE TRIGGER decision_of_topic AFTER DELETE ON topic BEGIN
        DELETE FROM decision WHERE item < 0 AND topic = OLD.id; END;
    """,
    # Detectors: their settings, what they have learned (as of their cursor), and what they found; all go with their topic.
    """
    CREATE TABLE detector(topic INTEGER PRIMARY KEY, spec TEXT NOT NULL);
    CREATE TABLE detector_state(topic INTEGER PRIMARY KEY, state BLOB NOT NULL);
    CREATE TABLE anomaly(topic INTEGER, n INTEGER, kind TEXT NOT NULL, severity TEXT NOT NULL, start_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL, found_ms INTEGER NOT NULL, alerted INTEGER NOT NULL, quiet TEXT, feedback TEXT, note TEXT,
        body BLOB NOT NULL, told INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(topic, n)) WITHOUT ROWID;
    CREATE INDEX anomaly_start ON anomaly(start_ms);
    CREATE TRIGGER detector_of_topic AFTER DELETE ON topic BEGIN
        DELETE FROM detector WHERE topic = OLD.id; DELETE FROM detector_state WHERE topic = OLD.id;
        DELETE FROM anomaly WHERE topic = OLD.id; END;
    """,
    # Webhooks: what each gets, and what it is to be sent. The transaction that writes a hit or an alert also puts it into the
    # outbox; of each webhook the newest 10,000 stay. `due_ms` is NULL once a call is given up.
    """
    CREATE TABLE webhook(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, url TEXT NOT NULL, secret TEXT NOT NULL,
        private INTEGER NOT NULL, tries INTEGER NOT NULL, paused TEXT, created_ms INTEGER NOT NULL,
        made INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0, wait_ms INTEGER NOT NULL DEFAULT 0, sent_ms INTEGER, failed_ms INTEGER,
        error TEXT);
    CREATE TABLE webhook_for(kind TEXT, of INTEGER, webhook INTEGER, PRIMARY KEY(kind, of, webhook)) WITHOUT ROWID;
    CREATE TABLE outbox(webhook INTEGER, n INTEGER, id TEXT NOT NULL, kind TEXT NOT NULL, of INTEGER NOT NULL,
        at INTEGER NOT NULL, made_ms INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due_ms INTEGER DEFAULT 0, error TEXT,
        PRIMARY KEY(webhook, n)) WITHOUT ROWID;
    CREATE TRIGGER hit_out AFTER INSERT ON watch_hit
        WHEN EXISTS (SELECT 1 FROM webhook_for WHERE kind = 'watch' AND of IN (0, NEW.watch)) BEGIN
        UPDATE webhook SET made = made + 1 WHERE id IN
            (SELECT webhook FROM webhook_for WHERE kind = 'watch' AND of IN (0, NEW.watch));
        INSERT INTO outbox(webhook, n, id, kind, of, at, made_ms)
            SELECT id, made, lower(hex(randomblob(12))), 'watch', NEW.watch, NEW.n, NEW.fired_ms FROM webhook WHERE id IN
            (SELECT webhook FROM webhook_for WHERE kind = 'watch' AND of IN (0, NEW.watch)); END;
    CREATE TRIGGER alert_out AFTER INSERT ON anomaly
        WHEN NEW.alerted AND EXISTS (SELECT 1 FROM webhook_for WHERE kind = 'alert' AND of IN (0, NEW.topic)) BEGIN
        UPDATE webhook SET made = made + 1 WHERE id IN
            (SELECT webhook FROM webhook_for WHERE kind = 'alert' AND of IN (0, NEW.topic));
        INSERT INTO outbox(webhook, n, id, kind, of, at, made_ms)
            SELECT id, made, lower(hex(randomblob(12))), 'alert', NEW.topic, NEW.n, NEW.found_ms FROM webhook WHERE id IN
            (SELECT webhook FROM webhook_for WHERE kind = 'alert' AND of IN (0, NEW.topic)); END;
    CREATE TRIGGER outbox_bound AFTER INSERT ON outbox WHEN NEW.n > 10000 BEGIN
        UPDATE webhook SET dropped = dropped + (SELECT count(*) FROM outbox
            WHERE webhook = NEW.webhook AND n <= NEW.n - 10000 AND due_ms IS NOT NULL) WHERE id = NEW.webhook;
        DELETE FROM outbox WHERE webhook = NEW.webhook AND n <= NEW.n - 10000; END;
    CREATE TRIGGER watch_out AFTER DELETE ON watch BEGIN
        DELETE FROM webhook_for WHERE kind = 'watch' AND of = OLD.id;
        DELETE FROM outbox WHERE kind = 'watch' AND of = OLD.id; END;
    CREATE TRIGGER topic_out AFTER DELETE ON topic BEGIN
        DELETE FROM webhook_for WHERE kind = 'alert' AND of = OLD.id;
        DELETE FROM outbox WHERE kind = 'alert' AND of = OLD.id; END;
    """,
    # Random bytes that only this data directory has: pseudonyms of keys are made by them.
    "CREATE TABLE secret(name TEXT PRIMARY KEY, value BLOB NOT NULL);",
)


def migrate(db: apsw.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring a database to the present version, all or nothing for each step; a newer database is refused."""
    version = int(db.pragma("user_version"))
    if version > len(migrations):
        raise StorageError(
            f"{db.filename} was written by a newer Headwater (schema {version}, this one knows {len(migrations)}); "
            "upgrade Headwater, or restore a backup made with this version"
        )
    for number in range(version, len(migrations)):
        with db:
            for _ in db.execute(migrations[number]):
                pass
            db.pragma("user_version", number + 1)
