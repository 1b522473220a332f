"""Dockerfile, compose.yaml and what they name: what is known of them without an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import tomli
import yaml
from packaging.version import Version

from broker.config.loading import load
from broker.gateway.settings import read
from docs.blocks import docker
from docs.blocks.markdown import TEXTS
from tests.docker import checks, dockerfile, engine, pins
from tests.docker.dockerfile import Instruction
from tests.project.wheels import pip

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "examples/docker/backend.Dockerfile"]
every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)

CONFIGS = ROOT / "examples/docker/config"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
BROKER, BACKEND = COMPOSE["services"]["mcp-broker"], COMPOSE["services"]["backend"]
GATEWAY = COMPOSE["services"]["gateway"]

SERVICE_KEYS = {
    *(
        "build",
        "command",
        "depends_on",
        "environment",
        "healthcheck",
        "image",
        "logging",
        "ports",
        "profiles",
        "restart",
        "volumes",
    ),
    *(
        "cap_drop",
        "group_add",
        "init",
        "mem_limit",
        "pids_limit",
        "read_only",
        "security_opt",
        "tmpfs",
        "user",
    ),
    "stop_grace_period",
}
"""Those keys of a service, as the Compose specification has them, that a service here may have."""


def image() -> list[Instruction]:
    """The last stage of the broker's Dockerfile, with what stands before all stages."""
    stages = dockerfile.read(ROOT / "Dockerfile")
    return stages[0] + stages[-1]


VARIABLES = dockerfile.variables(image())
CONFIG = load(tomli.loads((CONFIGS / "broker.toml").read_text(encoding="utf-8")), VARIABLES)
ENDPOINT = VARIABLES["MCP_BROKER_ENDPOINT"]


# --- the images --------------------------------------------------------------------------------------------


@every_dockerfile
def test_every_instruction_is_one(path: Path) -> None:
    """Linted as far as it can be: known words, a FROM before all but ARG, exec forms that parse."""
    before, *stages = dockerfile.read(path)
    assert {one.word for one in before} <= {"ARG"}
    assert stages
    for one in (one for stage in stages for one in stage):
        assert one.word in dockerfile.KNOWN, one
        assert one.rest, one
        if one.word in ("ENTRYPOINT", "CMD", "VOLUME", "HEALTHCHECK"):
            assert all(isinstance(word, str) for word in one.command)


@every_dockerfile
def test_every_base_is_slim_debian_of_a_named_release(path: Path) -> None:
    """A build of next year is one of this year: no `latest`, and no Python that the project does not know."""
    before, *stages = dockerfile.read(path)
    for stage in stages:
        base = dockerfile.filled(stage[0].rest.split()[0], dockerfile.arguments(before))
        assert re.fullmatch(r"python:3\.1[0-3]-slim-trixie", base)


@every_dockerfile
def test_nothing_runs_as_root_and_no_secret_is_in_a_layer(path: Path) -> None:
    """A user with a number, and no variable that would hold a key."""
    last = dockerfile.read(path)[-1]
    given = dockerfile.arguments(last)
    user = dockerfile.filled(dockerfile.only(last, "USER").rest, given)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [*given, *dockerfile.variables(last)]
    assert not [name for name in names if re.search("KEY|TOKEN|SECRET|PASSWORD", name)]


