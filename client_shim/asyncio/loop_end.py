"""Notices the end of an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable


class LoopEnd:
    """Calls `on_end` when the running loop ends: `asyncio.run` closes asynchronous generators last."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end: Callable[[], None] | None = on_end
        self._generator: AsyncGenerator[None, None] | None = self._wait()
        _step(self._generator.__anext__())

    async def _wait(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._generator = None
            if self._on_end is not None:
                self._on_end()

    def ignore(self) -> None:
        """Do not call it any more. The loop must be open."""
        self._on_end, generator = None, self._generator
        if generator is not None:
            _step(generator.aclose())

    def forget(self) -> None:
        """The same for a loop that was closed without notice: nothing can be run in it any more."""
        self._on_end = self._generator = None


def _step(step: Awaitable[None]) -> None:
    """Run an asynchronous step that does not really await."""
    try:
        step.__await__().__next__()
    except (StopIteration, StopAsyncIteration):
        return
