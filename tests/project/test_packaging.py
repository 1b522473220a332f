"""The one distribution: what the wheel holds, what it asks for, and the thin install as a backend has it."""

from __future__ import annotations

import os
import re
import sys
from email.message import Message
from email.parser import Parser
from pathlib import Path
from subprocess import CompletedProcess, run
from zipfile import ZipFile

import pytest

import broker
from broker.command.entry import DAEMON_PACKAGES, DISTRIBUTION, hint
from broker.command.gateway import GATEWAY_PACKAGES
from broker.service.config_file import METRICS_PACKAGES
from tests.client_shim.backend.pythons import VERSIONS, thin_python
from tests.project.wheels import wheel

ROOT = Path(__file__).parents[2]
INSTALL = f"pip install '{DISTRIBUTION}[daemon]'"
"""By the distribution's name: `mcp-broker` on the package index is another project."""


def call(*command: str | Path, **environ: str) -> CompletedProcess[str]:
    """Run a command outside the source tree, with no language but what `environ` sets."""
    chosen = ("LC_", "LANG", "MCP_BROKER_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    return run(
        list(map(str, command)), cwd="/", env=kept | environ, capture_output=True, text=True, timeout=100
    )


def call_well(*command: str | Path) -> str:
    """The output of a command that is expected to go well."""
    done = call(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def metadata() -> Message:
    with ZipFile(wheel()) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module", params=VERSIONS)
def thin(request: pytest.FixtureRequest) -> Path:
    """The `bin` of an environment with the base install only, one for each Python that this machine has."""
    python = thin_python(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    return python.parent


# ---------------------------------------------------------------- the wheel


def test_the_wheel_holds_both_packages_and_nothing_else() -> None:
    """One distribution has the broker and the shim; tests and examples stay at home."""
    with ZipFile(wheel()) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    expected = {
        str(path.relative_to(ROOT))
        for package in ("broker", "client_shim")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(names) == expected
    assert {"broker/py.typed", "broker/core/__init__.py", "client_shim/py.typed"} <= expected


def test_the_base_install_is_thin(metadata: Message) -> None:
    """The design, section 3: the base install is pyzmq and msgpack."""
    base = [requirement for requirement in requirements(metadata) if "extra ==" not in requirement]
    assert names_of(base) == {"pyzmq", "msgpack"}


def test_the_extra_is_what_the_command_looks_for(metadata: Message) -> None:
    """The hint of `mcp-broker` names what is missing: it has to know all that the extra brings."""
    daemon = [requirement for requirement in requirements(metadata) if "extra == 'daemon'" in requirement]
    imported = {"pyyaml": "yaml"}
    assert {imported.get(name, name) for name in names_of(daemon)} == set(DAEMON_PACKAGES)


def test_the_extra_for_metrics_is_what_the_config_asks_for(metadata: Message) -> None:
    """A config with `metrics` is refused where the extra is not there, by the names of what it brings."""
    found = [requirement for requirement in requirements(metadata) if "extra == 'metrics'" in requirement]
    assert {name.replace("-", "_") for name in names_of(found)} == set(METRICS_PACKAGES)


def test_the_extra_for_the_gateway_is_what_its_command_looks_for(metadata: Message) -> None:
    """`mcp-broker gateway` says what is missing; the extra `http` is another name for the same."""

    def brought_by(extra: str) -> set[str]:
        return names_of([line for line in requirements(metadata) if f"extra == '{extra}'" in line])

    assert brought_by("gateway") - brought_by("daemon") == set(GATEWAY_PACKAGES)
    assert brought_by("http") == brought_by("gateway")


def test_the_metadata_says_what_it_is(metadata: Message) -> None:
    """One version, in `broker.__version__`; Python 3.10 or newer; MIT."""
    assert metadata["Name"] == DISTRIBUTION == "mcp-shared-broker"
    assert metadata["Version"] == broker.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    extras = {"bench", "daemon", "gateway", "http", "metrics", "examples", "dev"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras


def requirements(metadata: Message) -> list[str]:
    return [line.replace('"', "'") for line in metadata.get_all("Requires-Dist", [])]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


# ---------------------------------------------------------------- the thin install


def test_the_shim_works_without_the_extra(thin: Path) -> None:
    """A backend links `client_shim` and gets pyzmq and msgpack with it."""
    code = "from client_shim import BrokerClient, MCPClient; print(BrokerClient.__name__, MCPClient.__name__)"
    assert call_well(thin / "python", "-c", code) == "BrokerClient MCPClient\n"


def test_the_command_says_its_version_without_the_extra(thin: Path) -> None:
    """An operator asks the image of a backend which shim it has."""
    expected = f"mcp-broker, version {broker.__version__}\n"
    assert call_well(thin / "mcp-broker", "--version") == expected
    assert call_well(sys.executable, "-m", "broker", "--version") == expected


@pytest.mark.parametrize(
    "command", [["mcp-broker"], ["mcp-broker", "serve"], ["python", "-m", "broker"]], ids=" ".join
)
def test_the_command_says_what_to_install(thin: Path, command: list[str]) -> None:
    """The design, section 3: in the thin install the command prints the pip command and exits 2."""
    done = call(thin / command[0], *command[1:])
    assert done.returncode == 2
    assert done.stdout == ""
    assert INSTALL in done.stderr
    assert all(name in done.stderr for name in DAEMON_PACKAGES)
    assert "Traceback" not in done.stderr


def test_pip_knows_what_the_hint_names(thin: Path) -> None:
    """pip takes the installed distribution, on the package index or not, and looks for what it needs."""
    pip = (sys.executable, "-m", "pip", "--python", thin / "python", "install", "--dry-run", "--no-index")
    done = call(*pip, f"{DISTRIBUTION}[daemon]")
    assert "No matching distribution found for" in done.stderr
    assert f"No matching distribution found for {DISTRIBUTION}" not in done.stderr


def test_a_checkout_that_is_not_installed_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """There pip would ask the index for the name."""
    monkeypatch.setattr("broker.command.entry.DISTRIBUTION", "no-such-distribution")
    assert f"pip install '{ROOT}[daemon]'" in hint(["trio"])


@pytest.mark.parametrize(
    ("environ", "chinese"),
    [
        ({}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_MESSAGES": "zh_TW", "LANG": "en_US.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "", "LANG": "zh_CN.UTF-8"}, True),
        ({"MCP_BROKER_LANG": "zh", "LC_ALL": "en_GB.UTF-8"}, True),
    ],
    ids=str,
)
def test_the_hint_is_in_the_language_of_the_reader(
    thin: Path, environ: dict[str, str], chinese: bool
) -> None:
    """Its readers are Chinese and English; $MCP_BROKER_LANG decides, then the locale as POSIX has it."""
    hint = call(thin / "mcp-broker", **environ, PYTHONIOENCODING="utf-8").stderr
    assert ("安装" in hint) is chinese
    assert INSTALL in hint


def test_the_hint_can_be_printed_where_chinese_cannot(thin: Path) -> None:
    """A terminal without the characters still gets the command, and no traceback."""
    done = call(thin / "mcp-broker", LANG="zh_CN.UTF-8", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert INSTALL in done.stderr


def test_the_shim_loads_nothing_of_the_daemon() -> None:
    """Where all of it is installed, as here, importing the shim still loads none of it."""
    loaded = call_well(
        sys.executable,
        "-c",
        "import sys, client_shim.asyncio.client, client_shim.backend.mcp_client; print(*sys.modules)",
    )
    assert {"trio", "mcp", "click", "msgspec", "broker"} & set(loaded.split()) == set()


def test_make_run_installs_what_running_needs() -> None:
    """Neither linters nor test tools: who only wants to see it run waits for neither."""
    done = run(
        ["make", "--dry-run", "run", "PYTHON=python-of-this-test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (extras,) = re.findall(r"--editable '\.\[(.*)\]'", done.stdout)
    assert extras.split(",") == ["daemon", "gateway", "metrics", "examples"]
    assert "mcp-broker serve" in done.stdout
