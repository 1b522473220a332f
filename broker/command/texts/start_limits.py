"""The line that says that a server is not started because `max_running` or `memory_high` is reached."""

from __future__ import annotations

from typing import Any

from broker.command.texts.filling import fill

_MIB = 1024**2

_LIMITS = {
    "max_running": (
        "{used} server{used:s} {used:are} running (max_running = {value})",
        "正在运行 {used} 个服务器（max_running = {value}）",
    ),
    "memory_high": (
        "the servers use {used} MiB (memory_high = {value} MiB)",
        "各服务器共占用 {used} MiB（memory_high = {value} MiB）",
    ),
}

_SERVERS = {
    "starting": (
        "{server}: waits for room: {limit}; it starts when another server is idle",
        "{server}：等待名额：{limit}；有其他服务器空闲时启动",
    ),
    "idle": (
        "{server}: not started: {limit}; its first call stops the server that is idle for longest",
        "{server}：未启动：{limit}；首次调用时会停止空闲最久的服务器",
    ),
}


def no_room(server: dict[str, Any]) -> str | None:
    """Return why a server is not started, if there is no room for it."""
    room = server.get("room")
    if not room or room["limit"] not in _LIMITS or server["state"] not in _SERVERS:
        return None
    unit = _MIB if room["limit"] == "memory_high" else 1
    limit = fill(_LIMITS[room["limit"]], used=room["used"] // unit, value=room["value"] // unit)
    return fill(_SERVERS[server["state"]], server=server["name"], limit=limit)
