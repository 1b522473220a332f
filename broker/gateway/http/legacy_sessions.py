"""Legacy sessions over HTTP: which are in memory, their streams, and how they come back.

What `initialize` agreed on is in the session id itself (`session_ids`), and what the client sets later in the
state directory (`session_preferences`). So a silent session is put away without a loss, and one of before a
restart is taken up again with its next request.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from broker.gateway.audit import Audit
from broker.gateway.byte_budget import ByteBudget
from broker.gateway.conversation.client_session import NO_PREFERENCES, ClientSession, Preferences
from broker.gateway.conversation.listen_refusals import ListenRefusals
from broker.gateway.conversation.session import Session
from broker.gateway.http.channels import client_name
from broker.gateway.http.headers import session_unknown
from broker.gateway.http.legacy_session import LegacySession
from broker.gateway.http.refusals import Refused
from broker.gateway.http.session_ids import Seal, SealedSession
from broker.gateway.http.state import StateFolder
from broker.gateway.http.streams import Stream
from broker.gateway.settings import GatewayLimits
from broker.gateway.tokens import Token

logger = logging.getLogger("mcp-broker")

KEPT, KEPT_BYTES = 1024, 67_108_864
"""The streams, and their bytes, that are kept for all clients that have left one."""


class LegacySessions:
    """The legacy sessions of all clients.

    Args:
        state: has the key, and the sessions that are over.
        limits: how many, and for how long.
        budget: counts the bytes that are held for them.
        endpoint: where the broker listens; `None`: where the shim finds it.
        audit: the audit log, where there is one.
    """

    def __init__(
        self,
        state: StateFolder,
        limits: GatewayLimits,
        budget: ByteBudget,
        endpoint: str | None,
        audit: Audit | None = None,
    ) -> None:
        self._state = state
        self._seal = Seal(state.key)
        self._limits = limits
        self._budget = budget
        self._endpoint = endpoint
        self._audit = audit
        self._of: dict[str, OrderedDict[str, LegacySession]] = {}
        """owner → id → session, the one that was silent for longest first."""
        self._kept: OrderedDict[str, tuple[LegacySession, Stream]] = OrderedDict()
        """name → a stream that clients have left, the one left first in front, and its session."""
        self._closing: set[asyncio.Task[None]] = set()
        self.refusals = ListenRefusals()
        """The refusals of the broker to tell sessions of changes."""
        self.counts: Counter[str] = Counter()
        self._collected = 0
        """How many sessions were over when the collector ran last."""
        self.dropped: Counter[str] = Counter()
        """What came and was of no use, by its kind: one count for the sessions in memory, those that are
        over, and the conversations of clients of 2026-07-28: the metrics, without a token, add nothing up."""

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[LegacySession]:
        for sessions in list(self._of.values()):
            yield from list(sessions.values())

    def begin(self, owner: Token, server: str, now: float, today_s: float) -> LegacySession:
        """Return a session for a client that sends `initialize`. `keep` takes it in once that is answered."""
        sealed = SealedSession(secrets.token_bytes(16), int(today_s), b"")
        return self._made(owner, server, sealed, None, NO_PREFERENCES, now)

    def keep(self, owner: Token, session: LegacySession) -> None:
        """Give a session its id and take it in, unless `initialize` was refused.

        Raises:
            Refused: the client says more of itself than fits into a header.
        """
        opened = session.session.conversation.session
        if opened is None:
            return
        session.id = self._id_of(session, opened, owner)
        self._of.setdefault(owner.name, OrderedDict())[session.id] = session
        self.counts["opened"] += 1

    def find(self, owner: Token, server: str, session_id: str, now: float, today_s: float) -> LegacySession:
        """Return the session of this id.

        Raises:
            Refused: there is no such session, for this owner and this server.
        """
        mine = self._of.setdefault(owner.name, OrderedDict())
        session = mine.get(session_id)
        if session is None:
            session = mine[session_id] = self._restored(owner, server, session_id, now, today_s)
        elif session.server != server:
            raise session_unknown()
        session.used = now
        mine.move_to_end(session_id)
        return session

    async def end(self, owner: Token, session: LegacySession, today_s: float) -> None:
        """End a session by the will of its client."""
        self._of[owner.name].pop(session.id, None)
        self.counts["deleted"] += 1
        with _told():
            self._state.revoke(session.sealed, today_s)
        self._forget(session)
        await session.aclose()

    def _prefer(self, session: LegacySession) -> None:
        """Keep what the client of a session has set, for when the session is restored."""
        said = session.preferences
        kept = b"" if said == NO_PREFERENCES else msgspec.json.encode(said, order="deterministic")
        with _told():
            self._state.prefer(session.sealed, kept, time.time())

    def _forget(self, session: LegacySession) -> None:
        """Nobody comes back to the streams of a session that is over."""
        for name in [name for name, (owner, _) in self._kept.items() if owner is session]:
            del self._kept[name]

    def remember(self, session: LegacySession, stream: Stream) -> None:
        """A client has left a stream, or got its end. It may come back; of all that is kept for such clients,
        the oldest is forgotten first."""
        session.used = asyncio.get_running_loop().time()
        if stream.replay is None or session.is_over:
            return
        if not stream.is_begun:  # nobody can come back to it
            if not stream.request:
                session.forget(stream)
            return
        self._kept[stream.replay.stream] = session, stream
        self._kept.move_to_end(stream.replay.stream)
        kept = sum(one.replay.held_bytes for _, one in self._kept.values() if one.replay)
        while kept > KEPT_BYTES or len(self._kept) > KEPT:
            _, (owner, oldest) = self._kept.popitem(last=False)
            assert oldest.replay is not None
            kept -= oldest.replay.held_bytes
            owner.forget(oldest)
            self.counts["replays forgotten"] += 1

    def sweep(self, now: float) -> None:
        """Put away what is silent, and forget the streams that nobody came back to."""
        self._collect()
        for owner, sessions in list(self._of.items()):
            for session in list(sessions.values()):
                for name in session.forget_unread(now):
                    self._kept.pop(name, None)
                idle = now - session.used > self._limits.session_idle_sec
                if idle and not (session.is_busy or session.is_followed or session.is_remembered):
                    self._put_away(sessions, session)
            if not sessions:
                del self._of[owner]

    def _collect(self) -> None:
        """Free the sessions that are over: a session refers to itself, and the collector runs seldom.

        It takes as long as there are sessions in memory, so it runs once more of them are over.
        """
        over = self.counts["put away"] + self.counts["deleted"]
        if over - self._collected > len(self):
            self._collected = over
            gc.collect()

    async def aclose(self) -> None:
        """End all sessions; their ids stay good."""
        everything = list(self)
        self._of.clear()
        await asyncio.gather(*(session.aclose() for session in everything), *self._closing)

    def _made(
        self,
        owner: Token,
        server: str,
        sealed: SealedSession,
        opened: ClientSession | None,
        preferences: Preferences,
        now: float,
    ) -> LegacySession:
        self._make_room(owner)
        share = self._budget.share(owner.name)
        session = LegacySession(server, sealed, self._limits, share, now, self._prefer, self.dropped)
        session.preferences = preferences
        session.session = Session(
            server,
            session.deliver,
            name=client_name(owner.name),
            endpoint=self._endpoint,
            opened=opened,
            preferences=preferences,
            on_call=self._audit.caller(owner.name, "http") if self._audit else None,
            refusals=self.refusals,
            dropped=self.dropped,
        )
        return session

    def _restored(
        self, owner: Token, server: str, session_id: str, now: float, today_s: float
    ) -> LegacySession:
        sealed = self._seal.read(session_id, server, owner.name)
        if sealed is None or self._state.revocations.is_over(sealed, today_s):
            raise session_unknown()
        try:
            opened = msgspec.json.decode(sealed.state, type=ClientSession)
            kept = self._state.preferences.get(sealed)
            preferences = NO_PREFERENCES if kept is None else msgspec.json.decode(kept, type=Preferences)
        except msgspec.MsgspecError:  # of another version of the gateway
            raise session_unknown() from None
        session = self._made(owner, server, sealed, opened, preferences, now)
        session.id = session_id
        self.counts["restored"] += 1
        return session

    def _id_of(self, session: LegacySession, opened: ClientSession, owner: Token) -> str:
        """The id, with as much of what the client says of itself as fits."""
        for said in (opened, _shortened(opened)):
            sealed = session.sealed._replace(state=msgspec.json.encode(said))
            try:
                return self._seal.id_of(sealed, session.server, owner.name)
            except ValueError:
                continue
        raise Refused(400, "The capabilities of the client do not fit into a session id; declare fewer")

    def _make_room(self, owner: Token) -> None:
        mine = self._of.get(owner.name)
        if mine is None or len(mine) < self._limits.sessions:
            return
        idle = [session for session in mine.values() if not session.is_busy]
        silent = next((session for session in idle if not session.is_followed), next(iter(idle), None))
        if silent is None:
            raise Refused(
                503,
                f"All {self._limits.sessions} sessions of the token {owner.name!r} are busy; try again "
                "later, or raise `sessions` in gateway.toml",
                headers={"retry-after": "5"},
            )
        self._put_away(mine, silent)

    def _put_away(self, sessions: OrderedDict[str, LegacySession], session: LegacySession) -> None:
        del sessions[session.id]
        self._forget(session)
        self.counts["put away"] += 1
        task = asyncio.get_running_loop().create_task(session.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


@contextmanager
def _told() -> Iterator[None]:
    """Log that the state directory could not be written to."""
    try:
        yield
    except OSError as error:
        logger.warning("gateway.not_written", extra={"what": "sessions", "reason": error.strerror})


def _shortened(opened: ClientSession) -> ClientSession:
    """A session without what a client says of itself beyond name and version, such as icons."""
    info = {key: value for key, value in opened.client_info.items() if key in ("name", "version")}
    return msgspec.structs.replace(opened, client_info=info)
