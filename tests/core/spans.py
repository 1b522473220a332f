"""Spans of time that add up and subtract without rounding, so that a property of them can be exact."""

from __future__ import annotations

from hypothesis import strategies as st

PER_SECOND = 1024
"""A power of two: below 2**43 s every sum and difference of these spans is one of them."""


def spans(least_s: float, most_s: float) -> st.SearchStrategy[float]:
    """Any multiple of 1/1024 s between these bounds, both multiples of it."""
    least, most = least_s * PER_SECOND, most_s * PER_SECOND
    assert least.is_integer(), least_s
    assert most.is_integer(), most_s
    return st.integers(int(least), int(most)).map(lambda number: number / PER_SECOND)
