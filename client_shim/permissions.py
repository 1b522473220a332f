"""Who may change a file, by its owner, its group, its mode and its access list; in words, too."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

ROOT = 0
_OF_THE_SYSTEM = range(100)
"""The uids that a distribution gives out itself (LSB Core, "User ID Ranges")."""

EVERYBODY = "everybody"
MOUNTS = "/proc/self/mountinfo"
_ACL = "system.posix_acl_access"
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a FIFO"),
)


def writers(about: os.stat_result, fd: int | None = None) -> str | None:
    """Who may write there beside its owner and root; `None` is nobody.

    A private group of this user, as many systems make one, is nobody else, also while another group is the
    current one (newgrp(1)); so is root's. An access list makes of it whom it names: its mask stands in the
    place of the group's mode.
    """
    if about.st_mode & stat.S_IWOTH:
        return EVERYBODY
    if not about.st_mode & stat.S_IWGRP:
        return None
    if fd is not None and _has_list(fd):
        return "whoever its access list names"
    if about.st_gid in _own_groups() and _members(about.st_gid) <= {ROOT, os.geteuid()}:
        return None
    return f"group {group(about.st_gid)}"


def _has_list(fd: int) -> bool:
    try:
        return bool(
            os.getxattr(f"/proc/self/fd/{fd}", _ACL)
        )  # by its path: an O_PATH descriptor has no other way
    except OSError:
        return False


def _own_groups() -> set[int]:
    """The groups that may be private ones: the current one, that of the user table, and root's."""
    import pwd

    own = {ROOT, os.getegid()}
    with suppress(KeyError):  # in a container a user need not have a name
        own.add(pwd.getpwuid(os.geteuid()).pw_gid)
    return own


def _members(gid: int) -> set[int]:
    """The uids of a group's users.

    Some distributions have accounts of their own in root's group, as `sync` and `halt`: they are no users.
    """
    import grp
    import pwd

    of_system = _OF_THE_SYSTEM if gid == ROOT else ()
    uids = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid and entry.pw_uid not in of_system}
    with suppress(KeyError):
        for name in grp.getgrgid(gid).gr_mem:
            with suppress(KeyError):
                uids.add(pwd.getpwnam(name).pw_uid)
    return uids


def owners() -> set[int]:
    """Whose folders are trusted on the way. Who owns `/` can change everything: in a user namespace that is
    root under another number."""
    return {ROOT, os.geteuid(), os.stat("/").st_uid}


def identity(about: os.stat_result) -> tuple[int, int]:
    """By what a file is the same one."""
    return about.st_dev, about.st_ino


def is_fuse(device: int) -> bool:
    """Whether a device is a file system in user space, whose server says what owner and mode it likes."""
    name = f" {os.major(device)}:{os.minor(device)} "
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        return any(name in mount and mount.partition(" - ")[2].startswith("fuse") for mount in mounts)


def kind_of(about: os.stat_result) -> str:
    """What it is, in words."""
    return next((words for is_it, words in _KINDS if is_it(about.st_mode)), "a device")


def user(uid: int) -> str:
    """A user by name and number."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def user_name(uid: int) -> str:
    """A user by name, or by number without one."""
    import pwd  # not there on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group(gid: int) -> str:
    """A group by its name, or by its number where it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
