"""Finds the users that may change a file, by its owner, group, mode and access list, and names them."""

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
    """Return the users that may write there besides the owner and root, in words; `None` if there are none.

    A group that has this user as its only member does not count, also while another group is the current one
    (newgrp(1)); nor does root's. If there is an access list, its mask stands in place of the group's mode, so
    the users are those that the list names.
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
    """Return the groups that may be private: the current one, the one in the user table, and root's."""
    import pwd

    own = {ROOT, os.getegid()}
    with suppress(KeyError):  # in a container a user need not have a name
        own.add(pwd.getpwuid(os.geteuid()).pw_gid)
    return own


def _members(gid: int) -> set[int]:
    """Return the uids of a group's users, without accounts of the system in root's group, as `sync`."""
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
    """Return the uids whose folders are trusted. In a user namespace, root has another uid: that of `/`."""
    return {ROOT, os.geteuid(), os.stat("/").st_uid}


def identity(about: os.stat_result) -> tuple[int, int]:
    """Return the device and inode, which identify a file."""
    return about.st_dev, about.st_ino


def is_fuse(device: int) -> bool:
    """Return whether a device is a file system in user space, whose server may report any owner and mode."""
    name = f" {os.major(device)}:{os.minor(device)} "
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        return any(name in mount and mount.partition(" - ")[2].startswith("fuse") for mount in mounts)


def kind_of(about: os.stat_result) -> str:
    """Return the kind of a file, in words."""
    return next((words for is_it, words in _KINDS if is_it(about.st_mode)), "a device")


def user(uid: int) -> str:
    """Return a user by name and uid, in words."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def user_name(uid: int) -> str:
    """Return the name of a user, or the uid if it has no name."""
    import pwd  # not there on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group(gid: int) -> str:
    """Return the name of a group, or the gid if it has no name."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
