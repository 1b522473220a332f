"""The JSON-RPC messages of an MCP client: read strictly, and built by splicing bytes.

A message is decoded as far as the gateway must look into it. Ids keep their JSON type, params and results
keep their bytes: numbers that Python cannot hold and members that nobody knows pass unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from broker.base.text import check_utf8, clip

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

NO_ID = b"null"
"""The id of an error whose request has no legible id."""


class ClientRequest(Struct, frozen=True):
    """A request of the client. `params` are without `_meta`; `token` is its progress token as JSON text.

    `has_answers`: it has `_meta`, and answers to an earlier `input_required`.
    """

    id: bytes
    """The id as JSON text: equal for equal ids, and of the type that the client gave."""
    method: str
    params: bytes | None = None
    meta: dict[str, Any] = {}
    token: bytes | None = None
    has_answers: bool = False


class ClientNotification(Struct, frozen=True):
    """A notification of the client."""

    method: str
    params: bytes | None = None


class ClientResponse(Struct, frozen=True):
    """The client's answer to a request of the server: exactly one of `result` and `error` is there."""

    id: bytes
    result: bytes | None = None
    error: bytes | None = None


class InvalidMessage(Struct, frozen=True):
    """A message that cannot be used, and the JSON-RPC error that says why. `id` is `NO_ID` if illegible."""

    id: bytes
    code: int
    message: str


Incoming = ClientRequest | ClientNotification | ClientResponse | InvalidMessage


class _Envelope(Struct, gc=False):
    jsonrpc: Literal["2.0"]
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _WithId(Struct, gc=False):
    id: Raw | UnsetType = UNSET


class _WithToken(Struct, gc=False):
    token: Raw | UnsetType = field(default=UNSET, name="progressToken")


class _Named(Struct, gc=False):
    name: Raw | UnsetType = UNSET
    uri: Raw | UnsetType = UNSET


class _Cancelled(Struct, gc=False):
    request_id: Raw | UnsetType = field(default=UNSET, name="requestId")


_envelope = msgspec.json.Decoder(_Envelope)
_with_token = msgspec.json.Decoder(_WithToken)
_with_id = msgspec.json.Decoder(_WithId)
_members = msgspec.json.Decoder(dict[str, Raw])
_object = msgspec.json.Decoder(dict[str, Any])
_named = msgspec.json.Decoder(_Named)
_cancelled = msgspec.json.Decoder(_Cancelled)
_scalar = msgspec.json.Decoder(int | str)
_string = msgspec.json.Decoder(str)
encode = msgspec.json.Encoder().encode

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")

MAX_ID_BYTES = 1024
"""The longest id or progress token that is accepted: the gateway holds it while the request is open."""


