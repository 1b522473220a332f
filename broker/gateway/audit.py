"""The audit log: one JSON line for each call that ended, in a file of bounded size.

Arguments and results are not in it unless the operator asks for them: they may hold secrets or personal data.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from logging.handlers import RotatingFileHandler
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from broker.gateway.conversation import eras
from broker.gateway.conversation.conversation import Conversation
from broker.gateway.conversation.effects import BrokerFault, MakeCall, Outcome, ServerRefusal
from broker.gateway.conversation.session import OnCall
from broker.gateway.settings import AuditConfig
from client_shim.trusted import open_folder

MAX_BODY_CHARS = 4096
"""The part of an argument or result that a line holds, where the operator asked for bodies."""

Missed = Callable[[BaseException | None], None]

logger = logging.getLogger("mcp-broker")


class Entry(NamedTuple):
    """One call, as the audit log tells it.

    Attributes:
        time: when the call ended: RFC 3339 in UTC.
        who: the name of the token, or `uid:N` of the process at the other end of a socket.
        door: "http", "socket" or "stdio".
        client: name and version that the MCP client gave itself.
        target: the tool, prompt or resource; `None` for a method that has none.
        outcome: "ok"; "tool-error"; "error CODE" of the server; a code of the broker (docs/messages.md); or
            "cancelled".
        ms: how long the call took.
        params, result: the bodies, clipped; `None` unless the operator asked for them.
    """

    time: str
    who: str
    door: str
    client: str
    server: str
    method: str
    target: str | None
    outcome: str
    ms: float
    request_bytes: int
    result_bytes: int
    params: str | None = None
    result: str | None = None


class Audit:
    """The audit log as the doors use it: `caller` gives what a session tells its calls to.

    Raises:
        OSError: the file of the log cannot be opened.
        Untrusted: another user could change it or its folder, or it is not a regular file.
    """

    def __init__(self, path: str, config: AuditConfig) -> None:
        self._log = AuditLog(path, max_bytes=config.max_bytes, keep=config.keep)
        self._bodies = config.bodies

    def caller(self, who: str, door: str) -> OnCall:
        """Return the function that writes the calls of one client."""
        return partial(self._ended, who, door)

    def close(self) -> None:
        """Close the file."""
        self._log.close()

    def _ended(
        self,
        who: str,
        door: str,
        conversation: Conversation,
        call: MakeCall,
        outcome: Outcome | None,
        took_s: float,
    ) -> None:
        params, result = call.params or b"", b"" if outcome is None else _body(outcome)
        self._log.write(
            Entry(
                time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                who=who,
                door=door,
                client=_client(conversation, call),
                server=conversation.server,
                method=call.method,
                target=_target(params),
                outcome=_word(outcome),
                ms=round(took_s * 1000, 3),
                request_bytes=len(params),
                result_bytes=len(result),
                params=params.decode(errors="replace") if self._bodies else None,
                result=result.decode(errors="replace") if self._bodies else None,
            )
        )


def _client(conversation: Conversation, call: MakeCall) -> str:
    """Return what the client calls itself; nothing where it says that in another form than MCP has."""
    opened = conversation.session
    said = (call.meta or {}).get(eras.CLIENT_INFO) or (opened.client_info if opened else None)
    return (
        " ".join(str(said[key])[:64] for key in ("name", "version") if key in said)
        if isinstance(said, dict)
        else ""
    )


class _Params(Struct, gc=False):
    name: Any = None
    uri: Any = None


class _Result(Struct, gc=False):
    is_error: Any = msgspec.field(default=False, name="isError")


class _Error(Struct, gc=False):
    code: Any = None


def _read(body: bytes, shape: type[Any]) -> Any:
    """Return the few fields that a line tells; the defaults for a body that has none."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, RecursionError):
        return shape()


def _target(params: bytes) -> str | None:
    read = _read(params, _Params)
    found = read.name if isinstance(read.name, str) else read.uri
    return found[:256] if isinstance(found, str) else None


def _body(outcome: Outcome) -> bytes:
    return b"" if isinstance(outcome, BrokerFault) else outcome.body


def _word(outcome: Outcome | None) -> str:
    if outcome is None:
        return "cancelled"
    if isinstance(outcome, BrokerFault):
        return outcome.code
    if isinstance(outcome, ServerRefusal):
        return f"error {_read(outcome.body, _Error).code}"
    return "tool-error" if _read(outcome.body, _Result).is_error is True else "ok"


def _visible(line: str) -> str:
    """Return JSON whose characters all show: a terminal obeys some of the others, as JSON allows them."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


class AuditLog:
    """Writes entries to `path`; renames it to `path.1`, `path.2`, … when it has grown to `max_bytes`.

    An entry that cannot be written (a full disk, say) is counted in `lost`, and the log says so once for each
    run of losses: the calls go on.

    Args:
        max_bytes: the size at which a file is rotated; the log takes at most `(keep + 1) * max_bytes`.
        keep: how many rotated files stay.

    Raises:
        OSError: `path` cannot be opened.
        Untrusted: another user could change it or its folder, or it is not a regular file.
    """

    def __init__(self, path: str, *, max_bytes: int, keep: int) -> None:
        self.lost = 0
        self._losing = False
        self._handler = _File(path, max_bytes, keep, self._missed)

    def write(self, entry: Entry) -> None:
        """Write one line."""
        facts: dict[str, Any] = {key: value for key, value in entry._asdict().items() if value is not None}
        for body in ("params", "result"):
            if body in facts:
                facts[body] = facts[body][:MAX_BODY_CHARS]
        lost = self.lost
        line = _visible(json.dumps(facts, ensure_ascii=False, separators=(",", ":")))
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, "%s", (line,), None))
        self._losing = self.lost > lost

    def close(self) -> None:
        """Close the file."""
        self._handler.close()

    def _missed(self, error: BaseException | None) -> None:
        self.lost += 1
        if not self._losing:
            logger.error("audit.lost", extra={"error": str(error)})


class _File(RotatingFileHandler):
    """The standard library's rotation, of a file that its owner alone can read, change and replace."""

    def __init__(
        self, path: str, max_bytes: int, keep: int, missed: Callable[[BaseException | None], None]
    ) -> None:
        self._missed = missed
        super().__init__(path, maxBytes=max_bytes, backupCount=keep, encoding="utf-8")

    def _open(self) -> io.TextIOWrapper:
        with open_folder(os.path.dirname(self.baseFilename)) as folder:
            fd = folder.open(os.path.basename(self.baseFilename), os.O_WRONLY | os.O_APPEND, make=True)
        raw = io.FileIO(fd, "a")
        # Unbuffered: what a full disk did not take is lost and counted, and does not wait in memory.
        return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of the entry that could not be written, where the library would print a traceback."""
        self._missed(sys.exc_info()[1])
