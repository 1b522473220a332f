"""Notifications of servers: their tokens, and what else they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.mcp import notifications
from tests.core.json_text import objects


@pytest.mark.parametrize(
    ("params", "token"),
    [
        (b'{"progressToken":5,"progress":1}', 5),
        (b'{"progressToken":"5"}', 5),
        (b'{"progressToken":5.0}', 5),
        (b'{"progressToken":"five"}', "five"),
        (b'{"progressToken":null}', None),
        (b'{"progress":1}', None),
        (b"[]", None),
        (b"null", None),
        (b'{"progressToken":1e999}', None),
        (b'{"progressToken":5,"progress":1e999}', 5),  # the rest is not looked into
        (b'{"progressToken":5,"progress":}', None),
    ],
)
def test_whose_progress_it_is(params: bytes, token: object) -> None:
    """Law 8: progress that cannot be read is nobody's."""
    assert notifications.read_progress(memoryview(params)).token == token
    assert notifications.read_progress(None).token is None


@given(objects, st.integers() | st.text())
def test_progress_keeps_all_but_its_token(rest: dict[str, Any], token: int | str) -> None:
    """Law 3: the client sees its own token, and everything else as the server said it."""
    rest.pop("progressToken", None)
    params = json.dumps({"progressToken": 99, **rest}).encode()
    seen = notifications.read_progress(memoryview(params))
    assert seen.token == 99
    assert json.loads(notifications.progress_body(seen, token)) == {"progressToken": token, **rest}
