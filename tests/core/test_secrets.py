"""What looks like a secret, and that none is left in words that are kept, logged or shown."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.secrets import SHORTEST, Mask, is_secret, secrets_among

SECRETS = st.text(min_size=SHORTEST, max_size=40)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("API_KEY", "abcdef", True),
        ("apiKey", "abcdef", True),
        ("GITHUB_TOKEN", "abcdef", True),
        ("DB", "postgres://me:hunter2@db/x", True),
        ("ANYTHING", "sk-abcdef", True),
        ("AUTH", "Bearer abcdef", True),
        ("KEY_FILE", "/etc/key.pem", False),
        ("API_KEY", "${API_KEY}", False),
        ("API_KEY", "", False),
        ("USE_TOKEN", "true", False),
        ("CITY", "fukuoka", False),
        ("HTTP_PROXY", "http://proxy:3128", False),
        ("HTTP_PROXY", "http://me:hunter2@proxy:3128", True),
    ],
)
def test_what_looks_secret(name: str, value: str, secret: bool) -> None:
    """By its name or by itself; a placeholder, a switch and a path are none."""
    assert is_secret(name, value) is secret


def test_arguments_that_look_secret() -> None:
    """Everybody on the machine sees them in the list of processes; the log shows them not."""
    words = ["--token", "abc123", "--city", "fukuoka", "API_KEY=xyz987", "--verbose"]
    assert secrets_among(words) == ["abc123", "xyz987"]


@given(SECRETS, st.text(), st.text())
@example('quote"back\\slash', "", "")
@example("鍵は秘密です", "", "")
def test_no_secret_is_left(secret: str, before: str, after: str) -> None:
    """Law: secrets never in status, logs, state file: neither as they are nor as JSON has them."""
    mask = Mask([secret])
    for form in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False)):
        assert secret not in mask(before + form + after).replace("***", "")
        assert json.dumps(secret)[1:-1] not in mask(before + form + after).replace("***", "")


@pytest.mark.parametrize(
    ("secret", "part"),
    [
        ("https://me:hunter2@host/path", "hunter2"),
        ("Bearer abcdef", "abcdef"),
        ("-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n", "MIIEvQIBADANBg"),
    ],
)
def test_the_part_that_is_the_secret_is_none_to_show_either(secret: str, part: str) -> None:
    """Programs print the password of an address, the token of a header, one line of a key."""
    assert part not in Mask([secret])(f"login failed with {part}")


def test_a_secret_need_not_be_text() -> None:
    """Law 5: the environment may hold any bytes, and what a server writes is read as text."""
    secret, line = b"\xffhunter2\xfe", b"login failed with \xffhunter2\xfe"
    mask = Mask([os.fsdecode(secret)])
    assert mask(line.decode(errors="replace")) == "login failed with ***"
    assert mask.reach >= len(secret)


def test_the_longest_goes_first() -> None:
    """A secret that begins with another one leaves no rest of itself."""
    assert Mask(["hunter", "hunter2-and-more"])("hunter2-and-more") == "***"


def test_what_is_short_stands_everywhere() -> None:
    """A line with all its e's as stars tells nobody anything."""
    assert Mask(["e", ""])("the line") == "the line"
    assert Mask()("the line") == "the line"
