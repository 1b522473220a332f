"""What a hostile or broken server may try, and the laws that hold nevertheless (5, 6 and 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, running, script, wait_until

KIB = 1024
LIMITS = {"max_message_bytes": 64 * KIB}


def hostile(role: str, times: int | str = "") -> dict[str, object]:
    """A server in that role, which is not started again."""
    keys: dict[str, Any] = {"protocol": "legacy", "restart": "never", "timeout_stop_sec": 0.5}
    return script("tests/servers/hostile.py", role, str(times), **keys)


def rss_bytes(broker: RunningBroker) -> int:
    """The memory of the broker alone."""
    return int(Path(f"/proc/{broker.pid}/statm").read_text().split()[1]) * 4096


def test_a_server_that_asks_and_never_reads_is_ended() -> None:
    """Law 6: its answers waited for it without a limit, 783 MiB after 14 s."""
    with running({"bad": hostile("ask"), "good": rogue()}, ready=False, limits=LIMITS) as broker:
        broker.wait_state("good", "ready")
        before = rss_bytes(broker)
        seen = broker.wait_state("bad", "stopped")
        assert "does not read its stdin" in seen["last_error"]
        assert broker.counter("ended.not-reading") == 1
        assert rss_bytes(broker) < before + 32 * KIB * KIB
        with broker.client() as client:
            assert client.request("good", "tools/call", {"name": "empty"}, timeout_s=PATIENCE_S)


def test_a_request_with_a_long_id_is_not_answered() -> None:
    """Law 6: the id is part of the answer. 400 of 1 MiB took 440 MiB."""
    with running({"bad": hostile("ask with a long id", 100)}, limits=LIMITS) as broker:
        wait_until(lambda: broker.counter("dropped.long.id") == 100)
        assert broker.server("bad")["state"] == "ready"


def test_a_line_above_the_limit_behind_a_short_one_ends_its_server() -> None:
    """Law 6: it was held to the limit only where it was the first of what was read at once."""
    with running({"bad": hostile("write too long a line", 1)}, ready=False, limits=LIMITS) as broker:
        assert "max_message_bytes = 65536" in broker.wait_state("bad", "stopped")["last_error"]
