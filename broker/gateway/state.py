"""The gateway's state directory: its own token, the key of its sessions, and the sessions that are over.

All files are of mode 0600, in a folder that no other user can change.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from broker.gateway.session_ids import KEY_BYTES, Revocations, SealedSession
from broker.service.claims import ClaimError
from client_shim.trusted import Folder, Untrusted, open_folder

TOKEN, KEY, OVER = "token", "session.key", "sessions.over"
_MOST_TOKEN_BYTES = 4096
_MOST_LIST_BYTES = 16 * 1024 * 1024
_REVOKED = 16_384
_WRITTEN_ANEW_AT = 2 * _REVOKED


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
        with suppress(FileNotFoundError):
            lines = folder.read(OVER, _MOST_LIST_BYTES).decode("ascii", "replace").splitlines()
            self.revocations.load(lines, now_s)
        self._appended = _WRITTEN_ANEW_AT

    @classmethod
    def open(cls, path: Path, session_s: float, now_s: float) -> StateFolder:
        """Open the state directory, and make what is missing in it.

        Raises:
            ClaimError: it cannot be used; the message says why.
        """
        mend = "name another by `state_dir` in gateway.toml"
        try:
            folder = open_folder(path, make=2)
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
        line = self.revocations.add(session, now_s)
        self._appended += 1
        if self._appended >= _WRITTEN_ANEW_AT:
            self._folder.write(OVER, "".join(self.revocations.lines()).encode())
            self._appended = len(self.revocations)
            return
        fd = self._folder.open(OVER, os.O_WRONLY | os.O_APPEND, make=True)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

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
