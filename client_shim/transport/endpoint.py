"""The endpoint of the broker, and a probe that tells why the broker cannot be reached.

libzmq retries without end and reports no error, so the client probes before it connects. Over ``ipc://`` the
probe makes the same `connect` as the transport, sends nothing, and never blocks noticeably; `tcp` has the
other.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping

from client_shim.errors import (
    InvalidEndpoint,
    NoBroker,
    NotAllowed,
    NotASocket,
    PathTooLong,
    UnsupportedPlatform,
)
from client_shim.permissions import group, user_name
from client_shim.transport.tcp import probe_tcp
from client_shim.trusted import Untrusted, open_folder

VARIABLE = "MCP_BROKER_ENDPOINT"
SYSTEM_SOCKET = "/run/mcp-broker/broker.sock"
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into a container."""

MAX_PATH_BYTES = 107
"""The longest path of a socket: the kernel takes 108 bytes with the closing NUL (``unix(7)``)."""

_PRIVATE = "mcp-broker-"
_WRITE = "write ipc:///path/to/broker.sock or tcp://127.0.0.1:port"
_WHERE = f"say where it listens with the variable {VARIABLE}"


def default_endpoint(environ: Mapping[str, str] = os.environ, *, system_socket: str = SYSTEM_SOCKET) -> str:
    """Return the endpoint of a client that names none.

    It is ``$MCP_BROKER_ENDPOINT``, else the system's socket if it exists, else
    ``$XDG_RUNTIME_DIR/mcp-broker/broker.sock``, else a socket in this user's folder under the temp folder.
    """
    if told := environ.get(VARIABLE):
        return told
    if _exists(system_socket):
        return f"ipc://{system_socket}"
    folder = _runtime_folder(environ) or private_folder()
    return f"ipc://{os.path.join(folder, 'broker.sock')}"


def _runtime_folder(environ: Mapping[str, str]) -> str | None:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime, "mcp-broker") if os.path.isabs(runtime) else None


def private_folder() -> str:
    """Return this user's folder under the temp folder; the broker makes it with mode 0700."""
    import tempfile  # costs 6 ms, and is rarely needed

    return os.path.join(tempfile.gettempdir(), f"{_PRIVATE}{os.getuid() if hasattr(os, 'getuid') else 0}")


def _exists(path: str) -> bool:
    """Return whether a file exists, or may exist in a folder that this user may not enter.

    In that case "not allowed" is a better error than "no broker".
    """
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def may_block(endpoint: str) -> bool:
    """Return whether `probe` may wait: for a name server, for a network."""
    return endpoint.startswith("tcp://")


def probe(endpoint: str, *, has_keys: bool = False, wait_s: float = 5.0, hold_s: float = 0.0) -> str:
    """Return the endpoint for libzmq if a program listens there. A full backlog counts as listening.

    Args:
        has_keys: whether the client has keys for it.
        wait_s: how long it may wait, if it may at all.
        hold_s: see `probe_tcp`.

    Raises:
        NoBroker: there is no such file, or no program listens at it any more.
        NotAllowed: this user may not open the socket or a folder above it.
        PathTooLong, NotASocket, UnsupportedPlatform, InvalidEndpoint: it cannot be an endpoint.
        Unavailable: see `probe_tcp`.
    """
    scheme, _, address = endpoint.partition("://")
    if scheme == "tcp" and address:
        return probe_tcp(endpoint, has_keys, wait_s, hold_s)
    if scheme != "ipc" or not address:
        raise InvalidEndpoint(f"{endpoint!r} is not an endpoint", hint=_WRITE)
    _probe_ipc(endpoint, address)
    return endpoint


# --- ipc:// --------------------------------------------------------------------------------------


