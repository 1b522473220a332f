"""The configuration: what is filled in, and every mistake at once with its place and its mend."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.fields import mend_of, metas
from broker.config.limits import LimitsConfig
from broker.config.loading import MAX_PROBLEMS, ConfigError, Problem, load
from broker.config.schema import NO_KEYS, BrokerConfig, Config, ServerConfig
from broker.config.server_tables import TABLES, DoctorConfig, FilterConfig

FIELDS = [
    pytest.param(shape, field.name, id=f"{shape.__name__}.{field.name}")
    for shape in (ServerConfig, DoctorConfig, FilterConfig, BrokerConfig, LimitsConfig)
    for field in msgspec.structs.fields(shape)
    if shape is not ServerConfig or ("servers", field.name) not in NO_KEYS
]
NOTHING: dict[str, Any] = {"env": {}, "variables": [], "faults": [], "kept": False}
SECRET = "sk-8f3a-hunter2"


def server(environ: dict[str, str] | None = None, **keys: object) -> ServerConfig:
    """The one server of a config with these keys."""
    table = {"command": "x", **keys}
    return load({"servers": {"a": table}}, environ or {}).servers["a"]


def plain(table: msgspec.Struct) -> dict[str, Any]:
    """A table as TOML would have it."""
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(table))
    return built


def problems(mapping: dict[str, Any], environ: dict[str, str] | None = None) -> dict[str, Problem]:
    """What is wrong with it, by path; one problem a path."""
    with pytest.raises(ConfigError) as caught:
        load(mapping, environ or {})
    found = {problem.path: problem for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def problem(**keys: object) -> Problem:
    """The only problem of a server with these keys."""
    (only,) = problems({"servers": {"a": {"command": "x", **keys}}}).values()
    return only


# --- what is right -----------------------------------------------------------------------------------


def test_a_command_is_enough() -> None:
    """Section 3: everything but the command of a server has a default."""
    config = load({"servers": {"time": {"command": "uvx"}}}, {})
    assert config == Config(
        broker=BrokerConfig(),
        limits=LimitsConfig(),
        servers={"time": ServerConfig(name="time", command="uvx")},
    )


def test_the_defaults() -> None:
    """Section 3: what the documentation promises, so that no default moves unseen."""
    assert plain(server()) == {
        **dict.fromkeys(TABLES),
        "name": "a",
        "command": "x",
        "args": [],
        "env": {},
        "env_inherit": [],
        "cwd": None,
        "enabled": True,
        "start": "boot",
        "idle_stop_sec": 0.0,
        "timeout": 30.0,
        "protocol": "auto",
        "stateful": False,
        "lease_sec": None,
        "serialized": False,
        "max_in_flight": 32,
        "allow_methods": [],
        "asks_within_calls": False,
        "answer_timeout": 300.0,
        "stops_on_cancel": False,
        "cancel_grace_sec": 5.0,
        "roots": [],
        "restart": "always",
        "restart_sec": 1.0,
        "start_limit_burst": 5,
        "start_limit_interval_sec": 60.0,
        "timeout_start_sec": 90.0,
        "timeout_stop_sec": 5.0,
        "watchdog_sec": 30.0,
        "doctor": None,
        "variables": [],
        "faults": [],
        "kept": False,
    }
    assert plain(BrokerConfig()) == {
        "endpoint": None,
        "server_key": None,
        "authorized_keys": None,
        "socket_mode": "0600",
        "socket_group": None,
        "state_dir": None,
        "metrics": None,
        "max_running": None,
        "memory_high": None,
    }
    assert plain(LimitsConfig()) == {
        "max_message_bytes": 32 * 2**20,
        "credit_bytes": 8 * 2**20,
        "outbox_bytes": 64 * 2**20,
        "calls_per_channel": 1024,
        "calls_per_connection": 4096,
        "calls": 16384,
        "queue_bytes": 128 * 2**20,
        "connections": 4096,
        "starts_at_once": 4,
        "drain_sec": 5.0,
    }


def test_every_key_can_be_set() -> None:
    """Section 3: what is written is what is used."""
    keys: dict[str, Any] = {
        "command": "npx",
        "args": ["-y", "server"],
        "env": {"A": "b"},
        "env_inherit": ["C"],
        "cwd": "/srv",
        "enabled": False,
        "start": "demand",
        "idle_stop_sec": 600.0,
        "timeout": 5,
        "protocol": "2026-07-28",
        "stateful": True,
        "lease_sec": 60.5,
        "serialized": True,
        "max_in_flight": 2,
        "allow_methods": ["x/y"],
        "asks_within_calls": False,
        "answer_timeout": 10,
        "stops_on_cancel": True,
        "cancel_grace_sec": 0,
        "roots": ["notes", "file:///srv"],
        "restart": "on-failure",
        "restart_sec": 0.5,
        "start_limit_burst": 1,
        "start_limit_interval_sec": 1,
        "timeout_start_sec": 2,
        "timeout_stop_sec": 3,
        "watchdog_sec": 0,
        "doctor": {"tool": "list", "arguments": {"city": "福岡"}},
        "tools": {"only": ["get_*"], "hide": ["get_secret"]},
        "prompts": {"only": [], "hide": []},
        "resources": {"only": ["file:///*"], "hide": ["*/x"]},
    }
    assert plain(server(**keys)) == {"name": "a", **keys, **NOTHING}  # it is not run
    assert server(**keys | {"enabled": True}).env == {"A": "b"}


@pytest.mark.parametrize(
    ("doctor", "path"),
    [
        ("list", "servers.a.doctor"),
        ({}, "servers.a.doctor.tool"),
        ({"tool": ""}, "servers.a.doctor.tool"),
        ({"tool": "x", "arguments": []}, "servers.a.doctor.arguments"),
        ({"tool": "x", "args": {}}, "servers.a.doctor.args"),
    ],
)
def test_the_call_of_the_doctor_is_a_table_of_its_own(doctor: object, path: str) -> None:
    """Law 10: its mistakes have their own paths."""
    assert problem(doctor=doctor).path == path


def test_a_server_that_asks_within_calls_is_of_the_older_era() -> None:
    """A server of 2026-07-28 asks in its results, so the key fixes the era; no probe is needed."""
    asking = server(asks_within_calls=True, serialized=True)
    assert (asking.protocol, asking.answer_timeout) == ("legacy", 300.0)


def test_a_server_that_asks_within_calls_takes_one_call_at_a_time() -> None:
    """Law 8: with several calls at once, nothing says which of them a question belongs to."""
    found = problem(asks_within_calls=True)
    assert (found.path, found.mend) == ("servers.a.asks_within_calls", "write serialized = true beside it")


def test_a_modern_server_does_not_ask_within_calls() -> None:
    """2026-07-28: its questions are in the result, for which the broker needs no word of the operator."""
    found = problem(asks_within_calls=True, serialized=True, protocol="2026-07-28")
    assert found.path == "servers.a.asks_within_calls"


def test_a_serialized_server_has_one_call_at_a_time() -> None:
    """Section 3: `serialized` wins over `max_in_flight`."""
    assert server(max_in_flight=7).concurrency == 7
    assert server(max_in_flight=7, serialized=True).concurrency == 1


@pytest.mark.parametrize(
    "endpoint", ["ipc:///run/x.sock", "tcp://127.0.0.1:5555", "tcp://127.0.0.1:65535", "tcp://[::1]:1"]
)
def test_endpoints_that_stay_on_the_host_are_taken(endpoint: str) -> None:
    """Section 3: a socket file or the loopback."""
    mapping = {"broker": {"endpoint": endpoint}, "servers": {"a": {"command": "x"}}}
    assert load(mapping, {}).broker.endpoint == endpoint


@pytest.mark.parametrize(
    "twice",
    [
        ["tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"],
        ["ipc:///run/x.sock", "ipc:///run/x.sock"],
        ["ipc:///run/x.sock", "ipc:///run//./x.sock"],
    ],
)
def test_an_endpoint_that_is_listed_twice_is_refused(twice: list[str]) -> None:
    """Law 10: the second listener would find the first, and be told to stop another broker."""
    mapping = {"broker": {"endpoint": ["ipc:///run/y.sock", *twice]}, "servers": {"a": {"command": "x"}}}
    assert problems(mapping)["broker.endpoint"].message == f"the list has {twice[1]} twice"


def test_an_empty_list_of_endpoints_is_refused() -> None:
    """Law 8: it says that the broker listens nowhere, and not that the default holds."""
    found = problems({"broker": {"endpoint": []}, "servers": {"a": {"command": "x"}}})
    assert found["broker.endpoint"].message == "expected a list of length >= 1"


# --- names, and keys that are none -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "Time-2", "a.b_c", "0", "x" * 64])
def test_names_that_a_server_may_have(name: str) -> None:
    """Law 10: a name can be typed in a shell and shown in a log."""
    assert load({"servers": {name: {"command": "x"}}}, {}).servers[name].name == name


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("", 'servers.""'),
        ("$broker", 'servers."$broker"'),
        ("$", 'servers."$"'),
        ("-a", "servers.-a"),
        ("a/b", 'servers."a/b"'),
        ("x" * 65, f"servers.{'x' * 65}"),
        ("a\n", 'servers."a\\u000a"'),
        ("a\u200bb", 'servers."a\\u200bb"'),
    ],
)
def test_names_that_no_server_may_have(name: str, path: str) -> None:
    """Section 3: management is a reserved name, which no server can take. The place is valid TOML."""
    assert "64 letters" in problems({"servers": {name: {"command": "x"}}})[path].mend


def test_a_name_is_the_same_however_it_was_typed() -> None:
    """é is one character or two; the config has it as one, and two tables of one name are a mistake."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert list(load({"servers": {decomposed: {"command": "x"}}}, {}).servers) == [composed]
    twice = problems({"servers": {composed: {"command": "x"}, decomposed: {"command": "y"}}})
    assert "two servers have this name" in twice[f'servers."{composed}"'].message


