"""Where a client looks for its broker, and what it finds there."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from typing import NamedTuple

import zmq

from client_shim import key_file, log
from client_shim.errors import InvalidKeys
from client_shim.keys import VARIABLE, ClientKeys
from client_shim.transport import curve
from client_shim.transport.endpoint import probe

_MAKE = "make a file of keys where the broker runs, with `mcp-broker keys new NAME`"


class BrokerAddress(NamedTuple):
    """The endpoint of a broker, and the keys for it, or their file."""

    endpoint: str
    keys: str | ClientKeys | None = None


class FoundBroker(NamedTuple):
    """What listens at an address: the endpoint for libzmq, and the keys."""

    endpoint: str
    keys: ClientKeys | None = None


def find_broker(address: BrokerAddress, wait_s: float, hold_s: float = 0.0) -> FoundBroker:
    """Return where a broker listens that takes this client. The file of its keys is read each time.

    Args:
        wait_s: how long the probe may wait, if it may at all.
        hold_s: how long the broker must keep the connection of the probe over ``tcp://``.

    Raises:
        Unavailable: it cannot be reached; the error says why.
    """
    keys = load_keys(address.keys)
    endpoint = probe(address.endpoint, has_keys=keys is not None, wait_s=wait_s, hold_s=hold_s)
    return FoundBroker(endpoint, keys)


def load_keys(source: str | ClientKeys | None) -> ClientKeys | None:
    """Return the keys of a `keys_source`, checked.

    Raises:
        InvalidKeys: the file cannot be read, or these are not the keys of a client.
    """
    if isinstance(source, str):
        return _checked(_read(source), source)
    return source and _checked(source, "the keys of this client")


def _read(path: str) -> ClientKeys:
    try:
        with open(path, encoding="utf-8") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                _warn_of_readers(path)
            found = key_file.parse(file.read(key_file.MAX_BYTES))
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            error = ValueError("it is not text")
        raise InvalidKeys(
            f"the keys in {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            hint=f"name the right file with {VARIABLE} or `keys=`, or {_MAKE}",
            data={"path": path},
        ) from None
    return ClientKeys(found.server or "", found.public, found.secret or "")


@lru_cache
def _warn_of_readers(path: str) -> None:
    """Log once that every user of this machine may connect with these keys."""
    log.warn(
        f"everybody may read the keys in {path}; run `chmod o= {path}`, and {_MAKE} if others have read it"
    )


def _checked(keys: ClientKeys, where: str) -> ClientKeys:
    """Return the keys, if libzmq can use them: it would refuse to connect, or be refused, without a word."""
    for name, key in zip(("server-key", "public-key", "secret-key"), keys, strict=True):
        if not key_file.is_key(key):
            state = "is not a key of 40 characters in Z85" if key else "is missing"
            raise InvalidKeys(f"{where}: its {name} {state}", hint=_MAKE)
    try:
        is_pair = curve.public_of(keys.secret) == keys.public
    except zmq.ZMQError as error:  # a libzmq without CURVE
        raise InvalidKeys(
            f"{where}: this libzmq has no encryption: {error.strerror}",
            hint="install the wheel of pyzmq from the package index",
        ) from None
    if not is_pair:
        raise InvalidKeys(f"{where}: its public-key does not belong to its secret-key", hint=_MAKE)
    return keys