@every_dockerfile
def test_what_is_copied_is_there_and_gets_past_dockerignore(path: Path) -> None:
    """A build that fails at its first COPY; and a context with nothing in it that no COPY takes."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for one in (one for stage in dockerfile.read(path) for one in stage if one.word == "COPY"):
        if not one.rest.startswith("--from="):
            for source in one.rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(
                    fnmatchcase(f"{source}/", f"{rule[1:]}/*") or f"!{source}" == rule for rule in rules
                )


@every_dockerfile
def test_what_is_copied_is_enough_to_build_the_wheel(path: Path, tmp_path: Path) -> None:
    """The build stage has these files and no others: the command that it runs there goes well."""
    stage = next(stage for stage in dockerfile.read(path) if any("pip install" in one.rest for one in stage))
    for one in stage:
        if one.word == "COPY" and one.rest.split()[-1] in ("./", "broker", "client_shim"):
            *sources, target = one.rest.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(
                        ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(ROOT / source, tmp_path / target)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "wheel"), str(tmp_path))
    assert len(list((tmp_path / "wheel").glob("mcp_shared_broker-*.whl"))) == 1


def test_the_image_has_what_a_service_needs() -> None:
    """An init that reaps and passes signals on, a health check, the folder as a volume."""
    stage = image()
    assert dockerfile.only(stage, "ENTRYPOINT").command == ["tini", "--", "mcp-broker"]
    assert "tini" in next(one.rest for one in stage if one.word == "RUN" and "apt-get" in one.rest)
    assert dockerfile.only(stage, "HEALTHCHECK").command == ["mcp-broker", "status", "--broker"]
    assert BROKER["healthcheck"]["test"] == ["CMD", "mcp-broker", "status", "--broker"]
    folders = dockerfile.only(stage, "VOLUME").command
    assert ENDPOINT.removeprefix("ipc://").startswith(f"{folders[0]}/")


def test_the_image_is_built_without_a_word_to_a_registry_but_for_its_base() -> None:
    """A `# syntax` line fetches the front end of the builder first, and nothing here needs a newer one."""
    for path in DOCKERFILES:
        assert "syntax=" not in path.read_text(encoding="utf-8").partition("FROM")[0]


def test_dependencies_are_a_layer_before_the_source() -> None:
    """A change of the source does not fetch them again: what is copied before them is not the source."""
    stage = dockerfile.read(ROOT / "Dockerfile")[1]
    words = [f"{one.word} {one.rest}" for one in stage]
    fetched = next(at for at, word in enumerate(words) if "--constraint constraints.txt" in word)
    assert "COPY broker broker" in words[fetched:]


def test_the_broker_s_python_is_not_in_path() -> None:
    """A server's `python` is the image's: neither its packages nor its version follow the broker's."""
    assert "PATH" not in VARIABLES
    assert any("/usr/local/bin/mcp-broker" in one.rest for one in image() if one.word == "RUN")


def test_any_config_works_in_the_image() -> None:
    """An imported one has no `[broker]`: mode of the socket and state directory are in the environment."""
    assert load({"servers": {"a": {"command": "x"}}}, VARIABLES).broker == CONFIG.broker
    assert CONFIG.broker.socket_mode == "0660"
    assert CONFIG.broker.state_dir is not None
    assert any(CONFIG.broker.state_dir.startswith(f"{folder}/") for folder in BROKER["tmpfs"])


def test_the_versions_in_the_image_are_of_today() -> None:
    """Each package is pinned that pip would fetch, in a series that the tests ran with."""
    installed, pinned = pins.installed(), pins.pinned()
    renew = "renew them: python -m tests.docker.pins"
    assert pinned.keys() == installed.keys(), renew
    series = {name: (_series(pinned[name]), _series(installed[name])) for name in pinned}
    assert not [name for name, (old, new) in series.items() if old < new], renew


def _series(version: str) -> tuple[int, ...]:
    """The numbers up to the first that is not 0: what changes together with what callers see."""
    release = Version(version).release
    first = next((at for at, number in enumerate(release) if number), 0)
    return release[: first + 1]


def test_every_runtime_that_the_config_names_is_in_the_image() -> None:
    """Where the servers' runtimes come from: `UV=yes` has uv and uvx."""
    runtimes = {"uv", "uvx"} if dockerfile.arguments(image())["UV"] == "yes" else set()
    assert {server.command for server in CONFIG.servers.values()} <= runtimes


# --- compose -----------------------------------------------------------------------------------------------


def test_the_compose_file_is_one() -> None:
    """The essentials of the Compose specification: known keys, volumes and services that are declared."""
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in COMPOSE["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert service["restart"] in ("no", "always", "on-failure", "unless-stopped")
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (
                volume
            )
            assert target.startswith("/")
            assert mode in ([], ["ro"])
        for other, wanted in service.get("depends_on", {}).items():
            assert other in COMPOSE["services"]
            assert wanted["condition"] in (
                "service_started",
                "service_healthy",
                "service_completed_successfully",
            )
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())


@pytest.mark.parametrize("service", [BROKER, BACKEND, GATEWAY], ids=["mcp-broker", "backend", "gateway"])
def test_what_is_built_is_there(service: dict[str, Any]) -> None:
    """A Dockerfile that exists, and build arguments that it has."""
    path = ROOT / service["build"]["context"] / service["build"].get("dockerfile", "Dockerfile")
    given = dockerfile.arguments(dockerfile.read(path)[-1])
    assert service["build"].get("args", {}).keys() <= given.keys()
    assert all(isinstance(value, str) for value in service["build"].get("args", {}).values())


