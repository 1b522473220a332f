"""Every path that the product makes, trusts or changes, in trees that others have a hand in.

Held: nothing outside of the broker's own is made, changed or removed; nothing is run; and it either uses a
place that only this user and root can change, or says which path is at fault, why, and what to do.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config.schema import BrokerConfig
from broker.frontend.address import ListenAddress, claim
from broker.frontend.permissions import set_permissions
from broker.frontend.socket_file import ListenSocketFile
from broker.management.metrics_http import MetricsServer
from broker.processes import containers
from broker.processes.container_options import Container, ContainerNote
from broker.processes.leftovers import end_leftovers
from broker.processes.process import Launcher
from broker.processes.records import ProcessRecord, hold_records
from broker.service.claims import ClaimError
from client_shim.errors import BrokerError, NoBroker
from client_shim.transport.endpoint import probe
from tests.daemon.hostile import STRANGER, as_root, busy_stranger, make_victim, planted, seen, snapshot

IS_ROOT = os.getuid() == 0
MARK = "00000000000000aa.00000000000000bb"
NAME = "s.00000000000000bb"
RECORD = msgspec.json.encode(
    ProcessRecord(
        server="s",
        cookie=MARK,
        boot="another",
        cgroup="/",
        container=ContainerNote(engine="sh", where="", cidfile=f"state/{NAME}.cid"),
    )
)


class Refused(Exception):
    """It was not done, and this is what is said."""


# --- what the product does -------------------------------------------------------------------------------


def listen(base: Path) -> None:
    """A broker's start at a socket, and its end."""
    address = ListenAddress(f"ipc://{base}/b.sock")
    with claim(address):
        file = ListenSocketFile(address)
        fd = file.make()
        try:
            set_permissions(address, BrokerConfig(socket_mode="0660"))
            assert stat.S_IMODE((base / "b.sock").lstat().st_mode) == 0o660
        finally:
            file.remove()
            os.close(fd)


def keep_state(base: Path) -> None:
    """A broker's look at what an earlier one left, its own records, and its look after the directory."""
    with hold_records(base / "state") as records:
        launcher = Launcher(base, {"PATH": str(base)}, records, None, 1024)
        end_leftovers(records, None, lambda record: launcher.removal_of(record, None))
        record = ProcessRecord(server="t", cookie=records.new_cookie(), boot="")
        records.keep(record)
        records.mend()
        records.forget(record)


def open_metrics(base: Path) -> None:
    """The socket for the metrics."""
    MetricsServer(f"unix:{base}/m.sock", BrokerConfig()).close()


def remove_container(base: Path) -> None:
    """The end of a container whose id is in a file that the config names."""
    container = Container(engine=("/bin/false",), cidfile=str(base / "s.cid"))
    why = containers.end(container, {})
    if why is not None:
        raise Refused(why)


def connect(base: Path) -> None:
    """A client's look for a broker, in the folder that `XDG_RUNTIME_DIR` has for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(base.parent))
        with suppress(NoBroker):
            probe(f"ipc://{base}/broker.sock")


USES: dict[Callable[[Path], None], tuple[str, ...]] = {
    listen: ("b.sock", "b.sock.lock"),
    keep_state: (
        "state",
        "state/lock",
        "state/owner",
        f"state/{NAME}.json",
        f"state/{NAME}.json.new",
        f"state/{NAME}.cid",
    ),
    open_metrics: ("m.sock",),
    remove_container: ("s.cid",),
    connect: ("broker.sock",),
}
"""What is done → the names that it touches in its folder."""


# --- trees -----------------------------------------------------------------------------------------------


def a_record(path: Path) -> None:
    """Such as an earlier broker wrote."""
    path.write_bytes(RECORD)


def an_id(path: Path) -> None:
    """Such as an engine writes."""
    path.write_text("0123456789ab\n")


def a_kind(name: str) -> Callable[[Path], object]:
    """What `hostile.planted` has, in a tree with a victim of its own."""
    return lambda path: planted(path_of_victim(path))[name](path)


KINDS = {**{name: a_kind(name) for name in planted(Path())}, "a record": a_record, "an id": an_id}


def path_of_victim(path: Path) -> Path:
    """Every tree has it beside its top."""
    return next(folder for folder in path.parents if (folder / "victim").is_dir()) / "victim"


class Entry(NamedTuple):
    """What stands at a name, and whose it is."""

    kind: str
    his: bool


class Level(NamedTuple):
    """A folder on the way; `link`: its name is a link to where it is."""

    mode: int
    his: bool
    link: bool


HIS = st.booleans() if IS_ROOT else st.just(False)
LEVELS = st.one_of(
    st.builds(Level, st.sampled_from([0o755, 0o1777]), st.just(False), st.booleans()),  # which may be used
    st.builds(Level, st.sampled_from([0o755, 0o1777, 0o700]), st.just(False), st.just(False)),
    st.builds(Level, st.sampled_from([0o755, 0o700, 0o1777, 0o777, 0o775]), HIS, st.booleans()),
)
ENTRIES = st.builds(Entry, st.sampled_from(sorted(KINDS)), HIS)


@contextmanager
def tree(levels: list[Level], plants: Mapping[str, Entry]) -> Iterator[tuple[Path, Path, list[Path]]]:
    """The top with its victim, the folder that is used, and what stands there of another user or kind."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        top = Path(os.path.realpath(name))
        victim = make_victim(top / "victim")
        base, made = top / "a", [top / "a"]
        base.mkdir()
        for number, level in enumerate(levels):
            real = base / f"real{number}" if level.link else base / "mcp-broker"
            real.mkdir()
            if level.link:
                (base / "mcp-broker").symlink_to(real.name)
            made.append(real)
            base = base / "mcp-broker"
        others = []
        for name, entry in sorted(plants.items()):
            path = base / name
            if path.parent.is_dir() and not path.parent.is_symlink():
                KINDS[entry.kind](path)
                if entry.his and entry.kind != "another name of a file":
                    os.lchown(path, STRANGER, STRANGER)
                if (
                    entry.his
                    or path.is_symlink()
                    or not (path.is_file() or path.is_dir() or path.is_socket())
                ):
                    others.append(path)
        for real, level in zip(made[1:], levels, strict=True):
            real.chmod(level.mode)
            if level.his:
                os.chown(real, STRANGER, STRANGER)
        yield victim, base, others