def _probe_ipc(endpoint: str, path: str) -> None:
    if not hasattr(socket, "AF_UNIX"):
        raise UnsupportedPlatform(
            f"{endpoint}: this platform has no ipc:// endpoints",
            hint="run the broker in Docker or WSL 2, and give it and this program the endpoint "
            "tcp://127.0.0.1:port, or one with keys on another machine",
        )
    if (length := len(os.fsencode(path))) > MAX_PATH_BYTES:
        raise PathTooLong(
            f"{endpoint}: the path has {length} bytes, and a socket's may have {MAX_PATH_BYTES}",
            hint="move the socket to a shorter path",
        )
    if path == "*":
        raise InvalidEndpoint(f"{endpoint} is for listening, not for connecting", hint=_WHERE)
    if not path.startswith(("/", "@")):
        raise InvalidEndpoint(
            f"{endpoint}: the path begins in whatever folder a program runs",
            hint="write the whole path: ipc:///path/to/broker.sock",
        )
    if not path.startswith("@"):
        _refuse_untrusted(endpoint, path)
    # libzmq writes @name for the abstract socket "\0name"
    failure = _connect("\0" + path[1:] if path.startswith("@") else path)
    if failure not in (0, errno.EAGAIN):
        _explain_ipc(endpoint, path, failure)


