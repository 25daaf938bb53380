"""The uplinks of a run, for `async for`."""

import asyncio
from collections import deque
from typing import Awaitable, Deque

from fastsock._fastsock import LoopBridge, Uplink
from fastsock._watch import Watch

__all__ = ["Reader", "Stream"]

_BATCH = 256
"""Uplinks taken at once, before other tasks of the loop get their turn."""


class Stream:
    """What was drained, and who waits for more. Several readers share it: whoever comes first gets the next one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, native: LoopBridge, fd: int) -> None:
        self._loop = loop
        self._native = native
        self._buffer: Deque[Uplink] = deque()
        self._waiters: "Deque[asyncio.Future[None]]" = deque()
        self._watch = Watch(loop, native, fd, self._on_readable)
        self._is_closed = False

    async def next(self) -> Uplink:
        """The next uplink; StopAsyncIteration after the last one."""
        buffer = self._buffer
        while not buffer:
            if self._fill(False):
                await asyncio.sleep(0)  # a stream that never dries up must not starve the loop
            elif self._is_closed:
                raise StopAsyncIteration
            else:
                await self._wait()
        return buffer.popleft()

    def close(self) -> None:
        """What is buffered can still be read; nothing more comes."""
        self._is_closed = True
        self._watch.close()
        if not self._loop.is_closed():
            self._wake(len(self._waiters))

    async def _wait(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the bridge runs in another event loop: read its uplinks there")
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._watch.resume()
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake(len(self._buffer))  # woken, and cancelled before it could run: that is for another reader
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _on_readable(self) -> None:
        if self._buffer and not self._waiters:
            self._watch.pause()  # the readers have enough to do; they resume
        else:
            self._fill(True)

    def _fill(self, is_wake: bool) -> bool:
        """Drains a batch, and wakes as many readers as there is something for."""
        uplinks = self._native.drain_uplinks(_BATCH, is_wake)
        self._buffer.extend(uplinks)
        self._wake(len(self._buffer))
        return bool(uplinks)

    def _wake(self, most: int) -> None:
        while most > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                most -= 1


class Reader:
    """One `async for`. It keeps the bridge alive."""

    def __init__(self, bridge: object, stream: Stream) -> None:
        self._bridge = bridge
        self._next = stream.next

    def __aiter__(self) -> "Reader":
        return self

    def __anext__(self) -> Awaitable[Uplink]:
        return self._next()
