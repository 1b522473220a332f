"""Parses the text of a host's file: JSON, TOML, YAML, or shell lines.

PyYAML is imported where it is used, so that no other command pays for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import tomli

from broker.command.importing import commands, jsonc
from broker.command.importing.hosts import HOSTS
from broker.command.importing.jsonc import NotJson
from broker.command.importing.texts import say

if TYPE_CHECKING:
    from yaml.nodes import MappingNode

_SUFFIXES = {".json": "json", ".jsonc": "json", ".json5": "json", ".toml": "toml"}
_SUFFIXES |= {".code-workspace": "json", ".yaml": "yaml", ".yml": "yaml"}
_COMMENTS = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/|#[^\n]*)*", re.DOTALL)
_TOML = re.compile(r"\[\[?[\w.\"' -]+\]\]?[ \t]*(?:#.*)?$|[\w.\"-]+[ \t]*=", re.MULTILINE)
_YAML = re.compile(r"---|- |[\w.\"'-][^\n{}\[\]:]*:(?:[ \t]|$)|%YAML", re.MULTILINE)
_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*"\s*:')  # of an object without its braces
_SURROGATE = re.compile("[\ud800-\udfff]")
_FENCED = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.MULTILINE | re.DOTALL)


class FileProblem(Exception):
    """A file cannot be used. The message names it and says what to do."""

    def __init__(self, word: str, **facts: object) -> None:
        super().__init__(say(word, **facts))


class Document(NamedTuple):
    """The format and the value of a text, and its duplicate keys."""

    format: str
    value: object
    twice: list[str]


def document(text: str, path: object, suffix: str) -> Document:
    """Parse the text of a file.

    Args:
        path: the name of the file in errors.
        suffix: the suffix of its name, which may tell its format.

    Raises:
        FileProblem: it cannot be parsed; the message has the line and the column.
    """
    text = text.removeprefix("\ufeff")
    if suffix not in _SUFFIXES:
        text = _in_fence(text)
    format = "commands" if commands.are_commands(text) else _SUFFIXES.get(suffix) or _format(text)
    if format is None:
        raise FileProblem("import_no_servers", path=path, hosts=HOSTS)
    twice: list[str] = []
    try:
        parsers = {"json": _json, "toml": _toml, "yaml": _yaml, "commands": _commands}
        value = parsers[format](text, path, twice)
    except RecursionError:
        raise FileProblem("import_too_deep", path=path) from None
    if _has_surrogates(value):
        raise FileProblem("import_surrogate", path=path)
    return Document(format, value, list(dict.fromkeys(twice)))


def _has_surrogates(value: object) -> bool:
    """Return whether a text has a lone surrogate, as an escape. An alias is followed once."""
    todo, seen = [value], set[int]()
    while todo:
        one = todo.pop()
        if isinstance(one, str) and not one.isascii() and _SURROGATE.search(one):
            return True
        if isinstance(one, (dict, list)) and id(one) not in seen:
            seen.add(id(one))
            todo += [*one, *one.values()] if isinstance(one, dict) else one
    return False


def _in_fence(text: str) -> str:
    """Return the first fenced block of a Markdown page that has servers, with spaces for everything else."""
    for block in _FENCED.finditer(text):
        if commands.are_commands(block[1]) or _format(block[1]):
            before, behind = text[: block.start(1)], text[block.end(1) :]
            return re.sub(r"\S", " ", before) + block[1] + re.sub(r"\S", " ", behind)
    return text


def _format(text: str) -> str | None:
    """Guess the format of a text; `None` if it has no known one."""
    comments = _COMMENTS.match(text)
    at = comments.end() if comments else 0
    if text[at : at + 1] != "{" and _TOML.match(text, at):
        return "toml"
    if text[at : at + 1] in ("", "{", "[") or _KEY.match(text, at):
        return "json"
    return "yaml" if _YAML.match(text, at) else None


def _json(text: str, path: object, twice: list[str]) -> object:
    def collect(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found

    braces = int(_lacks_braces(text))
    try:
        return jsonc.loads(f"{{{text}\n}}" if braces else text, collect)
    except NotJson as error:
        if braces and error.word == "json_unclosed":
            error = _unclosed(text)
        at = max(0, min(error.at - braces, len(text)))
        raise _not_json(text, path, at, error, shift=braces) from None


def _unclosed(text: str) -> NotJson:
    """Return what a fragment lacks besides the braces that were put around it."""
    try:
        jsonc.loads(f"{{{text}")
    except NotJson as error:
        missing = str(error.facts.get("missing", "}"))
        return NotJson(error.at, error.word, **{**error.facts, "missing": missing[:-1]})
    raise AssertionError("a brace is open in it")


def _lacks_braces(text: str) -> bool:
    """Return whether this is a fragment from inside an object, as pages print it: `"mcpServers": {…}`."""
    comments = _COMMENTS.match(text)
    return _KEY.match(text, comments.end() if comments else 0) is not None


def _not_json(text: str, path: object, at: int, error: NotJson, shift: int) -> FileProblem:
    facts = dict(error.facts)
    if "opened_at" in facts:
        facts["opened_line"] = jsonc.place(text, int(facts.pop("opened_at")) - shift)[0]  # type: ignore[call-overload]
    line, column = jsonc.place(text, at)
    problem = say(error.word, **facts)
    return FileProblem("import_not_json", path=path, line=line, column=column, problem=problem)


def _toml(text: str, path: object, twice: list[str]) -> object:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        word = "import_toml_backslash" if "\\" in str(error) or "hex value" in str(error) else "import_toml"
        raise FileProblem(word, path=path, problem=error) from None


def _commands(text: str, path: object, twice: list[str]) -> object:
    """Return a list of entries with their names."""
    try:
        found = list(commands.servers_of(text))
    except commands.NoServer as error:
        problem = say(error.word, **error.facts)
        raise FileProblem("import_command", path=path, line=error.line, problem=problem) from None
    return [{**one.entry, "name": one.name} for one in found if isinstance(one.entry, dict)]


def _yaml(text: str, path: object, twice: list[str]) -> object:
    """Parse YAML 1.2, as the hosts' own parsers do: `no` and `1:30` are texts."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - as its base has it

        def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"]
            twice.extend(name for at, name in enumerate(names) if name in names[:at])
            return super().construct_mapping(node, deep)

    for tag, pattern, first in _CORE_SCHEMA:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = {"line": mark.line + 1, "column": mark.column + 1} if mark else {"line": 1, "column": 1}
        raise FileProblem("import_not_yaml", path=path, problem=error.problem, **place) from None
    except (yaml.YAMLError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise FileProblem("import_not_yaml", path=path, problem=problem, line=1, column=1) from None


_CORE_SCHEMA = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("merge", r"^<<$", "<"),
)
"""tag, pattern, first characters. Source: YAML 1.2.2, section 10.3.2, as far as hosts use it."""