def _connect(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plug:
        plug.setblocking(False)
        return plug.connect_ex(path)


def _explain_ipc(endpoint: str, path: str, failure: int) -> None:
    if failure in (errno.EACCES, errno.EPERM):
        raise _not_allowed(endpoint, path)
    if failure in (errno.ENOENT, errno.ENOTDIR):
        raise NoBroker(
            f"no broker at {endpoint}: there is no such file",
            hint=f"{_start(endpoint)}, or, if one runs, {_WHERE}",
            data={"reason": "no-such-file", "endpoint": endpoint},
        )
    if failure == errno.EPROTOTYPE or not _is_socket(path):
        raise NotASocket(f"{endpoint}: what is there is not a broker's socket", hint=_WHERE)
    if failure == errno.ECONNREFUSED:
        raise _nobody_listens(endpoint, "the socket is there, but the broker that made it has ended")
    raise InvalidEndpoint(f"{endpoint}: {os.strerror(failure)}", hint=_WHERE)


def _is_socket(path: str) -> bool:
    if path.startswith("@"):
        return True
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True  # it was removed just now: the error of `connect` stands


def _start(endpoint: str, *, was_there: bool = False) -> str:
    """Return what starts the broker. In a container its socket is in a volume that the broker's shares."""
    is_service = endpoint == f"ipc://{SYSTEM_SOCKET}"
    folder, service = (
        os.path.dirname(SYSTEM_SOCKET),
        "with `sudo systemctl restart mcp-broker.socket mcp-broker`",
    )
    if is_service and _in_container():
        mount = "" if was_there else f"mount the volume with its socket at {folder}, and "
        return f"{mount}start it with `docker compose up -d mcp-broker`"
    if is_service:
        return f"start it {service}"
    installed = _exists(folder) and not _in_container()
    return "start one with `mcp-broker serve`" + (f", or the installed one {service}" if installed else "")


def _see_why(endpoint: str) -> str:
    if endpoint != f"ipc://{SYSTEM_SOCKET}":
        return "see in its log"
    return f"see in `{'docker compose logs' if _in_container() else 'systemctl status'} mcp-broker`"


def _in_container() -> bool:
    """Return whether this is a container of Docker or Podman, without a systemd of its own."""
    return any(map(os.path.exists, CONTAINER_MARKS)) and not os.path.exists("/run/systemd/system")


def _nobody_listens(endpoint: str, why: str) -> NoBroker:
    return NoBroker(
        f"no broker at {endpoint}: {why}",
        hint=f"{_see_why(endpoint)} why it ended, and {_start(endpoint, was_there=True)}",
        data={"reason": "nobody-listens", "endpoint": endpoint},
    )


def _refuse_untrusted(endpoint: str, path: str) -> None:
    """Refuse a default address where another user could listen in place of the broker.

    That user would get the arguments of every call, and could answer it. An address that this user has named,
    also by `$MCP_BROKER_ENDPOINT`, is not checked.
    """
    folder = os.path.dirname(path)
    if os.environ.get(VARIABLE) == endpoint:
        return
    try:
        if path == SYSTEM_SOCKET:
            _refuse_folder(folder, given=True)
        elif folder == _runtime_folder(os.environ) or (_PRIVATE in folder and folder == private_folder()):
            _refuse_folder(folder)
    except OSError:
        pass  # it does not exist or is closed: `connect` reports that
    except Untrusted as error:
        hint = f"{error.mend}, or {_WHERE}"
        raise NotAllowed(f"{endpoint}: {error.problem}", hint=hint, data={"path": error.path}) from None


def _refuse_folder(path: str, *, given: bool = False) -> None:
    """Refuse a folder whose content another user could change.

    Args:
        given: the folder may belong to any user: root must have made it.

    Raises:
        Untrusted: another user could change the content.
        OSError: the folder cannot be opened.
    """
    if hasattr(os, "O_PATH"):
        if not given or os.path.islink(path):
            open_folder(path).close()
            return
        with open_folder(os.path.dirname(path)) as parent, parent.folder(os.path.basename(path), given=True):
            return
    about = os.lstat(path)  # not Linux: the folders above are not checked
    if about.st_uid not in (0, os.getuid()) or about.st_mode & 0o022 or not stat.S_ISDIR(about.st_mode):
        raise Untrusted(path, _describe(path, about), "remove it")


# --- not allowed -----------------------------------------------------------------------------------


def _not_allowed(endpoint: str, path: str) -> NotAllowed:
    culprit = _culprit(path)
    try:
        about = os.stat(culprit)
    except OSError as error:
        return NotAllowed(
            f"{endpoint}: {culprit} is closed to {_me()}: {error.strerror}",
            hint=f"let this user enter the folders above it, or {_WHERE}",
            data={"path": culprit},
        )
    return NotAllowed(
        f"{endpoint}: {_describe(culprit, about)}, and closed to {_me()}",
        hint=_way_in(about, is_socket=culprit == path),
        data={"path": culprit, "uid": about.st_uid, "gid": about.st_gid, "mode": stat.S_IMODE(about.st_mode)},
    )


def _culprit(path: str) -> str:
    """Return the first folder of the path that this user may not enter, or else the socket itself."""
    parts = os.path.abspath(path).split(os.sep)
    for depth in range(1, len(parts)):
        folder = os.sep.join(parts[:depth]) or os.sep
        if not os.access(folder, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return folder
    return path


def _way_in(about: os.stat_result, *, is_socket: bool) -> str:
    named, needed = group(about.st_gid), 0o020 if is_socket else 0o010
    open_up = 'set `socket_group` to a group of this user and `socket_mode = "0660"` in broker.toml'
    as_owner = f"or run this program as user {user_name(about.st_uid)}"
    container = (
        f'in a container set `user: "{os.getuid()}:{about.st_gid}"` or `group_add: ["{about.st_gid}"]`'
    )
    if about.st_mode & needed and about.st_gid not in _my_groups():
        return (
            f"let this user into group {named}: `sudo usermod -aG {named} {user_name(os.geteuid())}`, then "
            f"log in or start the service again; {container}"
        )
    if about.st_mode & needed:
        return "the file modes allow it, so look at SELinux or AppArmor (`dmesg`, `journalctl -t audit`)"
    if is_socket:
        return f"{open_up}, {as_owner}; {container}"
    return (
        "this folder is closed to other users: give the broker an endpoint in a folder that this user may "
        f"enter, such as ipc://{SYSTEM_SOCKET}, and {open_up}, {as_owner}"
    )


def _describe(path: str, about: os.stat_result) -> str:
    mode = stat.filemode(about.st_mode)
    return f"{path} belongs to {user_name(about.st_uid)}:{group(about.st_gid)} with mode {mode}"


def _me() -> str:
    groups = ", ".join(group(gid) for gid in sorted(_my_groups()))
    return f"user {user_name(os.geteuid())} (uid {os.geteuid()}, groups {groups})"


def _my_groups() -> set[int]:
    return {os.getegid(), *os.getgroups()}
