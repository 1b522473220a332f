"""JSON for tests: any value as hypothesis makes them, and text that nests as deep as one likes."""

from __future__ import annotations

from hypothesis import strategies as st

keys = st.text(max_size=12).filter(lambda key: key != "_meta")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(keys, values, max_size=5)


def deep(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An object with this many levels, itself included."""
    return (
        b'{"a":' + opening * (depth - 1) + (b"" if opening == b"[" else b"1") + closing * (depth - 1) + b"}"
    )
