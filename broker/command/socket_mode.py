"""Tells when the broker's socket is closed to the users for whom the environment wants it open.

The image's environment has `MCP_BROKER_SOCKET_MODE=0660`, because the backend beside it has another user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from broker.command.texts.words import say

if TYPE_CHECKING:
    from broker.config.schema import BrokerConfig

VARIABLE = "MCP_BROKER_SOCKET_MODE"
"""As in `broker.config.loading.OF_ENVIRONMENT`, which `status` does not import: it loads msgspec."""

_OTHERS = 0o066
"""The permissions of the group and of everybody else."""


def closed_by(config: BrokerConfig, environ: Mapping[str, str]) -> str | None:
    """Return that the config closes the socket to others, against the environment; else `None`."""
    mode = int(config.socket_mode, 8)
    if wanted := _wanted(mode, environ):
        return say("check_socket_closed", mode=f"{mode:04o}", variable=VARIABLE, wanted=wanted)
    return None


def closed_socket(endpoint: str, environ: Mapping[str, str]) -> str | None:
    """Return that the running broker's socket is closed to others, against the environment; else `None`."""
    path = endpoint.removeprefix("ipc://")
    with suppress(OSError):  # a TCP port, or the socket has just gone
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if wanted := _wanted(mode, environ):
            return say("socket_closed", path=path, mode=f"{mode:04o}", variable=VARIABLE, wanted=wanted)
    return None


def _wanted(mode: int, environ: Mapping[str, str]) -> str | None:
    """Return the mode that the environment wants, if with `mode` fewer users can connect."""
    wanted = environ.get(VARIABLE) or "0"
    with suppress(ValueError):  # the broker refuses it
        return wanted if int(wanted, 8) & _OTHERS & ~mode else None
    return None
