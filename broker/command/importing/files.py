"""Reads hosts' files and `broker.toml`, and writes the new `broker.toml`.

tomlkit is imported where it is used, so that no other command pays for it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import tomli

from broker.command.backups import backup_name
from broker.command.importing.conversion import KEYS, RARE_KEYS
from broker.command.importing.hosts import HOSTS, servers_in, switched
from broker.command.importing.plan import Imported, Source
from broker.command.importing.reading import FileProblem, document
from broker.command.importing.secrets import variables_of
from broker.command.importing.shapes import Table
from broker.command.texts.chinese import told
from broker.config.loading import ConfigError, load
from broker.service.config_file import text_of

STDIN = "-"


# --- reading -------------------------------------------------------------------------------------------


def read_source(path: Path) -> tuple[Source, list[str]]:
    """Return the servers of a host's file, or of standard input for `-`, and its duplicate keys.

    Raises:
        FileProblem: the file cannot be read, or has no section for servers.
    """
    text, label = read_text(path), "<stdin>" if str(path) == STDIN else path
    if not text.strip():
        raise FileProblem("import_empty", path=label)
    format, value, twice = document(text, label, path.suffix.lower())
    whole = path.absolute()
    try:
        found = servers_in(value, whole, format)
    except RecursionError:  # a YAML alias may contain itself
        raise FileProblem("import_too_deep", path=label) from None
    if found is None:
        raise FileProblem("import_no_servers", path=label, hosts=HOSTS)
    return Source(whole, switched(found, value)), twice


def read_text(path: Path, *, problem: str = "import_unreadable", default: str | None = None) -> str:
    """Return the text of a file, or of standard input for `-`.

    Args:
        problem: the text of the error.
        default: the text of a file that does not exist; by default that is an error.

    Raises:
        FileProblem: it cannot be read, or is not UTF-8.
    """
    try:
        content = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
        return content.decode("utf-8-sig")  # Windows editors write a byte-order mark
    except OSError as error:
        if default is not None and isinstance(error, FileNotFoundError):
            return default
        raise FileProblem(problem, path=path, problem=error.strerror) from None
    except UnicodeDecodeError as error:
        raise FileProblem("import_not_utf8", path=path, problem=error.reason) from None


def read_old(path: Path) -> str:
    """Return the text of an existing `broker.toml`, read as the broker reads it.

    Raises:
        FileProblem: it cannot be read.
    """
    try:
        return text_of(path)
    except ConfigError as error:
        raise FileProblem("import_old", problem=error) from None


def servers_there(text: str, path: Path) -> list[Imported]:
    """Return the servers of an existing `broker.toml`.

    Raises:
        FileProblem: it is not TOML, or one of its servers is not a table.
    """
    try:
        servers = tomli.loads(text).get("servers", {})
    except tomli.TOMLDecodeError as error:
        raise FileProblem("import_not_toml", path=path, problem=error) from None
    if not isinstance(servers, dict) or not all(isinstance(table, dict) for table in servers.values()):
        raise FileProblem("import_not_toml", path=path, problem="[servers] holds something other than tables")
    return [Imported(name, table, str(path), []) for name, table in servers.items()]


# --- the new text --------------------------------------------------------------------------------------


def new_text(old: str, servers: Mapping[str, Table], header: str) -> str:
    """Return the old text with these servers: existing ones are changed in place, new ones are appended.

    Raises:
        FileProblem: the old text cannot be extended, or the broker would refuse the new one.
    """
    from tomlkit.exceptions import TOMLKitError

    try:
        text = _changed(old, servers) + _appendix(old, servers, header)
        mapping = tomli.loads(text)
        tables = [one.table for one in servers_there(text, Path())]
        load(mapping, dict.fromkeys((name for table in tables for name in variables_of(table)), ""))
    except (tomli.TOMLDecodeError, TOMLKitError) as error:
        raise FileProblem("import_not_merged", problem=error) from None
    except ConfigError as error:
        lines = "".join(f"\n  {told(problem)}" for problem in error.problems)
        raise FileProblem("import_invalid_file", count=len(error.problems), lines=lines) from None
    for name, table in servers.items():
        keys = [key for key in KEYS if key in table or key not in RARE_KEYS]
        written = mapping["servers"][name]
        if {key: written[key] for key in keys if key in written} != table:
            raise FileProblem("import_not_merged", problem=name)
    return text


def _changed(old: str, servers: Mapping[str, Table]) -> str:
    """Return the old text with new definitions of its servers. Their other keys and comments stay."""
    import tomlkit

    document = tomlkit.parse(old)
    there: Any = document.get("servers", {})
    for name, table in servers.items():
        if name in there:
            for key in KEYS:
                if key in table:
                    there[name][key] = _value(table[key])
                elif key in there[name] and key not in RARE_KEYS:
                    del there[name][key]
    return tomlkit.dumps(document)


def _appendix(old: str, servers: Mapping[str, Table], header: str) -> str:
    """Return the new servers as text that can be appended to any TOML file."""
    import tomlkit

    there = tomli.loads(old).get("servers", {})
    tables = tomlkit.table(is_super_table=True)
    for name, table in servers.items():
        if name not in there:
            tables[name] = tomlkit.table()
            tables[name].update({key: _value(value) for key, value in table.items()})
    if not tables:
        return ""
    gap = "" if not old else "\n" if old.endswith("\n") else "\n\n"
    comment = "".join(character if character.isprintable() else "?" for character in header)
    return f"{gap}# {comment}\n\n{tomlkit.dumps({'servers': tables})}"


def _value(value: object) -> object:
    import tomlkit

    if not isinstance(value, dict):
        return value
    table = tomlkit.inline_table()
    table.update(value)
    return table


# --- writing -------------------------------------------------------------------------------------------


class FileOwner(NamedTuple):
    """The group and the mode of a file; the group -1 is that of the process."""

    gid: int
    mode: int


class NewFile(NamedTuple):
    """A file to write.

    It gets the owner of the file that it replaces, and of its mode what `access` allows, unless `owner` is
    given.

    Attributes:
        backup: whether a replaced file is kept.
        problem: the text of the error if it cannot be written.
    """

    path: Path
    text: str
    access: int = 0o777
    owner: FileOwner | None = None
    backup: bool = True
    problem: str = "import_unwritable"


def write(*files: NewFile) -> list[Path]:
    """Write these files, all or none; return the paths of the backups of replaced files.

    Raises:
        FileProblem: one of them cannot be written; existing files are unchanged, or the message says that
            one of them could not be put back.
    """
    kept: list[Path] = []
    with ExitStack() as links, ExitStack() as undo:
        written = [(_beside(file, undo), file) for file in files]
        for file in files:
            with _reporting(file):
                if file.backup and file.path.exists():
                    kept.append(_back_up(file.path.resolve()))
                    undo.callback(_remove, kept[-1])
        for new, file in written:
            path = file.path.resolve()
            with _reporting(file):
                # The last one is replaced or is not, so it is never put back.
                link = None if file is files[-1] else _linked(path, new.with_name(f"{new.name}.old"), links)
                new.replace(path)
            undo.callback(_put_back, path, link)
        undo.pop_all()
    return kept


def _linked(path: Path, link: Path, links: ExitStack) -> Path | None:
    """Return a link to a file that will be replaced, which `links` removes; `None` if there is no file."""
    if not path.exists():
        return None
    os.link(path, link)
    links.callback(_remove, link)
    return link


def _remove(path: Path) -> None:
    """Remove a file that only the write needed. If that fails, too, it must not hide why the write failed."""
    with suppress(OSError):
        path.unlink()


def _put_back(path: Path, link: Path | None) -> None:
    """Put a replaced file back, or remove the one that was not there before."""
    try:
        if link is None:
            path.unlink(missing_ok=True)
        else:
            link.replace(path)
    except OSError as error:
        raise FileProblem("import_not_put_back", path=path, problem=error.strerror) from None


@contextmanager
def _reporting(file: NewFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileProblem(file.problem, path=file.path.resolve(), problem=error.strerror) from None


def _beside(file: NewFile, undo: ExitStack) -> Path:
    """Write the text into a new file beside the one that it will replace, and return its path."""
    path = file.path.resolve()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    mode = 0o666 if file.access == 0o777 and file.owner is None else 0o600
    with _reporting(file):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        undo.callback(_remove, new)
        with open(descriptor, "w", encoding="utf-8", newline="") as opened:
            if path.exists():
                _inherit(path, descriptor, file.access)
            if file.owner is not None:
                os.fchown(descriptor, -1, file.owner.gid)
                os.fchmod(descriptor, file.owner.mode)
            opened.write(file.text)
    return new


def _inherit(path: Path, successor: int, access: int) -> None:
    """Give the owner and the mode of a file to its successor."""
    about = path.stat()
    with suppress(PermissionError):  # only root can give a file to another user
        os.fchown(successor, about.st_uid, about.st_gid)
    os.fchmod(successor, about.st_mode & access)


def _back_up(path: Path) -> Path:
    """Copy a file that will be replaced, and return the path of the copy."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        kept = path.with_name(backup_name(path.name, folder))
    finally:
        os.close(folder)
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as copy:
            copy.write(path.read_bytes())
        shutil.copystat(path, kept)
    except OSError:
        kept.unlink(missing_ok=True)
        raise
    return kept
