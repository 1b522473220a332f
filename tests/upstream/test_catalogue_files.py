"""The files of kept catalogues: believed as a whole and under the same program, else thrown away."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from broker.config.schema import ServerConfig
from broker.core.mcp.agreement import Agreed
from broker.core.mcp.methods import Era
from broker.core.servers.catalogue import Listing
from broker.core.servers.kept import FORMAT, KeptCatalogue
from broker.upstream.catalogue_files import FOLDER, KEY, MAX_FILE_BYTES, CatalogueFiles, NotKeptError
from client_shim.trusted import Folder

SECRET = "s3cr3t-0123456789-abcdef"
CONFIG = ServerConfig(name="time", command="server", args=("--zone", "utc"), env={"TOKEN": SECRET})
ENVIRON = {"PATH": "/usr/bin", "HOME": "/home/x", "TERM": "xterm"}


def kept(*names: str, text: str = "") -> KeptCatalogue:
    """A catalogue with these tools."""
    items = {name: msgspec.json.encode({"name": name, "description": text}) for name in names}
    agreed = Agreed(Era.LEGACY, "2025-11-25", {"tools": {}}, {"name": "x"}, "Be kind.")
    return KeptCatalogue(agreed, Era.LEGACY, {"tools/list": Listing("tools", items)}, frozenset())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    return folder


def files(state: Path, environ: dict[str, str] | None = None) -> CatalogueFiles:
    """The files, as a broker that has just started sees them."""
    return CatalogueFiles(state, state, ENVIRON if environ is None else environ, 1_000_000)


def loaded(state: Path, config: ServerConfig = CONFIG, environ: dict[str, str] | None = None) -> list[str]:
    """The tools that the next broker knows."""
    found = files(state, environ).load({config.name: config})
    return [name for one in found.values() for name in one.lists["tools/list"].items]


def path_of(state: Path) -> Path:
    """The file of the server."""
    return state / FOLDER / "time.catalogue"


def test_the_next_broker_has_what_was_kept(state: Path) -> None:
    """Also after it was written again; nobody else may read it, and nothing half written stays."""
    files(state).write(CONFIG, kept("a"))
    files(state).write(CONFIG, kept("b", "c"))
    assert loaded(state) == ["b", "c"]
    assert sorted(path.name for path in (state / FOLDER).iterdir()) == [KEY, "time.catalogue"]
    for path in (state / FOLDER, *(state / FOLDER).iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_nothing_secret_is_in_it(state: Path) -> None:
    """Not the environment, and no digest that a guess could be compared with: that takes the key."""
    files(state).write(CONFIG, kept("a"))
    content = path_of(state).read_bytes()
    assert SECRET.encode() not in content
    other = state / "other"
    other.mkdir(0o700)
    files(other).write(CONFIG, kept("a"))
    assert content.partition(b"\n")[0] != path_of(other).read_bytes().partition(b"\n")[0]


def test_a_catalogue_with_a_secret_is_not_kept(state: Path) -> None:
    """A server may repeat what it was given; then the earlier file goes as well."""
    files(state).write(CONFIG, kept("a"))
    with pytest.raises(NotKeptError, match="secrets"):
        files(state).write(CONFIG, kept("a", text=f"uses {SECRET}"))
    assert loaded(state) == []


@pytest.mark.parametrize(
    "change",
    [
        {"command": "other"},
        {"args": ("--zone",)},
        {"args": ("--zone utc",)},
        {"env": {"TOKEN": SECRET + "x"}},
        {"env": {}},
        {"env_inherit": ("EXTRA",)},
        {"cwd": "elsewhere"},
        {"protocol": "legacy"},
    ],
)
def test_another_program_has_no_lists(
    state: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """The same name with another command, other arguments or another environment is another server."""
    environ = {**ENVIRON, "EXTRA": "1"}
    files(state, environ).write(CONFIG, kept("a"))
    with caplog.at_level(logging.INFO, "mcp-broker"):
        assert loaded(state, structs.replace(CONFIG, **change), environ) == []
    assert [record.message for record in caplog.records] == ["catalogue.outdated"]
    assert not path_of(state).exists()


def test_the_terminal_and_the_other_keys_change_no_program(state: Path) -> None:
    """A broker that is started by hand after the service, and a longer timeout."""
    files(state).write(CONFIG, kept("a"))
    assert loaded(state, structs.replace(CONFIG, timeout=5.0), {**ENVIRON, "TERM": "dumb"}) == ["a"]
    assert loaded(state, CONFIG, {**ENVIRON, "PATH": "/opt/bin"}) == []


def cut(path: Path) -> None:
    """The disk lost the end."""
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    """The disk lost everything."""
    path.write_bytes(b"")


def changed(path: Path) -> None:
    """One letter."""
    path.write_bytes(path.read_bytes().replace(b'"name":"a"', b'"name":"b"'))


def newer(path: Path) -> None:
    """A later broker wrote it."""
    path.write_bytes(b'{"format":%d,"x":1}\n{}' % (FORMAT + 1))


def foreign(path: Path) -> None:
    """It is something else."""
    path.write_bytes(b"[" * 100_000)


def renamed(path: Path) -> None:
    """It is of another server."""
    files(path.parents[1]).write(structs.replace(CONFIG, name="other"), kept("a"))
    (path.parent / "other.catalogue").rename(path)


def linked(path: Path) -> None:
    """A link to a file with the right content."""
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def twice(path: Path) -> None:
    """A file with a second name."""
    os.link(path, path.parents[2] / "second")


def writable(path: Path) -> None:
    """Others could have written it."""
    path.chmod(0o666)


def huge(path: Path) -> None:
    """More than any broker writes."""
    path.write_bytes(path.read_bytes() + b" " * MAX_FILE_BYTES)


def other_key(path: Path) -> None:
    """The key of another state directory."""
    (path.parent / KEY).write_text("0" * 64)


@pytest.mark.parametrize(
    "harm",
    [cut, empty, changed, newer, foreign, renamed, linked, twice, writable, huge, other_key],
    ids=lambda harm: harm.__name__,
)
def test_a_file_that_is_not_believed_is_told_and_thrown_away(
    state: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: once, with the server, the path and the reason; then it is read anew."""
    path = path_of(state)
    files(state).write(CONFIG, kept("a"))
    harm(path)
    assert loaded(state) == []
    (record,) = caplog.records
    assert (record.message, record.levelname) == ("catalogue.discarded", "WARNING")
    facts = vars(record)
    assert (facts["server"], facts["path"]) == ("time", str(path))
    assert facts["reason"]
    assert not os.path.lexists(path)
    caplog.clear()
    assert loaded(state) == []
    assert caplog.records == []
    files(state).write(CONFIG, kept("new"))
    assert loaded(state) == ["new"]


