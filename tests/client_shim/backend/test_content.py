"""Every kind of content that a server may answer with, as the backend gets it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from client_shim import MCPClient
from tests.client_shim.backend.content_server import PIXEL, RESULTS
from tests.client_shim.backend.kit import having, run
from tests.e2e.harness import RunningBroker, rogue, running, script

pytestmark = pytest.mark.usefixtures("endpoint")

Item = dict[str, Any]


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One with the server that answers with all of it."""
    with running(
        {"content": script("tests/client_shim/backend/content_server.py"), "rogue": rogue()}
    ) as broker:
        yield broker


def text(words: str, **more: str) -> Item:
    return {"type": "text", "text": words, **more}


ITEMS: dict[str, list[Item]] = {
    "texts": [text("one"), text("漢字")],
    "image": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}],
    "audio": [{"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"}],
    "text_resource": [text("# Hello", mimeType="text/markdown", url="note://1")],
    "image_resource": [{"type": "image", "data": PIXEL, "mimeType": "image/png", "url": "note://2"}],
    "binary_resource": [
        {"type": "resource", "data": "JVBERg==", "mimeType": "application/pdf", "url": "note://2"}
    ],
    "link": [
        text(
            "[menu.pdf](file:///menu.pdf) What there is.",
            mimeType="application/pdf",
            url="file:///menu.pdf",
            altText="menu.pdf",
        )
    ],
    "titled_link": [text("[The menu](file:///menu.pdf)", url="file:///menu.pdf", altText="The menu")],
    "structured": [text('{"city": "福岡", "high_c": 21}')],
    "structured_image": [
        text('{"width": 1}'),
        {"type": "image", "data": PIXEL, "mimeType": "image/png"},
    ],
    "structured_text": [text('{"a": 1}')],
    "nothing": [text("")],
    "extras": [text("x", url="http://u", altText="alt")],
    "metadata": [text("")],
    "odd_metadata": [text("")],
    "error": [{"type": "error", "text": "no such machine"}],
    "two_texts_error": [{"type": "error", "text": "no such machine\n# Hello"}],
    "mute_error": [
        {"type": "error", "text": "tool 'mute_error' of server 'content' failed and does not say why"}
    ],
    "question": [
        {
            "type": "error",
            "text": "tool 'question' of server 'content' cannot go on: it answered 'input_required', "
            "and a backend cannot be asked",
        }
    ],
}
"""tool of the content server → the items that the backend gets."""


@pytest.mark.parametrize("tool", sorted(RESULTS.keys() - {"odd_content"}))
def test_every_kind_of_content_comes_in_the_shape_that_the_backend_reads(tool: str) -> None:
    """The original loses what an embedded resource, a link or structured content says; here it is text."""

    async def main() -> None:
        async with MCPClient(having("content")) as client:
            result = await client.call_tool("content", tool, {})
        assert result["content_items"] == ITEMS[tool]
        assert result["metadata"] == ({"liveViewData": {"url": "http://v"}} if tool == "metadata" else {})

    run(main())


def test_content_that_is_none_is_the_server_s_mistake() -> None:
    """Law 8: nothing is made up of an answer that MCP does not know."""

    async def main() -> None:
        async with MCPClient(having("content")) as client:
            with pytest.raises(RuntimeError, match=r"'odd_content' of server 'content'.*server's mistake"):
                await client.call_tool("content", "odd_content", {})

    run(main())


def test_a_large_image_comes_whole() -> None:
    """Three megabytes of base64 in one item."""

    async def main() -> None:
        async with MCPClient(having("rogue")) as client:
            result = await client.call_tool("rogue", "big", {"kind": "image", "bytes": 2_250_000})
        (image,) = result["content_items"]
        assert (image["type"], image["mimeType"]) == ("image", "image/png")
        assert base64.b64decode(image["data"]) == bytes(2_250_000)

    run(main())
