"""One server as another host writes it, to a table of `broker.toml`.

Nothing here touches the machine: what has to be asked of it goes through `Machine`. What a person
should know of it comes back as a `Remark`, whose word is one of `texts`.
"""

from __future__ import annotations

import json
import math
import os.path
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from broker.core.config import ServerConfig
from broker.core.loading import ConfigError, load
from broker.core.secrets import PLACEHOLDER
from broker.importing.secrets import env_of, has_secret_args, variable, variables_of

Table = dict[str, object]
Level = Literal["note", "warning", "fault"]

AMBIGUOUS_S = (1000, 3600)
"""A `timeout` within these may be seconds or milliseconds. Below they are seconds, as in Cline and Roo:
nobody waits for milliseconds only. Above they are milliseconds, as in Claude Code and Gemini CLI:
nobody waits for longer than an hour."""

_TRANSPORT_KEYS = ("type", "transport", "transportType")
_ADDRESS_KEYS = ("url", "serverUrl", "httpUrl")
_SWITCHES = {"disabled": False, "enabled": True, "isActive": True, "active": True}
"""Keys by which hosts switch a server off, each with the value that leaves it on."""
_SHELLS = ("sh", "bash", "dash", "zsh")
_OWN_KEYS = {"command", "args", "env", "cwd", "timeout", "envFile", *_TRANSPORT_KEYS}


class Remark(NamedTuple):
    """Something that a person should know. A `fault` is what could not be imported."""

    level: Level
    word: str
    facts: Mapping[str, object]


class NotFoundHere(Exception):
    """The machine has no such program or folder; the message says what to do."""


class Machine(Protocol):
    """What is asked of the machine."""

    path: str
    """The PATH that commands are looked up in."""
    service_path: str
    """The PATH that a service is known to have."""
    home: str

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""

    def program(self, server: ServerConfig, folder: str) -> str:
        """The whole path of what the broker would run, were its config in `folder`.

        Raises:
            NotFoundHere: it would not run it.
        """


def seconds_of(value: float, *, in_seconds: bool) -> float | None:
    """A `timeout` in seconds; `None` where nobody can know, or it is no time."""
    least, most = AMBIGUOUS_S
    if not 0 < value < math.inf:
        return None
    if in_seconds or value < least:
        return value
    return value / 1000 if value > most else None


