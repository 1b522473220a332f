"""What a backend does to its clients at its worst, while the broker is killed, stopped and started again."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from client_shim import BrokerClient, errors
from tests.client_shim.loops import LOOPS, NewLoop
from tests.client_shim.peer import connections_of, run, until
from tests.e2e.harness import PATIENCE_S, RunningBroker, rogue, running

PAGES = 12
ROUNDS = 20
ENDS = (errors.Unavailable, errors.CallError)
"""What a call may end in when brokers and servers end: never anything that is no word of ours."""


class Page:
    """One page of the backend: a client, and the odd things that are done with it."""

    def __init__(self, number: int, endpoint: str, ended: Counter[str]) -> None:
        self.dice = random.Random(number)
        self.number, self.endpoint, self.ended = number, endpoint, ended
        self.secrets = 0
        self.client = self.another()

    def another(self) -> BrokerClient:
        """A client in place of the one that was, which is forgotten."""
        hear = self.hear if self.dice.random() < 0.5 else None
        return BrokerClient(
            f"page {self.number}", self.endpoint, reconnect_s=PATIENCE_S, on_list_changed=hear
        )

    def hear(self, server: str, kind: str) -> None:
        """News, with a mistake in what is done with it now and then."""
        if self.dice.random() < 0.1:
            raise ZeroDivisionError("a mistake of the backend")

    async def echo(self) -> None:
        """A call, and the answer to it."""
        self.secrets += 1
        secret = [self.number, self.secrets]
        result = await self.client.call_tool("s", "echo", {"secret": secret})
        assert json.loads(result.content[0].text) == {"secret": secret}

    async def given_up(self) -> None:
        """`wait_for` around what never ends."""
        with pytest.raises((asyncio.TimeoutError, *ENDS)):
            await asyncio.wait_for(self.client.call_tool("s", "hang"), self.dice.random() * 0.05)

    async def cancelled_anywhere(self) -> None:
        """Cancelled after any number of turns of the loop, be it at the very moment of its end."""
        work = [self.echo, self.slow_reader, self.lists, self.connect, self.subscribe]
        task = asyncio.ensure_future(self.dice.choice(work)())
        for _ in range(self.dice.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def connect(self) -> None:
        """No more than that."""
        await self.client.connect()

    async def lists(self) -> None:
        """The lists, and the broker's own."""
        assert await self.client.list_tools("s")
        await asyncio.gather(self.client.ping(), self.client.servers())

    async def subscribe(self) -> None:
        """One change after the other."""
        await self.client.subscribe_resource("s", f"note://{self.number % 3}")
        await self.client.unsubscribe_resource("s", f"note://{self.number % 3}")

    async def slow_reader(self) -> None:
        """A callback that takes its time, and is cancelled in the middle, or fails."""

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            await asyncio.sleep(self.dice.random() * 0.003)
            if self.dice.random() < 0.1:
                raise ZeroDivisionError("a mistake of the backend")

        await self.client.call_tool("s", "progress", {"steps": 5, "delay": 0.001}, on_progress=on_progress)

    async def closed_meanwhile(self) -> None:
        """Closed by several tasks while calls are under way."""
        calls = [asyncio.ensure_future(self.client.call_tool("s", "hang")) for _ in range(3)]
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        await asyncio.gather(*(self.client.aclose() for _ in range(3)))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, ENDS) for end in ends), ends
        self.client = self.another()

    async def forgotten(self) -> None:
        """The client goes, and nobody closes it; its last call is cancelled, or goes on without it."""
        call = asyncio.ensure_future(self.client.call_tool("s", "echo"))
        self.client = self.another()
        if self.dice.random() < 0.5:
            call.cancel()
        await asyncio.wait([call])
        gc.collect(0)
        if not call.cancelled():
            call.result()

    async def live(self) -> None:
        """All of it, in any order."""
        deeds: list[Callable[[], Awaitable[None]]] = [
            self.echo,
            self.echo,
            self.echo,
            self.given_up,
            self.cancelled_anywhere,
            self.cancelled_anywhere,
            self.lists,
            self.subscribe,
            self.slow_reader,
            self.closed_meanwhile,
            self.forgotten,
        ]
        for _ in range(ROUNDS):
            deed = self.dice.choice(deeds)
            try:
                await asyncio.wait_for(deed(), PATIENCE_S)
            except ENDS as error:
                self.ended[type(error).__name__] += 1
            else:
                self.ended[deed.__name__] += 1
        del self.client  # what is logged of a mistake may hold the page for longer


async def fate(broker: RunningBroker, ended: Counter[str]) -> None:
    """The broker ends, in order or not, and comes again, each time that much has been done meanwhile."""
    for times, end in enumerate([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL], 1):
        await until(lambda times=times: sum(ended.values()) > times * PAGES * ROUNDS // 5)  # type: ignore[misc]
        await asyncio.to_thread(broker.stop, end)
        broker.start()


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_whatever_a_backend_does_every_call_ends_once_and_nothing_is_left(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laws 2 to 4, from the side of the caller: no hang, no warning, no connection that stays."""
    warnings: list[str] = []  # the handlers of pytest would keep the errors, and with them the clients
    monkeypatch.setattr("client_shim.log.warn", lambda text, error=None: warnings.append(text))
    complaints: list[dict[str, Any]] = []
    ended: Counter[str] = Counter()

    async def main(broker: RunningBroker) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        pages = [Page(number, broker.endpoint, ended) for number in range(PAGES)]
        living = asyncio.ensure_future(asyncio.gather(*(page.live() for page in pages)))
        await fate(broker, ended)
        await asyncio.wait_for(living, 4 * PATIENCE_S)
        gc.collect()
        await until(lambda: connections_of() == [])

    with running({"s": rogue(max_in_flight=64)}) as broker:
        run(main(broker), new_loop)
        gc.collect()
        broker.wait(lambda status: all(not s["in_flight"] and not s["queued"] for s in status["servers"]))
        assert broker.status()["broker"]["clients"] == 1
    assert complaints == []
    assert ended["echo"]
    assert [warning for warning in warnings if "a mistake of the backend" not in warning] == []
