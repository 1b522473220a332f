"""Reads the environment and the user of the installed systemd unit, for `mcp-broker check`.

The unit files are read here rather than asked for with `systemctl show`: a container image or a chroot has
the files but no running systemd, and systemd names the files of `EnvironmentFile=` without their content.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from broker.command import environment_file

NAME = "mcp-broker.service"
FOLDERS = tuple(map(Path, ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")))
"""The folders in which systemd looks for `systemd/system`, by precedence."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The default PATH of a systemd unit: systemd.exec(5), $PATH."""
CONFIG_GROUP = "mcp-broker-config"
"""The group of the config and the keys, which systemd/mcp-broker.service gives to the broker only."""
SERVICE_PATH = f"/var/lib/mcp-broker/.local/bin:{DEFAULT_PATH}"
"""The PATH in systemd/mcp-broker.service."""

_SPECIFIERS = {"E": "/etc", "S": "/var/lib", "t": "/run", "C": "/var/cache", "h": "/root", "%": "%"}


class User(NamedTuple):
    """The user of the service, with the access that file modes give it. Access control lists are not read."""

    name: str
    uid: int
    gids: frozenset[int]

    @property
    def config_group(self) -> str:
        """The group that gives this user, and nobody else, access to the config and the keys."""
        return CONFIG_GROUP if group_id(CONFIG_GROUP) in self.gids else self.name

    def closed_at(self, path: Path, needed: int) -> Path | None:
        """Return the first folder above a file that this user may not enter, or the file that it may not use.

        Args:
            path: an absolute path.
            needed: the access that the file needs, as in `os.access`.
        """
        with suppress(OSError):  # this process cannot read the path itself
            for folder in reversed(path.parents):
                if not self._may(folder.stat(), os.X_OK):
                    return folder
            if not self._may(path.stat(), needed):
                return path
        return None

    def _may(self, about: os.stat_result, needed: int) -> bool:
        if self.uid == 0:
            return True
        shift = 6 if about.st_uid == self.uid else 3 if about.st_gid in self.gids else 0
        return stat.S_IMODE(about.st_mode) >> shift & needed == needed


class Unit(NamedTuple):
    """The service's user and environment.

    Attributes:
        unread: environment files that this process cannot read.
        comments: environment files with a comment that may hide the next line, and the number of its line.
    """

    path: Path
    user: User
    environ: dict[str, str]
    unread: list[Path]
    comments: Sequence[tuple[Path, int]] = ()


def installed(folders: Iterable[Path] = FOLDERS) -> Unit | None:
    """Return the unit that systemd would load, with its drop-ins; `None` without one."""
    places = [folder / "systemd" / "system" for folder in folders]
    path = next((place / NAME for place in places if (place / NAME).is_file()), None)
    if path is None:
        return None
    drop_ins = {file.name: file for place in reversed(places) for file in place.glob(f"{NAME}.d/*.conf")}
    lines = [line for file in (path, *map(drop_ins.get, sorted(drop_ins))) if file for line in _lines(file)]
    name = next(iter(reversed(_values(lines, "User"))), "root")
    group = next(iter(reversed(_values(lines, "Group"))), "")
    more = [word for value in _values(lines, "SupplementaryGroups") for word in value.split()]
    environ, unread, comments = _variables(lines)
    return Unit(path, _user(name, group, more), {**_usual(name), **environ}, unread, comments)


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of the section `[Service]`."""
    section = ""
    for line in re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8")).splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield key.strip(), re.sub("%(.)", lambda of: _SPECIFIERS.get(of[1], of[0]), value.strip())


def _values(lines: Iterable[tuple[str, str]], wanted: str) -> list[str]:
    """Return the values of one key. An empty value clears the list."""
    found: list[str] = []
    for key, value in lines:
        if key == wanted:
            found = [*found, value] if value else []
    return found


def _variables(
    lines: list[tuple[str, str]],
) -> tuple[dict[str, str], list[Path], list[tuple[Path, int]]]:
    """Return the variables of the unit and its environment files, and `unread` and `comments` of `Unit`."""
    words = [word for value in _values(lines, "Environment") for word in shlex.split(value)]
    named = {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
    unread, comments = [], []
    for value in _values(lines, "EnvironmentFile"):
        file = Path(value.removeprefix("-"))
        try:
            text = file.read_bytes().decode()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            unread.append(file)
            continue
        named |= environment_file.values_of(text)
        if line := environment_file.continued_comment(text):
            comments.append((file, line))
    credentials, closed = _credentials(lines)
    return {**credentials, **named}, [*unread, *closed], comments


def _credentials(lines: list[tuple[str, str]]) -> tuple[dict[str, str], list[Path]]:
    """Return the credentials of `LoadCredential=ID:PATH`; encrypted ones with an empty value."""
    encrypted = _values(lines, "LoadCredentialEncrypted")
    found = dict.fromkeys((value.partition(":")[0] for value in encrypted), "")
    unread = []
    for value in _values(lines, "LoadCredential"):
        name, _, path = value.partition(":")
        try:
            found[name] = Path(path or name).read_text(encoding="utf-8").removesuffix("\n")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            unread.append(Path(path))
    return found, unread


def _usual(user: str) -> dict[str, str]:
    """Return the variables that systemd sets by itself."""
    environ = {"PATH": DEFAULT_PATH, "USER": user, "LOGNAME": user}
    with suppress(KeyError):
        about = pwd.getpwnam(user)
        environ |= {"HOME": about.pw_dir, "SHELL": about.pw_shell}
    return environ


def group_id(name: str) -> int | None:
    """Return the number of a group, which may also be given as a number; `None` if there is no such group."""
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _user(name: str, group: str, more: Iterable[str]) -> User:
    """Return a user with the groups that systemd gives to its process: systemd.exec(5), User= and Group=."""
    try:
        about = pwd.getpwnam(name)
    except KeyError:
        return User(name, -1, frozenset())
    primary = group_id(group) if group else None
    gids = {*os.getgrouplist(name, about.pw_gid if primary is None else primary), *map(group_id, more)}
    return User(name, about.pw_uid, frozenset(gid for gid in gids if gid is not None))
