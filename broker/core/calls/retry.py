"""Which calls are sent again to the next process when their server dies, and why the others are not.

A call is repeated where the protocol or the server's own annotations say that this does no harm, once, and
within its deadline. Of any other the broker cannot know whether it was carried out, and says so.
"""

from __future__ import annotations

from enum import Enum

READING = frozenset({"resources/read", "prompts/get", "completion/complete"})
"""Methods that only read. Lists do too: the broker answers those from memory, and no death touches them."""


class NoRetry(str, Enum):
    """Why a call is not sent again. The words follow "it was not sent again, because"."""

    TOOL = "tool"
    METHOD = "method"
    ANSWER = "answer"
    STATEFUL = "stateful"
    TWICE = "twice"
    STOPPED = "stopped"
    LATE = "late"

    @property
    def words(self) -> str:
        """The reason, in words."""
        return _WORDS[self]


_WORDS = {
    NoRetry.TOOL: "its tool is annotated neither readOnlyHint nor idempotentHint",
    NoRetry.METHOD: "its method is none that only reads",
    NoRetry.ANSWER: "it answers a question that the process which ended had asked",
    NoRetry.STATEFUL: "the server is configured as stateful",
    NoRetry.TWICE: "the server has died twice while it had the call",
    NoRetry.STOPPED: "the server was stopped on purpose",
    NoRetry.LATE: "the server was not back within the time of the call",
}


def no_retry(method: str, *, repeatable_tool: bool, answers: bool, stateful: bool) -> NoRetry | None:
    """Why a call must never be sent twice, as far as it is known when it is sent; `None` if it may be.

    Args:
        repeatable_tool: the tool that it calls is annotated as read-only or idempotent.
        answers: it carries on with what the process asked back (`input_required`).
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
    """Why a call is not sent again now that its server has died with it; `None` if it is.

    Args:
        known: what `no_retry` said.
        deaths: at how many deaths it was, this one included.
        stopping: the server was told to end, and is not started again.
    """
    if known is None and stopping:
        return NoRetry.STOPPED
    return NoRetry.TWICE if known is None and deaths > 1 else known
