"""Event loops of every kind, and what tests in them share."""

import asyncio
import inspect
from typing import Any, Callable, Dict

import fastsock
from device import DEADLINE

uvloop: Any
try:
    import uvloop
except ImportError:  # no wheel for this interpreter
    uvloop = None


class Blind(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as some are."""

    def add_reader(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


LOOPS: Dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "blind": Blind}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop


def bridge(**keywords: Any) -> fastsock.AsyncBridge:
    """A bridge on a free port of loopback."""
    settings = {"websocket_port": 0, "listen_addr": "127.0.0.1", "close_timeout": 50, **keywords}
    return fastsock.AsyncBridge(**settings)


async def off(function: Callable[..., Any], *args: Any) -> Any:
    """Calls something that blocks, such as a device, beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def until(check: Callable[[], Any]) -> Any:
    """Waits in the loop until a check, or what awaiting it gives, is something true, and returns that."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)  # polls
