"""The wire protocol between a client and the broker: the messages and their encoding.

A message is a ZeroMQ multipart message of one or two frames. The first frame, the *header*, is a small
msgpack array ``[version, kind, channel, id, *fields]``. The second frame, if any, is the *body*: JSON that
this module does not read. ``docs/protocol.md`` is the specification; golden vectors under ``tests/`` pin
every byte. Both ends share this module. It imports msgpack only.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from itertools import product
from typing import Any, NamedTuple

import msgpack

VERSION = 1
"""The version of the wire protocol that this module speaks."""

MANAGEMENT = "$broker"
"""The reserved service name of the broker itself (as in ZeroMQ RFC 8/MMI)."""

MAX_HEADER_BYTES = 64 * 1024
"""The largest header. `_meta` is the only part of it that a caller can make large."""

MESSAGE_OVERHEAD_BYTES = 256
"""The credit that a message costs besides its bytes, so that a flood of tiny messages is bounded too."""

WANTS_PROGRESS = 1
"""Request flag: the caller wants progress notifications."""

PROGRESS_EXTENDS = 2
"""Request flag: each progress notification starts the deadline anew."""

TAKES_QUESTIONS = 4
"""Request flag: the caller answers questions of the server, of the kinds that its `_meta` declares."""


class Kind(IntEnum):
    """The second element of every header."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    RESULT = 4
    ERROR = 5
    FAULT = 6
    NOTIFICATION = 7
    CANCEL = 8
    CREDIT = 9
    QUESTION = 10
    ANSWER = 11
    GOODBYE = 12


class Code(str, Enum):
    """The reasons for which the broker itself ends a request. (Errors of servers are `Error` messages.)"""

    MALFORMED = "malformed-frame"
    UNKNOWN_KIND = "unknown-kind"
    WIRE_VERSION = "wire-version"
    TOO_LARGE = "too-large"
    HELLO_FIRST = "hello-first"
    WRONG_INSTANCE = "wrong-instance"
    DUPLICATE_ID = "duplicate-id"
    INVALID_BODY = "invalid-body"
    META_IN_BODY = "meta-in-body"
    INVALID_PARAMS = "invalid-params"
    UNKNOWN_SERVER = "unknown-server"
    UNKNOWN_TOOL = "unknown-tool"
    UNKNOWN_METHOD = "unknown-method"
    METHOD_REFUSED = "method-refused"
    SERVER_DISABLED = "server-disabled"
    SERVER_STARTING = "server-starting"
    SERVER_DOWN = "server-down"
    SERVER_DIED = "server-died"
    INVALID_REPLY = "invalid-reply"
    BUSY = "busy"
    DEADLINE = "deadline-exceeded"
    CANCELLED = "cancelled"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal"


class Hello(NamedTuple):
    """The first message of a connection. `client` holds name, version and pid, for `status` only."""

    channel: int
    id: int
    versions: list[int]
    client: dict[str, Any]


class Welcome(NamedTuple):
    """The broker's reply to a hello. `instance` is new at every broker start; `limits` are in bytes."""

    channel: int
    id: int
    instance: str
    broker_version: str
    limits: dict[str, int]


class Request(NamedTuple):
    """An MCP request for `service`; its params, without `_meta`, are the body."""

    channel: int
    id: int
    instance: str
    service: str
    method: str
    timeout_ms: int | None
    flags: int
    meta: dict[str, Any] | None


class Result(NamedTuple):
    """The result of a request. The body is the server's `result`, as the bytes that it sent."""

    channel: int
    id: int


class Error(NamedTuple):
    """An error of the *server* for a request. The body is the JSON-RPC error object."""

    channel: int
    id: int


class Fault(NamedTuple):
    """An error of the *broker* for a request or a frame. `data` has the details, as the hint."""

    channel: int
    id: int
    code: str
    message: str
    data: dict[str, Any]


class Notification(NamedTuple):
    """A notification. `id` is the request that it is about, or 0; the body is its params."""

    channel: int
    id: int
    service: str
    method: str


class Cancel(NamedTuple):
    """The sender no longer wants the answer: to request `id`, or, from the broker, to question `id`."""

    channel: int
    id: int
    reason: str | None


class Credit(NamedTuple):
    """The sender has read so many bytes, as `cost` counts them; the receiver may send as many more."""

    channel: int
    id: int
    read_bytes: int


class Question(NamedTuple):
    """A server asks the client a question while it works on `request_id`. `id` identifies the question."""

    channel: int
    id: int
    request_id: int
    service: str
    method: str


class Answer(NamedTuple):
    """The answer to question `id`. The body is a result if `ok`, else a JSON-RPC error object."""

    channel: int
    id: int
    ok: bool


class Goodbye(NamedTuple):
    """The end of a channel or, if `channel` is 0, of the connection. Either side may send it.

    The broker sets `last_id` to the highest id of the requests that it has taken in on the connection, or 0.
    It has begun no request with a higher id. `None` (the field is left out) claims nothing.
    """

    channel: int
    id: int
    reason: str
    last_id: int | None = None


Message = (
    Hello
    | Welcome
    | Request
    | Result
    | Error
    | Fault
    | Notification
    | Cancel
    | Credit
    | Question
    | Answer
    | Goodbye
)


