"""What looks like a secret, and its removal from words that are kept, logged or shown."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
"""A variable that is filled in; what stands there is no secret."""

STARS = "***"
SHORTEST = 4
"""Characters; what is shorter stands in too many words to be taken out of them."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|API_?KEY|"
    r"(^|_)(KEYS?|PASS|PWD|PAT|AUTH|DSN|COOKIE|BEARER|CREDENTIALS?|WEBHOOK)(_|$)"
)
_PLAIN_NAME = re.compile(r"^PWD\Z|_(PATH|FILE|DIR|FOLDER|SOCK|HOST|PORT|NAME|TYPE|MODE)\Z")
_SECRET_VALUE = re.compile(
    r"://[^/@\s:]*:[^/@\s]+@"  # a password in an address
    r"|^(sk-|sk_|ghp_|gho_|github_pat_|glpat-|xox[a-z]-|AKIA|AIza|hf_|eyJ[\w-]+\.|Bearer )"
)
_PLAIN_VALUE = re.compile(r"\s*|true|false|yes|no|on|off|\d{1,5}", re.IGNORECASE)
_OPTION = re.compile(r"-{0,2}([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
_WITHIN = re.compile(r"://[^/@\s:]*:([^/@\s]+)@|^Bearer (.+)")
"""The part of a value that is the secret itself, and may stand alone elsewhere."""


def is_secret(name: str, value: str) -> bool:
    """Whether the value of a variable or an option looks like a secret, by its name or by itself."""
    if PLACEHOLDER.search(value) or _PLAIN_VALUE.fullmatch(value):
        return False
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").upper()
    named = _SECRET_NAME.search(name) and not _PLAIN_NAME.search(name)
    return bool(named or _SECRET_VALUE.search(value))


def secrets_among(words: Iterable[str]) -> list[str]:
    """Of a program's arguments what looks secret: `--token x`, `API_KEY=x`, a password in an address."""
    return [value for name, value in _options(list(words)) if is_secret(name, value)]


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        yield "", word
        option = _OPTION.fullmatch(word)
        if option and option[2] is not None:
            yield option[1], option[2]
        elif option and word.startswith("-") and not following.startswith("-"):
            yield option[1], following


class Mask:
    """Puts stars in the place of secrets, whole or in the forms in which programs repeat them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self.reach = max((len(form.encode(errors="replace")) for form in forms), default=0)
        """Bytes of the longest: of a text that was cut off, so much of its end may be half a secret."""

    def __call__(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(STARS, text) if self._pattern else text


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield secret.encode(errors="surrogateescape").decode(errors="replace")  # of bytes that are no UTF-8
    for found in _WITHIN.finditer(secret):
        yield found[1] or found[2]
    lines = [line.strip() for line in secret.splitlines()]
    yield from lines if len(lines) > 1 else ()
