"""`gateway.toml`: what it may say, and that each mistake names its key and line."""

from __future__ import annotations

import pytest

from broker.config.loading import ConfigError
from broker.gateway.addresses import Address, address_of
from broker.gateway.settings import Settings, parse
from broker.gateway.tokens import digest_of

DIGEST = digest_of("x").hex()


def test_without_a_file_there_is_a_loopback_port_with_a_token() -> None:
    settings = Settings()
    assert settings.gateway.listen == ("127.0.0.1:8420",)
    assert settings.gateway.token
    assert parse("") == settings


def test_a_token_says_what_its_holder_may_do() -> None:
    (token,) = parse(f"""
        [tokens.phone]
        sha256 = "{DIGEST}"
        servers = ["time"]
        tools = ["get_*"]
        rate = 5
    """).tokens
    assert token.digest == digest_of("x")
    assert (token.name, token.servers, token.tools, token.rate) == ("phone", ("time",), ("get_*",), 5.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gateway]\nlisten = ['0.0.0.0:8420']", r"gateway\.listen \(line 2\).*behind_tls"),
        ("[gateway]\nlisten = ['192.0.2.7:80']\nbehind_tls = ['0.0.0.0:80']", r"gateway\.listen \(line 2\)"),
        (
            "[gateway]\nlisten = ['0.0.0.0:80']\nbehind_tls = ['0.0.0.0:80']\ntoken = false",
            r"gateway\.token \(line 4\).*without a token",
        ),
        ("[gateway]\nlisten = ['example.org:80']", r"no address to listen at"),
        ("[gateway]\nlisten = 'x'", r"gateway\.listen \(line 2\)"),
        (
            "[gateway]\n\nhost = ['a']",
            r"gateway\.host \(line 3\): there is no such key; did you mean hosts\?",
        ),
        ("[limits]\nbody_bytes = '1'", r"limits\.body_bytes \(line 2\).*bytes"),
        ("[limits]\nbody_sec = 0", r"limits\.body_sec \(line 2\)"),
        ("[tokens.a]\nsha256 = 'short'", r"tokens\.a\.sha256 \(line 2\).*sha256sum"),
        ("[tokens.a]\nrate = 5", r"tokens\.a\.sha256 \(line 1\): this key is missing"),
        ("[servers.a]\n", r"servers"),
        ("gateway = 1", r"gateway.*table"),
        ("[gateway", r"not TOML"),
        ("[gateway]\nstate_dir = 'x'", r"state_dir \(line 2\).*absolute"),
    ],
)
def test_a_mistake_is_told_with_key_line_and_mend(text: str, said: str) -> None:
    """Law 10; 1Panel#13264: nothing that concerns who may come in is ignored."""
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse("[gateway]\nx = 1\ntoken = 'yes'\n[limits]\nsessions = 0")
    assert len(error.value.problems) == 3


def test_another_machine_is_let_in_where_it_is_said_twice() -> None:
    text = "[gateway]\nlisten = ['0.0.0.0:8420']\nbehind_tls = ['0.0.0.0:8420']\nhosts = ['led.example.org']"
    assert parse(text).gateway.hosts == ("led.example.org",)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8420", Address("", "127.0.0.1", 8420)),
        ("[::1]:1", Address("", "::1", 1)),
        ("localhost:0", Address("", "localhost", 0)),
        ("unix:/run/x.sock", Address("/run/x.sock", "", 0)),
        ("127.0.0.1", None),
        ("127.0.0.1:70000", None),
        ("999.0.0.1:1", None),
        ("unix:x", None),
        (":8420", None),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    assert address_of(text) == address
    if address is not None:
        assert str(address) == text
        assert address.is_loopback
