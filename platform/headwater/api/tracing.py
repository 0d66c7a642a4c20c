"""Each HTTP request as a span, below the caller's where it says so in `traceparent`."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater import telemetry

_UNTOLD = frozenset({"/v1/health", "/v1/ready", "/metrics"})  # asked every few seconds, by programs
_CONTEXT = (b"traceparent", b"tracestate")


class Traced:
    """Wraps an ASGI app. A span is named after the route, never after the path: that has names and words of the caller."""

    def __init__(self, app: ASGIApp, tracer: Any) -> None:
        self._app, self._tracer, self._propagator = app, tracer, TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTOLD:
            await self._app(scope, receive, send)
            return
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT}
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        with (
            telemetry.tracing(self._tracer),
            self._tracer.start_as_current_span(
                method, context=self._propagator.extract(carrier), kind=SpanKind.SERVER,
                attributes={"http.request.method": method, "url.scheme": scope.get("scheme", "http")},
                record_exception=False, set_status_on_exception=False,
            ) as span,
        ):  # fmt: skip
            try:
                await self._app(scope, receive, watched)
            finally:
                if (route := getattr(scope.get("route"), "path", None)) is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(Status(StatusCode.ERROR))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
