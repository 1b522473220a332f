"""The bodies: plain data to JSON and back, with errors that name the value at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from client_shim.errors import InvalidReply, InvalidRequest
from client_shim.text import shown
from client_shim.wire import MANAGEMENT, Fault

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_READING = ("ping", "servers", "status", "logs")
_THEIRS = "this is the server's mistake: report it to its authors"


class ProgressParams(NamedTuple):
    """How far a call has come. `total` and `message` are what the server says, where it says anything."""

    progress: float
    total: float | None
    message: str | None


class LogParams(NamedTuple):
    """What a server logs while it works on a call."""

    level: str
    data: Any
    logger: str | None


class PreparedRequest(NamedTuple):
    """A request, ready to be sent: encoded, checked, and with a name for the errors it may end in."""

    subject: str
    service: str
    method: str
    body: bytes | None
    timeout_s: float | None = None
    flags: int = 0
    meta: dict[str, Any] | None = None

    @property
    def only_reads(self) -> bool:
        """Whether it asks the broker about itself: a lost one has changed nothing."""
        return self.service == MANAGEMENT and self.method in _READING


def prepare(
    server: str,
    method: str,
    params: Mapping[str, Any] | None,
    *,
    timeout_s: float | None = None,
    flags: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> PreparedRequest:
    """Prepare a request of plain data.

    A `_meta` in the params is taken out of them: it travels in the header, never in the body.

    Raises:
        InvalidRequest: something in it is no JSON, the timeout is none, or there are two `_meta`.
    """
    subject = _subject(server, method, params)
    _check_timeout(subject, timeout_s)
    body, meta = _encode(subject, params, meta)
    return PreparedRequest(subject, server, method, body, timeout_s, flags, meta)


def prepare_raw(
    server: str,
    method: str,
    body: bytes | None,
    *,
    timeout_s: float | None = None,
    flags: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> PreparedRequest:
    """Prepare a request whose params are encoded already. The broker checks them; the shim does not.

    Raises:
        InvalidRequest: the params are not bytes, the timeout is not one, or something in `meta` is not JSON.
    """
    subject = _subject(server, method, None)
    _check_timeout(subject, timeout_s)
    if body is not None and not isinstance(body, bytes):
        raise InvalidRequest(f"{subject}: raw params must be bytes, and this is {shown(body)}")
    return PreparedRequest(subject, server, method, body, timeout_s, flags, _plain_meta(subject, meta))


def _check_timeout(subject: str, timeout_s: float | None) -> None:
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise InvalidRequest(
            f"{subject}: a timeout of {timeout_s!r} is none",
            hint="give a positive number of seconds, or None for the broker's own",
        )


def _subject(server: str, method: str, params: Mapping[str, Any] | None) -> str:
    if server == MANAGEMENT:
        return f"`{method}` of the broker"
    if method == "tools/call" and params is not None:
        name = params.get("name")
        return (
            f"tool {name!r} of server {server!r}" if isinstance(name, str) else f"a tool of server {server!r}"
        )
    return f"`{method}` of server {server!r}"


def _encode(
    subject: str, params: Mapping[str, Any] | None, meta: Mapping[str, Any] | None
) -> tuple[bytes | None, dict[str, Any] | None]:
    params = None if params is None else _object(subject, params, "params")
    if params is not None and "_meta" in params:
        if meta is not None:
            raise InvalidRequest(f"{subject}: `_meta` is given twice, in the params and beside them")
        meta = params.pop("_meta")
    body = None if params is None else _dumps(subject, params, "params")
    return body, _plain_meta(subject, meta)


def _plain_meta(subject: str, meta: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a copy of `meta` that holds plain JSON data only."""
    if meta is None:
        return None
    plain: dict[str, Any] = json.loads(_dumps(subject, _object(subject, meta, "_meta"), "_meta"))
    return plain


def _object(subject: str, value: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        return dict(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{subject}: {name} must be an object, and this is {shown(value)}") from None


def _dumps(subject: str, value: object, name: str) -> bytes:
    """`value` as JSON; `InvalidRequest` says which part of it, called `name`, is none."""
    try:
        return _to_json(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{subject}: {_culprit(value, name) or f'{name}: {error}'}",
            hint="arguments are JSON: objects, lists, strings, finite numbers, true, false, null",
        ) from None


def _culprit(value: object, path: str) -> str | None:
    """Which value inside `value` is not JSON, and why."""
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, (str, int, float, type(None)))), None)
        if odd is not None:
            return f"{path} has the key {odd!r}, which is no string"
        return _first(((item, f"{path}.{key}") for key, item in value.items()), path)
    if isinstance(value, (list, tuple)):
        return _first(((item, f"{path}[{index}]") for index, item in enumerate(value)), path)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which JSON does not have"
    if isinstance(value, str) and not _is_utf8(value):
        return f"{path} has a lone surrogate, which is no text: {value!r:.80}"
    if value is None or isinstance(value, (str, int, float)):
        return None
    return f"{path} is of type {type(value).__name__}, which is not JSON"


def _first(parts: Any, path: str) -> str | None:
    try:
        return next((found for item, name in parts if (found := _culprit(item, name))), None)
    except RecursionError:
        return f"{path.split('.')[0].split('[')[0]} is nested without end, or too deeply"


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def decode(subject: str, body: bytes) -> Any:
    """A result as plain data.

    Raises:
        InvalidReply: it is not JSON.
    """
    try:
        return json.loads(str(body, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidReply(f"{subject}: the result is not JSON: {error}", hint=_THEIRS) from None


def progress(body: bytes) -> ProgressParams | None:
    """What a progress notification says, or `None` where that cannot be read."""
    try:
        params = json.loads(str(body, "utf-8"))
        done, total, message = params["progress"], params.get("total"), params.get("message")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if (progress := _number(done)) is None:
        return None
    return ProgressParams(progress, _number(total), message if isinstance(message, str) else None)


def log_message(body: bytes) -> LogParams | None:
    """What a log message says, or `None` where that cannot be read."""
    try:
        params = json.loads(str(body, "utf-8"))
        level, data, logger = params["level"], params.get("data"), params.get("logger")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if not isinstance(level, str):
        return None
    return LogParams(level, data, logger if isinstance(logger, str) else None)


def followed(body: bytes) -> list[str]:
    """The servers that the result of a `listen` names; none where that cannot be read."""
    try:
        servers = json.loads(str(body, "utf-8"))["servers"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return []
    return [name for name in servers if isinstance(name, str)] if isinstance(servers, list) else []


def not_subscribed(body: bytes) -> dict[str, Fault]:
    """The servers that the result of a `listen` names as not heard for now, each with the reason."""
    try:
        refused = dict(json.loads(str(body, "utf-8"))["not_subscribed"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    faults = {server: _fault(said) for server, said in refused.items()}
    return {server: fault for server, fault in faults.items() if fault is not None}


def _fault(said: Any) -> Fault | None:
    try:
        code, message, hint = said["code"], said["message"], said["hint"]
    except (TypeError, LookupError):
        return None
    if not all(isinstance(word, str) for word in (code, message, hint)):
        return None
    return Fault(0, 0, code, message, {"hint": hint})


def _number(value: object) -> float | None:
    """The value if it is a number that a float can hold; whoever is told of it formats it as one."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer above 1.8e308
        return None
