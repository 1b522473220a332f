"""What Windows does not have is not needed: modules, users, Unix sockets, `add_reader`. Run on Linux."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from client_shim import wire
from tests.client_shim.backend.pythons import VERSIONS, thin_python
from tests.client_shim.keyed import KeyedPeer, write_keys
from tests.client_shim.loops import WITHOUT_READERS
from tests.client_shim.peer import PATIENCE_S

ROOT = Path(__file__).parents[2]

AS_ON_WINDOWS = """
import os, select, selectors, socket, sys
for module in ("pwd", "grp", "fcntl", "resource", "termios", "pty", "syslog"):
    sys.modules[module] = None
for name in ("fork", "getuid", "geteuid", "getgid", "getegid", "getgroups", "setsid", "killpg", "O_PATH",
             "O_NOFOLLOW", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "getxattr", "major", "minor"):
    delattr(os, name)
for name in ("poll", "epoll"):
    delattr(select, name)
selectors.DefaultSelector = selectors.SelectSelector
pair, unix = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda *_: pair(unix)
del socket.AF_UNIX
"""

WITHOUT_ADD_READER = f"""
import runpy
runpy.run_path({str(WITHOUT_READERS / "sitecustomize.py")!r})
"""

PROGRAM = """
import asyncio, importlib, pkgutil
import client_shim
for module in pkgutil.walk_packages(client_shim.__path__, "client_shim."):
    importlib.import_module(module.name)
from client_shim import BlockingClient, BrokerClient, MCPClient

class Registry:
    def get_server(self, name):
        return self

async def main():
    async with MCPClient(Registry()) as client:
        (tool,) = await client.list_tools("s")
        print(tool.name)
    async with BrokerClient() as broker:
        print(await broker.request("s", "m"))
asyncio.run(main())
with BlockingClient() as broker:
    print(broker.request("s", "m"))
del os.environ["MCP_BROKER_ENDPOINT"]
try:
    BlockingClient().connect()
except client_shim.Unavailable as error:
    print(error.code)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_backend_on_windows_uses_a_broker_over_tcp_with_keys(tmp_path: Path, version: str) -> None:
    """Each client; and without an endpoint the error says that the platform has no ipc://."""
    python = thin_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    with KeyedPeer() as peer:
        keys = write_keys(tmp_path / "k", peer.new_client())
        environ = {"MCP_BROKER_ENDPOINT": peer.endpoint, "MCP_BROKER_KEYS": keys}
        command = [str(python), "-c", AS_ON_WINDOWS + WITHOUT_ADD_READER + PROGRAM]
        with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
            try:
                for body in (b'{"tools":[{"name":"t","inputSchema":{}}]}', b'"asyncio"', b'"blocking"'):
                    heard = peer.receive()
                    if isinstance(heard.message, wire.Goodbye):
                        heard = peer.receive()
                    peer.welcome(heard.who)
                    peer.result(peer.receive(), body)
                out, _ = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    assert out.split() == ["t", "asyncio", "blocking", "unsupported-platform"]
    assert process.returncode == 0
