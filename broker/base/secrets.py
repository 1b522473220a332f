"""Finds secrets, and masks them in text that is kept, logged, sent or shown.

Secrets are found in two ways. A `Mask` knows the values that a config gives its servers, and masks these
in any text, whole or in the forms in which programs repeat them. `redact` knows how secrets are written: it
masks what follows `Authorization:`, `Bearer`, `?token=`, `--api-key` or a user's name in an address. A mask
does both.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
"""A variable that the broker fills in; its name is no secret."""

STARS = "***"
SHORTEST = 6
"""The fewest characters of a secret that is masked everywhere: a shorter one occurs in too many words."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|API_?KEY|AUTHORIZATION|"
    r"(^|_)(KEYS?|PASS|PWD|PAT|AUTH|DSN|COOKIE|BEARER|CREDENTIALS?|WEBHOOK)(_|\Z)"
)
_PLAIN_NAME = re.compile(r"^PWD\Z|_(PATH|FILE|DIR|FOLDER|SOCK|HOST|PORT|NAME|TYPE|MODE)\Z")
_TOKEN = r"(?:sk-|sk_|ghp_|gho_|ghs_|ghu_|github_pat_|glpat-|xox[a-z]-|AKIA|AIza|hf_|npm_|pypi-|eyJ[\w-]+\.)"
"""The prefixes of the tokens of well-known services."""

