"""`mcp-broker doctor`: runs the users' own test guide against the running broker."""
