"""The framing of a pipe: one message a line, whatever pieces it arrives in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.stdio.lines import LineSplitter

PIECES = st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"a", b"\n")), max_size=20)


@given(PIECES)
def test_lines_are_those_of_the_whole(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    *complete, rest = b"".join(pieces).split(b"\n")
    assert lines == [line for line in complete if line.strip()]
    assert splitter.rest == rest


@given(PIECES, st.integers(0, 8))
def test_a_line_that_is_too_long_is_skipped_and_told_of(pieces: list[bytes], limit: int) -> None:
    """Law 6: no more is kept than the limit, and the next line is read again."""
    splitter = LineSplitter(limit)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    *complete, _ = b"".join(pieces).split(b"\n")
    assert lines == [
        None if len(line) > limit else line for line in complete if line.strip() or len(line) > limit
    ]
    assert len(splitter.rest) <= limit
