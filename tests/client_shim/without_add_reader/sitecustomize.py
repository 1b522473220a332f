"""Takes `add_reader` from asyncio's event loops, as that of Windows (Proactor) has none.

A Python program loads this when it starts, where PYTHONPATH has this folder.
"""

from __future__ import annotations

from asyncio.selector_events import BaseSelectorEventLoop


def raise_not_implemented(*_: object) -> None:
    """Raise what Proactor's loop raises."""
    raise NotImplementedError


for name in ("add_reader", "remove_reader"):
    setattr(BaseSelectorEventLoop, name, raise_not_implemented)
