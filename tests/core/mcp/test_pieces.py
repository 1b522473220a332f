"""Law 5: a long message is read in pieces, and read as a short one is.

The pieces are a few bytes long here, so that every place of a text is cut sooner or later.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from msgspec import Struct, structs

from broker.core.mcp import jsonrpc, lines, nesting, pieces
from broker.core.mcp.jsonrpc import BodyError, Broken, Incoming
from broker.core.mcp.members import has_once, keys_of

T = TypeVar("T")

_texts = st.text(max_size=9) | st.sampled_from(
    ["x" * 70, '"' * 40, "\\" * 41, 'a"\\' * 20, "洗濯機🧺" * 9, "~", "result", "id", "_meta", "],[", "{},"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=15,
)
_NAMES = ["jsonrpc", "id", "method", "params", "result", "error", "name", "cursor", "_meta", "task"]
_members = st.lists(
    st.tuples(st.sampled_from(_NAMES) | _texts, _values)
    | st.just(("jsonrpc", "2.0"))
    | st.tuples(st.just("id"), st.integers() | st.sampled_from(["7", "a", 7.0]))
    | st.tuples(st.just("method"), st.sampled_from(["ping", "notifications/x"])),
    max_size=7,
)
_sizes = st.integers(13, 60)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A JSON object as servers write it: with blanks or without, members out of order and twice."""
    ascii, blank = draw(st.booleans()), draw(st.sampled_from(["", " ", " " * 50]))
    members = [
        f"{json.dumps(key)}{blank}:{blank}{json.dumps(value, ensure_ascii=ascii)}{blank}"
        for key, value in draw(_members)
    ]
    return f"{{{blank}{','.join(members)}}}".encode()


_SPOILERS = [b",", b'"', b"\\", b"[", b"]", b"{", b"}", b":", b"\xff", b"1", b" ", b"\x00", b"\\ud83e"]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Bytes that are an object but for a mistake or two."""
    text = draw(objects())
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(text)))
        kept = draw(st.sampled_from([text[at:], text[at + 1 :], b""]))
        text = text[:at] + draw(st.sampled_from([b"", *_SPOILERS])) + kept
    return text


def result_of(reading: Generator[int, None, T]) -> T:
    """What a reading in pieces comes to."""
    try:
        while True:
            assert next(reading) > 0
    except StopIteration as end:
        result: T = end.value
        return result


@pytest.fixture(scope="module", autouse=True)
def short_strings() -> Iterator[None]:
    """A string of more than 30 bytes is cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_SHORT_STRING_BYTES", 30)
        yield


def in_pieces(size: int, reading: Generator[int, None, T]) -> T:
    """The same, with pieces of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", size)
        return result_of(reading)


def shown(seen: Struct) -> dict[str, Any]:
    """What was read, with its bytes. The reason is in other words."""
    facts = {name: getattr(seen, name) for name in seen.__struct_fields__ if name != "reason"}
    return {
        "": type(seen),
        **{name: bytes(it) if isinstance(it, memoryview) else it for name, it in facts.items()},
    }


def is_one_of_a_kind(text: bytes) -> bool:
    """Whether no member is there twice. Of an id that is, the strict reader looks at the first one, too."""
    try:
        keys = json.loads(text, object_pairs_hook=lambda pairs: [key for key, _ in pairs])
    except (ValueError, RecursionError):
        return True
    return not isinstance(keys, list) or keys.count("id") < 2


@given(objects() | broken(), _sizes)
@example(b'{"jsonrpc":"2.0","id":1,"result":[[],[[],[]],[[]]],"result":{"a":[1,2,3,4,5,6,7,8]}}', 13)
@example(b'{"jsonrpc":"2.0","id":1,"result":{"a":1,},"other":[1,2,3]}', 13)
@example(b'{"jsonrpc":"2.0","id":1,"result":[,1,2,3,4,5,6,7,8,9,10]}', 13)
@example(b'{"jsonrpc":"2.0","id":1,"error":"' + b"\\\\" * 40 + b'"}', 13)
@example(b'{"jsonrpc":"2.0","id":1,"result":{}} , {"id":2,"result":[1,2,3]}', 13)
@example(b'{"id":"7","jsonrpc":"2.0","result":null,"other":{"a":[1,2,3,4,5]}}', 13)
def test_a_line_in_pieces_is_the_same_message(line: bytes, size: int) -> None:
    """Laws 2, 3 and 7: whose it is, what it says, byte for byte, and what was put up with."""
    assume(b"NaN" not in line)
    assume(b"Infinity" not in line)
    assume(is_one_of_a_kind(line))
    assert shown(in_pieces(size, lines.read_long(line))) == shown(lines.read(line))


@given(objects() | broken(), _sizes)
@example(b'{"_m\\u0065ta":{"a":[1,2,3,4,5,6,7,8,9]}}', 13)
@example(b'{"' + b"\\u005f" * 60 + b'meta":1}', 13)
@example(b'{"name":"' + b"x" * 70 + b'","arguments":[1,2]}', 13)
@example(b'{"name":"a","arguments":{"name":[1,2,3,4,5,6,7,8]},"n\\u0061me":"b","more":[1,2,3,4]}', 13)
def test_params_in_pieces_are_as_fit(body: bytes, size: int) -> None:
    """Law 7: the same is refused, a `_meta` among it, and the same is known of what is passed on."""
    in_one = fitness(lambda: jsonrpc.check_params(body))
    if isinstance(in_one, dict):  # of a short one it is found out where it matters
        in_one["unclear"] = not has_once(keys_of(body), "name")
    assert fitness(lambda: in_pieces(size, jsonrpc.check_long_params(body))) == in_one


def fitness(check: Any) -> object:
    """What is known of params, or why they are refused."""
    try:
        return structs.asdict(check())
    except BodyError as error:
        return error.code


@given(st.binary(max_size=300), _sizes)
def test_any_bytes_are_read_without_an_exception(line: bytes, size: int) -> None:
    """Law 5: whatever a server writes."""
    assert isinstance(in_pieces(size, lines.read_long(b"{" + line)), Incoming)


@pytest.mark.parametrize("depth", [nesting.MAX_DEPTH - 2, nesting.MAX_DEPTH - 1, nesting.MAX_DEPTH, 5000])
@pytest.mark.parametrize("opening", [b"[", b"[[],", b'{"a":[],"b":'])
def test_what_nests_too_deep_is_found_in_pieces(depth: int, opening: bytes) -> None:
    """Section 5: at the same depth as in one piece."""
    closing = b"}" if opening.startswith(b"{") else b"]"
    line = b'{"jsonrpc":"2.0","id":1,"result":%b1%b}' % (opening * depth, closing * depth)
    seen, seen_whole = in_pieces(600, lines.read_long(line)), lines.read(line)
    assert shown(seen) == shown(seen_whole)
    assert isinstance(seen, Broken) == (depth >= nesting.MAX_DEPTH - (opening != b"["))


@given(objects(), st.lists(st.integers(0, 400), max_size=5))
def test_the_open_brackets_are_those_of_the_whole(text: bytes, cuts: list[int]) -> None:
    """However a text is parted, outside of escapes."""
    whole, parted = nesting.Nesting(), nesting.Nesting()
    ends = sorted({pieces.outside_of_escapes(text, 0, cut) for cut in cuts if cut < len(text)})
    for begin, end in zip([0, *ends], [*ends, len(text)], strict=True):
        parted.feed(text[begin:end])
    whole.feed(text)
    assert (bytes(parted.open), parted.quoted) == (bytes(whole.open), whole.quoted) == (b"", False)
