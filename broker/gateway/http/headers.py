"""The header rules of Streamable HTTP, for both eras. Sans-io: headers and a message in, a refusal out.

Sources: 2026-07-28, Streamable HTTP, "Sending Messages", "Request Metadata" (with "Value Encoding", "Server
Behavior for Custom Headers" and "Server Validation"); 2025-11-25, Transports, "Sending Messages to the
Server", "Listening for Messages from the Server", "Session Management", "Protocol Version Header".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from broker.gateway.http.refusals import HEADER_MISMATCH, INVALID_REQUEST, UNSUPPORTED_VERSION, Refused

EVENT_STREAM = "text/event-stream"
JSON = "application/json"

SESSION_ID = "mcp-session-id"
VERSION = "mcp-protocol-version"
METHOD = "mcp-method"
NAME = "mcp-name"
PARAM = "mcp-param-"
LAST_EVENT_ID = "last-event-id"

NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""method → the field of its params that `Mcp-Name` repeats."""

_ANNOTATION = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)
_PLAIN = re.compile(r"[\t\x20-\x7e]*")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")
_SAFE_INTEGER = 2**53 - 1
_PRIMITIVE = ("integer", "string", "boolean")


class Headers:
    """The headers of one HTTP request, by lower-case name.

    Args:
        pairs: names and values as ASGI has them: bytes, names in lower case.
    """

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, bytes] = {}
        self._repeated: dict[str, list[bytes]] = {}
        """All values of the headers that are there more than once."""
        for pair in pairs:
            name, value = pair[0].decode("latin-1"), pair[1]
            if name in self._values:
                self._repeated.setdefault(name, [self._values[name]]).append(value)
            else:
                self._values[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, name: str) -> str | None:
        """Return the value of a header that must not be repeated; `None` where it is missing.

        Raises:
            Refused: it is there twice: two programs on the way could each believe another value.
        """
        value = self._values.get(name)
        if value is None:
            return None
        if name in self._repeated:
            times = len(self._repeated[name])
            raise Refused(
                400, f"The header {name} is there {times} times; send it once", code=INVALID_REQUEST
            )
        return _text(value)

    def all(self, name: str) -> str | None:
        """Return the value of a list header; lines of one name are one list (RFC 9110, section 5.3)."""
        value = self._values.get(name)
        return None if value is None else ", ".join(map(_text, self._repeated.get(name, [value])))


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \t")


# -- what an answer may be, and what a body is ------------------------------------------------------------


def check_content_type(headers: Headers) -> None:
    """Check that the body of a POST is JSON."""
    given = headers.get("content-type") or ""
    if given != JSON and given.partition(";")[0].strip().lower() != JSON:
        shown = f"Content-Type is {given!r}" if given else "Content-Type is missing"
        raise Refused(415, f"{shown}; send Content-Type: {JSON}", code=INVALID_REQUEST)


def check_accept(headers: Headers, *needed: str) -> None:
    """Check that the client takes these media types. A client that sends no Accept takes everything."""
    given = headers.all("accept")
    if given is None:
        return
    if missing := _missing(given, needed):
        message = f"Accept does not list {' and '.join(missing)}; send Accept: {', '.join(needed)}"
        raise Refused(406, message, code=INVALID_REQUEST)


@lru_cache(maxsize=16)  # a client sends the same one with every request
def _missing(accept: str, needed: tuple[str, ...]) -> list[str]:
    """The media types that an Accept header does not take."""
    ranges = _accepted(accept)
    return [kind for kind in needed if not ranges & {kind, kind.partition("/")[0] + "/*", "*/*"}]


def _accepted(accept: str) -> set[str]:
    """The media ranges of an Accept header, without those of weight 0."""
    ranges = set()
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weights = [word.partition("=")[2] for word in parameters if word.startswith("q=")]
        if not any(re.fullmatch(r"0(\.0*)?", weight) for weight in weights):
            ranges.add(kind)
    return ranges


# -- versions -----------------------------------------------------------------------------------------------


def unsupported_version(requested: str, supported: Iterable[str]) -> Refused:
    """Return the refusal of a protocol version (2026-07-28, `UnsupportedProtocolVersionError`)."""
    versions = list(supported)
    return Refused(
        400,
        f"Protocol version {requested[:64]!r} is not supported; use one of {', '.join(versions)}",
        code=UNSUPPORTED_VERSION,
        data={"supported": versions, "requested": requested[:64]},
    )


# -- the headers of 2026-07-28 ------------------------------------------------------------------------------


def _mismatch(message: str) -> Refused:
    return Refused(400, f"Header mismatch: {message}", code=HEADER_MISMATCH)


def _required(headers: Headers, name: str, shown: str) -> str:
    value = headers.get(name)
    if value is None:
        raise _mismatch(f"the header {shown} is missing")
    if not _PLAIN.fullmatch(value):
        raise _mismatch(f"the header {shown} has characters that no header may have")
    return value


def check_version(headers: Headers, version: str | None) -> None:
    """Check `MCP-Protocol-Version` against the version that the body's `_meta` carries."""
    given = _required(headers, VERSION, "MCP-Protocol-Version")
    if version is not None and given != version:
        raise _mismatch(f"MCP-Protocol-Version is {given!r}, and the body's protocolVersion {version!r}")


