"""The MCP server of Headwater."""
