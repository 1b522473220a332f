"""`config/diff.py`: from what the broker runs on to what the file says, with no step too many."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import diff
from broker.config.diff import Adjust, Change, Requires, ServerStep, plan, requires
from broker.config.keys import AuthorizedKeys, KeyConfig
from broker.config.limits import LimitsConfig
from broker.config.loading import load
from broker.config.schema import BrokerConfig, Config, ServerConfig

Table = dict[str, Any]

servers = st.fixed_dictionaries(
    {"command": st.sampled_from(["a", "b"])},
    optional={
        "args": st.lists(st.sampled_from(["-x", "-y"]), max_size=2),
        "env": st.dictionaries(st.sampled_from(["A", "B", "C"]), st.sampled_from(["1", "2"])),
        "cwd": st.sampled_from(["/x", "/y"]),
        "enabled": st.booleans(),
        "timeout": st.sampled_from([1.0, 30.0]),
        "serialized": st.booleans(),
        "restart": st.sampled_from(["always", "never"]),
        "doctor": st.builds(dict, tool=st.sampled_from(["t", "u"])),
    },
)
files = st.fixed_dictionaries(
    {"servers": st.dictionaries(st.sampled_from("abcd"), servers, min_size=1)},
    optional={
        "broker": st.fixed_dictionaries(
            {}, optional={"endpoint": st.just("ipc:///x"), "socket_mode": st.just("0660")}
        ),
        "limits": st.fixed_dictionaries(
            {}, optional={"calls": st.integers(1, 3), "credit_bytes": st.sampled_from([65_536, 70_000])}
        ),
    },
)

authorized = st.builds(
    AuthorizedKeys,
    names=st.dictionaries(st.sampled_from("XY"), st.sampled_from("ab")),
    faults=st.lists(st.sampled_from("fg"), max_size=2).map(tuple),
    grants=st.dictionaries(st.sampled_from("ab"), st.builds(KeyConfig, manage=st.booleans())),
)
"""What the folder of keys and the tables `[keys.NAME]` say."""


def config(*, limits: Table | None = None, broker: Table | None = None, **tables: Table) -> Config:
    """A config of these servers, each with a command."""
    named = {name: {"command": "x", **table} for name, table in tables.items()}
    return load({"servers": named, "limits": limits or {}, "broker": broker or {}}, {})


FAULTY = {"timeout": 0}
"""Keys that no server can have."""


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({"enabled": False}, FAULTY, Change.RETUNE),  # it does not run, and is not going to
        (FAULTY, {}, Change.ENABLE),
        (FAULTY, {"enabled": False}, Change.RETUNE),
        (FAULTY, FAULTY | {"cwd": 5}, Change.RETUNE),
        ({}, FAULTY, Change.KEEP),
        ({}, FAULTY | {"enabled": False}, Change.DISABLE),
    ],
)
def test_a_table_with_a_mistake_is_about_its_server_only(before: Table, after: Table, change: Change) -> None:
    """One that runs goes on by the table that it had; the other server is in no step."""
    old, new = (
        load({"servers": {"a": {"command": "x", **keys}, "b": {"command": "x"}}}, {}, leave_out=True)
        for keys in (before, after)
    )
    made = plan(old, new)
    assert [one.change for one in made.steps if isinstance(one, ServerStep)] == [change]
    assert made.unchanged == ("b",)
    assert plan(made.config, new).steps == ()
    assert made.config.servers["a"].faults == new.servers["a"].faults


def test_a_server_that_went_on_follows_its_table_once_that_is_right() -> None:
    """What the correct table says differs from what the server goes on by."""
    old, faulty, mended = (
        load({"servers": {"a": {"command": command, **keys}}}, {}, leave_out=True)
        for command, keys in (("x", {}), ("y", FAULTY), ("y", {}))
    )
    kept = plan(old, faulty).config
    assert (kept.servers["a"].command, kept.servers["a"].runs) == ("x", True)
    assert plan(kept, mended).steps == (ServerStep(Change.REPLACE, mended.servers["a"], ("command",)),)
    assert plan(kept, old).steps == (ServerStep(Change.RETUNE, old.servers["a"]),)


def without(config: Config, paths: set[str]) -> Config:
    """The same with these keys of the broker's own at their defaults."""
    for path in paths:
        section, _, key = path.partition(".")
        part = getattr(config, section)
        (default,) = (f.default for f in msgspec.structs.fields(part) if f.name == key)
        config = msgspec.structs.replace(config, **{section: msgspec.structs.replace(part, **{key: default})})
    return config


