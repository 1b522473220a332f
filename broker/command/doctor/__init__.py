"""`mcp-broker doctor`: the users' own test guide, carried out on the running broker."""