class Conversion:
    """One server of one file on its way into a table of `broker.toml`."""

    def __init__(self, name: str, folder: str, machine: Machine, *, in_seconds: bool) -> None:
        self._name = name
        self._folder = folder
        self._machine = machine
        self._in_seconds = in_seconds
        self._known = {
            **dict.fromkeys(("workspaceFolder", "cwd"), folder),
            **dict.fromkeys(("pathSeparator", "/"), "/"),
            "workspaceFolderBasename": os.path.basename(folder),
            "userHome": machine.home,
        }
        self._unfilled = False
        self.table: Table = {}
        self.remarks: list[Remark] = []

    def remark(self, level: Level, word: str, **facts: object) -> None:
        """Something about this server."""
        self.remarks.append(Remark(level, word, {"server": self._name, **facts}))

    def convert(self, entry: object) -> bool:
        """Fill `table` and `remarks`; whether the server can be imported."""
        if not isinstance(entry, dict):
            return self._checked(entry) is not None
        kind = _remote(entry)
        if kind is not None:
            self.remark("fault", "import_remote", kind=kind)
            return False
        self._take(entry)
        server = self._checked(self.table)
        if server is None:
            return False
        self._locate(server)
        if has_secret_args(self.table.get("args")):
            self.remark("warning", "import_secret_args")
        self._leave_out(entry)
        return True

    def _take(self, entry: Table) -> None:
        """The keys as they are; what has the wrong type stays wrong, for the broker's own check to say so."""
        given = {key: value for key, value in entry.items() if value is not None}
        steps = {"command": self._command, "args": self._args, "env": self._env}
        for key, step in steps.items():
            if key in given:
                self.table[key] = step(given[key])
        self._cwd(given.get("cwd"))
        if "timeout" in given:
            self._timeout(given["timeout"])
        self._switch(given)

    def _command(self, command: object) -> object:
        return self._home(self._fill(command, "command")) if isinstance(command, str) else command

    def _args(self, args: object) -> object:
        shell = os.path.basename(str(self.table.get("command"))) in _SHELLS
        if not isinstance(args, list):
            return args
        return [self._fill(arg, "args", shell=shell) if isinstance(arg, str) else _text(arg) for arg in args]

    def _env(self, env: object) -> object:
        if not isinstance(env, dict):
            return env
        return {key: self._value(key, value) for key, value in env.items() if value is not None}

    def _value(self, key: str, value: object) -> object:
        if not isinstance(value, str):
            return _text(value)
        if re.fullmatch(r"\$[A-Z_][A-Z0-9_]*", value):
            self.remark("warning", "import_dollar", key=key)
        return PLACEHOLDER.sub(lambda match: self._reference(key, match[1]), value)

    def _reference(self, key: str, inner: str) -> str:
        """What another host fills in, as the broker does it: `${NAME}`, from its own environment."""
        if inner in self._known:
            return self._known[inner]
        inner, default, _ = inner.partition(":-")
        scheme, colon, rest = inner.partition(":")
        name = rest if scheme == "env" else inner
        if colon and scheme != "env":
            name = variable(rest) if scheme == "input" else variable(scheme, rest)
            self.remark("note", "import_input", key=key, placeholder=f"${{{inner}}}", variable=name)
        if default:
            self.remark("warning", "import_default", key=key, variable=name)
        return f"${{{name}}}"

    def _fill(self, text: str, key: str, *, shell: bool = False) -> str:
        """A text outside of `env`, where the broker fills nothing."""
        filled = self._with_known(text)
        left = PLACEHOLDER.search(filled)
        if left and not shell:
            self._unfilled = True
            self.remark("fault", "import_unfilled", key=key, placeholder=f"${{{left[1].partition(':-')[0]}}}")
        return filled

    def _with_known(self, text: str) -> str:
        return PLACEHOLDER.sub(lambda match: self._known.get(match[1], match[0]), text)

    def _home(self, path: str) -> str:
        return os.path.join(self._machine.home, path[2:]) if path.startswith("~/") else path

    def _cwd(self, cwd: object) -> None:
        if isinstance(cwd, str) and cwd:
            self.table["cwd"] = os.path.normpath(
                os.path.join(self._folder, self._home(self._fill(cwd, "cwd")))
            )
        elif cwd:
            self.table["cwd"] = cwd
        elif any(self._starts_here(text) for text in self._words()):
            self.table["cwd"] = self._folder
            self.remark("note", "import_cwd", folder=self._folder)

    def _words(self) -> list[object]:
        args = self.table.get("args")
        words = args if isinstance(args, list) else []
        return [self.table.get("command"), *words, *env_of(self.table).values()]

    def _starts_here(self, text: object) -> bool:
        """Whether this is a path that is relative to the folder of the file."""
        path = str(text).rpartition("=")[2]
        if not path or path.startswith(("/", "-")):
            return False
        relative = path in (".", "..") or path.startswith(("./", "../"))
        return relative or self._machine.exists(os.path.join(self._folder, path))

    def _timeout(self, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.table["timeout"] = value
            return
        seconds = seconds_of(value, in_seconds=self._in_seconds)
        if seconds is None:
            self.remark("warning", "import_timeout_unclear", value=value)
            return
        self.table["timeout"] = seconds
        if seconds != value:
            self.remark("note", "import_timeout", value=value, seconds=f"{seconds:g}")

    def _switch(self, entry: Table) -> None:
        off = any(
            isinstance(value := entry.get(key), bool) and value is not on for key, on in _SWITCHES.items()
        )
        if off or self._unfilled:
            self.table["enabled"] = False
        if off:
            self.remark("note", "import_disabled")

    def _checked(self, table: object) -> ServerConfig | None:
        environ = {**dict.fromkeys(variables_of(table), ""), "PATH": self._machine.path}
        try:
            return load({"servers": {self._name: table}}, environ).servers[self._name]
        except ConfigError as error:
            for problem in error.problems:
                self.remark("fault", "import_invalid", problem=problem)
            return None

    def _locate(self, server: ServerConfig) -> None:
        if self._unfilled:
            return
        try:
            program = self._machine.program(server, self._folder)
        except NotFoundHere as error:
            self.remark("warning", "import_not_found", problem=error)
            return
        self.table["command"] = program
        if self._is_private(server.command, program):
            self.remark("warning", "import_private", program=program)
        elif program != server.command:
            self.remark("note", "import_program", command=server.command, program=program)

    def _is_private(self, command: str, program: str) -> bool:
        """Whether a service may not see the program, or the program not what it calls itself."""
        if os.path.dirname(program) in self._machine.service_path.split(":"):
            return False
        homes = (f"{self._machine.home.rstrip('/')}/", "/home/", "/root/")
        return "/" not in command or program.startswith(homes)

    def _leave_out(self, entry: Table) -> None:
        if entry.get("envFile"):
            self.remark("fault", "import_env_file", file=self._with_known(str(entry["envFile"])))
        taken = _OWN_KEYS | {key for key in _SWITCHES if isinstance(entry.get(key), bool)}
        left = sorted(key for key, value in entry.items() if value and key not in taken)
        if left:
            self.remark("note", "import_left_out", keys=", ".join(left))


def _remote(entry: Table) -> str | None:
    """How the server is reached, where that is not stdio."""
    kinds = [kind for key in _TRANSPORT_KEYS if isinstance(kind := entry.get(key), str)]
    addresses = [key for key in _ADDRESS_KEYS if entry.get(key)]
    return next((kind for kind in (*kinds, *addresses) if kind not in ("stdio", "local")), None)


def _text(value: object) -> object:
    """A number or a switch as the text that it is for a process; anything else as it is."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else value
