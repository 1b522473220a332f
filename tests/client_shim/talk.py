"""A `ClientState` in a test: brought up, listened to and spoken to without a socket."""

from __future__ import annotations

from client_shim import wire
from client_shim.protocol.events import Event, Welcomed
from client_shim.protocol.payload import PreparedRequest
from client_shim.protocol.state import ClientState

WHO = {"name": "test", "version": "0", "pid": 1}
WINDOW = 4000
LIMITS = {"max_message_bytes": 1000, "credit_bytes": WINDOW}
ECHO = PreparedRequest("`echo` of server 's'", "s", "echo", b"{}")


def greeting() -> ClientState:
    """A connection whose hello has been sent."""
    state = ClientState(WHO, 0.0, hello_timeout_s=5.0)
    assert [wire.Hello(0, 0, [wire.VERSION], WHO)] == flush(state)
    return state


def opened(**limits: int) -> ClientState:
    """A connection that has been welcomed, and has sent all it had to say."""
    state = greeting()
    assert hear(state, wire.Welcome(0, 0, "i1", "1.0", LIMITS | limits)) == [Welcomed("i1", "1.0")]
    return state


def flush(state: ClientState) -> list[wire.Message]:
    """What the shell would put on the wire now."""
    sent = []
    while (frames := state.next_message()) is not None:
        state.sent()
        sent.append(wire.decode(frames[0]))
    return sent


def hear(
    state: ClientState, message: wire.Message, body: bytes | None = None, now: float = 0.0
) -> list[Event]:
    """The broker says something."""
    header = wire.encode(message)
    return state.receive([header] if body is None else [header, body], now)
