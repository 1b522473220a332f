"""docs/fresh-host.zh-CN.md, walked by a test: a user with sudo types every command, in its order.

The commands come from the page itself. Stand-ins do what a person does there: `nano` types the lines that
are asked for, a socket is the page that is opened. `sudo` gives root, and `reboot` is real.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.project import console, wheels
from tests.systemd import host
from tests.systemd.host import ROOT, processes_of, sh, show, until

PAGE = ROOT / "docs" / "fresh-host.zh-CN.md"
ENGLISH = ROOT / "docs" / "fresh-host.md"
OPERATOR = "anna"
HOME = Path("/home") / OPERATOR
BACKEND_USER = "vtuber"
BACKEND = Path("/srv/vtuber")
PORT = 12393
REBOOTED = Path("/var/tmp/walk-rebooted")
COMMAND_S = 120

SUDO = """\
#!/bin/sh
exec /usr/local/lib/as-root --reuid=0 --regid=0 --clear-groups env HOME=/root SUDO_USER=anna "$@"
"""

NANO = """\
#!/bin/sh
cat >>"$1" <<LINES
CITY_TOKEN=planted-2
UV_OFFLINE=1
UV_FIND_LINKS=/srv/wheels
UV_CONFIG_FILE=/srv/wheels/uv.toml
LINES
"""
"""What is typed: the variable that the import asks for, and the mirror of a host without a network."""

KEYS = [len("""sk-live-planted-1 "$HOME"\n'two' \\lines"""), len("planted-2")]
"""The lengths of the two secrets: that of mcp_servers.json, of two lines, and the one that `nano` types."""

UNIT = f"""\
[Service]
User={BACKEND_USER}
WorkingDirectory={BACKEND}
ExecStart={BACKEND}/.venv/bin/python -m backend.pages
[Install]
WantedBy=multi-user.target
"""

OFFLINE = {
    "WHEELS": "/srv/wheels",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/srv/wheels",
    "UV_OFFLINE": "1",
    "UV_FIND_LINKS": "/srv/wheels",
    "UV_CONFIG_FILE": "/srv/wheels/uv.toml",
}


def uv_wheel() -> Path:
    """A folder with the wheel of uv, made once while there is a network."""
    folder = wheels.FOLDER / "uv-wheel"
    with wheels.alone("uv-wheel"):
        if not wheels.is_stamped(folder, "uv"):
            wheels.pip("wheel", "--no-deps", "--wheel-dir", str(folder), "uv")
            wheels.stamp(folder, "uv")
    return folder


# --- the host ------------------------------------------------------------------------------------------


def a_host_without_the_broker() -> None:
    """A user with sudo, a checkout in the home folder, and a backend with its leak, as a service."""
    sh(f"make -C {ROOT} purge")
    _write("/usr/local/bin/sudo", SUDO)
    _write("/etc/apt/apt.conf.d/99-offline", 'Acquire::Retries "0";\n')
    _write("/usr/local/bin/nano", NANO)
    sh("install -m 4755 /usr/bin/setpriv /usr/local/lib/as-root")
    sh(f"useradd --create-home --shell /bin/bash {OPERATOR} && chmod 700 {HOME}")
    sh(f"useradd --system --no-create-home {BACKEND_USER}")
    kept = "broker client_shim docs examples systemd benchmarks .ci tests/golden"
    files = "Makefile pyproject.toml broker.toml README.md README.zh-CN.md CHANGELOG.md LICENSE"
    pack = f"tar -c -C {ROOT} --exclude=__pycache__ --exclude='.venv*' --exclude=node_modules {kept} {files}"
    sh(f"mkdir {HOME}/mcp-broker && {pack} | tar -x -C {HOME}/mcp-broker")
    sh(f"chown -R {OPERATOR}: {HOME}")
    sh(f"cp -r {host.WHEELS} /srv/wheels && cp {uv_wheel()}/*.whl /srv/wheels")
    _write("/srv/wheels/uv.toml", "no-index = true\n")
    sh(f"cp -r {ROOT}/tests/systemd/backend {BACKEND} && chmod -R a+rX,u+w /srv")
    sh(f"/usr/bin/python3 -m venv --without-pip {BACKEND}/.venv && chown -R {BACKEND_USER}: {BACKEND}")
    _write("/etc/systemd/system/vtuber.service", UNIT)
    sh("systemctl daemon-reload && systemctl enable --quiet --now vtuber")


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")
    Path(path).chmod(0o755)


@contextlib.contextmanager
def a_page() -> Iterator[dict[str, object]]:
    """A page of the backend, open meanwhile; gives what it says."""
    until(lambda: show("ActiveState", "vtuber.service") == "active")
    connection = None
    give_up = time.monotonic() + host.PATIENCE_S
    while connection is None:
        with contextlib.suppress(ConnectionRefusedError):
            connection = socket.create_connection(("127.0.0.1", PORT), timeout=host.PATIENCE_S)
        assert time.monotonic() < give_up
        time.sleep(0.05)
    with connection, connection.makefile(encoding="utf-8") as lines:
        yield json.loads(lines.readline())


def before_the_page_the_backend_leaks() -> None:
    """What the walk has to end: a page that is opened and closed leaves a process of its server."""
    running = []
    for _ in range(3):
        with a_page() as said:
            assert said["天气"] == ["now"], said
        running.append(len(processes_of(BACKEND_USER)))
    assert [count - running[0] for count in running] == [0, 1, 2]


# --- the walk ------------------------------------------------------------------------------------------


def steps() -> list[console.Shown]:
    """The commands of the page."""
    return console.commands(PAGE)


def halves() -> tuple[list[console.Shown], list[console.Shown]]:
    """The commands before the reboot, and those after it."""
    at = [shown.command for shown in steps()].index("sudo reboot")
    return steps()[:at], steps()[at + 1 :]


def _is_state(command: str) -> bool:
    """Whether a command changes the shell itself: a variable, or its folder."""
    return bool(re.match(r"\w+=|cd |export ", command))


def typed(state: list[str], command: str, language: str = "zh_CN.UTF-8") -> subprocess.CompletedProcess[str]:
    """What a command says and how it ends, typed by the operator after the lines of `state`."""
    environ = {"HOME": str(HOME), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": language}
    words = ["env", "-i", *(f"{name}={value}" for name, value in {**environ, **OFFLINE}.items())]
    who = ["setpriv", f"--reuid={OPERATOR}", f"--regid={OPERATOR}", "--init-groups"]
    lines = "\n".join(["cd", "set -o pipefail", *state, command])
    return subprocess.run(
        [*who, *words, "bash", "-c", lines],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


def walk(shown: list[console.Shown], state: list[str]) -> None:
    """Type the commands; each ends well, and says the words that the page shows."""
    for command, output in shown:
        if _is_state(command):
            state.append(command)
            continue
        done = typed(state, command)
        give_up = time.monotonic() + host.PATIENCE_S
        while done.returncode == 1 and command.endswith(" status") and time.monotonic() < give_up:
            time.sleep(0.2)  # the page says to repeat it until every server is ready
            done = typed(state, command)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        missing = console.words(output) - console.words(done.stdout)
        assert not missing, f"{command} does not say {missing}:\n{done.stdout}"


def the_page_is_walked_up_to_the_reboot() -> None:
    """Every command ends well. A page of the backend is open while the doctor is asked, as it says there."""
    first, _ = halves()
    at = [shown.command for shown in first].index("sudo mcp-broker doctor")
    state: list[str] = []
    walk(first[:at], state)
    with a_page():
        walk(first[at:], state)


def _one_process_for_each() -> None:
    """The page has its answers, the secrets have arrived, and the backend starts no process."""
    with a_page() as said:
        assert said["time"] == ["convert_time", "get_current_time"], said
        assert said["now"] == f"keys of {KEYS} characters", said
    assert len(processes_of(BACKEND_USER)) == 1
    assert len(host.server_pids()) == 2


def the_secrets_are_where_only_root_reads_them() -> None:
    """Owner and mode of the two files; no secret in the config, in the journal or in a list of processes."""
    about = sh("stat -c '%n %a %U:%G' /etc/mcp-broker/broker.toml /etc/mcp-broker/environment").splitlines()
    assert about == [
        "/etc/mcp-broker/broker.toml 640 root:mcp-broker-config",
        "/etc/mcp-broker/environment 600 root:root",
    ]
    assert "planted" not in sh("cat /etc/mcp-broker/broker.toml; ps -eww -o args") + host.journal()


def without_sudo_it_says_sudo() -> None:
    """The files of the service are root's: the import says so, and changes nothing."""
    before = sh("cat /etc/mcp-broker/broker.toml")
    done = typed([], f"mcp-broker import {BACKEND}/mcp_servers.json --service --merge")
    assert (done.returncode, "请用 sudo 运行本命令" in done.stdout) == (2, True), done.stdout
    assert sh("cat /etc/mcp-broker/broker.toml") == before


