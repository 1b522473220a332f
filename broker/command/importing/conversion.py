"""Converts a server's entry in a host's file into a table of `broker.toml`.

This module has no I/O: questions to the machine go through `Machine`. What the user should know comes back as
`Remark`s, whose words are keys of `texts`.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from broker.base.secrets import PLACEHOLDER
from broker.command.importing import placeholders, windows
from broker.command.importing.command_line import NotSplittable, split
from broker.command.importing.hosts import Found
from broker.command.importing.secrets import VariableNames, env_of, has_secret_args, variables_of
from broker.command.importing.shapes import Table, flat, own_of_host, remote
from broker.command.importing.times import NAMED, Time, times_of
from broker.config.loading import ConfigError, load
from broker.config.schema import ServerConfig

Level = Literal["note", "warning", "fault"]

KEYS = ("command", "args", "env", "env_inherit", "cwd", "timeout", "timeout_start_sec", "enabled")
"""The keys of a server's table that an import writes."""

RARE_KEYS = ("env_inherit", "timeout_start_sec")
"""The keys that most hosts lack: if only `broker.toml` has one, the definitions do not differ."""

_SWITCHES = {"disabled": False, "enabled": True, "isActive": True, "active": True}
"""key by which hosts disable a server → the value that enables it"""
_FOLDERS = ("workspaceFolder", "workspaceRoot", "cwd", "__dirname", "CLAUDE_PLUGIN_ROOT")
_SHELLS = ("sh", "bash", "dash", "zsh")
_TAKEN = {*KEYS, "envFile", "type", "transport", "transportType", "source"}


class Remark(NamedTuple):
    """A message to the user. A `fault` was not imported, or was imported disabled."""

    level: Level
    word: str
    facts: Mapping[str, object]


class NotFoundHere(Exception):
    """The machine lacks the program or folder; the message says what to do."""


class Machine(Protocol):
    """The machine on which the broker will run."""

    path: str
    """The PATH in which commands are looked up."""
    service_path: str
    """The PATH of the broker's service."""
    home: str

    def exists(self, path: str) -> bool:
        """Return whether this file or folder exists."""

    def program(self, server: ServerConfig, folder: str) -> str:
        """Return the full path of the program that a broker with its config in `folder` would run.

        Raises:
            NotFoundHere: the broker could not start it.
        """


