"""The protocol of `rogue.py`: one pair of pipes, both eras of MCP, and what the client did wrong.

It is strict where the specification says MUST to a client: each breach is refused and kept in `violations`,
so that a test may end by asserting that there was none.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from queue import SimpleQueue

from tests.servers.rogue_json import decode, encode, raw_member
from tests.servers.rogue_process import WAIT_S, write_all

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.rogue_flags import Flags
    from tests.servers.rogue_json import Object

    Id = int | str
    Handler = Callable[["Request"], Object | None]  # None: somebody else answers, or nobody
    Methods = dict[str, tuple[str, Handler]]  # by name: the era that has it, and who answers
    Tools = dict[str, tuple[Object, Handler]]  # by name: what the list says of it, and who answers

LEGACY, MODERN, BOTH = "legacy", "modern", "both"
MODERN_VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
INFO = {"name": "rogue", "version": "1.0.0"}
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
CACHEABLE = ("server/discover", "resources/read", *LISTS)

PARSE_ERROR, INVALID_REQUEST, NOT_FOUND, INVALID_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32021, -32022


class RpcError(Exception):
    """Ends a request with a JSON-RPC error object."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.body: Object = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


class Output:
    """Stdout: whole lines, whoever writes them."""

    def __init__(self, *, end: bytes, outlive_reader: bool) -> None:
        self.end = end
        self._outlive_reader = outlive_reader
        self._ended = False
        self._lock = threading.Lock()

    def send(self, message: Object) -> None:
        """Write one message."""
        self.write(encode(message) + self.end)

    def write(self, *pieces: bytes, last: bool = False) -> None:
        """Write bytes as they are, piece by piece; what comes after the `last` is dropped."""
        with self._lock:
            if not self._ended:
                self._ended = last
                self._write(pieces)

    def _write(self, pieces: tuple[bytes, ...]) -> None:
        try:
            for piece in pieces:
                write_all(1, piece)
        except BrokenPipeError:
            if not self._outlive_reader:
                os._exit(1)


class Request:
    """One request under way; `line` is what arrived, byte for byte."""

    def __init__(self, server: Server, message: Object, line: bytes) -> None:
        self.server = server
        self.line = line
        self.id: Id = message["id"]
        self.method: str = message["method"]
        self.params: Object = message.get("params", {})
        self.meta: Object = self.params.get("_meta") or {}
        self.arguments: Object = self.params.get("arguments") or {}
        self.cancelled = threading.Event()
        self.served = threading.Event()

    def raw(self, *path: str) -> str | None:
        """The part of the line at `path`, as it was written."""
        text: str | None = self.line.decode()
        for name in path:
            text = raw_member(text, name) if text else None
        return text

    def write(self, *pieces: bytes, last: bool = False) -> None:
        """End the request with these bytes, whatever they are."""
        # Its id is free before the answer is out: the client may use it again at once.
        self.server.open.pop(self.id, None)
        self.server.out.write(*pieces, last=last)

    def reply(self, result: Object) -> None:
        """End the request with a result, dressed for the era."""
        self._end({"result": self.server.dressed(self.method, result)})

    def refuse(self, error: RpcError) -> None:
        """End the request with an error."""
        self._end({"error": error.body})

    def _end(self, ending: Object) -> None:
        self.write(encode({"jsonrpc": "2.0", "id": self.id, **ending}) + self.server.out.end)


