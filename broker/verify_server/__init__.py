"""The test kit for MCP servers and APIs: it fires bad tokens at one, and reports which it takes."""
