"""One JSON-RPC line: read its envelope without decoding its body, or build it by splicing bytes.

A body is checked once, where it comes in, and then travels as the bytes it came in. What is
checked: it is one JSON object of valid UTF-8, without raw line ends (a server that reads lines
would see several messages), not nested too deep, and without a `_meta` of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from broker.core.nesting import MAX_DEPTH, depth_at_end, is_deep
from client_shim.wire import Code

MAX_BATCH = 1000
"""Messages in one batch. Each is a step of its own, and nobody else has a turn in between."""

_LAST_BYTES = 4096
_TOKENS_LOOKED_AT = 4096

Id = int | str

METHOD_NOT_FOUND = -32601


class BodyError(Exception):
    """A body that cannot be passed on; `code` and the message say why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Params(Struct, frozen=True, gc=False):
    """What the broker needs to know of a request's params.

    `name` is that of a tool or prompt, if there is one; `answers`: it carries on where a server asked back.
    `is_task`: it is to become a task of 2025-11-25.
    """

    body: bytes
    name: str | None
    has_cursor: bool
    answers: bool = False
    is_task: bool = False


class Reply(Struct, frozen=True):
    """A response: exactly one of `result` and `error` is there, as bytes."""

    id: Id
    result: memoryview | None
    error: memoryview | None


class Asked(Struct, frozen=True):
    """A request from the server."""

    id: Id
    method: str
    params: memoryview | None


class Told(Struct, frozen=True):
    """A notification from the server."""

    method: str
    params: memoryview | None


class Broken(Struct, frozen=True):
    """A line that looks like a message and cannot be used. `id` is the request it answers, if legible."""

    id: Id | None
    reason: str


class Noise(Struct, frozen=True):
    """A line that is no message at all: a banner, a debug print."""


Message = Reply | Asked | Told | Broken
Incoming = Message | Noise


_Batch = Annotated[list[Raw], Meta(max_length=MAX_BATCH)]


class _Envelope(Struct, gc=False):
    jsonrpc: str | UnsetType = UNSET
    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Params(Struct, gc=False):
    name: Raw | UnsetType = UNSET
    cursor: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = field(default=UNSET, name="_meta")
    responses: Raw | UnsetType = field(default=UNSET, name="inputResponses")
    state: Raw | UnsetType = field(default=UNSET, name="requestState")
    task: Raw | UnsetType = UNSET


_envelope = msgspec.json.Decoder(_Envelope)
_params = msgspec.json.Decoder(_Params)
_string = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode

# A string without an end takes the rest: else each escaped quote in it would be tried as a start.
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_TOKENS = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_ID = re.compile(rb'\s*:\s*(-?\d{1,19}(?=\s*[,}])|"[^"\\]{0,200}")')
_FLAT = rb'(?:"[^"\\]{0,200}"|-?\d{1,19}|null|true|false)'
_LAST = re.compile(rb'"id"(?=\s*:\s*%b\s*(?:,\s*"[^"\\]{0,200}"\s*:\s*%b\s*){0,8}\}\s*\Z)' % (_FLAT, _FLAT))


