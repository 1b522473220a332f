"""The table of `mcp-broker status` when its figures are large: it is read, or pasted into a report."""

from __future__ import annotations

from typing import Any

import pytest

from broker import overview, tables

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
    "last_error": None,
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
    """Issue 4: processes, memory and CPU of a tree, whole, in 100 columns; a long name is folded instead."""
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("COLUMNS", "100")
    tables.show(overview.status({"broker": BROKER, "servers": [ROW]}))
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


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "0.0s"), (59.94, "59.9s"), (3600.0, "1h0m")])
def test_processor_time(seconds: float, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An idle server takes tenths of a second, a busy one hours."""
    tables.show(overview.status({"broker": BROKER, "servers": [{**ROW, "cpu_s": seconds}]}))
    assert f" {shown} 1177.4M" in capsys.readouterr().out.replace("\n", " ")
