"""What the SDK's client puts up with works here, or is refused with a reason that names what is odd.

Odd variants of every message that a server sends are read by the models of the SDK and by the broker. What
the SDK takes for the answer to a request must be that answer here, with the same body. A line that it takes
for no answer must not settle a request, unless it is JSON-RPC 2.0 with the id of that request.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.shared.dispatcher import coerce_request_id
from mcp_types import (
    DiscoverResult,
    InitializeResult,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCResponse,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    jsonrpc_message_adapter,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError

from broker.core.mcp import lines
from broker.core.mcp.agreement import Agreed
from broker.core.mcp.handshake import Failed, Handshake
from broker.core.mcp.ids import same_id
from broker.core.mcp.jsonrpc import Broken, ServerNotification, ServerReply, ServerRequest
from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import LISTS
from broker.core.servers.reading import Reading

scalars = st.none() | st.booleans() | st.integers() | st.sampled_from([1.0, 0.5, -0.0]) | st.text(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)


def odd(*usual: object) -> st.SearchStrategy[Any]:
    """A value as it should be, or almost, or anything."""
    return st.sampled_from(usual) | anything


def objects(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which any of these members may be absent, in any order."""
    return st.fixed_dictionaries({}, optional=members).flatmap(
        lambda seen: st.permutations(list(seen)).map(lambda order: {name: seen[name] for name in order})
    )


errors = objects(code=odd(-32601, "-32601", "METHOD_NOT_FOUND"), message=odd("no"), data=anything)
messages = objects(
    jsonrpc=st.sampled_from(["2.0", "2.0", "2.0", "2.0", "1.0", 2.0, None]),
    id=odd(7, "7", 7.0, " 7 ", "x"),
    method=st.none() | odd("notifications/progress", "ping"),
    params=odd({}),
    result=odd({}, {"content": []}),
    error=errors | odd({}, None),
    ts=anything,
)
around = st.sampled_from([(b"", b""), (b" ", b"\r"), (b"\t", b" ")])


@settings(max_examples=1000)
@given(messages, around)
def test_a_line_is_to_us_what_it_is_to_the_sdk(message: dict[str, Any], around: tuple[bytes, bytes]) -> None:
    """The envelope: members that are absent, null, of any type, and in any order."""
    line = around[0] + json.dumps(message).encode() + around[1]
    seen = lines.read(line)
    try:
        known = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        known = None
    if isinstance(known, JSONRPCResponse | JSONRPCError) and known.id is not None:
        same = coerce_request_id(known.id)
        if isinstance(seen, Broken):  # refused, with a reason: it says two things, or has a method too
            assert seen.id == same or isinstance(message.get("method"), str)
            says_two = message.get("result") is not None and message.get("error") is not None
            assert ("both" in seen.reason and says_two) or "method" in seen.reason
            assert says_two or message.get("method") is not None
            return
        assert isinstance(seen, ServerReply)
        assert seen.id == same
        if isinstance(known, JSONRPCResponse) and seen.result is None:  # an empty result, and an error
            assert known.result == {}
            assert isinstance(message["error"], dict)
        elif isinstance(known, JSONRPCResponse):
            assert seen.result is not None
            assert json.loads(bytes(seen.result)) == known.result
        else:
            assert seen.error is not None
    elif isinstance(known, JSONRPCNotification):
        assert isinstance(
            seen, ServerNotification | ServerRequest | Broken
        )  # a float is an id here, and is given back as it came
    elif isinstance(seen, ServerReply):  # more than the SDK takes
        assert message["jsonrpc"] == "2.0"
        assert same_id(json.dumps(message["id"]).encode()) == seen.id  # type: ignore[arg-type]


capabilities = odd({}, {"tools": {}}, {"tools": {"listChanged": True}, "prompts": None})
info = odd({"name": "s", "version": "1"})


@given(
    objects(
        protocolVersion=odd(*HANDSHAKE_PROTOCOL_VERSIONS),
        capabilities=capabilities,
        serverInfo=info,
        instructions=odd("i"),
        _meta=odd({}),
    )
)
def test_a_session_that_opens_with_the_sdk_opens_here(answer: dict[str, Any]) -> None:
    """The answer to `initialize`."""
    try:
        known = InitializeResult.model_validate(answer, by_name=False)
        opens = known.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS
    except ValidationError:
        opens = False
    begun = Handshake("legacy", None, 60.0, {})
    begun.start(0.0)
    last = begun.reply("initialize", ServerReply(1, memoryview(json.dumps(answer).encode()), None), 1.0)[-1]
    assert isinstance(last, Agreed) or (not opens and isinstance(last, Failed) and last.reason)


@given(
    objects(
        supportedVersions=odd([*MODERN_PROTOCOL_VERSIONS], ["2027-01-01"], ["2025-11-25"], []),
        capabilities=capabilities,
        instructions=odd("i"),
        resultType=odd("complete"),
        ttlMs=odd(0),
        cacheScope=odd("private"),
        _meta=odd({}),
    )
)
def test_a_modern_server_of_the_sdk_is_one_here(answer: dict[str, Any]) -> None:
    """The answer to `server/discover`; after any other, `initialize` follows."""
    try:
        known = DiscoverResult.model_validate(answer, by_name=False)
        is_modern = any(version in known.supported_versions for version in MODERN_PROTOCOL_VERSIONS)
    except ValidationError:
        is_modern = False
    begun = Handshake("auto", None, 60.0, {})
    begun.start(0.0)
    last = begun.reply("server/discover", ServerReply(1, memoryview(json.dumps(answer).encode()), None), 1.0)[
        -1
    ]
    if is_modern:
        assert isinstance(last, Agreed)
        assert last.era is Era.MODERN
    elif isinstance(last, Agreed):  # the optional fields of it are of the wrong type
        assert "2026-07-28" in answer["supportedVersions"]
        assert isinstance(answer["capabilities"], dict)


RESULTS: dict[str, type[BaseModel]] = {
    "tools/list": ListToolsResult,
    "prompts/list": ListPromptsResult,
    "resources/list": ListResourcesResult,
    "resources/templates/list": ListResourceTemplatesResult,
}
names = st.sampled_from(["a", "b", "c", ""])
items = st.lists(
    objects(
        name=names,
        uri=st.sampled_from(["x:a", "x:b"]),
        uriTemplate=names,
        inputSchema=odd({"type": "object"}),
    )
    | anything,
    max_size=4,
)


@pytest.mark.parametrize("method", LISTS)
@given(data=st.data())
def test_a_list_that_the_sdk_reads_is_read_here(method: str, data: st.DataObject) -> None:
    """One page: all items, in their order, but for those of a name that was there before."""
    kind = LISTS[method]
    members = {kind.member: items | anything, "nextCursor": odd("2", ""), "ttlMs": odd(0), "_meta": odd({})}
    page = data.draw(objects(**members))
    reading = Reading(method, 1_000_000)
    read = None
    with suppress(ValueError):
        reading.page(memoryview(json.dumps(page).encode()), 0.0)
        read = json.loads(reading.listing(Era.LEGACY).body(0.0))[kind.member]
    try:
        RESULTS[method].model_validate(page, by_name=False)
    except ValidationError:
        if read is not None:  # more than the SDK reads: what is left out is told
            whole = [item for item in page.get(kind.member) or [] if item in read]
            assert reading.odd or len(whole) == len(page[kind.member])
        return
    seen: dict[str, Any] = {}
    for item in page[kind.member]:
        seen.setdefault(item[kind.key], item)
    assert read == list(seen.values())
