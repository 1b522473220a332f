"""`rogue.py` with one fault, which happens at SIGUSR1, or in the handshake of one of its starts.

    python -I -S tests/servers/faulty.py RECORD FAULT START [--flag ...]

RECORD is a file that gets a line for each start: its pid, its start time, and the pids of what is still there
of earlier starts: those very processes, and any other with the same mark that is not one of its own wrappers.
START is the number of the start, from 1, in whose handshake FAULT happens; 0: in no handshake.
The flags are those of `rogue.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.servers.rogue import begin, speak_first
from tests.servers.rogue_flags import parse
from tests.servers.rogue_methods import METHODS
from tests.servers.rogue_process import WAIT_S, leave, write_all
from tests.servers.rogue_replies import line
from tests.servers.rogue_server import Request, Server
from tests.servers.rogue_tools import TOOLS, described, text

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.rogue_flags import Flags
    from tests.servers.rogue_json import Object
    from tests.servers.rogue_server import Tools

MARK = "FAULTS_CELL"
"""In the environment, where it has a value of its own for this server: so its processes are known."""

FLOOD_LINES = int(os.environ.get("FAULTS_LINES", "20000"))
LINE_BYTES = 200 * 1024 * 1024
HANDSHAKE = ("initialize", "server/discover")


class Faulty(Server):
    """A server that has its fault once, and knows whether it has had it."""

    def __init__(self, flags: Flags, fault: str, *, in_handshake: bool, has_had_it: bool) -> None:
        super().__init__(flags, METHODS, {**TOOLS, **WAITING})
        self.fault = fault
        self.in_handshake = in_handshake
        self.copies = 1
        self.is_mute = False
        self.happened = threading.Event()
        if has_had_it:
            self.happened.set()

    def strike(self) -> None:
        """The fault happens."""
        FAULTS[self.fault](self)
        self.happened.set()

    def _take_request(self, request: Request) -> None:
        if self.in_handshake and request.method in HANDSHAKE:
            self.in_handshake = False
            self.open[request.id] = request
            self.strike()
            if request.id not in self.open:  # it was answered
                return
            del self.open[request.id]
        if not self.is_mute:
            super()._take_request(request)


def close(server: Faulty, fd: int) -> None:
    """Closed as the client sees it; the number stays taken, so that nothing else is written there."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def in_background(write: Callable[[], None]) -> None:
    """Until it is written, or nobody reads it."""
    threading.Thread(target=write, daemon=True).start()


def flood_stderr(server: Faulty) -> None:
    """As many lines as the test has it."""
    in_background(lambda: write_all(2, b"flood\n" * FLOOD_LINES))


def flood_stdout(server: Faulty) -> None:
    """The same on stdout, and no JSON."""
    in_background(lambda: server.out.write(b"this is garbage\n" * FLOOD_LINES))


