"""The status page served on a loopback port, with data of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from broker.gateway.http.page.history import EVERY_S, History
from broker.gateway.http.page.view import PAGE, Reply, StatusPage

TOKEN = "page-token-of-the-test"


def server(name: str, **facts: Any) -> dict[str, Any]:
    """Return one server as the broker's status tells it."""
    return {
        "name": name,
        "state": "ready",
        "stopped_by_hand": False,
        "pid": 4711,
        "processes": 2,
        "rss_bytes": 60 << 20,
        "uptime_s": 7300.0,
        "restarts": 0,
        "era": "legacy",
        "tools": 3,
        "calls": 128,
        "errors": 1,
        "in_flight": 0,
        "queued": 0,
        "p50_ms": 2.25,
        "p99_ms": 8.5,
        "last_error": None,
        "last_lines": ["a line of stderr"],
        **facts,
    }


def status(*servers: dict[str, Any]) -> dict[str, Any]:
    broker = {
        "version": "0.1.0",
        "uptime_s": 90061.0,
        "rss_bytes": 40 << 20,
        "clients": 3,
        "config": "/etc/x",
    }
    return {"broker": broker, "servers": list(servers), "clients": [{"name": "a client"}]}


def page_of(told: dict[str, Any], samples: int = 0) -> StatusPage:
    """Return a page whose broker says `told`, with a history of as many equal samples."""

    async def ask() -> dict[str, Any]:
        return told

    history = History()
    for number in range(samples):
        history.add(1_790_000_000 + number * EVERY_S, told["servers"])
    return StatusPage(ask, history)


@contextmanager
def served(page: StatusPage) -> Iterator[str]:
    """Serve `page` as the gateway does: the file to everybody, the data to those with the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == PAGE:
                self._send(page.file())
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(Reply(401, {}, b"{}"))
            else:
                self._send(asyncio.run(page.data(self.path, lambda _: True)))

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    site = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{site.server_port}/"
    finally:
        site.shutdown()
        site.server_close()
        thread.join()
