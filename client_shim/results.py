"""Results of servers: light objects over the plain data, with attributes by MCP's names or Python's.

``tool.inputSchema`` and ``tool.input_schema`` are the same dict. A field that the server did not send is
`None`; unknown fields are kept. Nothing is validated: `raw` is the data that the server sent. To read an
attribute that should be an object of this module, but is something else in the data, raises `InvalidReply`.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from client_shim.errors import SERVER_AT_FAULT, InvalidReply
from client_shim.text import shown, truth

T = TypeVar("T", bound="Data")


class Data:
    """Plain data with attributes. `known` has the fields that MCP defines and a server may leave out."""

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
        """Return the field of this name, or the default, as `dict.get` does."""
        return self.raw.get(name, default)

    def model_dump(self, **_: object) -> dict[str, Any]:
        """Return a copy of the plain data, under MCP's names. Options of pydantic are ignored."""
        return copy.deepcopy(self.raw)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={shown(value)}" for name, value in self.raw.items())
        return f"{type(self).__name__}({fields})"


def _objects(kind: type[T], raw: dict[str, Any], field: str) -> list[T]:
    """Return the objects in a field of a result; an empty list if the server left the field out.

    Raises:
        InvalidReply: it is not a list of objects.
    """
    given = raw.get(field)
    items = [] if given is None else given
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _odd(f"`{field}` of the result is not a list of objects", given)
    return [kind(item) for item in items]


def _odd(what: str, value: object) -> InvalidReply:
    return InvalidReply(f"{what}, but {shown(value)}", hint=SERVER_AT_FAULT)


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
        """The JSON schema of the arguments; empty if the server sent none, or something else in its place."""
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
    """An item of a tool's result or of a prompt: text, image, audio, a resource or a link to one."""

    known = frozenset({"text", "data", "mimeType", "annotations", "uri", "title", "description", "size"})
    type: str

    @property
    def resource(self) -> Data | None:
        """The embedded resource, or `None`."""
        raw = self.raw.get("resource")
        return ResourceContents(raw) if isinstance(raw, dict) else None


class ResourceContents(Data):
    """The contents of a resource: `text`, or `blob` in base64."""

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
"""The values of `resultType`; a result without it is complete. MCP: others "MUST be considered invalid"."""


class BaseResult(Data):
    """The result of a request, or the questions that the server needs answers to before it can go on.

    A server of 2026-07-28 may answer with `input_required`. Then `inputRequests` has its questions by name;
    make the same call again, with `input_responses` by the same names and with `request_state`.
    """

    known = frozenset({"resultType", "inputRequests", "requestState"})

    @property
    def input_required(self) -> bool:
        """Whether the server asks questions first."""
        return bool(self.raw.get("resultType") == "input_required")


class CallResult(BaseResult):
    """The result of a tool call. A tool that failed says so in `isError`; that raises no exception."""

    known = BaseResult.known | {"structuredContent"}

    @property
    def content(self) -> list[Content]:
        """The items of the result."""
        return _objects(Content, self.raw, "content")

    @property
    def isError(self) -> bool:
        """Whether the tool says that it failed."""
        return truth(self.raw.get("isError"))

    is_error = isError


class ReadResult(BaseResult):
    """The result of reading a resource."""

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


# --- results as plain data -> objects ---------------------------------------------------------------------


def wrap(kind: type[T], raw: Any, subject: str) -> T:
    """Return the object over the result of the request that `subject` names.

    Raises:
        InvalidReply: it is not an object, or its `resultType` is not one of MCP's.
    """
    if not isinstance(raw, dict):
        raise _unusable(subject, f"{shown(raw)} is not an object")
    if (type_ := raw.get("resultType", "complete")) not in RESULT_TYPES and issubclass(kind, BaseResult):
        raise _unusable(subject, f"it is of the type {shown(type_)}, which MCP does not have")
    return kind(raw)


def entries(kind: type[T], raw: Any, field: str, subject: str) -> list[T]:
    """Return the objects of a list, a field of the result of the request that `subject` names.

    Raises:
        InvalidReply: there is no such list, or an entry is not an object.
    """
    listed = field_of(raw, field, subject)
    if not isinstance(listed, list):
        raise _unusable(subject, f"`{field}` is no list")
    return [wrap(kind, entry, subject) for entry in listed]


def field_of(raw: Any, field: str, subject: str) -> Any:
    """Return a field of the result of the request that `subject` names.

    Raises:
        InvalidReply: it has no such field.
    """
    if not isinstance(raw, dict) or field not in raw:
        raise _unusable(subject, f"it has no `{field}`")
    return raw[field]


def _unusable(subject: str, why: str) -> InvalidReply:
    return InvalidReply(f"{subject}: the result cannot be used: {why}", hint=SERVER_AT_FAULT)