def endless_line(server: Faulty) -> None:
    """A line without an end, in pieces that share their memory."""
    pieces = [b"x" * 65_536] * (LINE_BYTES // 65_536)
    in_background(lambda: server.out.write(*pieces, last=True))


def fall_silent(server: Faulty) -> None:
    """Read on, and answer nothing any more."""
    server.is_mute = True


def answer_wrongly(server: Faulty) -> None:
    """What is open is answered under an id that nobody has."""
    for request in list(server.open.values()):
        request.cancelled.set()
        request.write(line("987654321"))
    server.out.write(line("987654322"))


def answer_twice(server: Faulty) -> None:
    """Every answer from now on, and before it one that nobody asked for."""
    server.out.write(line("987654321"))
    write = server.out.write
    server.out.write = lambda *pieces, last=False: write(*pieces * 2, last=last)  # type: ignore[method-assign]


def detach(server: Faulty) -> None:
    """Fork twice, as a program does that makes itself a daemon, and end."""
    leave("double_fork")
    leave("setsid")  # and one that holds on to the pipes
    os._exit(0)


FAULTS: dict[str, Callable[[Faulty], None]] = {
    "none": lambda server: None,
    "exit-0": lambda server: os._exit(0),
    "exit-1": lambda server: os._exit(1),
    "sigsegv": lambda server: os.kill(os.getpid(), signal.SIGSEGV),
    "sigkill": lambda server: os.kill(os.getpid(), signal.SIGKILL),
    "sigstop": lambda server: os.kill(os.getpid(), signal.SIGSTOP),
    "closes-stdout": lambda server: close(server, 1),
    "closes-stdin": lambda server: close(server, 0),
    "floods-stderr": flood_stderr,
    "floods-stdout": flood_stdout,
    "endless-line": endless_line,
    "silent": fall_silent,
    "wrong-id": answer_wrongly,
    "twice": answer_twice,
    "detaches": detach,
}


def until_fault(request: Request) -> Object:
    """Answers once the fault has happened, to this process or to an earlier one: who, that is."""
    server = request.server
    assert isinstance(server, Faulty)
    server.happened.wait(WAIT_S)
    return text(os.getpid())


def chant(request: Request) -> Object | None:
    """Reports this secret so many times, and answers with it."""
    said, steps = request.arguments["secret"], int(request.arguments.get("steps", 3))
    token = request.meta.get("progressToken")
    for step in range(1, steps + 1):
        if request.cancelled.wait(float(request.arguments.get("delay", 0))):
            return None
        if token is not None:
            params = {"progressToken": token, "progress": step, "total": steps, "message": said}
            request.server.notify("notifications/progress", params)
    return text(said)


def turn(request: Request) -> Object:
    """Answers once the fault has happened: the how-manieth request it was."""
    number = request.server.requests
    until_fault(request)
    return text(number)


def _waiting(name: str, **annotations: bool) -> Object:
    about = described(name, "Answers once the fault has happened: the pid.", {})
    return {**about, "annotations": annotations} if annotations else about


WAITING: Tools = {
    "until_fault": (_waiting("until_fault"), until_fault),
    "until_fault_safe": (_waiting("until_fault_safe", readOnlyHint=True), until_fault),
    "turn": (described("turn", "Answers once the fault has happened: the number of the request.", {}), turn),
    "chant": (described("chant", "Reports a secret in steps, and answers with it.", {}), chant),
}


def record_start(path: str) -> int:
    """Write who starts, and beside whom; the number of the start, from 1.

    One line, in one write: the broker before and the broker after a SIGKILL may both start one.
    """
    with open(path, "a+", encoding="ascii") as record:
        record.seek(0)
        before = [written.split()[:2] for written in record]
    still = dict.fromkeys([pid for pid, ticks in before if is_there(pid, ticks)] + marked_alike())
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, " ".join([str(os.getpid()), stat_of("self")[19], *still]).encode() + b"\n")
    os.close(fd)
    return len(before) + 1


def marked_alike() -> list[str]:
    """Who else carries the mark of this process, but for those that it was started by."""
    mark = f"{MARK}={os.environ[MARK]}".encode() if MARK in os.environ else b""
    return [pid for pid in os.listdir("/proc") if mark and pid.isdecimal() and carries(pid, mark)]


def carries(pid: str, mark: bytes) -> bool:
    """Whether that process lives, carries the mark, and is neither this one nor above it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            if mark not in environ.read().split(b"\0"):
                return False
        above = "self"
        while above not in ("0", "1", pid):
            above = stat_of(above)[1]
        return above != pid and stat_of(pid)[0] not in ("Z", "X") and int(pid) != os.getpid()
    except OSError:
        return False


def stat_of(pid: str) -> list[str]:
    """The fields of /proc/PID/stat after the name."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rpartition(") ")[2].split()


def is_there(pid: str, ticks: str) -> bool:
    """Whether that very process is alive; a zombie is not."""
    try:
        stat = stat_of(pid)
    except OSError:
        return False
    return stat[19] == ticks and stat[0] not in ("Z", "X")


def main(record: str, fault: str, start: str, *arguments: str) -> None:
    """Serve until stdin ends, or longer."""
    number = record_start(record)
    flags = parse(list(arguments))
    begin(flags)
    server = Faulty(flags, fault, in_handshake=number == int(start), has_had_it=number > max(1, int(start)))
    signal.signal(signal.SIGUSR1, lambda *_: server.strike())
    speak_first(server)
    server.serve()
    while flags.ignore_eof or fault == "closes-stdin":
        time.sleep(WAIT_S)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
