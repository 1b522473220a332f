"""The files of an import: JSON as hosts and people write it, and `broker.toml`, old and new.

json5 and tomlkit are imported where they are used: the daemon does not pay for them.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli

from broker.core.loading import ConfigError, load
from broker.core.secrets import PLACEHOLDER
from broker.importing.entry import Table
from broker.importing.plan import KEYS, SECTIONS, Imported, Source, sections_of
from broker.importing.texts import say

Pairs = Iterable[tuple[str, object]]

_JSON5_PLACE = re.compile(r"<string>:(\d+) (.*) at column (\d+)", re.DOTALL)


class FileProblem(Exception):
    """A file cannot be used; the message names it and says what to do."""

    def __init__(self, word: str, **facts: object) -> None:
        super().__init__(say(word, **facts))


# --- reading -------------------------------------------------------------------------------------------


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        FileProblem: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a mark
    except OSError as error:
        raise FileProblem("import_unreadable", path=path, problem=error.strerror) from None
    except UnicodeDecodeError as error:
        raise FileProblem("import_not_utf8", path=path, problem=error.reason) from None


def read_source(path: Path) -> tuple[Source, list[str]]:
    """What another host's file says, and the keys that it has twice in one place.

    Raises:
        FileProblem: it cannot be read, is not JSON, or has no place for servers.
    """
    twice: list[str] = []

    def collect(pairs: Pairs) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found

    document = _parsed(read(path), path, collect)
    if next(sections_of(document), None) is None:
        raise FileProblem("import_no_servers", path=path, sections=", ".join(SECTIONS))
    return Source(path.absolute(), document), list(dict.fromkeys(twice))


def _parsed(text: str, path: Path, collect: Callable[[Pairs], dict[str, object]]) -> object:
    """JSON goes through the standard library. Only what that refuses goes through json5, which knows comments
    and trailing commas, but takes ten seconds for a megabyte: `~/.claude.json` may have several.
    """
    try:
        try:
            document = json.loads(text, object_pairs_hook=collect)
        except ValueError:
            document = _parsed_json5(text, path, collect)
        json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise FileProblem("import_too_deep", path=path) from None
    except UnicodeEncodeError:
        raise FileProblem("import_surrogate", path=path) from None
    return document


def _parsed_json5(text: str, path: Path, collect: Callable[[Pairs], dict[str, object]]) -> object:
    import json5

    try:
        document: object = json5.loads(text, object_pairs_hook=collect)
    except ValueError as error:
        place = _JSON5_PLACE.fullmatch(str(error))
        line, problem, column = place.groups() if place else (1, str(error), 1)
        facts = {"path": path, "line": line, "column": column, "problem": problem}
        raise FileProblem("import_not_json", **facts) from None
    return document


def servers_in(text: str, path: Path) -> list[Imported]:
    """The servers that a `broker.toml` has already.

    Raises:
        FileProblem: it is not TOML, or a server of it is not a table.
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
    """The old text with these servers; those that it has are changed where they stand, the others follow.

    Raises:
        FileProblem: the old text cannot be added to, or the broker would not take the new one.
    """
    from tomlkit.exceptions import TOMLKitError

    try:
        text = _changed(old, servers) + _appendix(old, servers, header)
        mapping = tomli.loads(text)
        load(mapping, dict.fromkeys(PLACEHOLDER.findall(text), ""))
    except (tomli.TOMLDecodeError, TOMLKitError) as error:
        raise FileProblem("import_not_merged", problem=error) from None
    except ConfigError as error:
        lines = "".join(f"\n  {problem}" for problem in error.problems)
        raise FileProblem("import_invalid_file", count=len(error.problems), lines=lines) from None
    for name, table in servers.items():
        written = mapping["servers"][name]
        if {key: written[key] for key in KEYS if key in written} != table:
            raise FileProblem("import_not_merged", problem=name)
    return text


def _changed(old: str, servers: Mapping[str, Table]) -> str:
    """The old text with the new definitions of its servers; further keys of theirs and comments stay."""
    import tomlkit

    document = tomlkit.parse(old)
    there: Any = document.get("servers", {})
    for name, table in servers.items():
        if name in there:
            for key in KEYS:
                if key in table:
                    there[name][key] = _value(table[key])
                elif key in there[name]:
                    del there[name][key]
    return tomlkit.dumps(document)


def _appendix(old: str, servers: Mapping[str, Table], header: str) -> str:
    """The new servers as text that may follow the old one, whatever stands there."""
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


def write(path: Path, text: str, *, private: bool) -> Path | None:
    """Put a file in its place in one step. The name under which an old one is kept; `None` without one.

    The new file has the owner and the mode of the old one, but nobody else reads it if it is `private`.

    Raises:
        FileProblem: it cannot be written; the old one is still there.
    """
    path = path.resolve()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with open(descriptor, "w", encoding="utf-8") as file:
            kept = _keep(path, descriptor, private=private) if path.exists() else None
            file.write(text)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise FileProblem("import_unwritable", path=path, problem=error.strerror) from None
    return kept


def _keep(path: Path, successor: int, *, private: bool) -> Path:
    """Copy a file that is going to be replaced, and give its owner and mode to the successor."""
    about = path.stat()
    with suppress(PermissionError):  # only root gives a file to somebody else
        os.fchown(successor, about.st_uid, about.st_gid)
    os.fchmod(successor, about.st_mode & (0o600 if private else 0o777))
    names = itertools.chain([".bak"], (f".bak{number}" for number in itertools.count(2)))
    kept = next(found for name in names if not os.path.lexists(found := path.with_name(path.name + name)))
    with open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        copy.write(path.read_bytes())
    shutil.copystat(path, kept)
    return kept
