"""Laws 2, 3 and 8 for the questions of servers: `test_engine_model` with nothing but servers that ask.

Among the many things that happen there, a question about a call that was cancelled long ago is rare.
"""

from __future__ import annotations

from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from client_shim import wire
from tests.core.fake_server import Json
from tests.core.test_engine_model import ANSWERS, ASKING, SERVERS, TOOLS, AnyInterleaving
from tests.core.world import INSTANCE

requests = st.tuples(
    st.builds(
        wire.Request,
        channel=st.integers(1, 2),
        id=st.integers(1, 5),
        instance=st.just(INSTANCE),
        service=st.sampled_from(ASKING),
        method=st.just("tools/call"),
        timeout_ms=st.sampled_from([1500, 60_000, 60_000]),
        flags=st.sampled_from([0, *[wire.TAKES_QUESTIONS] * 5]),
        meta=st.just(ANSWERS),
    ),
    st.sampled_from(TOOLS),
)


class AnyQuestion(AnyInterleaving):
    """The same clients; servers that only ask, reply, fall silent and die."""

    servers: ClassVar[dict[str, Json]] = {name: SERVERS[name] for name in (*ASKING, "leased")}
    manage = rogue = progress = read = rival = None  # type: ignore[assignment]

    @precondition(lambda self: self.living())
    @rule(data=st.data(), wanted=st.lists(requests, min_size=1, max_size=3))
    def request(self, data: st.DataObject, wanted: list[tuple[wire.Request, str]]) -> None:
        self.ask_all(data.draw(st.sampled_from(self.living())), wanted)

    @precondition(lambda self: self.living())
    @rule(
        data=st.data(),
        name=st.sampled_from(ASKING),
        wanted=st.tuples(requests, requests),
        how=st.integers(0, 3),
    )
    def a_cancelled_call_asks(
        self,
        data: st.DataObject,
        name: str,
        wanted: tuple[tuple[wire.Request, str], tuple[wire.Request, str]],
        how: int,
    ) -> None:
        """The place of a cancelled call is free by time, another call has it, and the server asks."""
        for (message, tool), seconds in zip(wanted, (6.0, 0.0), strict=True):
            page = data.draw(st.sampled_from(self.living()))
            self.ask_all(page, [(message._replace(service=name), tool)])
            if how and seconds and page.alive:
                page.client.say(wire.Cancel(message.channel, message.id, None))
                self.world.wait(seconds)
            self.everybody_hears_what_is_for_him_and_hears_its_end_once()
            if not self.living():
                return
        if self.at_work(name):
            self.ask_about(data, name, times=1, luck=how // 3, then=7)

    @rule(
        name=st.sampled_from(ASKING),
        what=st.sampled_from(["crash", "crash slowly", "hang", "restart", "start"]),
    )
    def upset(self, name: str, what: str) -> None:
        self.upset_by(name, what)


TestAnyQuestion = AnyQuestion.TestCase
TestAnyQuestion.settings = settings(max_examples=3 * settings().max_examples)
