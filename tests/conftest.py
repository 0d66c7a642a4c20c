"""Property tests try the same examples in every run, so that a run can be repeated; `make explore` tries new ones."""

from __future__ import annotations

import inspect
import os
import signal

import httpx
import pytest
from hypothesis import HealthCheck, settings

_SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines are slow at times
settings.register_profile("repeatable", _SLOW, derandomize=True)
settings.register_profile("explore", _SLOW, derandomize=False, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# The 5 s that httpx waits where nothing is said are too few for a machine that is loaded.
_patience = inspect.signature(httpx.get).parameters["timeout"].default
_patience.connect = _patience.read = _patience.write = _patience.pool = 240.0

# A shell that starts the tests in the background has them ignore interrupts, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at its end no worker of a run is left alone with one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
