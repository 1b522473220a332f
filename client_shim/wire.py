"""The wire protocol between a client and the broker: what travels in the frames.

A message is a ZeroMQ multipart message of one or two frames. The first frame, the *header*, is a
small msgpack array ``[version, kind, channel, id, *fields]``; the second, where there is one, is
the *body*: JSON that this layer never looks at. ``docs/protocol.md`` is the specification, and the
golden vectors under ``tests/`` pin every byte.

The module is shared by both ends. It imports msgpack and nothing else.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from itertools import product
from typing import Any, NamedTuple

import msgpack

VERSION = 1
"""The version of the wire protocol that this module speaks."""

MANAGEMENT = "$broker"
"""The reserved service name under which the broker itself answers (as ZeroMQ RFC 8/MMI)."""

MAX_HEADER_BYTES = 64 * 1024
"""A header above this size is refused; `_meta` is the only part of it that a caller can grow."""

MESSAGE_OVERHEAD_BYTES = 256
"""What a message costs in credit beside its bytes, so that a flood of tiny ones is bounded too."""

WANTS_PROGRESS = 1
"""Request flag: the caller wants progress notifications."""

PROGRESS_EXTENDS = 2
"""Request flag: each progress notification starts the deadline anew."""


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
    """Why the broker ended a request itself. A server's own errors travel as `Error`, not as these."""

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
    """A request ended well; the body is the server's `result`, as the bytes it came in."""

    channel: int
    id: int


class Error(NamedTuple):
    """A request ended with an error of the *server*; the body is its JSON-RPC error object."""

    channel: int
    id: int


class Fault(NamedTuple):
    """A request, or a frame, was ended by the *broker*. `data` has the subject, the hint and the like."""

    channel: int
    id: int
    code: str
    message: str
    data: dict[str, Any]


class Notification(NamedTuple):
    """Something said without being asked. `id` is the request it belongs to, or 0; the body its params."""

    channel: int
    id: int
    service: str
    method: str


class Cancel(NamedTuple):
    """The caller no longer wants the answer to request `id`."""

    channel: int
    id: int
    reason: str | None


class Credit(NamedTuple):
    """This end has read so many bytes, as `cost` counts them; the other end may send as many more."""

    channel: int
    id: int
    read_bytes: int


class Question(NamedTuple):
    """A server asks something of the client while it works on `request_id`. `id` numbers the question."""

    channel: int
    id: int
    request_id: int
    service: str
    method: str


class Answer(NamedTuple):
    """The reply to question `id`; `ok` tells whether the body is a result or a JSON-RPC error object."""

    channel: int
    id: int
    ok: bool


class Goodbye(NamedTuple):
    """The end of a channel, or, where `channel` is 0, of the whole connection. Either side may say it.

    `last_id` is the broker's: the highest id of the requests that it has taken in on the connection, 0 if it
    took in none. It has begun no request with a higher id. `None` (the field is left out) claims nothing.
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
    """A header that cannot be used. `code` says why, `channel` and `id` what it was about, where legible."""

    def __init__(self, code: Code, message: str, *, channel: int = 0, id: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.channel = channel
        self.id = id


def _fields(*types: tuple[type, ...]) -> frozenset[tuple[type, ...]]:
    """Every series of types that the fields of a kind may have; a number of fields is part of that."""
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
"""What each kind decodes to, and the types that its fields after channel and id may have."""

WITHOUT_BODY = frozenset({Hello, Welcome, Fault, Cancel, Credit, Goodbye})
"""The messages of one frame. A `Request` may have a body (its params); every other message has one."""

_PREFIXES: dict[type[Any], tuple[int, int]] = {
    shape: (VERSION, int(kind)) for kind, (shape, _) in _SHAPES.items()
}

_WELL_TYPED = {
    (kind, int, int, int, int, *types): shape
    for kind, (shape, all_types) in _SHAPES.items()
    for types in all_types
}
"""The kind and the types of all elements of a header → what it decodes to."""

_MAX_NUMBER = 2**63 - 1


def encode(message: Message) -> bytes:
    """The header frame of `message`.

    Raises:
        WireError: a value that msgpack cannot carry, or a header above `MAX_HEADER_BYTES`.
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
    """The message whose header frame this is.

    Raises:
        WireError: not msgpack, another version, an unknown kind, fields that do not fit, or too large.
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
    types = tuple(map(type, fields))
    shape = _WELL_TYPED.get((fields[1], *types)) if types[:2] == (int, int) else None
    if shape is None or fields[0] != VERSION or not 0 <= fields[2] <= _MAX_NUMBER >= fields[3] >= 0:
        raise _misshapen(fields)
    message: Message = shape(*fields[2:])
    return message


def check_body(message: Message, body: bytes | None) -> None:
    """Whether a message has a body exactly where its kind has one.

    Raises:
        WireError: it has one too many, or lacks it.
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
    what = f"the fields of {shape.__name__.lower()} do not fit {_signature(shape)}"
    return WireError(Code.MALFORMED, what, channel=channel, id=id)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _shown(value: object) -> str:
    """What the other side sent: but for a number it may be of any length, and nest too deep for `repr`."""
    return str(value) if type(value) is int else f"<{type(value).__name__}>"


def _signature(shape: type[Any]) -> str:
    names: tuple[str, ...] = shape._fields
    return f"({', '.join(names)})"


def cost(header: bytes, body: bytes | memoryview | None) -> int:
    """What a message takes from the credit of its connection and direction, in bytes."""
    size = len(header) + MESSAGE_OVERHEAD_BYTES
    return size if body is None else size + (body.nbytes if isinstance(body, memoryview) else len(body))
