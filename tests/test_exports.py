"""Exports of other programs become records with their keys, times and threads, at positions that do not change."""

from __future__ import annotations

import json
import mailbox
import os
import subprocess
import zipfile
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path

import pytest

from headwater.errors import LimitError, UsageError
from headwater.records import Draft, from_ms
from headwater.sources import Batch, Fault
from headwater.sources.exports.reading import Export, ExportReading, export_of
from test_ingest import Place


def batches(path: Path, kind: Export | None = None) -> list[Batch]:
    found = kind or export_of(path)
    assert found is not None
    with ExportReading(path, found) as reading:
        return list(reading)


def load(path: Path, kind: Export | None = None) -> tuple[list[Draft], list[Fault]]:
    read = batches(path, kind)
    return [d for b in read for d in b.drafts], [f for b in read for f in b.faults]


def places(path: Path) -> list[tuple[str, int | None]]:
    return [(b.stream, d.position) for b in batches(path) for d in b.drafts]


def iso(draft: Draft) -> str:
    assert draft.time_ms is not None
    return from_ms(draft.time_ms).isoformat()


def written(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


# ---------------------------------------------------------------------- Slack

SLACK: Mapping[str, object] = {
    "users.json": [
        {"id": "U1", "team_id": "T9", "name": "ada", "profile": {"display_name": "Ada L"}},
        {"id": "U2", "team_id": "T9", "name": "bob", "profile": {"display_name": "", "real_name": "Bob B"}},
    ],
    "channels.json": [{"id": "C1", "name": "ops"}, {"id": "C2", "name": "general"}],
    "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
    "ops/2026-01-01.json": [
        {"type": "message", "user": "U1", "ts": "1767225600.000100", "thread_ts": "1767225600.000100", "reply_count": 1,
         "text": "<@U2> the &lt;gateway&gt; is down, see <#C2|general> and <https://x.org/a|the page> <!here>"},
        {"type": "message", "user": "U2", "ts": "1767225660.000200", "thread_ts": "1767225600.000100", "text": "on it",
         "files": [{"title": "trace.txt"}], "reactions": [{"name": "+1", "count": 2}]},
        {"type": "message", "user": "U2", "text": "no time"},
    ],
    "ops/2026-01-02.json": "no list",
    "D1/2026-01-01.json": [{"type": "message", "user": "U1", "ts": "1767225700.000000", "text": "psst"}],
}  # fmt: skip


def slack_folder(root: Path) -> Path:
    for name, value in SLACK.items():
        written(root / name, value)
    return root


def slack_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in SLACK.items():
            archive.writestr(f"export/{name}", json.dumps(value))
    return path


def test_slack_messages_have_names_channels_and_threads(tmp_path: Path) -> None:
    drafts, faults = load(slack_zip(tmp_path / "x.zip"))
    whisper, first, reply = drafts
    assert first.value == "@Bob B the <gateway> is down, see #general and the page (https://x.org/a) @here"
    assert (first.key, iso(first)) == ("ops/1767225600.000100", "2026-01-01T00:00:00+00:00")
    assert first.attributes == {
        "channel": "ops", "user": "Ada L", "user_id": "U1", "thread": "ops/1767225600.000100", "replies": 1
    }  # fmt: skip
    assert reply.value == "on it\n[file] trace.txt"
    assert (reply.attributes["thread"], reply.attributes["reply"], reply.attributes["reactions"]) == (first.key, True, 2)
    assert whisper.attributes["channel"] == "Ada L, Bob B"
    assert [f.reason for f in faults] == [
        "export/ops/2026-01-01.json: a message without a time", "export/ops/2026-01-02.json: no list of messages"
    ]  # fmt: skip


def test_a_slack_folder_and_its_zip_are_the_same_places(tmp_path: Path) -> None:
    assert places(slack_folder(tmp_path / "folder")) == places(slack_zip(tmp_path / "x.zip"))


def test_a_slack_zip_that_is_a_bomb_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/2026-01-01.json", " " * (64 << 20))
    with pytest.raises(LimitError, match="bomb"):
        ExportReading(path, "slack")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match="damaged zip"):
        ExportReading(path, "slack")


# ---------------------------------------------------------------------- mail


