"""Who called what: each call of an agent is kept in the log of calls, behind the reply, so that it costs the caller nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult

from headwater.errors import HeadwaterError
from headwater.verbs import Verbs
from headwater.visible import visible

logger = logging.getLogger(__name__)
_NAME = 60
_WAITING = 1000  # notes under way: beyond it a call waits until its own is kept


class Noting:
    """Keeps calls over `verbs` for `who`; a note that fails is logged, and the call it is of goes on."""

    def __init__(self, verbs: Verbs, who: str) -> None:
        self._verbs, self._who = verbs, who
        self._under_way: set[asyncio.Task[None]] = set()

    async def note(
        self, context: Context[Any, Any] | None, tool: str, arguments: Mapping[str, Any], begun: float, size: int, failed: bool
    ) -> None:
        """Keep a call that began at `begun` (monotonic)."""
        who = " ".join(part for part in (self._who, client_of(context)) if part) or "unknown"
        call = {"arguments": digest(arguments), "size": size, "seconds": round(time.monotonic() - begun, 4), "failed": failed}
        task = asyncio.create_task(self._keep(who, visible(tool[:_NAME], newlines="mark"), call))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        if len(self._under_way) > _WAITING:
            await task

    async def settle(self) -> None:
        """Wait until everything is kept."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _keep(self, who: str, tool: str, call: Mapping[str, Any]) -> None:
        try:
            await self._verbs.note_call(who, tool, **call)
        except HeadwaterError as error:
            logger.warning("a call of %s was not kept: %s", tool, error)


def digest(arguments: Mapping[str, Any]) -> str:
    """SHA-256 of arguments as canonical JSON: sorted keys, no blanks, ASCII."""
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def size_of(result: object) -> int:
    """Bytes of a reply's text."""
    if not isinstance(result, CallToolResult):
        return 0
    return sum(len(part.text.encode("utf-8", "replace")) for part in result.content if part.type == "text")


def client_of(context: Context[Any, Any] | None) -> str:
    """What the client calls itself, which nobody has checked."""
    if context is None or (params := context.session.client_params) is None:
        return ""
    return visible(params.client_info.name[:_NAME], newlines="mark")