@pytest.mark.parametrize(
    ("keys", "path", "mend"),
    [
        ({"comand": "x"}, "servers.a.comand", "did you mean command?"),
        ({"max_inflight": 1}, "servers.a.max_inflight", "did you mean max_in_flight?"),
        ({"timeout_sec": 1}, "servers.a.timeout_sec", "did you mean timeout_stop_sec?"),
        ({"qqq": 1}, "servers.a.qqq", "the keys are command, args, env,"),
        ({"name": "b"}, "servers.a.name", "the keys are command,"),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_one(keys: dict[str, object], path: str, mend: str) -> None:
    """Law 10: a slip of the pen is named as one."""
    only = problem(**keys)
    assert only.path == path
    assert only.message == "there is no such key"
    assert only.mend.startswith(mend)


def test_unknown_tables_are_named() -> None:
    """Law 9: nothing that somebody wrote is ignored."""
    found = problems(
        {"server": {}, "limit": {}, "broker": {"endpont": "x"}, "servers": {"a": {"command": "x"}}}
    )
    assert {path: problem.mend for path, problem in found.items()} == {
        "server": "did you mean servers?",
        "limit": "did you mean limits?",
        "broker.endpont": "did you mean endpoint?",
    }


# --- mistakes ----------------------------------------------------------------------------------------


def test_every_mistake_is_found_at_once() -> None:
    """Section 2: all errors at once, each by its TOML path and with the mend."""
    found = problems(
        {
            "broker": {"endpoint": "tcp://0.0.0.0:1", "socket_mode": 660},
            "limits": {"calls": 0, "credit_bytes": 1, "drain_sec": "5"},
            "servers": {
                "bad/name": {},
                "a": {"args": "x", "timeout": 0, "restart": "sometimes", "tiemout": 1},
                "b": {"command": "x", "env": {"K": "${MISSING}", "A=B": "x"}},
                "c": 5,
            },
        }
    )
    assert (
        list(found)
        == sorted(found)
        == [
            "broker.endpoint",
            "broker.socket_mode",
            "limits.calls",
            "limits.credit_bytes",
            "limits.drain_sec",
            'servers."bad/name"',
            'servers."bad/name".command',
            "servers.a.args",
            "servers.a.command",
            "servers.a.restart",
            "servers.a.tiemout",
            "servers.a.timeout",
            "servers.b.env.A=B",
            "servers.b.env.K",
            "servers.c",
        ]
    )
    assert all(problem.mend and problem.message for problem in found.values())


def test_the_error_is_its_problems_a_line_each() -> None:
    """Law 10: path, what is wrong, what to do."""
    with pytest.raises(ConfigError) as caught:
        load({"servers": {"a": {}, "b": {}}}, {})
    assert str(caught.value).splitlines() == [
        f'servers.{name}.command: this key is missing; write the program as a string, such as command = "uvx"'
        for name in "ab"
    ]


@pytest.mark.parametrize(
    "servers",
    [
        {f"s{number}": {"comand": "x"} for number in range(2 * MAX_PROBLEMS)},
        {"s": {"command": "x", **{f"k{number}": 1 for number in range(2 * MAX_PROBLEMS)}}},
    ],
    ids=["in many tables", "in one table"],
)
def test_of_very_many_mistakes_the_first_are_told_and_that_there_are_more(servers: dict[str, Any]) -> None:
    """Laws 5 and 6: a file that is no config has one in each line, and others wait while they are told."""
    with pytest.raises(ConfigError) as caught:
        load({"servers": servers}, {})
    *first, last = caught.value.problems
    assert len(first) == MAX_PROBLEMS
    assert last.message == "there are more mistakes"


@pytest.mark.parametrize("mapping", [{}, {"servers": {}}, {"servers": []}, {"servers": "x"}])
def test_a_broker_without_a_server_says_how_to_add_one(mapping: dict[str, Any]) -> None:
    """Law 10, for the first minute with an empty file."""
    assert "[servers.time]" in problems(mapping)["servers"].mend


@pytest.mark.parametrize("value", [0, -1, "5", True, None, [], float("nan")])
def test_a_time_is_a_number_above_0(value: object) -> None:
    """Law 2: an invalid deadline would never come, or would have come already."""
    assert "seconds above 0" in problem(timeout=value).mend


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, None, 10**9 + 1, 10**20])
def test_a_count_is_a_whole_number_from_1_up(value: object) -> None:
    """Law 6: every limit limits something. A number above every possible count does not."""
    assert "from 1 to 1000000000" in problem(start_limit_burst=value).mend


