"""Calls the hooks of a bridge in its event loop: in order for each device, beside each other for all, none for ever."""

import asyncio
import contextvars
import inspect
import logging
import sys
from collections import deque
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Awaitable, Callable, Coroutine, Deque, Dict, List, Mapping, Optional, Set, Tuple

from fastsock._fastsock import LoopBridge
from fastsock.errors import Reject

__all__ = ["Hooks"]

Hook = Callable[..., Any]
Args = Tuple[Any, ...]

_DECISIONS = ("authenticate", "on_uplink")
_NOTICES_WAITING = 8192
"""Calls of one hook that wait for their turn at most; beyond, the oldest is dropped and counted."""
_WARN_AGAIN = 60.0
"""Seconds between two lines about the same hook."""

_log = logging.getLogger("fastsock.hooks")


class Hooks:
    """The hooks of one run."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        native: LoopBridge,
        hooks: Mapping[str, Hook],
        max_hooks: int,
        max_notices: int,
    ) -> None:
        self._loop = loop
        self._native = native
        self._new_task = _task_maker(loop)
        self._context = contextvars.copy_context()
        self._time_limit = native.hook_timeout
        self._patience = self._time_limit / 2
        self._lanes: Dict[object, _Lane] = {}
        self._tasks: "Set[Optional[asyncio.Task[Any]]]" = set()
        self._is_starting = False
        self._is_stopping = False
        self._open = 0
        self._idle: "Optional[asyncio.Future[None]]" = None
        self._hooks: Dict[str, _Hook] = {}
        for name, function in hooks.items():
            is_decision = name in _DECISIONS
            self._hooks[name] = _Hook(name, function, is_decision, max_hooks if is_decision else max_notices)

    def call(self, name: str, args: Args) -> None:
        """Calls a hook, or lets it wait for the one before it of the same device, or for its turn."""
        hook = self._hooks.get(name)
        if hook is None:
            return
        lane = self._lanes.get(hook.key(args[0])) if self._lanes else None
        if lane is not None:
            self._queue(lane, self._new_call(hook, args))
            return
        call: "Optional[_Call]"
        if hook.is_full():
            call = self._new_call(hook, args)
            self._wait_for_turn(call)
        else:
            call = self._try(hook, args, None)
            if call is None:
                return
        key = hook.key(args[0])
        if key is not None:
            self._lanes[key] = call.lane = _Lane(key, call)

    def is_own_task(self) -> bool:
        """Whether the caller is a hook."""
        return self._is_starting or asyncio.current_task() in self._tasks

    def tick(self) -> None:
        """Ends decisions whose time is over, and says what is stuck. To be called about as often as half a hook_timeout."""
        now = self._loop.time()
        for hook in self._hooks.values():
            if hook.is_decision:
                for call in hook.running:
                    if call.is_over(now) and call.task is not None:
                        call.is_late = True
                        call.task.cancel()
                self._fill(hook)
            hook.warn(now, self._time_limit)

    def hurry(self, time: float) -> None:
        """The bridge stops within so many seconds: nobody waits long for the hook before it."""
        self._patience = min(self._patience, time / 4)
        for lane in list(self._lanes.values()):
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
                self._limit_wait(lane)

    async def finish(self, until: float) -> None:
        """Waits until every hook has returned, or until then; those that have not are cancelled."""
        left = max(until - self._loop.time(), _LAST_BREATH)
        if self._open:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=left)
        self._is_stopping = True
        for hook in self._hooks.values():
            hook.waiting.clear()
        self._lanes.clear()
        self._open = len(self._tasks)
        own = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not None and task is not own]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_BREATH)

    def _begin(self, waited: "_Call") -> "Optional[_Call]":
        """Makes a call that had to wait; the same if it has suspended."""
        call = self._try(waited.hook, waited.args, waited)
        if call is None:
            self._close(waited)
        return call

    def _try(self, hook: "_Hook", args: Args, waited: "Optional[_Call]") -> "Optional[_Call]":
        """Calls it; the call if it has suspended."""
        context = self._context.copy()  # its own: what a hook sets is not seen by the next
        awaitable = None
        if not hook.is_coroutine:
            try:
                awaitable = context.run(hook.function, *args)
            except (KeyboardInterrupt, SystemExit) as error:
                self._answer(hook, args, error)
                self._raise(error)
                return None
            except BaseException as error:  # noqa: BLE001 - reported
                self._fail(hook, args, error)
                return None
            if not _is_awaitable(awaitable):
                self._settle(hook, args, awaitable)
                return None
        hook.may_suspend = True
        suspended: "List[_Call]" = []
        outer, self._is_starting = self._is_starting, True
        try:
            task = self._new_task(self._follow(hook, args, awaitable, suspended), context)
        finally:
            self._is_starting = outer
        if task.done():
            return None
        call = waited or self._new_call(hook, args)
        call.task = task
        suspended.append(call)
        self._tasks.add(task)
        hook.running.add(call)
        return call

    async def _follow(
        self, hook: "_Hook", args: Args, awaitable: Optional[Awaitable[Any]], suspended: "List[_Call]"
    ) -> None:
        """Awaits a coroutine function, or what another hook returned. `suspended` gets its call, should it suspend: most do not, where
        tasks start eagerly."""
        try:
            self._settle(hook, args, await (hook.function(*args) if awaitable is None else awaitable))
        except GeneratorExit:
            suspended.clear()  # its loop has gone
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            self._answer(hook, args, error)
            self._raise(error)
        except asyncio.CancelledError as error:
            self._cancelled(hook, args, suspended[0] if suspended else None, error)
        except BaseException as error:  # noqa: BLE001 - reported
            self._fail(hook, args, error)
        finally:
            if suspended:
                call = suspended[0]
                self._tasks.discard(call.task)
                hook.running.discard(call)
                self._close(call)
                self._advance(call.lane)
                self._fill(hook)

    def _cancelled(self, hook: "_Hook", args: Args, call: "Optional[_Call]", error: asyncio.CancelledError) -> None:
        """Was it us, somebody else, or the hook itself?"""
        if call is not None and call.is_late:
            key = hook.key(args[0])
            whose = "" if key is None else f" of {key!r}"
            text = f"{hook.name}{whose} did not answer within hook_timeout, {self._time_limit:g} s, and was cancelled"
            self._report(hook, args, asyncio.TimeoutError(text))
            return
        if self._is_stopping:
            self._answer(hook, args, error)
            raise error
        self._fail(hook, args, error)
        if getattr(call and call.task, "cancelling", int)() or sys.version_info < (3, 11):
            raise error

    def _new_call(self, hook: "_Hook", args: Args) -> "_Call":
        """One that has suspended, or has to wait."""
        self._open += 1
        return _Call(hook, args, self._loop.time() + self._time_limit)

    def _close(self, call: "_Call") -> None:
        """It has returned, or will never be made."""
        self._open -= 1
        if self._open == 0 and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _wait_for_turn(self, call: "_Call") -> None:
        hook = call.hook
        hook.waiting.append(call)
        if not hook.is_decision and len(hook.waiting) > _NOTICES_WAITING:
            self._native.drop_notice()
            self._give_up(hook.waiting.popleft())

    def _give_up(self, call: "_Call") -> None:
        self._close(call)
        self._advance(call.lane)

    def _fill(self, hook: "_Hook") -> None:
        """Makes the calls that wait for their turn, as far as there is room."""
        now = self._loop.time()
        while hook.waiting and (hook.waiting[0].is_over(now) or not hook.is_full()):
            call = hook.waiting.popleft()
            if call.is_over(now):
                self._give_up(call)  # the bridge has counted it as failed
            elif self._begin(call) is None:
                self._advance(call.lane)

    def _queue(self, lane: "_Lane", call: "_Call") -> None:
        lane.waiting.append(call)
        self._limit_wait(lane)

    def _limit_wait(self, lane: "_Lane") -> None:
        if lane.timer is None and lane.waiting:
            lane.timer = self._loop.call_later(self._patience, self._overtake, lane, lane.head)

    def _overtake(self, lane: "_Lane", head: "_Call") -> None:
        """The next hook of a device has waited long enough for the one before."""
        lane.timer = None
        if lane.head is head:
            head.lane = None
            self._advance(lane)

    def _advance(self, lane: "Optional[_Lane]") -> None:
        """The head of a lane has returned: the next ones, up to one that suspends."""
        if lane is None:
            return
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        while lane.waiting:
            call = lane.waiting.popleft()
            lane.head, call.lane = call, lane
            if call.is_over(self._loop.time()):
                self._close(call)  # the bridge has counted it as failed
                continue
            if call.hook.is_full():
                self._wait_for_turn(call)
            elif self._begin(call) is None:
                continue
            self._limit_wait(lane)
            return
        if self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def _settle(self, hook: "_Hook", args: Args, result: object) -> None:
        """Gives the bridge what a hook returned."""
        if hook.is_decision:
            try:
                self._native.settle(args[0], result, False)
            except Exception as error:  # noqa: BLE001 - an answer that is none
                self._report(hook, args, error)
        elif isinstance(result, (GeneratorType, AsyncGeneratorType)):
            self._report(hook, args, TypeError(f"{hook.name} returned a generator, of which nothing has run"))

    def _fail(self, hook: "_Hook", args: Args, error: BaseException) -> None:
        """A hook raised."""
        self._answer(hook, args, error)
        if not (isinstance(error, Reject) and hook.name == "authenticate"):
            self._report(hook, args, error)

    def _answer(self, hook: "_Hook", args: Args, error: BaseException) -> None:
        if hook.is_decision:
            self._native.settle(args[0], error, True)

    def _report(self, hook: "_Hook", args: Args, error: BaseException) -> None:
        """Tells on_error, or sys.unraisablehook."""
        self._native.count_hook_error()
        if hook.name == "on_error":
            failed = self._hooks.get(args[0])
            self._native.unraisable(args[1], None if failed is None else failed.function)
            self._native.unraisable(error, hook.function)
        elif "on_error" in self._hooks:
            self.call("on_error", (hook.name, error))
        else:
            self._native.unraisable(error, hook.function)

    def _raise(self, error: BaseException) -> None:
        """Lets it end the loop, as asyncio does with those of its own tasks, once everything here is in order."""
        self._loop.call_soon(_raise, error)


class _Hook:
    """One hook, its calls that have suspended, and those that wait for their turn."""

    __slots__ = ("name", "function", "key", "is_coroutine", "is_decision", "limit", "may_suspend", "running", "waiting", "quiet_until")

    def __init__(self, name: str, function: Hook, is_decision: bool, limit: int) -> None:
        self.name = name
        self.function = function
        self.key: Callable[[Any], Optional[str]] = _KEYS.get(name, _client_id)
        """Whose hooks run one after the other: a device's, and those about the bridge."""
        self.is_coroutine = inspect.iscoroutinefunction(function)
        """It need not be called to know that; others may return an awaitable all the same."""
        self.is_decision = is_decision
        self.limit = limit
        self.may_suspend = False
        self.running: Set[_Call] = set()
        self.waiting: Deque[_Call] = deque()
        self.quiet_until = 0.0

    def is_full(self) -> bool:
        """Whether one more call has to wait."""
        return self.may_suspend and len(self.running) >= self.limit

    def warn(self, now: float, time_limit: float) -> None:
        """Logs what is stuck, now and then."""
        if now < self.quiet_until or not self.running:
            return
        oldest = min(self.running, key=lambda call: call.until)
        age = now - oldest.until + time_limit
        if age <= time_limit * (2 if self.is_decision else 1):  # a decision is cancelled before
            return
        self.quiet_until = now + _WARN_AGAIN
        fields = {"hook": self.name, "running": len(self.running), "waiting": len(self.waiting), "seconds": round(age, 1)}
        text = "Hook has not returned hook=%(hook)s running=%(running)s waiting=%(waiting)s seconds=%(seconds)s"
        client_id = getattr(oldest.args[0], "client_id", None)
        if client_id is not None:
            fields["client_id"] = client_id
            text += " client_id=%(client_id)s"
        _log.warning(text, fields, extra={"fields": {name: str(value) for name, value in fields.items()}})


