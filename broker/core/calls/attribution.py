"""Attributes messages that name no call: log messages, and questions of legacy servers.

A message is attributed to a call only if it can be about no other one.
"""

from __future__ import annotations

from broker.core.calls.table import Call

MAX_GIVEN_UP = 256
"""The number of cancelled calls that are remembered one by one."""

_OTHERS = 0
"""The id that stands for all further cancelled calls; no call has it."""


class Attribution:
    """The calls of one process that a message may be about: every call of a server that asks within calls;
    of a server of 2026-07-28 the calls that asked for log messages.

    A cancelled call counts until the server has answered it or the process is gone: the server may still work
    on it, and a message about it must not go to the call that is left. That time passes proves nothing.
    """

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._given_up: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._given_up)

    def __contains__(self, call: Call) -> bool:
        return call.id in self._open

    def begin(self, call: Call) -> None:
        """Add a call that is at the server."""
        self._open[call.id] = call

    def end(self, call: Call) -> bool:
        """Remove a call that has ended. Return whether it was here."""
        return self._open.pop(call.id, None) is not None

    def give_up(self, call: Call) -> None:
        """Keep a cancelled call: the server may still work on it."""
        if call.id in self._open:
            self._given_up.add(call.id if len(self._given_up) < MAX_GIVEN_UP else _OTHERS)

    def release(self, id: object) -> None:
        """Forget a cancelled call that is over at the server."""
        if type(id) is int and id != _OTHERS:
            self._given_up.discard(id)

    def release_all(self) -> None:
        """Forget all calls: the process is gone."""
        self._open.clear()
        self._given_up.clear()

    @property
    def given_up(self) -> bool:
        """Whether the server may still work on a cancelled call."""
        return bool(self._given_up)

    @property
    def is_idle(self) -> bool:
        """Whether the server works on no call, cancelled or not."""
        return not self._open and not self._given_up

    @property
    def only(self) -> Call | None:
        """The call that a message is for, if it can be for only one."""
        if len(self._open) != 1 or self._given_up:
            return None
        return next(iter(self._open.values()))
