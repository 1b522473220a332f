"""The brokers of these tests, and the environment of a backend that uses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import RunningBroker, rogue, running

SERVERS = {
    "rogue": rogue(),
    "other": rogue(),
    "off": rogue(enabled=False),
    "broken": rogue("--exit-at-start", "3", start_limit_burst=1),
}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """One broker for all tests of a file that leave it as it is; it is gone before those of others begin."""
    with running(SERVERS, ready=False) as broker:
        broker.wait_state("broken", "broken")
        for name in ("rogue", "other"):
            broker.wait_state(name, "ready")
        yield broker


@pytest.fixture
def endpoint(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> str:
    """That of the broker, where a backend looks for it."""
    monkeypatch.setenv("MCP_BROKER_ENDPOINT", broker.endpoint)
    return broker.endpoint
