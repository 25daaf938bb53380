"""AsyncBridge: the same bridge, living in an asyncio event loop."""

import asyncio
import inspect
import os
import threading
from collections import deque
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Deque,
    Dict,
    List,
    Mapping,
    Optional,
    Set,
    Tuple,
    Type,
    Union,
)

from fastsock._fastsock import Client, ConnectRequest, DeadLetter, Later, Leftover, LoopBridge, Ticket, Uplink
from fastsock.errors import Reject, StoppedError, TicketError
from fastsock.types import Admission, Config, Payload, Sent, UplinkAction
from fastsock.words import CloseReason, State

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastsock.settings import Settings

__all__ = ["AsyncBridge"]

Hook = Callable[..., Any]

_BATCH = 256
"""Events and uplinks taken at once, before other tasks of the loop get their turn."""
_LEVELS_AGE = 1.0
"""Seconds a change of a logger's level may take to be seen."""
_SLACK = 1.5
"""Seconds the threads and the hooks may take beyond the deadline of a stop."""


class AsyncBridge:
    """A WebSocket to Redis to HTTP bridge in this process, for asyncio (uvloop too).

    Keywords are those of Bridge: the settings, config, environ, and the hooks, which may be coroutine functions. Hooks of
    one device run in order, those of different devices beside each other, at most max_hooks at once.

    What devices say goes to on_uplink if there is one; else, with uplinks="take", to `async for uplink in bridge`; else it
    is forwarded to remote_url. Without on_uplink and remote_url, "take" is the default.

        async with fastsock.AsyncBridge(websocket_port=3000) as bridge:
            async for uplink in bridge:
                await bridge.send(uplink.client_id, uplink.text)
    """

    def __init__(
        self,
        *,
        config: Optional[Config] = None,
        environ: Optional[Mapping[str, str]] = None,
        authenticate: Optional[Callable[[ConnectRequest], Union[Admission, Awaitable[Admission]]]] = None,
        on_connect: Optional[Callable[[Client], object]] = None,
        on_uplink: Optional[Callable[[Uplink], Union[UplinkAction, Awaitable[UplinkAction]]]] = None,
        on_disconnect: Optional[Callable[[Client, CloseReason], object]] = None,
        on_uplink_lost: Optional[Callable[[Uplink, str], object]] = None,
        on_state: Optional[Callable[[State], object]] = None,
        on_error: Optional[Callable[[str, BaseException], object]] = None,
        uplinks: Optional[str] = None,
        max_hooks: int = 100,
        **settings: "Unpack[Settings]",
    ) -> None:
        """Reads the settings; nothing starts before start() or `async with`."""
        notices: Dict[str, Optional[Hook]] = {
            "on_connect": on_connect,
            "on_disconnect": on_disconnect,
            "on_uplink_lost": on_uplink_lost,
            "on_state": on_state,
        }
        named: Dict[str, Optional[Hook]] = {"authenticate": authenticate, "on_uplink": on_uplink, "on_error": on_error, **notices}
        for name, hook in named.items():
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} is not callable")
        if on_uplink is not None and uplinks is not None:
            raise TypeError("on_uplink and uplinks exclude each other")
        if max_hooks < 1:
            raise ValueError("max_hooks is at least 1")
        self._hooks: Dict[str, Hook] = {name: hook for name, hook in named.items() if hook is not None}
        self._on_error = on_error
        self._max_hooks = max_hooks
        self._native = LoopBridge(
            config=config,
            environ=environ,
            settings=settings,
            authenticate=authenticate is not None,
            notices=any(hook is not None for hook in notices.values()),
            uplinks="decide" if on_uplink is not None else uplinks,
        )
        self._side: Optional[_LoopSide] = None

    @classmethod
    def from_env(cls, **keywords: Any) -> "AsyncBridge":
        """A bridge with the settings of the environment (WEBSOCKET_PORT, REMOTE_URL, ...); keywords win."""
        return cls(**{"environ": os.environ, **keywords})

    async def start(self) -> "AsyncBridge":
        """Binds the ports and starts, in the running loop. Starting a running bridge does nothing."""
        loop = asyncio.get_running_loop()
        if self._native.start():
            self._side = _LoopSide(loop, self._native, self._hooks, self._on_error, self._max_hooks)
        return self

    async def stop(self, timeout: Optional[float] = None) -> Leftover:
        """Stops: closes every device with 1001, delivers what was accepted, at most timeout seconds long (8 when None).

        Says what was left. In a hook it only begins to stop and returns at once; wait() elsewhere sees the end.
        """
        self._native.begin_stop(timeout)
        if self._side is not None and not self._side.is_own_task():
            await self._side.until_stopped(8.0 if timeout is None else timeout)
        return self._native.leftover() or Leftover()

    async def wait(self) -> None:
        """Waits until the bridge has stopped."""
        if self._side is not None:
            await asyncio.shield(self._side.stopped)

    async def send(self, client_id: str, payload: Payload, /) -> Sent:
        """Queues a message for a device: str is TEXT, bytes-like BINARY. Says where it went, as Bridge.send() does.

        Suspends only while Redis is asked, since the device is not here.
        """
        side = self._side
        if side is None:
            raise StoppedError("the bridge is not running")
        return await side.send(client_id, payload)

    def reload(self) -> None:
        """Reads the files of certificates again, for connections to come, as Bridge.reload() does. Holds up the loop while it reads."""
        self._native.reload()

    def disconnect(self, client_id: str, /, code: Optional[int] = None, reason: Optional[str] = None) -> bool:
        """Closes the session of a device that is here; False when it is not. Without code and reason: 4510 "kicked"."""
        return self._native.disconnect(client_id, code, reason)

    def clients(self) -> List[Client]:
        """Everyone who is connected here, in no order."""
        return self._native.clients()

    async def dead_letters(self, after: Optional[str] = None, limit: int = 100) -> List[DeadLetter]:
        """Dead letters, at most limit after the id after, as Bridge.dead_letters() gives them.

        This and the next three wait for the spool on a thread of the loop's executor, at most 10 seconds. Cancelled, they leave
        it unsaid whether it was done.
        """
        return await asyncio.to_thread(self._native.dead_letters, after, limit)

    async def dead_letter(self, id: str, /) -> Optional[DeadLetter]:
        """The dead letter with this id; None when there is none."""
        return await asyncio.to_thread(self._native.dead_letter, id)

    async def replay_dead_letter(self, id: str, /) -> bool:
        """Delivers a dead letter again, as Bridge.replay_dead_letter() does; False when there is no such letter."""
        return await asyncio.to_thread(self._native.replay_dead_letter, id)

    async def drop_dead_letter(self, id: str, /) -> bool:
        """Drops a dead letter for good; False when there is no such letter."""
        return await asyncio.to_thread(self._native.drop_dead_letter, id)

    def stats(self) -> Dict[str, Any]:
        """The books, as Bridge.stats() has them."""
        return self._native.stats()

    def resolve(self, ticket: Ticket, answer: object, /) -> None:
        """Answers a hook that returned Later. In the loop's thread or any other."""
        self._native.resolve(ticket, answer)

    def setting(self, name: str, /) -> str:
        """The value of a setting as text; secrets are shown as ***. KeyError when there is no such setting."""
        return self._native.setting(name)

    @property
    def state(self) -> str:
        """What the bridge is doing: "running", "degraded", "stopping", "stopped"."""
        return self._native.state

    @property
    def local_addr(self) -> Tuple[str, int]:
        """Where devices connect: (host, port)."""
        return self._native.local_addr

    @property
    def port(self) -> int:
        """The port devices connect to."""
        return self._native.local_addr[1]

    @property
    def admin_addr(self) -> Optional[Tuple[str, int]]:
        """Where the admin listener is: (host, port), or None."""
        return self._native.admin_addr

    async def __aenter__(self) -> "AsyncBridge":
        """Starts."""
        return await self.start()

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        """Stops."""
        await self.stop()

    def __aiter__(self) -> AsyncIterator[Uplink]:
        """What devices say, until the bridge stops. Several loops over one bridge share the uplinks."""
        if self._side is None:
            raise StoppedError("the bridge is not running")
        return self._side.stream()

    def __repr__(self) -> str:
        """The state and the address."""
        state = self.state
        where = "" if state == "stopped" else " on {}:{}".format(*self.local_addr)
        return f"<fastsock.AsyncBridge {state}{where}>"