def test_the_numbers_and_the_folder_match_on_both_sides() -> None:
    """Ids that must match, the folder that is shared, and who waits for whom."""
    assert BACKEND["group_add"] == [dockerfile.arguments(image())["GID"]]
    assert CONFIG.broker.socket_mode == "0660"
    assert BACKEND["user"].split(":")[0] != dockerfile.arguments(image())["UID"]
    assert BACKEND["environment"]["MCP_BROKER_ENDPOINT"] == ENDPOINT
    assert "mcp-socket:/run/mcp-broker" in BROKER["volumes"]
    assert "mcp-socket:/run/mcp-broker:ro" in BACKEND["volumes"]
    assert BACKEND["depends_on"]["mcp-broker"]["condition"] == "service_healthy"


def test_the_broker_is_bounded_and_restarted() -> None:
    """A memory limit, a restart policy, no privileges, and a log that does not fill the disk."""
    assert {"mem_limit", "pids_limit", "restart", "read_only", "logging"} <= BROKER.keys()
    assert BROKER["cap_drop"] == ["ALL"]
    seconds = int(BROKER["stop_grace_period"].removesuffix("s"))
    stop_s = max(server.timeout_stop_sec for server in CONFIG.servers.values())
    assert seconds > CONFIG.limits.drain_sec + 2 * stop_s, "Docker would kill it while it ends its servers"


@pytest.mark.parametrize("service", [BROKER, GATEWAY], ids=["mcp-broker", "gateway"])
def test_health_checks_need_no_quotes(service: dict[str, Any]) -> None:
    """podman-compose joins the words of CMD for a shell, without quotes; CMD-SHELL has a line already."""
    kind, *words = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL" or all(re.fullmatch(r"[\w./-]+", word) for word in words)


def test_the_gateway_is_wanted_by_name_and_for_this_host() -> None:
    """A profile of its own; its port is published to loopback only, and what it writes is its own."""
    settings = read(CONFIGS / "gateway.toml")
    (port,) = GATEWAY["ports"]
    assert GATEWAY["profiles"] == ["gateway"]
    assert port == "127.0.0.1:${MCP_GATEWAY_PORT:-8420}:8420"
    assert settings.gateway.listen == ("0.0.0.0:8420",)
    assert settings.gateway.token
    assert "mcp-socket:/run/mcp-broker:ro" in GATEWAY["volumes"]
    state = GATEWAY["environment"]["STATE_DIRECTORY"]
    assert f"mcp-gateway:{state}" in GATEWAY["volumes"]
    assert any(f'-o "$UID" -g "$GID" {state}' in one.rest for one in image() if one.word == "RUN")
    assert {"mem_limit", "pids_limit", "restart", "read_only", "logging"} <= GATEWAY.keys()
    assert GATEWAY["cap_drop"] == ["ALL"]
    assert int(GATEWAY["stop_grace_period"].removesuffix("s")) > settings.limits.drain_sec + 4


# --- what `make docker-test` found ----------------------------------------------------------------------


def test_what_the_page_says_was_run_is_what_the_checks_are() -> None:
    """Each check is in the page with its text, in their order, and each figure in both languages."""
    found, texts = docker.found(), TEXTS["docker"]
    names = [check.__name__ for check in checks.CHECKS]
    assert [one["name"] for one in found["checks"]] == names, "make docker-test"
    assert list(texts["check"]) == names
    assert {one["what"] for check in found["checks"] for one in check["figures"]} == set(texts["figure"])
    for check in found["checks"]:
        within = all(one["measured"] <= one.get("bound", one["measured"]) for one in check["figures"])
        assert within or not check["held"]


@pytest.mark.parametrize(
    ("language", "here", "needs"),
    [
        (
            "en",
            "the image cannot be run here: there is no docker; and for tests/docker/with-docker: ",
            "it needs",
        ),
        ("zh", "无法在这里运行镜像：没有 docker 命令；tests/docker/with-docker 也不可用：", "需要"),
    ],
)
def test_without_an_engine_it_says_why(tmp_path: Path, language: str, here: str, needs: str) -> None:
    """`make docker-test` never passes for want of an engine, and says why in the reader's language."""
    environ = {"PATH": f"{tmp_path}", "HOME": str(tmp_path), "MCP_BROKER_LANG": language}
    command = [sys.executable, "-m", "tests.docker"]
    tools = ("env", "bash")
    for tool in tools:
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout.startswith(here)
    assert needs in done.stdout


def test_containers_speak_english_to_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks read what the broker prints, whatever the reader's language is (compose.yaml takes it)."""
    monkeypatch.setenv("MCP_BROKER_LANG", "zh")
    assert "MCP_BROKER_LANG=en" in engine.run("env").stdout