def mail(subject: str, body: str, *, id: str, html: str = "", reply_to: str = "", charset: str = "utf-8") -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = subject, "Ada Löve <ada@x.org>", "b@x.org"
    made["Message-ID"], made["Date"] = f"<{id}@x>", "Thu, 01 Jan 2026 10:00:00 +0200"
    if reply_to:
        made["In-Reply-To"] = f"<{reply_to}@x>"
    if body:
        made.set_content(body, charset=charset)
    if html:
        made.add_alternative(html, subtype="html") if body else made.set_content(html, subtype="html")
    return made


def test_mail_of_every_charset_and_shape_is_its_text(tmp_path: Path) -> None:
    path = tmp_path / "box"
    box = mailbox.mbox(path)
    box.add(mail("Grüße", "From here on äöü\n" * 3, id="a", charset="iso-8859-1"))
    box.add(mail("Re: Grüße", "plain text", html="<p>rich text</p>", id="b", reply_to="a"))
    box.add(mail("Page", "", html="<html><body><h1>Hi</h1><script>x</script><p>only html</p></body></html>", id="c"))
    attached = mail("File", "see it", id="d")
    attached.add_attachment(b"\x00\x01", maintype="application", subtype="x", filename="plan.bin")
    box.add(attached)
    box.flush()
    box.close()
    (first, reply, page, file), faults = load(path)
    assert not faults
    assert first.value == "Grüße\n\n" + "\n".join(["From here on äöü"] * 3)
    assert (first.key, iso(first)) == ("<a@x>", "2026-01-01T08:00:00+00:00")
    assert first.attributes["from"] == "Ada Löve <ada@x.org>"
    assert (reply.value, reply.attributes["thread"], reply.attributes["reply"]) == ("Re: Grüße\n\nplain text", "<a@x>", True)
    assert page.value == "Page\n\n# Hi\n\nonly html"
    assert file.attributes["attachments"] == "plan.bin"
    assert places(path) == places(path)


def test_malformed_mail_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "box.mbox"
    good = mail("Good", "fine", id="g").as_bytes()
    begin = b"From a@b Thu Jan  1 00:00:00 2026\n"
    odd = b'Subject: =?utf-8?q?broken\nContent-Type: text/plain; charset="no-such"\nDate: never\n\n\xff\xfe caf\xe9\n'
    path.write_bytes(begin + odd + b"\n" + begin + b"\n\n" + begin + good)
    drafts, faults = load(path)
    assert [d.value for d in drafts][-1] == "Good\n\nfine"
    assert "café" in drafts[0].value
    assert len(drafts) + len(faults) == 3


def test_a_single_message_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(mail("One", "text", id="one").as_bytes())
    assert [d.value for d in load(path)[0]] == ["One\n\ntext"]


# ---------------------------------------------------------------------- issues


def issue(n: int, **more: object) -> dict[str, object]:
    found = {
        "html_url": f"https://github.com/o/r/issues/{n}", "number": n, "title": f"Issue {n}", "body": "It\r\nbreaks",
        "user": {"login": "ada"}, "labels": [{"name": "bug"}, {"name": "p1"}], "state": "open", "comments": 0,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z",
    }  # fmt: skip
    return {**found, **more}


COMMENT = {
    "html_url": "https://github.com/o/r/issues/1#issuecomment-7", "issue_url": "https://api.github.com/repos/o/r/issues/1",
    "id": 7, "body": "me too", "user": {"login": "bob"}, "created_at": "2026-01-03T00:00:00Z",
    "updated_at": "2026-01-03T00:00:00Z",
}  # fmt: skip


def test_github_pages_are_issues_pulls_and_comments(tmp_path: Path) -> None:
    pull = issue(2, pull_request={"url": "u"}, state="closed")
    pages = json.dumps([issue(1), pull]) + "\n" + json.dumps([COMMENT, {"id": 1}]) + "\n[{"
    drafts, faults = load(written(tmp_path / "issues.json", pages))
    first, second, comment = drafts
    assert (first.key, first.value, iso(first)) == ("o/r#1", "Issue 1\n\nIt\nbreaks", "2026-01-01T00:00:00+00:00")
    assert (first.attributes["labels"], first.attributes["state"], first.attributes["kind"]) == ("bug, p1", "open", "issue")
    assert second.attributes["kind"] == "pull"
    assert (comment.key, comment.attributes["thread"], comment.value) == ("o/r#1/7", "o/r#1", "me too")
    assert [f.reason.split(":")[0] for f in faults] == ["neither an issue nor a comment", "not JSON"]


