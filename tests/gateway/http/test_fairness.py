"""A flood of one client waits for itself: in which order a real gateway sends to the broker what came in.

Guards law 5 by the order alone, which depends on no speed. The gateway is stopped while its clients send, so
that everything waits for it at once, and the requests of the flood are the first in every queue.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.gateway.http.headers import SESSION_ID, VERSION
from broker.gateway.http.turns import EXCHANGES_A_TURN
from broker.gateway.stdio.sockets import LINES_A_TURN
from broker.gateway.tokens import digest_of
from client_shim import wire
from tests.client_shim.peer import Peer
from tests.e2e.harness import RunningBroker, wait_until
from tests.gateway.bridges import MODERN_META
from tests.gateway.gateways import LEGACY, META, Http, RunningGateway, close_all, gateway

FLOOD, GOOD = 64, 4
"""How many requests each of the two has ready at once."""

NAMES = ("flood", "good")


class Recorder:
    """A broker of one server that answers everything, and remembers whose calls came in which order."""

    def __init__(self, endpoint: str) -> None:
        self.order: list[str] = []
        self._endpoint = endpoint
        self._is_over = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Recorder:
        self._thread.start()
        assert self._bound.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)

    def _serve(self) -> None:
        with Peer(self._endpoint) as peer:
            self._bound.set()
            while not self._is_over.wait(0.001):
                while peer.has_mail():
                    self._answer(peer)

    def _answer(self, peer: Peer) -> None:
        heard = peer.receive()
        match heard.message:
            case wire.Hello():
                peer.welcome(heard.who)
            case wire.Request(method="servers"):
                peer.result(heard, b'{"servers":[{"name":"rogue","state":"ready"}]}')
            case wire.Request(method="tools/call"):
                self.order.append(json.loads(heard.body or b"{}")["arguments"]["whose"])
                peer.result(heard, b'{"content":[]}')
            case wire.Request():
                peer.result(heard, b'{"tools":[]}')


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(f"ipc://{tmp_path}/broker.sock") as found:
        yield found


@pytest.fixture
def door(recorder: Recorder, tmp_path: Path) -> Iterator[RunningGateway]:
    broker = cast(RunningBroker, SimpleNamespace(folder=tmp_path, endpoint=f"ipc://{tmp_path}/broker.sock"))
    tokens: dict[str, Any] = {f"tokens.{name}": {"sha256": digest_of(name).hex()} for name in NAMES}
    with gateway(broker, gateway={"sockets": str(tmp_path / "sockets")}, **tokens) as found:
        yield found
        close_all()


@contextmanager
def stopped(door: RunningGateway) -> Iterator[None]:
    """Hold the gateway: what is sent meanwhile waits for it in the kernel."""
    door.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        door.process.send_signal(signal.SIGCONT)


def request_of(whose: str, id: int = 0) -> dict[str, Any]:
    params = {"name": "echo", "arguments": {"whose": whose}, "_meta": MODERN_META}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def floods_before_the_last_good(order: list[str]) -> int:
    return order[: len(order) - order[::-1].index("good")].count("flood")


def test_a_token_with_many_requests_waits_for_itself(door: RunningGateway, recorder: Recorder) -> None:
    """No more of them are sent than it may begin in two turns while another token's requests wait."""
    with ExitStack() as opened:
        plugs = [(name, _connected(opened, door)) for name in ["flood"] * FLOOD + ["good"] * GOOD]
        for name, plug in plugs:  # each connection is open, and its token was seen on it
            plug.sendall(_post(name, name))
            assert plug.recv(65536).startswith(b"HTTP/1.1 200 ")
        recorder.order.clear()
        with stopped(door):
            for name, plug in plugs:
                plug.sendall(_post(name, name))
        wait_until(lambda: len(recorder.order) == FLOOD + GOOD, lambda: recorder.order)
    assert floods_before_the_last_good(recorder.order) <= 2 * EXCHANGES_A_TURN


@pytest.mark.parametrize("era", ["sessions", "names"])
def test_a_client_with_many_requests_waits_for_itself_beside_one_of_the_same_token(
    door: RunningGateway, recorder: Recorder, era: str
) -> None:
    """Law 5 between sessions, and between clients of 2026-07-28 by what they say that they are called."""
    client = Http(door.port, "/mcp/rogue", {"authorization": "Bearer good"})
    sessions = {name: client.initialized().id if era == "sessions" else None for name in NAMES}
    whose = ["flood"] * FLOOD + ["good"] * GOOD
    with ExitStack() as opened:
        plugs = [_connected(opened, door) for _ in whose]
        posts = [_post("good", name, id, session=sessions[name]) for id, name in enumerate(whose)]
        for plug, post in zip(plugs, posts, strict=True):
            plug.sendall(post)
            assert plug.recv(65536).startswith(b"HTTP/1.1 200 ")
        recorder.order.clear()
        with stopped(door):
            for plug, post in zip(plugs, posts, strict=True):
                plug.sendall(post)
        wait_until(lambda: len(recorder.order) == len(whose), lambda: recorder.order)
    assert floods_before_the_last_good(recorder.order) <= EXCHANGES_A_TURN + 2 * GOOD


def test_a_host_with_many_requests_waits_for_itself(door: RunningGateway, recorder: Recorder) -> None:
    """The same for the clients of a Unix socket, each of which is one connection."""
    path = door.folder.parent / "sockets" / "rogue.sock"
    with ExitStack() as opened:
        flood, good = (opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in NAMES)
        for plug, whose in zip((flood, good), NAMES, strict=True):
            plug.settimeout(30)
            wait_until(lambda plug=plug: plug.connect_ex(str(path)) == 0)  # type: ignore[misc]
            plug.sendall(_line(whose))
            assert b'"result"' in plug.recv(65536)
        recorder.order.clear()
        with stopped(door):
            flood.sendall(b"".join(_line("flood", id) for id in range(1, FLOOD + 1)))
            good.sendall(_line("good", 1))
        wait_until(lambda: len(recorder.order) == FLOOD + 1, lambda: recorder.order)
    assert floods_before_the_last_good(recorder.order) <= 2 * LINES_A_TURN


def _connected(opened: ExitStack, door: RunningGateway) -> socket.socket:
    plug = socket.create_connection(("127.0.0.1", door.port), timeout=30)
    return opened.enter_context(closing(plug))


def _post(token: str, whose: str, id: int = 0, *, session: str | None = None) -> bytes:
    """A call of a client of 2026-07-28 of this name, or of a session."""
    request = request_of(whose, id)
    about = request["params"].pop("_meta")
    if session is None:
        request["params"]["_meta"] = {**about, META + "clientInfo": {"name": whose, "version": "1"}}
        era = Http.standard("tools/call", {"name": "echo"})
    else:
        era = {VERSION: LEGACY, SESSION_ID: session}
    body = json.dumps(request).encode()
    told = {
        "host": "localhost",
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        **era,
        "content-length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST /mcp/rogue HTTP/1.1\r\n{head}\r\n".encode() + body


def _line(whose: str, id: int = 0) -> bytes:
    return json.dumps(request_of(whose, id)).encode() + b"\n"
