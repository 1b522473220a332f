"""The table of `mcp-broker status` when its figures are large: it is read, or pasted into a report."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.command import output, tables
from broker.command.layout import Line
from broker.command.status import status_parts, tools_parts
from broker.command.texts.wrapping import breaks, display_width

ROW: dict[str, Any] = {
    "name": "advertisement-server",
    "state": "ready",
    "pid": 4194304,
    "processes": 12,
    "uptime_s": 1e6,
    "restarts": 1234,
    "tools": 123,
    "calls": 12_345_678,
    "errors": 1234,
    "p50_ms": 12.34,
    "p99_ms": 12345.6,
    "cpu_s": 1234.5,
    "rss_bytes": 1_234_567_890,
    "stopped_by_hand": False,
    "retry_after_s": None,
    "last_error": None,
    "last_cause": None,
}
BROKER = {
    "version": "1",
    "pid": 1,
    "uptime_s": 1.0,
    "rss_bytes": 1,
    "clients": 1,
    "endpoint": "ipc:///b",
    "config_error": None,
    "restart_needed": [],
}


@pytest.mark.parametrize("locale", ["C.UTF-8", "zh_CN.UTF-8"])
def test_no_figure_is_cut(
    locale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes, memory and CPU of a tree stand whole in 100 columns; a long name is folded instead."""
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("COLUMNS", "100")
    tables.show(status_parts({"broker": BROKER, "servers": [ROW], "clients": []}))
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if " 4194304 " in line]
    assert row.split()[3:] == [
        "12",
        "11d13h",
        "1234",
        "123",
        "12345k",
        "1234",
        "12.3/12346",
        "20m34s",
        "1177.4M",
    ]
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 100
    assert any("p50/p99 " in line and "cpu" in line.lower() for line in out.splitlines()), (
        "a header of one line"
    )


def test_who_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each client program with its connections and channels, without the command itself."""

    def client(name: str, pid: int, channels: int) -> dict[str, Any]:
        return {"name": name, "pid": pid, "channels": channels, "in_flight": 1, "calls": 5}

    clients = [
        *(client("屏幕后端", 7, 2), client("屏幕后端", 8, 1), client("elsewhere", -1, 0)),
        client("mcp-broker status", 9, 1),
    ]
    said = []
    for locale in ("en", "zh"):
        monkeypatch.setenv("MCP_BROKER_LANG", locale)
        parts = status_parts({"broker": BROKER, "servers": [ROW], "clients": clients})
        said.append([part.text for part in parts if isinstance(part, Line)])
    english, chinese = said
    assert "3 clients" in english[0]
    assert [line for line in english if line.startswith("client ")] == [
        "client elsewhere: 1 connection, 0 channels, 5 requests, 1 running",
        "client 屏幕后端 (pid 7, 8): 2 connections, 3 channels, 10 requests, 2 running",
    ]
    assert "客户端 屏幕后端（进程号 7, 8）：连接 2，通道 3，请求 10，进行中 2" in chinese
    many = [client(f"c{number}", 1, 0) for number in range(23)]
    monkeypatch.setenv("MCP_BROKER_LANG", "en")
    parts = status_parts({"broker": BROKER, "servers": [ROW], "clients": many})
    lines = [part.text for part in parts if isinstance(part, Line)]
    assert "and 3 more client programs; `mcp-broker status --json` has all" in lines


@pytest.mark.parametrize("tty", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("locale", ["en", "zh"])
def test_chinese_names_leave_the_columns_aligned(
    tty: bool, locale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Chinese character takes two columns: each state begins in the same one, in every row."""
    monkeypatch.setenv("MCP_BROKER_LANG", locale)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")  # without colours
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    names = ("time", "时间", "洗衣助手 2", "广告")
    rows = [{**ROW, "name": name} for name in names]
    output.show(status_parts({"broker": BROKER, "servers": rows, "clients": []}))
    state = "ready" if locale == "en" else "就绪"
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if f" {state} " in line]
    assert len(lines) == len(names)
    assert len({display_width(line[: line.index(state)]) for line in lines}) == 1
    assert len({display_width(line) for line in lines}) == 1


