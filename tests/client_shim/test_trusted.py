"""Which folders and files are trusted: those that nobody but this user and root can change or replace."""

from __future__ import annotations

import os
import pwd
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client_shim import permissions
from client_shim.permissions import writers
from client_shim.trusted import Folder, Untrusted, is_safe_file, open_folder
from tests.daemon.hostile import STRANGER, as_root, make_victim, planted, snapshot


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder below the temp folder."""
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        yield Path(os.path.realpath(folder))


def refusal(path: Path, *, make: int = 0) -> Untrusted:
    """What is said where a folder is not trusted; it names what is at fault, and what to do."""
    with pytest.raises(Untrusted) as caught, open_folder(path, make=make):
        pass
    assert caught.value.path in caught.value.problem
    assert caught.value.mend
    return caught.value


# --- folders ---------------------------------------------------------------------------------------------


def test_folders_of_root_and_of_this_user_are_trusted(place: Path) -> None:
    """Below /tmp too, which is sticky: nobody else can rename or remove what is this user's there."""
    with open_folder(place) as folder:
        assert folder.path == str(place)
        assert not folder.is_shared
    with open_folder("/tmp") as folder:
        assert folder.is_shared
    with open_folder("/") as folder:
        assert folder.path == "/"


def test_missing_folders_are_made_for_this_user_alone(place: Path) -> None:
    """So many as were asked for, whatever the umask is, and no more."""
    before = os.umask(0)
    try:
        with open_folder(place / "a" / "b", make=2):
            pass
    finally:
        os.umask(before)
    assert [stat.S_IMODE((place / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]
    with pytest.raises(FileNotFoundError), open_folder(place / "c" / "d", make=1):
        pass
    assert not (place / "c").exists()


@pytest.mark.parametrize(("mode", "who"), [(0o777, "everybody"), (0o772, "everybody")])
def test_a_folder_that_others_may_write_to_is_refused_with_all_below_it(
    place: Path, mode: int, who: str
) -> None:
    """Whoever may write to it can put another folder in the place of the one below."""
    (place / "open" / "below").mkdir(parents=True)
    (place / "open").chmod(mode)
    for path in (place / "open", place / "open" / "below"):
        error = refusal(path)
        assert error.path == str(place / "open")
        assert error.problem.startswith(who)
        assert "chmod o-w" in error.mend


def test_in_a_sticky_folder_what_is_this_user_s_is_trusted_and_a_link_is_not(place: Path) -> None:
    """Nobody else can have made it; but a link can be given another name (link(2)) by anybody."""
    (place / "tmp").mkdir()
    (place / "tmp").chmod(0o1777)
    (place / "tmp" / "mine").mkdir()
    (place / "tmp" / "link").symlink_to("mine")
    with open_folder(place / "tmp" / "mine") as folder:
        assert not folder.is_shared
    assert "is a symbolic link in a folder where others may write" in refusal(place / "tmp" / "link").problem


def test_what_a_user_has_mounted_in_a_sticky_folder_says_nothing_of_its_owner(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FUSE, with `user_allow_other` in fuse.conf: root then sees whatever owner the user makes up."""
    mounts, device = place / "mountinfo", os.stat("/proc").st_dev
    monkeypatch.setattr(permissions, "MOUNTS", str(mounts))
    with open_folder("/") as folder:
        for shared, kind, trusted in ((True, "proc", True), (False, "fuse.x", True), (True, "fuse.x", False)):
            monkeypatch.setattr(folder, "_shared", shared)
            at = f"{os.major(device)}:{os.minor(device)}"
            mounts.write_text(f"1 0 0:0 / / rw - none none rw\n2 1 {at} / /x rw,nosuid - {kind} x rw\n")
            if trusted:
                folder.folder("proc").close()
            else:
                with pytest.raises(Untrusted, match="FUSE"):
                    folder.folder("proc")


def test_a_link_is_followed_where_nobody_else_can_have_made_it(place: Path) -> None:
    """As /var/run leads to /run: also one to another place, and one of several on the way."""
    (place / "real" / "in").mkdir(parents=True)
    (place / "relative").symlink_to("real")
    (place / "whole").symlink_to(place / "relative")
    (place / "up").symlink_to("real/in/..")
    for name in ("relative/in", "whole/in", "up/in", "up/./../real/in"):
        with open_folder(place / name) as folder, open_folder(place / "real" / "in") as real:
            assert folder.is_same(real)
            assert folder.path == str(place / "real" / "in")
    (place / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"), open_folder(place / "round"):
        pass
    (place / "dangling").symlink_to("new")
    with pytest.raises(FileNotFoundError), open_folder(place / "dangling", make=1):
        pass
    assert not (place / "new").exists()  # nothing is made through a link


def test_a_last_name_can_be_kept_from_being_a_link(place: Path) -> None:
    """A folder that is given another mode is named itself."""
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    with open_folder(place) as folder, pytest.raises(Untrusted, match="link is a symbolic link; name the"):
        folder.folder("link", make=True)


@as_root
@pytest.mark.parametrize("sticky", [True, False])
def test_a_folder_of_another_user_is_refused_with_all_below_it(place: Path, sticky: bool) -> None:
    """He can put anything in the place of what is in it, whatever its mode is now."""
    (place / "tmp" / "his" / "below").mkdir(parents=True)
    if sticky:
        (place / "tmp").chmod(0o1777)
    os.chown(place / "tmp" / "his", STRANGER, STRANGER)
    (place / "tmp" / "his").chmod(0o700)
    error = refusal(place / "tmp" / "his" / "below")
    assert error.path == str(place / "tmp" / "his")
    assert f"(uid {STRANGER})" in error.problem


@as_root
def test_a_link_of_another_user_is_refused(place: Path) -> None:
    """Also where he can make no further one: the folder was his once."""
    (place / "link").symlink_to("/run")
    os.lchown(place / "link", STRANGER, STRANGER)
    assert "is a symbolic link of user" in refusal(place / "link").problem


@as_root
def test_what_root_has_given_to_a_user_is_his_in_a_place_that_is_root_s_alone(place: Path) -> None:
    """As /run/mcp-broker is the service's: a client trusts whom root has let listen there."""
    (place / "his").mkdir()
    os.chown(place / "his", STRANGER, STRANGER)
    with open_folder(place) as parent, parent.folder("his", given=True):
        pass
    (place / "his").chmod(0o770)
    with open_folder(place) as parent, pytest.raises(Untrusted, match="group"):
        parent.folder("his", given=True)
    (place / "his").chmod(0o755)
    place.chmod(0o1777)
    with open_folder(place) as parent, pytest.raises(Untrusted):
        parent.folder("his", given=True)


# --- groups ----------------------------------------------------------------------------------------------


@as_root
def test_a_group_of_others_is_others_and_a_group_of_this_user_alone_is_not(place: Path) -> None:
    """Many systems give each user a group of his own, and a umask that lets it write."""
    os.chown(place, 0, STRANGER)
    place.chmod(0o770)
    assert "chmod g-w" in refusal(place).mend
    os.chown(place, 0, 0)
    with open_folder(place):
        pass


@pytest.mark.parametrize(
    ("members", "who"),
    [
        ({}, None),
        ({"sync": (5, 0), "halt": (7, 0), "operator": (11, 0)}, None),  # as Alpine and Red Hat have them
        ({"alice": (1001, 0)}, "group root"),
    ],
)
def test_accounts_of_the_system_in_root_s_group_are_no_users(
    monkeypatch: pytest.MonkeyPatch, members: dict[str, tuple[int, int]], who: str | None
) -> None:
    """Images for OpenShift give their folders to root's group (mode 0775), as the uid can be any."""
    table = [pwd.struct_passwd((name, "x", uid, gid, "", "/", "/")) for name, (uid, gid) in members.items()]
    monkeypatch.setattr(pwd, "getpwall", lambda: table)
    assert writers(of_group(0)) == who


def test_a_private_group_stays_one_while_another_group_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`newgrp docker` changes the group of the process, and no folder of its user."""
    me = pwd.struct_passwd(("me", "x", os.geteuid(), 4321, "", "/", "/"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    monkeypatch.setattr(pwd, "getpwall", lambda: [me])
    monkeypatch.setattr(os, "getegid", lambda: 999)
    assert writers(of_group(4321)) is None
    assert writers(of_group(4322)) == "group 4322"
    monkeypatch.setattr(pwd, "getpwall", lambda: [me, pwd.struct_passwd(("he", "x", 77, 4321, "", "/", "/"))])
    assert writers(of_group(4321)) == "group 4321"


def of_group(gid: int) -> os.stat_result:
    """A folder that its group may write to."""
    return os.stat_result((stat.S_IFDIR | 0o775, 1, 1, 2, 0, gid, 0, 0, 0, 0))


def test_an_access_list_names_others(place: Path) -> None:
    """acl(5): where there is one, the mode of the group is the most that anybody named in it has."""
    nobody = 0xFFFF_FFFF
    entries = ((1, 7, nobody), (2, 7, STRANGER), (4, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(place, "system.posix_acl_access", acl)  # `setfacl -m u:nobody:rwx`
    except OSError as error:
        pytest.skip(f"this file system has no access lists: {error.strerror}")
    assert "whoever its access list names" in refusal(place).problem


def test_who_may_write_is_said_by_the_mode(place: Path) -> None:
    """The one function that all others ask."""
    for mode, who in ((0o700, None), (0o755, None), (0o757, "everybody"), (0o1777, "everybody")):
        place.chmod(mode)
        assert writers(place.stat()) == who


# --- files -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(place: Path) -> Iterator[Folder]:
    """An open folder that is this user's alone."""
    (place / "mine").mkdir()
    with open_folder(place / "mine") as folder:
        yield folder


def test_a_file_is_made_for_this_user_alone_and_opened_again(folder: Folder) -> None:
    """Whole, or not at all, and with nothing left beside it."""
    with pytest.raises(FileNotFoundError):
        folder.open("lock")
    for _ in range(2):
        os.close(folder.open("lock", os.O_RDWR, make=True))
    folder.write("record", b"old")
    folder.write("record", b"new")
    assert folder.read("record", 3) == b"new"
    assert sorted(folder.names()) == ["lock", "record"]
    assert {stat.S_IMODE(os.stat(folder.where(name)).st_mode) for name in folder.names()} == {0o600}
    with pytest.raises(Untrusted, match="more than 2 bytes"):
        folder.read("record", 2)


GOOD = {"an empty file", "a file with something"}


@pytest.mark.parametrize("kind", sorted(planted(Path("/"))))
def test_what_is_no_file_of_this_user_s_alone_is_refused_and_stays(
    kind: str, folder: Folder, place: Path
) -> None:
    """Not opened, either: a FIFO would wait for somebody, and a device may do something."""
    victim = make_victim(place / "victim")
    planted(victim)[kind](Path(folder.where("it")))
    before = snapshot(place)
    for make in (False, True):
        if kind in GOOD:
            os.close(folder.open("it", os.O_RDWR, make=make))
        else:
            with pytest.raises(Untrusted) as caught:
                folder.open("it", os.O_RDWR, make=make)
            assert caught.value.path == folder.where("it")
    assert snapshot(place) == before


@as_root
def test_a_file_of_another_user_is_refused(folder: Folder) -> None:
    """He may hold a lock on it, and write what he likes."""
    os.close(folder.open("lock", make=True))
    os.chown(folder.where("lock"), STRANGER, STRANGER)
    with pytest.raises(Untrusted, match=rf"belongs to .*{STRANGER}"):
        folder.open("lock", os.O_RDWR, make=True)


def test_a_program_is_safe_where_nobody_else_can_replace_it(place: Path) -> None:
    """Nor a link on the way to it."""
    program = place / "docker"
    program.touch(0o755)
    (place / "bin").mkdir()
    (place / "bin" / "docker").symlink_to("../docker")
    links: dict[str, Callable[[], object]] = {
        "the folder of the link": lambda: (place / "bin").chmod(0o777),
        "the program": lambda: program.chmod(0o777),
    }
    for name, open_up in links.items():
        assert is_safe_file(str(place / "bin" / "docker")), name
        open_up()
        assert not is_safe_file(str(place / "bin" / "docker")), name
        (place / "bin").chmod(0o755)
        program.chmod(0o755)
    assert not is_safe_file(str(place / "none"))
