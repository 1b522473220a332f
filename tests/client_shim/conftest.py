"""The event loops of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client_shim.loops import LOOPS, all_without_readers


@pytest.fixture(params=[kind for kind in LOOPS if kind != "uvloop"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """The loops of this process and of the programs that it starts, with `add_reader` and without it."""
    if request.param == "asyncio":
        yield request.param
    else:
        with all_without_readers():
            yield request.param
