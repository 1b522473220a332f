"""The files of keys: what `zmq.auth` and czmq read and write, and nothing that is no key."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from client_shim.key_file import KeyFile, KeyFileError, is_key, parse, text_of
from client_shim.transport.curve import new_pair, public_of

PAIR = KeyFile("laptop", *new_pair(), new_pair()[0])


@pytest.mark.parametrize("keys", [PAIR, PAIR._replace(secret=None, server=None), PAIR._replace(server=None)])
def test_what_is_written_is_read(keys: KeyFile) -> None:
    """With all that a client needs, and as a public certificate."""
    assert parse(text_of(keys)) == keys


def test_zmq_auth_reads_it(tmp_path: Path) -> None:
    """Other ZeroMQ programs take the same file."""
    (tmp_path / "laptop.key_secret").write_text(text_of(PAIR))
    public, secret = zmq.auth.load_certificate(tmp_path / "laptop.key_secret")
    assert (public.decode(), (secret or b"").decode()) == (PAIR.public, PAIR.secret)


def test_what_zmq_auth_writes_is_read(tmp_path: Path) -> None:
    """A client may have made its pair itself."""
    made = zmq.auth.create_certificates(tmp_path, "laptop")
    keys = [parse(Path(path).read_text()) for path in made]
    assert keys[0].secret is None
    assert keys[1].secret is not None
    assert public_of(keys[1].secret) == keys[0].public == keys[1].public


def test_the_secret_is_not_shown() -> None:
    """Logs and tracebacks have the `repr` of anything; a public certificate has no secret to hide."""
    assert (PAIR.secret or "-") not in repr([PAIR])
    assert repr(PAIR) == f"KeyFile(name='laptop', public={PAIR.public!r}, secret=…, server={PAIR.server!r})"
    assert "secret=None" in repr(PAIR._replace(secret=None))


@given(st.binary(min_size=32, max_size=32))
def test_every_key_of_libzmq_is_a_key(raw: bytes) -> None:
    """Z85 as libzmq decodes it (RFC 32)."""
    from zmq.utils.z85 import encode

    assert is_key(encode(raw).decode())


@pytest.mark.parametrize("text", ["", "a" * 39, "a" * 41, "a" * 39 + "~", "#####" * 8, "a" * 38 + "é "])
def test_anything_else_is_no_key(text: str) -> None:
    """Too short, too long, another letter, or beyond 32 bits: libzmq would refuse it later, and say less."""
    assert not is_key(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line public-key"),
        ("curve\n  public-key = 'short'", "public-key"),
        (text_of(PAIR).replace(PAIR.secret or "", "x"), "secret-key"),
        (text_of(PAIR) + f'    public-key = "{PAIR.server}"\n', "two lines public-key"),
    ],
    ids=["empty", "short", "secret", "twice"],
)
def test_what_is_wrong_is_said_without_the_key(text: str, why: str) -> None:
    """The message names the line, and never a secret."""
    with pytest.raises(KeyFileError, match=why) as caught:
        parse(text)
    assert (PAIR.secret or "") not in str(caught.value)
