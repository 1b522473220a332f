"""The files of the kept catalogues: one for each server, in the folder `catalogues` of the state directory.

A file is believed only if a broker with the same key wrote the whole of it, about a server that is started
with the same command, arguments and environment. Any other file is thrown away; the log says why. The key is
a file beside them, so that a digest alone does not tell whether a guess at a secret was right.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.base.secrets import Mask
from broker.config.names import file_name
from broker.config.schema import ServerConfig
from broker.core.servers.kept import FORMAT, KeptCatalogue, UnusableError, decode, encode
from broker.processes.environment import environment, secrets_of
from client_shim.trusted import Folder, Untrusted, open_folder

FOLDER = "catalogues"
KEY, SUFFIX = "key", ".catalogue"

MAX_FILE_BYTES = 2 * 1024 * 1024
"""The largest catalogue that is kept."""

_HALF_WRITTEN = ".new"
_KEY_HEX = re.compile(r"[0-9a-f]{64}")
_MAX_KEY_BYTES = 256

_OF_THE_CALLER = frozenset({"TERM"})
"""Variables that differ with the terminal in which the broker is started, and change no server."""

logger = logging.getLogger("mcp-broker")


class NotKeptError(Exception):
    """A catalogue cannot be kept; the message says why."""


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a file. `program` is the digest of the program, `code` authenticates the file."""

    format: int
    program: str
    code: str


class CatalogueFiles:
    """The files of the kept catalogues.

    Its methods block. Each opens the folder anew, which may be cleaned away.

    Args:
        state_dir: the state directory, which this broker holds.
        folder: the folder of the config file, where relative paths start.
        environ: the broker's own environment.
        max_list_bytes: the limit of one list.
    """

    def __init__(
        self, state_dir: Path, folder: Path, environ: Mapping[str, str], max_list_bytes: int
    ) -> None:
        self._state_dir = state_dir
        self._folder = folder
        self._environ = environ
        self._max_list_bytes = max_list_bytes
        self._key = b""

    # -- read -------------------------------------------------------------------------------------

    def load(self, configs: Mapping[str, ServerConfig]) -> dict[str, KeptCatalogue]:
        """Return the kept catalogues of these servers by name; throw away each file that is not believed."""
        try:
            with self._opened(make=False) as files:
                return self._load(files, configs)
        except FileNotFoundError:
            return {}
        except (OSError, Untrusted) as error:
            path = str(self._state_dir / FOLDER)
            logger.warning("catalogues.unreadable", extra={"path": path, "reason": _reason(error)})
            return {}

    def _load(self, files: Folder, configs: Mapping[str, ServerConfig]) -> dict[str, KeptCatalogue]:
        self._key = _key_in(files)
        names = {file_name(name) + SUFFIX: config for name, config in configs.items()}
        found: dict[str, KeptCatalogue] = {}
        for name in sorted(files.names()):
            config = names.get(name)
            if config is None and name.endswith((SUFFIX, SUFFIX + _HALF_WRITTEN)):
                _remove(files, name)  # its server was removed, or it was not written to its end
            elif config is not None and config.runs and (kept := self._kept(files, name, config)):
                found[config.name] = kept
        return found

    def _kept(self, files: Folder, name: str, config: ServerConfig) -> KeptCatalogue | None:
        facts = {"server": config.name, "path": files.where(name)}
        try:
            program, body = self._authentic(config.name, files.read(name, MAX_FILE_BYTES))
            if program == self._program(config):
                return decode(body, self._max_list_bytes)
            logger.info("catalogue.outdated", extra=facts)
        except (OSError, Untrusted, UnusableError) as error:
            logger.warning("catalogue.discarded", extra={**facts, "reason": _reason(error)})
        _remove(files, name)
        return None

    def _authentic(self, server: str, content: bytes) -> tuple[str, bytes]:
        """Return the digest of the program and the body of a file.

        Raises:
            UnusableError: no broker with this key wrote it.
        """
        header, body = _parted(content)
        if not hmac.compare_digest(header.code, self._code(server, header.program, body)):
            raise UnusableError("it was cut off, changed, or written by another broker")
        return header.program, body

    # -- write ------------------------------------------------------------------------------------

    def write(self, config: ServerConfig, kept: KeptCatalogue) -> None:
        """Write the catalogue of a server atomically, with mode 0600.

        Raises:
            NotKeptError: it cannot be kept; then no earlier file of the server stays either.
        """
        try:
            with self._opened(make=True) as files:
                self._make_key(files)
                self._write(files, config, kept)
        except (OSError, Untrusted) as error:
            raise NotKeptError(_reason(error)) from None

    def _write(self, files: Folder, config: ServerConfig, kept: KeptCatalogue) -> None:
        name = file_name(config.name) + SUFFIX
        try:
            files.write(name, self._content(config, kept))
        except BaseException:
            _remove(files, name)
            raise

    def _content(self, config: ServerConfig, kept: KeptCatalogue) -> bytes:
        try:
            body = encode(kept)
        except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise NotKeptError(f"it cannot be written as JSON: {error}") from None
        if Mask(secrets_of(config, self._environ)).finds(body.decode(errors="replace")):
            raise NotKeptError("one of the server's secrets stands in it")
        program = self._program(config)
        header = _Header(FORMAT, program, self._code(config.name, program, body))
        content = msgspec.json.encode(header) + b"\n" + body
        if len(content) > MAX_FILE_BYTES:
            raise NotKeptError(f"it has {len(content)} bytes and may have {MAX_FILE_BYTES}")
        return content

    def _make_key(self, files: Folder) -> None:
        self._key = self._key or _key_in(files)
        if files.stat(KEY) is None:
            files.write(KEY, self._key.hex().encode() + b"\n")

    # -- what is believed -------------------------------------------------------------------------

    def _program(self, config: ServerConfig) -> str:
        """Return the digest of the command, the arguments, the environment and the folder of a server."""
        variables = environment(config, self._environ).items()
        parts = [
            config.command,
            config.args,
            os.path.normpath(self._folder / (config.cwd or "")),
            config.protocol,
            config.roots,
            config.asks_within_calls,
            sorted((name, value) for name, value in variables if name not in _OF_THE_CALLER),
        ]
        return self._digest(b"program", json.dumps(parts).encode())

    def _code(self, server: str, program: str, body: bytes) -> str:
        """Return the code that authenticates a file."""
        return self._digest(b"file", json.dumps([FORMAT, server, program]).encode() + b"\n" + body)

    def _digest(self, purpose: bytes, content: bytes) -> str:
        return hmac.digest(self._key, purpose + b"\n" + content, "sha256").hex()

    @contextmanager
    def _opened(self, *, make: bool) -> Iterator[Folder]:
        with open_folder(self._state_dir) as state, state.folder(FOLDER, make=make) as files:
            if files.is_shared:
                raise Untrusted(files.path, f"others may write to {files.path}", f"chmod go-w {files.path}")
            yield files