def the_english_page_shows_what_the_commands_say() -> None:
    """The outputs on the English page, where the operator's language is English."""
    state = [shown.command for shown in steps() if _is_state(shown.command)]
    with a_page():
        for command, output in console.commands(ENGLISH):
            if output and re.search(r"mcp-broker (check|status|doctor)", command):
                done = typed(state, command, "en_GB.UTF-8")
                missing = console.words(output) - console.words(done.stdout) - {"clients"}  # a page is open
                assert not missing, f"{command} does not say {missing}:\n{done.stdout}"


def the_backup_has_the_config_and_the_secrets() -> None:
    """The commands of docs/troubleshooting.md, as they stand there."""
    shown = [one.command for one in console.commands(ROOT / "docs" / "troubleshooting.md")]
    backup = HOME / "mcp-broker-backup.tar.gz"
    for command in [command for command in shown if command.startswith("sudo ")]:
        done = typed([], command)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        assert sh(f"stat -c %a {backup}").strip() == "600", "never readable for others, not even for a moment"
    kept = sh(f"tar -tzf {backup}").split()
    assert {"etc/mcp-broker/broker.toml", "etc/mcp-broker/environment"} <= {*kept}, kept


# --- the reboot ----------------------------------------------------------------------------------------


def reboot() -> None:
    """Type it; this process ends with everything else, and is run again by the next boot."""
    done = typed([], "sudo reboot")
    time.sleep(COMMAND_S)
    raise AssertionError(f"no reboot: {done.returncode} {done.stdout}")


def the_page_is_walked_after_the_reboot() -> None:
    """Nobody has logged in: the boot has started the broker, and the doctor gives an A again."""
    _, rest = halves()
    with a_page():
        walk(rest, [])
    until(lambda: show("ActiveState") == "active")
    _one_process_for_each()


def the_fresh_host_page_leads_to_verdict_a() -> None:
    """From an mcp_servers.json to the doctor's A as a service, by nothing but the commands of the page."""
    if wheels.service_python() != wheels.DEBIAN_PYTHON:
        raise host.Skipped(f"{wheels.DEBIAN_PYTHON} is not there, or too old: the page is for Debian's")
    a_host_without_the_broker()
    before_the_page_the_backend_leaks()
    the_page_is_walked_up_to_the_reboot()
    _one_process_for_each()
    the_secrets_are_where_only_root_reads_them()
    without_sudo_it_says_sudo()
    the_english_page_shows_what_the_commands_say()
    the_backup_has_the_config_and_the_secrets()
    REBOOTED.touch()


CHECKS = (the_fresh_host_page_leads_to_verdict_a,)
AFTER_REBOOT = (the_page_is_walked_after_the_reboot,)
