"""Lists of tools that a token reduces."""

from __future__ import annotations

import json

import pytest

from broker.gateway.http.tool_lists import only_visible

LISTED = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","x":1e400},{"name":"b"}],"ttlMs":1}}'


def test_what_stays_keeps_its_bytes() -> None:
    """Law 7."""
    seen = only_visible(LISTED, lambda name: name == "a")
    assert seen == LISTED.replace(b',{"name":"b"}', b"")


def test_a_tool_without_a_name_is_not_seen() -> None:
    message = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"title":"a"},7,{"name":"b"}]}}'
    assert json.loads(only_visible(message, bool))["result"]["tools"] == [{"name": "b"}]


@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"tools"}}',
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":7}}',
        b'{"jsonrpc":"2.0","id":1,"result":7}',
    ],
)
def test_other_messages_stay_as_they_are(message: bytes) -> None:
    assert only_visible(message, lambda _: False) == message
