"""ZAP (RFC 27): every request is answered, and whatever is not a known key is denied."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from broker.base.metrics import Counters
from broker.frontend.zmq.zap import ADDRESS, ZapHandler, decide

KNOWN = z85.encode(bytes(range(32)))
NAMES = {KNOWN.decode(): "laptop"}
REQUEST = [b"1.0", b"1", b"network", b"10.0.0.5", b"", b"CURVE", z85.decode(KNOWN)]


def test_a_known_key_is_admitted_under_its_own_name() -> None:
    """The User-Id of its messages is the key, by which the broker finds the name."""
    assert decide(REQUEST, NAMES) == (b"200", b"OK", KNOWN)


@pytest.mark.parametrize(
    ("at", "value", "reply"),
    [
        (0, b"2.0", (b"500", b"not a request of ZAP 1.0")),
        (2, b"", (b"400", b"a key is needed here")),
        (2, b"local", (b"400", b"a key is needed here")),
        (2, b"other", (b"400", b"a key is needed here")),
        (5, b"NULL", (b"400", b"a key is needed here")),
        (5, b"PLAIN", (b"400", b"a key is needed here")),
        (6, b"", (b"500", b"not a key of CURVE")),
        (6, KNOWN, (b"500", b"not a key of CURVE")),
        (6, bytes(32), (b"400", b"the key is not known")),
    ],
)
def test_anything_else_is_denied(at: int, value: bytes, reply: tuple[bytes, bytes]) -> None:
    """Another version, domain or mechanism, what is no key, and a key that is not known."""
    fields = [*REQUEST[:at], value, *REQUEST[at + 1 :]]
    assert decide(fields, NAMES) == (*reply, b"")


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_whatever_comes_is_decided(fields: list[bytes]) -> None:
    """And admitted on a local address only, which needs no key."""
    reply = decide(fields, NAMES)
    assert reply.status != b"200" or (fields[2], fields[5]) == (b"local", b"NULL")


async def answers(requests: list[list[bytes]], names: Mapping[str, str] | None) -> list[list[bytes]]:
    """What a running handler answers; `None` for names is a handler that fails."""

    def found() -> Mapping[str, str]:
        if names is None:
            raise OSError("gone")
        return names

    context, replies = zmq.Context(), []
    handler = ZapHandler(context, found, Counters())
    asker = context.socket(zmq.DEALER)
    try:
        asker.connect(ADDRESS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler.run)
            for request in requests:
                asker.send_multipart(request)
                with trio.fail_after(20):
                    while not asker.poll(0):
                        await trio.sleep(0.001)
                replies.append(asker.recv_multipart())
            nursery.cancel_scope.cancel()
    finally:
        asker.close(0)
        handler.close()
        context.term()
    return replies


@pytest.mark.parametrize(
    "request_",
    [[b"", *REQUEST[:3]], [b""], [b"", b""], [b"x"], [b"", *REQUEST, b"more"], [b"", *([b""] * 40)]],
)
def test_a_malformed_request_is_answered_too(request_: list[bytes]) -> None:
    """With 500; the next one is served as ever."""
    bad, good = trio.run(answers, [request_, [b"", *REQUEST]], NAMES)
    assert bad[3] == b"500"
    assert good == [b"", b"1.0", b"1", b"200", b"OK", KNOWN, b""]


def test_a_handler_that_fails_denies() -> None:
    """Each request, and it goes on."""
    for reply in trio.run(answers, [[b"", *REQUEST]] * 3, None):
        assert reply[3] == b"500"
