"""Where the doctor has to guess: which tool is harmless, what is the same server, whose pids these are."""

from __future__ import annotations

from typing import Any

import pytest

from broker.command.doctor import machine
from broker.command.doctor.machine import Task, is_here, signature, strays
from broker.command.doctor.pages import harmless, wish_for


def tool(name: str, required: tuple[str, ...] = (), **hints: bool) -> dict[str, Any]:
    schema = {"type": "object", "required": list(required)}
    return {"name": name, "inputSchema": schema, **({"annotations": hints} if hints else {})}


@pytest.mark.parametrize(
    ("tools", "chosen"),
    [
        ([], None),
        ([tool("list_all"), tool("peek", readOnlyHint=True)], "peek"),
        ([tool("peek", ("where",), readOnlyHint=True), tool("look", readOnlyHint=True)], "look"),
        ([tool("peek", ("where",), readOnlyHint=True), tool("listAll")], None),
        ([tool("get_it", ("id",))], None),
        ([tool("list_tabs")], None),  # seen: it started a browser
        ([tool("get_audit")], None),  # seen: it ran one
        ([tool("reset")], None),
        ([tool("list_and_erase", destructiveHint=True)], None),
        ([tool("list_all", idempotentHint=True)], None),
        ([tool("list_all", openWorldHint=False)], None),
        ([{"name": "list_all", "annotations": None}], None),
        ([{"name": "list_all", "annotations": {"readOnlyHint": "true"}}], None),
        ([tool("peek", readOnlyHint=True, destructiveHint=True)], None),
        ([tool("get_next_job", readOnlyHint=False)], None),
        ([tool("status", destructiveHint=False)], None),
        ([{"name": "現在"}], None),
    ],
)
def test_only_a_harmless_tool_is_chosen(tools: list[dict[str, Any]], chosen: str | None) -> None:
    """One that needs no arguments and is annotated `readOnlyHint`: a name proves nothing."""
    wish = harmless(tools)
    assert (wish.tool if wish else None) == chosen


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/usr/bin/python3.11 -m srv", "/app/.venv/bin/python -m srv", True),
        (
            "/usr/bin/python3 /root/.local/bin/mcp-time --tz X",
            "/venv/bin/python3.12 /venv/bin/mcp-time --tz X",
            True,
        ),
        ("python -m srv", "python -m srv --other", False),
        ("python /a/server.py", "python /b/server.py", False),
        ("node index.js", "python index.js", False),
    ],
)
def test_what_is_the_same_server(one: str, other: str, same: bool) -> None:
    """Where a program is installed, and the version of its interpreter, make no other server of it."""
    assert (signature(tuple(one.split())) == signature(tuple(other.split()))) is same


@pytest.mark.parametrize(
    ("broker", "leaders", "here"),
    [
        (10, (11, 12), True),
        (10, (13,), False),
        (99, (), False),
        (10, (), True),
        (14, (), False),
        (10, (98,), True),
    ],
)
def test_pids_of_another_machine_are_not_taken_for_ours(
    broker: int, leaders: tuple[int, ...], here: bool
) -> None:
    """Law 8: a broker's servers are its children here too, or nothing is said about processes."""
    table = {
        10: Task(10, 1, 0.0, ("/usr/bin/python3", "/venv/bin/mcp-broker", "serve")),
        11: Task(11, 10, 0.0, ("python", "a.py")),
        12: Task(12, 10, 0.0, ("python", "b.py")),
        13: Task(13, 1, 0.0, ("bash",)),
        14: Task(14, 1, 0.0, ("sshd",)),
    }
    assert is_here(table, broker, leaders) is here


def test_what_the_config_names_is_called() -> None:
    """The doctor chooses only where nobody else has, even if the tool that is named is not in the list."""
    look = tool("look", readOnlyHint=True)
    wish = wish_for({"doctor": {"tool": "reset", "arguments": {"soft": True}}}, [look])
    assert wish == ("reset", {"soft": True}, "config")
    chosen = wish_for({"doctor": None}, [tool("list_all"), look])
    assert chosen == ("look", {}, "doctor")


BEYOND = 10**9
"""Above every pid that a kernel gives, so that /proc knows nothing of these processes."""


@pytest.mark.parametrize(
    ("parent", "kind"),
    [
        ("leader", None),
        ("worker of leader", None),
        ("broker", "second"),
        ("other broker", None),
        ("backend", "beside"),
        ("nobody", "beside"),
    ],
)
def test_whose_a_process_is(parent: str, kind: str | None) -> None:
    """Law 1 from outside: the same command line is well in the server's own tree and in another broker's."""
    names = ("broker", "leader", "worker of leader", "other broker", "backend", "one", "below one")
    pids = {name: BEYOND + n for n, name in enumerate(names)}
    argvs = {
        "broker": ("python", "/v/bin/mcp-broker", "serve"),
        "other broker": ("python", "-m", "broker", "serve", "--config", "x"),
        "worker of leader": ("sh",),
        "backend": ("python", "run_server.py"),
    }
    parents = {"leader": "broker", "worker of leader": "leader", "one": parent, "below one": "one"}
    seen = {
        pid: Task(pid, pids.get(parents.get(name, ""), 1), 0.0, argvs.get(name, ("uvx", "mcp-server-time")))
        for name, pid in pids.items()
    }
    found = strays(seen, pids["broker"], {pids["leader"]: "time"})
    expected = [] if kind is None else [("time", pids["one"], kind)]
    assert [(stray.server, stray.pid, stray.kind) for stray in found] == expected
    assert all(("run_server.py" in stray.by) is (parent == "backend") for stray in found)


def test_two_servers_of_one_command_are_no_second_tree() -> None:
    """Two of the same program differ in their environment only: each is the leader of its own tree."""
    pids = {name: BEYOND + n for n, name in enumerate(("broker", "one", "other", "below other", "third"))}
    parents = {"one": "broker", "other": "broker", "below other": "other", "third": "broker"}
    seen = {
        pid: Task(pid, pids.get(parents.get(name, ""), 1), 0.0, ("uvx", "notes") if name != "broker" else ())
        for name, pid in pids.items()
    }
    found = strays(seen, pids["broker"], {pids["one"]: "work", pids["other"]: "home"})
    assert [(stray.pid, stray.kind) for stray in found] == [(pids["third"], "second")]


def test_what_detached_itself_is_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two servers of one command, a process that left its tree has the cookie of one of them."""
    pids = {name: BEYOND + n for n, name in enumerate(("broker", "one", "other", "detached", "third"))}
    cookies = {pids["one"]: b"1", pids["other"]: b"2", pids["detached"]: b"2", pids["third"]: b"3"}
    monkeypatch.setattr(machine, "_cookie", cookies.get)
    seen = {pid: Task(pid, pids["broker"], 0.0, ("uvx", "notes")) for pid in pids.values()}
    seen[pids["broker"]] = Task(pids["broker"], 1, 0.0, ())
    found = strays(seen, pids["broker"], {pids["one"]: "work", pids["other"]: "home"})
    assert {(stray.pid, stray.kind) for stray in found} == {(pids["third"], "second")}
