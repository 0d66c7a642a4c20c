"""Spans, for whoever traces. Off unless a tracer is in use in this context; then a span costs a look at one variable.

Attributes are names, kinds and numbers. Text of records, questions, keys and messages of errors never become one.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_TRACER: ContextVar[Any] = ContextVar("headwater.tracer", default=None)  # of opentelemetry; tasks and threads inherit it
_OFF = contextlib.nullcontext()


@contextlib.contextmanager
def tracing(tracer: Any) -> Iterator[None]:
    """Inside, and in every task and thread begun inside, spans go to this tracer of OpenTelemetry."""
    token = _TRACER.set(tracer)
    try:
        yield
    finally:
        _TRACER.reset(token)


def span(name: str, **about: str | int | float | bool) -> contextlib.AbstractContextManager[Any]:
    """What happens inside, as a span below the one that is open."""
    tracer = _TRACER.get()
    return _OFF if tracer is None else _opened(tracer, name, about)


def traced(name: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """A coroutine function whose every call is a span."""

    def around(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(call)
        async def within(*args: P.args, **kwargs: P.kwargs) -> T:
            if (tracer := _TRACER.get()) is None:
                return await call(*args, **kwargs)
            with _opened(tracer, name, {}):
                return await call(*args, **kwargs)

        return within

    return around


def note(**about: str | int | float | bool) -> None:
    """Say more of the span that is open."""
    if _TRACER.get() is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes(about)


def stage(name: str, began_s: float, **about: Any) -> None:
    """A span for a part that is over: from `began_s` of time.perf_counter() until now."""
    if (tracer := _TRACER.get()) is not None:
        end_ns = time.time_ns()
        took_ns = int((time.perf_counter() - began_s) * 1e9)
        numbers = {key: value for key, value in about.items() if isinstance(value, int | float)}
        tracer.start_span(name, attributes=numbers, start_time=end_ns - took_ns).end(end_ns)


@contextlib.contextmanager
def _opened(tracer: Any, name: str, about: Mapping[str, str | int | float | bool]) -> Iterator[Any]:
    from opentelemetry.trace import Status, StatusCode

    settings: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}  # messages may quote records
    with tracer.start_as_current_span(name, attributes=dict(about), **settings) as one:
        try:
            yield one
        except Exception as error:
            one.set_attribute("error.type", type(error).__name__)
            one.set_status(Status(StatusCode.ERROR))
            raise