_LEFT_OUT = (
    "time: not started, its table has a mistake; correct it, then run: mcp-broker reload\n  ",
    "time：配置有误，未启动；更正后请运行：mcp-broker reload\n  ",
)

WHY: dict[str, tuple[dict[str, Any], str, str]] = {
    "stopped by hand": (
        {"state": "stopped", "stopped_by_hand": True, "last_error": "it was killed, long ago"},
        "time: stopped; `mcp-broker start time` starts it",
        "time：已停止；可用 `mcp-broker start time` 启动",
    ),
    "broken": (
        {"state": "broken", "retry_after_s": 289.2, "last_error": "E"},
        "time: E; next try in 4m50s, or now with `mcp-broker start time`",
        "time：E；4m50s 后重试，或用 `mcp-broker start time` 立即重试",
    ),
    "restarting": (
        {"state": "backoff", "retry_after_s": 1.2, "last_error": "E"},
        "time: E; next try in 2s",
        "time：E；2s 后重试",
    ),
    "given up": (
        {"state": "stopped", "last_error": "E"},
        "time: E; not retried, because of its `restart` setting; `mcp-broker start time` starts it",
        "time：E；按 `restart` 设置不再重试；可用 `mcp-broker start time` 启动",
    ),
    "it exited": (
        {"state": "backoff", "last_error": "it exited with status 3; its last line was: no key"},
        "time: it exited with status 3; its last line was: no key",
        "time：以状态 3 退出；最后一行输出：no key",
    ),
    "of a newer broker": (
        {"state": "backoff", "last_error": "it was swallowed"},
        "time: it was swallowed",
        "time：it was swallowed",
    ),
    "odd": (
        {"state": "ready", "warnings": [{"kind": "id-as-string", "text": "T", "facts": {"server": "time"}}]},
        "time: answers carry ids as strings",
        "time：响应中的 id 是字符串",
    ),
    "odd, with an amount": (
        {
            "state": "ready",
            "warnings": [
                {"kind": "bad-item", "text": "T", "facts": {"list": "tools/list", "count": 1, "reason": "R"}}
            ],
        },
        "time: tools/list: left out 1 item that cannot be used: R",
        "time：tools/list：略去 1 个无法使用的项：R",
    ),
    "odd, as a newer broker knows": (
        {"state": "ready", "warnings": [{"kind": "new", "text": "T", "facts": {}}]},
        "time: T",
        "time：T",
    ),
    "asked without a call": (
        {"state": "ready", "questions_refused": "proved-wrong"},
        "time: asked without a call, so its questions are refused until `mcp-broker restart time`",
        "time：在没有调用时提过问，因此提问一律被拒绝，直到执行 `mcp-broker restart time`",
    ),
    "left a cancelled call unanswered": (
        {"state": "ready", "questions_refused": "cancelled-earlier"},
        "time: a cancelled call has no answer, so its questions are refused: `stops_on_cancel` may help",
        "time：已取消的调用未获响应，因此提问一律被拒绝：可考虑设置 `stops_on_cancel`",
    ),
    "asked": (
        {"state": "ready", "asked": {"answered": 1, "asked": 1, "refused.client": 2}},
        "time: questions: asked 1, answered 1, refused.client 2",
        "time：提问：送达客户端 1、已回答 1、已拒绝（client）2",
    ),
    "its table has a mistake": (
        {"state": "misconfigured", "config_problems": ["servers.time.timout: there is no such key"]},
        _LEFT_OUT[0] + "servers.time.timout: there is no such key",
        _LEFT_OUT[1] + "servers.time.timout：没有这个键",
    ),
    "starting anew": ({"state": "handshake", "last_error": "E"}, "time: E", "time：E"),
}


