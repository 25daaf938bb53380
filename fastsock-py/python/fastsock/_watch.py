"""Watches a descriptor in an event loop."""

import asyncio
import threading
import weakref
from typing import Callable, Optional

from fastsock._fastsock import LoopBridge

__all__ = ["Watch"]


class Watch:
    """Calls back in the loop while a descriptor is readable; with a thread where the loop cannot watch descriptors.

    The loop holds the owner of the callback only weakly, so that a bridge nobody holds can be collected.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, native: LoopBridge, fd: int, callback: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._native = native
        self._fd = fd
        self._callback = _weakly(callback)
        self._is_on = False
        self._is_closed = False
        self._thread: Optional[threading.Thread] = None
        self._wanted = threading.Event()

    def resume(self) -> None:
        """Begins to watch, or goes on."""
        if self._is_on or self._is_closed:
            return
        self._is_on = True
        if self._thread is not None:
            self._wanted.set()
            return
        try:
            self._loop.add_reader(self._fd, self._callback)
        except NotImplementedError:
            self._wanted.set()
            self._thread = threading.Thread(target=self._poll, name="fastsock-watch", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Does not watch until resume()."""
        if not self._is_on:
            return
        self._is_on = False
        self._wanted.clear()
        if self._thread is None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Watches no more."""
        self.pause()
        self._is_closed = True
        self._wanted.set()

    def _poll(self) -> None:
        """The thread: waits for the descriptor, calls back in the loop, waits until that is done."""
        done = threading.Event()

        def call() -> None:
            try:
                if self._is_on:
                    self._callback()
            finally:
                done.set()

        while not self._is_closed:
            self._wanted.wait()
            try:
                if self._is_closed or not self._native.wait(self._fd, 1.0):
                    continue
                done.clear()
                self._loop.call_soon_threadsafe(call)
            except RuntimeError:
                return  # the loop is closed, or the bridge has stopped
            done.wait(1.0)


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """The same bound method, without holding its object."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        strong = weak()
        if strong is not None:
            strong()

    return call
