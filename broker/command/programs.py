"""The client programs that are connected: connections of one name are one program."""

from __future__ import annotations

from typing import Any

COMMAND_NAME = "mcp-broker"
STATUS_NAME, DOCTOR_NAME = f"{COMMAND_NAME} status", f"{COMMAND_NAME} doctor"
"""The names of the connections by which two commands observe the broker. They are no client programs."""


def client_programs(clients: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the connections of `status`, grouped by the name of their program."""
    programs: dict[str, list[dict[str, Any]]] = {}
    for client in clients:
        if client["name"] not in (STATUS_NAME, DOCTOR_NAME):
            programs.setdefault(client["name"], []).append(client)
    return programs
