"""The HTTP API over any verbs: the routes put together, behind the guard."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.api import (
    problems,
    routes_ask,
    routes_audit,
    routes_conversations,
    routes_deliveries,
    routes_detect,
    routes_enrich,
    routes_investigate,
    routes_live,
    routes_models,
    routes_push,
    routes_records,
    routes_search,
    routes_sources,
    routes_system,
    routes_topics,
    routes_watches,
    routes_webhooks,
)
from headwater.api.agents import PATH, Agents
from headwater.api.bodies import State
from headwater.api.guard import Guard
from headwater.api.metrics import Metrics
from headwater.config import ServerSettings
from headwater.intake.doors import Doors
from headwater.tokens import Tokens
from headwater.verbs import Verbs

_ABOUT = """Streams that can be searched by meaning, questioned with checked citations, and followed.
Errors are problem details (RFC 9457). Times are ISO 8601 UTC; a record's address is `topic/partition/offset`."""


def routes(
    verbs: Verbs, *, closing: asyncio.Event | None = None, version: str = "", doors: Doors | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:  # fmt: skip
    """The routes alone, unguarded: mount what else is served beside them, then put a Guard around. `closing` ends streams;
    `doors` take what is pushed to sources."""
    app = FastAPI(title="Headwater", version=version or "0", description=_ABOUT, separate_input_output_schemas=False)
    app.state.headwater = State(verbs, metrics or Metrics(), closing or asyncio.Event(), version, doors)
    busiest_first = (
        routes_records, routes_push, routes_search, routes_topics, routes_deliveries, routes_live, routes_watches,
        routes_ask, routes_investigate, routes_conversations, routes_models, routes_enrich, routes_detect,
        routes_webhooks, routes_sources, routes_audit, routes_system,
    )  # fmt: skip
    for part in busiest_first:
        app.include_router(part.router)
    problems.install(app)
    return app


def create_app(
    verbs: Verbs, settings: ServerSettings, *, closing: asyncio.Event | None = None, version: str = "",
    doors: Doors | None = None, tokens: Tokens | None = None, local_key: str | None = None,
    metrics: Metrics | None = None,
) -> ASGIApp:  # fmt: skip
    """The API as the daemon serves it, with agents beside it at `/mcp`. `tokens` and `local_key` are the guard's."""
    closing = closing or asyncio.Event()
    api = routes(verbs, closing=closing, version=version, doors=doors, metrics=metrics)
    agents = Agents(verbs, settings, closing)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        to_agents = scope["type"] == "http" and scope["path"] == PATH
        await (agents if to_agents else api)(scope, receive, send)

    return Guard(either, settings, tokens=tokens, local_key=local_key)


def create_otlp_app(
    verbs: Verbs,
    settings: ServerSettings,
    doors: Doors,
    door: str,
    *,
    tokens: Tokens | None = None,
    local_key: str | None = None,
) -> ASGIApp:
    """OTLP alone, for a port of its own: what comes goes to the entry named `door`."""
    app = FastAPI(title="Headwater OTLP", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.headwater = State(verbs, Metrics(), asyncio.Event(), "", doors, door)
    app.include_router(routes_push.otlp)
    problems.install(app)
    return Guard(app, settings, tokens=tokens, local_key=local_key)
