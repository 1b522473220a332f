"""The tables and keys of a config, frozen. `loading` reads them.

The fields of these structs are the reference of the configuration: their types carry the bounds, the
explanation and the mend that `docs/configuration.md` and the error messages show.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from broker.config.endpoints import Endpoint, ScrapeAddress
from broker.config.fields import SECONDS, SIZE, SWITCH, WHOLE, WORDS, Count, Memory, Seconds, about
from broker.config.keys import AuthorizedKeys
from broker.config.limits import LimitsConfig
from broker.config.server_tables import TABLES, DoctorConfig, FilterConfig

NO_KEYS = frozenset(("servers", field) for field in (*TABLES, "name", "variables", "faults", "kept"))
"""Fields of the structs that are no keys: names, nested tables, and what follows from other fields."""

Text = Annotated[str, Meta(pattern=r"^[^\0]*\Z")]  # the kernel takes no NUL
Root = Annotated[str, Meta(pattern=r"^(file:///|(?![A-Za-z][A-Za-z0-9+.-]*:))[^\0]+\Z")]
Mode = Annotated[str, Meta(pattern=r"^0?[0-7]{3}\Z")]


class ServerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[servers.NAME]` table."""

    name: str
    command: Annotated[
        Text,
        Meta(min_length=1),
        about(
            "The program to run. A bare name is looked up in the server's PATH; a path with a `/` starts "
            "at `cwd`.",
            'write the program as a string, such as command = "uvx"',
        ),
    ]
    args: Annotated[tuple[Text, ...], about("Its arguments.", WORDS)] = ()
    env: Annotated[
        dict[str, str],
        about(
            "Environment variables of its own. `${VAR}` is filled from the broker's environment.",
            'write a table of strings, such as env = { API_KEY = "${API_KEY}" }',
        ),
    ] = {}
    env_inherit: Annotated[
        tuple[str, ...],
        about(
            "Names of further variables that it inherits from the broker's environment, where they are set.",
            WORDS,
        ),
    ] = ()
    cwd: Annotated[
        Text | None,
        about(
            "The folder it runs in, relative to the config file's folder, which is the default.",
            'write a folder as a string, such as cwd = "/srv/laundry"',
        ),
    ] = None
    enabled: Annotated[bool, about("Whether the broker runs it.", SWITCH)] = True
    start: Annotated[
        Literal["boot", "demand"],
        about(
            "When it is started: with the broker, or by the first call.",
            'write "boot" or "demand"',
        ),
    ] = "boot"
    idle_stop_sec: Annotated[
        float,
        Meta(ge=0, le=31_536_000),
        about(
            "Seconds without a call, a subscription or an open question after which its process is ended; "
            "the next call starts another. 0 keeps it running.",
            "write a number of seconds, such as 600, or 0",
        ),
    ] = 0.0
    timeout: Annotated[
        Seconds,
        about("Seconds until a call ends with an error, unless the caller names a timeout.", SECONDS),
    ] = 30.0
    protocol: Annotated[
        Literal["auto", "legacy", "2026-07-28"],
        about(
            "The protocol era: detected at the start, or fixed for a server that cannot handle the probe.",
            'write "auto", "legacy" or "2026-07-28"',
        ),
    ] = "auto"
    stateful: Annotated[
        bool,
        about(
            "Whether its process keeps state between calls, such as a login or an open page. If so, no "
            "call is retried after the process died; its caller gets an error.",
            SWITCH,
        ),
    ] = False
    lease_sec: Annotated[
        Seconds | None,
        about(
            "The first client that calls it has it for itself until that client closes, or has made no call "
            "for so many seconds; the others wait. It counts as `stateful`. Default: everybody may call it.",
            SECONDS,
        ),
    ] = None
    serialized: Annotated[bool, about("Whether it takes only one call at a time.", SWITCH)] = False
    max_in_flight: Annotated[Count, about("How many calls it has at once; the others are queued.", WHOLE)] = (
        32
    )
    allow_methods: Annotated[
        tuple[str, ...],
        about("MCP methods outside the specification that clients may call on it.", WORDS),
    ] = ()
    asks_within_calls: Annotated[
        bool,
        about(
            "Whether it asks its client (elicitation, sampling) only while it works on a call. Then its "
            'questions reach the client of that call. Needs `serialized = true`; sets `protocol = "legacy"`.',
            SWITCH,
        ),
    ] = False
    answer_timeout: Annotated[
        Seconds,
        about(
            "Seconds that a client has to answer a question of the server. The time of the call stands "
            "still meanwhile.",
            SECONDS,
        ),
    ] = 300.0
    stops_on_cancel: Annotated[
        bool,
        about(
            "Whether it stops work on a cancelled call when it reads the cancellation. Then the call is over "
            "when it answers a ping that was sent behind the cancellation.",
            SWITCH,
        ),
    ] = False
    cancel_grace_sec: Annotated[
        float,
        Meta(ge=0, le=31_536_000),
        about(
            "Seconds from its answer to that ping until a server with one call at a time gets the next call, "
            "if it neither answers the cancelled one nor has `stops_on_cancel`.",
            "write a number of seconds, such as 5, or 0",
        ),
    ] = 5.0
    roots: Annotated[
        tuple[Root, ...],
        about(
            "The answer to its `roots/list`: paths, relative to the config file's folder, or `file://` URIs.",
            'write a list of folders, such as roots = ["/srv/notes"]',
        ),
    ] = ()
    restart: Annotated[
        Literal["always", "on-failure", "never"],
        about("When it is restarted after it ended by itself.", 'write "always", "on-failure" or "never"'),
    ] = "always"
    restart_sec: Annotated[
        Seconds, about("Seconds before the first restart; each further delay is twice as long.", SECONDS)
    ] = 1.0
    start_limit_burst: Annotated[
        Count,
        about("Failures within the interval after which the circuit breaker opens.", WHOLE),
    ] = 5
    start_limit_interval_sec: Annotated[
        Seconds, about("The interval of `start_limit_burst`, in seconds.", SECONDS)
    ] = 60.0
    timeout_start_sec: Annotated[
        Seconds,
        about(
            "Seconds from its start until it must be ready. `npx`, `uvx`, `docker run` and others get up "
            "to ten times that while they download.",
            SECONDS,
        ),
    ] = 90.0
    timeout_stop_sec: Annotated[
        Seconds,
        about("Seconds to end after its stdin was closed, and again after SIGTERM.", SECONDS),
    ] = 5.0

    watchdog_sec: Annotated[
        float,
        Meta(ge=0, le=31_536_000),
        about(
            "Seconds of silence before a health check, unless it is busy. It is replaced after two checks "
            "without an answer. 0 turns checks off.",
            "write a number of seconds, such as 30, or 0",
        ),
    ] = 30.0

    doctor: DoctorConfig | None = None
    tools: FilterConfig | None = None
    prompts: FilterConfig | None = None
    resources: FilterConfig | None = None
    variables: tuple[str, ...] = ()
    """Names of the variables that `env` was filled from. Their values are likely secrets."""

    faults: tuple[str, ...] = ()
    """Mistakes in its table. A server that has any is left out; the others run."""

    kept: bool = False
    """Whether all other fields come from an earlier table without mistakes, which the server keeps."""

    @property
    def runs(self) -> bool:
        """Whether the broker runs it."""
        return self.enabled and (self.kept or not self.faults)

    @property
    def keeps_state(self) -> bool:
        """Whether its process keeps state between calls: another process cannot go on with them."""
        return self.stateful or self.lease_sec is not None

    @property
    def concurrency(self) -> int:
        """The number of calls that it may have at once."""
        return 1 if self.serialized else self.max_in_flight


class BrokerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[broker]` table."""

    endpoint: Annotated[
        Endpoint | Annotated[tuple[Endpoint, ...], Meta(min_length=1)] | None,
        about(
            "Where clients connect: one address, or a list. What other machines may reach needs the two keys "
            "below. Default: $MCP_BROKER_ENDPOINT, else /run/mcp-broker, else the user's runtime "
            "folder.",
            'write the whole path of a socket, as in "ipc:///run/mcp-broker/broker.sock", or a loopback '
            'address, as in "tcp://127.0.0.1:5555", or a list',
        ),
    ] = None
    server_key: Annotated[
        Text | None,
        about(
            "The file with the broker's own key pair, for `tcp://`. `mcp-broker keys new` makes it. A "
            "relative path starts at the config file's folder.",
            'write a path as a string, such as server_key = "server.key_secret"',
        ),
    ] = None
    authorized_keys: Annotated[
        Text | None,
        about(
            "The folder with the public keys of the clients that may connect over `tcp://`, one file "
            "(`NAME.key`) for each client.",
            'write a folder as a string, such as authorized_keys = "authorized_keys"',
        ),
    ] = None
    socket_mode: Annotated[
        Mode,
        about("The permissions of the socket.", 'write three octal digits as a string, such as "0660"'),
    ] = "0600"
    socket_group: Annotated[
        Text | None,
        about(
            "The group of the socket; with socket_mode 0660 its members may connect.",
            'write the name of a group as a string, such as "mcp-broker"',
        ),
    ] = None
    state_dir: Annotated[
        Text | None,
        about(
            "The folder that records the running processes, so that the next broker ends what a killed "
            "one left, and that keeps the lists of the servers; for one broker at a time. Default: "
            "`processes` in $STATE_DIRECTORY of systemd, else a folder beside the socket.",
            'write a folder as a string, such as state_dir = "/var/lib/mcp-broker"',
        ),
    ] = None
    metrics: Annotated[
        ScrapeAddress | None,
        about(
            "Where Prometheus reads the metrics: a loopback port, or a Unix socket with the mode and "
            "group above. Off by default.",
            'write a loopback port or a path, such as "127.0.0.1:9464" or "unix:/run/mcp-broker/m.sock"',
        ),
    ] = None
    max_running: Annotated[
        Count | None,
        about(
            "How many servers may run at once. For a further one the idle server that was unused for longest "
            "is stopped. Default: no limit.",
            WHOLE,
        ),
    ] = None
    memory_high: Annotated[
        Memory | None,
        about(
            "Bytes of memory that the servers may use together. Above it idle servers are stopped, those "
            "unused for longest first, and no further one is started. Default: no limit.",
            SIZE,
        ),
    ] = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses of `endpoint`; none where the default holds."""
        return (self.endpoint,) if isinstance(self.endpoint, str) else self.endpoint or ()

    @property
    def has_keys(self) -> bool:
        """Whether clients need a key on `tcp://`."""
        return self.server_key is not None and self.authorized_keys is not None


class Config(Struct, frozen=True, kw_only=True):
    """The content of one `broker.toml`."""

    broker: BrokerConfig
    limits: LimitsConfig
    servers: dict[str, ServerConfig]
    authorized: AuthorizedKeys = AuthorizedKeys()
