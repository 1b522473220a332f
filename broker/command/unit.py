"""The installed unit, as far as `mcp-broker check` has to know it: the service's variables and its user."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

NAME = "mcp-broker.service"
FOLDERS = tuple(map(Path, ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")))
"""Where systemd looks for `systemd/system`, the first one first."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPECIFIERS = {"E": "/etc", "S": "/var/lib", "t": "/run", "C": "/var/cache", "h": "/root", "%": "%"}


class User(NamedTuple):
    """Who the service runs as, and what the modes of files let it do; of access lists nothing is known."""

    name: str
    uid: int
    gids: frozenset[int]

    def closed_at(self, path: Path, needed: int) -> Path | None:
        """The first folder on the way to a file that this user may not enter, or else the file itself.

        Args:
            path: an absolute path.
            needed: what is to be done with the file, as in `os.access`.
        """
        with suppress(OSError):  # it cannot be told from here
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
    """What the service is started with. `unread` are its files of variables that cannot be read from here."""

    path: Path
    user: User
    environ: dict[str, str]
    unread: list[Path]


def installed(folders: Iterable[Path] = FOLDERS) -> Unit | None:
    """The unit that systemd would load, with its drop-ins; `None` where there is none."""
    places = [folder / "systemd" / "system" for folder in folders]
    path = next((place / NAME for place in places if (place / NAME).is_file()), None)
    if path is None:
        return None
    drop_ins = {file.name: file for place in reversed(places) for file in place.glob(f"{NAME}.d/*.conf")}
    lines = [line for file in (path, *map(drop_ins.get, sorted(drop_ins))) if file for line in _lines(file)]
    name = next(iter(reversed(_values(lines, "User"))), "root")
    environ, unread = _variables(lines)
    return Unit(path, _user(name), {**_usual(name), **environ}, unread)


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The keys and values of the section `[Service]`."""
    section = ""
    for line in re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8")).splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield key.strip(), re.sub("%(.)", lambda of: _SPECIFIERS.get(of[1], of[0]), value.strip())


def _values(lines: Iterable[tuple[str, str]], wanted: str) -> list[str]:
    """The values of one key; an empty one forgets those before it."""
    found: list[str] = []
    for key, value in lines:
        if key == wanted:
            found = [*found, value] if value else []
    return found


def _variables(lines: list[tuple[str, str]]) -> tuple[dict[str, str], list[Path]]:
    """What `Environment=` says, and what the files say that come after it; files that cannot be read."""
    words = [word for value in _values(lines, "Environment") for word in shlex.split(value)]
    unread = []
    for value in _values(lines, "EnvironmentFile"):
        file = Path(value.removeprefix("-"))
        try:
            words += [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            unread.append(file)
    pairs = (word.partition("=") for word in words if word[:1] not in ("#", ";"))
    credentials, closed = _credentials(lines)
    named = {name: _unquoted(value) for name, equals, value in pairs if equals}
    return {**credentials, **named}, [*unread, *closed]


def _credentials(lines: list[tuple[str, str]]) -> tuple[dict[str, str], list[Path]]:
    """What the broker takes from `LoadCredential=ID:PATH`; of an encrypted one, that it is there."""
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


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _usual(user: str) -> dict[str, str]:
    """What systemd sets without being asked."""
    environ = {"PATH": DEFAULT_PATH, "USER": user, "LOGNAME": user}
    with suppress(KeyError):
        about = pwd.getpwnam(user)
        environ |= {"HOME": about.pw_dir, "SHELL": about.pw_shell}
    return environ


def _user(name: str) -> User:
    try:
        about = pwd.getpwnam(name)
    except KeyError:
        return User(name, -1, frozenset())
    return User(name, about.pw_uid, frozenset(os.getgrouplist(name, about.pw_gid)))
