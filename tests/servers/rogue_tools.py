"""The tools of `rogue.py`: `TABLE`, at the end, says what each takes and does."""

from __future__ import annotations

import base64
import os
import signal
import threading

from tests.servers.rogue_json import encode
from tests.servers.rogue_methods import LEVELS
from tests.servers.rogue_process import WAIT_S, leave, write_all
from tests.servers.rogue_replies import BAD_REPLIES, line
from tests.servers.rogue_server import (
    INVALID_PARAMS,
    LEGACY,
    META,
    MISSING_CAPABILITY,
    MODERN,
    RpcError,
)

TYPE_CHECKING = False  # see rogue_json
if TYPE_CHECKING:
    from tests.servers.rogue_json import Object
    from tests.servers.rogue_server import Handler, Request, Tools

    Row = tuple[str, Object, Handler]  # what it does, what it takes, and the code

GREETING = {"role": "user", "content": {"type": "text", "text": "Capital of France?"}}
ANNOTATIONS: dict[str, Object] = {"hang_once": {"idempotentHint": True}}
FORM = {"type": "object", "properties": {"name": {"type": "string"}}}
QUESTIONS: dict[str, tuple[str, Object]] = {
    "sampling/createMessage": ("sampling", {"messages": [GREETING], "maxTokens": 9}),
    "elicitation/create": ("elicitation", {"message": "Your name?", "requestedSchema": FORM}),
    "roots/list": ("roots", {}),
    "ping": ("", {}),
}
"""What `ask` may ask: the capability that the client needs, and the params."""


def content(*items: Object, error: bool = False) -> Object:
    """The result of a call."""
    return {"content": list(items), "isError": error}


def text(value: object, *, error: bool = False) -> Object:
    """A result of one text: a string as it is, anything else as JSON."""
    shown = value if isinstance(value, str) else encode(value).decode()
    return content({"type": "text", "text": shown}, error=error)


def described(name: str, description: str, properties: Object) -> Object:
    """A tool as `tools/list` has it."""
    schema = {"type": "object", "properties": properties}
    tool = {"name": name, "description": description, "inputSchema": schema}
    return {**tool, "annotations": ANNOTATIONS[name]} if name in ANNOTATIONS else tool


# How it answers


def whoami(call: Request) -> Object:
    params, received = call.raw("params"), base64.b64encode(call.line).decode()
    process = {"pid": os.getpid(), "session": os.getsid(0), "descendants": call.server.descendants}
    return text({**process, "params": params, "line": received})


def subscribed(call: Request) -> Object:
    return text({"uris": sorted(call.server.subscribed), "listens": list(call.server.listens.values())})


def big(call: Request) -> Object:
    size = int(call.arguments.get("bytes", 1_000_000))
    if call.arguments.get("kind") != "image":
        return text("x" * size)
    return content({"type": "image", "mimeType": "image/png", "data": base64.b64encode(bytes(size)).decode()})


def jsonrpc_error(call: Request) -> Object:
    given = call.arguments
    raise RpcError(given.get("code", -32000), given.get("message", "it went wrong"), given.get("data"))


def bad_reply(call: Request) -> None:
    call.write(*BAD_REPLIES[call.arguments["kind"]](encode(call.id).decode()))


def endless_reply(call: Request) -> None:
    begun = line(encode(call.id).decode()).partition(b"fine")[0]
    call.write(begun + b"x" * int(call.arguments.get("bytes", 1_000_000)), last=True)


# When it answers


def sleep(call: Request) -> Object:
    call.cancelled.wait(float(call.arguments.get("seconds", 1)))
    return text("slept")


def hang(call: Request) -> None:
    call.cancelled.wait(WAIT_S)
    if call.arguments.get("late"):
        call.reply(text("too late"))


def hang_once(call: Request) -> Object | None:
    try:
        open(call.arguments["file"], "x").close()
    except FileExistsError:
        return text(os.getpid())
    hang(call)
    return None


def progress(call: Request) -> Object | None:
    steps = int(call.arguments.get("steps", 3))
    for step in range(1, steps + 1):
        if call.cancelled.wait(float(call.arguments.get("delay", 0))):
            return None
        report(call, step, steps)
    if call.arguments.get("late"):
        call.reply(text(f"{steps} steps"))
        report(call, steps + 1, steps + 1)
        return None
    return text(f"{steps} steps")


