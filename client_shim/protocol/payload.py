"""Bodies of messages: plain data to JSON and back, with errors that name the value at fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from client_shim.errors import SERVER_AT_FAULT, InvalidReply, InvalidRequest
from client_shim.text import shown
from client_shim.wire import MANAGEMENT, Fault, Request

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode
_HARMLESS = ("ping", "servers", "status", "logs", "listen")
_SIMPLE_DEPTH = 8
_LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")


class ProgressParams(NamedTuple):
    """The params of a progress notification. `total` and `message` are `None` where they are left out."""

    progress: float
    total: float | None
    message: str | None


class LogParams(NamedTuple):
    """The params of a log message about a call."""

    level: str
    data: Any
    logger: str | None


class PreparedRequest(NamedTuple):
    """A request that is encoded and checked. `subject` names it in errors."""

    subject: str
    service: str
    method: str
    body: bytes | None
    timeout_s: float | None = None
    flags: int = 0
    meta: dict[str, Any] | None = None

    @property
    def only_reads(self) -> bool:
        """Whether it can be repeated at the next broker: it changes nothing that outlives its broker."""
        return self.method in (_HARMLESS if self.service == MANAGEMENT else _LISTS)

    def message(self, channel: int, id: int, instance: str) -> Request:
        """Return the message to send to this instance of the broker."""
        timeout_ms = None
        if self.timeout_s is not None:  # what is left of 30 s may be 30.000000000001 s in floating point
            timeout_ms = max(1, math.ceil(round(self.timeout_s * 1000, 3)))
        return Request(channel, id, instance, self.service, self.method, timeout_ms, self.flags, self.meta)


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
        InvalidRequest: a value is not JSON, the timeout is not positive, or `_meta` is given twice.
    """
    name = subject(server, method, params)
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise _bad_timeout(name, timeout_s)
    body, meta = _encode(name, params, meta)
    return PreparedRequest(name, server, method, body, timeout_s, flags, meta)


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
        InvalidRequest: the params are not bytes, the timeout is not positive, or `meta` is not JSON.
    """
    name = subject(server, method)
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise _bad_timeout(name, timeout_s)
    if body is not None and not isinstance(body, bytes):
        raise InvalidRequest(f"{name}: raw params must be bytes, and this is {shown(body)}")
    meta = None if meta is None else _plain_meta(name, meta)
    return PreparedRequest(name, server, method, body, timeout_s, flags, meta)


def _bad_timeout(subject: str, timeout_s: float) -> InvalidRequest:
    return InvalidRequest(
        f"{subject}: the timeout {timeout_s!r} is not valid",
        hint="give a positive number of seconds, or None for the broker's own",
    )


def subject(server: str, method: str, params: Mapping[str, Any] | None = None) -> str:
    """Return the name of a request in errors: its tool or method, and its server."""
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
    body = None if params is None else encode(subject, params, "params")
    return body, None if meta is None else _plain_meta(subject, meta)


def _plain_meta(subject: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `meta` that holds plain JSON data only."""
    given = _object(subject, meta, "_meta")
    plain = _copy_of_simple(given)
    if plain is None:
        plain = json.loads(encode(subject, given, "_meta"))
    return plain


def _copy_of_simple(given: dict[str, Any], depth: int = 0) -> dict[str, Any] | None:
    """Return a copy of nested objects of ASCII texts, booleans and nulls, which nearly every `_meta` is.

    Return `None` where anything else is in them: an encoder has to look at that, which takes longer.
    """
    copy: dict[str, Any] = {}
    for key, value in given.items():
        kind = type(value)
        if kind is dict and depth < _SIMPLE_DEPTH:
            value = _copy_of_simple(value, depth + 1)
            if value is None:
                return None
        elif not (kind is bool or value is None or (kind is str and value.isascii())):
            return None
        if type(key) is not str or not key.isascii():
            return None
        copy[key] = value
    return copy


def _object(subject: str, value: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        return dict(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{subject}: {name} must be an object, and this is {shown(value)}") from None


def encode(subject: str, value: object, name: str) -> bytes:
    """Return `value` as JSON; raise `InvalidRequest` with the path, from `name` on, of what is not JSON."""
    try:
        return _to_json(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{subject}: {_culprit(value, name) or f'{name}: {error}'}",
            hint="arguments are JSON: objects, lists, strings, finite numbers, true, false, null",
        ) from None


def _culprit(value: object, path: str) -> str | None:
    """Return which value inside `value` is not JSON, and why."""
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
    """Return a result as plain data.

    Raises:
        InvalidReply: it is not JSON.
    """
    try:
        return _from_json(str(body, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidReply(f"{subject}: the result is not JSON: {error}", hint=SERVER_AT_FAULT) from None


def _object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, or an empty one where there is no object."""
    try:
        value = json.loads(str(body, "utf-8"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def progress(body: bytes) -> ProgressParams | None:
    """Return the params of a progress notification, or `None` if they are malformed."""
    params = _object_in(body)
    if (progress := _number(params.get("progress"))) is None:
        return None
    return ProgressParams(progress, _number(params.get("total")), _text(params.get("message")))


def log_message(body: bytes) -> LogParams | None:
    """Return the params of a log message, or `None` if they are malformed."""
    params = _object_in(body)
    if (level := _text(params.get("level"))) is None:
        return None
    return LogParams(level, params.get("data"), _text(params.get("logger")))


def followed(body: bytes) -> list[str]:
    """Return the servers whose lists are followed, from the result of a `listen`; none if it is malformed."""
    servers = _object_in(body).get("servers")
    return [name for name in servers if isinstance(name, str)] if isinstance(servers, list) else []


def not_subscribed(body: bytes) -> dict[str, Fault]:
    """Return the servers that cannot be heard for now, with the reasons, from the result of a `listen`."""
    refused = _object_in(body).get("not_subscribed")
    faults = {}
    for server, said in refused.items() if isinstance(refused, dict) else ():
        words = (
            [_text(said.get(key)) for key in ("code", "message", "hint")] if isinstance(said, dict) else []
        )
        if words and None not in words:
            faults[server] = Fault(0, 0, words[0] or "", words[1] or "", {"hint": words[2]})
    return faults


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    """Return the value if it is a number that a float can hold: callers format it as one."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer above 1.8e308
        return None
