"""Law 7: of what a request says about itself, only the broker writes what is the broker's."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.mcp.meta import client_meta
from broker.core.mcp.methods import MODERN_VERSION, Era

META = "io.modelcontextprotocol/"
BROKER = {"name": "mcp-broker", "version": "0.1.0"}
OWN_META = {
    META + "protocolVersion": MODERN_VERSION,
    META + "clientInfo": BROKER,
    META + "clientCapabilities": {},
}
GIVEN = {
    "traceparent": "00-ab",
    "progressToken": "theirs",
    META + "protocolVersion": "1999-01-01",
    META + "clientInfo": {"name": "page"},
    META + "clientCapabilities": {"elicitation": {}},
    META + "logLevel": "debug",
    META + "subscriptionId": 5,
    "com.example/x": [1],
}


@pytest.mark.parametrize(
    ("era", "given", "token", "meta"),
    [
        (Era.LEGACY, None, None, None),
        (Era.LEGACY, {}, None, None),
        (Era.LEGACY, None, 7, {"progressToken": 7}),
        (Era.LEGACY, {"progressToken": "theirs"}, None, None),
        (Era.LEGACY, GIVEN, 7, {"traceparent": "00-ab", "com.example/x": [1], "progressToken": 7}),
        (Era.MODERN, None, None, OWN_META),
        (Era.MODERN, None, 7, {**OWN_META, "progressToken": 7}),
        (
            Era.MODERN,
            GIVEN,
            7,
            {
                "traceparent": "00-ab",
                "com.example/x": [1],
                META + "protocolVersion": MODERN_VERSION,
                META + "clientInfo": {"name": "page"},
                META + "clientCapabilities": {"elicitation": {}},
                META + "logLevel": "debug",
                "progressToken": 7,
            },
        ),
        (
            Era.MODERN,
            {META + "clientCapabilities": {"roots": {}, "extensions": {META + "tasks": {}, META + "ui": {}}}},
            None,
            {**OWN_META, META + "clientCapabilities": {"roots": {}, "extensions": {META + "ui": {}}}},
        ),
        (
            Era.MODERN,
            {META + "clientCapabilities": "none"},
            None,
            {**OWN_META, META + "clientCapabilities": "none"},
        ),
    ],
)
def test_the_meta_of_a_request(era: Era, given: Any, token: int | None, meta: Any) -> None:
    """Law 7: the client's own, less what only the broker may say, and what the era wants on every request."""
    before = None if given is None else dict(given)
    assert client_meta(given, token, era, BROKER) == meta
    assert given == before