@pytest.mark.parametrize("locale", [0, 1], ids=["en", "zh"])
@pytest.mark.parametrize("why", WHY)
def test_below_the_table_stands_why_and_until_when(
    why: str, locale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 10: who looks at `status` first finds there what to do, for every state that is not well."""
    monkeypatch.setenv("MCP_BROKER_LANG", ("en", "zh")[locale])
    about, *said = WHY[why]
    parts = status_parts({"broker": BROKER, "servers": [{**ROW, "name": "time", **about}], "clients": []})
    lines = [part.text for part in parts if isinstance(part, Line)]
    assert said[locale] in lines


@pytest.mark.parametrize("columns", [40, 48, 60, 64, 80, 100])
@pytest.mark.parametrize("locale", ["en", "zh"])
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_nothing_is_cut_silently(
    columns: int, locale: str, term: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A narrow terminal gets fewer columns, and each of them whole."""
    for name, value in {"MCP_BROKER_LANG": locale, "COLUMNS": str(columns), "TERM": term}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tables.show(status_parts({"broker": BROKER, "servers": [{**ROW, "state": "backoff"}], "clients": []}))
    tool = {
        "name": "convert_time",
        "description": "Convert it.",
        "inputSchema": {"properties": dict.fromkeys("abc")},
    }
    tables.show(tools_parts("time", [tool]))
    out = capsys.readouterr().out
    assert "…" not in out
    for whole in (
        "1177.4M",
        "restarting" if locale == "en" else "等待重启",
        "convert_time(a?, b?, c?)",
        "Convert it.",
    ):
        assert whole in out, out


@pytest.mark.parametrize(("columns", "left_out"), [(100, 0), (80, 4), (64, 6), (40, 9)])
@pytest.mark.parametrize("locale", ["en", "zh"])
def test_columns_that_are_left_out_are_named(
    columns: int,
    left_out: int,
    locale: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At 80 columns restarts and errors are there; what is not there is named below the table."""
    for name, value in {"MCP_BROKER_LANG": locale, "COLUMNS": str(columns), "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.show(status_parts({"broker": BROKER, "servers": [{**ROW, "state": "backoff"}], "clients": []}))
    out = capsys.readouterr().out
    if columns >= 80:
        header = next(
            line for line in out.splitlines() if ("pid" if locale == "en" else "进程号") in line[20:]
        )
        assert all(
            word in header for word in (("restarts", "errors") if locale == "en" else ("重启", "错误"))
        )
    mark = "not shown at this width: " if locale == "en" else "因宽度不足未显示："
    said = (
        out.partition(mark)[2]
        .partition("；" if locale == "zh" else ";")[0]
        .split("、" if locale == "zh" else ",")
    )
    assert len(said) == (left_out or 1)
    assert (mark in out) is bool(left_out)
    assert max(map(display_width, out.splitlines())) <= columns


LATIN = st.sampled_from(["", "mcp-broker", "`status`", "see time", "time"])
CHINESE = st.sampled_from(["服", "错，", "器。", "（务）", "：", "，", " "])


@given(st.lists(st.tuples(LATIN, CHINESE), min_size=1, max_size=30), st.integers(14, 40))
def test_lines_break_between_words(pairs: list[tuple[str, str]], columns: int) -> None:
    """In both scripts: nothing is lost, no line too long, no word cut, and punctuation stays at its word."""
    text = "".join(f"{latin}{chinese}中" for latin, chinese in pairs)
    offsets = [0, *breaks(text, columns), len(text)]
    lines = [text[start:end] for start, end in pairwise(offsets)]
    assert "".join(lines) == text
    assert all(display_width(line.rstrip()) <= columns for line in lines)
    for line, following in pairwise(lines):
        assert not re.search(r"[a-z`-]\Z", line) or not re.match(r"[a-z`-]", following)
        assert following[0] not in "，。）："
        assert not line.endswith("（")


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "0.0s"), (59.94, "59.9s"), (3600.0, "1h0m")])
def test_processor_time(seconds: float, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An idle server takes tenths of a second, a busy one hours."""
    tables.show(status_parts({"broker": BROKER, "servers": [{**ROW, "cpu_s": seconds}], "clients": []}))
    assert f" {shown} 1177.4M" in capsys.readouterr().out.replace("\n", " ")