class _LoopSide:
    """One run of a bridge in its loop: who watches its descriptors, calls its hooks and waits for its end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        native: LoopBridge,
        hooks: Dict[str, Hook],
        on_error: Optional[Hook],
        max_hooks: int,
    ) -> None:
        self.stopped: "asyncio.Future[None]" = loop.create_future()
        self._loop = loop
        self._native = native
        self._hooks = hooks
        self._on_error = on_error
        self._max_hooks = max_hooks
        self._active = 0
        self._lanes: Dict[object, Deque[Tuple[str, Tuple[Any, ...]]]] = {}
        self._tasks: "Set[asyncio.Task[None]]" = set()
        self._sends: "Dict[int, asyncio.Future[Sent]]" = {}
        self._last_send = 0
        self._events = _Watch(loop, native, native.events_fd(), self._on_events)
        self._events.resume()
        self._side = _Watch(loop, native, native.side_fd(), self._on_side)
        self._side.resume()
        fd = native.uplinks_fd()
        self._stream = None if fd is None else _Stream(loop, native, fd)
        self._timer = loop.call_later(_LEVELS_AGE, self._tick)

    def stream(self) -> "_Stream":
        if self._stream is None:
            raise TypeError('uplinks are forwarded or go to on_uplink; AsyncBridge(uplinks="take") gives them to async for')
        return self._stream

    def is_own_task(self) -> bool:
        return asyncio.current_task() in self._tasks

    async def send(self, client_id: str, payload: Payload) -> Sent:
        self._last_send += 1
        number = self._last_send
        sent = self._native.send(client_id, payload, number)
        if sent is not None:
            return sent
        future: "asyncio.Future[Sent]" = self._loop.create_future()
        self._sends[number] = future
        try:
            return await future
        finally:
            del self._sends[number]

    async def until_stopped(self, timeout: float) -> None:
        """Waits for the end of the bridge and of the hooks; those that are not done in time are cancelled."""
        try:
            await asyncio.wait_for(asyncio.shield(self.stopped), timeout + _SLACK)
        except asyncio.TimeoutError:
            self._end()
        own = [task for task in self._tasks if task is not asyncio.current_task()]
        if own:
            _, late = await asyncio.wait(own, timeout=_SLACK)
            for task in late:
                task.cancel()

    def _on_events(self) -> None:
        """The descriptor is readable: once for each time the queue was empty before, and while there is more than a batch."""
        most = min(_BATCH, self._max_hooks - self._active)
        # Asked before draining: what is queued after this look, the last state too, is drained when it wakes us again.
        is_over = self._native.leftover() is not None
        events = self._native.drain(most)
        for event in events:
            name, args = event[0], event[1:]
            if name in self._hooks:
                self._call(name, args)
        if len(events) < most and is_over:
            self._end()
        elif self._active >= self._max_hooks:
            self._events.pause()  # decisions wait in the bridge, and with them their sessions

    def _on_side(self) -> None:
        for number, result in self._native.drain_side():
            future = self._sends.get(number)
            if future is None or future.done():
                continue  # nobody waits for it any more
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _call(self, name: str, args: Tuple[Any, ...]) -> None:
        """Calls a hook, or lets it wait for the one before it of the same device."""
        lane = getattr(args[0], "client_id", None) or object()
        waiting = self._lanes.get(lane)
        if waiting is not None:
            self._active += 1
            waiting.append((name, args))
            return
        awaitable = self._begin(name, args)
        if awaitable is None:
            return
        self._active += 1
        self._lanes[lane] = deque()
        task = self._loop.create_task(self._run_lane(lane, name, args, awaitable))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_lane(
        self, lane: object, name: str, args: Tuple[Any, ...], awaitable: Optional[Awaitable[Any]]
    ) -> None:
        """Finishes a hook of a device, and those that came meanwhile."""
        waiting = self._lanes[lane]
        try:
            while True:
                await self._finish(name, args, awaitable)
                self._done_with_one()
                if not waiting:
                    return
                name, args = waiting.popleft()
                awaitable = self._begin(name, args)
        except asyncio.CancelledError:
            self._done_with_one()
            for name, args in waiting:
                self._fail(name, args, asyncio.CancelledError())
                self._done_with_one()
            raise
        finally:
            del self._lanes[lane]

    async def _finish(self, name: str, args: Tuple[Any, ...], awaitable: Optional[Awaitable[Any]]) -> None:
        if awaitable is None:
            return
        try:
            self._settle(name, args, await awaitable)
        except asyncio.CancelledError as error:
            self._fail(name, args, error)
            raise
        except BaseException as error:  # noqa: BLE001 - reported
            self._fail(name, args, error)

    def _done_with_one(self) -> None:
        self._active -= 1
        if self._active < self._max_hooks:
            self._events.resume()

    def _begin(self, name: str, args: Tuple[Any, ...]) -> Optional[Awaitable[Any]]:
        """Calls a hook; what is left to be awaited, if anything."""
        try:
            result = self._hooks[name](*args)
        except BaseException as error:  # noqa: BLE001 - reported
            self._fail(name, args, error)
            return None
        if inspect.isawaitable(result):
            return result
        self._settle(name, args, result)
        return None

    def _settle(self, name: str, args: Tuple[Any, ...], result: object) -> None:
        ticket = _ticket(name, args)
        if ticket is None or _is_later(result):
            return
        try:
            self._native.resolve(ticket, result)
        except (TicketError, StoppedError):
            pass  # its time is over: it has failed already
        except BaseException as error:  # noqa: BLE001 - an answer that is none
            self._report(name, error)

    def _fail(self, name: str, args: Tuple[Any, ...], error: BaseException) -> None:
        ticket = _ticket(name, args)
        if ticket is not None:
            try:
                self._native.resolve(ticket, error)
            except (TicketError, StoppedError):
                pass
        if not (isinstance(error, Reject) and name == "authenticate"):
            self._report(name, error)

    def _report(self, name: str, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            return  # the loop's way of ending it
        self._native.report(name, error, self._hooks[name], self._on_error)

    def _tick(self) -> None:
        if self.stopped.done():
            return
        self._native.refresh_log()
        self._timer = self._loop.call_later(_LEVELS_AGE, self._tick)

    def _end(self) -> None:
        """Everything is over: nobody watches and nobody waits any more."""
        self._timer.cancel()
        self._on_side()
        self._events.close()
        self._side.close()
        if self._stream is not None:
            self._stream.close()
        for future in self._sends.values():
            if not future.done():
                future.set_exception(StoppedError("the bridge stopped before Redis answered"))
        if not self.stopped.done():
            self.stopped.set_result(None)


class _Stream:
    """The uplinks of a run, for `async for`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, native: LoopBridge, fd: int) -> None:
        self._loop = loop
        self._native = native
        self._buffer: Deque[Uplink] = deque()
        self._waiters: "Deque[asyncio.Future[None]]" = deque()
        self._watch = _Watch(loop, native, fd, self._on_readable)
        self._is_closed = False

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> Uplink:
        buffer = self._buffer
        while not buffer:
            uplinks = self._native.drain_uplinks(_BATCH, False)
            if uplinks:
                buffer.extend(uplinks)
                await asyncio.sleep(0)  # a stream that never dries up must not starve the loop
            elif self._is_closed:
                raise StopAsyncIteration
            else:
                await self._wait()
        return buffer.popleft()

    async def _wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._watch.resume()
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _on_readable(self) -> None:
        if self._buffer:
            self._watch.pause()  # the reader has enough to do; it resumes
            return
        self._buffer.extend(self._native.drain_uplinks(_BATCH, True))
        for _ in range(min(len(self._buffer), len(self._waiters))):
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)

    def close(self) -> None:
        self._is_closed = True
        self._watch.close()
        while self._waiters:
            self._wake()


class _Watch:
    """Calls back in the loop while a descriptor is readable; with a thread where the loop cannot watch descriptors."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, native: LoopBridge, fd: int, callback: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._native = native
        self._fd = fd
        self._callback = callback
        self._is_on = False
        self._is_closed = False
        self._thread: Optional[threading.Thread] = None
        self._wanted = threading.Event()

    def resume(self) -> None:
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
        if not self._is_on:
            return
        self._is_on = False
        self._wanted.clear()
        if self._thread is None:
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
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


def _ticket(name: str, args: Tuple[Any, ...]) -> Optional[Ticket]:
    if name not in ("authenticate", "on_uplink"):
        return None
    ticket: Optional[Ticket] = args[0].ticket
    return ticket


def _is_later(result: object) -> bool:
    return result is Later or isinstance(result, Later)
