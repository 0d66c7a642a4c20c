"""Webhooks: is a request what it says it is, and what record does it make. GitHub, Slack, and a generic form.

The signature is checked over the bytes of the body before anything in them is read. A delivery has an id under which it is
stored once; its body's digest is the record's position, so that the same body under another id is not stored again either.
Sources: docs.github.com "Validating webhook deliveries", api.slack.com "Verifying requests from Slack".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from headwater.errors import AuthError, UsageError
from headwater.records import Draft, Scalar
from headwater.records.moments import parse_time
from headwater.source_settings import WebhookSettings

_MOST = 1000  # records of one delivery
_BY = "\0"  # where a sentence says who did what


class Delivered(NamedTuple):
    """What a request brought: drafts under the delivery's id, or what to answer where it was only a question."""

    id: str
    drafts: Sequence[Draft] = ()
    answer: Mapping[str, Any] | None = None


def check(hook: WebhookSettings, headers: Mapping[str, str], body: bytes, now_s: float) -> None:
    """AuthError unless the body is signed with the hook's secret (Slack: not long ago). Names of headers in small letters."""
    secret = hook.secret.get_secret_value().encode() if hook.secret is not None else b""
    if not secret:
        raise AuthError(f"webhook {hook.name!r} has no secret")
    name = {"github": "x-hub-signature-256", "slack": "x-slack-signature"}.get(hook.kind, hook.signature_header.lower())
    given, signed, prefix = headers.get(name, "").strip(), body, "sha256="
    if hook.kind == "slack":
        stamp, prefix = headers.get("x-slack-request-timestamp", ""), "v0="
        if not (stamp.isascii() and stamp.isdigit()) or abs(now_s - int(stamp[:15])) > hook.tolerance_s:
            raise AuthError("the signature is too old or has no time (X-Slack-Request-Timestamp)")
        signed = b"v0:" + stamp.encode() + b":" + body
    wanted = hmac.new(secret, signed, hashlib.sha256).hexdigest()
    if not given.startswith(prefix) and hook.kind != "generic":
        raise AuthError(f"there is no signature {prefix}... in {name}")
    if not hmac.compare_digest(given.removeprefix(prefix).lower().encode("utf-8", "replace"), wanted.encode()):
        raise AuthError(f"the signature in {name} does not fit the body and the secret")


def read(hook: WebhookSettings, headers: Mapping[str, str], body: bytes) -> Delivered:
    """The records of a request whose signature is right; UsageError where it cannot be read."""
    digest = hashlib.blake2b(body, digest_size=16)
    position = int.from_bytes(digest.digest()[:8], "big") >> 1
    found = {"github": _github, "slack": _slack}.get(hook.kind, _generic)(hook, headers, body)
    id = found.id or digest.hexdigest()
    return Delivered(id, [d._replace(position=(position + n) % (1 << 63)) for n, d in enumerate(found.drafts)], found.answer)


# ---------------------------------------------------------------------- GitHub


def _github(hook: WebhookSettings, headers: Mapping[str, str], body: bytes) -> Delivered:
    """A sentence and the text people wrote; the rest as attributes. An event not known here is kept as its JSON."""
    event, id = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
    sent = _object(body, headers)
    if event == "ping":
        return Delivered(id, answer={"pong": True})
    repository, actor, action = _at(sent, "repository.full_name"), _at(sent, "sender.login"), _at(sent, "action")
    told = _GITHUB[event](sent) if event in _GITHUB else None
    about = {"event": event, "action": action, "repository": repository, "sender": actor}
    if told is None:
        return Delivered(id, [Draft(orjson.dumps(sent).decode(), _text(repository), None, _given(about))])
    value, key, time, more = told
    who = f" by {actor}" if actor else ""
    value = value.replace(_BY, f" {action}{who}" if action else who, 1)
    return Delivered(id, [Draft(value, f"{repository}{key}", parse_time(time), _given({**about, **more}))])


_Told = tuple[str, str, Any, dict[str, Any]]  # the text, the key behind the repository's name, the time, attributes


def _issue(sent: Mapping[str, Any]) -> _Told:
    return _discussed(sent, "Issue", "issue", sent.get("issue"))


