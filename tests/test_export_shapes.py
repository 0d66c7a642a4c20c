"""Exports of the same programs in other shapes: by other tools, packed, in other encodings; each keeps text, key and time."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headwater.errors import LimitError
from headwater.records import Draft, from_ms
from headwater.sources.exports.reading import Export, ExportReading, export_of

AT = datetime(2024, 3, 5, 10, 11, 12, tzinfo=UTC)
MAIL = b"From a@b Tue Mar 05 10:11:12 +0000 2024\nFrom: Ann\nSubject: Ropes\n\nWe need ropes.\n"
ISSUE = {
    "html_url": "https://github.com/o/r/issues/1", "id": 5, "number": 1, "title": "Crash", "user": None, "state": "open",
    "created_at": "2024-03-05T10:11:12Z", "updated_at": "2024-03-05T10:11:12Z", "body": "It\r\ncrashes",
}  # fmt: skip


def load(path: Path, expected: Export) -> list[Draft]:
    assert export_of(path) == expected
    with ExportReading(path, expected) as batches:
        found = list(batches)
    assert [fault for batch in found for fault in batch.faults] == []
    return [draft for batch in found for draft in batch.drafts]


def write(path: Path, content: Any) -> Path:
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_packed_exports_are_told_and_read_by_what_is_in_them(tmp_path: Path) -> None:
    (mail,) = load(write(tmp_path / "list.mbox.gz", gzip.compress(MAIL)), "mbox")
    assert (mail.value, mail.time_ms) == ("Ropes\n\nWe need ropes.", AT.timestamp() * 1000)
    (issue,) = load(write(tmp_path / "issues.json.gz", gzip.compress(json.dumps([ISSUE]).encode())), "github")
    assert (issue.value, issue.key) == ("Crash\n\nIt\ncrashes", "o/r#1")
    bomb = write(tmp_path / "bomb.mbox.gz", gzip.compress(MAIL + b"\0" * (40 << 20), 9))
    with pytest.raises(LimitError, match="bomb"):
        ExportReading(bomb, "mbox")


def test_slack_messages_of_apps_have_the_text_of_their_blocks_and_attachments(tmp_path: Path) -> None:
    rich = {"type": "rich_text_section", "elements": [
        {"type": "text", "text": "ask "}, {"type": "user", "user_id": "U1"}, {"type": "text", "text": " about "},
        {"type": "link", "url": "https://x.y", "text": "the runbook"}]}  # fmt: skip
    alert = {"title": "CPU high", "fields": [{"title": "severity", "value": "critical"}], "fallback": "no",
             "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "on db-7"}}]}  # fmt: skip
    messages = [
        {"ts": "1709633472.000100", "user": "U1", "text": "", "blocks": [{"type": "rich_text", "elements": [rich]}]},
        {"ts": "1709633473.000100", "bot_id": "B1", "username": "pager", "text": None, "attachments": [alert]},
        {"ts": "1709633474.000100", "user": "U1", "text": "<!subteam^S1|@oncall> look", "blocks": [{"text": "twice"}]},
    ]
    with zipfile.ZipFile(tmp_path / "slack.zip", "w") as zip:
        zip.writestr("Team export/users.json", json.dumps([{"id": "U1", "name": "ann"}]))
        zip.writestr("Team export/channels.json", json.dumps([{"id": "C1", "name": "general"}]))
        zip.writestr("Team export/general/2024-03-05.json", json.dumps(messages))
    values = [draft.value for draft in load(tmp_path / "slack.zip", "slack")]
    assert values == ["ask @ann about the runbook (https://x.y)", "CPU high\nseverity: critical\non db-7", "@oncall look"]


def test_discord_replies_to_replies_are_one_thread(tmp_path: Path) -> None:
    def message(n: int, above: int | None) -> dict[str, Any]:
        reference = {} if above is None else {"reference": {"messageId": str(above)}}
        return {"id": str(n), "type": "Reply", "timestamp": "2024-03-05T10:11:12+00:00", "content": f"m{n}", **reference}

    tree = {"guild": {"name": "g"}, "channel": {"id": "9", "name": "help"}}
    messages = [message(1, None), message(2, 1), message(3, 2), message(5, 5)]
    drafts = load(write(tmp_path / "d.json", {**tree, "messages": messages}), "discord")
    assert [draft.attributes.get("thread") for draft in drafts] == [None, "help/1", "help/1", "help/5"]


def test_github_s_own_tool_and_its_pages_of_pages_are_read(tmp_path: Path) -> None:
    listed = {
        "number": 1, "title": "Crash", "body": "It crashes", "url": "https://github.com/o/r/pull/1", "author": {"login": "ann"},
        "createdAt": "2024-03-05T10:11:12Z", "state": "OPEN", "labels": [{"name": "bug"}],
        "comments": [{"id": "IC_1", "author": {"login": "bob"}, "body": "me too", "createdAt": "2024-03-05T10:11:12Z"}],
    }  # fmt: skip
    issue, comment = load(write(tmp_path / "gh.json", [listed]), "github")
    assert (issue.key, issue.attributes["kind"], issue.attributes["state"]) == ("o/r#1", "pull", "open")
    assert issue.attributes["comments"] == 1
    assert (comment.key, comment.value, comment.attributes["thread"]) == ("o/r#1/IC_1", "me too", "o/r#1")
    review = {"html_url": "https://github.com/o/r/pull/3#r", "id": 1, "user": {"login": "r"}, "body": "ok",
              "submitted_at": "2024-03-05T10:11:12Z"}  # fmt: skip
    found = load(write(tmp_path / "pages.json", [[ISSUE], [review]]), "github")
    assert [(d.key, from_ms(d.time_ms or 0)) for d in found] == [("o/r#1", AT), ("o/r#3/1", AT)]


def test_tables_of_tickets_may_have_semicolons_and_times_of_other_lands(tmp_path: Path) -> None:
    jira = write(
        tmp_path / "j.csv", "Issue key;Summary;Created;Description\nA-1;Ropes;05.03.2024 10:11;" + "x" * 200_000 + "\n"
    )
    (issue,) = load(jira, "jira")
    assert (issue.key, from_ms(issue.time_ms or 0)) == ("A-1", AT.replace(second=0))
    zendesk = write(tmp_path / "z.csv", "ID,Subject,Requester,Status,Created at\n#7,Help,Ann,open,2024-03-05 10:11:12 UTC\n")
    (ticket,) = load(zendesk, "zendesk")
    assert (ticket.key, from_ms(ticket.time_ms or 0)) == ("7", AT)
    asked = {"ticket": {"id": 7, "subject": "Help", "requester_id": 1, "submitter_id": 1, "created_at": "2024-03-05T10:11:12Z"}}
    assert load(write(tmp_path / "t.json", asked), "zendesk")[0].key == "7"


def test_mail_without_a_date_has_that_of_its_delivery_and_names_are_decoded(tmp_path: Path) -> None:
    received = MAIL.replace(b"Subject", b"Received: from x by y; Tue, 5 Mar 2024 11:11:12 +0100\nSubject")
    attached = (b"Content-Disposition: attachment; filename==?utf-8?Q?r=C3=A9sum=C3=A9.txt?=\n").replace(b"==?", b'="=?')
    attached = attached.replace(b"?=\n", b'?="\n')
    path = write(tmp_path / "m.mbox", MAIL + b"\n" + received + b"\n" + MAIL.replace(b"From: Ann\n", b"From: Ann\n" + attached))
    drafts = load(path, "mbox")
    assert [from_ms(draft.time_ms or 0) for draft in drafts] == [AT, AT, AT]
    assert drafts[2].attributes["attachments"] == "résumé.txt"


@pytest.mark.parametrize(
    "form", ["{}\n", "\x1e{}\n", "data: {}\n\n", "pretty"], ids=["json", "json-seq", "json-sse", "json-pretty"]
)
def test_every_json_of_the_journal_is_read(tmp_path: Path, form: str) -> None:
    entry = {"__CURSOR": "s=ab;i=1f", "__REALTIME_TIMESTAMP": "1709633472000000", "MESSAGE": "rope cut"}
    entries = [entry, {**entry, "__CURSOR": "s=ab;i=20"}]
    if form == "pretty":
        text = "".join(json.dumps(one, indent=8) + "\n" for one in entries)
    else:
        text = "".join(form.replace("{}", json.dumps(one)) for one in entries)
    drafts = load(write(tmp_path / "j.json", text), "journald")
    assert [(d.value, from_ms(d.time_ms or 0), d.position) for d in drafts] == [("rope cut", AT, 31), ("rope cut", AT, 32)]


def test_a_database_s_text_need_not_be_what_it_says(tmp_path: Path) -> None:
    for encoding in ("UTF-8", "UTF-16le"):
        path = tmp_path / f"{encoding}.db"
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA encoding = '{encoding}'")
        db.execute("CREATE TABLE Messages (MessageID INTEGER PRIMARY KEY, MessageText TEXT, SentAt TEXT, Picture BLOB)")
        db.execute("INSERT INTO Messages VALUES (1, 'Grüße', '2024-03-05 10:11:12', x'00')")
        if encoding == "UTF-8":
            db.execute(
                "INSERT INTO Messages VALUES (2, CAST(x'4B F6 6C 6E' AS TEXT), NULL, NULL)".replace(" F6 6C 6E", "F66C6E")
            )
        db.commit()
        db.close()
        drafts = load(path, "sqlite")
        assert [draft.value for draft in drafts] == ["Grüße", "Köln"][: len(drafts)]
        assert (drafts[0].key, from_ms(drafts[0].time_ms or 0), drafts[0].attributes) == ("1", AT, {"table": "Messages"})


def test_parquet_keeps_nanoseconds_wherever_they_are_nested(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nano = arrow.timestamp("ns", "America/New_York")
    at = 1_709_633_472_000_000_001
    table = arrow.table(
        {
            "Message": ["rope"],
            "Event Time": arrow.array([at], nano),
            "all": arrow.array([[at]], arrow.list_(nano)),
            "in": arrow.array([{"t": at}], arrow.struct([("t", nano)])),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    (row,) = load(tmp_path / "a.parquet", "parquet")
    assert (row.value, from_ms(row.time_ms or 0)) == ("rope", AT)
    assert "10:11:12" in str(row.attributes["all"]) or "05:11:12" in str(row.attributes["all"])