def check_standard(headers: Headers, method: str, params: Mapping[str, Any]) -> None:
    """Check `Mcp-Method` and `Mcp-Name` of a request against its body.

    Args:
        params: what the body has of `name` and `uri`.
    """
    given = _required(headers, METHOD, "Mcp-Method")
    if given != method:
        raise _mismatch(f"Mcp-Method is {given!r}, and the body's method {method!r}")
    field = NAMED_BY.get(method)
    if field is None:
        return
    value = params.get(field)
    name = decoded(_required(headers, NAME, "Mcp-Name"), "Mcp-Name")
    if isinstance(value, str) and name != value:  # another type is an invalid request anyway
        raise _mismatch(f"Mcp-Name is {name!r}, and the body's {field} {value!r}")


def decoded(value: str, shown: str) -> str:
    """Return what a header value stands for: itself, or what its Base64 sentinel encodes."""
    sentinel = _SENTINEL.fullmatch(value)
    if sentinel is None:
        return value
    try:
        return base64.b64decode(sentinel[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _mismatch(f"the value of {shown} is not Base64 of UTF-8") from None


def encoded(value: str) -> str:
    """Return the header value that stands for a text (2026-07-28, "Value Encoding")."""
    if _PLAIN.fullmatch(value) and value == value.strip(" \t") and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


class Param(NamedTuple):
    """A tool's parameter that a header `Mcp-Param-NAME` repeats."""

    name: str
    path: tuple[str, ...]
    is_integer: bool

    @property
    def header(self) -> str:
        """The name of the header, in lower case."""
        return PARAM + self.name.lower()


def params_of(schema: object) -> tuple[Param, ...]:
    """Return the annotated parameters of an `inputSchema`; of one with an invalid annotation, none.

    Such a tool is not offered by a client that follows the specification, so there is nothing to check.
    """
    found = list(_annotated(schema, ()))
    names = [param.header for param in found if param is not None]
    total = _annotations(schema)
    return tuple(filter(None, found)) if len(set(names)) == len(names) == total else ()


def _annotated(schema: object, path: tuple[str, ...]) -> Iterator[Param | None]:
    """What `properties` alone lead to. `None`: an annotation that breaks a rule."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) > 16:
        return
    for key, inner in properties.items():
        if not isinstance(inner, dict):
            continue
        name, kind = inner.get(_ANNOTATION), inner.get("type")
        if name is not None:
            valid = isinstance(name, str) and _TOKEN.fullmatch(name) and kind in _PRIMITIVE
            yield Param(str(name), (*path, key), kind == "integer") if valid else None
        yield from _annotated(inner, (*path, key))


def _annotations(schema: object) -> int:
    """How often the annotation stands anywhere in a schema, reachable or not. A property of that name counts
    only for what is in it."""
    if isinstance(schema, list):
        return sum(map(_annotations, schema))
    if not isinstance(schema, dict):
        return 0
    inner = 0
    for key, value in schema.items():
        names = isinstance(value, dict) and key in ("properties", "$defs", "definitions", "patternProperties")
        inner += sum(map(_annotations, value.values())) if names else _annotations(value)
    return inner + (_ANNOTATION in schema)


def check_params(headers: Headers, params: Iterable[Param], arguments: object) -> None:
    """Check each `Mcp-Param-NAME` of a `tools/call` against the value at its path in the arguments."""
    for param in params:
        shown = f"Mcp-Param-{param.name}"
        value = _at(arguments, param.path)
        if value is None:
            if param.header in headers:
                raise _mismatch(f"{shown} is there, and the arguments have no {'.'.join(param.path)}")
            continue
        given = decoded(_required(headers, param.header, shown), shown)
        if not _same(given, value, param.is_integer):
            raise _mismatch(
                f"{shown} is {given!r}, and {'.'.join(param.path)} in the arguments is another value"
            )


def _at(arguments: object, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key)
    return arguments


def _same(given: str, value: object, is_integer: bool) -> bool:
    """Whether a header says what the body does. Integers are compared as numbers: `42.0` is `42`."""
    if isinstance(value, bool):
        return given == ("true" if value else "false")
    if isinstance(value, str):
        return given == value
    if isinstance(value, (int, float)) and is_integer:
        within = abs(value) <= _SAFE_INTEGER
        return bool(within and _NUMBER.fullmatch(given) and Decimal(given) == Decimal(value))
    return False


# -- the headers of the legacy era --------------------------------------------------------------------------


def session_id(headers: Headers) -> str | None:
    """Return the session id of a legacy request; `None` where it has none."""
    value = headers.get(SESSION_ID)
    if value is not None and not _VISIBLE.fullmatch(value):
        message = "Mcp-Session-Id has other than visible ASCII characters; send back the id as it was given"
        raise Refused(400, message, code=INVALID_REQUEST)
    return value


def session_missing() -> Refused:
    """Return the refusal of a legacy request without a session (2025-11-25, "Session Management", rule 2)."""
    message = (
        "Mcp-Session-Id is missing; send `initialize` first and repeat the id of its answer, "
        "or send MCP-Protocol-Version: 2026-07-28 and the request metadata of that version"
    )
    return Refused(400, message, code=INVALID_REQUEST)


def session_unknown() -> Refused:
    """Return the refusal of a session that is unknown, over or another's. Clients start anew at 404."""
    return Refused(404, "There is no such session, or it is over; send `initialize` without Mcp-Session-Id")


def not_listening(why: str) -> Refused:
    """Return the refusal of a GET stream that would hear of no changes."""
    return Refused(
        503, f"The broker does not tell this session of changes: {why}", headers={"retry-after": "5"}
    )
