"""What `gateway.toml` says: its tables and keys, frozen; every mistake in it at once, with its line.

Without a file the defaults hold: a loopback port, a token of the gateway's own, every server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli
from msgspec import Meta, Struct

from broker.config.fields import SECONDS, SWITCH, WHOLE, WORDS, Count, Seconds, ServerPatterns, about
from broker.config.loading import ConfigError, Problem, section, unknown_key
from broker.config.names import toml_key
from broker.gateway.addresses import address_of
from broker.gateway.tokens import Token

SYSTEM_SETTINGS = Path("/etc/mcp-broker/gateway.toml")
PORT = 8420
_MAX_BYTES = 1024 * 1024

_SIZE = "write a number of bytes from 4096 up"
Bytes = Annotated[int, Meta(ge=4096, le=17_179_869_184)]


class DoorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[gateway]` table: where the gateway listens, and who may come in."""

    listen: Annotated[
        tuple[str, ...],
        about(
            "The addresses of its HTTP: loopback ports, or Unix sockets (`unix:/PATH`), which need no token.",
            'write a list of addresses, such as ["127.0.0.1:8420", "unix:/run/mcp-broker-gateway/http.sock"]',
        ),
    ] = (f"127.0.0.1:{PORT}",)
    behind_tls: Annotated[
        tuple[str, ...],
        about(
            "The addresses of `listen` that other machines can reach, repeated: a proxy with TLS stands in "
            "front of them.",
            "write the same addresses as in `listen`, or leave it out",
        ),
    ] = ()
    sockets: Annotated[
        str | None,
        about(
            "The folder of the Unix sockets for `mcp-broker connect`, one for each server; an empty text for "
            "none. By default the service's own folder, else `gateway` beside the broker's socket.",
            'write an absolute path, such as sockets = "/run/mcp-broker/gateway", or ""',
        ),
    ] = None
    endpoint: Annotated[
        str | None,
        about(
            "The address of the broker. By default it is found as every client finds it.",
            'write an endpoint, such as endpoint = "ipc:///run/mcp-broker/broker.sock"',
        ),
    ] = None
    state_dir: Annotated[
        str | None,
        about(
            "The folder of its token, the key of its sessions, and the list of ended sessions. By default "
            "$STATE_DIRECTORY of systemd, else `mcp-broker/gateway` in $XDG_STATE_HOME.",
            'write an absolute path, such as state_dir = "/var/lib/mcp-broker-gateway"',
        ),
    ] = None
    token: Annotated[
        bool,
        about("Whether clients of its ports need a token.", SWITCH),
    ] = True
    hosts: Annotated[
        tuple[str, ...],
        about("Further names by which clients may call it (the Host header).", WORDS),
    ] = ()
    origins: Annotated[
        tuple[str, ...],
        about(
            "Further web pages that may call it (the Origin header); pages of this machine may.",
            'write a list of origins, such as ["https://inspector.example.org"]',
        ),
    ] = ()


class GatewayLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[limits]` table: what bounds the gateway, whatever its clients do."""

    body_bytes: Annotated[Bytes, about("The largest body of a request.", _SIZE)] = 33_554_432
    header_bytes: Annotated[Bytes, about("What the headers of a request may take together.", _SIZE)] = 32_768
    body_sec: Annotated[Seconds, about("Seconds that headers and body of a request may take.", SECONDS)] = (
        30.0
    )
    connections: Annotated[
        Count,
        about(
            "Connections at once. Half of them may be without a token; the oldest of these goes for a new "
            "one, then one that rests.",
            WHOLE,
        ),
    ] = 4096
    sessions: Annotated[
        Count,
        about(
            "Legacy sessions of one token in memory. Above it, the longest silent one leaves the memory; its "
            "next request restores it.",
            WHOLE,
        ),
    ] = 1024
    session_idle_sec: Annotated[
        Seconds, about("Seconds after which a silent session leaves the memory.", SECONDS)
    ] = 600.0
    session_sec: Annotated[
        Seconds, about("Seconds after which a session that is not in memory expires.", SECONDS)
    ] = 2_592_000.0
    streams: Annotated[Count, about("Requests and streams of one token that may be open at once.", WHOLE)] = (
        1024
    )
    stream_bytes: Annotated[
        Bytes,
        about("Bytes that may wait for a client that reads slowly. Above it the stream is cut.", _SIZE),
    ] = 8_388_608
    token_bytes: Annotated[
        Bytes,
        about(
            "Bytes of requests under way, of parked calls and of answers not yet read that are held for one "
            "token. Above it, a body or a question is refused, and a stream is cut.",
            _SIZE,
        ),
    ] = 134_217_728
    all_bytes: Annotated[Bytes, about("The same for all tokens together.", _SIZE)] = 402_653_184
    replay_bytes: Annotated[
        Bytes, about("Bytes of a legacy stream that are kept for a client that reconnects.", _SIZE)
    ] = 262_144
    replay_sec: Annotated[
        Seconds, about("Seconds for which the answer to a disconnected legacy client is kept.", SECONDS)
    ] = 60.0
    drain_sec: Annotated[
        Seconds, about("Seconds that calls in flight have to end when the gateway is stopped.", SECONDS)
    ] = 5.0


class AuditConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[audit]` table: a file with a JSON line for each call that ended."""

    path: Annotated[
        str | None,
        about(
            "The file of the audit log. Off by default.",
            'write an absolute path, such as path = "/var/lib/mcp-broker-gateway/audit.jsonl"',
        ),
    ] = None
    max_bytes: Annotated[
        Bytes, about("The size at which the file is renamed to `.1`, and a new one begun.", _SIZE)
    ] = 16_777_216
    keep: Annotated[Count, about("How many renamed files stay.", WHOLE)] = 4
    bodies: Annotated[
        bool,
        about("Whether the lines hold the first 4,096 characters of arguments and results.", SWITCH),
    ] = False


class TokenConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[tokens.NAME]` table: a further token, and what its holder may do."""

    sha256: Annotated[
        str,
        Meta(pattern=r"^[0-9a-f]{64}\Z"),
        about("The SHA-256 of the token.", "write 64 hexadecimal digits: printf %s TOKEN | sha256sum"),
    ]
    servers: ServerPatterns = ("*",)
    tools: Annotated[tuple[str, ...], about("The tools it may see and call, as patterns.", WORDS)] = ("*",)
    rate: Annotated[
        float,
        Meta(ge=0, le=1_000_000),
        about("Requests a second; 0 sets no limit.", "write a number from 0, such as 50"),
    ] = 0.0


class Settings(Struct, frozen=True, kw_only=True):
    """What one `gateway.toml` says."""

    gateway: DoorConfig = DoorConfig()
    limits: GatewayLimits = GatewayLimits()
    audit: AuditConfig = AuditConfig()
    tokens: tuple[Token, ...] = ()


def find(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a file: of the one that is named, the user's, or the system's.

    Raises:
        ConfigError: it has mistakes.
    """
    own = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "mcp-broker", "gateway.toml")
    path = path or next((path for path in (own, SYSTEM_SETTINGS) if path.exists()), None)
    return Settings() if path is None else read(path)


def with_options(settings: Settings, endpoint: str | None, listen: tuple[str, ...]) -> Settings:
    """Return the settings with what the command line says instead.

    Raises:
        ConfigError: it does not fit.
    """
    door = settings.gateway
    if endpoint is not None:
        door = msgspec.structs.replace(door, endpoint=endpoint)
    if listen:
        door = msgspec.structs.replace(door, listen=listen)
    if problems := list(_about_addresses(door)):
        raise ConfigError(problems)
    return msgspec.structs.replace(settings, gateway=door)


def read(path: Path) -> Settings:
    """Return the settings in a file.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has other mistakes; all of them at once.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        mend = "name another file with --config, or let this user read it"
        raise ConfigError([Problem(str(path), error.strerror or str(error), mend)]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), f"not UTF-8: {error.reason}", "save it as UTF-8")]) from None
    return parse(text, str(path))


