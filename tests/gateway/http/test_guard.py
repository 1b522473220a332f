"""Who may come in by HTTP. Each refusal is a correct status, and says what to do."""

from __future__ import annotations

import pytest

from broker.gateway.http import guard as rules
from broker.gateway.http.guard import Guard
from broker.gateway.http.headers import Headers
from broker.gateway.http.refusals import Refused
from broker.gateway.tokens import Token, digest_of

PHONE = Token("phone", digest_of("s3cret"), ("time", "note*"), ("get_*",), 5.0)
GUARD = Guard([Token("own", digest_of("0wn")), PHONE], ["led.example.org"], ["https://inspector.example.org"])


def made(**values: str) -> Headers:
    return Headers((name.encode(), value.encode("latin-1")) for name, value in values.items())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8420",
        "localhost:1",
        "LOCALHOST",
        "[::1]:8420",
        "led.example.org",
        "LED.Example.org:443",
    ],
)
def test_a_host_of_this_machine_passes(host: str) -> None:
    """2026-07-28, "Security & Endpoint"; python-sdk#1798: behind a proxy the name can be configured."""
    GUARD.check_host(made(host=host))


@pytest.mark.parametrize(
    "host",
    ["evil.example.org", "localhost.evil.org", "127.0.0.1.evil.org", "", "[::1", "localhost@evil", "a b"],
)
def test_another_host_is_refused(host: str) -> None:
    """DNS rebinding: a page whose name was pointed at 127.0.0.1."""
    with pytest.raises(Refused, match=r"gateway\.toml") as refused:
        GUARD.check_host(made(host=host))
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:6274", "https://127.0.0.1", "http://[::1]:3000", "https://inspector.example.org"],
)
def test_pages_of_this_machine_and_named_ones_may_call(origin: str) -> None:
    assert GUARD.check_origin(made(origin=origin)) == origin


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.org", "null", "http://localhost.evil.org", "file://localhost", "http://[::1", ""],
)
def test_other_pages_are_refused(origin: str) -> None:
    """2026-07-28, "Security & Endpoint", rule 1: HTTP 403."""
    with pytest.raises(Refused, match=r"gateway\.toml") as refused:
        GUARD.check_origin(made(origin=origin))
    assert refused.value.status == 403


def test_a_program_has_no_origin() -> None:
    assert GUARD.check_origin(Headers([])) is None


@pytest.mark.parametrize("value", ["Bearer s3cret", "bearer   s3cret"])
def test_a_known_token_is_its_holder(value: str) -> None:
    assert GUARD.identify(made(authorization=value)) is PHONE


@pytest.mark.parametrize(
    "value", [None, "Bearer wrong", "Basic s3cret", "s3cret", "Bearer", "Bearer s3cret x"]
)
def test_without_a_known_token_nobody_comes_in(value: str | None) -> None:
    """A 401 has a challenge (RFC 9110, 15.5.2), but no `resource_metadata`, which begins an OAuth dance."""
    with pytest.raises(Refused, match=r"(?i)token") as refused:
        GUARD.identify(Headers([]) if value is None else made(authorization=value))
    assert refused.value.status == 401
    assert refused.value.headers["www-authenticate"] == 'Bearer realm="mcp-broker"'
    assert "s3cret" not in refused.value.message


def test_a_token_opens_its_servers_and_tools() -> None:
    rules.check_use(PHONE, "time")
    rules.check_use(PHONE, "notes")
    rules.check_call(PHONE, "get_time")
    with pytest.raises(Refused, match=r"\[tokens\.phone\]") as refused:
        rules.check_use(PHONE, "shell")
    assert refused.value.status == 403
    with pytest.raises(Refused, match=r"\[tokens\.phone\]") as refused:
        rules.check_call(PHONE, "set_time")
    assert refused.value.status == 403


def test_a_token_is_kept_as_its_digest() -> None:
    assert "s3cret" not in repr(PHONE)


def test_who_comes_too_often_is_told_when_to_come_back() -> None:
    refused = rules.too_often(PHONE, 0.3)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