def report(call: Request, step: int, total: int) -> None:
    token = call.arguments.get("token", call.meta.get("progressToken"))
    if token is not None:
        params = {"progressToken": token, "progress": step, "total": total, "message": f"step {step}"}
        call.server.notify("notifications/progress", params)


# What it says unasked


def ask(call: Request) -> Object:
    method = call.arguments["method"]
    capability, params = QUESTIONS[method]
    if call.server.era == LEGACY or call.arguments.get("anyway"):
        return text(call.server.ask(method, params))
    if "inputResponses" in call.params:
        return answered(call, f"asked {method}")
    if not capability:
        raise RpcError(INVALID_PARAMS, f"{method} cannot be asked in this era")
    if capability not in call.meta[META + "clientCapabilities"]:
        missing: Object = {"requiredCapabilities": {capability: {}}}
        raise RpcError(MISSING_CAPABILITY, f"the client did not declare {capability}", missing)
    questions = {"question": {"method": method, "params": params}}
    return {"resultType": "input_required", "inputRequests": questions, "requestState": f"asked {method}"}


def answered(call: Request, state: str) -> Object:
    if call.params.get("requestState") != state:
        raise call.server.breach(INVALID_PARAMS, f"requestState is not the {state!r} that was given")
    return text({"result": call.params["inputResponses"].get("question")})


def log(call: Request) -> Object:
    server, level, times = (
        call.server,
        call.arguments.get("level", "info"),
        int(call.arguments.get("times", 1)),
    )
    wanted: str | None = call.meta.get(META + "logLevel") if server.era == MODERN else server.log_level
    if wanted is None or LEVELS.index(level) < LEVELS.index(wanted):
        return text(0)
    for _ in range(times):
        data = call.arguments.get("text", "")
        server.notify("notifications/message", {"level": level, "logger": "rogue", "data": data})
    return text(times)


def add_tool(call: Request) -> Object:
    name = str(call.arguments["name"])
    call.server.tools[name] = (described(name, "Returns its name.", {}), lambda _: text(name))
    return text(call.server.list_changed("tools"))


def remove_tool(call: Request) -> Object:
    call.server.tools.pop(call.arguments["name"])
    return text(call.server.list_changed("tools"))


def touch(call: Request) -> Object:
    uri, server = call.arguments["uri"], call.server
    if server.era == LEGACY and uri not in server.subscribed:
        return text(0)
    count = server.announce(
        "notifications/resources/updated",
        lambda filter: uri in filter.get("resourceSubscriptions", ()),
        {"uri": uri},
    )
    return text(count)


def end_listens(call: Request) -> Object:
    ended = [call.server.open[id] for id in call.server.listens]
    call.server.listens.clear()
    for request in ended:
        request.reply({"_meta": {META + "subscriptionId": request.id}})
    return text(len(ended))


def stderr(call: Request) -> Object:
    width = int(call.arguments.get("bytes", 80))
    for number in range(1, int(call.arguments.get("lines", 1)) + 1):
        write_all(2, f"{number} ".ljust(width, "e").encode() + b"\n")
    return text("written")


def stdout_noise(call: Request) -> Object:
    call.server.out.write(b"this is no JSON\n" * int(call.arguments.get("lines", 1)))
    return text("written")


# The process


def crash(call: Request) -> Object:
    if "signal" not in call.arguments:
        os._exit(int(call.arguments.get("exit", 1)))
    # To this very thread: another one would die a moment later, after the answer.
    signal.pthread_kill(threading.get_ident(), int(call.arguments["signal"]))
    return text("survived")


def fds(_call: Request) -> Object:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # that of the listing
    return text({"count": len(found), "fds": found})


def spawn(call: Request) -> Object:
    pid = leave(call.arguments.get("how", "child"))
    call.server.descendants.append(pid)
    return text(pid)


ANY: Object = {}
STRING, INTEGER, NUMBER, BOOLEAN = ({"type": name} for name in ("string", "integer", "number", "boolean"))


def one_of(*values: str) -> Object:
    """The schema of a choice."""
    return {"type": "string", "enum": list(values)}


