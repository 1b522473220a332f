"""Where a relay looks for its gateway, and that nobody else can stand there in the gateway's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.config.names import file_name, normal
from broker.gateway.stdio import relay
from broker.gateway.stdio.relay import SocketDir, file_of, places_of
from client_shim.trusted import Untrusted


@given(st.text(max_size=70))
@example("_x")
@example(".x")
@example("..")
@example("-")
@example("a" * 65)
@example("\u0660")
@example("e\u0301")
def test_the_name_of_a_socket_is_the_gateway_s(server: str) -> None:
    """The relay has a shorter way for plain names, with the same result."""
    assert file_of(server) == f"{file_name(normal(server))}.sock"
    assert "/" not in file_of(server)


@pytest.mark.parametrize(
    ("environ", "endpoint", "paths"),
    [
        ({"MCP_BROKER_SOCKETS": "/s", "MCP_BROKER_ENDPOINT": "ipc:///a/b.sock"}, "ipc:///c/d.sock", ["/s"]),
        ({"MCP_BROKER_ENDPOINT": "ipc:///a/b.sock"}, "ipc:///c/d.sock", ["/c/gateway"]),
        ({"MCP_BROKER_ENDPOINT": "ipc:///a/b.sock", "XDG_RUNTIME_DIR": "/r"}, None, ["/a/gateway"]),
        ({"MCP_BROKER_ENDPOINT": "tcp://127.0.0.1:9"}, None, []),
        ({"XDG_RUNTIME_DIR": "/r"}, None, ["/r/mcp-broker/gateway"]),
    ],
)
def test_the_sockets_are_beside_the_broker_s(
    environ: dict[str, str], endpoint: str | None, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which every client looks for a broker (docs/protocol.md)."""
    monkeypatch.setattr(relay, "SYSTEM_SOCKET", "/no/such/socket")
    assert [place.path for place in places_of(environ, endpoint)] == paths


def test_the_system_s_gateway_may_have_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "broker.sock"
    system.touch()
    monkeypatch.setattr(relay, "SYSTEM_SOCKET", str(system))
    expected = [str(tmp_path / "gateway"), relay.SYSTEM_SOCKETS]
    assert [place.path for place in places_of({}, None)] == expected
    assert [place.path for place in places_of({}, f"ipc://{system}")] == expected


def test_a_folder_that_others_can_write_to_is_refused_unless_it_was_named(tmp_path: Path) -> None:
    """Whoever listens there would be told every call, and answer as he likes."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    SocketDir(str(folder)).check()
    os.chmod(folder, 0o777)
    with pytest.raises(Untrusted):
        SocketDir(str(folder)).check()
    SocketDir(str(folder), is_named=True).check()
