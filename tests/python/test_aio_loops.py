"""A bridge and its event loop: one at a time, gone together, and neither of them in silence."""

import asyncio
import gc
import socket
import warnings
import weakref
from typing import Any, Callable, Iterator, List

import fastsock
import pytest
from conftest import free_port, run_script
from device import Device, eventually
from loops import LOOPS, bridge, off, until

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=sorted(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Iterator[NewLoop]:
    """Makes loops of each kind, and closes them in the end."""
    made: List[asyncio.AbstractEventLoop] = []

    def new_loop() -> asyncio.AbstractEventLoop:
        made.append(LOOPS[request.param]())
        return made[-1]

    yield new_loop
    for loop in made:
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def is_free(port: int) -> bool:
    """Whether somebody could listen there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_a_loop_that_is_closed_takes_its_bridge_along(new_loop: NewLoop) -> None:
    b = bridge(websocket_port=free_port(), on_uplink=lambda uplink: fastsock.Reply(uplink.text))
    loop = new_loop()
    loop.run_until_complete(b.start())
    device = Device(b.port)
    with pytest.warns(ResourceWarning, match="the event loop was closed while a fastsock.AsyncBridge ran in it"):
        loop.close()
        gc.collect()
    assert device.receive() in (1001, None)
    device.close()
    eventually(lambda: is_free(int(b.setting("websocket_port"))), "the port")

    async def again() -> None:
        async with b:
            other = await off(Device, b.port)
            await off(other.send, "x")
            assert await off(other.receive) == "x"
            other.close()
        assert b.state == "stopped"

    loop = new_loop()
    loop.run_until_complete(again())


@pytest.mark.parametrize("call", ["start", "stop", "wait"])
def test_after_its_loop_has_gone_every_call_works(new_loop: NewLoop, call: str) -> None:
    b = bridge(websocket_port=free_port())
    loop = new_loop()
    loop.run_until_complete(b.start())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.close()
        gc.collect()
    loop = new_loop()
    loop.run_until_complete(getattr(b, call)())
    if call == "start":
        assert b.state == "running" and not loop.run_until_complete(b.stop())
    assert b.state == "stopped"


def test_a_bridge_belongs_to_one_loop(new_loop: NewLoop) -> None:
    b = bridge()
    first, second = new_loop(), new_loop()
    first.run_until_complete(b.start())

    async def read() -> None:
        async for _ in b:
            pass

    for call in (b.start, b.stop, b.wait, read):
        with pytest.raises(RuntimeError, match="runs in another event loop"):
            second.run_until_complete(asyncio.wait_for(call(), 20))
    assert b.state == "running" and b.clients() == []
    first.run_until_complete(b.stop())
    second.run_until_complete(b.start())
    second.run_until_complete(b.stop())


def test_asyncio_run_takes_it_along_too() -> None:
    run = run_script(
        "import asyncio, fastsock\nfrom device import *\n"
        "bridge = fastsock.AsyncBridge(websocket_port=0, listen_addr='127.0.0.1')\n"
        "async def main():\n    await bridge.start()\n    return Device(bridge.port)\n"
        "device = asyncio.run(main())\n"
        "assert device.receive() in (1001, None)\n"
        "async def again():\n    async with bridge: print(bridge.state)\n"
        "asyncio.run(again())\nprint(bridge.state)"
    )
    assert (run.code, run.out, run.err) == (0, "running\nstopped\n", "")


def test_a_bridge_that_is_dropped_stops_and_warns(new_loop: NewLoop) -> None:
    loop = new_loop()

    class Host:
        def __init__(self) -> None:
            self.bridge = bridge(on_uplink=self.on_uplink)

        async def on_uplink(self, uplink: fastsock.Uplink) -> Any:
            await asyncio.sleep(0)  # a hook that awaits
            return fastsock.Reply(uplink.text)

    async def main() -> None:
        host = Host()
        await host.bridge.start()
        device = await off(Device, host.bridge.port)
        await off(device.send, "x")
        assert await off(device.receive) == "x"
        gone = weakref.ref(host.bridge)
        del host
        with pytest.warns(ResourceWarning, match="unclosed <fastsock.AsyncBridge running"):
            await until(lambda: gc.collect() >= 0 and gone() is None)
        assert await off(device.receive) in (1001, None)
        device.close()

    loop.run_until_complete(main())


def test_a_reader_keeps_its_bridge(new_loop: NewLoop) -> None:
    async def main() -> None:
        ports: List[int] = []

        async def serve() -> str:
            b = await bridge().start()
            ports.append(b.port)
            uplinks = b.__aiter__()
            del b
            gc.collect()
            uplink: fastsock.Uplink = await uplinks.__anext__()
            return uplink.text

        task = asyncio.ensure_future(serve())
        await until(lambda: ports)
        device = await off(Device, ports[0])
        with pytest.warns(ResourceWarning):
            await off(device.send, "x")
            assert await task == "x"
            await until(lambda: gc.collect() >= 0 and is_free(ports[0]))
        device.close()

    new_loop().run_until_complete(main())


def test_a_threaded_bridge_that_is_dropped_warns() -> None:
    b = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1").start()
    port = b.port
    with pytest.warns(ResourceWarning, match="unclosed <fastsock.Bridge running on 127.0.0.1"):
        del b
        gc.collect()
    eventually(lambda: is_free(port))


def test_nothing_is_said_of_bridges_that_were_stopped(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with bridge():
            pass

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new_loop().run_until_complete(main())
        with fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1"):
            pass
        gc.collect()
