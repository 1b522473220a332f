"""What looks like a secret, and that none is left in words that are kept, logged or shown."""

from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.base import secrets
from broker.base.secrets import SHORTEST, Mask, Secrets, can_be_told, is_secret, redact, secrets_among

SECRETS = st.text(min_size=SHORTEST, max_size=40).filter(can_be_told)


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


@pytest.mark.parametrize(
    "value",
    [
        *("test", "tests", "true", "production", "localhost", "5432", "2026-07-28", "password", "abcde"),
        *("/etc/key.pem", "~/keys/a.pem", "https://api.example.com/v1"),
    ],
)
def test_what_stands_in_ordinary_text_is_not_taken_out_everywhere(value: str) -> None:
    """It made logs unreadable. Where it is written as a secret is, it is masked nevertheless."""
    assert Mask([value])(f"the {value} stays") == f"the {value} stays"
    assert redact("password=test") == "password=***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: ***"),
        ("headers={'Authorization': 'Basic dXNlcjpwYXNz'}", "headers={'Authorization': '***'}"),
        ("sent Bearer abc123", "sent Bearer ***"),
        ("-H 'X-Api-Key: zzz' -v", "-H 'X-Api-Key: ***' -v"),
        ("PRIVATE-TOKEN: abcde", "PRIVATE-TOKEN: ***"),
        ("Cookie: sid=1; b=2", "Cookie: ***"),
        ("GET /x?token=q1&page=2", "GET /x?token=***&page=2"),
        ("GET /x?a=b&api_key=q1", "GET /x?a=b&api_key=***"),
        ("run --token abc --city x", "run --token *** --city x"),
        ("run --api-key=abc", "run --api-key=***"),
        ('["--api-key", "abc123"]', '["--api-key", "***"]'),
        ("DB_PASSWORD=hunter2 make", "DB_PASSWORD=*** make"),
        ("password: hunter2", "password: ***"),
        ('{"password":"abc","n":1}', '{"password":"***","n":1}'),
        ("https://me:pw@host/x", "https://me:***@host/x"),
        ("https://ghp_abcdefghijkl1234@github.com", "https://***@github.com"),
        ("invalid key sk-abc12345", "invalid key sk-***"),
    ],
)
def test_what_is_written_as_a_secret_is_taken_out(text: str, shown: str) -> None:
    """In headers, addresses, arguments, assignments and JSON, whatever the value; twice is as once."""
    assert redact(text) == shown
    assert redact(shown) == shown
    assert Mask()(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("Unexpected token: string", "max_tokens=100", "tokenizer=gpt", "monkey=banana", "ssh://git@host/x"),
        *("basic authentication is needed", "the bearer of this", "state='ready' key=value"),
        *("API_KEY=${API_KEY}", "use_token=true", "ipc:///run/mcp-broker/broker.sock", "token=***"),
        "password must not be empty",
        "these look like secrets: servers.one.env.TOKEN",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    """A log is read by people."""
    assert redact(text) == text


def test_secrets_in_headers_and_addresses_of_arguments_are_known() -> None:
    """What is in an argument may come back in any form, in what the server writes."""
    words = ["-H", "X-Api-Key: key-9", "https://h/?token=query-7", "--header", "Authorization: Bearer bear-8"]
    mask = Mask(secrets_among(words))
    assert mask("key-9x query-7 bear-8") == "key-9x *** ***"


@given(st.text(alphabet="aT-:/@=&?'\" x"), st.sampled_from(["token=", "://a:", "Bearer ", "--api-key "]))
def test_masking_twice_is_as_once(text: str, start: str) -> None:
    """It is done at more than one way out."""
    once = redact(start + text)
    assert redact(once) == once


def test_one_mask_for_all_servers() -> None:
    """A server may repeat what another was given: it can read it in /proc of the same user."""
    mask = Secrets()
    mask.put("a", ["hunter2-a"])
    mask.put("b", ["hunter2-b"])
    assert mask("hunter2-a hunter2-b") == "*** ***"
    mask.put("a", ["changed-a"])
    assert mask.throughout({"hunter2-b": ["hunter2-b", 1, {"x": "changed-a"}]}) == {
        "hunter2-b": ["***", 1, {"x": "***"}]
    }


def test_servers_keep_their_names() -> None:
    """`PLACE = "${PLACE}"` may be the name of a server, or a part of one: `status` showed stars for it."""
    mask = Secrets(["laundry-assistant-2", "time"])
    mask.put("laundry-assistant-1", ["laundry-assistant-1", "laundry-assistant", "hunter2-1"])
    mask.put("weather", ["laundry-assistant-2\nhunter2-2"])
    text = "laundry-assistant-1, laundry-assistant-2, hunter2-1, hunter2-2"
    assert mask(text) == "laundry-assistant-1, laundry-assistant-2, ***, ***"


@pytest.mark.parametrize("piece", ["x-", "token", "://a:", "--a", "key=", "authorization ", "bearer a", "'"])
def test_masking_takes_no_time_that_others_would_notice(piece: str) -> None:
    """Law 5: 64 KiB, the largest header, in much less than 50 ms times the noise of the machine."""
    began = time.perf_counter()
    redact(piece * (65_536 // len(piece)))
    assert time.perf_counter() - began < 1.0


@given(
    st.lists(
        st.sampled_from(
            [
                *"aB1 =:?&/@-_\"'",
                *("Token", "API-Key", "Authorization", "COOKIE", "Bearer ", "://", "ghp_", "eyJa."),
                *("X-Auth", "key", "sig", "AKIA", "12345678"),
            ]
        )
    ).map("".join)
)
def test_nothing_is_passed_over_because_it_was_not_looked_for(text: str) -> None:
    """`redact` looks for words first, which is cheap: one is in every text that has something in it."""
    assert redact(text) == secrets._WRITTEN.sub(secrets._starred, text)
