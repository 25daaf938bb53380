"""AsyncBridge: the same bridge, living in an asyncio event loop."""

import asyncio
import inspect
import os
import warnings
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Literal, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union

from fastsock._compat import Self, Unpack
from fastsock._fastsock import Client, ConnectRequest, DeadLetter, Leftover, LoopBridge, Ticket, Uplink
from fastsock._run import Run
from fastsock._stream import Reader
from fastsock.errors import ArgumentError, StoppedError
from fastsock.settings import Settings
from fastsock.types import (
    Admission,
    AsyncKeywords,
    Config,
    LostReason,
    MailboxLostReason,
    Payload,
    Sent,
    StateName,
    UplinkAction,
)
from fastsock.words import CloseReason, State

__all__ = ["AsyncBridge"]

Hook = Callable[..., Any]
_Any = TypeVar("_Any")
_Authenticate = TypeVar("_Authenticate", bound=Callable[[ConnectRequest], Union[Admission, Awaitable[Admission]]])
_OnClient = TypeVar("_OnClient", bound=Callable[[Client], object])
_OnUplink = TypeVar("_OnUplink", bound=Callable[[Uplink], Union[UplinkAction, Awaitable[UplinkAction]]])
_OnDisconnect = TypeVar("_OnDisconnect", bound=Callable[[Client, CloseReason], object])
_OnLost = TypeVar("_OnLost", bound=Callable[[Uplink, LostReason], object])
_OnMailboxLost = TypeVar("_OnMailboxLost", bound=Callable[[str, MailboxLostReason, int], object])
_OnState = TypeVar("_OnState", bound=Callable[[State], object])
_OnError = TypeVar("_OnError", bound=Callable[[str, BaseException], object])


