"""The errors that this package raises.

* `Unavailable` (also a `ConnectionError`): there is no broker, or it was lost.
* `CallError`: a call has failed, with a class for each `wire.Code`; `ServerError` is the MCP server's own.

``str()`` of each says what happened and what to do next. All can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client_shim.text import shown
from client_shim.wire import Code, Fault

SERVER_AT_FAULT = "this is the server's mistake: report it to its authors"
"""The hint of an error that only the author of a server can mend."""


class BrokerError(Exception):
    """The base class of all errors that this package raises on purpose.

    Attributes:
        code: a short stable string, for programs.
        message: what happened, for people.
        hint: what to do about it; empty if there is no useful advice.
        data: the details, as plain data.
    """

    default_code = "broker-error"
    outcome_unknown = False
    """Whether the call may have been carried out although it failed."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.data: dict[str, Any] = dict(data or {})

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __repr__(self) -> str:
        details = f"code={self.code!r}, hint={self.hint!r}, data={shown(self.data, 1000)}"
        return f"{type(self).__name__}({self.message!r}, {details})"


# --- there is no broker -----------------------------------------------------------------------------


class Unavailable(BrokerError, ConnectionError):
    """The broker cannot be reached, or was lost."""

    default_code = "unavailable"


class InvalidEndpoint(Unavailable, ValueError):
    """A client cannot connect to such an endpoint."""

    default_code = "invalid-endpoint"


class PathTooLong(InvalidEndpoint):
    """The path of the socket is longer than the kernel allows (107 bytes)."""

    default_code = "path-too-long"


class NotASocket(InvalidEndpoint):
    """The file at the path is not a listening stream socket."""

    default_code = "not-a-socket"


class UnsupportedPlatform(InvalidEndpoint):
    """This platform does not support the endpoint (Windows has no ``ipc://``)."""

    default_code = "unsupported-platform"


class NotABroker(InvalidEndpoint):
    """A program that does not speak ZeroMQ listens at the port."""

    default_code = "not-a-broker"


class InvalidKeys(InvalidEndpoint):
    """The file of keys cannot be read, or does not hold the keys of a client and its broker."""

    default_code = "invalid-keys"


class NoBroker(Unavailable):
    """No broker listens at the endpoint; ``data["reason"]`` has the reason, as in ``nobody-listens``."""

    default_code = "no-broker"


class NotAllowed(Unavailable, PermissionError):
    """This user may not open the broker's socket or a folder above it."""

    default_code = "not-allowed"


class KeyMissing(NotAllowed):
    """The broker takes only clients with keys, or is on another machine, and this client has no keys."""

    default_code = "key-missing"


class KeyRefused(NotAllowed):
    """The broker does not know the client's key: it was never authorized there, or was revoked."""

    default_code = "key-refused"


class WrongBrokerKey(Unavailable):
    """The program at the endpoint does not have the key that this client takes for the broker's."""

    default_code = "wrong-broker-key"


class WrongWireVersion(Unavailable):
    """Client and broker speak different versions of the wire protocol."""

    default_code = "wrong-wire-version"


class BrokerRefused(Unavailable):
    """The broker refused the hello. ``data["fault"]`` has the code."""

    default_code = "broker-refused"


class BrokerSilent(Unavailable):
    """A program listens at the endpoint and does not answer the hello."""

    default_code = "broker-silent"


class BrokerLost(Unavailable):
    """The connection was lost while a call was under way.

    The call may have been carried out, unless ``data["begun"]`` is false: then no broker has begun it. A call
    that only reads (``data["only_reads"]``) changes nothing.
    """

    default_code = "broker-lost"

    @property
    def outcome_unknown(self) -> bool:  # type: ignore[override]
        return bool(self.data.get("begun", True)) and not self.data.get("only_reads")


class ClientClosed(Unavailable):
    """The program has closed this client object."""

    default_code = "client-closed"


# --- the call has failed -----------------------------------------------------------------------------


_LONGEST_WAIT_S = 86_400.0
"""A day. A longer `retry_after_s` is a mistake, not advice."""


class CallError(BrokerError):
    """A call ended without a result."""

    default_code = "call-failed"

    @property
    def retry_after_s(self) -> float | None:
        """The seconds after which to try again; `None` if the broker gives no usable time."""
        value = self.data.get("retry_after_s")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        return float(value) if 0 <= value <= _LONGEST_WAIT_S else None


