"""The same echo by Fastsock, aiohttp and websockets, in one run: a flood over real sockets, each server in a process of its own.

    make bench-python                    of the interpreter python3
    make bench-python PYTHON=python3.13  of another

For each server: CPU of its whole process a message (all threads), messages a second, and both as ratios to aiohttp in the
same round; rounds are interleaved, and the median round counts. Where tasks can start eagerly (Python 3.12 and newer) a
coroutine hook has to be cheaper than aiohttp: if it is not, the exit code says so.
"""

import asyncio
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Awaitable, Callable, Dict, List, Tuple

import fastsock
from messages import connect

DEVICES = 64
PAYLOAD = 64
EACH = 800
ROUNDS = 3
WINDOW = 32
"""Messages a device has on the way at most."""
FRAME = bytes([0x81, 0x80 | PAYLOAD, 0, 0, 0, 0]) + b"x" * PAYLOAD
ANSWER_BYTES = 2 + PAYLOAD
SETTINGS: Any = {"websocket_port": 0, "listen_addr": "127.0.0.1", "hook_timeout": 60_000, "websocket_ping_interval": 0}
"""No pings, of anybody: the load counts bytes."""


async def hook(ready: Callable[[int], Awaitable[None]]) -> None:
    """A coroutine function as on_uplink, which sends."""
    bridge = fastsock.AsyncBridge(**SETTINGS)

    @bridge.on_uplink
    async def on_uplink(uplink: fastsock.Uplink) -> Any:
        await bridge.send(uplink.client_id, uplink.text)
        return fastsock.Drop

    async with bridge:
        await ready(bridge.port)


async def hook_reply(ready: Callable[[int], Awaitable[None]]) -> None:
    """A coroutine function as on_uplink, which returns its answer."""
    bridge = fastsock.AsyncBridge(**SETTINGS)

    @bridge.on_uplink
    async def on_uplink(uplink: fastsock.Uplink) -> Any:
        return fastsock.Reply(uplink.text)

    async with bridge:
        await ready(bridge.port)


async def stream(ready: Callable[[int], Awaitable[None]]) -> None:
    """`async for`."""
    async with fastsock.AsyncBridge(**SETTINGS) as bridge:

        async def echo() -> None:
            async for uplink in bridge:
                await bridge.send(uplink.client_id, uplink.text)

        task = asyncio.ensure_future(echo())
        await ready(bridge.port)
        task.cancel()


async def callback(ready: Callable[[int], Awaitable[None]]) -> None:
    """A plain function on the thread of a Bridge."""
    with fastsock.Bridge(on_uplink=lambda uplink: fastsock.Reply(uplink.text), **SETTINGS) as bridge:
        await ready(bridge.port)


async def aiohttp(ready: Callable[[int], Awaitable[None]]) -> None:
    """aiohttp, without compression as ours."""
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=False)
        await response.prepare(request)
        async for message in response:
            if message.type is WSMsgType.TEXT:
                await response.send_str(message.data)
        return response

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
    await site.start()
    await ready(runner.addresses[0][1])
    await runner.cleanup()


async def websockets(ready: Callable[[int], Awaitable[None]]) -> None:
    """websockets, without compression as ours."""
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    async def echo(connection: Any) -> None:
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass  # the load cuts its connections

    async with serve(echo, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        await ready(list(server.sockets)[0].getsockname()[1])


SERVERS = {
    "aiohttp": aiohttp,
    "websockets": websockets,
    "hook, sends": hook,
    "hook, replies": hook_reply,
    "async for": stream,
    "callback": callback,
}


def serve(name: str, loop: str) -> None:
    """The process of a server: prints its port, and serves until its input ends."""

    async def ready(port: int) -> None:
        print(port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    if loop == "uvloop":
        import uvloop

        uvloop.run(SERVERS[name](ready))
    else:
        asyncio.run(SERVERS[name](ready))


def flood(port: int, warm: int, each: int, mark: Callable[[], None]) -> None:
    """Sends to each device's connection and counts what comes back; mark() after the first of them, and at the end."""
    selector = selectors.DefaultSelector()
    devices = [connect(port, f"dev{n}") for n in range(DEVICES)]
    for count, is_last in ((warm, False), (each, True)):
        left: Dict[socket.socket, List[int]] = {}
        for device in devices:
            device.setblocking(False)
            left[device] = [count, 0, count * ANSWER_BYTES]  # to send, on the way in bytes, to come in bytes
            selector.register(device, selectors.EVENT_READ)
            push(device, left[device])
        open_devices = len(devices)
        while open_devices:
            for key, _ in selector.select():
                device: Any = key.fileobj
                state = left[device]
                got = len(device.recv(1 << 16))
                assert got, "the server has closed"
                state[1] -= got
                state[2] -= got
                if state[2] == 0:
                    selector.unregister(device)
                    open_devices -= 1
                elif state[1] <= WINDOW * ANSWER_BYTES // 2:
                    push(device, state)
        mark()
    for device in devices:
        device.close()


def push(device: socket.socket, state: List[int]) -> None:
    """Fills the window of a device. It is so small that a socket always takes it."""
    number = min(state[0], WINDOW - state[1] // ANSWER_BYTES)
    if number > 0:
        device.sendall(FRAME * number)
        state[0] -= number
        state[1] += number * ANSWER_BYTES


def measure(name: str, loop: str) -> Tuple[float, float]:
    """CPU µs of the server's process a message, and messages a second."""
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", name, loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    marks: List[Tuple[float, float]] = []
    try:
        port = int(process.stdout.readline())
        flood(port, EACH // 5, EACH, lambda: marks.append((cpu_seconds(process.pid), time.perf_counter())))
    finally:
        process.stdin.close()
        process.wait()
    (cpu, wall), (cpu_end, wall_end) = marks
    messages = DEVICES * EACH
    return (cpu_end - cpu) / messages * 1e6, messages / (wall_end - wall)


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Prints the table; 1 when a coroutine hook is dearer than it may be."""
    loops = ["asyncio"]
    try:
        import uvloop  # noqa: F401

        loops.append("uvloop")
    except ImportError:
        print("uvloop is not there for this interpreter")
    is_eager = sys.version_info >= (3, 12)
    print(f"\nEcho, Python {sys.version.split()[0]}: {DEVICES} devices, {PAYLOAD} B, {os.cpu_count()} cores, median of {ROUNDS}")
    print(f"{'':28}{'CPU us/msg':>12}{'msg/s':>12}{'CPU of aiohttp':>16}{'rate of aiohttp':>17}")
    is_dear = False
    for loop in loops:
        rounds = [{name: measure(name, loop) for name in SERVERS} for _ in range(ROUNDS)]
        for name in SERVERS:
            cost = statistics.median(one[name][0] for one in rounds)
            rate = statistics.median(one[name][1] for one in rounds)
            cost_ratio = statistics.median(one[name][0] / one["aiohttp"][0] for one in rounds)
            rate_ratio = statistics.median(one[name][1] / one["aiohttp"][1] for one in rounds)
            print(f"{loop + ', ' + name:28}{cost:12.1f}{rate:12,.0f}{cost_ratio:15.2f}x{rate_ratio:16.2f}x", flush=True)
            is_dear |= is_eager and name.startswith("hook") and cost_ratio >= 1
    if not is_eager:
        print("Tasks start eagerly from Python 3.12 on; a coroutine hook here makes the loop go round once more a message.")
    if is_dear:
        print("A coroutine hook costs more than aiohttp: it must not", file=sys.stderr)
    return int(is_dear)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:4])
    else:
        sys.exit(main())