class WireError(Exception):
    """A malformed header. `channel` and `id` are 0 if they cannot be read."""

    def __init__(self, code: Code, message: str, *, channel: int = 0, id: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.channel = channel
        self.id = id


def _fields(*types: tuple[type, ...]) -> frozenset[tuple[type, ...]]:
    """Return all combinations of types that the fields of a kind may have."""
    return frozenset(product(*types))


_STR, _INT, _MAP, _LIST, _BOOL = (str,), (int,), (dict,), (list,), (bool,)
_MAYBE_STR, _MAYBE_INT, _MAYBE_MAP = (str, type(None)), (int, type(None)), (dict, type(None))

_SHAPES: dict[int, tuple[type[Any], frozenset[tuple[type, ...]]]] = {
    Kind.HELLO: (Hello, _fields(_LIST, _MAP)),
    Kind.WELCOME: (Welcome, _fields(_STR, _STR, _MAP)),
    Kind.REQUEST: (Request, _fields(_STR, _STR, _STR, _MAYBE_INT, _INT, _MAYBE_MAP)),
    Kind.RESULT: (Result, _fields()),
    Kind.ERROR: (Error, _fields()),
    Kind.FAULT: (Fault, _fields(_STR, _STR, _MAP)),
    Kind.NOTIFICATION: (Notification, _fields(_STR, _STR)),
    Kind.CANCEL: (Cancel, _fields(_MAYBE_STR)),
    Kind.CREDIT: (Credit, _fields(_INT)),
    Kind.QUESTION: (Question, _fields(_INT, _STR, _STR)),
    Kind.ANSWER: (Answer, _fields(_BOOL)),
    Kind.GOODBYE: (Goodbye, _fields(_STR) | _fields(_STR, _INT)),
}
"""kind → its class, and the types that its fields after channel and id may have"""

WITHOUT_BODY = frozenset({Hello, Welcome, Fault, Cancel, Credit, Goodbye})
"""The messages without a body. A `Request` may have one (its params); every other message has one."""

_PREFIXES: dict[type[Any], tuple[int, int]] = {
    shape: (VERSION, int(kind)) for kind, (shape, _) in _SHAPES.items()
}

_WELL_TYPED: dict[tuple[type, ...], dict[int, type[Any]]] = {}
"""The types of all elements of a header → its kind → what it decodes to."""

for _kind, (_shape, _all_types) in _SHAPES.items():
    for _types in _all_types:
        _WELL_TYPED.setdefault((int, int, int, int, *_types), {})[_kind] = _shape

_MAX_NUMBER = 2**63 - 1


def encode(message: Message) -> bytes:
    """Return the header frame of a message.

    Raises:
        WireError: msgpack cannot carry a value, or the header is above `MAX_HEADER_BYTES`.
    """
    fields = message[:-1] if type(message) is Goodbye and message.last_id is None else message
    try:
        header: bytes = msgpack.packb(_PREFIXES[type(message)] + fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(Code.MALFORMED, f"this cannot be sent: {error}") from None
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(
            Code.TOO_LARGE,
            f"the header is {len(header)} bytes and may be {MAX_HEADER_BYTES}; make `_meta` smaller",
        )
    return header


def decode(header: bytes) -> Message:
    """Return the message of a header frame.

    Raises:
        WireError: it is too large, malformed, of another version or of an unknown kind.
    """
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(Code.TOO_LARGE, f"the header is {len(header)} bytes and may be {MAX_HEADER_BYTES}")
    try:
        fields = msgpack.unpackb(header, use_list=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise WireError(Code.MALFORMED, f"the header is not msgpack: {reason}") from None
    if type(fields) is not list or not fields:
        raise WireError(Code.MALFORMED, "the header is not an array")
    by_kind = _WELL_TYPED.get(tuple(map(type, fields)))
    shape = by_kind.get(fields[1]) if by_kind is not None else None
    if shape is None or fields[0] != VERSION or not 0 <= fields[2] <= _MAX_NUMBER >= fields[3] >= 0:
        raise _misshapen(fields)
    message: Message = shape(*fields[2:])
    return message


def check_body(message: Message, body: bytes | None) -> None:
    """Check that a message has a body exactly if its kind has one.

    Raises:
        WireError: the body is missing, or there must not be one.
    """
    if (body is None) == (type(message) in WITHOUT_BODY) or type(message) is Request:
        return
    kind = type(message).__name__.lower()
    problem = f"a {kind} has no body" if body is not None else f"a {kind} needs a body"
    raise WireError(Code.MALFORMED, problem, channel=message.channel, id=message.id)


def _misshapen(fields: list[Any]) -> WireError:
    """Return why these elements are not a message."""
    version = fields[0]  # looked at first: of another version, nothing else can be relied on
    if type(version) is not int or version != VERSION:
        return WireError(
            Code.WIRE_VERSION, f"the header is of wire version {_shown(version)}, this end speaks {VERSION}"
        )
    if len(fields) < 4:
        return WireError(Code.MALFORMED, "the header has fewer than four elements")
    kind, channel, id = fields[1:4]
    if not (_is_number(channel) and _is_number(id)):
        return WireError(Code.MALFORMED, "channel and id must be integers from 0 to 2**63 - 1")
    shape, _ = (_SHAPES.get(kind) if type(kind) is int else None) or (None, None)
    if shape is None:
        return WireError(Code.UNKNOWN_KIND, f"there is no kind {_shown(kind)}", channel=channel, id=id)
    what = f"the fields of {shape.__name__.lower()} do not fit ({', '.join(shape._fields)})"
    return WireError(Code.MALFORMED, what, channel=channel, id=id)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _shown(value: object) -> str:
    """Return a number as text, and the type of any other value: its `repr` may be too long or fail."""
    return str(value) if type(value) is int else f"<{type(value).__name__}>"


def cost(header: bytes, body: bytes | memoryview | None) -> int:
    """Return the credit in bytes that a message costs."""
    size = len(header) + MESSAGE_OVERHEAD_BYTES
    return size if body is None else size + (body.nbytes if isinstance(body, memoryview) else len(body))
