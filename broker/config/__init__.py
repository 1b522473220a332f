"""What `broker.toml` says: its keys, how it is read, and how two of them differ.

Pure, as the core is; it imports `base` only, so the command reads a config without the core.
"""
