"""Reads the version and the id of a JSON-RPC message in a line that is no valid JSON.

Servers write such lines when a result has bytes that are no UTF-8, half a surrogate pair, or an end that was
cut off. No reader of JSON takes all of these, so the members are looked for by their tokens. Without the id,
the call that the line answers would wait for its deadline.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import islice

from broker.core.mcp.jsonrpc import Id
from broker.core.mcp.nesting import Nesting, depth_at_end
from broker.core.mcp.pieces import PIECE_BYTES, STEP, outside_of_escapes

HEAD_BYTES = 65_536
"""The part of a longer line that is searched, beside its end."""

_TAIL_BYTES = 4096
_TOKENS_LOOKED_AT = 4096

# An unterminated string takes the rest; else each escaped quote in it would be tried as a start.
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_TOKENS = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_ID = re.compile(rb'\s*:\s*(-?\d{1,19}(?=\s*[,}])|"[^"\\]{0,200}")')
_VERSION = re.compile(rb'\s*:\s*"2\.0"')
_FLAT = rb'(?:"[^"\\]{0,200}"|-?\d{1,19}|null|true|false)'
_REST = rb'\s*:\s*%b\s*(?:,\s*"[^"\\]{0,200}"\s*:\s*%b\s*){0,8}\}\s*\Z' % (_FLAT, _FLAT)
_LAST = {name: re.compile(b'"%b"(?=%b)' % (name, _REST)) for name in (b"id", b"jsonrpc")}

# Some serializers write numbers that JSON does not have, and Python's reader takes them.
_NOT_FINITE = re.compile(_STRING + rb"|-?(?:NaN|Infinity)", re.DOTALL)


def finite(line: bytes) -> bytes | None:
    """Return a line with null for the numbers that JSON does not have; `None` where it has none of them."""
    if b"NaN" not in line and b"Infinity" not in line:
        return None
    mended = _NOT_FINITE.sub(_finite, line)
    return None if mended == line else mended


def _finite(token: re.Match[bytes]) -> bytes:
    """Return what a token becomes in JSON: a string stays, NaN is null, as `JSON.stringify` has it."""
    return token[0] if token[0][:1] == b'"' else b"null"


def is_json_rpc(line: bytes) -> bool:
    """Return whether a line that does not parse has `"jsonrpc": "2.0"` as a top-level member."""
    return _own_member(line, b"jsonrpc", _VERSION) is not None


def recover_id(line: bytes) -> Id | None:
    """Return the top-level `id` of a line that does not parse, so that its call can end at once."""
    value = _own_member(line, b"id", _ID)
    if value is None:
        return None
    return int(value[1]) if value[1][:1] != b'"' else value[1][1:-1].decode(errors="replace")


def _own_member(line: bytes, name: bytes, value: re.Pattern[bytes]) -> re.Match[bytes] | None:
    """Return a top-level member with a legible value.

    Servers write it near the beginning, or after the result, at the very end; only these parts are searched.
    """
    depth, key = 0, b'"%b"' % name
    for token in islice(_TOKENS.finditer(line, 0, HEAD_BYTES), _TOKENS_LOOKED_AT):
        text = token[0]
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and text == key and (found := value.match(line, token.end())) is not None:
            return found
    last = _LAST[name].search(line, max(0, len(line) - _TAIL_BYTES))
    if last is None or depth_at_end(line[: last.start()]) != 1:
        return None
    return value.match(line, last.end())


def abridged(line: bytes) -> Generator[int, None, bytes]:
    """Return the head and the tail of a long line that does not parse; yield after each piece.

    As many brackets are open before the tail as in the line.
    """
    if len(line) <= HEAD_BYTES + _TAIL_BYTES:
        return line
    end = outside_of_escapes(line, 0, HEAD_BYTES)
    head = line[:end]
    if not any(member in line[-_TAIL_BYTES:] for member in (b'"id"', b'"jsonrpc"')):
        return head
    nesting = Nesting()
    nesting.feed(head)
    head += b'\\n"' if nesting.quoted else b""  # the escape makes no id of the half of one
    depth, until = len(nesting.open), len(line) - _TAIL_BYTES
    while end < until:
        begin, end = end, outside_of_escapes(line, end, min(end + PIECE_BYTES, until))
        if begin == end:
            break
        nesting.feed(line[begin:end])
        if len(nesting.open) > 2 * HEAD_BYTES:
            return head
        yield STEP
    more = len(nesting.open) - depth
    return head + b"[" * more + b"]" * -more + (b'"' if nesting.quoted else b"") + line[end:]