class _Call:
    """One call of a hook that has suspended or waits."""

    __slots__ = ("hook", "args", "until", "lane", "task", "is_late")

    def __init__(self, hook: _Hook, args: Args, until: float) -> None:
        self.hook = hook
        self.args = args
        self.until = until
        """When its time is over, if it is a decision."""
        self.lane: Optional[_Lane] = None
        self.task: "Optional[asyncio.Task[Any]]" = None
        self.is_late = False

    def is_over(self, now: float) -> bool:
        """Whether the bridge no longer wants an answer."""
        return self.hook.is_decision and now > self.until


class _Lane:
    """The hooks of one device: the one that runs or waits for its turn, and those behind it."""

    __slots__ = ("key", "head", "waiting", "timer")

    def __init__(self, key: object, head: _Call) -> None:
        self.key = key
        self.head = head
        self.waiting: Deque[_Call] = deque()
        self.timer: Optional[asyncio.TimerHandle] = None


def _client_id(subject: Any) -> Optional[str]:
    client_id: str = subject.client_id
    return client_id


_KEYS: Dict[str, Callable[[Any], Optional[str]]] = {
    "authenticate": lambda _: None,
    "on_mailbox_lost": lambda client_id: client_id,
    "on_state": lambda _: "",
    "on_error": lambda _: None,
}


def _is_awaitable(result: object) -> bool:
    """As inspect has it, but without its detour for what is none."""
    return hasattr(type(result), "__await__") or (isinstance(result, GeneratorType) and inspect.isawaitable(result))


def _raise(error: BaseException) -> None:
    raise error


def _task_maker(loop: asyncio.AbstractEventLoop) -> "Callable[[Coroutine[Any, Any, None], contextvars.Context], asyncio.Task[None]]":
    """How tasks are made: from Python 3.12 on such that run at once, up to their first suspension; most hooks have none."""
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return lambda coroutine, context: asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
    return lambda coroutine, context: context.run(loop.create_task, coroutine)


_LAST_BREATH = 0.25
"""Seconds a cancelled hook has to return."""
