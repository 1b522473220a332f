"""The errors that the client raises itself, in words, and the checks of a request before it is sent."""

from __future__ import annotations

import json
from typing import Any

import msgpack

from client_shim import errors, wire
from client_shim.text import shown

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer to a question, as at the broker."""

_HOPELESS = (
    errors.InvalidEndpoint,
    errors.KeyMissing,
    errors.KeyRefused,
    errors.WrongBrokerKey,
    errors.WrongWireVersion,
)

_FIT_BEFORE = (errors.InvalidKeys, errors.WrongBrokerKey)

_UNKNOWN = "whether it was carried out is unknown: look before you repeat it"
_ONLY_READS = "it only asks, so it can be repeated as soon as a broker runs again"
_NOT_BEGUN = "it was never sent to a server, so it can be repeated"
_SAID_CHARS = 1000
_REPORT = "client and broker disagree about the protocol: use the same release of mcp-broker on both sides"


# --- before anything is sent ---------------------------------------------------------------------------


def is_hopeless(error: errors.Unavailable, was_reached: bool) -> bool:
    """Return whether further attempts to connect cannot mend this error.

    A socket that this user may not open stays closed to it: a process keeps its groups. But where a broker
    was reached before, the next one may not have set the permissions of its socket yet, and a file of keys
    may be about to be replaced.
    """
    if was_reached and isinstance(error, _FIT_BEFORE):
        return False
    return isinstance(error, _HOPELESS) or (isinstance(error, errors.NotAllowed) and not was_reached)


def check_size(subject: str, body: bytes | None, limit: int | None) -> None:
    """Raise `TooLarge` if the broker would refuse this body for its size."""
    if body is not None and limit is not None and len(body) > limit:
        raise errors.TooLarge(
            f"{subject}: the params are {len(body)} bytes and the broker takes {limit}",
            hint="send less, or raise the limit of a message in broker.toml",
            data={"size_bytes": len(body), "limit_bytes": limit},
        )


def check_answer(body: bytes, limit: int | None) -> None:
    """Raise `TooLarge` if the broker would not pass on this answer to a question, for its size."""
    limit = MAX_ANSWER_BYTES if limit is None else min(limit, MAX_ANSWER_BYTES)
    if len(body) > limit:
        raise errors.TooLarge(
            f"the answer to the question is {len(body)} bytes and the broker takes {limit}",
            hint="answer with less, such as a reference to the data",
            data={"size_bytes": len(body), "limit_bytes": limit},
        )


def encode_request(request: wire.Request, subject: str) -> bytes:
    """Return the header of a request; raise `InvalidRequest` or `TooLarge` if it cannot be encoded."""
    try:
        return wire.encode(request)
    except wire.WireError as error:
        kind = errors.TooLarge if error.code is wire.Code.TOO_LARGE else errors.InvalidRequest
        raise kind(f"{subject}: {error}") from None


def outbox_full(subject: str, messages: int, size_bytes: int) -> errors.Busy:
    return errors.Busy(
        f"{subject}: {messages} requests ({size_bytes} bytes) of this process wait to be sent already",
        hint="the broker reads slowly: see `mcp-broker status`, and try again in a moment",
        data={"retry_after_s": 1.0},
    )


# --- the end of a call ---------------------------------------------------------------------------------


def lost(subject: str, error: errors.Unavailable, begun: bool, only_reads: bool) -> errors.BrokerLost:
    """Return the error of a call whose connection ended; `begun`: the broker may have begun the call."""
    hint = _ONLY_READS if only_reads else _UNKNOWN if begun else _NOT_BEGUN
    data = {**error.data, "begun": begun, "only_reads": only_reads}
    return errors.BrokerLost(f"{subject}: {error.message}", hint=hint, data=data)


def is_for_the_next(outcome: object) -> bool:
    """Return whether the broker has not begun the call of this outcome, so that the next broker may have it.

    A broker that shuts down sends a GOODBYE with the highest id that it has taken in, as HTTP/2 does (RFC
    9113, section 6.8). It has begun no call above that id.
    """
    if isinstance(outcome, errors.BrokerLost):
        return outcome.data.get("begun") is False
    refused = (errors.ShuttingDown, errors.WrongInstance)
    return isinstance(outcome, refused) and not outcome.outcome_unknown


def closed(subject: str, reason: str) -> errors.ClientClosed:
    """Return the error of a call whose client was closed."""
    return errors.ClientClosed(
        f"{subject}: its client was closed meanwhile ({reason})", hint="await your calls before you close"
    )


def overdue(subject: str, timeout_s: float, grace_s: float) -> errors.DeadlineExceeded:
    return errors.DeadlineExceeded(
        f"{subject}: no answer within {round(timeout_s, 3):g} s, and none {grace_s:g} s later",
        hint="the broker should have said so itself: see `mcp-broker status` and its log",
        data={"timeout_s": timeout_s},
    )


def unusable(subject: str, what: str) -> errors.InvalidReply:
    return errors.InvalidReply(f"{subject}: the broker sent {what}", hint=_REPORT)


def server_error(subject: str, body: bytes) -> errors.CallError:
    """Return the JSON-RPC error of a server, or `InvalidReply` where the body is not a JSON-RPC error.

    JSON-RPC 2.0, section 5.1: `code` is an integer, `message` a string. A code in quotes or as a whole float
    is taken for the integer that it is, and a message that is not a string is shown as it is.
    """
    try:
        error = json.loads(str(body, "utf-8"))
        code, message = int(error["code"]), error["message"]
        text = message if isinstance(message, str) else shown(message, _SAID_CHARS)
        raised = errors.ServerError(
            f"{subject}: {text} ({code})", data={**error, "code": code, "message": text}
        )
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
        return errors.InvalidReply(
            f"{subject}: the server's error is not a JSON-RPC error object: {shown(body[:200], 300)}",
            hint=errors.SERVER_AT_FAULT,
        )
    raised.raw = body
    return raised


# --- the end of a connection -----------------------------------------------------------------------------


def at(endpoint: str, error: errors.Unavailable) -> errors.Unavailable:
    """Return the error of an attempt or of a connection, whose message names the endpoint."""
    if endpoint not in error.message:
        error.message = f"{endpoint}: {error.message}"
        error.args = (error.message,)
    error.data.setdefault("endpoint", endpoint)
    return error


def no_connection(endpoint: str, problem: object) -> errors.Unavailable:
    """Return the error of an attempt that this process could not make."""
    return errors.Unavailable(
        f"no connection to {endpoint} can be made: {problem}",
        hint="see what this process has open, and its limits of files and threads (`ulimit -a`)",
        data={"endpoint": endpoint},
    )


def key_refused(public_key: str) -> errors.KeyRefused:
    """Return the error of a client whose key the broker has refused in the handshake (ZAP, RFC 27)."""
    return errors.KeyRefused(
        f"the broker refuses the key of this client, {public_key}: it was never authorized, or was revoked",
        hint="see `mcp-broker keys list` where the broker runs, and make a new file of keys there",
        data={"public_key": public_key},
    )


def wrong_broker_key(server_key: str) -> errors.WrongBrokerKey:
    """Return the error of a client with keys whose handshake the other side has ended without a word."""
    return errors.WrongBrokerKey(
        f"the broker there does not have the key {server_key}, which this client takes for the broker's",
        hint="correct the endpoint, or make this client a new file of keys where that broker runs",
        data={"server_key": server_key},
    )


def not_connected(endpoint: str, wait_s: float) -> errors.NoBroker:
    """Return the error of a call whose time ended before anything answered on the network."""
    return errors.NoBroker(
        f"{endpoint}: there was no connection within {wait_s:g} s",
        hint="see whether the host of the broker is up, and whether a firewall stands in between",
        data={"reason": "unreachable", "endpoint": endpoint},
    )


def silent(hello_timeout_s: float) -> errors.BrokerSilent:
    return errors.BrokerSilent(
        f"the broker did not answer the greeting within {hello_timeout_s:g} s, though its socket is open",
        hint="it is starting, stopped or stuck: see its log, the service's by `journalctl -u mcp-broker`",
    )


def cut_off(reason: str) -> errors.BrokerLost:
    return errors.BrokerLost(
        f"the connection to the broker was lost ({reason})",
        hint="see its log; the client reconnects by itself",
    )


def parted(reason: str) -> errors.BrokerLost:
    return errors.BrokerLost(
        f"the broker ended the connection ({reason})",
        hint="see its log; the client reconnects by itself",
        data={"reason": reason},
    )


def draining() -> errors.BrokerRefused:
    """Return the error of a call on a connection whose broker shuts down."""
    return errors.BrokerRefused(
        "the broker is shutting down and has not ended yet",
        hint="the next one answers: see `mcp-broker status`, and give the call more time",
        data={"fault": wire.Code.SHUTTING_DOWN.value},
    )


def too_many_wait(subject: str, messages: int, size_bytes: int) -> errors.Busy:
    return errors.Busy(
        f"{subject}: {messages} calls ({size_bytes} bytes) of this process wait for a broker already",
        hint="see whether one answers, by `mcp-broker status`, and try again then",
        data={"retry_after_s": 1.0},
    )


def refused(fault: wire.Fault) -> errors.BrokerRefused:
    return errors.BrokerRefused(
        f"the broker refused the connection: {fault.message}",
        hint=errors.hint_of(fault) or "see its log",
        data={**fault.data, "fault": fault.code},
    )


def wrong_version(theirs: Any) -> errors.WrongWireVersion:
    """Return the error for a broker that speaks `theirs`: a version, a list of versions, or anything else."""
    versions = [v for v in (theirs if isinstance(theirs, list) else [theirs]) if type(v) is int]
    spoken = ", ".join(map(str, versions)) or "another one"
    here, there = "the shim in this program (`pip install --upgrade mcp-shared-broker`)", "the broker"
    if not versions:
        advice = f"upgrade the older of the two: {here} or {there}"
    else:
        advice = f"upgrade {here if max(versions) > wire.VERSION else there}"
    return errors.WrongWireVersion(
        f"this client speaks version {wire.VERSION} of the wire protocol and the broker {spoken}",
        hint=advice,
        data={"client": wire.VERSION, "broker": versions},
    )


def version_of(header: bytes) -> Any:
    """Return the version of a header of any version: it is always the first element."""
    try:
        return msgpack.unpackb(header)[0]
    except (ValueError, TypeError, LookupError, RecursionError, msgpack.UnpackException):
        return None
