"""Reads the lines of servers: finds the kind and the members of a message.

A well-formed message is decoded once by the strict reader. The tolerant reader reads what the strict one
refuses (docs/servers.md has the table). Tolerance never changes which request a line answers: only JSON-RPC
2.0 in the form of a response ends a request. Any other text on stdout is noise.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from broker.base.text import check_utf8
from broker.base.tolerances import Oddity
from broker.core.mcp.agreement import shown
from broker.core.mcp.ids import echo, same
from broker.core.mcp.jsonrpc import (
    MAX_BATCH,
    Broken,
    Id,
    Incoming,
    Message,
    Noise,
    ServerNotification,
    ServerReply,
    ServerRequest,
)
from broker.core.mcp.nesting import MAX_DEPTH, is_deep
from broker.core.mcp.pieces import LONG_BYTES, outside_of_escapes, read_members
from broker.core.mcp.recovery import HEAD_BYTES, abridged, finite, is_json_rpc, recover_id

_OBJECT, _QUOTE, _NULL = b'{"n'
"""The first byte of an object, a string, and null."""

_NULL_TEXT = memoryview(b"null")
_MARK = b"\xef\xbb\xbf"
_COLOUR_BYTES = 16

_Batch = msgspec.defstruct(
    "_Batch",
    [(f"m{number}", Raw | UnsetType, UNSET) for number in range(MAX_BATCH)],
    array_like=True,
    forbid_unknown_fields=True,
    gc=False,
)
"""An array of at most `MAX_BATCH`. For a list, msgspec makes all elements before it counts them."""


class _StrictMessage(Struct, gc=False):
    """A well-formed message, for the strict reader."""

    jsonrpc: Literal["2.0"]
    id: int | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _LooseMessage(Struct, gc=False):
    """Any JSON object, for the tolerant reader: the members of a message, of any type."""

    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _ExactMessage(_LooseMessage, gc=False, forbid_unknown_fields=True):
    """The same, without other members."""


_exact = msgspec.json.Decoder(_ExactMessage)
_envelope = msgspec.json.Decoder(_StrictMessage)
_loose = msgspec.json.Decoder(_LooseMessage)
_batch = msgspec.json.Decoder(_Batch)

_COLOURS = rb"(?:\x1b\[[0-9;?]*[A-Za-z]|\s)*"
_COLOURED = re.compile(_COLOURS + rb"(\{.*\})" + _COLOURS, re.DOTALL)

_EMPTY = frozenset({b"{}", b"[]", b'""', b"false", b"0"})
"""The values of a `result` or `error` that give way to the other one."""


def read(line: bytes) -> Incoming:
    """Read a line. It never raises: an unusable line is `Broken` or `Noise`."""
    try:
        seen = _envelope.decode(line)
        if not line.isascii():
            check_utf8(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        is_other_json = isinstance(fault, msgspec.ValidationError)
        if not is_other_json and line[:1] == b"{" and b"\x1b" not in line[-_COLOUR_BYTES:]:
            return _unreadable(
                line, str(fault) or type(fault).__name__, []
            )  # the tolerant reader would refuse it, too
        return _tolerantly(line)
    if is_deep(line):
        return Broken(recover_id(line), f"it nests deeper than {MAX_DEPTH}")
    method, id, result, error = seen.method, seen.id, seen.result, seen.error
    if method is UNSET:
        if id is not UNSET and error is UNSET and result is not UNSET:
            return ServerReply(id, memoryview(result), None)
        if id is not UNSET and result is UNSET and error is not UNSET:
            refused = memoryview(error)
            if refused[0] == _OBJECT:
                return ServerReply(id, None, refused)
    elif result is UNSET and error is UNSET:
        params = None if seen.params is UNSET else memoryview(seen.params)
        if params is None or params[0] == _OBJECT:
            return ServerNotification(method, params) if id is UNSET else ServerRequest(id, method, params)
    return _tolerantly(line)


def read_long(line: bytes) -> Generator[int, None, Incoming]:
    """Read a line above `LONG_BYTES`; yield after each piece."""
    text, odd = _object_in(line)
    if not text:
        return Noise()
    try:
        found = yield from read_members(text, _LooseMessage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        if b"NaN" in text or b"Infinity" in text:
            reason += "; JSON has no numbers NaN and Infinity"
        return _broken((yield from abridged(text)), reason, odd)
    short = [b'"%b":%b' % (name.encode(), _shortened(value)) for name, value in found.items()]
    if _is_unusable(_LooseMessage(**{name: Raw(value) for name, value in found.items()})):
        try:
            yield from read_members(text, _ExactMessage)
        except msgspec.ValidationError:
            short.append(b'"more":0')
    message = read(b"{%b}" % b",".join(short))
    if isinstance(message, Noise):
        return message
    whole = {name: found[name] for name in _LONG_MEMBERS if getattr(message, name, None) is not None}
    return structs.replace(message, odd=(*odd, *message.odd), **whole)


_LONG_MEMBERS = ("params", "result", "error")
_STAND_INS = {ord("{"): b'{"":0}', ord("["): b"[0]"}


def _shortened(value: memoryview) -> bytes:
    """Return a value, the beginning of a long string, or a stand-in for a long object or array."""
    if len(value) <= HEAD_BYTES:
        return bytes(value)
    if value[0] == _QUOTE:
        head = bytes(value[: HEAD_BYTES + 1])
        return head[: outside_of_escapes(head, 0, HEAD_BYTES)] + b'"'
    return _STAND_INS.get(value[0]) or bytes(value)


def read_batch(line: bytes) -> list[Message]:
    """Return the messages of a batch, as 2025-03-26 allows, or none for another line.

    A line above `LONG_BYTES` is no batch, since a batch is read in one step.
    """
    try:
        seen = _batch.decode(line) if len(line) <= LONG_BYTES and line.lstrip().startswith(b"[") else None
    except (msgspec.DecodeError, RecursionError):
        return []
    parts = [part for part in structs.astuple(seen) if part is not UNSET] if seen is not None else []
    messages = [message for part in parts if not isinstance(message := read(bytes(part)), Noise)]
    return messages if len(messages) == len(parts) else []


def read_behind(line: bytes) -> Incoming:
    """Return the response behind a text without a line end, such as a prompt."""
    at = line.find(b'{"', 1, HEAD_BYTES)
    message = read(line[at:]) if at > 0 else Noise()
    if not isinstance(message, ServerReply):
        return Noise()
    return structs.replace(message, odd=(Oddity.PREFIX, *message.odd))


# --- the tolerant reader ------------------------------------------------------------------------------


def _tolerantly(line: bytes) -> Incoming:
    """Read a line that is no well-formed message."""
    text, odd = _object_in(line)
    if not text:
        return Noise()
    try:
        seen = _loose.decode(text)
        if not text.isascii():
            check_utf8(text)
        deep = is_deep(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _unreadable(text, str(error) or type(error).__name__, odd)
    if deep:
        return _unreadable(text, f"it nests deeper than {MAX_DEPTH}", odd)
    if _string(seen.jsonrpc) != "2.0":
        members = (seen.id, seen.method, seen.result, seen.error)
        return Noise((Oddity.NOT_JSON_RPC,) if any(one is not UNSET for one in members) else ())
    return _classify(seen, text, odd)


def _unreadable(text: bytes, reason: str, odd: list[Oddity]) -> Incoming:
    """Read a line that is no JSON, with null for NaN and Infinity if that makes it valid."""
    if (mended := finite(text)) is not None and is_json_rpc(text):
        seen = read(mended)
        if not isinstance(seen, ServerReply) or seen.result != _NULL_TEXT:  # NaN alone is no result
            return structs.replace(seen, odd=(*odd, Oddity.NOT_FINITE, *seen.odd))
    return _broken(text, reason, odd)


def _broken(text: bytes, reason: str, odd: list[Oddity]) -> Broken | Noise:
    """Return `Broken` with the id of the line, if its legible members name JSON-RPC."""
    if not is_json_rpc(text):
        return Noise()
    id = recover_id(text)
    return Broken(same(id) if isinstance(id, str) else id, reason, tuple(odd))


def _object_in(line: bytes) -> tuple[bytes, list[Oddity]]:
    """Return a line without byte order mark and colours if it looks like a JSON object, else nothing."""
    odd: list[Oddity] = []
    text = line.lstrip()
    if text.startswith(_MARK):
        text = text[len(_MARK) :]
        odd.append(Oddity.BYTE_ORDER_MARK)
    if text.startswith(b"\x1b") or b"\x1b" in text[-_COLOUR_BYTES:]:
        coloured = _COLOURED.fullmatch(text) if len(text) <= HEAD_BYTES else None
        if coloured is None:
            return b"", odd
        text = coloured[1]
        odd.append(Oddity.ANSI)
    return text if text.lstrip().startswith(b"{") else b"", odd


def _classify(seen: _LooseMessage, text: bytes, odd: list[Oddity]) -> Incoming:
    method, params = _string(seen.method), seen.params
    if _given(seen.method) and method is None:
        return Broken(_id_of(seen.id, odd), "its method is no string", tuple(odd))
    if method is None:
        says_more = _is_unusable(seen) and _says_more(text)
        return Noise((Oddity.NO_MESSAGE,)) if says_more else _response(seen, odd)
    if not _given(params) or not _is_object(params):
        odd += [Oddity.NULL_MEMBER if not _given(params) else Oddity.PARAMS] if params is not UNSET else []
        params = UNSET
    taken = None if params is UNSET else memoryview(params)
    if _given(seen.result) or _given(seen.error):
        return Broken(None, "it has a method, and a result or an error", tuple(odd))
    if not _given(seen.id):
        odd += [Oddity.NULL_ID] if seen.id is not UNSET else []
        return ServerNotification(method, taken, tuple(odd))
    id = echo(seen.id)
    if id is None and method.startswith("notifications/"):
        return ServerNotification(method, taken, (*odd, Oddity.NULL_ID))
    return (
        Broken(None, "its id is no id", tuple(odd))
        if id is None
        else ServerRequest(id, method, taken, tuple(odd))
    )


def _is_unusable(seen: _LooseMessage) -> bool:
    """Return whether it has neither a method nor a usable `result` or `error`."""
    return not _given(seen.method) and not _given(seen.result) and not _is_object(seen.error)


def _says_more(text: bytes) -> bool:
    """Return whether it has members that no message has, as the lines of a logger do."""
    try:
        _exact.decode(text)
    except msgspec.ValidationError:
        return True
    return False


def _response(seen: _LooseMessage, odd: list[Oddity]) -> Incoming:
    """Return the response: either `result` or `error` counts, and an empty one gives way to the other."""
    result, error = seen.result, seen.error
    if _given(result) and _given(error):
        if _is_empty(error) or (_is_object(result) and not _is_object(error)):
            error = UNSET
        elif _is_empty(result):
            result = UNSET
        odd += [Oddity.EMPTY_MEMBER] if error is UNSET or result is UNSET else []
    elif _given(result) or _given(error):
        odd += [Oddity.NULL_MEMBER] if result is not UNSET and error is not UNSET else []
        result, error = (result, UNSET) if _given(result) else (UNSET, error)
    elif error is not UNSET:  # both are null, or the only one is
        odd.append(Oddity.NULL_MEMBER)
        result, error = UNSET, UNSET
    if seen.id is UNSET or not _given(seen.id):
        return Broken(None, "it is a response without an id", tuple(odd))
    id = _id_of(seen.id, odd)
    if id is None:
        return Broken(None, f"it is a response with the id {shown(seen.id)}", tuple(odd))
    if result is not UNSET and error is not UNSET:
        return Broken(id, "it has both a result and an error", tuple(odd))
    if result is not UNSET:
        return ServerReply(id, memoryview(result), None, tuple(odd))
    if error is UNSET:
        return Broken(id, "it has neither a result nor an error", tuple(odd))
    if not _is_object(error):
        return Broken(id, f"its error is no error object: {shown(error)}", tuple(odd))
    return ServerReply(id, None, memoryview(error), tuple(odd))


def _given(raw: Raw | UnsetType) -> bool:
    """Return whether a member is present and not null."""
    return raw is not UNSET and memoryview(raw)[0] != _NULL


def _is_object(raw: Raw | UnsetType) -> bool:
    return raw is not UNSET and memoryview(raw)[0] == _OBJECT


def _is_empty(raw: Raw | UnsetType) -> bool:
    return raw is not UNSET and len(memoryview(raw)) < 40 and b"".join(bytes(raw).split()) in _EMPTY


def _string(raw: Raw | UnsetType) -> str | None:
    if raw is UNSET or memoryview(raw)[0] != _QUOTE:
        return None
    return msgspec.json.decode(raw, type=str)


def _id_of(raw: Raw | UnsetType, odd: list[Oddity]) -> Id | None:
    """Return the id of a response; a string or a float of the same value is the same id."""
    id = echo(raw)
    whole = same(id)
    if whole is not None and type(whole) is not type(id):
        odd.append(Oddity.STRING_ID if isinstance(id, str) else Oddity.FLOAT_ID)
    return whole
