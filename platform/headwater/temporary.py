"""An engine whose directory goes when it closes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio.to_thread

from headwater.config import Settings
from headwater.engine import Engine


@contextlib.asynccontextmanager
async def temporary(settings: Settings, *, version: str = "") -> AsyncIterator[Engine]:
    """An engine in a directory of its own that goes when it closes: `headwater.open(":memory:")`. Not durable."""
    directory = Path(tempfile.mkdtemp(prefix="headwater-"))
    try:
        async with Engine(replace(settings, data_dir=str(directory)), durable=False, version=version) as engine:
            yield engine
    finally:
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