def _pull_request(sent: Mapping[str, Any]) -> _Told:
    of = sent.get("pull_request")
    value, key, time, more = _discussed(sent, "Pull request", "pull request", of)
    more |= {"branch": _at(of, "head.ref"), "base": _at(of, "base.ref"), "sha": _at(of, "head.sha")}
    more["merged"] = _at(of, "merged")
    return value, key, time, more


def _comment(sent: Mapping[str, Any]) -> _Told:
    of = sent.get("issue") or sent.get("pull_request")
    comment = sent.get("comment") or sent.get("review")
    title = f"Comment on #{_at(of, 'number')} {_at(of, 'title')}{_BY}"
    more = {"number": _at(of, "number"), "title": _at(of, "title"), "url": _at(comment, "html_url")}
    time = _at(comment, "updated_at") or _at(comment, "submitted_at") or _at(comment, "created_at")
    return _with(title, _at(comment, "body")), f"#{_at(of, 'number')}", time, more


def _discussed(sent: Mapping[str, Any], noun: str, kind: str, of: Any) -> _Told:
    labels = [str(label.get("name")) for label in _at(of, "labels") or [] if isinstance(label, dict)]
    number, title = _at(of, "number"), _at(of, "title")
    more = {
        "kind": kind, "number": number, "title": title, "state": _at(of, "state"), "author": _at(of, "user.login"),
        "labels": ", ".join(labels) or None, "url": _at(of, "html_url"),
    }  # fmt: skip
    return _with(f"{noun} #{number} {title}{_BY}", _at(of, "body")), f"#{number}", _at(of, "updated_at"), more


def _push(sent: Mapping[str, Any]) -> _Told:
    branch = str(sent.get("ref") or "").removeprefix("refs/heads/")
    listed = sent.get("commits")
    commits = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    pusher, many = _at(sent, "pusher.name") or _at(sent, "sender.login"), "commit" if len(commits) == 1 else "commits"
    lines = [f"{str(c.get('id'))[:7]} {c.get('message')}" for c in commits]
    title = f"Push to {branch} by {pusher}: {len(commits)} {many}"
    more = {"branch": branch, "before": sent.get("before"), "sha": sent.get("after"), "forced": sent.get("forced"),
            "commits": len(commits), "url": sent.get("compare")}  # fmt: skip
    return _with(title, "\n".join(lines)), f"@{branch}", _at(sent, "head_commit.timestamp"), more


def _deployment(sent: Mapping[str, Any]) -> _Told:
    of, status = sent.get("deployment"), sent.get("deployment_status")
    environment, state = _at(of, "environment"), _at(status, "state") or "created"
    title = f"Deployment of {_at(of, 'ref')} to {environment}: {state}{_BY}"
    more = {"environment": environment, "state": state, "branch": _at(of, "ref"), "sha": _at(of, "sha"),
            "id": _at(of, "id"), "url": _at(status, "log_url") or _at(of, "url"),
            "level": "error" if state in ("failure", "error") else None}  # fmt: skip
    text = _at(status, "description") or _at(of, "description")
    return _with(title, text), f"/{environment}", _at(status, "updated_at") or _at(of, "updated_at"), more


def _workflow_run(sent: Mapping[str, Any]) -> _Told:
    of = sent.get("workflow_run") or sent.get("workflow_job") or sent.get("check_run")
    state = _at(of, "conclusion") or _at(of, "status")
    title = f"Workflow {_at(of, 'name')} on {_at(of, 'head_branch')}: {state}{_BY}"
    more = {"workflow": _at(of, "name"), "branch": _at(of, "head_branch"), "sha": _at(of, "head_sha"), "state": state,
            "run": _at(of, "run_number"), "id": _at(of, "id"), "url": _at(of, "html_url"),
            "level": "error" if state in ("failure", "timed_out", "startup_failure") else None}  # fmt: skip
    time = _at(of, "updated_at") or _at(of, "completed_at") or _at(of, "started_at")
    return _with(title, _at(of, "display_title")), f"/{_at(of, 'name')}", time, more