TABLE: dict[str, Row] = {
    # What it was sent
    "echo": (
        "Returns its arguments as the JSON text they came in.",
        {"text": ANY},
        lambda call: text(call.raw("params", "arguments") or "{}"),
    ),
    "whoami": ("Returns pid, session, descendants, params as they came, the line in base64.", {}, whoami),
    "requests": ("Counts what came, by method.", {}, lambda call: text(dict(call.server.received))),
    "cancelled": ("Lists the request ids cancelled so far.", {}, lambda call: text(call.server.cancelled)),
    "subscribed": ("Lists the subscribed URIs, and the filters of the open listens.", {}, subscribed),
    "violations": (
        "Lists what the client did that the specification forbids.",
        {},
        lambda call: text(call.server.violations),
    ),
    # How it answers
    "big": (
        "Returns a text, or the base64 of an image, of so many bytes.",
        {"bytes": INTEGER, "kind": one_of("text", "image")},
        big,
    ),
    "empty": ("Returns no content.", {}, lambda call: content()),
    "fail": (
        "Returns a result that is an error.",
        {"text": STRING},
        lambda call: text(call.arguments.get("text", "it failed"), error=True),
    ),
    "jsonrpc_error": (
        "Ends in a JSON-RPC error.",
        {"code": INTEGER, "message": STRING, "data": ANY},
        jsonrpc_error,
    ),
    "bad_reply": ("Replies in a broken way.", {"kind": one_of(*BAD_REPLIES)}, bad_reply),
    "endless_reply": (
        "Begins a reply of so many bytes, never ends its line, and writes nothing more.",
        {"bytes": INTEGER},
        endless_reply,
    ),
    # When it answers
    "sleep": ("Answers after so many seconds; not at all if cancelled.", {"seconds": NUMBER}, sleep),
    "hang": ("Never answers; `late`: once it was cancelled, which it must not.", {"late": BOOLEAN}, hang),
    "hang_once": (
        "Never answers the first call with this file, which it makes; later ones with its pid.",
        {"file": STRING},
        hang_once,
    ),
    "progress": (
        "Reports steps, under the request's token or this one; `late`: once more after the answer.",
        {"steps": INTEGER, "delay": NUMBER, "token": ANY, "late": BOOLEAN},
        progress,
    ),
    # What it says unasked
    "ask": (
        "Asks the client, returns what came back; modern: by `input_required`, `anyway` by a request.",
        {"method": one_of(*QUESTIONS), "anyway": BOOLEAN},
        ask,
    ),
    "log": (
        "Logs a text so many times if the client wants that level; returns how often.",
        {"level": one_of(*LEVELS), "text": STRING, "times": INTEGER},
        log,
    ),
    "add_tool": ("Adds a tool and announces it; returns how often.", {"name": STRING}, add_tool),
    "remove_tool": ("Removes a tool and announces that; returns how often.", {"name": STRING}, remove_tool),
    "list_changed": (
        "Announces that a list has changed; returns how often.",
        {"of": one_of("tools", "prompts", "resources")},
        lambda call: text(call.server.list_changed(call.arguments["of"])),
    ),
    "touch": ("Announces that a resource has changed; returns how often.", {"uri": STRING}, touch),
    "end_listens": ("Ends every listen stream, as at shutdown; returns how many.", {}, end_listens),
    "stderr": (
        "Writes lines of so many bytes to stderr; each begins with its number.",
        {"lines": INTEGER, "bytes": INTEGER},
        stderr,
    ),
    "stdout_noise": ("Writes lines to stdout that are no JSON.", {"lines": INTEGER}, stdout_noise),
    # The process
    "crash": (
        "Ends the process, with a status (1) or by a signal.",
        {"exit": INTEGER, "signal": INTEGER},
        crash,
    ),
    "env": (
        "Returns these environment variables.",
        {"names": {"type": "array"}},
        lambda call: text({name: os.environ.get(name) for name in call.arguments["names"]}),
    ),
    "fds": ("Counts the open file descriptors.", {}, fds),
    "spawn": (
        "Leaves a sleeping process and returns its pid.",
        {"how": one_of("child", "setsid", "double_fork", "bare", "bare_setsid", "bare_double_fork")},
        spawn,
    ),
}

TOOLS: Tools = {
    name: (described(name, what, takes), handler) for name, (what, takes, handler) in TABLE.items()
}
