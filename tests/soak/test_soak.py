"""The soak at reduced counts: what must hold after a thousand times holds after a few (laws 1 to 6)."""

from __future__ import annotations

import pytest

from tests.soak.parts import PARTS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.few])
def test_a_part_holds(name: str) -> None:
    """Every line of the part, except for those that measure the machine and its load."""
    part = PARTS[name]
    seen: list[int] = []
    lines = part.run(part.few, seen.append)
    assert seen, "nothing was done"
    assert [line for line in lines if not line.holds and not line.timed] == []
