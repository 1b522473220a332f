"""What a server wrote on one line: which kind of message it is, and whose.

Strict first: a well-formed message is decoded once, and nothing else is looked at. A line that this refuses
is looked at again with patience (docs/servers.md has the table). Patience never changes whose answer a line
is: only JSON-RPC 2.0 in the shape of a response settles a request. All else on stdout is noise.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from broker.base.text import check_utf8, clip
from broker.base.tolerances import Oddity
from broker.core.mcp.jsonrpc import MAX_BATCH, Asked, Broken, Id, Incoming, Message, Noise, Reply, Told
from broker.core.mcp.nesting import MAX_DEPTH, depth_at_end, is_deep

_LAST_BYTES = 4096
_TOKENS_LOOKED_AT = 4096
_OBJECT, _QUOTE, _NULL = b'{"n'
"""With what a value of JSON begins that is an object, a string, or null."""

_NULL_TEXT = memoryview(b"null")
_MARK = b"\xef\xbb\xbf"
_SHOWN_CHARS = 200
_COLOUR_BYTES = 16

_HEAD_BYTES = 65_536
"""Of a longer line that does not parse only so much is looked at."""

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


_encode = msgspec.json.Encoder().encode
_exact = msgspec.json.Decoder(_Exact)
_envelope = msgspec.json.Decoder(_Envelope)
_loose = msgspec.json.Decoder(_Loose)
_batch = msgspec.json.Decoder(_Batch)

# A string without an end takes the rest: else each escaped quote in it would be tried as a start.
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_TOKENS = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_ID = re.compile(rb'\s*:\s*(-?\d{1,19}(?=\s*[,}])|"[^"\\]{0,200}")')
_VERSION = re.compile(rb'\s*:\s*"2\.0"')
_FLAT = rb'(?:"[^"\\]{0,200}"|-?\d{1,19}|null|true|false)'
_REST = rb'\s*:\s*%b\s*(?:,\s*"[^"\\]{0,200}"\s*:\s*%b\s*){0,8}\}\s*\Z' % (_FLAT, _FLAT)
_LAST = {name: re.compile(b'"%b"(?=%b)' % (name, _REST)) for name in (b"id", b"jsonrpc")}

# Some serializers write numbers that JSON does not have, and Python's reader takes them.
_NOT_FINITE = re.compile(_STRING + rb"|-?(?:NaN|Infinity)", re.DOTALL)
_MENDED_BYTES = 1024 * 1024
"""A longer line with such numbers cannot be used: to go through it would hold up everybody."""

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
            return Told(method, params) if id is UNSET else Asked(id, method, params)
    return _patiently(line)


def read_batch(line: bytes) -> list[Message]:
    """The messages of a batch: 2025-03-26 lets a server write several as an array. None if it is not one."""
    try:
        seen = _batch.decode(line) if line.lstrip().startswith(b"[") else None
    except (msgspec.DecodeError, RecursionError):
        return []
    parts = [part for part in structs.astuple(seen) if part is not UNSET] if seen is not None else []
    messages = [message for part in parts if not isinstance(message := read(bytes(part)), Noise)]
    return messages if len(messages) == len(parts) else []


def read_behind(line: bytes) -> Incoming:
    """The response behind text without a line end, such as a prompt; only the handshake looks for one."""
    at = line.find(b'{"', 1, _HEAD_BYTES)
    message = read(line[at:]) if at > 0 else Noise()
    if not isinstance(message, Reply):
        return Noise()
    return structs.replace(message, odd=(Oddity.PREFIX, *message.odd))


# --- the patient way -------------------------------------------------------------------------------------


def _patiently(line: bytes) -> Incoming:
    """A line that is no message as it should be: what it is all the same."""
    odd: list[Oddity] = []
    text = line.lstrip()
    if text.startswith(_MARK):
        text = text[len(_MARK) :]
        odd.append(Oddity.BYTE_ORDER_MARK)
    if text.startswith(b"\x1b") or b"\x1b" in text[-_COLOUR_BYTES:]:
        coloured = _COLOURED.fullmatch(text) if len(text) <= _HEAD_BYTES else None
        if coloured is None:
            return Noise()
        text = coloured[1]
        odd.append(Oddity.ANSI)
    if not text.lstrip().startswith(b"{"):
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
    """A line that does not parse ends the request that it answers, if it was to be JSON-RPC."""
    if not is_json_rpc(text):
        return Noise()
    if b"NaN" in text or b"Infinity" in text:
        if len(text) > _MENDED_BYTES:
            reason += "; JSON has no numbers NaN and Infinity"
        elif (mended := _NOT_FINITE.sub(_finite, text)) != text:
            seen = read(mended)
            if not isinstance(seen, Reply) or seen.result != _NULL_TEXT:  # NaN alone is no result
                return structs.replace(seen, odd=(*odd, Oddity.NOT_FINITE, *seen.odd))
    id = recover_id(text)
    return Broken(_same(id) if isinstance(id, str) else id, reason, tuple(odd))


def _finite(token: re.Match[bytes]) -> bytes:
    """What a token becomes in JSON: a string stays, NaN is null, as `JSON.stringify` has it."""
    return token[0] if token[0][:1] == b'"' else b"null"


def _classify(seen: _Loose, text: bytes, odd: list[Oddity]) -> Incoming:
    method, params = _string(seen.method), seen.params
    if _given(seen.method) and method is None:
        return Broken(_id_of(seen.id, odd), "its method is no string", tuple(odd))
    if method is None:
        unusable = not _given(seen.result) and not _is_object(seen.error)
        return Noise((Oddity.NO_MESSAGE,)) if unusable and _says_more(text) else _response(seen, odd)
    if not _given(params) or not _is_object(params):
        odd += [Oddity.NULL_MEMBER if not _given(params) else Oddity.PARAMS] if params is not UNSET else []
        params = UNSET
    taken = None if params is UNSET else memoryview(params)
    if _given(seen.result) or _given(seen.error):
        return Broken(None, "it has a method, and a result or an error", tuple(odd))
    if not _given(seen.id):
        odd += [Oddity.NULL_ID] if seen.id is not UNSET else []
        return Told(method, taken, tuple(odd))
    id = _echo(seen.id)
    if id is None and method.startswith("notifications/"):
        return Told(method, taken, (*odd, Oddity.NULL_ID))
    return Broken(None, "its id is no id", tuple(odd)) if id is None else Asked(id, method, taken, tuple(odd))


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


# --- lines that do not parse -----------------------------------------------------------------------------


def is_json_rpc(line: bytes) -> bool:
    """Whether a line that does not parse has `"jsonrpc": "2.0"` as a member of its own."""
    return _own_member(line, b"jsonrpc", _VERSION) is not None


def recover_id(line: bytes) -> Id | None:
    """The top-level `id` of a line that does not parse, so that the call it answers can end at once."""
    value = _own_member(line, b"id", _ID)
    if value is None:
        return None
    return int(value[1]) if value[1][:1] != b'"' else value[1][1:-1].decode(errors="replace")


def _own_member(line: bytes, name: bytes, value: re.Pattern[bytes]) -> re.Match[bytes] | None:
    """A member of the outermost object, where its value is legible.

    It is looked for where servers write it: near the beginning, or after the result, at the very end. To go
    through all of a long line would stop everybody for many seconds.
    """
    depth, key = 0, b'"%b"' % name
    for token in islice(_TOKENS.finditer(line, 0, _HEAD_BYTES), _TOKENS_LOOKED_AT):
        text = token[0]
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and text == key and (found := value.match(line, token.end())) is not None:
            return found
    last = _LAST[name].search(line, max(0, len(line) - _LAST_BYTES))
    if last is None or depth_at_end(line[: last.start()]) != 1:
        return None
    return value.match(line, last.end())


# --- notifications -----------------------------------------------------------------------------------------


class Progress(Struct):
    """The params of a progress notification: whose it is, and the rest of it as it came."""

    token: Id | None
    rest: dict[str, Raw]


def read_progress(params: memoryview | None) -> Progress:
    """Take a progress notification apart; one that cannot be read is nobody's."""
    try:
        rest = msgspec.json.decode(params or b"{}", type=dict[str, Raw])
        token = rest.pop("progressToken", None)
        return Progress(same_id(token), rest)
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
