"""Sessions of legacy clients: ids that carry the session, and the short list of those that are over.

A session id is a signed token. It carries what `initialize` agreed on, so that it outlives a restart of the
gateway and costs nothing while its client is silent. It is bound to one server and to one token's name: with
another token, or at another server, it is unknown.

Source: 2025-11-25, Transports, "Session Management".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

_HEAD = struct.Struct(">16sQ")  # the session's own number, and when it was issued
_MAC_BYTES = 16
_STATE_BYTES = 65_536
KEY_BYTES = 32

ID_BYTES = 6144
"""A longer id would not fit into the headers that common proxies let through (8 KiB together)."""


class SealedSession(NamedTuple):
    """What a session id says.

    Attributes:
        number: unlike that of every other session.
        issued_s: when it was issued, in seconds since 1970.
        state: what the conversation needs to go on.
    """

    number: bytes
    issued_s: int
    state: bytes


class Seal:
    """Makes and reads session ids.

    Args:
        key: a secret of 32 bytes; whoever has it can make ids.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key of the sessions has {len(key)} bytes instead of {KEY_BYTES}")
        self._key = key

    def id_of(self, session: SealedSession, server: str, owner: str) -> str:
        """Return the id of a session.

        Raises:
            ValueError: the state is too large for a header.
        """
        body = _HEAD.pack(session.number, session.issued_s) + zlib.compress(session.state, 9)
        made = _text(self._mac(body, server, owner) + body)
        if len(made) > ID_BYTES:
            raise ValueError(f"the session's state makes an id of {len(made)} bytes; at most {ID_BYTES} fit")
        return made

    def read(self, session_id: str, server: str, owner: str) -> SealedSession | None:
        """Return the session; `None` where this gateway did not issue the id for this server and owner."""
        if len(session_id) > ID_BYTES:
            return None
        try:
            text = session_id.encode("ascii")
            token = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error, ValueError):
            return None
        if _text(token) != session_id:  # another spelling would be another session that DELETE does not end
            return None
        mac, body = token[:_MAC_BYTES], token[_MAC_BYTES:]
        if len(body) < _HEAD.size or not hmac.compare_digest(mac, self._mac(body, server, owner)):
            return None
        number, issued_s = _HEAD.unpack_from(body)
        state = zlib.decompressobj().decompress(body[_HEAD.size :], _STATE_BYTES)
        return SealedSession(number, issued_s, state)

    def _mac(self, body: bytes, server: str, owner: str) -> bytes:
        bound = b"".join(
            len(part).to_bytes(4, "big") + part for part in (server.encode(), owner.encode(), body)
        )
        return hmac.new(self._key, bound, hashlib.sha256).digest()[:_MAC_BYTES]


def _text(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


class Revocations:
    """The sessions that were ended by DELETE. Bounded: the oldest is forgotten first.

    An entry is a line `NUMBER ISSUED` in hexadecimal and decimal digits; a session that has expired anyway
    needs none.

    Args:
        limit: how many are kept.
        lifetime_s: how long after its issue a session is accepted at all.
    """

    def __init__(self, limit: int, lifetime_s: float) -> None:
        self._limit = limit
        self._lifetime_s = lifetime_s
        self._issued: dict[bytes, int] = {}
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._issued)

    def load(self, lines: Iterable[str], now_s: float) -> None:
        """Take what a file of an earlier run holds; a line that is damaged is skipped."""
        for line in lines:
            number, _, issued = line.strip().partition(" ")
            try:
                self._issued[bytes.fromhex(number)] = int(issued)
            except ValueError:
                continue
        self._trim(now_s)

    def add(self, session: SealedSession, now_s: float) -> str:
        """Revoke a session. Return the line to append to the file."""
        self._issued[session.number] = session.issued_s
        self._trim(now_s)
        return _line(session.number, session.issued_s)

    def is_over(self, session: SealedSession, now_s: float) -> bool:
        """Return whether a session was revoked. One that is too old is over, too."""
        return session.number in self._issued or now_s - session.issued_s > self._lifetime_s

    def lines(self) -> list[str]:
        """Return the whole list, as a file holds it."""
        return [_line(number, issued) for number, issued in self._issued.items()]

    def _trim(self, now_s: float) -> None:
        while len(self._issued) > self._limit:
            issued_s = self._issued.pop(next(iter(self._issued)))
            self.forgotten += now_s - issued_s <= self._lifetime_s


def _line(number: bytes, issued_s: int) -> str:
    return f"{number.hex()} {issued_s}\n"