def _key_in(files: Folder) -> bytes:
    """Return the key; a new one if it is missing or unusable, so that no file is believed."""
    try:
        text = files.read(KEY, _MAX_KEY_BYTES).decode("ascii", "replace").strip()
        if _KEY_HEX.fullmatch(text):
            return bytes.fromhex(text)
        reason = "it is no key"
    except FileNotFoundError:
        return secrets.token_bytes(32)
    except (OSError, Untrusted) as error:
        reason = _reason(error)
    logger.warning("catalogues.unreadable", extra={"path": files.where(KEY), "reason": reason})
    _remove(files, KEY)
    return secrets.token_bytes(32)


def _parted(content: bytes) -> tuple[_Header, bytes]:
    """Return the header and the body of a file.

    Raises:
        UnusableError: it is of another version, or has no header.
    """
    line, _, body = content.partition(b"\n")
    try:
        version = msgspec.json.decode(line, type=_Version).format
        if version == FORMAT:
            return msgspec.json.decode(line, type=_Header), body
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise UnusableError("it is not what a broker writes under this name") from None
    raise UnusableError(f"it is of format {version}, and this broker reads format {FORMAT}")


class _Version(Struct, frozen=True):
    format: int


def _remove(files: Folder, name: str) -> None:
    with suppress(OSError):  # a folder, or a disk that is read-only: it is not believed the next time either
        files.remove(name)


def _reason(error: Exception) -> str:
    if isinstance(error, Untrusted):
        return error.problem
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
