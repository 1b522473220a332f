"""What servers answer, as light objects over the plain data: attributes by MCP's names or Python's.

``tool.inputSchema`` and ``tool.input_schema`` are the same dict; a field that the server did not send is
`None`; fields that this package has never heard of are kept. No model is built and nothing is validated:
`raw` is what the server said. Where an attribute would be an object of this module, and the server sent
something else there, reading it raises `InvalidReply`.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from client_shim.errors import InvalidReply
from client_shim.text import shown, truth

T = TypeVar("T", bound="Data")


class Data:
    """Plain data with attributes. `known` are the fields that MCP defines and a server may leave out."""

    known: frozenset[str] = frozenset()

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "raw":
            raise AttributeError(name)
        raw = self.raw
        if name in raw:
            return raw[name]
        spelling = _camel(name)
        if spelling in raw:
            return raw[spelling]
        if name in self.known or spelling in self.known:
            return None
        if name == "meta":
            return raw.get("_meta")
        raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(sorted(raw))}")

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def get(self, name: str, default: Any = None) -> Any:
        """The field of this name, as a dict gives it."""
        return self.raw.get(name, default)

    def model_dump(self, **_: object) -> dict[str, Any]:
        """A copy of the plain data, under MCP's names. Takes the options of pydantic's, and ignores them."""
        return copy.deepcopy(self.raw)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={shown(value)}" for name, value in self.raw.items())
        return f"{type(self).__name__}({fields})"


def _objects(kind: type[T], raw: dict[str, Any], field: str) -> list[T]:
    """Return the objects in a field of a result; none where the server left it out.

    Raises:
        InvalidReply: it is not a list of objects.
    """
    given = raw.get(field)
    items = [] if given is None else given
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _odd(f"`{field}` of the result is not a list of objects", given)
    return [kind(item) for item in items]


def _odd(what: str, value: object) -> InvalidReply:
    hint = "this is the server's mistake: report it to its authors"
    return InvalidReply(f"{what}, but {shown(value)}", hint=hint)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


class Tool(Data):
    """An entry of ``tools/list``."""

    known = frozenset(
        {"title", "description", "inputSchema", "outputSchema", "annotations", "icons", "execution"}
    )
    name: str

    @property
    def inputSchema(self) -> dict[str, Any]:
        """The JSON schema of the arguments; empty where the server sent none, or something else there."""
        schema = self.raw.get("inputSchema")
        return schema if isinstance(schema, dict) else {}

    input_schema = inputSchema


class Resource(Data):
    """An entry of ``resources/list``."""

    known = frozenset({"title", "description", "mimeType", "annotations", "size", "icons"})
    name: str
    uri: str


class ResourceTemplate(Data):
    """An entry of ``resources/templates/list``."""

    known = frozenset({"title", "description", "mimeType", "annotations", "icons"})
    name: str
    uriTemplate: str


class Prompt(Data):
    """An entry of ``prompts/list``."""

    known = frozenset({"title", "description", "arguments", "icons"})
    name: str


class Content(Data):
    """One item of what a tool or a prompt says: text, image, audio, a resource or a link to one."""

    known = frozenset({"text", "data", "mimeType", "annotations", "uri", "title", "description", "size"})
    type: str

    @property
    def resource(self) -> Data | None:
        """The embedded resource, of an item that has one."""
        raw = self.raw.get("resource")
        return ResourceContents(raw) if isinstance(raw, dict) else None


class ResourceContents(Data):
    """What is in a resource: `text`, or `blob` in base64."""

    known = frozenset({"text", "blob", "mimeType"})
    uri: str


class PromptMessage(Data):
    """One message of a prompt."""

    role: str

    @property
    def content(self) -> Content:
        content = self.raw.get("content")
        if not isinstance(content, dict):
            raise _odd("`content` of the message of a prompt is not an object", content)
        return Content(content)


RESULT_TYPES = ("complete", "input_required")
"""What `resultType` may say; without one it is complete. MCP: any other "MUST be considered invalid"."""


class BaseResult(Data):
    """What came of a call, or what the server must be told before it can go on.

    A server of 2026-07-28 may answer with `input_required`: then `inputRequests` has its questions by name,
    and the same call is made again, with `input_responses` by the same names and with `request_state`.
    """

    known = frozenset({"resultType", "inputRequests", "requestState"})

    @property
    def input_required(self) -> bool:
        """Whether the server asks something first."""
        return bool(self.raw.get("resultType") == "input_required")


class CallResult(BaseResult):
    """What a tool call came to. A tool that failed says so in `isError`; that is no exception."""

    known = BaseResult.known | {"structuredContent"}

    @property
    def content(self) -> list[Content]:
        """The items of the answer."""
        return _objects(Content, self.raw, "content")

    @property
    def isError(self) -> bool:
        """Whether the tool says that it failed."""
        return truth(self.raw.get("isError"))

    is_error = isError


class ReadResult(BaseResult):
    """What reading a resource came to."""

    @property
    def contents(self) -> list[ResourceContents]:
        return _objects(ResourceContents, self.raw, "contents")


class PromptResult(BaseResult):
    """A prompt, filled in."""

    known = BaseResult.known | {"description"}

    @property
    def messages(self) -> list[PromptMessage]:
        return _objects(PromptMessage, self.raw, "messages")


class Completion(Data):
    """Proposals for an argument."""

    known = frozenset({"total", "hasMore"})
    values: list[str]
