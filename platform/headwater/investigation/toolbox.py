"""The tools of agents, called in this process: those that read, and nothing else.

They are the MCP server's own (the entry point `headwater.mcp`), over verbs that a token without the right to write may call,
so whatever a model is talked into, it can only look, and only at the topics that were asked about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, cast

import anyio.to_thread

from headwater.errors import ConfigError
from headwater.scoped import scoped
from headwater.tokens import Token
from headwater.verbs import Verbs

_NAME = "(investigation)"  # no token can have this name, so nobody's notes are its own
_NOT_FOR_IT = frozenset({"ask", "wait", "status"})  # asking takes a model's money beside the bounds; waiting finds no cause
_OURS = frozenset({"max_tokens", "response_format", "cursor"})  # parameters that are not the model's to choose
_LEGEND = re.compile(r"^\(Text in data-([a-z]{8}) tags comes from records", re.MULTILINE)
_ADDRESS = re.compile(r"(?<![\w./-])([A-Za-z0-9][A-Za-z0-9._-]{0,99}/\d{1,4}/\d{1,18})(?![\w/])")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as a model is told of it. `parameters` are JSON schemas by name."""

    name: str
    about: str
    parameters: Mapping[str, Mapping[str, Any]]
    required: frozenset[str]


@dataclass(frozen=True, slots=True)
class Said:
    """A reply: its text for the model, and what of it is Headwater's own and no record's (`ours`), with the addresses there."""

    text: str
    failed: bool = False

    @property
    def ours(self) -> str:
        legend = _LEGEND.search(self.text)
        if legend is None:
            return "" if "<data-" in self.text else self.text
        return re.sub(rf"<data-{legend[1]}>.*?</data-{legend[1]}>", " ", self.text, flags=re.DOTALL)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_ADDRESS.findall(self.ours)))


class Toolbox:
    """The tools over verbs; `open_toolbox` makes it."""

    def __init__(self, server: Any, tools: Sequence[Tool], error: type[Exception]) -> None:
        self._server, self._error = server, error
        self.tools = {tool.name: tool for tool in tools}

    async def call(self, name: str, arguments: Mapping[str, Any], max_tokens: int) -> Said:
        """One call; what it takes no parameter for is left out. A failure is a reply that says what to mend."""
        known = self.tools[name].parameters
        given = {key: value for key, value in arguments.items() if key in known}
        try:
            result = await self._server.call_tool(name, {**given, "max_tokens": max_tokens})
        except self._error as error:
            return Said(str(error), failed=True)
        text = "".join(str(getattr(part, "text", "")) for part in result.content)
        return Said(text, failed=bool(result.is_error))


async def open_toolbox(verbs: Verbs, topics: Sequence[str] | None) -> Toolbox:
    """The reading tools over `topics` (None: all) of `verbs`. ConfigError where the server of agents is not installed."""
    build, error = await anyio.to_thread.run_sync(_loaded)  # importing it takes a second
    within = scoped(verbs, reader(topics))
    server = build(within, who=f"token:{_NAME}")
    listed = [tool for tool in await server.list_tools() if tool.annotations and tool.annotations.read_only_hint]
    return Toolbox(server, [_told(tool) for tool in listed if tool.name not in _NOT_FOR_IT], error)


def reader(topics: Sequence[str] | None) -> Token:
    """Who may read those topics, and do nothing else."""
    return Token(_NAME, "", ("*",) if topics is None else tuple(topics), write=False, created_ms=0)


def _loaded() -> tuple[Any, type[Exception]]:
    for entry in entry_points(group="headwater.mcp", name="server"):
        build = entry.load()
        from mcp.server.mcpserver.exceptions import ToolError

        return build, ToolError
    raise ConfigError("the server of agents is not installed, whose tools an investigation uses; install headwater anew")


def _told(tool: Any) -> Tool:
    schema = cast("dict[str, Any]", tool.input_schema)
    parameters = {name: part for name, part in schema["properties"].items() if name not in _OURS}
    return Tool(tool.name, tool.description or "", parameters, frozenset(schema.get("required", ())))