@pytest.mark.parametrize(
    "keys",
    [
        {"command": ""},
        {"command": "a\0b"},
        {"args": ["a", "b\0"]},
        {"args": ["a", 5]},
        {"cwd": "\0"},
        {"env": {"K": "a\0b"}},
        {"env": {"": "x"}},
        {"env": {"A\0": "x"}},
    ],
)
def test_what_the_kernel_takes_for_no_program_is_refused(keys: dict[str, object]) -> None:
    """Law 5: a server that cannot be started for such a reason would take the broker with it."""
    assert problem(**keys).path.startswith(f"servers.a.{next(iter(keys))}")


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", "ipc://", "/run/x", 5, "tcp://127.0.0.1"),
        *("tcp://0.0.0.0:1", "tcp://*:1", "tcp://localhost:1", "tcp://127.0.0.1:1;0.0.0.0:1"),
        *("tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:99999"),
        *("ipc://x.sock", "ipc://rel/x.sock", "ipc://@abstract"),
        *("tcp://127.0.0.1:1\n", "ipc:///run/x\n", "ipc:///run/x\ny", "tcp://127.0.0.1:\uff11"),
    ],
)
def test_endpoints_beyond_the_host_are_refused(endpoint: object) -> None:
    """Section 3: whoever can connect can call every tool, so no other host can without a key. Nor is there a
    port above 65535, a path that is another one in another folder, or a socket without permissions."""
    found = problems({"broker": {"endpoint": endpoint}, "servers": {"a": {"command": "x"}}})
    assert "loopback" in found["broker.endpoint"].mend
    open_to_others = "lacks server_key" in found["broker.endpoint"].message
    assert open_to_others or "whole path" in found["broker.endpoint"].mend