class UnknownServer(CallError):
    """The broker has no server of this name."""

    default_code = Code.UNKNOWN_SERVER.value


class UnknownTool(CallError):
    """The server has no tool of this name."""

    default_code = Code.UNKNOWN_TOOL.value


class ServerDisabled(CallError):
    """The server is disabled in the config, or the operator has stopped it."""

    default_code = Code.SERVER_DISABLED.value


class ServerStarting(CallError):
    """The server was not ready before the deadline of the call."""

    default_code = Code.SERVER_STARTING.value


class ServerDown(CallError):
    """The server is not running; it did not get the call."""

    default_code = Code.SERVER_DOWN.value


class ServerDied(CallError):
    """The server ended while the call was under way. The call may have been carried out."""

    default_code = Code.SERVER_DIED.value
    outcome_unknown = True


class Busy(CallError):
    """A limit is reached, of calls or of servers that run; no server got the call. See `retry_after_s`."""

    default_code = Code.BUSY.value


class DeadlineExceeded(CallError, TimeoutError):
    """The call took longer than its timeout and was cancelled. It may have been carried out."""

    default_code = Code.DEADLINE.value
    outcome_unknown = True


class CallCancelled(CallError):
    """The broker cancelled the call; this client had not."""

    default_code = Code.CANCELLED.value
    outcome_unknown = True


class InvalidRequest(CallError, ValueError):
    """The request cannot be sent as it is: its arguments, its `_meta`, its timeout."""

    default_code = Code.INVALID_PARAMS.value


class TooLarge(InvalidRequest):
    """The request is larger than the broker accepts."""

    default_code = Code.TOO_LARGE.value


class MethodRefused(CallError):
    """The broker does not pass this method on, or the server has no such method."""

    default_code = Code.METHOD_REFUSED.value


class InvalidReply(CallError):
    """The answer to the call is malformed."""

    default_code = Code.INVALID_REPLY.value
    outcome_unknown = True


class WrongInstance(CallError):
    """The call was meant for a broker that has ended. It was not carried out."""

    default_code = Code.WRONG_INSTANCE.value


class ShuttingDown(CallError):
    """The broker shuts down. It refused the call, or ended it: then ``data["outcome"]`` is "unknown"."""

    default_code = Code.SHUTTING_DOWN.value

    @property
    def outcome_unknown(self) -> bool:  # type: ignore[override]
        return self.data.get("outcome") == "unknown"


class InternalError(CallError):
    """The broker has a fault; its log has the traceback."""

    default_code = Code.INTERNAL.value
    outcome_unknown = True


class ServerError(CallError):
    """The MCP server answered with a JSON-RPC error."""

    default_code = "server-error"

    raw = b""
    """The JSON-RPC error object as the bytes that the server sent."""

    @property
    def rpc_code(self) -> int:
        """The `code` of the JSON-RPC error."""
        return int(self.data["code"])

    @property
    def rpc_message(self) -> str:
        """The `message` of the JSON-RPC error."""
        return str(self.data["message"])

    @property
    def rpc_data(self) -> Any:
        """The `data` of the JSON-RPC error, or `None`."""
        return self.data.get("data")


_KINDS: list[type[CallError]] = [TooLarge, *CallError.__subclasses__()]

_BY_CODE: dict[str, type[CallError]] = {
    Code.UNKNOWN_METHOD.value: MethodRefused,
    **dict.fromkeys(
        (
            Code.MALFORMED.value,
            Code.UNKNOWN_KIND.value,
            Code.HELLO_FIRST.value,
            Code.DUPLICATE_ID.value,
            Code.INVALID_BODY.value,
            Code.META_IN_BODY.value,
        ),
        InvalidRequest,
    ),
    **{kind.default_code: kind for kind in _KINDS if kind is not ServerError},
}
"""code → class. A code that only a newer broker has is a plain `CallError`."""


def from_fault(fault: Fault) -> CallError:
    """Return the exception for a fault that ends a call."""
    kind = _BY_CODE.get(fault.code, CallError)
    message = fault.message or f"the broker ended the call with the code {fault.code!r} and no message"
    return kind(message, code=fault.code, hint=hint_of(fault), data=fault.data)


def hint_of(fault: Fault) -> str:
    """Return the hint of a fault; empty if it has no hint that is text."""
    hint = fault.data.get("hint")
    return hint if isinstance(hint, str) else ""