class Server:
    """What the server knows, and the way of a message through it."""

    def __init__(self, flags: Flags, methods: Methods, tools: Tools) -> None:
        self.flags = flags
        self.methods = methods
        self.tools = tools
        self.out = Output(end=b"\r\n" if flags.crlf else b"\n", outlive_reader=flags.ignore_eof)
        self.era = flags.era
        self.ready = False  # `notifications/initialized` has come
        self.log_level = "debug"
        self.requests = 0
        self.received: Counter[str] = Counter()
        self.violations: list[str] = []
        self.open: dict[Id, Request] = {}
        self.cancelled: list[Id] = []
        self.subscribed: set[str] = set()
        self.listens: dict[Id, Object] = {}
        self.asked: dict[int, SimpleQueue[Object]] = {}
        self.descendants: list[int] = []
        self._numbers = itertools.count()
        self._line: SimpleQueue[tuple[Handler, Request]] = SimpleQueue()
        if flags.serial:
            self._thread(self._serve_in_turn)

    # Lines in

    def serve(self) -> None:
        """Take lines until stdin ends."""
        with open(0, "rb", closefd=False) as stdin:
            for line in stdin:
                # A bare CR ends a line for every server that reads in Python's text mode.
                for part in line.split(b"\r"):
                    if part.strip() and not self.flags.silent:
                        self._take(part)

    def _take(self, line: bytes) -> None:
        try:
            message = self._checked(decode(line))
        except (ValueError, RecursionError) as error:
            self._refuse(None, self.breach(PARSE_ERROR, f"malformed line: {error}"))
            return
        self.received[message.get("method", "response")] += 1
        if "method" not in message:
            self._take_response(message)
        elif "id" in message:
            self._take_request(Request(self, message, line))
        else:
            self._take_notification(message["method"], message.get("params", {}))

    def _take_response(self, message: Object) -> None:
        waiting = self.asked.pop(message.get("id", -1), None)
        if waiting is None:
            self.violations.append(f"response to nothing that was asked: {message}")
        else:
            waiting.put({key: value for key, value in message.items() if key in ("result", "error")})

    def _take_notification(self, method: str, params: Object) -> None:
        if method == "notifications/initialized":
            self.ready = True
        elif method == "notifications/cancelled" and type(params.get("requestId")) in (int, str):
            self._cancel(params["requestId"])
        else:
            self.violations.append(f"notification {method} with {params}")

    def _cancel(self, id: Id) -> None:
        self.cancelled.append(id)
        self.listens.pop(id, None)
        request = self.open.pop(id, None)
        if request is not None:
            request.cancelled.set()

    def _take_request(self, request: Request) -> None:
        if self._trip(request.method):
            return
        self.requests += 1
        try:
            self._check_id(request)
            self._check_era(request)
            handler = self._handler(request.method)
        except RpcError as error:
            self._refuse(request.id, error)
            request.served.set()
        else:
            self.open[request.id] = request
            self._start(handler, request)
        self._trip_after(request)

    def _start(self, handler: Handler, request: Request) -> None:
        if request.method != "tools/call":
            self._run(handler, request)
        elif self.flags.serial:
            self._line.put((handler, request))
        else:
            self._thread(lambda: self._run(handler, request))

    def _serve_in_turn(self) -> None:
        while True:
            self._run(*self._line.get())

    def _run(self, handler: Handler, request: Request) -> None:
        try:
            result = handler(request)
            if result is not None and not request.cancelled.is_set():
                request.reply(result)
        except RpcError as error:
            request.refuse(error)
        except Exception as error:  # the arguments are a test's, and so is the mistake in them
            request.refuse(RpcError(INTERNAL, repr(error)))
        finally:
            request.served.set()

    def _thread(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, daemon=True).start()

    # What a client must keep to

    def breach(self, code: int, what: str) -> RpcError:
        """Remember that the client broke the specification, and return the error that says so."""
        self.violations.append(what)
        return RpcError(code, what)

    def _refuse(self, id: Id | None, error: RpcError) -> None:
        # Not Request.refuse: the id may be that of another request, which is still open.
        self.out.send({"jsonrpc": "2.0", "id": id, "error": error.body})

    def _checked(self, message: Object) -> Object:
        method, params = message.get("method", ""), message.get("params", {})
        if message.get("jsonrpc") != "2.0" or type(method) is not str or type(params) is not dict:
            raise ValueError("this is no JSON-RPC 2.0 message of MCP")
        return message

    def _check_id(self, request: Request) -> None:
        token, others = request.meta.get("progressToken"), list(self.open.values())
        if type(request.id) not in (int, str):
            raise self.breach(INVALID_REQUEST, f"id {request.id!r} is neither integer nor string")
        if request.id in self.open:
            raise self.breach(INVALID_REQUEST, f"id {request.id!r} is in use")
        if token is not None and token in [other.meta.get("progressToken") for other in others]:
            raise self.breach(INVALID_PARAMS, f"progress token {token!r} is in use")

    def _check_era(self, request: Request) -> None:
        if self.era == "dual":
            self.era = MODERN if META + "protocolVersion" in request.meta else LEGACY
        if self.era == MODERN:
            self._check_modern(request)
        elif request.method == "initialize" and self.received["initialize"] > 1:
            raise self.breach(INVALID_REQUEST, "initialize a second time")
        elif not self.ready and request.method not in ("initialize", "ping", "server/discover"):
            raise self.breach(INVALID_PARAMS, f"{request.method} before notifications/initialized")

    def _check_modern(self, request: Request) -> None:
        version = request.meta.get(META + "protocolVersion", request.params.get("protocolVersion"))
        data = {"supported": [MODERN_VERSION], "requested": version}
        if request.method == "initialize":
            raise RpcError(UNSUPPORTED_VERSION, f"this server speaks {MODERN_VERSION} only", data)
        for name in ("protocolVersion", "clientCapabilities"):
            if META + name not in request.meta:
                raise self.breach(INVALID_PARAMS, f"{request.method} without {META}{name} in _meta")
        if version != MODERN_VERSION:
            raise RpcError(UNSUPPORTED_VERSION, "Unsupported protocol version", data)

    def _handler(self, method: str) -> Handler:
        era, handler = self.methods.get(method, ("none", None))
        if handler is None or era not in (BOTH, self.era):
            raise RpcError(NOT_FOUND, f"Method not found: {method}")
        return handler

    def _trip(self, method: str) -> bool:
        flags, probe = self.flags, method == "server/discover"
        if flags.die_in_handshake and (probe or method == "initialize"):
            os._exit(1)
        if probe and flags.exit_on_discover >= 0:
            os._exit(flags.exit_on_discover)
        return probe and flags.silent_on_discover

    def _trip_after(self, request: Request) -> None:
        flags = self.flags
        if self.requests not in (flags.exit_after, flags.close_stdin_after, flags.close_stdout_after):
            return
        request.served.wait(WAIT_S)
        if self.requests == flags.exit_after:
            os._exit(1)
        # Closed as the client sees it; the number stays taken, so that nothing else is written there.
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1 if self.requests == flags.close_stdout_after else 0)
        os.close(nowhere)

    # Lines out

    def dressed(self, method: str, result: Object) -> Object:
        """The result with what the modern era wants in it."""
        if self.era != MODERN:
            return result
        dress: Object = {"resultType": "complete", "_meta": {META + "serverInfo": INFO}}
        if method in CACHEABLE:
            dress |= {"ttlMs": self.flags.ttl_ms, "cacheScope": self.flags.cache_scope}
        return dress | result

    def notify(self, method: str, params: Object) -> None:
        """Send a notification."""
        self.out.send({"jsonrpc": "2.0", "method": method, "params": params})

    def announce(self, method: str, wanted: Callable[[Object], object], params: Object) -> int:
        """Tell of a change, plainly (legacy) or on each stream that wants it; returns how often."""
        if self.era != MODERN:
            self.notify(method, params)
            return 1
        streams = [id for id, filter in list(self.listens.items()) if wanted(filter)]
        for id in streams:
            self.notify(method, {"_meta": {META + "subscriptionId": id}, **params})
        return len(streams)

    def list_changed(self, of: str) -> int:
        """Announce that the list of tools, prompts or resources is another."""
        method, key = f"notifications/{of}/list_changed", f"{of}ListChanged"
        return self.announce(method, lambda filter: filter.get(key), {})

    def ask(self, method: str, params: Object) -> Object:
        """Send a request to the client and wait for the answer: its `result` or `error` member."""
        number = next(self._numbers)
        answer: SimpleQueue[Object] = SimpleQueue()
        self.asked[number] = answer
        self.out.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return answer.get(timeout=WAIT_S)
