"""Results of tools, as the items that a backend of `MCPClient` reads.

Such a backend reads the keys `type`, `text`, `data`, `mimeType`, `url` and `altText` of an item. It passes to
the model the text of the first item, if that is of type `text`, and the images. So everything with a text
becomes an item of type `text`:

==============================  ===============================================================
MCP                             item
==============================  ===============================================================
text, image, audio              the same
embedded resource, text         `text`, with `url` and `mimeType`
embedded resource, binary       `image` or `audio` if it is one, else `resource`: with `data`
resource link                   `text` as a Markdown link, with `url`, `mimeType` and `altText`
structured content              `text` in JSON, first, if no other item has text
nothing                         one empty `text`
a failed tool                   one `error` with the text of all items
==============================  ===============================================================

Every value of an item is a string that can be encoded as UTF-8, whatever the server sent: a `text` that is
not a string becomes JSON, other values that are not strings are left out, lone surrogates become U+FFFD.
"""

from __future__ import annotations

import json
import re
from typing import Any

from client_shim.errors import SERVER_AT_FAULT
from client_shim.results import CallResult
from client_shim.text import shown

Item = dict[str, Any]

_KEYS = ("text", "data", "mimeType", "url", "altText")
_SURROGATE = re.compile("[\ud800-\udfff]")


def content_items(subject: str, result: CallResult) -> list[Item]:
    """Return the items of a result; at least one.

    Args:
        subject: the tool and its server, for errors.

    Raises:
        RuntimeError: the content is not a list of objects, as MCP demands.
    """
    items = [_item(raw) for raw in _content(subject, result)]
    structured = result.get("structuredContent")
    if structured is not None and not _texts(items):
        items.insert(0, _text(_json(structured)))
    if result.isError:
        return [_error("\n".join(_texts(items)) or f"{subject} failed and does not say why")]
    if (kind := result.get("resultType")) not in (None, "complete"):
        return [_error(f"{subject} cannot go on: it answered {shown(kind)}, and a backend cannot be asked")]
    return items or [_text("")]


def _content(subject: str, result: CallResult) -> list[Item]:
    content = result.get("content") or []
    if not isinstance(content, list) or not all(isinstance(raw, dict) for raw in content):
        raise RuntimeError(f"{subject}: the content of its answer is no list of objects; {SERVER_AT_FAULT}")
    return content


def _item(raw: Item) -> Item:
    resource = raw.get("resource")
    if raw.get("type") == "resource" and isinstance(resource, dict):
        return _embedded(resource)
    if raw.get("type") == "resource_link":
        return _link(raw)
    kind = raw.get("type", "text")
    if not isinstance(kind, str):
        return _text(_json(raw))
    return {"type": _encodable(kind), **_strings({key: raw.get(key) for key in _KEYS})}


def _embedded(resource: Item) -> Item:
    about = _strings({"mimeType": resource.get("mimeType"), "url": resource.get("uri")})
    if resource.get("text") is not None:
        return {"type": "text", **_strings({"text": resource["text"]}), **about}
    family = about.get("mimeType", "").partition("/")[0]
    kind = family if family in ("image", "audio") else "resource"
    return {"type": kind, **_strings({"data": resource.get("blob")}), **about}


def _link(link: Item) -> Item:
    said = _strings({key: link.get(key) for key in ("uri", "title", "name", "description", "mimeType")})
    url, title = said.get("uri"), said.get("title") or said.get("name")
    words = (f"[{title or url}]({url})", said.get("description"))
    about = {"mimeType": said.get("mimeType"), "url": url, "altText": title}
    return {**_text(" ".join(word for word in words if word)), **_strings(about)}


def _text(text: str) -> Item:
    return {"type": "text", "text": _encodable(text)}


def _error(text: str) -> Item:
    return {"type": "error", "text": _encodable(text)}


def _strings(item: Item) -> dict[str, str]:
    """Return the values that are strings; a `text` that is not one becomes JSON."""
    given = {key: value for key, value in item.items() if value is not None}
    if "text" in given and not isinstance(given["text"], str):
        given["text"] = _json(given["text"])
    return {key: _encodable(value) for key, value in given.items() if isinstance(value, str)}


def _encodable(text: str) -> str:
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:  # decoding it needed less depth than this
        return shown(value, 1000)


def _texts(items: list[Item]) -> list[str]:
    return [item["text"] for item in items if item.get("text")]
