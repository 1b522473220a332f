"""One legacy session over HTTP: the streams of its requests, and those that its client listens to."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from itertools import count

from broker.gateway.byte_budget import Share
from broker.gateway.conversation.client_session import NO_PREFERENCES
from broker.gateway.conversation.effects import BrokerFault, FinishRequest, RequestId, SendMessage
from broker.gateway.conversation.jsonrpc import INVALID_REQUEST, ClientRequest, Incoming
from broker.gateway.conversation.session import Session
from broker.gateway.http.refusals import Refused
from broker.gateway.http.session_ids import SealedSession
from broker.gateway.http.sse import EventPosition, Replay
from broker.gateway.http.streams import Edit, Stream
from broker.gateway.settings import GatewayLimits

GET_STREAMS = 4
"""GET streams of one session at once; a further one ends the oldest."""


class LegacySession:
    """One legacy session that is in memory.

    Args:
        server: the server of its URL.
        sealed: what its id says.
        share: counts the bytes that are held for it.
        prefers: is called when the client has changed its preferences.
        dropped: counts the messages that no stream takes, by the reason.

    Attributes:
        session: runs its conversation; its `deliver` is set to this object's.
        preferences: the ones that `prefers` was told, or that it was restored with.
    """

    def __init__(
        self,
        server: str,
        sealed: SealedSession,
        limits: GatewayLimits,
        share: Share,
        now: float,
        prefers: Callable[[LegacySession], None],
        dropped: Counter[str],
    ) -> None:
        self.server = server
        self.sealed = sealed
        self.id = ""
        self.used = now
        self.session: Session
        self.preferences = NO_PREFERENCES
        self._prefers = prefers
        self.is_over = False
        """Whether it takes nothing in any more."""
        self._dropped = dropped
        self._limits = limits
        self._share = share
        self._asked: dict[RequestId, Stream] = {}
        self._gets: list[Stream] = []
        self._by_name: dict[str, Stream] = {}
        self._names = count(secrets.randbits(64))
        """The names of its streams: unlike those of other sessions, and of itself before a restart."""

    # -- what the client sends ----------------------------------------------------------------------------

    def ask(self, request: ClientRequest, edit: Edit | None = None) -> Stream:
        """Take a request in. Return the stream of its answer, whose messages `edit` changes.

        Raises:
            Refused: a request of this id is under way.
        """
        if self.session.conversation.is_open(request.id) or request.id in self._asked:
            message = "A request of this id is under way in this session; use an id for one request only"
            raise Refused(400, message, code=INVALID_REQUEST)
        stream = self._asked[request.id] = self._stream(request.id, edit)
        self.session.received(request)
        return stream

    def tell(self, message: Incoming) -> None:
        """Take a notification or a response in."""
        self.session.received(message)

    def listen(self) -> Stream:
        """Return a new GET stream. Messages of no request go to the newest one."""
        while len(self._gets) >= GET_STREAMS:
            self._gets.pop(0).finish()
        stream = self._stream(b"")
        self._gets.append(stream)
        return stream

    async def listening(self) -> BrokerFault | None:
        """Listen for a GET stream; the broker is asked again if it refused to tell of changes.

        Return why it does not tell of them, if it has refused.
        """
        if not self._gets:  # the stream has ended, and its client only gets the rest of it
            return None
        self.session.stream_opened()
        return await self.session.listening()

    def _stream(self, request: RequestId, edit: Edit | None = None) -> Stream:
        replay = Replay(f"{next(self._names) % 2**64:016x}", request, self._limits.replay_bytes)
        stream = Stream(request, self._limits.stream_bytes, replay, edit, self._share)
        self._by_name[replay.stream] = stream
        return stream

    def resume(self, place: EventPosition) -> Stream | None:
        """Return the stream that a client comes back to; `None` where its rest is not known any more."""
        stream = self._by_name.get(place.stream)
        return stream if stream is not None and stream.come_back(place.number) else None

    # -- what the conversation says -----------------------------------------------------------------------

    def deliver(self, effect: SendMessage | FinishRequest) -> None:
        """Put a message on its stream, or end that."""
        match effect:
            case SendMessage(message=message, belongs_to=None):
                if self._gets:
                    self._gets[-1].add(message)
                else:
                    self._dropped["nobody listens"] += 1
            case SendMessage(message=message, belongs_to=request):
                stream = self._asked.get(request) if request is not None else None
                if stream is None:
                    self._dropped["no such request"] += 1
                else:
                    stream.add(message)
            case FinishRequest(request=request):
                if (stream := self._asked.pop(request, None)) is not None:
                    stream.finish()
                    self._note_preferences()

    def _note_preferences(self) -> None:
        """Tell of preferences that the request that has ended changed. Those of a session that is over are
        released, and not changed."""
        now = self.session.conversation.preferences
        if not self.is_over and now != self.preferences:
            self.preferences = now
            self._prefers(self)

    # -- its end ------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way: then it is never put away."""
        return bool(self._asked)

    @property
    def is_remembered(self) -> bool:
        """Whether a client may come back to one of its streams."""
        return bool(self._by_name)

    @property
    def is_followed(self) -> bool:
        """Whether a client listens: then it does not age."""
        return any(stream.is_read for stream in self._gets)

    def forget_unread(self, now: float) -> list[str]:
        """Forget the streams that no client has come back to, and those that no client can come back to.

        Return their names.
        """
        forgotten = []
        for name, stream in list(self._by_name.items()):
            away = stream.away_s(now)
            if stream.request and not stream.is_finished:
                continue  # its call is under way
            if away > (self._limits.replay_sec if stream.is_begun else 0.0):
                self.forget(stream)
                forgotten.append(name)
        return forgotten

    def forget(self, stream: Stream) -> None:
        """Keep nothing of a stream for a client that comes back."""
        if stream.replay is not None:
            stream.replay.clear()
            if stream.is_finished or not stream.request:
                self._by_name.pop(stream.replay.stream, None)
        if stream in self._gets and not stream.is_read:
            self._gets.remove(stream)
            if not self._gets:
                self.session.stream_closed()

    def end_listening(self) -> None:
        """End its GET streams: the gateway ends, and the client comes back to the next one."""
        for stream in self._gets:
            stream.finish()

    def ended(self, reason: str) -> None:
        """Answer what is open: the gateway ends. `aclose` comes after it."""
        self.is_over = True
        self.session.ended(reason)

    async def aclose(self) -> None:
        """End it: its calls are cancelled, and its streams end."""
        self.is_over = True
        for stream in [*self._asked.values(), *self._gets]:
            stream.finish()
        self._asked.clear()
        self._gets.clear()
        self._by_name.clear()
        await self.session.aclose()
