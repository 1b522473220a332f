"""How a container of an earlier broker is removed: as config and broker say, never as a record says."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config.schema import ServerConfig
from broker.processes.container_options import ContainerNote, where_of
from broker.processes.containers import Removal, UnknownEngine, containerised, removal_of
from broker.processes.leftovers import end_leftovers
from broker.processes.process import Launcher
from broker.processes.program import SpawnError
from broker.processes.records import ProcessRecord, Records, boot, hold_records


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    """A folder with both engines, and one that is neither."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "podman", "sh"):
        (folder / name).write_text("#!/bin/false\n")
        (folder / name).chmod(0o755)
    return folder


def server(*args: str, command: str = "docker", **env: str) -> ServerConfig:
    """A server that is a container, with options before `run`."""
    return ServerConfig(name="s", command=command, args=(*args, "run", "mcp/s"), env=env)


def written(config: ServerConfig, environ: dict[str, str], cidfile: Path) -> ContainerNote:
    """What a broker with this config writes down of it."""
    container, _ = containerised(config, f"/opt/{config.command}", cidfile.parent, cidfile)
    assert container is not None
    return container.noted({**environ, **config.env})


def found(note: ContainerNote, config: ServerConfig | None, bin: Path, **environ: str) -> Removal:
    """What the next broker would do."""
    folder = bin.parent
    environ = {"PATH": str(bin), **environ}
    return removal_of(note, config, folder=folder, environ=environ, cidfile=folder / "s.cid")


def test_the_engine_is_the_config_s(bin: Path) -> None:
    """With the options and the environment of the server, found as the server's own command is."""
    config = server("--context", "far", DOCKER_HOST="ssh://far")
    note = written(config, {}, bin.parent / "s.cid")
    container, environ = found(note, config, bin)
    assert container.engine == (str(bin / "docker"), "--context", "far")
    assert environ["DOCKER_HOST"] == "ssh://far"


def test_of_a_server_that_is_gone_it_is_the_broker_s_own(bin: Path) -> None:
    """By its fixed name, where the command had no options."""
    for name in ("docker", "podman"):
        note = written(server(command=name), {}, bin.parent / "s.cid")
        for config in (None, ServerConfig(name="s", command="uvx"), server("-D", command=name)):
            assert found(note, config, bin).container.engine == (str(bin / name),)


OTHERS: dict[str, ServerConfig | None] = {
    "the server is gone": None,
    "it is another program": ServerConfig(name="s", command="uvx", args=("x",)),
    "it is another engine": server("--context", "far", command="podman"),
    "the options are others": server("--context", "near"),
    "the variables are others": server("--context", "far", DOCKER_HOST="ssh://near"),
}


@pytest.mark.parametrize("why", OTHERS)
def test_another_engine_is_not_asked(why: str, bin: Path) -> None:
    """Law 8: it would say that it has no such container, and that would be taken for its end."""
    note = written(server("--context", "far"), {}, bin.parent / "s.cid")
    with pytest.raises(UnknownEngine, match="the config has no docker with the options and variables"):
        found(note, OTHERS[why], bin)


def test_an_engine_that_others_can_replace_is_not_the_broker_s_own(bin: Path, tmp_path: Path) -> None:
    """Nor one in a folder that depends on where the broker was started."""
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    (open_to_all / "docker").symlink_to(bin / "docker")
    open_to_all.chmod(0o777)
    note = written(server(), {}, tmp_path / "s.cid")
    path = os.pathsep.join((str(open_to_all), "", ".", os.path.relpath(bin), str(bin)))
    assert found(note, None, bin, PATH=path).container.engine == (str(bin / "docker"),)
    with pytest.raises(UnknownEngine):
        found(note, None, bin, PATH=str(open_to_all))


def test_an_id_is_read_from_the_broker_s_own_file_or_the_config_s(bin: Path, tmp_path: Path) -> None:
    """Else a record could have any file of the machine removed."""
    note = ContainerNote(engine="docker", where=where_of([], {}), cidfile="/etc/passwd")
    with pytest.raises(UnknownEngine, match="/etc/passwd, which the config does not name"):
        found(note, None, bin)
    config = ServerConfig(name="s", command="docker", args=("run", "--cidfile", "my.cid", "mcp/s"))
    mine = written(config, {}, tmp_path / "s.cid")
    assert found(mine, config, bin).container.cidfile == str(tmp_path / "my.cid")


WORDS = st.sampled_from(["sh", "docker", "podman", "/bin/sh", "../sh", "", "docker\0", "-c"]) | st.text(
    max_size=8
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(engine=WORDS, where=WORDS | st.just(where_of([], {})), cidfile=WORDS, volumes=st.booleans())
def test_whatever_a_record_says_nothing_else_is_run(
    bin: Path, engine: str, where: str, cidfile: str, volumes: bool
) -> None:
    """Never is a program run because a record names it."""
    note = ContainerNote(engine=engine, where=where, cidfile=cidfile or str(bin.parent / "s.cid"))
    try:
        removal = found(note, None, bin)
    except UnknownEngine:
        return
    assert removal.container.engine in {(str(bin / name),) for name in ("docker", "podman")}
    assert removal.container.cidfile == str(bin.parent / "s.cid")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """A state directory."""
    with hold_records(tmp_path / "state") as records:
        yield records


def test_a_container_of_an_unknown_engine_is_told_and_its_server_waits(
    records: Records, bin: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Laws 1 and 9: until the config names that engine again, or somebody has removed it by hand."""
    launcher = Launcher(bin.parent, {"PATH": str(bin)}, records, None, 1024)
    record = ProcessRecord(server="s", cookie=records.new_cookie(), boot=boot())
    cidfile = records.cidfile(record)
    note = ContainerNote(engine="docker", where="elsewhere", cidfile=str(cidfile))
    records.keep(ProcessRecord(server="s", cookie=record.cookie, boot=boot(), container=note))
    cidfile.write_text("0123456789ab")
    with caplog.at_level(logging.ERROR, "mcp-broker"):
        end_leftovers(records, None, lambda one: launcher.removal_of(one, server()))
    assert [line.getMessage() for line in caplog.records] == ["broker.leftover_container"]
    assert len(records.earlier()) == 1
    with pytest.raises(SpawnError, match=r"the config has no docker with .* remove the container by hand"):
        trio.run(launcher.end_owed, server())
    assert cidfile.exists()
    cidfile.unlink()
    trio.run(launcher.end_owed, server())
    assert records.earlier() == []
