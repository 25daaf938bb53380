"""One run of a bridge in its event loop: who watches its descriptors, calls its hooks and waits for its end."""

import asyncio
import warnings
import weakref
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from fastsock._fastsock import Leftover, LoopBridge
from fastsock._hooks import Hooks
from fastsock._stream import Stream
from fastsock._watch import Watch
from fastsock.errors import StoppedError
from fastsock.types import Payload

__all__ = ["Run"]

_BATCH = 256
"""Events taken at once, before other tasks of the loop get their turn."""
_TICK = 1.0
"""Seconds a change of a logger's level may take to be seen."""
_SLACK = 1.5
"""Seconds the threads of the bridge may take beyond the deadline of a stop."""


class Run:
    """From start to stop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        native: LoopBridge,
        hooks: Mapping[str, Callable[..., Any]],
        max_hooks: int,
        max_notices: int,
    ) -> None:
        self.loop = loop
        self.stopped: "asyncio.Future[None]" = loop.create_future()
        self.hooks = Hooks(loop, native, hooks, max_hooks, max_notices)
        self.is_over = False
        self._native = native
        self._sends: "Dict[int, asyncio.Future[Any]]" = {}  # and calls
        self._events = Watch(loop, native, native.events_fd(), self._on_events)
        self._side = Watch(loop, native, native.side_fd(), self._on_side)
        fd = native.uplinks_fd()
        self._stream = None if fd is None else Stream(loop, native, fd)
        self._events.resume()
        self._side.resume()
        self.beat(_Pulse(self), max(0.05, min(_TICK, native.hook_timeout / 2)))

    def stream(self) -> Stream:
        """What `async for` reads."""
        if self._stream is None:
            raise TypeError('uplinks are forwarded or go to on_uplink; AsyncBridge(uplinks="take") gives them to async for')
        return self._stream

    def call(
        self,
        client_id: str,
        payload: Payload,
        match: Optional[Tuple[str, object]],
        ocpp: bool,
        timeout: Optional[float],
    ) -> "asyncio.Future[Union[str, bytes]]":
        """Makes a call; a future of its answer."""
        self.check_loop()
        return self.expect(self._native.call(client_id, payload, match, ocpp, timeout))

    def expect(self, number: int) -> "asyncio.Future[Any]":
        """What comes of a send or a call that has this number."""
        self.check_loop()
        future: "asyncio.Future[Any]" = self.loop.create_future()
        self._sends[number] = future
        future.add_done_callback(lambda _: self._sends.pop(number, None))
        return future

    def check_loop(self) -> None:
        """Raises in another loop than the bridge's."""
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("the bridge runs in another event loop: use it there, or stop it there first")

    async def finish(self, timeout: float) -> Leftover:
        """Waits for the end of the bridge and of the hooks; those that have not returned in time are cancelled."""
        until = self.loop.time() + timeout
        self.hooks.hurry(timeout)
        if not self.stopped.done():
            await asyncio.wait([self.stopped], timeout=timeout)
        await self.hooks.finish(until)
        if not self.stopped.done():
            await asyncio.wait([self.stopped], timeout=_SLACK)
            await self.hooks.finish(0)  # of what was told meanwhile
        self._end()
        return self._native.leftover() or Leftover()

    def is_live(self) -> bool:
        """Whether somebody has to stop it still."""
        return not self.is_over and self._native.is_live()

    def abandon(self) -> None:
        """Nobody holds the bridge any more, or its loop was closed: stops without waiting. In any thread."""
        if not self.is_live():
            return
        self.is_over = True
        self._native.abandon()
        try:
            self.loop.call_soon_threadsafe(_close, self._events, self._side, self._stream)
        except RuntimeError:
            _close(self._events, self._side, self._stream)

    def _on_events(self) -> None:
        """The descriptor is readable: once for each time the queue was empty before, and while there is more than a batch."""
        # Asked before draining: what is queued after this look, the last state too, is drained when it wakes us again.
        is_over = self._native.leftover() is not None
        count = self._native.turn(_BATCH, self.hooks.call)
        if count < _BATCH and is_over:
            self._end()

    def _on_side(self) -> None:
        for number, result in self._native.drain_side():
            future = self._sends.get(number)
            if future is None or future.done():
                continue  # nobody waits for it any more
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _end(self) -> None:
        """Everything is over: nobody watches and nobody waits any more."""
        if self.is_over:
            return
        self.is_over = True
        self._on_side()
        _close(self._events, self._side, self._stream)
        for future in list(self._sends.values()):
            if not future.done():
                future.set_exception(StoppedError("the bridge stopped before Redis answered"))
        if not self.stopped.done():
            self.stopped.set_result(None)

    def beat(self, pulse: "_Pulse", period: float) -> None:
        """Once a period."""
        self.loop.call_later(period, _beat, pulse, period)  # which is not kept: the loop alone holds the pulse
        self._native.refresh_log()
        self.hooks.tick()


class _Pulse:
    """Held by nothing but a timer of the loop: when the loop is closed it forgets its timers, and this goes."""

    def __init__(self, run: Run) -> None:
        self.run = weakref.ref(run)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        run = self.run()
        if run is not None and run.loop.is_closed() and run.is_live():
            _warn("the event loop was closed while a fastsock.AsyncBridge ran in it", ResourceWarning)
            run.abandon()


def _beat(pulse: _Pulse, period: float) -> None:
    run = pulse.run()
    if run is None or run.is_over:
        return
    run.beat(pulse, period)


def _close(events: Watch, side: Watch, stream: Optional[Stream]) -> None:
    events.close()
    side.close()
    if stream is not None:
        stream.close()