def test_an_issue_that_changed_is_another_place_and_replaces_the_one_before(tmp_path: Path) -> None:
    before = written(tmp_path / "a.json", [issue(1), issue(2)])
    later = written(tmp_path / "b.json", [issue(1, state="closed", updated_at="2026-02-01T00:00:00Z"), issue(2)])
    a, b = places(before), places(later)
    assert a[1] == b[1]
    assert a[0][0] == b[0][0]
    assert a[0][1] != b[0][1]
    assert [batch.state["latest"] for batch in batches(later)] == [["o/r#1", "o/r#2"]]


def test_jira_tables_keep_their_comments(tmp_path: Path) -> None:
    rows = (
        "Summary,Issue key,Issue Type,Status,Priority,Reporter,Labels,Labels,Created,Updated,Description,Comment,Comment\n"
        '"It, breaks",OPS-1,Bug,Open,High,ada,net,db,01/Feb/26 3:04 PM,02/Feb/26 3:04 PM,"Long\nstory",'
        '"03/Feb/26 9:00 AM;bob;seen; too",\n'
        "x,OPS-2,Task,Done,Low,bob,,,2026-02-01T10:00:00,,,,,extra\n"
    )
    (first, comment), (fault,) = load(written(tmp_path / "jira.csv", rows))
    assert (first.key, first.value, iso(first)) == ("OPS-1", "It, breaks\n\nLong\nstory", "2026-02-01T15:04:00+00:00")
    assert first.attributes == {
        "kind": "bug", "thread": "OPS-1", "state": "Open", "priority": "High", "author": "ada", "labels": "net, db"
    }  # fmt: skip
    assert (comment.key, comment.value, comment.attributes["author"]) == ("OPS-1/1", "seen; too", "bob")
    assert "14 cells" in fault.reason


def test_jira_tables_are_known_in_other_languages(tmp_path: Path) -> None:
    head = {
        "es": "Clave de incidencia,Resumen,Descripción,Estado,Persona asignada,Creada\n",
        "de": "Vorgangsschlüssel,Zusammenfassung,Beschreibung,Status,Zugewiesene Person,Erstellt\n",
        "fr": "Clé de ticket,Résumé,Description,État,Personne assignée,Création\n",
    }
    for language, created in (("es", "12/ene/26 9:41 a. m."), ("de", "12.01.2026 09:41"), ("fr", "12/janv./26 9:41 AM")):
        rows = head[language] + f"OPS-1,Doble cargo,Los clientes lo ven dos veces,Cerrada,Iker,{created}\n"
        (first,), _ = load(written(tmp_path / f"{language}.csv", rows))
        assert (first.key, first.value, iso(first)) == (
            "OPS-1", "Doble cargo\n\nLos clientes lo ven dos veces", "2026-01-12T09:41:00+00:00"
        ), language  # fmt: skip
        assert first.attributes == {"thread": "OPS-1", "state": "Cerrada", "assignee": "Iker"}


def test_jira_json_reads_rich_text(tmp_path: Path) -> None:
    rich = {"type": "doc", "content": [
        {"type": "paragraph", "content": [{"type": "text", "text": "One "}, {"type": "text", "text": "two"}]},
        {"type": "paragraph", "content": [{"type": "text", "text": "three"}]},
    ]}  # fmt: skip
    fields = {
        "summary": "S", "description": rich, "created": "2026-01-01T00:00:00.000+0000", "status": {"name": "Open"},
        "issuetype": {"name": "Bug"}, "comment": {"comments": [{"id": "5", "body": "ok", "author": {"displayName": "Bob"}}]},
    }  # fmt: skip
    (first, comment), _ = load(written(tmp_path / "j.json", {"issues": [{"key": "A-1", "self": "u", "fields": fields}]}))
    assert (first.value, first.attributes["state"], iso(first)) == ("S\n\nOne two\nthree", "Open", "2026-01-01T00:00:00+00:00")
    assert (comment.key, comment.value, comment.attributes["author"]) == ("A-1/5", "ok", "Bob")