def test_a_group_that_no_system_has_is_refused() -> None:
    """Law 5: to look up such a name would take the broker with it."""
    found = problems({"broker": {"socket_group": "a\0b"}, "servers": {"a": {"command": "x"}}})
    assert "name of a group" in found["broker.socket_group"].mend


@pytest.mark.parametrize("mode", ["0888", "rw-rw----", "66", "", 660, 0o660])
def test_a_mode_is_octal_digits_in_a_string(mode: object) -> None:
    """Section 5, permissions: TOML would read 0660 as something else."""
    found = problems({"broker": {"socket_mode": mode}, "servers": {"a": {"command": "x"}}})
    assert '"0660"' in found["broker.socket_mode"].mend


@pytest.mark.parametrize(("shape", "key"), FIELDS)
def test_every_key_has_a_description_and_a_mend(shape: type[msgspec.Struct], key: str) -> None:
    """Section 2: the fields are the reference that documentation and messages are made from."""
    (about,) = [meta for meta in metas(shape, key) if meta.description]
    assert about.description is not None
    assert about.description.endswith(".")
    assert mend_of(shape, key).startswith("write ")


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([field.name for field in msgspec.structs.fields(ServerConfig)]) | st.text(max_size=6)
tables = st.dictionaries(names, values, max_size=6)