_SECRET_VALUE = re.compile(rf"://[^/@\s:]*:[^/@\s]+@|^(?:{_TOKEN}|Bearer |Basic )")
_PLAIN_VALUE = re.compile(r"\s*|true|false|yes|no|on|off|null|none|\d{1,5}", re.IGNORECASE)
_OPTION = re.compile(r"-{0,2}([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
_HEADER = re.compile(r"([A-Za-z][\w-]*):\s*(.+)", re.DOTALL)
_WITHIN = re.compile(r"://[^/@\s:]*:([^/@\s]+)@|^(?:Bearer|Basic|Token) +(.+)", re.IGNORECASE)
"""The part of a value that is the secret itself, and may occur alone elsewhere."""

_EVERYWHERE = re.compile(
    r"[\d.,:+-]{1,12}"  # a number, a date, a port
    r"|(?:~|\.{1,2})?(?:/[a-z0-9._-]{1,32})+/?"  # a path: Base64 that begins with / has capitals
    r"|https?://[^\s@?]*"  # an address without a user or a query
    r"|(?i:true|false|test(?:s|ing|er)?|default|none|null|local(?:host)?|production|development|staging"
    r"|debug|info|warning|error|example|enabled?|disabled?|public|private|password|secret|token|change-?me"
    r"|admin|root|user|guest|server|client|broker|postgres|string|object|always|never|latest|stable)"
)
"""The values that occur in many texts without being a secret there. They are masked after a secret name only:
a log in which each `test` is masked is useless."""

_WORD = re.compile(r"[A-Za-z]+")

_PIECE_CHARS = 65_536
"""The characters that are searched without a turn of another thread."""


def is_secret(name: str, value: str) -> bool:
    """Return whether the value of a variable or an option looks like a secret, by its name or by itself."""
    if PLACEHOLDER.search(value) or _PLAIN_VALUE.fullmatch(value):
        return False
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").upper()
    named = _SECRET_NAME.search(name) and not _PLAIN_NAME.search(name)
    return bool(named or _SECRET_VALUE.search(value))


def is_word(value: str) -> bool:
    """Return whether it is one plain word, as the value of a variable without a secret name may be."""
    return bool(_WORD.fullmatch(value))


def secrets_among(words: Iterable[str]) -> list[str]:
    """Return the secrets among a program's arguments, and in addresses and headers among them.

    ``--token x``, ``API_KEY=x``, ``-H "X-Api-Key: x"``, ``https://host/?token=x``, a password in an address.
    """
    given = list(words)
    found = [value for name, value in _options(given) if is_secret(name, value)]
    found += [secret for word in given for secret in _said(word)]
    return list(dict.fromkeys(found))


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        yield "", word
        option, header = _OPTION.fullmatch(word), _HEADER.fullmatch(word)
        if option and option[2] is not None:
            yield option[1], option[2]
        elif option and word.startswith("-") and not following.startswith("-"):
            yield option[1], following
        if header and not header[2].startswith("//"):
            yield header[1], header[2]


# -- secrets by how they are written ---------------------------------------------------------------

_NAMES = r"token|secret|passwd|password|passphrase|api[_-]?key|access[_-]?key|client[_-]?secret|signature"
_VALUE = r"""(?:"[^"\n]{1,4096}"|'[^'\n]{1,4096}'|[^\s"'&,;)}\]<>|]+)"""
_WRITTEN = re.compile(
    # Authorization: Bearer x, Cookie: a=b; c=d: all that follows (RFC 9110, 11.6.2; RFC 6265, 4.2)
    r"""(?P<h>\b(?:proxy-)?authorization["']?\s{0,2}[:=]\s{0,2}["']?|\b(?:set-)?cookie["']?:\s{0,2}["']?)"""
    r"""[^"'\n]+"""
    # X-Api-Key: x, PRIVATE-TOKEN: x, "password": "x", password: x
    rf"""|(?<=\w-)(?P<x>(?:key|token|secret|auth)["']?\s{{0,2}}:(?!//)\s{{0,2}}){_VALUE}"""
    rf"""|(?P<c>(?:{_NAMES})["']?\s{{0,2}}:(?!//)\s{{0,2}}){_VALUE}"""
    # ?token=x, API_KEY=x, --password=x, password = x
    rf"""|(?P<e>(?:(?:{_NAMES})(?:_?\d{{1,3}})?["']?\s?=\s?|[?&](?:key|auth|sig|code|pwd|pass)=)){_VALUE}"""
    # --token x, also in a list of arguments
    rf"""|(?P<o>(?<![\w-])--?[\w-]{{0,40}}(?:{_NAMES}|-key|-auth)["',]{{0,2}}\s+["']?)[^\s"'-][^\s"']*"""
    r"|(?P<b>\bbearer\s+)(?=\S{0,64}\d|\S{16})[\w.~+/=-]{6,}"  # RFC 6750, 2.1
    r"|(?P<u>://[^/@\s:]{0,256}:)[^/@\s]{1,1024}(?=@)|(?P<t>://)[^/@\s:]{16,1024}(?=@)"  # RFC 3986, 3.2.1
    rf"|(?P<k>\b{_TOKEN})[\w.-]{{6,}}",
    re.IGNORECASE,
)
_HINTS = (
    *("token", "secret", "passw", "passphrase", "apikey", "api_key", "api-key", "access", "-key", "-auth"),
    *("authorization", "cookie", "bearer", "signature"),
    *(f"{mark}{name}=" for mark in "?&" for name in ("key", "auth", "sig", "code", "pwd", "pass")),
    *("sk-", "sk_", "ghp_", "gho_", "ghs_", "ghu_", "github_pat_", "glpat-", "xox", "akia", "aiza", "hf_"),
    *("npm_", "pypi-", "eyj"),
)
"""One of these, in small letters, or an address with a user stands in every text that `_WRITTEN` finds
something in. Most texts have no candidate, and looking for one takes a twentieth of the time."""


def redact(text: str) -> str:
    """Return the text with stars for everything that is written as a secret is, whatever its value."""
    small = text.lower()
    if any(hint in small for hint in _HINTS) or ("://" in small and "@" in small):
        return _WRITTEN.sub(_starred, text)
    return text


def _parts(found: re.Match[str]) -> tuple[str, str]:
    """Return the text that announces a secret, and the secret."""
    before: str = found[found.lastgroup or 0]
    return before, found[0][len(before) :]


def _starred(found: re.Match[str]) -> str:
    before, value = _parts(found)
    plain = value.strip("\"'")
    if STARS in value or plain.startswith("${") or _PLAIN_VALUE.fullmatch(plain):
        return found[0]
    if found.lastgroup == "c" and not _is_strong(before, plain):
        return found[0]
    quote = value[0] if value[0] in "\"'" and value[-1] == value[0] else ""
    return f"{before}{quote}{STARS}{quote}"


def _is_strong(before: str, value: str) -> bool:
    """Return whether a value follows the colon: `token: expected` is prose, `token: a1b2c3` is not."""
    named = "-" in before or before.rstrip(": ").endswith(("'", '"'))
    return named or bool(re.search(r"\d|^[\w+/=-]{12}", value))


def _said(text: str) -> Iterator[str]:
    """Yield the values that `redact` masks."""
    for found in _WRITTEN.finditer(text):
        if _starred(found) != found[0]:
            yield _parts(found)[1].strip("\"'")


# -- secrets by their value ------------------------------------------------------------------------


class Mask:
    """Masks these values, and everything that is written as a secret is.

    Args:
        names: the names that must stay legible, such as those of servers: a value in one is not masked.
    """

    def __init__(self, secrets: Iterable[str] = (), names: Collection[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret) if can_be_told(form)}
        forms = {form for form in forms if not any(form in name for name in names)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self.reach = max((len(form.encode(errors="replace")) for form in forms), default=0)
        """The bytes of the longest value: this much of the end of a cut text may be half a secret."""

    def __call__(self, text: str) -> str:
        """Return the text with the secrets masked."""
        return redact(self._pattern.sub(STARS, text) if self._pattern else text)

    def finds(self, text: str) -> bool:
        """Return whether one of the values stands in the text. Other threads have turns meanwhile."""
        if self._pattern is None:
            return False
        pieces = range(0, len(text), _PIECE_CHARS)
        return any(self._pattern.search(text, at, at + _PIECE_CHARS + self.reach) for at in pieces)


def can_be_told(form: str) -> bool:
    """Return whether a secret can be told from ordinary text everywhere."""
    return len(form) >= SHORTEST and not _EVERYWHERE.fullmatch(form)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield secret.encode(errors="surrogateescape").decode(errors="replace")  # of bytes that are no UTF-8
    for found in _WITHIN.finditer(secret):
        yield found[1] or found[2]
    lines = [line.strip() for line in secret.splitlines()]
    yield from lines if len(lines) > 1 else ()


class Secrets:
    """All secrets that the broker knows, and the one mask that every output uses.

    The secrets of a server are put in before its process is started.

    Args:
        servers: the names of all servers, also of those without secrets.
    """

    def __init__(self, servers: Collection[str] = ()) -> None:
        self._servers = servers
        self._of: dict[str, tuple[str, ...]] = {}
        self._mask = Mask()

    def put(self, server: str, values: Iterable[str]) -> None:
        """Replace the known secrets of one server."""
        self._of[server] = tuple(values)
        known = (value for of_one in self._of.values() for value in of_one)
        self._mask = Mask(known, {*self._servers, *self._of})

    def __call__(self, text: str) -> str:
        """Return the text with the secrets masked."""
        return self._mask(text)

    def throughout(self, value: Any) -> Any:
        """Return plain data with the secrets masked in each string, except for keys."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {key: self.throughout(item) for key, item in value.items()}
        return [self.throughout(item) for item in value] if isinstance(value, (list, tuple)) else value
