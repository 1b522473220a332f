"""The commands that change what runs: what they say while they wait."""

from __future__ import annotations

from typing import Any

import pytest

from broker.command import start_stop


class Broker:
    """A broker whose servers are in these states, one answer after another."""

    def __init__(self, *answers: dict[str, str]) -> None:
        self._answers = list(answers)

    def request(self, server: str, method: str) -> dict[str, Any]:
        """The states, as `servers` has them."""
        assert (server, method) == ("$broker", "servers")
        answer = self._answers.pop(0)
        return {"servers": [{"name": n, "state": s, "last_error": None} for n, s in answer.items()]}


@pytest.mark.parametrize("after_s", [1.0, 100.0])
def test_a_long_wait_is_told_once_with_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after_s: float
) -> None:
    """A server that downloads may take ten times its `timeout_start_sec`: not without a word."""
    clock = [0.0]
    monkeypatch.setattr("broker.command.start_stop.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "broker.command.start_stop.time.sleep", lambda _: clock.__setitem__(0, clock[0] + after_s)
    )
    broker = Broker(
        {"a": "handshake", "b": "ready"},
        {"a": "handshake", "b": "ready"},
        {"a": "handshake", "b": "ready"},
        {"a": "ready", "b": "ready"},
    )
    states = start_stop._settled(broker, ["a", "b"])  # type: ignore[arg-type]
    assert {name: about["state"] for name, about in states.items()} == {"a": "ready", "b": "ready"}
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("mcp-broker status") == (after_s > start_stop.QUIET_S)
    assert ("waiting for a;" in told.err) == (after_s > start_stop.QUIET_S)
