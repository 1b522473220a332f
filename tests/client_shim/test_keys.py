"""The keys of a client: the file that holds them, and what is wrong with one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
import zmq.auth

from client_shim import errors
from client_shim.keys import VARIABLE, ClientKeys, keys_source
from client_shim.transport.address import load_keys
from client_shim.transport.curve import new_pair
from tests.client_shim.keyed import write_keys


@pytest.fixture
def keys() -> ClientKeys:
    """Keys that fit."""
    return ClientKeys(new_pair()[0], *new_pair())


def test_a_file_has_the_key_of_the_broker_and_the_pair_of_the_client(
    tmp_path: Path, keys: ClientKeys
) -> None:
    """pyzmq reads the same file, without the broker's key."""
    path = write_keys(tmp_path / "backend.keys", keys)
    assert load_keys(path) == keys
    assert load_keys(keys) == keys
    assert load_keys(None) is None
    public, secret = zmq.auth.load_certificate(path)
    assert (public, secret) == (keys.public.encode(), keys.secret.encode())


def test_a_certificate_without_the_key_of_the_broker_is_not_enough(tmp_path: Path) -> None:
    """Such as pyzmq itself writes: the client could not tell the broker from anybody else."""
    _, secret_file = zmq.auth.create_certificates(tmp_path, "backend")
    with pytest.raises(errors.InvalidKeys, match="its server-key is missing"):
        load_keys(secret_file)


BROKEN: dict[str, Callable[[ClientKeys], ClientKeys]] = {
    "server-key is not a key": lambda keys: keys._replace(server="#" * 40),
    "secret-key is not a key": lambda keys: keys._replace(secret="x" * 39),
    "public-key is not a key": lambda keys: keys._replace(public="," * 40),
    "does not belong to its secret-key": lambda keys: keys._replace(public=new_pair()[0]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_keys_is_named(tmp_path: Path, keys: ClientKeys, what: str) -> None:
    """Law 10. A half of one pair and a half of another would be refused without a reason."""
    broken = BROKEN[what](keys)
    for source in (write_keys(tmp_path / "k", broken), broken):
        with pytest.raises(errors.InvalidKeys, match="key") as caught:
            load_keys(source)
        assert what in str(caught.value)
        assert "mcp-broker keys new" in caught.value.hint
        assert keys.secret not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "empty"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    """A typing error in the variable, say: an error of the address, so that no call waits."""
    path = tmp_path / "keys"
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)))
    elif kind == "empty":
        path.touch()
    with pytest.raises(errors.InvalidEndpoint) as caught:
        load_keys(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "is_warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)]
)
def test_a_file_that_everybody_may_read_is_warned_of_once(
    tmp_path: Path, keys: ClientKeys, caplog: pytest.LogCaptureFixture, mode: int, is_warned: bool
) -> None:
    """It is still used: the file of a container's secret may have no other mode."""
    path = write_keys(tmp_path / "k", keys)
    Path(path).chmod(mode)
    for _ in range(3):
        assert load_keys(path) == keys
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == is_warned
    assert all(path in text and "chmod o=" in text for text in warned)


def test_a_libzmq_without_encryption_is_told(monkeypatch: pytest.MonkeyPatch, keys: ClientKeys) -> None:
    """Such as one that was built by hand; without keys it is all that is needed."""

    def missing(_: bytes) -> bytes:
        raise zmq.ZMQError(zmq.ENOTSUP)

    monkeypatch.setattr(zmq, "curve_public", missing)
    with pytest.raises(errors.InvalidKeys, match="this libzmq has no encryption"):
        load_keys(keys)


def test_a_secret_key_is_not_shown(keys: ClientKeys) -> None:
    """Law 3: logs and tracebacks show the `repr` of anything."""
    assert keys.secret not in repr(keys)
    assert pickle.loads(pickle.dumps(keys)) == keys


def test_keys_are_for_tcp_and_an_argument_stands_above_the_variable(keys: ClientKeys) -> None:
    """Over ipc the kernel says who the client is, so one program has one setting for both."""
    environ = {VARIABLE: "/etc/mcp-broker/backend.keys"}
    assert keys_source("ipc:///run/s", keys, environ) is None
    assert keys_source("tcp://h:1", None, {}) is None
    assert keys_source("tcp://h:1", None, environ) == environ[VARIABLE]
    assert keys_source("tcp://h:1", Path("/k"), environ) == "/k"
    assert keys_source("tcp://h:1", keys, environ) is keys