@given(
    st.fixed_dictionaries({"servers": st.dictionaries(st.just("a") | st.text(max_size=4), tables | values)})
)
def test_any_mapping_is_a_config_or_a_config_error(mapping: dict[str, Any]) -> None:
    """Law 10: no file makes anything else of the broker, such as a traceback."""
    try:
        load(mapping, {})
    except ConfigError as error:
        found = error.problems
    else:
        return
    assert found
    assert all(problem.path and problem.mend for problem in found)


# --- the environment, and its secrets ----------------------------------------------------------------


def test_variables_are_filled_from_the_environment_of_the_broker() -> None:
    """Section 3: `${VAR}`, anywhere in a value and as often as one likes; nothing else means anything."""
    env = {"A": "${X}", "B": "<${X}-${Y}>${X}", "C": "$X $$ %X% {X} ${", "D": ""}
    filled = server({"X": "1", "Y": "${X}"}, env=env).env
    assert filled == {"A": "1", "B": "<1-${X}>1", "C": env["C"], "D": ""}


@pytest.mark.parametrize("value", ["${MISSING}", "a ${MISSING} b", "${MISSING}${MISSING}"])
def test_a_variable_that_is_not_there_is_a_mistake(value: str) -> None:
    """Law 8: an empty key would only show when the first call fails."""
    with pytest.raises(ConfigError, match=r"servers\.a\.env\.K: \$\{MISSING\} is not in") as caught:
        server({}, env={"K": value})
    assert "set MISSING where the broker is started" in caught.value.problems[0].mend


def test_an_empty_variable_is_there() -> None:
    """Law 8: empty is a value."""
    assert server({"X": ""}, env={"K": "${X}"}).env == {"K": ""}


# --- servers that are left out -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"env": {"K": "${MISSING}"}}, "servers.a.env.K"),
        ({"env": {"A=B": "x"}}, "servers.a.env.A=B"),
        ({"env": ["K=x"]}, "servers.a.env"),
        ({"timeout": 0}, "servers.a.timeout"),
        ({"command": ""}, "servers.a.command"),
        ({"command": ["npx", "-y"]}, "servers.a.command"),
        ({"args": "-y x"}, "servers.a.args"),
        ({"cwd": 5}, "servers.a.cwd"),
        ({"restart": "sometimes"}, "servers.a.restart"),
        ({"enabled": "yes"}, "servers.a.enabled"),
        ({"protocol": "2027"}, "servers.a.protocol"),
        ({"doctor": {"tool": 5}}, "servers.a.doctor.tool"),
        ({"doctor": {}}, "servers.a.doctor.tool"),
        ({"doctor": "x"}, "servers.a.doctor"),
        ({"tools": {"hide": "get_*"}}, "servers.a.tools.hide"),
        ({"prompts": {"only": [""]}}, "servers.a.prompts.only"),
        ({"resources": {"hide": ["x"] * 129}}, "servers.a.resources.hide"),
        ({"tools": ["get_*"]}, "servers.a.tools"),
    ],
)
def test_a_mistake_in_the_values_of_a_server_leaves_it_out(keys: dict[str, object], path: str) -> None:
    """Faults stay where they are: it says why, and the others run."""
    tables = {"a": {"command": "x", **keys}, "b": {"command": "x"}}
    servers = load({"servers": tables}, {}, leave_out=True).servers
    (fault,) = servers["a"].faults
    assert fault.startswith(f"{path}: ")
    assert not servers["a"].runs
    assert (servers["b"].runs, servers["b"].faults) == (True, ())
    assert list(problems({"servers": tables})) == [path], "who wants every mistake has it"


def test_a_server_without_a_command_is_left_out() -> None:
    """A table that somebody has begun."""
    (fault,) = load({"servers": {"a": {"timeout": 5}}}, {}, leave_out=True).servers["a"].faults
    assert fault.startswith("servers.a.command: this key is missing")