class AsyncBridge:
    """A WebSocket to Redis to HTTP bridge in this process, for asyncio (uvloop too).

    Keywords are those of Bridge: the settings, config, environ, and the hooks, which may be coroutine functions. Hooks of
    one device run in order, as long as none takes longer than half of hook_timeout; those of different devices beside each
    other. At most max_hooks calls of authenticate run at once, as many of on_uplink, and max_notices of each other hook. An
    authenticate or on_uplink that takes longer than hook_timeout is cancelled.

    Uplinks go to on_uplink if there is one; else, with uplinks="take", to `async for uplink in bridge`; else
    to remote_url. Without on_uplink and remote_url, "take" is the default.

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
        on_uplink_lost: Optional[Callable[[Uplink, LostReason], object]] = None,
        on_mailbox_lost: Optional[Callable[[str, MailboxLostReason, int], object]] = None,
        on_state: Optional[Callable[[State], object]] = None,
        on_error: Optional[Callable[[str, BaseException], object]] = None,
        uplinks: Optional[Literal["forward", "take"]] = None,
        max_hooks: int = 100,
        max_notices: int = 1000,
        **settings: Unpack[Settings],
    ) -> None:
        """Reads the settings; nothing starts before start() or `async with`."""
        given: Dict[str, Optional[Hook]] = {
            "authenticate": authenticate,
            "on_connect": on_connect,
            "on_uplink": on_uplink,
            "on_disconnect": on_disconnect,
            "on_uplink_lost": on_uplink_lost,
            "on_mailbox_lost": on_mailbox_lost,
            "on_state": on_state,
            "on_error": on_error,
        }
        self._uplinks = uplinks
        self._hooks: Dict[str, Hook] = {}
        self._run: Optional[Run] = None
        for name, hook in given.items():
            if hook is None and getattr(type(self), name) is not getattr(AsyncBridge, name):
                hook = getattr(self, name)  # a subclass has it as a method
            if hook is not None:
                self._set_hook(name, hook)
        for name, bound in (("max_hooks", max_hooks), ("max_notices", max_notices)):
            if bound < 1:
                raise ArgumentError(f"{name} is at least 1, not {bound}")
        self._max_hooks = max_hooks
        self._max_notices = max_notices
        self._native = LoopBridge(config=config, environ=environ, settings=settings, uplinks=uplinks)

    @classmethod
    def from_env(cls, **keywords: Unpack[AsyncKeywords]) -> Self:
        """A bridge with the settings of the environment (WEBSOCKET_PORT, REMOTE_URL, ...); keywords win."""
        given: AsyncKeywords = {"environ": os.environ, **keywords}
        return cls(**given)

    def authenticate(self, function: _Authenticate) -> _Authenticate:
        """Decorator, before the start: the function decides who may connect."""
        return self._set_hook("authenticate", function)

    def on_connect(self, function: _OnClient) -> _OnClient:
        """Decorator, before the start: the function gets each device that connects."""
        return self._set_hook("on_connect", function)

    def on_uplink(self, function: _OnUplink) -> _OnUplink:
        """Decorator, before the start: the function gets each message and decides about it."""
        return self._set_hook("on_uplink", function)

    def on_disconnect(self, function: _OnDisconnect) -> _OnDisconnect:
        """Decorator, before the start: the function gets the end of each session."""
        return self._set_hook("on_disconnect", function)

    def on_uplink_lost(self, function: _OnLost) -> _OnLost:
        """Decorator, before the start: the function gets each uplink that the bridge gave up."""
        return self._set_hook("on_uplink_lost", function)

    def on_mailbox_lost(self, function: _OnMailboxLost) -> _OnMailboxLost:
        """Decorator, before the start: the function is told of kept messages that are lost."""
        return self._set_hook("on_mailbox_lost", function)

    def on_state(self, function: _OnState) -> _OnState:
        """Decorator, before the start: the function gets each change of state."""
        return self._set_hook("on_state", function)

    def on_error(self, function: _OnError) -> _OnError:
        """Decorator, before the start: the function gets what a hook raised."""
        return self._set_hook("on_error", function)

    def _set_hook(self, name: str, function: _Any) -> _Any:
        hook: Any = function
        if not callable(hook):
            raise TypeError(f"{name} is not callable")
        if _is_generator_function(hook) or _is_generator_function(hook.__call__):
            raise TypeError(f"{name} is a generator function: calling it runs nothing of it")
        if self._run is not None and self._run.is_live():
            raise RuntimeError(f"{name}: the bridge runs; give its hooks before")
        if name in self._hooks:
            raise ArgumentError(f"there is an {name} already")
        if name == "on_uplink" and self._uplinks is not None:
            raise ArgumentError("on_uplink and uplinks exclude each other")
        self._hooks[name] = hook
        return function

    async def start(self) -> Self:
        """Binds the ports and starts, in the running loop. Starting a running bridge does nothing.

        Until it has stopped the bridge belongs to this loop: in another one start(), stop(), wait() and `async for` raise
        RuntimeError. A loop that is closed takes the bridge along, and the bridge can be started again elsewhere.
        """
        await self._bury()
        if self._native.start(self._hooks):
            self._run = Run(asyncio.get_running_loop(), self._native, self._hooks, self._max_hooks, self._max_notices)
        return self

    async def stop(self, timeout: Optional[float] = None) -> Leftover:
        """Stops: closes every device with 1001 and delivers the uplinks that it took, within timeout seconds (8 when None).

        Says what was left. Hooks that have not returned by then are cancelled. In a hook it only begins to stop and returns
        at once; wait() elsewhere sees the end.
        """
        await self._bury()
        seconds = self._native.begin_stop(timeout)
        run = self._run
        if run is not None and not run.is_over and not run.hooks.is_own_task():
            return await run.finish(seconds)
        return self._native.leftover() or Leftover()

    async def drain(self, window: float) -> None:
        """Drains: takes nobody new, and closes those who are here with 1012, spread over window seconds, as Bridge.drain() does.

        Returns once no device is here; all else goes on until stop(). Cancelled, it leaves the drain to go on.
        """
        await asyncio.to_thread(self._native.drain_devices, window)

    async def wait(self) -> None:
        """Waits until the bridge has stopped."""
        await self._bury()
        if self._run is not None and not self._run.is_over:
            await asyncio.shield(self._run.stopped)

    async def _bury(self) -> None:
        """Sees to a run whose loop was closed; raises when it goes on in another loop."""
        run = self._run
        if run is None:
            return
        if not run.is_over and not run.loop.is_closed():
            run.check_loop()
            return
        run.abandon()
        if self._native.leftover() is None:
            await asyncio.to_thread(self._native.wait_ended)

    async def send(self, client_id: str, payload: Payload) -> Sent:
        """Queues a message for a device: str is TEXT, bytes-like BINARY. Returns where it went, as Bridge.send() does.

        Suspends only while Redis is asked, since the device is not here.
        """
        run = self._run
        if run is None:
            raise StoppedError("the bridge is not running")
        sent = self._native.send(client_id, payload)
        return await run.expect(sent) if isinstance(sent, int) else sent

    async def call(
        self,
        client_id: str,
        payload: Payload,
        *,
        match: Optional[Tuple[str, object]] = None,
        ocpp: bool = False,
        timeout: Optional[float] = None,
    ) -> Union[str, bytes]:
        """Sends a message to a device and returns its answer, as Bridge.call() does.

        Cancelled, the call goes on until its answer or its time-out.
        """
        run = self._run
        if run is None:
            raise StoppedError("the bridge is not running")
        return await run.call(client_id, payload, match, ocpp, timeout)

    async def send_kept(
        self, client_id: str, payload: Payload, *, id: Optional[str] = None, ttl: Optional[float] = None
    ) -> Tuple[Sent, str, bool]:
        """Puts a message into the mailbox of a device, as Bridge.send_kept() does.

        This and the next two wait for Redis on a thread of the loop's executor, at most some 2 seconds. Cancelled, they leave it
        unsaid whether it was done.
        """
        return await asyncio.to_thread(self._native.send_kept, client_id, payload, id, ttl)

    async def mailbox(self, client_id: str) -> Dict[str, Any]:
        """What the mailbox of a device holds, as Bridge.mailbox() tells it."""
        return await asyncio.to_thread(self._native.mailbox, client_id)

    async def clear_mailbox(self, client_id: str) -> int:
        """Empties the mailbox of a device. Returns how many messages it held."""
        return await asyncio.to_thread(self._native.clear_mailbox, client_id)

    async def send_group(self, group: str, payload: Payload) -> int:
        """Sends one message to all members of a group, as Bridge.send_group() does.

        This and the next three wait for Redis on a thread of the loop's executor, as send_kept() does.
        """
        return await asyncio.to_thread(self._native.send_group, group, payload)

    async def broadcast(self, payload: Payload) -> int:
        """Sends one message to every device. Returns how many gateways heard it."""
        return await asyncio.to_thread(self._native.broadcast, payload)

    async def join_group(self, client_id: str, group: str) -> Sent:
        """Puts a device into a group until its session ends. Returns where the device is, as Bridge.join_group() does."""
        return await asyncio.to_thread(self._native.join_group, client_id, group)

    async def leave_group(self, client_id: str, group: str) -> Sent:
        """Takes a device out of a group. Returns where the device is."""
        return await asyncio.to_thread(self._native.leave_group, client_id, group)

    def groups(self) -> Dict[str, int]:
        """The groups that have members here, and how many."""
        return self._native.groups()

    def reload(self) -> None:
        """Reloads the files of certificates, for new connections, as Bridge.reload() does. Blocks the loop while it reads."""
        self._native.reload()

    def disconnect(self, client_id: str, code: Optional[int] = None, reason: Optional[str] = None) -> bool:
        """Closes the session of a device that is here; False when it is not. Without code and reason: 4510 "kicked"."""
        return self._native.disconnect(client_id, code, reason)

    async def kick(self, client_id: str, code: Optional[int] = None, reason: Optional[str] = None) -> Sent:
        """Closes the session of a device, here or at another gateway, as Bridge.kick() does. Returns where the device was."""
        return await asyncio.to_thread(self._native.kick, client_id, code, reason)

    async def are_online(self, client_ids: Sequence[str]) -> List[bool]:
        """For each of these devices whether it is connected to any gateway, as Bridge.are_online() has it."""
        return await asyncio.to_thread(self._native.are_online, list(client_ids))

    async def nodes(self) -> List[Dict[str, Any]]:
        """The gateways that share a Redis, as Bridge.nodes() has them."""
        return await asyncio.to_thread(self._native.nodes)

    def clients(self) -> List[Client]:
        """Every device that is connected here, in no order."""
        return self._native.clients()

    async def dead_letters(self, after: Optional[str] = None, limit: int = 100) -> List[DeadLetter]:
        """Dead letters, at most limit after the id after, as Bridge.dead_letters() gives them.

        This and the next three wait for the spool on a thread of the loop's executor, at most 10 seconds. Cancelled, they leave
        it unsaid whether it was done.
        """
        return await asyncio.to_thread(self._native.dead_letters, after, limit)

    async def dead_letter(self, id: str) -> Optional[DeadLetter]:
        """The dead letter with this id; None when there is none."""
        return await asyncio.to_thread(self._native.dead_letter, id)

    async def replay_dead_letter(self, id: str) -> bool:
        """Delivers a dead letter again, as Bridge.replay_dead_letter() does; False when there is no such letter."""
        return await asyncio.to_thread(self._native.replay_dead_letter, id)

    async def drop_dead_letter(self, id: str) -> bool:
        """Drops a dead letter for good; False when there is no such letter."""
        return await asyncio.to_thread(self._native.drop_dead_letter, id)

    def stats(self) -> Dict[str, Any]:
        """The books, as Bridge.stats() has them."""
        return self._native.stats()

    def status(self) -> Dict[str, Any]:
        """The gateway in one look, as Bridge.status() has it."""
        return self._native.status()

    async def device(self, client_id: str) -> Dict[str, Any]:
        """All that is known of one device, connected or not, as Bridge.device() has it."""
        return await asyncio.to_thread(self._native.device, client_id)

    def metrics(self, *, openmetrics: bool = False) -> str:
        """All figures as text for Prometheus, as Bridge.metrics() has them."""
        return self._native.metrics(openmetrics=openmetrics)

    def resolve(self, ticket: Ticket, answer: object) -> None:
        """Answers a hook that returned Later. In the loop's thread or any other."""
        self._native.resolve(ticket, answer)

    def setting(self, name: str) -> str:
        """The value of a setting as text, a secret as ***. KeyError when there is no such setting."""
        return self._native.setting(name)

    @property
    def state(self) -> StateName:
        """What the bridge is doing: "running", "degraded", "draining", "stopping", "stopped"."""
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

    async def __aenter__(self) -> Self:
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
        """The messages of devices, until the bridge stops. Several loops over one bridge share the uplinks."""
        if self._run is None:
            raise StoppedError("the bridge is not running")
        return Reader(self, self._run.stream())

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Nobody holds it: it stops without waiting."""
        run = getattr(self, "_run", None)
        if run is not None and run.is_live():
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)
            run.abandon()

    def __repr__(self) -> str:
        """The state and the address."""
        state = self.state
        where = "" if state == "stopped" else " on {}:{}".format(*self.local_addr)
        return f"<fastsock.AsyncBridge {state}{where}>"


def _is_generator_function(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
