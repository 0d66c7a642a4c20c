"""The MCP server of Headwater: `build(verbs)` makes it, `python -m headwater_mcp` serves it on standard input and output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater_mcp.server import build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    if name == "build":  # mcp takes about a second to import
        from headwater_mcp.server import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