def read(message: bytes) -> Incoming:
    """Return what a client's message is. Never raises: a message that cannot be used is `InvalidMessage`."""
    try:
        seen = _envelope.decode(message)
        if not message.isascii():
            check_utf8(message)
    except msgspec.ValidationError:
        return _not_json_rpc(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = str(error) or type(error).__name__
        return InvalidMessage(NO_ID, PARSE_ERROR, f"the message is not JSON: {clip(why)}")
    return _classify(seen)


def _not_json_rpc(message: bytes) -> InvalidMessage:
    """JSON that is no JSON-RPC 2.0 message."""
    if message.lstrip().startswith(b"["):
        why = "MCP has no batches since the revision 2025-06-18; send each message on its own"
        return InvalidMessage(NO_ID, INVALID_REQUEST, why)
    try:
        id = _id(_with_id.decode(message).id)
    except (msgspec.MsgspecError, RecursionError):
        id = None
    why = 'the message is not an object with `"jsonrpc": "2.0"`'
    return InvalidMessage(id or NO_ID, INVALID_REQUEST, why)


def _classify(seen: _Envelope) -> Incoming:
    id = _id(seen.id)
    if seen.method is UNSET:
        return _response(seen, id)
    method, params = _text(seen.method), _params(seen.params)
    if seen.id is not UNSET and id is None:
        return InvalidMessage(NO_ID, INVALID_REQUEST, "`id` is neither a string nor an integer")
    if method is None:
        return InvalidMessage(id or NO_ID, INVALID_REQUEST, "`method` is not a string")
    if seen.result is not UNSET or seen.error is not UNSET:
        return InvalidMessage(id or NO_ID, INVALID_REQUEST, "it has a method, and a result or an error")
    if params is not None and not params.startswith(b"{"):
        return InvalidMessage(id or NO_ID, INVALID_REQUEST, "`params` is not an object")
    return ClientNotification(method, params) if id is None else _request(id, method, params)


def _params(raw: Raw | UnsetType) -> bytes | None:
    """The params on one line; null counts as absent."""
    if raw is UNSET or bytes(memoryview(raw)[:1]) == b"n":
        return None
    return bytes(raw).translate(_ONE_LINE)


def _request(id: bytes, method: str, params: bytes | None) -> ClientRequest | InvalidMessage:
    """A request with its `_meta` taken out of the params."""
    if params is None:
        return ClientRequest(id, method)
    try:
        members = _members.decode(params)
        if "_meta" not in members:
            return ClientRequest(id, method, params)
        raw_meta = members.pop("_meta")
        meta, token = _object.decode(raw_meta), _with_token.decode(raw_meta).token
        meta.pop("progressToken", None)
    except (msgspec.MsgspecError, RecursionError) as error:
        return InvalidMessage(id, INVALID_PARAMS, f"`_meta` cannot be read: {clip(str(error))}")
    if token is not UNSET and _id(token) is None:
        return InvalidMessage(id, INVALID_PARAMS, "`progressToken` is neither a string nor an integer")
    has_answers = "requestState" in members or "inputResponses" in members
    return ClientRequest(
        id, method, join(members), meta, None if token is UNSET else bytes(token), has_answers
    )


def _response(seen: _Envelope, id: bytes | None) -> ClientResponse | InvalidMessage:
    if id is None:
        return InvalidMessage(NO_ID, INVALID_REQUEST, "the message has neither a method nor a legible id")
    if (seen.result is UNSET) == (seen.error is UNSET):
        why = "the message has no method, and not exactly one of result and error"
        return InvalidMessage(NO_ID, INVALID_REQUEST, why)
    if seen.result is not UNSET:
        return ClientResponse(id, result=bytes(seen.result).translate(_ONE_LINE))
    return ClientResponse(id, error=bytes(seen.error).translate(_ONE_LINE))  # type: ignore[arg-type]


def _id(raw: Raw | UnsetType) -> bytes | None:
    """An id in the one spelling that equal ids share; `None` where it is not a string or integer."""
    if raw is UNSET or len(memoryview(raw)) > MAX_ID_BYTES:
        return None
    try:
        id = _scalar.decode(raw)
    except msgspec.MsgspecError:
        return None
    return b"%d" % id if isinstance(id, int) else encode(id)


def _text(raw: Raw | UnsetType) -> str | None:
    if raw is UNSET or bytes(memoryview(raw)[:1]) != b'"':
        return None
    return _string.decode(raw)


def name_of(params: bytes | None) -> str | None:
    """The tool or prompt that the params of a request name, or else the uri of its resource."""
    try:
        seen = _named.decode(params or b"{}")
        return _text(seen.uri) if seen.name is UNSET else _text(seen.name)
    except (msgspec.MsgspecError, RecursionError):
        return None


def with_one_name(params: bytes | None) -> bytes | None:
    """Return params in which each member stands once, the last one of several, and none of another case than
    `name` could be taken for it: what was checked is what the server reads."""
    members = members_of(params or b"")
    if members is None:
        return params
    return join({key: raw for key, raw in members.items() if key == "name" or key.casefold() != "name"})


def cancelled_id(params: bytes | None) -> bytes | None:
    """The id of the request that `notifications/cancelled` names; `None` where it is illegible."""
    try:
        return _id(_cancelled.decode(params or b"{}").request_id)
    except (msgspec.MsgspecError, RecursionError):
        return None


def members_of(text: bytes) -> dict[str, Raw] | None:
    """The members of a JSON object, each as the bytes it came in; `None` where it is not an object."""
    try:
        return _members.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


def join(members: Mapping[str, Raw | bytes]) -> bytes:
    """The JSON object with these members."""
    return b"{%b}" % b",".join(b"%b:%b" % (encode(name), value) for name, value in members.items())


# --- what the gateway says -------------------------------------------------------------------------------


def result_message(id: bytes, result: bytes) -> bytes:
    """The answer to a request, on one line: a raw line end in the result is white space of JSON."""
    if b"\r" in result or b"\n" in result:
        result = result.translate(_ONE_LINE)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, result)


def error_message(id: bytes, code: int, message: str, data: Any = None) -> bytes:
    """The refusal of a request."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return error_of(id, encode(error))


def error_of(id: bytes, error: bytes) -> bytes:
    """The refusal of a request by an error object that is JSON already, on one line."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id, error.translate(_ONE_LINE))


def request_message(id: bytes, method: str, params: bytes) -> bytes:
    """A request of the server."""
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (id, encode(method), params)


def notification_message(method: str, params: bytes) -> bytes:
    """A notification of the server."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encode(method), params.translate(_ONE_LINE))
