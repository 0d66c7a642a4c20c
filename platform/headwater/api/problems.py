"""Errors as problem details (RFC 9457): one mapping from the error tree to statuses, the same for every route."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from headwater import errors, wire
from headwater.errors import EmbedError, HeadwaterError, LimitError, ModelError, QueryError

logger = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[HeadwaterError], int], ...] = (
    (QueryError, 400),
    (errors.ConflictError, 409),
    (errors.UsageError, 422),
    (errors.NotFoundError, 404),
    (EmbedError, 502),
    (ModelError, 502),
    (errors.UnreachableError, 503),
    (errors.OwnedError, 503),
    (errors.AuthError, 401),
    (errors.WaitTimeout, 504),
    (errors.StorageError, 507),
    (errors.DamageError, 503),
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "position": {"type": "integer", "description": "The character of the query that offends, from 0."},
        "expected": {"type": "string"},
        "query": {"type": "string"},
        "retry_after": {"type": "number", "description": "Seconds after which to come back."},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Problem details (RFC 9457)", "content": {wire.PROBLEM_JSON: {"schema": SCHEMA}}}
}


def problem(
    status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, title: str | None = None, **extra: Any
) -> Response:
    """Problem details as a response; `extra` members that are None are left out."""
    body = {"type": kind, "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail}
    body |= {name: value for name, value in extra.items() if value is not None}
    # a detail may quote what was sent, lone surrogates too; those have no JSON
    content = orjson.dumps(body) if detail.isascii() else orjson.dumps(_writable(body))
    return Response(content, status, headers, wire.PROBLEM_JSON)


def of(error: HeadwaterError, status: int | None = None) -> Response:
    """The response that stands for an error of the tree."""
    detail = "; ".join([str(error), *getattr(error, "__notes__", ())])
    wait_s = error.retry_after_s if isinstance(error, LimitError | EmbedError | ModelError) else None
    if status is None:
        status = (413 if wait_s is None else 429) if isinstance(error, LimitError) else _status(error)
    extra: dict[str, Any] = {"retry_after": wait_s}
    if isinstance(error, QueryError):
        extra |= {"position": error.position, "expected": error.expected, "query": error.query}
    headers = {} if wait_s is None else {"retry-after": str(max(1, round(wait_s)))}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return problem(status, wire.problem_type(error), detail, headers=headers, **extra)


def install(app: FastAPI) -> None:
    """Make every error of an app problem details."""
    app.add_exception_handler(HeadwaterError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadwaterError)
    known = request.scope.get("headwater.caller") is not None  # who it is was settled; what it may do is what failed
    return of(error, 403 if known and isinstance(error, errors.AuthError) else None)


async def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong where in a request; never what was sent, which may hold a secret."""
    assert isinstance(error, RequestValidationError)
    found = [{"where": ".".join(map(str, e["loc"])), "what": str(e["msg"])} for e in error.errors()[:20]]
    if found and error.errors()[0]["type"] == "json_invalid":
        return problem(400, "urn:headwater:problem:usage", "the body is not valid JSON", errors=found)
    detail = "; ".join(f"{f['where']}: {f['what']}" for f in found[:3])
    return problem(422, "urn:headwater:problem:usage", detail or "the request is not valid", errors=found)


def usage_of(error: ValidationError) -> errors.UsageError:
    """What is wrong with one part of a request, as an error of the tree."""
    return errors.UsageError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors()[:3]))


def plain(error: HeadwaterError) -> dict[str, Any]:
    """The problem details of an error, for a reply that holds several."""
    body: dict[str, Any] = orjson.loads(bytes(of(error).body))
    return body


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "urn:headwater:problem:not-found" if error.status_code == 404 else "about:blank"
    detail = f"no route {request.method} {request.url.path}" if error.status_code in (404, 405) else str(error.detail)
    return problem(error.status_code, kind, detail, headers=error.headers)


async def _unknown(request: Request, error: Exception) -> Response:
    """An error nobody foresaw: its own words stay in the log, the reply carries the id to find them by."""
    id = uuid.uuid4().hex[:12]
    logger.error("error %s in %s %s", id, request.method, request.url.path, exc_info=error)
    return problem(500, "urn:headwater:problem:internal", f"an internal error; the daemon's log has it as {id}", id=id)


def _status(error: HeadwaterError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {k: _writable(v) for k, v in value.items()}
    return [_writable(v) for v in value] if isinstance(value, list) else value
