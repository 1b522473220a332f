"""`rogue.py` with a tool that asks: during its call, late after a cancellation, and without one at SIGUSR1.

    python -I -S tests/servers/enquiring.py RECORD [--flag ...]

RECORD is a file that gets a line for each start, as with `faulty.py`. RECORD.wrong gets a line for each
answer to another question, and to a question that no client may get. The flags are those of `rogue.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.servers.faulty import record_start
from tests.servers.rogue import begin, speak_first
from tests.servers.rogue_flags import parse
from tests.servers.rogue_methods import METHODS
from tests.servers.rogue_server import Server
from tests.servers.rogue_tools import TOOLS, described, text

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from tests.servers.rogue_flags import Flags
    from tests.servers.rogue_json import Object
    from tests.servers.rogue_server import Request, Tools

NOBODY = "nobody"
"""The token of a question that belongs to no call."""

LATE_S = 0.005
"""The time from the cancellation of a call to its late question."""

FORM = {"type": "object", "properties": {"token": {"type": "string"}, "by": {"type": "string"}}}


class Enquiring(Server):
    """A server that asks, and keeps the answers that it should not have got."""

    def __init__(self, flags: Flags, record: str) -> None:
        super().__init__(flags, METHODS, {**TOOLS, **ENQUIRING})
        self._record = record

    def elicit(self, token: str, *, is_wrong: bool = False) -> Object:
        """Ask for the call with this token; the answer, or the error. `is_wrong`: no client may get it."""
        said = self.ask("elicitation/create", {"message": token, "requestedSchema": FORM})
        content = said.get("result", {}).get("content") or {}
        if (is_wrong and "result" in said) or content.get("token", token) != token:
            with open(f"{self._record}.wrong", "a", encoding="utf-8") as wrong:
                wrong.write(f"{token}: {said}\n")
        return said

    def ask_without_a_call(self) -> None:
        """Ask, whatever else goes on."""
        threading.Thread(target=lambda: self.elicit(NOBODY, is_wrong=True), daemon=True).start()


def enquire(request: Request) -> None:
    """Ask so many times for the call, and answer with what was said.

    A cancelled call asks once more, late, and is answered, late.
    """
    server, token = request.server, str(request.arguments["token"])
    assert isinstance(server, Enquiring)
    told = []
    for _ in range(int(request.arguments.get("questions", 1))):
        if request.cancelled.is_set():
            break
        told.append(server.elicit(token))
    if request.cancelled.is_set():
        time.sleep(LATE_S)
        server.elicit(token, is_wrong=True)
    request.reply(text({"token": token, "told": told}))


ENQUIRING: Tools = {
    "enquire": (
        described("enquire", "Asks for the call with this token.", {"token": {"type": "string"}}),
        enquire,
    )
}


def main(record: str, *arguments: str) -> None:
    """Serve until stdin ends."""
    record_start(record)
    flags = parse(list(arguments))
    begin(flags)
    server = Enquiring(flags, record)
    signal.signal(signal.SIGUSR1, lambda *_: server.ask_without_a_call())
    speak_first(server)
    server.serve()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
