"""What a server can read of the broker: not its environment, in which are the secrets of all servers."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from broker.processes.environment import DUMPABLE, environment
from broker.service.config_file import read
from broker.service.credentials import MAX_CREDENTIAL_BYTES, with_credentials
from tests.e2e.harness import rogue, running

OURS, THEIRS = "ours-of-the-broker-1", "theirs-of-the-other-2"
LOOKS = """
import os, sys
def tell(what, path):
    try:
        said = open(path, "rb").read().replace(b"\\0", b" ").decode(errors="replace")
    except OSError as error:
        said = type(error).__name__
    print(what, said[:3000], file=sys.stderr, flush=True)
broker = os.getppid()
tell("looked-at-environ", f"/proc/{broker}/environ")
tell("looked-at-memory", f"/proc/{broker}/maps")
tell("looked-at-own", "/proc/self/environ")
print("looked-at-all", file=sys.stderr, flush=True)
"""


def as_a_user() -> list[str]:
    """What takes from root what other users do not have: root's capabilities read everything."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv on this machine")
    return ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]


@pytest.mark.parametrize("dumpable", [False, True])
def test_a_server_cannot_read_the_environment_of_the_broker(dumpable: bool) -> None:
    """Of the variables of other servers it learns nothing; with the debugging switch it would."""
    servers = {
        "looks": {"command": sys.executable, "args": ["-c", LOOKS], "restart": "never"},
        "other": rogue(env={"OTHER_KEY": "${THEIRS}"}),
    }
    env = {"OURS": OURS, "THEIRS": THEIRS, DUMPABLE: str(int(dumpable))}
    with running(servers, ready=False, env=env, before=as_a_user()) as broker:
        broker.wait_log("looked-at-all")
        broker.wait_state("other", "ready")
        lines = [line for line in broker.log().splitlines() if "looked-at-" in line]
        environ, *_ = [line for line in lines if "looked-at-environ" in line]
        own, *_ = [line for line in lines if "looked-at-own" in line]
        assert ("PermissionError" in environ) is not dumpable
        assert (OURS in environ) is dumpable
        assert "PATH=" in own
        assert OURS not in own
        assert "THEIRS" not in own
        assert ("broker.not_hidden" in broker.log()) is dumpable
        assert broker.server("other")["rss_bytes"] > 0, "the broker itself still sees its servers"


def test_a_credential_is_a_variable(tmp_path: Path) -> None:
    """systemd.exec(5), "Credentials": a file for each, read where the environment has no such variable."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "API_KEY").write_text("from-a-file\n")
    (folder / "SET").write_text("from-a-file")
    (folder / "TWO_LINES").write_text("a\nb\n\n")
    (folder / "not-a-variable").write_text("x")
    (folder / "LARGE").write_bytes(b"x" * (MAX_CREDENTIAL_BYTES + 1))
    (folder / "BINARY").write_bytes(b"a\0b")
    (folder / "FOLDER").mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(folder), "SET": "from-the-environment"}
    assert with_credentials(environ) == {
        **environ,
        "API_KEY": "from-a-file",
        "TWO_LINES": "a\nb\n",
    }
    assert with_credentials({"CREDENTIALS_DIRECTORY": str(tmp_path / "gone")}).keys() == {
        "CREDENTIALS_DIRECTORY"
    }
    assert with_credentials({}) == {}


def test_a_credential_fills_env_and_env_inherit(tmp_path: Path) -> None:
    """`${API_KEY}` where the broker has no such variable, and only where it is named."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "API_KEY").write_text("from-a-file\n")
    path = tmp_path / "broker.toml"
    path.write_text('[servers.a]\ncommand = "x"\nenv = { KEY = "${API_KEY}" }\nenv_inherit = ["API_KEY"]\n')
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    server = read(path, environ).servers["a"]
    assert environment(server, with_credentials(environ)) == {"KEY": "from-a-file", "API_KEY": "from-a-file"}


def test_a_server_is_filled_from_a_credential(tmp_path: Path) -> None:
    """The whole way: what the process has, and nothing of the folder."""
    (tmp_path / "API_KEY").write_text("planted-credential-3\n")
    code = LOOKS + "print('has-key', os.environ['KEY'] == 'planted-credential-3', file=sys.stderr)"
    keys = {"args": ["-c", code], "restart": "never", "env": {"KEY": "${API_KEY}"}}
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with running({"looks": {"command": sys.executable, **keys}}, ready=False, env=env) as broker:
        broker.wait_log("has-key True")
        assert "planted-credential-3" not in broker.log()
        own, *_ = [line for line in broker.log().splitlines() if "looked-at-own" in line]
        assert "CREDENTIALS_DIRECTORY" not in own
