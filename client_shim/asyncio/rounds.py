"""Makes a call again, with the answers, as long as its result asks questions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

from client_shim.protocol import input_required, payload
from client_shim.questions import Question


async def complete(
    server: str,
    method: str,
    make: Callable[[Mapping[str, Any], float | None], Awaitable[Any]],
    given: Mapping[str, Any],
    timeout_s: float | None,
    answer: Callable[[Question], Awaitable[Mapping[str, Any]]],
) -> Any:
    """Return the result of a call that asks nothing more.

    Args:
        make: makes the call with these params beside its own, within so many seconds.
        given: the params for the first time.
        timeout_s: the time for all rounds together. The time of the answers does not count.
        answer: answers a question.

    Raises:
        InvalidReply: the server asks too often, or its questions are malformed.
        QuestionRefused: a question was refused, which ends the call: the server waits for nothing.
    """
    now = asyncio.get_running_loop().time
    for rounds in count():
        began = now()
        result = await make(given, timeout_s)
        asked = input_required.read(server, payload.subject(server, method), result, rounds)
        if asked is None:
            return result
        if timeout_s is not None:
            timeout_s = max(timeout_s - (now() - began), 0.001)
        given = asked.params({name: await answer(one) for name, one in asked.questions.items()})
