"""Who may open the broker's socket: its mode and its group, as the config has them."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.config.schema import BrokerConfig
from broker.frontend.address import ListenAddress
from broker.service.claims import ClaimError
from client_shim.trusted import Untrusted, open_folder


@contextmanager
def owner_only_umask() -> Iterator[None]:
    """Make sockets in here reachable by their owner only, until `set_permissions`."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def set_permissions(address: ListenAddress, config: BrokerConfig) -> None:
    """Set group and mode of the socket by the config. A socket from systemd keeps those of its unit.

    Raises:
        ClaimError: there is no such group, this user is not in it, or the socket file is gone.
    """
    if address.is_file:
        path = Path(address.endpoint.removeprefix("ipc://"))
        try:
            _open(path, config)
        except Untrusted as error:
            raise ClaimError(f"broker.socket_mode: {error}; then restart the broker") from None
        except OSError as error:
            raise ClaimError(
                f"broker.socket_mode: {path} cannot be given it: {error.strerror}; restart the broker, which "
                f"makes the socket anew"
            ) from None


def _open(path: Path, config: BrokerConfig) -> None:
    """Set them on a descriptor: if somebody exchanges the file, the other file does not get the mode."""
    with open_folder(path.parent) as folder, folder.entry(path.name) as (fd, about):
        if not stat.S_ISSOCK(about.st_mode) or about.st_uid != os.geteuid():
            raise Untrusted(str(path), f"{path} is no socket of this user", "see what made it, and remove it")
        socket_file = f"/proc/self/fd/{fd}"  # an O_PATH descriptor takes no fchmod(2)
        if config.socket_group is not None:
            try:
                os.chown(socket_file, -1, grp.getgrnam(config.socket_group).gr_gid)
            except KeyError:
                raise ClaimError(
                    f"broker.socket_group: there is no group {config.socket_group!r}; create it with groupadd"
                ) from None
            except PermissionError:
                raise ClaimError(
                    f"broker.socket_group: this user is not in group {config.socket_group!r}; "
                    f"add it with usermod -aG"
                ) from None
        os.chmod(socket_file, int(config.socket_mode, 8))
