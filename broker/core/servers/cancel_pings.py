"""The pings behind cancellations: the answer to one shows that the server has read the cancellation.

A server reads its stdin in order. A handler that blocks its server holds up the answer until it is over; a
handler that ignores the cancellation may go on after it. So the answer proves nothing else.
"""

from __future__ import annotations

MAX_OPEN = 64
"""The number of unanswered pings of one process. A further cancellation has none."""


class CancelPings:
    """The unanswered pings of one server's process.

    Some servers exit at a ping. If a process did that which had never answered one, no further one is sent.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._are_fatal = False

    @property
    def may_be_sent(self) -> bool:
        """Whether a further ping may be sent."""
        return not self._are_fatal and len(self._open) < MAX_OPEN

    def sent(self, id: int, call_id: int) -> None:
        """Note a ping that was sent behind the cancellation of a call."""
        self._open[id] = call_id

    def answered(self, id: object) -> int | None:
        """Return the id of the cancelled call whose ping is answered now, if this is the id of a ping."""
        return self._open.pop(id, None) if type(id) is int else None

    def process_gone(self, *, failed: bool) -> None:
        """Forget the pings of a process; `failed`: it exited by itself, and had answered no ping ever."""
        self._are_fatal |= failed and bool(self._open)
        self._open.clear()

    def forget(self) -> None:
        """Forget what was learned from processes of another program."""
        self._are_fatal = False
