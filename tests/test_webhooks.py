"""Webhooks: signed by GitHub, Slack and anybody, each delivery one record, once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from headwater.config import SecretStr, ServerSettings
from headwater.errors import AuthError
from headwater.records import Draft, from_ms
from headwater.source_settings import WebhookSettings
from headwater.sources import webhooks
from sources_api import running

SECRET = "s3cret"
GITHUB = WebhookSettings(name="gh", kind="github", secret=SecretStr(SECRET))
SLACK = WebhookSettings(name="chat", kind="slack", secret=SecretStr(SECRET))
ANY = WebhookSettings(name="any", secret=SecretStr(SECRET), value_field="alert.text", key_field="alert.id", time_field="at")


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def from_github(event: str, sent: dict[str, Any], delivery: str = "d-1", secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    body = json.dumps({"repository": {"full_name": "shop/api"}, "sender": {"login": "eve"}, **sent}).encode()
    return body, {
        "content-type": "application/json", "x-github-event": event, "x-github-delivery": delivery,
        "x-hub-signature-256": f"sha256={signed(body, secret)}",
    }  # fmt: skip


def from_slack(sent: dict[str, Any], at_s: int) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(sent).encode()
    signature = signed(b"v0:%d:" % at_s + body)
    return body, {"x-slack-request-timestamp": str(at_s), "x-slack-signature": f"v0={signature}"}


def record(hook: WebhookSettings, body: bytes, headers: dict[str, str]) -> Draft:
    (draft,) = webhooks.read(hook, headers, body).drafts
    return draft


def when(draft: Draft) -> str | None:
    return None if draft.time_ms is None else from_ms(draft.time_ms).isoformat()


# ---------------------------------------------------------------------- signatures


def test_a_signature_must_fit_the_body_the_secret_and_the_time() -> None:
    body, headers = from_github("ping", {})
    webhooks.check(GITHUB, headers, body, 0)
    said, stamped = from_slack({"type": "event_callback"}, 1_000_000)
    webhooks.check(SLACK, stamped, said, 1_000_299)
    generic = {"x-signature-256": signed(b"x")}
    webhooks.check(ANY, generic, b"x", 0)
    webhooks.check(ANY, {"x-signature-256": "sha256=" + signed(b"x").upper()}, b"x", 0)
    for hook, given, content, now_s in (
        (GITHUB, headers, body + b" ", 0), (GITHUB, {}, body, 0), (GITHUB, from_github("ping", {}, secret="no")[1], body, 0),
        (GITHUB, {"x-hub-signature-256": signed(body)}, body, 0), (GITHUB, {"x-hub-signature-256": "sha256=\xff"}, body, 0),
        (SLACK, stamped, said, 1_000_301), (SLACK, stamped, said, 999_699),
        (SLACK, {**stamped, "x-slack-request-timestamp": "999999"}, said, 1_000_000),
        (SLACK, {**stamped, "x-slack-request-timestamp": "1_000_000"}, said, 1_000_000),
        (ANY, {}, b"x", 0), (ANY, {"x-signature-256": ""}, b"x", 0), (ANY, generic, b"y", 0),
        (WebhookSettings(name="open"), {"x-signature-256": hmac.new(b"", b"x", hashlib.sha256).hexdigest()}, b"x", 0),
    ):  # fmt: skip
        with pytest.raises(AuthError):
            webhooks.check(hook, given, content, now_s)


# ---------------------------------------------------------------------- records by kind


def test_an_issue_of_github_is_its_title_and_text_under_its_number() -> None:
    issue = {
        "number": 7, "title": "Checkout fails \0", "body": "with a 502", "state": "open", "user": {"login": "mia"},
        "labels": [{"name": "bug"}, {"name": "p1"}], "updated_at": "2026-11-01T10:00:00Z", "html_url": "https://example.org/7",
    }  # fmt: skip
    draft = record(GITHUB, *from_github("issues", {"action": "opened", "issue": issue}))
    assert draft.value.startswith("Issue #7 Checkout fails ")
    assert draft.value.endswith("\nwith a 502")
    assert "opened by eve" in draft.value
    assert (draft.key, when(draft)) == ("shop/api#7", "2026-11-01T10:00:00+00:00")
    assert draft.attributes == {
        "event": "issues", "action": "opened", "repository": "shop/api", "sender": "eve", "kind": "issue", "number": 7,
        "title": "Checkout fails \0", "state": "open", "author": "mia", "labels": "bug, p1", "url": "https://example.org/7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "sent", "value", "key", "about"),
    [
        ("pull_request", {"action": "closed", "pull_request": {
            "number": 8, "title": "Fix", "merged": True, "head": {"ref": "fix"}}},
         "Pull request #8 Fix closed by eve", "shop/api#8", {"merged": True, "branch": "fix"}),
        ("issue_comment", {"action": "created", "issue": {"number": 7, "title": "T"}, "comment": {"body": "me too"}},
         "Comment on #7 T created by eve\nme too", "shop/api#7", {"number": 7}),
        ("push", {"ref": "refs/heads/main", "after": "f" * 40, "pusher": {"name": "mia"}, "commits": [
            {"id": "0123456789", "message": "Raise the limit"}]},
         "Push to main by mia: 1 commit\n0123456 Raise the limit", "shop/api@main", {"branch": "main", "commits": 1}),
        ("deployment_status", {"deployment": {"ref": "v2", "environment": "prod"}, "deployment_status": {"state": "failure"}},
         "Deployment of v2 to prod: failure by eve", "shop/api/prod", {"level": "error", "environment": "prod"}),
        ("workflow_run", {"action": "completed", "workflow_run": {
            "name": "ci", "head_branch": "main", "conclusion": "success"}},
         "Workflow ci on main: success completed by eve", "shop/api/ci", {"state": "success"}),
    ],
)  # fmt: skip
def test_events_of_github_are_told_in_a_sentence(
    event: str, sent: dict[str, Any], value: str, key: str, about: dict[str, Any]
) -> None:
    draft = record(GITHUB, *from_github(event, sent))
    assert (draft.value, draft.key) == (value, key)
    assert about.items() <= draft.attributes.items()


def test_an_event_of_github_that_is_not_known_is_kept_as_its_json_and_a_form_is_read_too() -> None:
    draft = record(GITHUB, *from_github("star", {"action": "created"}))
    assert json.loads(draft.value)["action"] == "created"
    from urllib.parse import urlencode

    body = urlencode({"payload": json.dumps({"zen": "x"})}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded", "x-github-event": "other"}
    assert record(GITHUB, body, headers).value == '{"zen":"x"}'


def test_a_push_whose_commits_are_no_list_is_a_push_without_commits() -> None:
    draft = record(GITHUB, *from_github("push", {"ref": "refs/heads/main", "commits": 7, "pusher": [1]}))
    assert draft.value == "Push to main by eve: 0 commits"


def test_messages_of_slack_share_the_key_of_their_thread() -> None:
    def event(**of: Any) -> dict[str, Any]:
        return {
            "type": "event_callback",
            "team_id": "T1",
            "event_id": "Ev1",
            "event": {"type": "message", "channel": "C1", **of},
        }

    first = record(SLACK, *from_slack(event(user="U1", text="disk full", ts="1767225600.000200"), 0))
    reply = record(SLACK, *from_slack(event(user="U2", text="on it", ts="1767225660.0", thread_ts="1767225600.000200"), 0))
    assert (first.value, reply.value) == ("disk full", "on it")
    assert first.key == reply.key == "C1/1767225600.000200"
    assert when(first) == "2026-01-01T00:00:00+00:00"
    assert reply.attributes["thread_ts"] == "1767225600.000200"
    changed = event(subtype="message_changed", event_ts="1767225700.1", message={"user": "U1", "text": "fixed", "ts": "1.2"})
    assert (record(SLACK, *from_slack(changed, 0)).value, record(SLACK, *from_slack(changed, 0)).key) == ("fixed", "C1/1.2")
    gone = event(subtype="message_deleted", previous_message={"text": "oops", "ts": "1.3"})
    assert record(SLACK, *from_slack(gone, 0)).value == "message deleted: oops"


def test_a_generic_body_is_mapped_by_its_settings_or_kept_as_it_is() -> None:
    body = json.dumps({"alert": {"text": "too hot", "id": 4}, "at": 1767225600, "room": "b"}).encode()
    draft = record(ANY, body, {})
    assert (draft.value, draft.key, when(draft)) == ("too hot", "4", "2026-01-01T00:00:00+00:00")
    assert draft.attributes["room"] == "b"
    plain = WebhookSettings(name="p", secret=SecretStr(SECRET))
    assert record(plain, b"just text \xff", {}).raw == b"just text \xff"
    assert [d.value for d in webhooks.read(plain, {}, b'[{"a":1},{"a":2}]').drafts] == ['{"a":1}', '{"a":2}']
    assert record(plain, b"null", {}).value == "null"


# ---------------------------------------------------------------------- over HTTP


async def post(http: httpx.AsyncClient, name: str, sent: tuple[bytes, dict[str, str]]) -> httpx.Response:
    return await http.post(f"/v1/hooks/{name}", content=sent[0], headers=sent[1])


def test_a_delivery_is_stored_once_however_often_it_comes_and_a_forged_one_never(tmp_path: Path) -> None:
    async def check() -> None:
        server = ServerSettings(api_key=SecretStr("k3y"))  # a hook has no bearer token
        async with running(tmp_path, GITHUB, server=server) as (engine, http):
            push = {"ref": "refs/heads/main", "commits": [], "pusher": {"name": "mia"}}
            sent = from_github("push", push, "d-1")
            assert (await post(http, "gh", sent)).json() == {"stored": 1, "duplicates": 0}
            assert (await post(http, "gh", sent)).json() == {"stored": 0, "duplicates": 1}
            again = await post(http, "gh", from_github("push", push, "another id"))
            assert again.json() == {"stored": 0, "duplicates": 1}, "the id is not signed, the body is"
            changed = await post(http, "gh", from_github("push", {**push, "forced": True}, "d-1"))
            assert changed.status_code == 409
            assert (await post(http, "gh", from_github("push", {**push, "x": 1}, "d-2"))).json()["stored"] == 1
            assert (await post(http, "gh", from_github("ping", {}, "d-3"))).json() == {"pong": True}
            for forged in (from_github("push", push, "d-4", secret="wrong"), (sent[0] + b" ", sent[1]), (sent[0], {})):
                assert (await post(http, "gh", forged)).status_code == 401
            assert (await post(http, "nobody", sent)).status_code == 404
            assert (await http.post("/v1/hooks/gh/more", content=b"")).status_code == 401, "only hooks pass the guard"
            assert (await engine.topic("gh")).records == 2
            (source,) = await engine.sources()
            assert source.records == 2
            assert (source.counts["bad_signature"], source.counts["duplicates"]) == (3, 2)

    asyncio.run(check())


def test_a_hook_of_another_host_and_origin_is_taken_and_a_paused_one_asks_to_come_again(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, GITHUB) as (engine, http):
            body, headers = from_github("star", {})
            reply = await post(http, "gh", (body, {**headers, "host": "hooks.example.org", "origin": "https://example.org"}))
            assert reply.status_code == 200
            await engine.pause_source("gh")
            reply = await post(http, "gh", from_github("star", {"x": 1}, "d-9"))
            assert (reply.status_code, "retry-after" in reply.headers) == (429, True)
            assert (await post(http, "gh", (body, {}))).status_code == 401, "a pause tells strangers nothing"

    asyncio.run(check())


def test_the_challenge_of_slack_is_answered_once_the_signature_is_right(tmp_path: Path) -> None:
    async def check() -> None:
        import time

        async with running(tmp_path, SLACK) as (_, http):
            sent = from_slack({"type": "url_verification", "challenge": "abc"}, int(time.time()))
            assert (await post(http, "chat", sent)).json() == {"challenge": "abc"}
            assert (
                await post(http, "chat", from_slack({"type": "url_verification", "challenge": "abc"}, 5))
            ).status_code == 401

    asyncio.run(check())


def test_what_a_topic_cannot_take_becomes_a_dead_letter_and_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path, ANY) as (engine, http):
            await engine.create_topic("any", embedding_model="external", dimension=2)
            assert (await post(http, "any", (b"text", {"x-signature-256": signed(b"text")}))).json()["stored"] == 0
            assert [letter.payload for letter in await engine.dead_letters("any")] == ["text"]
            assert (await post(http, "any", (b" ", {"x-signature-256": signed(b" ")}))).status_code == 422

    asyncio.run(check())