def read(line: bytes) -> Incoming:
    """What a server wrote on one line. Never raises: what cannot be used is `Broken` or `Noise`."""
    try:
        seen = _envelope.decode(line)
        if not line.isascii():
            line.decode()
        if is_deep(line):
            return Broken(recover_id(line), f"it nests deeper than {MAX_DEPTH}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _unreadable(line, error)
    return _classify(seen)


def read_batch(line: bytes) -> list[Message]:
    """The messages of a batch: 2025-03-26 lets a server write several as an array. None if it is not one."""
    try:
        parts = msgspec.json.decode(line, type=_Batch) if line.lstrip().startswith(b"[") else []
    except (msgspec.DecodeError, RecursionError):
        return []
    messages = [message for part in parts if not isinstance(message := read(bytes(part)), Noise)]
    return messages if len(messages) == len(parts) else []


def _classify(seen: _Envelope) -> Incoming:
    id = seen.id
    if isinstance(seen.method, str):
        params = memoryview(seen.params) if isinstance(seen.params, Raw) else None
        if id is UNSET:
            return Told(seen.method, params)
        return Broken(None, "its id is null") if id is None else Asked(id, seen.method, params)
    result = memoryview(seen.result) if isinstance(seen.result, Raw) else None
    error = memoryview(seen.error) if isinstance(seen.error, Raw) else None
    if id is UNSET or id is None:
        return Broken(None, "it is a response without an id")
    if (result is None) == (error is None):
        return Broken(id, "it must have either a result or an error")
    return Reply(id, result, error)


def _unreadable(line: bytes, error: Exception) -> Incoming:
    if not line.lstrip().startswith(b"{"):
        return Noise()
    return Broken(recover_id(line), str(error) or type(error).__name__)


def recover_id(line: bytes) -> Id | None:
    """The top-level `id` of a line that does not parse, so that the call it answers can end at once.

    It is looked for where servers write it: near the beginning, or after the result, at the very end. To go
    through all of a long line would stop everybody for many seconds.
    """
    depth = 0
    for token in islice(_TOKENS.finditer(line), _TOKENS_LOOKED_AT):
        text = token[0]
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and text == b'"id"' and (id := _id_at(line, token.end())) is not None:
            return id
    last = _LAST.search(line, max(0, len(line) - _LAST_BYTES))
    if last is None or depth_at_end(line[: last.start()]) != 1:
        return None
    return _id_at(line, last.end())


def _id_at(line: bytes, at: int) -> Id | None:
    value = _ID.match(line, at)
    if value is None:
        return None
    return int(value[1]) if value[1][:1] != b'"' else value[1][1:-1].decode(errors="replace")


def check_params(body: bytes | None) -> Params:
    """The params of a client's request, found fit to be written to a server.

    Raises:
        BodyError: they are not; the message says why.
    """
    if body is None:
        return Params(b"{}", None, False)
    if b"\n" in body or b"\r" in body:
        raise BodyError(
            Code.INVALID_BODY, "the params have a raw line end; write it as \\n or \\r in a string"
        )
    try:
        if not body.isascii():
            body.decode()
        seen = _params.decode(body)
    except UnicodeDecodeError as error:
        raise BodyError(Code.INVALID_BODY, f"the params are not UTF-8: {error.reason}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BodyError(Code.INVALID_BODY, f"the params are not one JSON object: {error}") from None
    if is_deep(body):
        raise BodyError(Code.INVALID_BODY, f"the params nest deeper than {MAX_DEPTH}")
    if seen.meta is not UNSET:
        raise BodyError(
            Code.META_IN_BODY, "the params have a `_meta`; it travels in the header of the request"
        )
    name = None if seen.name is UNSET else _text(seen.name)
    answers = seen.responses is not UNSET or seen.state is not UNSET
    has_cursor = seen.cursor is not UNSET and bytes(seen.cursor) != b"null"
    return Params(body.strip(b" \t"), name, has_cursor, answers, seen.task is not UNSET)


def check_meta(meta: Mapping[str, Any] | None) -> None:
    """Whether a request's `_meta` can be written as JSON.

    Raises:
        BodyError: it has binary data or a number that is none, or nests too deep.
    """
    if meta is None:
        return
    try:
        text = json.dumps(meta, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BodyError(Code.INVALID_BODY, f"the `_meta` cannot be written as JSON: {error}") from None
    if is_deep(text):
        raise BodyError(Code.INVALID_BODY, f"the `_meta` nests deeper than {MAX_DEPTH}")


class Progress(Struct):
    """The params of a progress notification: whose it is, and the rest of it as it came."""

    token: Id | None
    rest: dict[str, Raw]


def read_progress(params: memoryview | None) -> Progress:
    """Take a progress notification apart; one that cannot be read is nobody's."""
    try:
        rest = msgspec.json.decode(params or b"{}", type=dict[str, Raw])
        token = rest.pop("progressToken", None)
        return Progress(None if token is None else msgspec.json.decode(token, type=Id | None), rest)
    except msgspec.MsgspecError:
        return Progress(None, {})


class _Uri(Struct):
    uri: str


def read_uri(params: memoryview | None) -> str | None:
    """The resource that a notification is about, if it can be read."""
    try:
        return msgspec.json.decode(params or b"{}", type=_Uri).uri
    except msgspec.MsgspecError:
        return None


def progress_body(progress: Progress, token: Id) -> bytes:
    """The same for the client, under the token that the client knows."""
    return _encode({"progressToken": token, **progress.rest})


def _text(raw: Raw) -> str | None:
    is_text = bytes(raw).startswith(b'"')  # to decode a number can fail: it may be out of range
    return _string.decode(raw) if is_text else None


def request_line(id: int, method: str, body: bytes = b"{}", meta: Mapping[str, Any] | None = None) -> bytes:
    """A request as one line. `body` has passed `check_params`; `meta` becomes its only `_meta`."""
    params = body if not meta else _splice(body, meta)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}\n' % (id, _encode(method), params)


def _splice(body: bytes, meta: Mapping[str, Any]) -> bytes:
    rest = body[1:].lstrip(b" \t")
    comma = b"" if rest.startswith(b"}") else b","
    return b'{"_meta":%b%b%b' % (_encode(meta), comma, rest)


def notification_line(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A notification as one line."""
    if params is None:
        return b'{"jsonrpc":"2.0","method":%b}\n' % _encode(method)
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}\n' % (_encode(method), _encode(params))


def result_line(id: Id, result: Mapping[str, Any]) -> bytes:
    """The answer to a server's request, as one line."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (_encode(id), _encode(result))


def error_line(id: Id, code: int, message: str) -> bytes:
    """The refusal of a server's request, as one line."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (
        _encode(id),
        _encode({"code": code, "message": message}),
    )