@pytest.mark.parametrize(
    ("mapping", "path"),
    [
        ({"servers": {"a": {"comand": "x"}}}, "servers.a.comand"),
        ({"servers": {"a": {"command": "x", "doctor": {"tol": "x"}}}}, "servers.a.doctor.tol"),
        ({"servers": {"a": {"command": "x"}, "b": 5}}, "servers.b"),
        ({"servers": {"a": {"command": "x"}}, "limits": {"calls": 0}}, "limits.calls"),
        ({"servers": {"a": {"command": "x"}}, "brokre": {}}, "brokre"),
        ({"servers": {"a/b": {"command": "x"}}}, 'servers."a/b"'),
    ],
)
def test_a_key_that_is_misspelt_stops_everything(mapping: dict[str, Any], path: str) -> None:
    """What it was to say cannot be known. Then the servers' own mistakes are told as well."""
    mapping["servers"]["c"] = {"command": "x", "timeout": 0}
    with pytest.raises(ConfigError) as caught:
        load(mapping, {}, leave_out=True)
    assert {path, "servers.c.timeout"} <= {problem.path for problem in caught.value.problems}


def test_of_many_mistakes_a_server_keeps_a_few() -> None:
    """Law 6: they are shown with each status."""
    env = {f"K{number:03}": "${MISSING}" for number in range(100)}
    faults = load({"servers": {"a": {"command": "x", "env": env}}}, {}, leave_out=True).servers["a"].faults
    assert (len(faults), faults[-1]) == (6, "and 95 more mistakes")


# --- defaults from the environment -------------------------------------------------------------------

IMAGE = {"MCP_BROKER_SOCKET_MODE": "0660", "MCP_BROKER_SOCKET_GROUP": "web", "MCP_BROKER_STATE_DIR": "/tmp/b"}


def broker(table: dict[str, Any], environ: dict[str, str]) -> BrokerConfig:
    """The table `[broker]` of a config with one server."""
    return load({"broker": table, "servers": {"a": {"command": "x"}}}, environ).broker


def test_the_environment_has_defaults_for_a_config_without_a_table_of_the_broker() -> None:
    """An imported config works in the image, whose backend is another user."""
    expected = BrokerConfig(socket_mode="0660", socket_group="web", state_dir="/tmp/b")
    assert load({"servers": {"a": {"command": "x"}}}, IMAGE).broker == expected
    assert broker({}, dict.fromkeys(IMAGE, "")) == BrokerConfig(), "an empty variable does not count"


def test_the_config_comes_before_the_environment() -> None:
    """What is not used is not looked at either."""
    assert broker({"socket_mode": "0600"}, {"MCP_BROKER_SOCKET_MODE": "nonsense"}) == BrokerConfig()


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    """Law 10: nobody looks for it in the file, and other mistakes are told with it."""
    found = problems(
        {"broker": {"socket_grup": "x"}, "servers": {"a": {"command": "x"}}}, {"MCP_BROKER_SOCKET_MODE": "rw"}
    )
    assert found.keys() == {"$MCP_BROKER_SOCKET_MODE", "broker.socket_grup"}
    assert "0660" in found["$MCP_BROKER_SOCKET_MODE"].mend


def test_a_disabled_server_needs_no_variables() -> None:
    """Law 5: what is not run cannot keep the others from running."""
    assert server({}, enabled=False, env={"K": "${MISSING}"}).env == {}


@pytest.mark.parametrize(
    "keys",
    [
        {"env": {"K": SECRET + "\0"}},
        {"env": {"K": SECRET + "${MISSING}"}},
        {"env": {"K": [SECRET]}},
        {"env": {"K": SECRET, "L": 5}},
        {"env": SECRET},
        {"env": [SECRET]},
        {"env": {"K": "${X}${MISSING}"}},
        {"env": {"K": "${X}"}, "timeout": SECRET},
        {"args": SECRET},
        {"args": [SECRET, 5]},
        {"cwd": [SECRET]},
        {"command": [SECRET]},
    ],
)
def test_no_message_has_a_value_in_it(keys: dict[str, object]) -> None:
    """Law 10: messages are pasted into reports, and a value may be a secret."""
    with pytest.raises(ConfigError) as caught:
        server({"X": SECRET}, **keys)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    ("root", "is_one"),
    [
        ("notes", True),
        ("/srv/notes", True),
        ("../notes", True),
        ("file:///srv/notes", True),
        ("file://host/notes", False),
        ("https://example.org", False),
        ("C:notes", False),
        ("", False),
        ("a\0b", False),
    ],
)
def test_a_root_is_a_path_or_a_file_uri(root: str, is_one: bool) -> None:
    """2025-11-25: a root "MUST be a `file://` URI"; what cannot become one is told at once."""
    if is_one:
        assert server(roots=[root]).roots == (root,)
    else:
        with pytest.raises(ConfigError, match=r"servers.a.roots"):
            server(roots=[root])
