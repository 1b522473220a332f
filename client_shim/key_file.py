"""The files of CURVE keys: ZeroMQ certificates (ZPL, RFC 4), as `zmq.auth` and czmq read and write them.

    metadata
        name = "laptop"
    curve
        public-key = "…40 characters of Z85…"
        secret-key = "…"
        server-key = "…the broker's public key…"

A public certificate (`NAME.key`) has no `secret-key`; `server-key` stands in the file of a client only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PUBLIC, SECRET = ".key", ".key_secret"
"""How the names of files end: of a public certificate, and of one with the secret key."""

MAX_BYTES = 4096
"""The largest file of a key."""

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_LINE = re.compile(r"""\s*(name|public-key|secret-key|server-key)\s*=\s*(["']?)(.*?)\2\s*""")


class KeyFileError(ValueError):
    """A file is no certificate; the message says why."""


class KeyFile(NamedTuple):
    """The content of a file of keys, in Z85. A client connects with all three keys."""

    name: str
    public: str
    secret: str | None = None
    server: str | None = None

    def __repr__(self) -> str:
        secret = None if self.secret is None else "…"
        return f"KeyFile(name={self.name!r}, public={self.public!r}, secret={secret}, server={self.server!r})"


def is_key(text: str) -> bool:
    """Return whether a text is a key of 32 bytes in Z85 (RFC 32)."""
    digits = [_Z85.find(char) for char in text]
    groups = [digits[at : at + 5] for at in range(0, 40, 5)]
    return len(text) == 40 and min(digits) >= 0 and all(_value(group) < 2**32 for group in groups)


def _value(group: list[int]) -> int:
    value = 0
    for digit in group:
        value = value * 85 + digit
    return value


def parse(text: str) -> KeyFile:
    """Return the keys in the text of a certificate.

    Raises:
        KeyFileError: it has no public key, or a key is not valid. The message has no key.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None and found.setdefault(match[1], match[3]) != match[3]:
            raise KeyFileError(f"it has two lines {match[1]}")
    if "public-key" not in found:
        raise KeyFileError("it has no line public-key")
    for key in found.keys() - {"name"}:
        if not is_key(found[key]):
            raise KeyFileError(f"its {key} is not a key of 40 characters in Z85")
    return KeyFile(
        found.get("name", ""), found["public-key"], found.get("secret-key"), found.get("server-key")
    )


def text_of(keys: KeyFile) -> str:
    """Return the text of a certificate."""
    about = (
        f"# The keys of {keys.name}. Who has this file can connect as {keys.name}: keep it secret."
        if keys.secret
        else f"# The public key of {keys.name}."
    )
    lines = [about, "metadata", f'    name = "{keys.name}"', "curve", f'    public-key = "{keys.public}"']
    lines += [f'    secret-key = "{keys.secret}"'] if keys.secret else []
    lines += [f'    server-key = "{keys.server}"'] if keys.server else []
    return "\n".join([*lines, ""])
