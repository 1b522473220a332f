"""The operating system's side: systemd, signals, logging, claims, the config file.

It stands beside the hub: it imports the core, the config and `base` only.
"""