def test_zendesk_tickets_carry_their_comments(tmp_path: Path) -> None:
    ticket = {
        "id": 35, "url": "https://co.zendesk.com/api/v2/tickets/35.json", "subject": "Help", "description": "My printer",
        "requester_id": 9, "submitter_id": 9, "status": "open", "tags": ["a", "b"], "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "comments": [{"id": 1, "body": "My printer"}, {"id": 2, "body": "Restart it", "author_id": 4}],
    }  # fmt: skip
    for path in (written(tmp_path / "z.json", {"tickets": [ticket]}), written(tmp_path / "z.jsonl", json.dumps(ticket) + "\n")):
        first, comment = load(path)[0]
        assert (first.key, first.value, first.attributes["labels"]) == ("35", "Help\n\nMy printer", "a, b")
        assert (comment.key, comment.value, comment.attributes["thread"]) == ("35/2", "Restart it", "35")


# ---------------------------------------------------------------------- git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")}, "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "a@x",
    }  # fmt: skip

    def git(*words: str, when: int = 0) -> None:
        dated = {"GIT_AUTHOR_DATE": f"{when} +0000", "GIT_COMMITTER_DATE": f"{when} +0000"} if when else {}
        subprocess.run(["git", "-C", str(root), *words], env={**env, **dated}, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    for n, name in enumerate(("a.py", "ü b.py")):
        (root / name).write_text("x")
        git("add", "-A")
        git("commit", "-q", "-m", f"Change {n}\n\nWhy: because\x1f", when=1_767_225_600 + n)
    git("tag", "v1")
    (root / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    (root / "evil").chmod(0o755)
    git("config", "core.fsmonitor", str(root / "evil"))
    git("config", "core.pager", str(root / "evil"))
    git("config", "diff.external", str(root / "evil"))
    return root


def test_a_repository_s_commits_are_records_and_nothing_it_configures_is_run(repository: Path, tmp_path: Path) -> None:
    (first, second), faults = load(repository)
    assert not faults
    assert first.value == "Change 0\n\nWhy: because\x1f\n\na.py"
    assert second.value.endswith("\n\nü b.py")
    assert (iso(first), iso(second)) == ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01+00:00")
    assert first.attributes == {"author": "Ada", "email": "a@x", "files": 1}
    assert second.attributes["tags"] == "v1"
    assert (len(first.key or ""), first.position < second.position) == (40, True)  # type: ignore[operator]
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(UsageError, match="no git repository"):
        ExportReading(tmp_path, "git")


# ---------------------------------------------------------------------- journald

CURSOR = "s=abc1;i=%x;b=b1;m=1;t=1;x=1"


def test_journal_entries_are_read_in_both_formats(tmp_path: Path) -> None:
    entries = [
        {"__CURSOR": CURSOR % 16, "__REALTIME_TIMESTAMP": "1767225600000001", "MESSAGE": "started", "PRIORITY": "6",
         "_SYSTEMD_UNIT": "web.service", "_PID": "42", "_HOSTNAME": "h"},
        {"__CURSOR": CURSOR % 17, "__REALTIME_TIMESTAMP": "1767225600000002", "MESSAGE": "two\nlines \u00e9", "PRIORITY": "3",
         "SYSLOG_IDENTIFIER": "kernel"},
    ]  # fmt: skip
    lines = [json.dumps(e) for e in entries]
    lines[1] = lines[1].replace(json.dumps("two\nlines \u00e9"), json.dumps(list("two\nlines \u00e9".encode())))
    as_json = written(tmp_path / "j.json", "\n".join([*lines, "broken {", ""]))
    binary = tmp_path / "journal.export"
    with binary.open("wb") as file:
        for entry in entries:
            for name, value in entry.items():
                data = value.encode()
                if b"\n" in data:
                    file.write(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
                else:
                    file.write(name.encode() + b"=" + data + b"\n")
            file.write(b"\n")
    drafts, faults = load(as_json)
    assert [d.value for d in drafts] == ["started", "two\nlines \u00e9"]
    assert [(d.key, d.attributes["level"], d.position) for d in drafts] == [
        ("web.service", "info", 16),
        ("kernel", "error", 17),
    ]
    assert drafts[0].attributes["pid"] == 42
    assert len(faults) == 1
    assert load(binary)[0] == drafts
    assert places(binary) == places(as_json)
    binary.write_bytes(binary.read_bytes()[:-20])
    cut, (fault,) = load(binary)
    assert (cut, "cut off" in fault.reason) == (drafts[:1], True)


def test_tickets_of_a_zendesk_table(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    header = (
        "Summation column,Id,Requester,Requester id,Assignee,Subject,Tags,Status,Priority,Ticket type,Created at,Updated at\n"
    )
    path.write_text(
        header
        + '1,35,Ada,99,Bob,"Refund, please",vip late,Open,High,Incident,2026-01-01 10:00:00 +0000,2026-01-02 10:00\n1,,,,,x\n'
    )
    assert export_of(path) == "zendesk"
    (draft,), (fault,) = load(path)
    assert (draft.value, draft.key, draft.time_ms) == ("Refund, please", "35", 1767261600000)
    assert {n: draft.attributes[n] for n in ("kind", "thread", "state", "author", "labels")} == {
        "kind": "incident", "thread": "35", "state": "Open", "author": "Ada", "labels": "vip, late",
    }  # fmt: skip
    assert "id of a ticket" in fault.reason
    (again,), _ = load(path)
    assert again.position == draft.position
    plain = tmp_path / "plain.csv"
    plain.write_text("Id,Subject,Body\n1,a,b\n")
    assert export_of(plain) is None


# ---------------------------------------------------------------------- Discord, and what is none


def test_discord_messages_and_replies(tmp_path: Path) -> None:
    messages = [
        {"id": "1456000000000000000", "type": "Default", "timestamp": "2026-01-01T10:00:00.5+00:00",
         "content": "hi <:wave:123>", "author": {"id": "1", "name": "ada", "nickname": "Ada"}},
        {"id": "1456000000000000001", "type": "Reply", "timestamp": "2026-01-01T10:01:00+00:00", "content": "hello",
         "author": {"id": "2", "name": "bob"}, "reference": {"messageId": "1456000000000000000"},
         "attachments": [{"fileName": "a.png"}]},
        {"content": "no id"},
    ]  # fmt: skip
    tree = {"guild": {"id": "1", "name": "G"}, "channel": {"id": "5", "name": "help"}, "messages": messages}
    (first, reply), faults = load(written(tmp_path / "d.json", tree))
    assert (first.value, first.key, first.attributes["user"]) == ("hi :wave:", "help/1456000000000000000", "Ada")
    assert (reply.value, reply.attributes["thread"]) == ("hello\n[file] a.png", first.key)
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"value": "From the start", "number": 3, "title": "x", "html_url": "https://x.org"}\n'),
        ("a.csv", "Summary,key\nx,y\n"),
        ("a.log", "From now on the gateway is slow\nmore\n"),
        ("a.json", '{"guild": "x"}\n'),
        ("a.txt", "From: somebody\n\nhello\n"),
    ],
)
def test_what_is_no_export_is_read_as_before(tmp_path: Path, name: str, text: str) -> None:
    assert export_of(written(tmp_path / name, text)) is None


# ---------------------------------------------------------------------- through ingest


def test_an_export_is_ingested_once_and_what_changed_replaces_what_was(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.start()
    try:
        issues = written(tmp_path / "issues.json", [issue(1), issue(2), COMMENT])
        export = slack_zip(tmp_path / "slack.zip")
        assert _ingested(place, "tickets", issues) == (3, 0, 0)
        assert _ingested(place, "chat", export) == (3, 0, 2)
        assert _ingested(place, "chat", slack_folder(tmp_path / "unpacked"))[:2] == (0, 3)
        changed = issue(1, title="Issue 1, solved", state="closed", updated_at="2026-02-01T00:00:00Z")
        assert _ingested(place, "tickets", written(tmp_path / "later.json", [changed, issue(2), COMMENT])) == (1, 2, 0)
        assert sorted(place.values("tickets")) == ["Issue 1, solved\n\nIt\nbreaks", "Issue 2\n\nIt\nbreaks", "me too"]
        done = place.run("ingest", "tickets", str(issues), "--as", "slack")
        assert (done.returncode, "damaged zip" in done.stderr) == (2, True)
    finally:
        place.kill()


def _ingested(place: Place, topic: str, path: Path) -> tuple[int, int, int]:
    done = place.run("ingest", topic, str(path), "--json")
    found = json.loads(done.stdout)
    return found["stored"], found["duplicates"], found["dead_letters"]