def parse(text: str, name: str = "gateway.toml") -> Settings:
    """Return the settings that a text describes.

    Raises:
        ConfigError: with every mistake there is, and the line it is in.
    """
    try:
        tables = tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([Problem(name, f"not TOML: {error}", "correct this line first")]) from None
    problems: list[Problem] = []
    settings = _settings(tables, problems)
    if problems or settings is None:
        raise ConfigError([_with_line(problem, text) for problem in problems])
    return settings


def _settings(tables: Mapping[str, Any], problems: list[Problem]) -> Settings | None:
    known = ["gateway", "limits", "audit", "tokens"]
    problems += [unknown_key(key, key, known) for key in tables.keys() - set(known)]
    door = section(DoorConfig, "gateway", tables.get("gateway", {}), problems, problems)
    limits = section(GatewayLimits, "limits", tables.get("limits", {}), problems, problems)
    audit = section(AuditConfig, "audit", tables.get("audit", {}), problems, problems)
    tokens = list(_tokens(tables.get("tokens", {}), problems))
    if door is not None:
        problems += _about_addresses(door)
    if audit is not None and audit.path is not None and not os.path.isabs(audit.path):
        problems.append(Problem("audit.path", f"{audit.path!r} is no absolute path", "begin it with /"))
    if door is None or limits is None or audit is None:
        return None
    return Settings(gateway=door, limits=limits, audit=audit, tokens=tuple(tokens))


def _tokens(tables: object, problems: list[Problem]) -> Iterator[Token]:
    if not isinstance(tables, Mapping):
        problems.append(
            Problem("tokens", "this must be a table", "write [tokens.NAME] and its keys below it")
        )
        return
    for name, table in tables.items():
        path = f"tokens.{toml_key(name)}"
        if not name.isprintable() or not name or name in ("local", "own"):
            problems.append(Problem(path, "a token cannot have this name", "give it another one"))
        found = section(TokenConfig, path, table, problems, problems)
        if found is not None:
            yield Token(name, bytes.fromhex(found.sha256), found.servers, found.tools, found.rate)


def _about_addresses(door: DoorConfig) -> Iterator[Problem]:
    form = "write 127.0.0.1:PORT, [::1]:PORT or unix:/PATH"
    for text in (*door.listen, *door.behind_tls):
        if address_of(text) is None:
            yield Problem("gateway.listen", f"{text!r} is no address to listen at", form)
    for text in door.listen:
        address = address_of(text)
        if address is None or address.is_loopback:
            continue
        if text not in door.behind_tls:
            message = f"{text} can be reached by other machines, and the gateway speaks no TLS"
            mend = (
                "listen at 127.0.0.1 and let a proxy with TLS call it there; or write the same address into "
                "`behind_tls`, too, where a proxy stands in front"
            )
            yield Problem("gateway.listen", message, mend)
        if not door.token:
            message = f"{text} can be reached by other machines without a token"
            yield Problem("gateway.token", message, "remove token = false")
    for text in set(door.behind_tls) - set(door.listen):
        yield Problem("gateway.behind_tls", f"{text} is not in `listen`", "write it there, or remove it here")
    for key in ("sockets", "state_dir"):
        value = getattr(door, key)
        if value and not os.path.isabs(value):
            yield Problem(f"gateway.{key}", f"{value!r} is no absolute path", "begin it with /")


def _with_line(problem: Problem, text: str) -> Problem:
    line = line_of(problem.path, text)
    return problem if line is None else msgspec.structs.replace(problem, path=f"{problem.path} (line {line})")


def line_of(path: str, text: str) -> int | None:
    """Return the line of a TOML text in which this key, or else its table, stands."""
    table, _, key = path.rpartition(".")
    here, found = "", None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if header:
            here = header[1]
            if here in (path, table):
                found = number
        elif here == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*(=|\.)""", line):
            return number
    return found
