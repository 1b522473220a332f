"""What a server wrote on one line: which kind of message it is, and whose.

Strict first: a well-formed message is decoded once, and nothing else is looked at. A line that this refuses
is looked at again with patience (docs/servers.md has the table). Patience never changes whose answer a line
is: only JSON-RPC 2.0 in the shape of a response settles a request. All else on stdout is noise.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from broker.base.text import check_utf8, clip
from broker.base.tolerances import Oddity
from broker.core.mcp.jsonrpc import (
    MAX_BATCH,
    Broken,
    Id,
    Incoming,
    Message,
    Noise,
    Reply,
    ServerNotification,
    ServerRequest,
)
from broker.core.mcp.nesting import MAX_DEPTH, is_deep
from broker.core.mcp.pieces import LONG_BYTES, outside_of_escapes, read_members
from broker.core.mcp.recovery import HEAD_BYTES, abridged, finite, is_json_rpc, recover_id

_OBJECT, _QUOTE, _NULL = b'{"n'
"""With what a value of JSON begins that is an object, a string, or null."""

_NULL_TEXT = memoryview(b"null")
_MARK = b"\xef\xbb\xbf"
_SHOWN_CHARS = 200
_COLOUR_BYTES = 16

_Batch = msgspec.defstruct(
    "_Batch",
    [(f"m{number}", Raw | UnsetType, UNSET) for number in range(MAX_BATCH)],
    array_like=True,
    forbid_unknown_fields=True,
    gc=False,
)
"""An array of so many. Of a list msgspec would make all elements before it looks how many there are."""


class _Envelope(Struct, gc=False):
    """A message as the broker expects it; all that is otherwise goes the patient way."""

    jsonrpc: Literal["2.0"]
    id: int | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Loose(Struct, gc=False):
    """Any JSON object: the members that may be those of a message, whatever they are."""

    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Exact(_Loose, gc=False, forbid_unknown_fields=True):
    """The same, with nothing else beside them."""


_exact = msgspec.json.Decoder(_Exact)
_envelope = msgspec.json.Decoder(_Envelope)
_loose = msgspec.json.Decoder(_Loose)
_batch = msgspec.json.Decoder(_Batch)

_WHOLE = re.compile(r"\s*[+-]?\d{1,19}\s*")
_COLOURS = rb"(?:\x1b\[[0-9;?]*[A-Za-z]|\s)*"
_COLOURED = re.compile(_COLOURS + rb"(\{.*\})" + _COLOURS, re.DOTALL)

_EMPTY = frozenset({b"{}", b"[]", b'""', b"false", b"0"})
"""Members of these values say nothing, where another one says something."""


def read(line: bytes) -> Incoming:
    """What a server wrote on one line. Never raises: what cannot be used is `Broken` or `Noise`."""
    try:
        seen = _envelope.decode(line)
        if not line.isascii():
            check_utf8(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        is_other_json = isinstance(fault, msgspec.ValidationError)
        if not is_other_json and line[:1] == b"{" and b"\x1b" not in line[-_COLOUR_BYTES:]:
            return _unreadable(line, str(fault) or type(fault).__name__, [])  # and so it would be again
        return _patiently(line)
    if is_deep(line):
        return Broken(recover_id(line), f"it nests deeper than {MAX_DEPTH}")
    method, id, result, error = seen.method, seen.id, seen.result, seen.error
    if method is UNSET:
        if id is not UNSET and error is UNSET and result is not UNSET:
            return Reply(id, memoryview(result), None)
        if id is not UNSET and result is UNSET and error is not UNSET:
            refused = memoryview(error)
            if refused[0] == _OBJECT:
                return Reply(id, None, refused)
    elif result is UNSET and error is UNSET:
        params = None if seen.params is UNSET else memoryview(seen.params)
        if params is None or params[0] == _OBJECT:
            return ServerNotification(method, params) if id is UNSET else ServerRequest(id, method, params)
    return _patiently(line)


def read_long(line: bytes) -> Generator[int, None, Incoming]:
    """Return the same of a line above `LONG_BYTES`, a piece of it at a time."""
    text, odd = _object_in(line)
    if not text:
        return Noise()
    try:
        found = yield from read_members(text, _Loose)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        if b"NaN" in text or b"Infinity" in text:
            reason += "; JSON has no numbers NaN and Infinity"
        return _broken((yield from abridged(text)), reason, odd)
    short = [b'"%b":%b' % (name.encode(), _shortened(value)) for name, value in found.items()]
    if _is_unusable(_Loose(**{name: Raw(value) for name, value in found.items()})):
        try:
            yield from read_members(text, _Exact)
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
    """Return a value; of a long string its beginning, and a stand-in for a long object or array."""
    if len(value) <= HEAD_BYTES:
        return bytes(value)
    if value[0] == _QUOTE:
        head = bytes(value[: HEAD_BYTES + 1])
        return head[: outside_of_escapes(head, 0, HEAD_BYTES)] + b'"'
    return _STAND_INS.get(value[0]) or bytes(value)


def read_batch(line: bytes) -> list[Message]:
    """Return the messages of a batch: 2025-03-26 lets a server write several as an array. None if it is none.

    A line above `LONG_BYTES` is no batch: a batch is read in one step.
    """
    try:
        seen = _batch.decode(line) if len(line) <= LONG_BYTES and line.lstrip().startswith(b"[") else None
    except (msgspec.DecodeError, RecursionError):
        return []
    parts = [part for part in structs.astuple(seen) if part is not UNSET] if seen is not None else []
    messages = [message for part in parts if not isinstance(message := read(bytes(part)), Noise)]
    return messages if len(messages) == len(parts) else []


def read_behind(line: bytes) -> Incoming:
    """The response behind text without a line end, such as a prompt; only the handshake looks for one."""
    at = line.find(b'{"', 1, HEAD_BYTES)
    message = read(line[at:]) if at > 0 else Noise()
    if not isinstance(message, Reply):
        return Noise()
    return structs.replace(message, odd=(Oddity.PREFIX, *message.odd))


# --- the patient way -------------------------------------------------------------------------------------


def _patiently(line: bytes) -> Incoming:
    """Return what a line is that is no message as it should be."""
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
    """Return what to do about a line that does not parse: its numbers may be NaN, else it is broken."""
    if (mended := finite(text)) is not None and is_json_rpc(text):
        seen = read(mended)
        if not isinstance(seen, Reply) or seen.result != _NULL_TEXT:  # NaN alone is no result
            return structs.replace(seen, odd=(*odd, Oddity.NOT_FINITE, *seen.odd))
    return _broken(text, reason, odd)


def _broken(text: bytes, reason: str, odd: list[Oddity]) -> Broken | Noise:
    """Return the end of the request that a line answers, if the line was to be JSON-RPC."""
    if not is_json_rpc(text):
        return Noise()
    id = recover_id(text)
    return Broken(_same(id) if isinstance(id, str) else id, reason, tuple(odd))


def _object_in(line: bytes) -> tuple[bytes, list[Oddity]]:
    """Return a line without a byte order mark and colours, if it looks like a JSON object; else nothing."""
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


def _classify(seen: _Loose, text: bytes, odd: list[Oddity]) -> Incoming:
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
    id = _echo(seen.id)
    if id is None and method.startswith("notifications/"):
        return ServerNotification(method, taken, (*odd, Oddity.NULL_ID))
    return (
        Broken(None, "its id is no id", tuple(odd))
        if id is None
        else ServerRequest(id, method, taken, tuple(odd))
    )


def _is_unusable(seen: _Loose) -> bool:
    """Return whether it is no request, no notification, and no response that can be used."""
    return not _given(seen.method) and not _given(seen.result) and not _is_object(seen.error)


def _says_more(text: bytes) -> bool:
    """Whether it has members that no message has, as the lines of a logger do."""
    try:
        _exact.decode(text)
    except msgspec.ValidationError:
        return True
    return False


def _response(seen: _Loose, odd: list[Oddity]) -> Incoming:
    """Exactly one of `result` and `error` counts. One that says nothing gives way to the other."""
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
    if not _given(seen.id):
        return Broken(None, "it is a response without an id", tuple(odd))
    id = _id_of(seen.id, odd)
    if id is None:
        return Broken(None, f"it is a response with the id {_shown(seen.id)}", tuple(odd))
    if result is not UNSET and error is not UNSET:
        return Broken(id, "it has both a result and an error", tuple(odd))
    if result is not UNSET:
        return Reply(id, memoryview(result), None, tuple(odd))
    if error is UNSET:
        return Broken(id, "it has neither a result nor an error", tuple(odd))
    if not _is_object(error):
        return Broken(id, f"its error is no error object: {_shown(error)}", tuple(odd))
    return Reply(id, None, memoryview(error), tuple(odd))


def _given(raw: Raw | UnsetType) -> bool:
    """Whether a member is there and not null, of JSON that has been decoded."""
    return raw is not UNSET and memoryview(raw)[0] != _NULL


def _is_object(raw: Raw | UnsetType) -> bool:
    return raw is not UNSET and memoryview(raw)[0] == _OBJECT


def _is_empty(raw: Raw | UnsetType) -> bool:
    return raw is not UNSET and len(memoryview(raw)) < 40 and b"".join(bytes(raw).split()) in _EMPTY


def _string(raw: Raw | UnsetType) -> str | None:
    if raw is UNSET or memoryview(raw)[0] != _QUOTE:
        return None
    return msgspec.json.decode(raw, type=str)


def _shown(raw: Raw | UnsetType) -> str:
    """A member as it came, clipped."""
    return clip(bytes(memoryview(raw)[:_SHOWN_CHARS]).decode(errors="replace")) if raw is not UNSET else ""


def _echo(raw: Raw | UnsetType) -> int | str | float | None:
    """The id of a server's request, to be given back as it came; `None` where it can be no id."""
    try:
        id = msgspec.json.decode(memoryview(raw), type=int | str | float) if raw is not UNSET else None
    except msgspec.MsgspecError:
        return None
    return id


def _id_of(raw: Raw | UnsetType, odd: list[Oddity]) -> Id | None:
    """The id of a response: a string or a float of the same value is the same id."""
    id = _echo(raw)
    same = _same(id)
    if same is not None and type(same) is not type(id):
        odd.append(Oddity.STRING_ID if isinstance(id, str) else Oddity.FLOAT_ID)
    return same


def _same(id: int | str | float | None) -> Id | None:
    """The whole number that an id stands for, a string that is none, or nothing."""
    if isinstance(id, str):
        return int(id) if _WHOLE.fullmatch(id) else id
    if isinstance(id, float):
        return int(id) if id.is_integer() and abs(id) < 2**63 else None
    return id


def same_id(raw: Raw | None) -> Id | None:
    """The id or token in a message, by the same rule; `None` where it can be neither."""
    return None if raw is None else _same(_echo(raw))