_GITHUB = {
    "issues": _issue, "pull_request": _pull_request, "issue_comment": _comment, "pull_request_review": _comment,
    "pull_request_review_comment": _comment, "push": _push, "deployment": _deployment, "deployment_status": _deployment,
    "workflow_run": _workflow_run, "workflow_job": _workflow_run, "check_run": _workflow_run,
}  # fmt: skip


# ---------------------------------------------------------------------- Slack


def _slack(hook: WebhookSettings, headers: Mapping[str, str], body: bytes) -> Delivered:
    """A message is its text, its key the channel and the thread; what was changed or deleted is a record of its own."""
    sent = _object(body, headers)
    if sent.get("type") == "url_verification":
        return Delivered("", answer={"challenge": _text(sent.get("challenge")) or ""})
    event = sent.get("event")
    if not isinstance(event, dict):
        return Delivered("", [Draft(orjson.dumps(sent).decode(), None, None, _given({"event": sent.get("type")}))])
    inner = event.get("message") or event.get("previous_message") or {}
    message = {**event, **inner} if isinstance(inner, dict) else event
    channel, ts = _text(event.get("channel")) or _at(event, "item.channel"), _text(message.get("ts") or event.get("event_ts"))
    thread = _text(message.get("thread_ts")) or ts
    about = {
        "event": event.get("type"), "subtype": event.get("subtype"), "team": sent.get("team_id"), "channel": channel,
        "user": message.get("user") or message.get("username") or message.get("bot_id"), "ts": ts,
        "thread_ts": message.get("thread_ts"), "reaction": event.get("reaction"), "event_id": sent.get("event_id"),
    }  # fmt: skip
    text = _text(message.get("text"))
    if event.get("subtype") == "message_deleted":
        text = f"message deleted: {text}" if text else "message deleted"
    time = event.get("event_ts") or ts
    value = text or orjson.dumps(event).decode()
    key = f"{channel}/{thread}" if channel and thread else channel
    return Delivered(_text(sent.get("event_id")) or "", [Draft(value, key, parse_time(time), _given(about))])


# ---------------------------------------------------------------------- generic


def _generic(hook: WebhookSettings, headers: Mapping[str, str], body: bytes) -> Delivered:
    """JSON is kept as it is (a list: each of its objects), or the field that is named; any other body as text."""
    id = headers.get(hook.delivery_header.lower(), "")
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace")
        if not text.strip():
            raise UsageError("the body is empty") from None
        return Delivered(id, [Draft(text, raw=body if "\ufffd" in text else None)])
    parts = sent if isinstance(sent, list) and all(isinstance(p, dict) for p in sent) else [sent]
    if not 1 <= len(parts) <= _MOST:
        raise UsageError(f"a delivery has between 1 and {_MOST} records, not {len(parts)}")
    return Delivered(id, [_mapped(hook, part) for part in parts])


def _mapped(hook: WebhookSettings, part: Any) -> Draft:
    chosen = _at(part, hook.value_field) if hook.value_field else None
    value = _text(chosen if chosen is not None else part) or "null"
    time = _at(part, hook.time_field) if hook.time_field else None
    rest: dict[str, Any] = {}
    if chosen is not None and isinstance(part, dict):  # the fields beside the text are read from it where it is JSON itself
        rest = {name: v for name, v in part.items() if name != hook.value_field}
    return Draft(value, _text(_at(part, hook.key_field)) if hook.key_field else None, parse_time(time), rest)


# ---------------------------------------------------------------------- values


def _object(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of a body, also where it came as a form's `payload`."""
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        from urllib.parse import parse_qs

        form = parse_qs(body.decode("utf-8", "replace"))
        body = form["payload"][0].encode() if "payload" in form else body
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the body is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("the body must be a JSON object")
    return found


def _at(value: Any, path: str) -> Any:
    """What lies at a dotted path; None where there is nothing."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None if value is None else orjson.dumps(value).decode()


def _with(title: str, text: Any) -> str:
    return f"{title}\n{text}" if text else title


def _given(attributes: Mapping[str, Any]) -> dict[str, Scalar]:
    return {name: value for name, value in attributes.items() if value is not None}
