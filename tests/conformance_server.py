"""Serves MCP for the official conformance suites: `python conformance_server.py product|fixture PORT`.

Both are what the daemon serves at /mcp, guard and all. `product` is the product over records in memory; `fixture` has beside it
the tools, resources and prompts that the suites call by name, to try the transport with every kind of content.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.utilities.types import Audio, Image
from mcp.shared.exceptions import MCPError
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

from headwater.api.agents import Agents, found
from headwater.api.guard import Guard
from headwater.config import ServerSettings
from headwater.verbs import Verbs
from headwater_mcp import build
from headwater_mcp.server import HeadwaterServer
from headwater_mcp.updates import Updates
from memory_verbs import MemoryVerbs

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==")
WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=")
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {
        "street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {
        "name": {"type": "string"}, "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"}, "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]}, "else": {"required": ["email"]}, "additionalProperties": False,
}  # fmt: skip


def fixture(verbs: Verbs, *, allow_write: bool = False, who: str = "", roots: Sequence[Path] = ()) -> HeadwaterServer:
    """The product's server, and what the suites call by name."""
    server = build(verbs, allow_write=allow_write, who=who, updates=Updates(verbs, scheme="test://"))
    _tools(server)
    _resources(server)
    _prompts(server)
    server._parameters |= {t.name: list(t.parameters.get("properties", {})) for t in server._tool_manager.list_tools()}
    return server


def _tools(server: MCPServer[None]) -> None:
    def add(function: Any) -> None:
        server.add_tool(function, description=f"For the suite: {function.__name__}", structured_output=False)

    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    def test_image_content() -> Any:
        return Image(data=PNG, format="png")

    def test_audio_content() -> Any:
        return Audio(data=WAV, format="wav")

    def test_embedded_resource() -> Any:
        text = "This is an embedded resource content."
        inner = TextResourceContents(uri="test://embedded-resource", mime_type="text/plain", text=text)
        return EmbeddedResource(type="resource", resource=inner)

    def test_multiple_content_types() -> Any:
        inner = TextResourceContents(uri="test://mixed-content-resource", mime_type="application/json", text='{"test":"data"}')
        image = ImageContent(type="image", data=base64.b64encode(PNG).decode(), mime_type="image/png")
        text = TextContent(type="text", text="Multiple content types test:")
        return [text, image, EmbeddedResource(type="resource", resource=inner)]

    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    async def test_tool_with_progress(ctx: Context[None, Any]) -> str:
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100, f"Completed step {done} of 100")
            await asyncio.sleep(0.05)
        return "done"

    async def test_missing_capability(ctx: Context[None, Any]) -> str:
        declared = ctx.client_capabilities
        if declared is None or declared.sampling is None:
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "needs sampling", {"requiredCapabilities": {"sampling": {}}})
        return "ok"

    async def test_trigger_tool_change(ctx: Context[None, Any]) -> str:
        await ctx.notify_tools_changed()
        return "ok"

    async def test_trigger_prompt_change(ctx: Context[None, Any]) -> str:
        await ctx.notify_prompts_changed()
        return "ok"

    def test_headers(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region

    def json_schema_2020_12_tool() -> str:
        return "ok"

    for function in (
        test_simple_text, test_image_content, test_audio_content, test_embedded_resource, test_multiple_content_types,
        test_error_handling, test_tool_with_progress, test_missing_capability, test_trigger_tool_change,
        test_trigger_prompt_change, test_headers, json_schema_2020_12_tool,
    ):  # fmt: skip
        add(function)
    tool = server._tool_manager.get_tool("json_schema_2020_12_tool")
    assert tool is not None
    tool.parameters = SCHEMA


def _resources(server: MCPServer[None]) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """Text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """An image."""
        return PNG

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        """A template."""
        return f'{{"id": "{id}", "templateTest": true, "data": "Data for ID: {id}"}}'

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        """To be subscribed to."""
        return "watched"


def _prompts(server: MCPServer[None]) -> None:
    @server.prompt()
    def test_simple_prompt() -> str:
        """A prompt."""
        return "This is a simple prompt for testing."

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """A prompt with arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> Any:
        """A prompt with a resource."""
        inner = TextResourceContents(uri=resourceUri, mime_type="text/plain", text="Embedded resource content for testing.")
        resource = EmbeddedResource(type="resource", resource=inner)
        return [UserMessage(resource), UserMessage("Please process the resource above.")]

    @server.prompt()
    def test_prompt_with_image() -> Any:
        """A prompt with an image."""
        image = ImageContent(type="image", data=base64.b64encode(PNG).decode(), mime_type="image/png")
        return [UserMessage(image), UserMessage("Please analyze the image above.")]


async def serve(kind: str, port: int) -> None:
    """Serve until the process ends."""
    verbs = MemoryVerbs()
    await verbs.append("logs", ["payment failed", "pool exhausted"])
    settings = ServerSettings(port=port)
    find = (lambda: fixture) if kind == "fixture" else found
    agents = Agents(verbs, settings, asyncio.Event(), find=find)  # type: ignore[arg-type]
    config = uvicorn.Config(Guard(agents, settings), host="127.0.0.1", port=port, lifespan="off", log_level="warning")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