@given(files, files, authorized, authorized)
def test_the_steps_lead_to_what_the_file_says(
    before: Table, after: Table, earlier: AuthorizedKeys, later: AuthorizedKeys
) -> None:
    """All that changed is changed, but for what is said to need a restart; so are the keys of clients."""
    old = msgspec.structs.replace(load(before, {}), authorized=earlier)
    new = msgspec.structs.replace(load(after, {}), authorized=later)
    made = plan(old, new)
    waits = {pending.path for pending in made.pending}
    assert without(made.config, waits) == without(new, waits)
    assert {pending.path for pending in plan(made.config, new).pending} == waits, (
        "it is said until it is done"
    )
    assert plan(made.config, new).steps == ()


@given(files, files)
def test_a_server_that_did_not_change_is_in_no_step(before: Table, after: Table) -> None:
    """The others do not notice. And every other server is in just one step."""
    old, new = load(before, {}), load(after, {})
    made = plan(old, new)
    in_steps = [step.server.name for step in made.steps if not isinstance(step, Adjust)]
    same = {name for name in new.servers if new.servers[name] == old.servers.get(name)}
    assert set(made.unchanged) == same
    assert sorted(in_steps) == sorted((old.servers.keys() | new.servers.keys()) - same)


@given(files, st.randoms(use_true_random=False))
def test_the_order_of_tables_and_keys_means_nothing(file: Table, random: Any) -> None:
    """A file that was sorted by hand restarts nobody."""

    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    made = plan(load(file, {}), load(shuffled(file), {}))
    assert (made.steps, made.pending) == ((), ())


OFF, ON = {"enabled": False}, {"enabled": True}


@pytest.mark.parametrize(
    ("before", "after", "kind", "keys"),
    [
        ({}, {"args": ["-v"]}, Change.REPLACE, ("args",)),
        ({}, {"env": {"A": "1"}, "timeout": 3}, Change.REPLACE, ("env", "timeout")),
        ({}, {"protocol": "legacy"}, Change.REPLACE, ("protocol",)),
        ({}, {"timeout": 3}, Change.RETUNE, ("timeout",)),
        ({}, {"serialized": True, "doctor": {"tool": "t"}}, Change.RETUNE, ("serialized", "doctor")),
        (OFF, {"command": "y", **OFF}, Change.RETUNE, ("command",)),
        (OFF, {"command": "y", **ON}, Change.ENABLE, ()),
        (ON, OFF, Change.DISABLE, ()),
    ],
)
def test_a_new_process_only_where_it_takes_one(
    before: Table, after: Table, kind: Change, keys: tuple[str, ...]
) -> None:
    """A server whose timeout was changed keeps its process; one that is off has none to be replaced."""
    (step,) = plan(config(s=before), config(s=after)).steps
    assert isinstance(step, ServerStep)
    assert (step.change, step.keys) == (kind, keys)


def test_another_variable_of_the_same_value_changes_nothing() -> None:
    """It is told of the server that it is unchanged, and not nothing at all."""
    old, new = ({"servers": {"s": {"command": "x", "env": {"KEY": f"${{{name}}}"}}}} for name in ("A", "B"))
    made = plan(*(load(file, {"A": "same", "B": "same"}) for file in (old, new)))
    assert (made.steps, made.unchanged) == ((), ("s",))


def test_a_server_with_a_new_name_is_another_one() -> None:
    """To rename is to remove and to add: clients call it by its name."""
    assert plan(config(a={}), config(b={})).steps == (
        ServerStep(Change.REMOVE, config(a={}).servers["a"]),
        ServerStep(Change.ADD, config(b={}).servers["b"]),
    )


def test_what_needs_a_restart_says_why_and_the_rest_is_done() -> None:
    """What can only change with a restart is said."""
    old = config(s={})
    new = config(s={}, broker={"endpoint": "ipc:///x"}, limits={"credit_bytes": 65_536, "calls": 9})
    made = plan(old, new)
    (step,) = made.steps
    assert isinstance(step, Adjust)
    assert (step.section, step.keys) == ("limits", ("calls",))
    assert made.config.limits.credit_bytes == old.limits.credit_bytes
    assert [(pending.path, bool(pending.why)) for pending in made.pending] == [
        ("broker.endpoint", True),
        ("limits.credit_bytes", True),
    ]


def test_a_key_that_nobody_thought_of_is_treated_with_care() -> None:
    """A key that is new in the config has effect in any case: by a new process, or by a restart."""
    assert requires("servers", "new") is Requires.PROCESS
    assert requires("limits", "new") is Requires.RESTART
    assert requires("anything", "new") is Requires.RESTART


@pytest.mark.parametrize(
    ("section", "shape"), [("broker", BrokerConfig), ("limits", LimitsConfig), ("servers", ServerConfig)]
)
def test_every_key_of_the_tables_exists(section: str, shape: type[msgspec.Struct]) -> None:
    """A key that was renamed in the config takes its row along."""
    keys = {field.name for field in msgspec.structs.fields(shape)}
    assert keys >= diff._NOTHING[section]
    assert {f"{section}.{key}" for key in keys} >= {path for path in diff._WHY if path.startswith(section)}
