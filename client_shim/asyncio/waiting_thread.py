"""Waits for descriptors in a thread, for an event loop that cannot: that of Windows has no `add_reader`.

pyzmq and tornado do the same for their own sockets. The descriptors of libzmq are sockets on Windows, where a
selector takes nothing else.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from threading import Thread

LOOK_S = 1.0
"""How often the thread looks whether its loop was closed without notice."""


class WaitingThread:
    """Calls `on_readable` in the loop while one of the descriptors is readable, as `add_reader` does.

    The thread waits again after each call, so it never runs ahead of the loop. It ends with `close`, and soon
    after a loop that was closed without one. A forked child has no such thread.

    Raises:
        OSError, RuntimeError: this process is out of descriptors or threads.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        filenos: Iterable[int],
        on_readable: Callable[[], None],
        context: Context,
    ) -> None:
        self._loop, self._context = loop, context
        self._on_readable: Callable[[], None] | None = on_readable
        self._go_on = SimpleQueue[bool]()
        self._selector = selectors.DefaultSelector()
        self._closing, self._closed = socket.socketpair()
        for fileno in filenos:
            self._selector.register(fileno, selectors.EVENT_READ)
        self._end = self._selector.register(self._closed, selectors.EVENT_READ)
        self._thread = Thread(target=self._run, name="mcp-broker waiting", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._release()
            raise

    def close(self) -> None:
        """End the thread, and return when it has ended: then the descriptors may be closed."""
        self._on_readable = None
        self._go_on.put(False)
        self._closing.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait():
                pass
        finally:
            self._release()

    def _wait(self) -> bool:
        """Wait once, and until the loop has read; return whether to go on."""
        ready = [key for key, _ in self._selector.select(LOOK_S)]
        if not ready:
            return not self._loop.is_closed()
        if self._end in ready:
            return False
        try:
            self._loop.call_soon_threadsafe(self._read, context=self._context)
        except RuntimeError:  # the loop is closed
            return False
        return self._has_read()

    def _has_read(self) -> bool:
        while not self._loop.is_closed():
            with suppress(Empty):
                return self._go_on.get(timeout=LOOK_S)
        return False

    def _read(self) -> None:
        try:
            if self._on_readable is not None:
                self._on_readable()
        finally:
            self._go_on.put(True)

    def _release(self) -> None:
        self._selector.close()
        self._closed.close()
        self._closing.close()
