"""The messages of JSON-RPC, the check of a client's params, and the lines that the broker writes.

Params are checked once, when they come in, and then travel as the same bytes. They are one JSON object of
valid UTF-8, without raw line ends (a server that reads lines would see several messages), not nested too
deep, and without a `_meta` of their own.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field, structs

from broker.base.text import check_utf8
from broker.base.tolerances import Oddity
from broker.core.mcp.members import MAX_MEMBERS, has_once
from broker.core.mcp.nesting import MAX_DEPTH, is_deep
from broker.core.mcp.pieces import TooDeep, read_members
from client_shim.wire import Code

MAX_BATCH = 1000
"""The most messages in a batch: all are handled in one step."""

Id = int | str

METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603


class BodyError(Exception):
    """Params that cannot be passed on; `code` and the message say why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Params(Struct, frozen=True, gc=False):
    """The params of a request, with what the broker needs to know of them.

    `name` is that of a tool or prompt. `answers`: they answer an `input_required` of the server. `is_task`:
    they ask for a task of 2025-11-25. `unclear`: they are long, and do not have `name` exactly once.
    """

    body: bytes
    name: str | None
    has_cursor: bool
    answers: bool = False
    is_task: bool = False
    unclear: bool = False


class ServerReply(Struct, frozen=True):
    """A response with either `result` or `error`, as bytes. `odd`: the oddities that were tolerated."""

    id: Id
    result: memoryview | None
    error: memoryview | None
    odd: tuple[Oddity, ...] = ()


class ServerRequest(Struct, frozen=True):
    """A request of a server. The response repeats its id as it came."""

    id: Id | float
    method: str
    params: memoryview | None
    odd: tuple[Oddity, ...] = ()


class ServerNotification(Struct, frozen=True):
    """A notification of a server."""

    method: str
    params: memoryview | None
    odd: tuple[Oddity, ...] = ()


class Broken(Struct, frozen=True):
    """An unusable JSON-RPC message. `id` is that of the request that it answers, if legible."""

    id: Id | None
    reason: str
    odd: tuple[Oddity, ...] = ()


class Noise(Struct, frozen=True):
    """A line that is no message: a banner, a debug print, a log line in JSON."""

    odd: tuple[Oddity, ...] = ()


Message = ServerReply | ServerRequest | ServerNotification | Broken
Incoming = Message | Noise


class _KnownParams(Struct, gc=False):
    name: Raw | UnsetType = UNSET
    cursor: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = field(default=UNSET, name="_meta")
    responses: Raw | UnsetType = field(default=UNSET, name="inputResponses")
    state: Raw | UnsetType = field(default=UNSET, name="requestState")
    task: Raw | UnsetType = UNSET


class _Elicitation(Struct, gc=False):
    mode: str = "form"


class _Error(Struct, gc=False):
    code: int
    message: str


_object = msgspec.json.Decoder(dict[str, Raw])
_error = msgspec.json.Decoder(_Error)
_elicitation = msgspec.json.Decoder(_Elicitation)
_params = msgspec.json.Decoder(_KnownParams)
_string = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


def check_params(body: bytes | None) -> Params:
    """Check the params of a client's request; return them.

    Raises:
        BodyError: they cannot be written to a server.
    """
    if body is None:
        return Params(b"{}", None, False)
    _check_line_ends(body)
    try:
        if not body.isascii():
            check_utf8(body)
        seen = _params.decode(body)
        if is_deep(body):
            raise TooDeep
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unfit(error) from None
    return _taken(body, seen)


def check_answer(body: bytes, ok: bool, max_bytes: int) -> bytes:
    """Check a client's answer to a question of a server; return it as it may be written.

    Args:
        ok: whether it is a result. Otherwise it is an error with a code and a message.

    Raises:
        BodyError: it cannot be written to a server, or is larger than `max_bytes`.
    """
    if len(body) > max_bytes:
        raise BodyError(Code.TOO_LARGE, f"the answer is {len(body)} bytes and may be {max_bytes}")
    _check_line_ends(body)
    try:
        check_utf8(body)
        (_object if ok else _error).decode(body)
        if is_deep(body):
            raise TooDeep
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unfit(error) from None
    return body.strip(b" \t")