@pytest.mark.parametrize("content", [None, b"", b"x" * 64, b"0" * 1000])
def test_without_its_key_nothing_is_believed(state: Path, content: bytes | None) -> None:
    """A new key is made; with it the catalogues are kept again."""
    files(state).write(CONFIG, kept("a"))
    key = state / FOLDER / KEY
    key.unlink() if content is None else key.write_bytes(content)
    assert loaded(state) == []
    files(state).write(CONFIG, kept("b"))
    assert loaded(state) == ["b"]


def test_a_folder_that_is_a_link_is_neither_read_nor_written(
    state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can make it could choose what the broker writes to."""
    target = tmp_path / "target"
    target.mkdir(0o700)
    (state / FOLDER).symlink_to(target)
    assert loaded(state) == []
    assert [record.message for record in caplog.records] == ["catalogues.unreadable"]
    with pytest.raises(NotKeptError, match="symbolic link"):
        files(state).write(CONFIG, kept("a"))
    assert list(target.iterdir()) == []


def test_a_full_disk_leaves_no_file(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor an old one, whose lists are not those of today."""
    files(state).write(CONFIG, kept("a"))
    written = Folder.write

    def full(self: Folder, name: str, content: bytes) -> None:
        if name != KEY:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, name, content)

    monkeypatch.setattr(Folder, "write", full)
    with pytest.raises(NotKeptError, match="No space left"):
        files(state).write(CONFIG, kept("b"))
    assert [path.name for path in (state / FOLDER).iterdir()] == [KEY]


def test_a_catalogue_that_is_too_large_is_not_kept(state: Path) -> None:
    """Law 6: the whole of it has a limit."""
    with pytest.raises(NotKeptError, match=str(MAX_FILE_BYTES)):
        files(state).write(CONFIG, kept("a", text="x" * MAX_FILE_BYTES))


def test_the_files_of_servers_that_are_gone_are_removed(state: Path) -> None:
    """Law 6: nothing grows with the names that were ever configured; what is no catalogue stays."""
    for name in ("time", "gone", "disabled"):
        files(state).write(structs.replace(CONFIG, name=name), kept("a"))
    (state / FOLDER / "gone.catalogue.new").write_bytes(b"{")
    (state / FOLDER / "README").write_bytes(b"")
    configs = {"time": CONFIG, "disabled": structs.replace(CONFIG, name="disabled", enabled=False)}
    assert files(state).load(configs).keys() == {"time"}
    assert sorted(path.name for path in (state / FOLDER).iterdir()) == [
        "README",
        "disabled.catalogue",
        KEY,
        "time.catalogue",
    ]


def test_a_state_directory_that_was_cleaned_away_is_used_again(state: Path) -> None:
    """What cleans temporary folders takes this one as well; the broker goes on with its key."""
    broker = files(state)
    broker.write(CONFIG, kept("a"))
    for path in (state / FOLDER).iterdir():
        path.unlink()
    (state / FOLDER).rmdir()
    broker.write(CONFIG, kept("b"))
    assert loaded(state) == ["b"]
