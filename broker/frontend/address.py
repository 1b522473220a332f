"""The address of the broker: which one it is, and the claim on it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from broker.config.loading import check_endpoint
from broker.config.schema import BrokerConfig
from broker.frontend.port import ANOTHER, open_port
from broker.service.claims import ClaimError, folder_of, locked
from client_shim.trusted import Folder, Untrusted, open_folder

_VARIABLE = "MCP_BROKER_ENDPOINT"
MAX_PATH_BYTES = 107
"""The longest path of a socket: 108 bytes with the final NUL (unix(7))."""


class ListenAddress(NamedTuple):
    """An address to listen at.

    Attributes:
        listener: the listening descriptor, if systemd has made it.
        with_keys: whether clients there need a key.
    """

    endpoint: str
    listener: int | None = None
    with_keys: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the broker makes and removes a socket file."""
        return self.endpoint.startswith("ipc://") and self.listener is None

    @property
    def is_port(self) -> bool:
        """Whether it is a TCP port."""
        return self.endpoint.startswith("tcp://")


def addresses_of(
    told: str | None, config: BrokerConfig, environ: Mapping[str, str], sockets: Mapping[str, int]
) -> tuple[ListenAddress, ...]:
    """Return the addresses to listen at: the command line's, else the config's, else the variable's.

    Args:
        told: the address of the command line.
        config: the table `[broker]`.
        environ: the variables of the broker.
        sockets: the descriptors from systemd by address. If they do not fit, the broker does not guess.

    Raises:
        ConfigError: the address of the command line or of the variable is invalid, or needs keys.
        ClaimError: systemd listens at another address.
    """
    named = config.endpoints
    if told is not None:
        check_endpoint(told, "--endpoint", config)
        named = (told,)
    elif not named and (variable := environ.get(_VARIABLE)):
        check_endpoint(variable, f"${_VARIABLE}", config)
        named = (variable,)
    if not sockets:
        named = named or (f"ipc://{folder_of(environ)}/broker.sock",)
        return tuple(_listen_address(one, config) for one in named)
    made = next(iter(sockets))
    if len(sockets) > 1 or not made.startswith("ipc://") or (named and made not in named):
        raise ClaimError(
            f"systemd listens at {', '.join(sockets)} for this broker, which is to listen at "
            f"{' and '.join(named) or 'one path'}; make ListenStream= of the .socket unit and `endpoint` in "
            f"[broker] the same path, or stop the .socket unit"
        )
    return tuple(_listen_address(one, config, sockets.get(one)) for one in named or (made,))


def _listen_address(endpoint: str, config: BrokerConfig, listener: int | None = None) -> ListenAddress:
    return ListenAddress(endpoint, listener, config.has_keys and endpoint.startswith("tcp://"))


@contextmanager
def claim(address: ListenAddress) -> Iterator[None]:
    """Hold the address, so that no second broker takes it over: libzmq would do so without an error.

    A port is only looked at: of two programs that bind it, the kernel lets one listen.

    Raises:
        ClaimError: another program or systemd holds it, or its folder cannot be used.
    """
    endpoint = address.endpoint
    if address.is_port:
        open_port(endpoint, with_keys=address.with_keys).close()
        yield
        return
    path = Path(endpoint.removeprefix("ipc://"))
    taken = f"already listens at {endpoint}; stop it first, or {ANOTHER}"
    with ExitStack() as stack:
        folder = stack.enter_context(folder_for(path))
        try:
            stack.enter_context(locked(folder, f"{path.name}.lock", taken))
        except Untrusted as error:
            raise ClaimError(f"{error}, or {ANOTHER}") from None
        except OSError as error:
            raise ClaimError(
                f"{path}.lock, which keeps a second broker away, cannot be used: {error.strerror}; "
                f"repair it or remove it, or {ANOTHER}"
            ) from None
        if address.is_file and _is_listened_at(path):
            raise ClaimError(
                f"systemd already listens at {endpoint}, to start a broker as soon as somebody connects, or "
                f"a broker whose lock was removed; start that one, or stop its .socket unit or its process"
            )
        yield


def folder_for(path: Path, another: str = ANOTHER) -> Folder:
    """Open the folder of a socket, make it if it is missing, and check that the socket can be in it.

    Args:
        another: the last advice if it cannot.

    Raises:
        ClaimError: the socket cannot be there, or another user could change it.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ClaimError(
            f"the path {path} is longer than a socket's may be ({MAX_PATH_BYTES} bytes); {another}"
        )
    missing = f"the folder {path.parent} does not exist or may not be written to; create it for this user"
    with suppress(OSError):  # missing, or another user takes it away meanwhile
        about = os.stat(path.parent)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ClaimError(_closed(path.parent, about))
    try:
        folder = open_folder(path.parent, make=1)
    except Untrusted as error:
        raise ClaimError(f"{error}, or {another}") from None
    except OSError:
        raise ClaimError(missing) from None
    try:
        _check_socket(folder, path.name, another)
    except BaseException:
        folder.close()
        raise
    return folder


def _closed(folder: Path, about: os.stat_result) -> str:
    """Return the message for a folder where this user may not write: owner, mode, and what helps."""
    owner, mode = f"{about.st_uid}:{about.st_gid}", f"{stat.S_IMODE(about.st_mode):04o}"
    me = f"{os.geteuid()}:{os.getegid()}"
    return (
        f"the folder {folder} belongs to {owner} with mode {mode}, and this broker is {me}; run it as that "
        f"user, or `chown {me} {folder}` as root (in a container: what is mounted there)"
    )


def _check_socket(folder: Folder, name: str, another: str) -> None:
    """Raise if there is anything but an older socket at the path of the socket."""
    about = folder.stat(name)
    if about is None:
        return
    if not stat.S_ISSOCK(about.st_mode):
        raise ClaimError(f"{folder.where(name)} is there and is not a socket; {another}")
    if folder.is_shared:
        try:
            with folder.entry(name):
                pass
        except Untrusted as error:
            raise ClaimError(f"{error}, or {another}") from None
        except FileNotFoundError:
            pass  # gone meanwhile


def _is_listened_at(path: Path) -> bool:
    """Return whether a socket listens there. It reads /proc/net/unix: a connection would activate a
    service."""
    accepts, name = 0x10000, str(path)  # __SO_ACCEPTCON
    with suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        rows = (row.rstrip("\n").split(maxsplit=7) for row in table)
        return any(len(row) == 8 and row[7] == name and int(row[3], 16) & accepts for row in rows)
    return False
