"""Parses shell lines such as `claude mcp add NAME -- npx -y …`, as server documentation prints them.

Sources: the help of `claude mcp add`, `codex mcp add`, `gemini mcp add`,
`opencode mcp add`, and `code --add-mcp`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from broker.command.importing import jsonc

_LINE = re.compile(r"\s*(?:[$>%]\s+)?(?:[\w@./~=-]+\s+)+?(?:mcp\s+add(?:-json)?\b|--add-mcp\b)")
_LINE_CHARS = 200
_PAIR = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII)

_PLACES = ("user", "project", "local", "global", "workspace")
_TRANSPORTS = ("stdio", "local", "http", "sse", "streamable-http", "streamableHttp", "remote")
_OPTIONS = {
    **dict.fromkeys(("-s", "--scope"), "scope"),
    **dict.fromkeys(("-t", "--transport", "--type"), "type"),
    **dict.fromkeys(("-e", "--env"), "env"),
    **dict.fromkeys(("-H", "--header"), "header"),
    **dict.fromkeys(("--url",), "url"),
    **dict.fromkeys(("--cwd",), "cwd"),
    **dict.fromkeys(("--timeout",), "timeout"),
    **dict.fromkeys(
        (
            *("--bearer-token-env-var", "--client-id", "--client-secret", "--callback-port", "--description"),
            *("--include-tools", "--exclude-tools"),
        ),
        "other",
    ),
}
"""option with a value of the hosts' commands → what it sets"""
_SWITCHES = ("--trust", "--global", "-g", "--debug", "--verbose")
_CONTAINERS = ("docker", "podman")
_OPERATORS = {"&&", "||", "|", ";", "&", ">"}


class NoServer(Exception):
    """A line adds no server. `word` is the text that says why."""

    def __init__(self, line: int, word: str, **facts: object) -> None:
        super().__init__(word)
        self.line = line
        self.word = word
        self.facts = facts


class Added(NamedTuple):
    """A server that a line adds."""

    name: str
    entry: object


def are_commands(text: str) -> bool:
    """Return whether a text is shell lines: its first line that is not a comment adds a server."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return _LINE.match(line[:_LINE_CHARS]) is not None
    return False


def servers_of(text: str) -> Iterator[Added]:
    """Yield the servers that the lines add.

    Raises:
        NoServer: a line adds no server, or cannot be parsed.
    """
    for number, words in _commands(text):
        at = next((at for at in range(1, len(words)) if words[at] in ("add", "add-json")), 0)
        if "--add-mcp" in words or any(word.startswith("--add-mcp=") for word in words):
            yield _of_json(number, "", _after(words, "--add-mcp"))
        elif not at or words[at - 1] != "mcp" or _OPERATORS & {*words}:
            raise NoServer(number, "import_no_command", found=words[0].partition("=")[0])
        elif words[at] == "add-json":
            rest = list(_without_scope(words[at + 1 :]))
            yield _of_json(number, *[*rest, "", ""][:2])
        else:
            yield _Adding(number, words[at + 1 :]).added()


def _commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each command with its first line number. An open quotation or a final backslash joins lines."""
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first if held else number
        held += line
        if re.search(r"(?<!\\)(?:\\\\)*\\\s*\Z", held):
            held = held.rstrip()[:-1] + " "
            continue
        try:
            words = shlex.split(re.sub(r"^\s*[$>%]\s+", "", held), comments=True)
        except ValueError:  # a quotation is open
            held += "\n"
            continue
        if words:
            yield first, words
        held = ""
    if held.strip():
        raise NoServer(first, "import_open_quote")


def _after(words: list[str], option: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


def _without_scope(words: list[str]) -> Iterator[str]:
    left = iter(words)
    for word in left:
        if word in ("-s", "--scope"):
            next(left, None)
        elif not word.startswith("--scope="):
            yield word


def _of_json(line: int, name: str, text: str) -> Added:
    try:
        entry = jsonc.loads(text)
    except jsonc.NotJson as error:
        raise NoServer(line, "import_command_json") from error
    if not isinstance(entry, dict):
        raise NoServer(line, "import_command_json")
    return Added(name or str(entry.pop("name", "")), entry)


class _Adding:
    """Parses the words after `mcp add`."""

    def __init__(self, line: int, words: list[str]) -> None:
        self._line = line
        self._words = words
        self._env: dict[str, str] = {}
        self._about: dict[str, object] = {}
        self._left: list[str] = []

    def added(self) -> Added:
        """Return the server that the words add."""
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self._left += self._words
                break
            if not self._is_option(word):
                self._left.append(word)
        name, *command = self._left or [""]
        entry: dict[str, object] = dict(self._about)
        if command and re.match(r"https?://", command[0]):
            entry.setdefault("url", command[0])
        elif command:
            entry |= {"command": command[0], "args": [_filled(word) for word in command[1:]]}
        if not name or not (command or "url" in entry):
            raise NoServer(self._line, "import_command_short")
        if self._env:
            entry["env"] = self._env
        return Added(name, entry)

    def _is_option(self, word: str) -> bool:
        """Return whether the word is an option of the host's command; apply it with its value."""
        option, equals, value = word.partition("=")
        kind = _OPTIONS.get(option if option.startswith("--") else word)
        if kind is None:
            if word.startswith("-") and word not in _SWITCHES and len(self._left) < 2:
                raise NoServer(self._line, "import_command_option", option=option)
            return word in _SWITCHES and len(self._left) < 2
        given = value if equals else self._words[0] if self._words else ""
        if len(self._left) >= 2 and not self._is_hosts(kind, given):
            return False  # after the command it is an argument of the server
        if not equals and self._words:
            self._words.pop(0)
        self._take(kind, given)
        return True

    def _is_hosts(self, kind: str, value: str) -> bool:
        fits = {"scope": value in _PLACES, "type": value in _TRANSPORTS, "header": ":" in value}
        fits["env"] = _PAIR.match(value) is not None and self._left[1] not in _CONTAINERS
        return fits.get(kind, False)

    def _take(self, kind: str, value: str) -> None:
        if kind == "env":
            self._take_env(value)
            while self._words and _PAIR.match(self._words[0]) and len(self._left) < 2:  # `-e A=1 B=2`
                self._take_env(self._words.pop(0))
        elif kind in ("type", "url", "cwd"):
            self._about[kind] = value
        elif kind == "timeout":
            self._about[kind] = float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else value

    def _take_env(self, pair: str) -> None:
        name, equals, value = pair.partition("=")
        self._env[name] = _filled(value) if equals else f"${{{name}}}"


def _filled(word: str) -> str:
    """Return a word with shell variables in the form that hosts use."""
    word = re.sub(r"\$\(pwd\)|\$\{?PWD\}?", "${workspaceFolder}", word)
    word = re.sub(r"^~(?=/)|\$\{?HOME\}?", "${userHome}", word)
    return _VARIABLE.sub(r"${\1}", word)
