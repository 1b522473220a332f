"""Which calls are sent again when their server dies, and why the others are not.

A call is sent again, once and within its deadline, if the protocol or the server's own annotations say that
this does no harm. Of any other call the broker cannot know whether it was carried out, and the refusal says
so.
"""

from __future__ import annotations

from enum import Enum

READING = frozenset({"resources/read", "prompts/get", "completion/complete"})
"""Methods that only read. The broker answers lists from memory, so no death affects them."""


class NoRetry(str, Enum):
    """The reason why a call is not sent again. Its words follow "it was not sent again, because"."""

    TOOL = "tool"
    METHOD = "method"
    ANSWER = "answer"
    STATEFUL = "stateful"
    TWICE = "twice"
    STOPPED = "stopped"
    LATE = "late"

    @property
    def words(self) -> str:
        """The reason in words."""
        return _WORDS[self]


_WORDS = {
    NoRetry.TOOL: "its tool is annotated neither readOnlyHint nor idempotentHint",
    NoRetry.METHOD: "its method does not only read",
    NoRetry.ANSWER: "it answers a question that the process which ended had asked",
    NoRetry.STATEFUL: "the server is configured as stateful",
    NoRetry.TWICE: "the server has died twice while it had the call",
    NoRetry.STOPPED: "the server was stopped on purpose",
    NoRetry.LATE: "the server was not back within the time of the call",
}


def no_retry(method: str, *, repeatable_tool: bool, answers: bool, stateful: bool) -> NoRetry | None:
    """Return why a call must never be sent twice, as far as is known when it is sent; `None` if it may be.

    Args:
        repeatable_tool: the tool is annotated as read-only or idempotent.
        answers: the request continues a call in which the process asked back (`input_required`).
        stateful: the server's config key.
    """
    if stateful:
        return NoRetry.STATEFUL
    if answers:
        return NoRetry.ANSWER
    if method == "tools/call":
        return None if repeatable_tool else NoRetry.TOOL
    return None if method in READING else NoRetry.METHOD


def at_death(known: NoRetry | None, deaths: int, *, stopping: bool) -> NoRetry | None:
    """Return why a call is not sent again now that its server has died; `None` if it is sent again.

    Args:
        known: what `no_retry` returned.
        deaths: the number of deaths during the call, this one included.
        stopping: the server was told to end, and is not started again.
    """
    if known is None and stopping:
        return NoRetry.STOPPED
    return NoRetry.TWICE if known is None and deaths > 1 else known
