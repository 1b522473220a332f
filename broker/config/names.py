"""Valid names of servers, and how a name is written in a command, in TOML and in a file name.

Letters and digits of every script are valid. Invalid is what a reader cannot see or distinguish: control and
format characters (zero-width, bidirectional), letters without a shape, and spaces other than U+0020. Letters
of two scripts that look alike (Latin a, Cyrillic а) make two names.

Source: Unicode Standard Annex #44 (general categories), #15 (NFC), and `Default_Ignorable_Code_Point`.
"""

from __future__ import annotations

import re
import shlex
import unicodedata

MAX_CHARS = 64

MEND = (
    f"use up to {MAX_CHARS} letters and digits of any script, with - _ . and single spaces between them; "
    "no - first"
)

_COMPARED_CHARS = 1024
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_RANGES = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_WITHOUT_SHAPE = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0)).union(
    *(range(first, last + 1) for first, last in _RANGES)
)
"""Letters and marks without a shape: fillers and variation selectors."""


def normal(name: str) -> str:
    """Return the name as it is compared, in NFC: é is one character, however it was typed.

    A text that is much too long for a name is not normalised: a client may send it again and again.
    """
    return name if name.isascii() or len(name) > _COMPARED_CHARS else unicodedata.normalize("NFC", name)


def why_not(name: str) -> str | None:
    """Return why a `normal` name is invalid; `None` if it is valid."""
    if not name:
        return "it is empty"
    if len(name) > MAX_CHARS:
        return f"it has {len(name)} characters"
    if unfit := next((char for char in name if not _is_fit(char)), None):
        return f"it has the character {_shown(unfit)}"
    if name != name.strip():
        return "it has a space at an end"
    if "  " in name:
        return "it has two spaces together"
    if not any(_is_letter(char) for char in name):
        return "it has no letter and no digit"
    if name[0] == "-" or unicodedata.category(name[0])[0] == "M":
        return f"it begins with {_shown(name[0])}"
    return None


def derived(name: str) -> str:
    """Return a valid name for an invalid one: always the same, and different for every other name.

    >>> derived("github.com/acme/notes")
    'github.com-acme-notes-ccca9274'
    """
    from hashlib import sha256

    kept = "".join(char if _is_fit(char) and char != " " else "-" for char in normal(name))
    base = re.sub(r"-+", "-", kept).strip("-._")
    while base and unicodedata.category(base[0])[0] == "M":
        base = base[1:]
    digest = sha256(normal(name).encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{base[: MAX_CHARS - 9].rstrip('-._') or 'server'}-{digest}"


def imported(name: str) -> str | None:
    """Return the name that `mcp-broker import` gives a server with an invalid name."""
    return derived(name) if len(name) <= _COMPARED_CHARS and why_not(normal(name)) else None


def shell(name: str) -> str:
    """Return the name as an argument of a shell command."""
    is_word = all(char.isalnum() or char in "_.-" for char in name) and name[:1] != "-"
    return name if is_word and name else shlex.quote(name)


def toml_key(name: str) -> str:
    """Return the name as a TOML key, with escapes for invisible characters."""
    return name if _BARE_KEY.fullmatch(name) else f'"{"".join(map(_escaped, name))}"'


def _escaped(char: str) -> str:
    if char in '\\"':
        return f"\\{char}"
    code = ord(char)
    return char if char.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def file_name(name: str) -> str:
    """Return the name as a part of a file name that every file system accepts and no other server has."""
    if len(name) <= MAX_CHARS and _PLAIN.fullmatch(name):
        return name
    from hashlib import sha256

    return f"+{sha256(name.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _is_fit(char: str) -> bool:
    return char in "-_. " or (unicodedata.category(char)[0] in "LMN" and ord(char) not in _WITHOUT_SHAPE)


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LN"


def _shown(char: str) -> str:
    """Return a character in words, also if it is invisible."""
    about = unicodedata.name(char, "")
    seen = f"{char!r}, " if char.isprintable() and unicodedata.category(char)[0] != "Z" else ""
    return f"{seen}U+{ord(char):04X}{f' {about}' if about else ''}"
