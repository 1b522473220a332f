"""The gateway's state directory: its own token, the key of its sessions, the sessions that are over, and what
clients have set in the others.

All files are of mode 0600, in a folder that no other user can change.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from broker.gateway.http.session_ids import KEY_BYTES, Revocations, SealedSession
from broker.gateway.http.session_preferences import MOST_BYTES, KeptPreferences
from broker.service.claims import ClaimError
from client_shim.trusted import Folder, Untrusted, open_folder

TOKEN, KEY, OVER, PREFERENCES = "token", "session.key", "sessions.over", "sessions.preferences"
_MOST_TOKEN_BYTES = 4096
_MOST_LIST_BYTES = 16 * 1024 * 1024
_REVOKED = 16_384
_LINE_BYTES = 64


def state_dir_of(named: str | None, environ: Mapping[str, str]) -> Path:
    """Return the state directory: the one that is named, systemd's, or the user's."""
    if named:
        return Path(named)
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].partition(":")[0])
    home = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home, "mcp-broker", "gateway")


class StateFolder:
    """The open state directory.

    Args:
        folder: it; `close` closes it.
        session_s: how long a session id is accepted after its issue.
        now_s: the time of day, in seconds since 1970.
    """

    def __init__(self, folder: Folder, session_s: float, now_s: float) -> None:
        self._folder = folder
        self.is_new_token = folder.stat(TOKEN) is None
        self.token = self._secret(TOKEN, lambda: secrets.token_urlsafe(32).encode() + b"\n").decode().strip()
        self.key = self._secret(KEY, lambda: secrets.token_bytes(KEY_BYTES))
        self.revocations = Revocations(_REVOKED, session_s)
        self.preferences = KeptPreferences()
        self._over = _Journal(folder, OVER, 2 * _REVOKED * _LINE_BYTES)
        self._preferred = _Journal(folder, PREFERENCES, 2 * MOST_BYTES)
        self.revocations.load(self._over.read(), now_s)
        self.preferences.load(self._preferred.read())

    @classmethod
    def open(cls, path: Path, session_s: float, now_s: float) -> StateFolder:
        """Open the state directory, and make what is missing in it.

        Raises:
            ClaimError: it cannot be used; the message says why.
        """
        mend = "name another by `state_dir` in gateway.toml"
        try:
            folder = open_folder(path, make=len(path.parts))
            try:
                return cls(folder, session_s, now_s)
            except BaseException:
                folder.close()
                raise
        except Untrusted as error:
            raise ClaimError(f"the state directory {path} cannot be used: {error}") from error
        except OSError as error:
            raise ClaimError(
                f"the state directory {path} cannot be used: {error.strerror}; {mend}"
            ) from error

    @property
    def token_path(self) -> str:
        """Where the gateway's own token is."""
        return self._folder.where(TOKEN)

    def close(self) -> None:
        """Close the folder."""
        self._folder.close()

    def revoke(self, session: SealedSession, now_s: float) -> None:
        """Note that a session is over, so that a restart does not bring it back.

        Raises:
            OSError: it cannot be written down; it is over until the next restart.
        """
        self._over.append(self.revocations.add(session, now_s), self.revocations.lines)
        if self.preferences.get(session) is not None:
            self.prefer(session, b"", now_s)

    def prefer(self, session: SealedSession, said: bytes, now_s: float) -> None:
        """Keep the preferences of a session. Where there is no room, the session is over once it leaves the
        memory: its client starts anew, and does not go on without them.

        Raises:
            OSError: they cannot be written down; they are kept until the next restart.
        """
        line, without_room = self.preferences.put(session, said)
        self._preferred.append(line, self.preferences.lines)
        for one in without_room:
            self.revoke(one, now_s)

    def _secret(self, name: str, made: Callable[[], bytes]) -> bytes:
        with suppress(FileNotFoundError):
            if content := self._folder.read(name, _MOST_TOKEN_BYTES):
                self._check_mode(name)
                return content
        made_now = made()
        self._folder.write(name, made_now)
        return made_now

    def _check_mode(self, name: str) -> None:
        """Refuse a secret that other users can read."""
        about = self._folder.stat(name)
        if about is not None and about.st_mode & 0o077:
            path = self._folder.where(name)
            raise Untrusted(path, f"others may read {path} (mode {about.st_mode & 0o777:04o})", f"rm {path}")


class _Journal:
    """A file to which lines are appended, and which is written anew at its first change and when it is long.

    Args:
        most_bytes: the size at which it is written anew.
    """

    def __init__(self, folder: Folder, name: str, most_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._most_bytes = most_bytes
        self._bytes = most_bytes

    def read(self) -> list[str]:
        """Return its lines."""
        with suppress(FileNotFoundError):
            return self._folder.read(self._name, _MOST_LIST_BYTES).decode("utf-8", "replace").split("\n")
        return []

    def append(self, line: str, lines: Callable[[], list[str]]) -> None:
        """Append a line; `lines` returns all that count, with this one."""
        data = line.encode()
        if self._bytes + len(data) > self._most_bytes:
            content = "".join(lines()).encode()
            self._folder.write(self._name, content)
            self._bytes = len(content)
            return
        fd = self._folder.open(self._name, os.O_WRONLY | os.O_APPEND, make=True)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        self._bytes += len(data)