def elicitation_mode(params: memoryview) -> str | None:
    """Return the mode of an elicitation: `form` if it names none; `None` if that cannot be read."""
    try:
        return _elicitation.decode(params).mode
    except (msgspec.DecodeError, RecursionError):
        return None


def check_long_params(body: bytes) -> Generator[int, None, Params]:
    """Check params above `LONG_BYTES`; yield after each piece."""
    _check_line_ends(body)
    keys: list[str] = []
    try:
        found = yield from read_members(body.strip(b" \t"), _KnownParams, keys)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unfit(error) from None
    params = _taken(body, _KnownParams(**{name: Raw(value) for name, value in found.items()}))
    unclear = len(keys) > MAX_MEMBERS or not has_once(keys, "name")
    return structs.replace(params, unclear=unclear)


def _check_line_ends(body: bytes) -> None:
    if b"\n" in body or b"\r" in body:
        raise BodyError(
            Code.INVALID_BODY, "the params have a raw line end; write it as \\n or \\r in a string"
        )


def _unfit(error: Exception) -> BodyError:
    if isinstance(error, UnicodeDecodeError):
        return BodyError(Code.INVALID_BODY, f"the params are not UTF-8: {error.reason}")
    if isinstance(error, TooDeep):
        return BodyError(Code.INVALID_BODY, f"the params nest deeper than {MAX_DEPTH}")
    return BodyError(Code.INVALID_BODY, f"the params are not one JSON object: {error}")


def _taken(body: bytes, seen: _KnownParams) -> Params:
    if seen.meta is not UNSET:
        raise BodyError(
            Code.META_IN_BODY, "the params have a `_meta`; it travels in the header of the request"
        )
    name = None if seen.name is UNSET else _text(seen.name)
    answers = seen.responses is not UNSET or seen.state is not UNSET
    has_cursor = seen.cursor is not UNSET and bytes(seen.cursor) != b"null"
    return Params(body.strip(b" \t"), name, has_cursor, answers, seen.task is not UNSET)


def check_meta(meta: Mapping[str, Any] | None) -> None:
    """Check that a request's `_meta` can be written as JSON.

    Raises:
        BodyError: it has binary data or NaN, or nests too deep.
    """
    if meta is None:
        return
    try:
        text = json.dumps(meta, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BodyError(Code.INVALID_BODY, f"the `_meta` cannot be written as JSON: {error}") from None
    if is_deep(text):
        raise BodyError(Code.INVALID_BODY, f"the `_meta` nests deeper than {MAX_DEPTH}")


def _text(raw: Raw) -> str | None:
    is_text = bytes(raw).startswith(b'"')  # a number may be out of range
    return _string.decode(raw) if is_text else None


def request_line(id: int, method: str, body: bytes = b"{}", meta: Mapping[str, Any] | None = None) -> bytes:
    """Return a request as one line. `body` has passed `check_params`; `meta` becomes its only `_meta`."""
    params = body if not meta else _splice(body, meta)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}\n' % (id, _encode(method), params)


def _splice(body: bytes, meta: Mapping[str, Any]) -> bytes:
    rest = body[1:].lstrip(b" \t")
    comma = b"" if rest.startswith(b"}") else b","
    return b'{"_meta":%b%b%b' % (_encode(meta), comma, rest)


def notification_line(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """Return a notification as one line."""
    if params is None:
        return b'{"jsonrpc":"2.0","method":%b}\n' % _encode(method)
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}\n' % (_encode(method), _encode(params))


def result_line(id: Id | float, result: Mapping[str, Any]) -> bytes:
    """Return the answer to a server's request as one line."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (_encode(id), _encode(result))


def error_line(id: Id | float, code: int, message: str) -> bytes:
    """Return the refusal of a server's request as one line."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (
        _encode(id),
        _encode({"code": code, "message": message}),
    )


def answer_line(id: Id | float, ok: bool, body: bytes) -> bytes:
    """Return a client's answer to a server's request as one line. `body` has passed `check_answer`."""
    return b'{"jsonrpc":"2.0","id":%b,"%b":%b}\n' % (_encode(id), b"result" if ok else b"error", body)