def is_closed(path: Path) -> bool:
    """Whether only this user and root can change what is in a folder: another way to see it."""
    trusted = (0, os.getuid())
    for folder in (Path(os.path.realpath(path)), *Path(os.path.realpath(path)).parents):
        about = folder.stat()
        mode = about.st_mode & (0o022 if about.st_gid != os.getgid() else 0o002)
        if about.st_uid not in trusted or (mode and not about.st_mode & stat.S_ISVTX):
            return False
    return True


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What an engine is asked, in place of running it."""
    asked: list[list[str]] = []

    def run(command: list[str], *_: object) -> int:
        asked.append(command)
        return 0

    monkeypatch.setattr(containers, "_run", run)
    return asked


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_nothing_of_others_is_touched(
    use: Callable[[Path], None], data: st.DataObject, commands: list[list[str]]
) -> None:
    """Whatever stands on the way, and at the names that it uses."""
    levels = data.draw(st.lists(LEVELS, min_size=1, max_size=2))
    plants = data.draw(st.dictionaries(st.sampled_from(USES[use]), ENTRIES, max_size=3))
    commands.clear()
    with tree(levels, plants) as (victim, base, others):
        before = snapshot(victim), _attributes(others)
        try:
            use(base)
        except (ClaimError, Refused, BrokerError) as error:
            check_said(str(error), base)
        else:
            assert is_closed(base)
        assert (snapshot(victim), _attributes(others)) == before
        id_is_mine = plants.get("s.cid") == Entry("an id", False)
        assert not commands or (use is remove_container and id_is_mine and is_closed(base))


def _attributes(paths: list[Path]) -> list[tuple[Any, ...]]:
    """All of what each is, but for what is in a folder."""
    return [one[:4] if stat.S_ISDIR(one[1]) else one for one in map(seen, paths)]


def check_said(said: str, base: Path) -> None:
    """The path at fault, what is wrong with it, and the next step."""
    ways = [base, *base.parents, Path(os.path.realpath(base)), *Path(os.path.realpath(base)).parents]
    assert any(f"{way}" in said for way in ways if len(way.parts) > 2), said
    assert any(word in said for word in ("; ", "may be any container's", "does not hold the id")), said


# --- races -----------------------------------------------------------------------------------------------

SWAP = """
place, victim = sys.argv[1:]
renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
names = [f"{place}/his-{n}".encode() for n in range(3)]
os.mkdir(names[0], 0o777)
os.symlink(victim + "/folder", names[1])
os.mkdir(names[2] , 0o777)
for inner in ("b.sock", "b.sock.lock", "state"):
    os.symlink(victim + ("/folder" if inner == "state" else "/file"), f"{place}/his-2/{inner}")
print("ready", flush=True)
n = 0
while True:
    n += 1
    for name in ("mcp-broker", "b.sock", "b.sock.lock", "state", "m.sock", "s.cid"):
        path = f"{place}/{name}".encode()
        one = names[n % 3]
        if renameat2(-100, one, -100, path, 1):      # RENAME_NOREPLACE
            renameat2(-100, one, -100, path, 2)      # RENAME_EXCHANGE
        try:
            os.rename(path, one)
        except OSError:
            pass
    if n % 64 == 0:
        for one in names:  # one of another kind
            try: os.rename(one, one + b"x"); os.rename(one + b"x", one)
            except OSError: pass
"""


@as_root
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_what_another_user_swaps_meanwhile_is_not_touched_either(
    mode: int, commands: list[list[str]]
) -> None:
    """Between a look and a step he puts a link, a folder of his, or nothing: 400 times, or for 5 seconds."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name, ExitStack() as stack:
        top = Path(os.path.realpath(name))
        top.chmod(0o755)
        victim, shared = make_victim(top / "victim"), top / "t"
        shared.mkdir()
        shared.chmod(mode)
        before, done, refused = snapshot(victim), 0, 0
        stack.enter_context(busy_stranger(SWAP, shared, victim))
        until = time.monotonic() + 5
        for round in range(400):
            if time.monotonic() > until:
                break
            for use in (listen, keep_state, open_metrics, remove_container, connect):
                base = shared / "mcp-broker" if round % 2 or use is connect else shared
                try:
                    use(base)
                    done += use is not remove_container
                except (ClaimError, Refused, BrokerError):
                    refused += 1
                else:
                    if use in (listen, keep_state):
                        assert mode == 0o1777
            shutil.rmtree(shared / "mcp-broker", ignore_errors=True)  # so that there is a race the next time
        assert snapshot(victim) == before
        assert commands == []
        assert refused
        assert done or mode == 0o777
