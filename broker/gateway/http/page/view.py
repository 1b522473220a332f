"""What the status page shows, and how it is served: a file without data, and the data as JSON for a token."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

from broker.gateway.http.page.history import EVERY_S, History

PAGE = "/"
STATUS = "/status.json"
HISTORY = "/history.json"
DATA = frozenset({STATUS, HISTORY})

SHOWN = (
    *("name", "state", "stopped_by_hand", "pid", "processes", "rss_bytes", "uptime_s", "restarts", "era"),
    *("tools", "calls", "errors", "in_flight", "queued", "p50_ms", "p99_ms", "last_error"),
)
"""The fields of a server that the page gets. Arguments, environment and log lines are not among them."""

_BROKER = ("version", "uptime_s", "rss_bytes", "clients")

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)

Status = Callable[[], Awaitable[Mapping[str, Any]]]


class Reply(NamedTuple):
    """An HTTP response of the page."""

    status: int
    headers: dict[str, str]
    body: bytes


class StatusPage:
    """The page at `/` and its two JSON files.

    The file holds no data, so everybody may load it; what it shows comes by `data`, behind the guard.

    Args:
        status: asks the broker for what ``mcp-broker status --json`` prints.
        history: the samples of the plot.
    """

    def __init__(self, status: Status, history: History) -> None:
        self._status = status
        self._history = history
        self._body = files(__package__).joinpath("status.html").read_bytes()
        self._headers = {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": _policy(self._body.decode()),
            **_COMMON,
        }

    def file(self) -> Reply:
        """Return the page itself."""
        return Reply(200, self._headers, self._body)

    async def data(self, path: str, may_see: Callable[[str], bool]) -> Reply:
        """Return `STATUS` or `HISTORY`, reduced to the servers that `may_see` admits.

        Raises:
            BrokerError: the broker did not answer.
        """
        if path == HISTORY:
            return _json({"every_s": EVERY_S, **self._history.series(may_see)})
        status = await self._status()
        servers = [
            {field: server.get(field) for field in SHOWN}
            for server in status["servers"]
            if may_see(server["name"])
        ]
        return _json({"broker": {field: status["broker"][field] for field in _BROKER}, "servers": servers})

    async def sample(self, clock: Callable[[], float] = time.time) -> None:
        """Add one sample to the history.

        Raises:
            BrokerError: the broker did not answer; the history has a gap for it.
        """
        servers = None
        try:
            servers = (await self._status())["servers"]
        finally:
            self._history.add(clock(), servers)


_COMMON = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


def _json(value: object) -> Reply:
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return Reply(200, {"content-type": "application/json", **_COMMON}, body)


def _policy(page: str) -> str:
    """Return a Content-Security-Policy under which only the page's own style and script run (CSP Level 3)."""
    hashes = {"style": "", "script": ""}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind] += f" 'sha256-{digest}'"
    return (
        f"default-src 'none'; style-src{hashes['style']}; script-src{hashes['script']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
