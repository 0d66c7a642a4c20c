"""The processes that build segments, held or kept from ending, so that a test sees what comes before."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def builders_wait() -> Iterator[threading.Event]:
    """No builder starts in this process until the event is set, or the block ends."""
    go, real = threading.Event(), subprocess.Popen

    def later(*given: Any, **more: Any) -> subprocess.Popen[bytes]:
        go.wait(240)
        return real(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", later)
        try:
            yield go
        finally:
            go.set()


@contextlib.contextmanager
def builders_never_end(index: Path) -> Iterator[None]:
    """Builders of graphs that are started meanwhile below a directory wait for ever before they write their last files."""
    real = subprocess.Popen

    def endless(*given: Any, **more: Any) -> subprocess.Popen[bytes]:
        (directory,) = index.glob("building-*")
        os.mkfifo(directory / "weights.npy")  # which nobody reads
        return real(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", endless)
        yield