class Conversion:
    """The conversion of one server of one file.

    Args:
        name: its name in `broker.toml`.
        found: its entry in the host's file.
        folder: the folder to which its paths are relative.
        variables: allocates the variables for values that a host asks the user for.
    """

    def __init__(
        self, name: str, found: Found, folder: str, machine: Machine, variables: VariableNames
    ) -> None:
        self._name = name
        self._found = found
        self._folder = folder
        self._machine = machine
        self._variables = variables
        self._known = {
            **dict.fromkeys(_FOLDERS, folder),
            **dict.fromkeys(("pathSeparator", "/"), "/"),
            "workspaceFolderBasename": os.path.basename(folder),
            **dict.fromkeys(("userHome", "homedir"), machine.home),
        }
        self._unusable = False
        self.table: Table = {}
        self.remarks: list[Remark] = []

    def remark(self, level: Level, word: str, **facts: object) -> None:
        """Add a remark about this server."""
        self.remarks.append(Remark(level, word, {"server": self._name, **facts}))

    def convert(self) -> bool:
        """Fill `table` and `remarks`; return whether the server can be imported."""
        if not isinstance(self._found.entry, dict):
            return self._checked(self._found.entry) is not None
        entry = flat(self._found.entry)
        if self._is_elsewhere(entry):
            return False
        self._take(entry)
        server = self._checked(self.table)
        if server is None or not self._is_linux():
            return False
        self._locate(server)
        if has_secret_args(self.table.get("args")):
            self.remark("warning", "import_secret_args")
        self._leave_out(entry)
        self.table = {key: self.table[key] for key in KEYS if key in self.table}
        return True

    def _is_elsewhere(self, entry: Table) -> bool:
        """Return whether the entry is a remote server or a built-in part of its host."""
        if kind := own_of_host(entry):
            self.remark("fault", "import_own", kind=kind)
        elif kind := remote(entry):
            self.remark("fault", "import_remote", kind=kind)
        return kind is not None

    def _is_linux(self) -> bool:
        """Whether Linux can run the command; what else is of Windows only leaves it disabled."""
        command, args = str(self.table["command"]), self._args_taken()
        if unusable := windows.of_command(command, args):
            self.remark("fault", unusable.word, **unusable.facts)
            return False
        texts = {"args": args, "env": env_of(self.table).values(), "cwd": [self.table.get("cwd")]}
        for key, values in texts.items():
            for unusable in windows.paths_in(key, values):
                self._disable(unusable.word, **unusable.facts)
        if not self._unusable and (
            found := windows.controls_in([command, *args, *env_of(self.table).values()])
        ):
            self.remark("warning", "import_control", found=", ".join(found))
        return True

    def _disable(self, word: str, **facts: object) -> None:
        """Import the server disabled: the user has to edit it before it can be started."""
        self._unusable = True
        self.table["enabled"] = False
        self.remark("fault", word, **facts)

    def _args_taken(self) -> list[object]:
        args = self.table.get("args")
        return args if isinstance(args, list) else []

    def _take(self, entry: Table) -> None:
        """Copy the known keys. Values of a wrong type stay as they are: the broker's check reports them."""
        self._switch(entry)
        split = self._split(entry)
        given = {**entry, **split}
        steps = {"command": self._command, "args": self._args, "env": self._env}
        for key, step in steps.items():
            if key in given:
                self.table[key] = step(given[key])
        if given.get("env_inherit"):
            self.table["env_inherit"] = given["env_inherit"]
        self._cwd(given.get("cwd"))
        self._times(given)

    def _split(self, entry: Table) -> Table:
        """Return the command and arguments of an entry with a whole command line in `command`."""
        line, args, env = entry.get("command"), entry.get("args", []), entry.get("env", {})
        if not isinstance(line, str) or not isinstance(args, list) or not isinstance(env, dict):
            return {}
        try:
            words = split(line, self._is_here)
        except NotSplittable as error:
            self._disable(error.word)
            return {}
        if words is None:
            return {}
        self.remark("note", "import_split", command=words.program, count=len(words.args))
        both = {**words.env, **env}
        return {"command": words.program, "args": [*words.args, *args], **({"env": both} if both else {})}

    def _is_here(self, path: str) -> bool:
        return self._machine.exists(os.path.join(self._folder, self._home(path)))

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
        return {str(key): self._value(str(key), value) for key, value in env.items() if value is not None}

    def _value(self, key: str, value: object) -> object:
        if not isinstance(value, str):
            return _text(value)
        text = placeholders.as_braces(value, self._found.host)
        if re.fullmatch(r"\$[A-Z_][A-Z0-9_]*", text):
            self.remark("warning", "import_dollar", key=key)
        filled = placeholders.of_env(key, text, self._known, self._variables, self.remark)
        if left := placeholders.of_each_user(text):
            self._disable("import_each_user", key=f"env {key}", placeholder=left)
        return filled

    def _fill(self, text: str, key: str, *, shell: bool = False) -> str:
        """Return a text outside of `env`, in which the broker replaces no variables."""
        filled = self._with_known(placeholders.as_braces(text, self._found.host))
        if (left := placeholders.left_in(filled)) and not shell:
            self._disable("import_unfilled", key=key, placeholder=left)
        elif left := placeholders.of_each_user(filled):
            self._disable("import_each_user", key=key, placeholder=left)
        return filled

    def _with_known(self, text: str) -> str:
        return PLACEHOLDER.sub(lambda match: self._known.get(match[1].strip(), match[0]), text)

    def _home(self, path: str) -> str:
        return os.path.join(self._machine.home, path[2:]) if path.startswith("~/") else path

    def _cwd(self, cwd: object) -> None:
        if isinstance(cwd, str) and cwd:
            self.table["cwd"] = os.path.normpath(
                os.path.join(self._folder, self._home(self._fill(cwd, "cwd")))
            )
        elif cwd:
            self.table["cwd"] = cwd
        elif self._found.folder is not None:
            self.table["cwd"] = self._folder
            self.remark("note", "import_project", folder=self._folder)
        elif any(self._starts_here(text) for text in self._words()):
            self.table["cwd"] = self._folder
            self.remark("note", "import_cwd", folder=self._folder)

    def _words(self) -> list[object]:
        args = self.table.get("args")
        words = args if isinstance(args, list) else []
        return [self.table.get("command"), *words, *env_of(self.table).values()]

    def _starts_here(self, text: object) -> bool:
        """Return whether this is a path relative to the file's folder."""
        path = str(text).rpartition("=")[2]
        if not path or path.startswith(("/", "-")):
            return False
        relative = path in (".", "..") or path.startswith(("./", "../"))
        return relative or self._machine.exists(os.path.join(self._folder, path))

    def _times(self, entry: Table) -> None:
        """Take the time-outs over, in seconds."""
        for time in times_of(entry, self._found.unit):
            if not time.is_number:
                self.table[time.meant] = time.value
            elif time.seconds is None:
                self.remark("warning", "import_timeout_unclear", key=time.key, value=time.value)
            else:
                self.table[time.meant] = time.seconds
                self._tell_time(time, f"{time.seconds:g}")

    def _tell_time(self, time: Time, seconds: str) -> None:
        if time.seconds != time.value:
            self.remark("note", "import_timeout", key=time.key, value=time.value, seconds=seconds)
        elif time.key != time.meant:
            self.remark("note", "import_time", key=time.key, meant=time.meant, seconds=seconds)

    def _switch(self, entry: Table) -> None:
        off = self._found.off or any(
            isinstance(value := entry.get(key), bool) and value is not on for key, on in _SWITCHES.items()
        )
        if off:
            self.table["enabled"] = False
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
        if self._unusable:
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
        """Return whether a service may lack access to the program, or to programs that it starts itself."""
        if os.path.dirname(program) in self._machine.service_path.split(":"):
            return False
        homes = (f"{self._machine.home.rstrip('/')}/", "/home/", "/root/")
        return "/" not in command or program.startswith(homes)

    def _leave_out(self, entry: Table) -> None:
        if entry.get("envFile"):
            self.remark("fault", "import_env_file", file=self._with_known(str(entry["envFile"])))
        taken = _TAKEN | NAMED.keys() | {key for key in _SWITCHES if isinstance(entry.get(key), bool)}
        left = sorted(str(key) for key, value in entry.items() if value and key not in taken)
        if left:
            self.remark("note", "import_left_out", keys=", ".join(left))


def _text(value: object) -> object:
    """Return a number or a boolean as text, as a process receives it; other values unchanged."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else value
