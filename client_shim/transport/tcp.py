"""The probe of a ``tcp://`` endpoint: what listens there, and whether it wants keys.

It sends the beginning of a greeting of ZMTP and reads the other side's, which names the mechanism: NULL, or
CURVE where clients have keys. Then it leaves; the transport makes its own connection, to the address that was
found, so libzmq looks up no names. The probe may block for its whole time, so an event loop runs it in a
thread.

Source: ZMTP 3.1 (ZeroMQ RFC 37), "Greeting".
"""

from __future__ import annotations

import errno
import re
import socket
from time import monotonic

from client_shim.errors import (
    BrokerSilent,
    InvalidEndpoint,
    KeyMissing,
    NoBroker,
    NotABroker,
    WrongBrokerKey,
)
from client_shim.keys import VARIABLE

_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.-]+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)
_FORM = "write tcp://host:port, with an IPv6 address in brackets"

_OPENING = b"\xff\0\0\0\0\0\0\0\1\x7f\3"
"""The signature and the major version. The other side then sends its whole greeting."""

_GREETING_BYTES = 64
_SIGNATURE = slice(0, 10)
_MECHANISM = slice(12, 32)
_CURVE, _NULL = b"CURVE", b"NULL"

_LEAST_S = 0.001
"""A time limit of 0 would not wait at all, and nothing would be known of the other side."""


def probe_tcp(endpoint: str, has_keys: bool, wait_s: float, hold_s: float = 0.0) -> str:
    """Return the endpoint with its host as a number, if a broker listens there that takes such a client.

    Args:
        hold_s: how long the broker must keep the connection, in which nothing more is said; `wait_s` is the
            limit of both.

    Raises:
        InvalidEndpoint: it is not an endpoint.
        KeyMissing: the host is another machine, or the broker wants keys, and the client has none.
        NoBroker: the host is not known or not reached, nobody listens there, or the broker has too many
            connections.
        NotABroker, BrokerSilent: what listens there does not speak ZeroMQ, or says nothing.
        WrongBrokerKey: the client has keys, and the program there has none.
    """
    host, port = host_and_port(endpoint)
    if not has_keys and not is_loopback(host):
        raise _key_missing(
            endpoint, "a broker on another machine is reached with keys only, and this client has none"
        )
    until = monotonic() + wait_s
    with _connected(endpoint, host, port, until) as connection:
        mechanism = _mechanism(endpoint, connection, until)
        address = _numeric(connection)
        hold_s = min(hold_s, max(until - monotonic(), _LEAST_S))
        if mechanism == _CURVE and hold_s and not _is_kept(connection, hold_s):
            raise _no_broker(
                endpoint,
                "turned-away",
                "the broker there ends connections before their handshake, because it has too many",
                "see the lines connection.turned_away in its log, and `connections` under [limits] of its "
                "broker.toml",
            )
    if mechanism == _CURVE and not has_keys:
        raise _key_missing(endpoint, "the broker takes only clients with keys, and this one has none")
    if mechanism == _NULL and has_keys:
        raise WrongBrokerKey(
            f"{endpoint}: this client has keys, and the program there has none, so it cannot prove to be "
            "the broker",
            hint="set `server_key` in its broker.toml, correct the endpoint, or connect without keys over "
            "loopback",
        )
    if mechanism not in (_CURVE, _NULL):
        raise _not_a_broker(endpoint)
    return address


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of an endpoint.

    Raises:
        InvalidEndpoint: it names none.
    """
    found = _ADDRESS.fullmatch(endpoint.partition("://")[2])
    if found is None or not 0 < int(found["port"]) < 65536:
        raise InvalidEndpoint(f"{endpoint!r} names no host and port", hint=_FORM)
    return found["v6"] or found["host"], int(found["port"])


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, whatever a name server says. Other names are not looked up."""
    from ipaddress import ip_address  # costs 1 ms, which no other endpoint needs

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _connected(endpoint: str, host: str, port: int, until: float) -> socket.socket:
    """Return a connection to the first address of the host that takes it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _no_broker(
            endpoint,
            "unknown-host",
            f"the name {host} is not known here ({_said(error)})",
            "correct the host, or look at the name service; in a container the name of another one is known "
            "while that one runs, on a network that both are on",
        ) from None
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            failure = failure or error  # this machine has no IPv6, say
            continue
        try:
            connection.settimeout(max((until - monotonic()) / (len(found) - number), _LEAST_S))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error if not isinstance(failure, ConnectionRefusedError) else failure
        else:
            return connection
    if isinstance(failure, ConnectionRefusedError):
        raise _no_broker(
            endpoint,
            "nobody-listens",
            "nobody listens there",
            "start the broker there, and see in its log where it listens: `endpoint` in its broker.toml",
        )
    raise _no_broker(
        endpoint,
        "unreachable",
        f"the host cannot be reached ({_said(failure or TimeoutError())})",
        "see whether it is up, and whether a firewall or the network stands in between",
    )


def _mechanism(endpoint: str, connection: socket.socket, until: float) -> bytes:
    """Return the mechanism that the other side names in its greeting."""
    greeting = b""
    try:
        connection.sendall(_OPENING)
        while len(greeting) < _GREETING_BYTES and _is_signature(greeting[_SIGNATURE]):
            connection.settimeout(max(until - monotonic(), _LEAST_S))
            if not (more := connection.recv(_GREETING_BYTES - len(greeting))):
                raise ConnectionResetError
            greeting += more
    except TimeoutError:
        raise BrokerSilent(
            f"{endpoint}: a program took the connection and said nothing",
            hint="the broker there is stopped or stuck, or another program listens at this port",
        ) from None
    except OSError:
        raise _no_broker(
            endpoint,
            "closed",
            "the connection was closed as soon as it was made",
            "no broker listens behind the proxy or the forwarded port there, or it has too many connections",
        ) from None
    if not _is_signature(greeting[_SIGNATURE]):
        raise _not_a_broker(endpoint)
    return greeting[_MECHANISM].rstrip(b"\0")


def _is_kept(connection: socket.socket, hold_s: float) -> bool:
    """Return whether the other side keeps the connection so long."""
    connection.settimeout(hold_s)
    try:
        return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def _is_signature(greeting: bytes) -> bool:
    """Return whether this is the signature of ZMTP 2 or later, or its beginning."""
    return greeting[:1] in (b"", b"\xff") and (len(greeting) < 10 or bool(greeting[9] & 1))


def _numeric(connection: socket.socket) -> str:
    if connection.family != socket.AF_INET6:
        return "tcp://{}:{}".format(*connection.getpeername())
    host, port, _, scope = connection.getpeername()
    return f"tcp://[{host}%{scope}]:{port}" if scope else f"tcp://[{host}]:{port}"


def _key_missing(endpoint: str, why: str) -> KeyMissing:
    return KeyMissing(
        f"{endpoint}: {why}",
        hint=f"name a file of keys with {VARIABLE} or `keys=`: `mcp-broker keys new NAME` makes one where "
        "the broker runs",
    )


def _no_broker(endpoint: str, reason: str, why: str, hint: str) -> NoBroker:
    return NoBroker(
        f"no broker at {endpoint}: {why}", hint=hint, data={"reason": reason, "endpoint": endpoint}
    )


def _not_a_broker(endpoint: str) -> NotABroker:
    return NotABroker(
        f"{endpoint}: what listens there is not a broker, for it does not speak ZeroMQ",
        hint="correct the port: it is that of `endpoint` in broker.toml",
    )


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not error.strerror:
        return "it did not answer in time"
    return (isinstance(error, OSError) and error.strerror) or str(error)
