"""What a message costs in Python: over real sockets, from a load process of its own. Prints a table.

    make bench-python

The times are CPU of the one thread that runs the hooks, all of it: taking the event from the queue, making the object,
calling the hook, answering the bridge, and waiting for more.
"""

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from typing import Any, Callable, List, Tuple

import fastsock

DEVICES = 256
PAYLOAD = 64


def load(port: int, devices: int, each: int) -> None:
    """The load process: devices that send as fast as they are read, in large writes."""
    frame = bytes([0x81, 0x80 | PAYLOAD, 0, 0, 0, 0]) + b"x" * PAYLOAD
    sockets = [connect(port, f"dev{n}") for n in range(devices)]
    block = 512
    for sent in range(0, each, block):
        data = frame * min(block, each - sent)
        for device in sockets:
            device.sendall(data)
    sys.stdin.read()  # until the bench has seen all


def connect(port: int, token: str) -> socket.socket:
    """A device after its handshake."""
    device = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    device.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += device.recv(4096)
    return device


def start_load(port: int, each: int) -> "subprocess.Popen[bytes]":
    """Starts the load process."""
    args = [sys.executable, __file__, "load", str(port), str(DEVICES), str(each)]
    return subprocess.Popen(args, stdin=subprocess.PIPE)


def measure_hooks(count: int, keywords: Callable[[Callable[[int], None]], Any]) -> Tuple[float, float, Any]:
    """CPU ns of the hooks' thread a message, messages a second, and the bridge's own counts."""
    marks: List[Tuple[int, int]] = []
    seen = 0
    warm = count // 10

    def on_messages(number: int) -> None:
        nonlocal seen
        before, seen = seen, seen + number
        if before < warm <= seen or seen == count:
            marks.append((time.thread_time_ns(), time.perf_counter_ns(), seen))  # type: ignore[arg-type]

    bridge = fastsock.Bridge(
        websocket_port=0, listen_addr="127.0.0.1", hook_timeout=60_000, **keywords(on_messages)
    )
    with bridge:
        process = start_load(bridge.port, count // DEVICES)
        while len(marks) < 2:
            time.sleep(0.05)
        stats = bridge.stats()["python"]
        process.communicate()
    (cpu, wall, first), (cpu_end, wall_end, last) = marks  # type: ignore[misc]
    messages = last - first
    return (cpu_end - cpu) / messages, messages / ((wall_end - wall) / 1e9), stats


def one(on_messages: Callable[[int], None]) -> Any:
    """A hook that does nothing for each message, but count."""
    left = [0]

    def on_uplink(_: fastsock.Uplink) -> None:
        left[0] += 1
        if left[0] == STEP:
            left[0] = 0
            on_messages(STEP)

    return {"on_uplink": on_uplink}


def many(on_messages: Callable[[int], None]) -> Any:
    """A hook that takes lists."""
    return {"on_uplinks": lambda uplinks: on_messages(len(uplinks))}


async def measure_stream(count: int) -> Tuple[float, float, Any]:
    """CPU ns of the loop's thread a message, messages a second, and the bridge's own counts."""
    async with fastsock.AsyncBridge(websocket_port=0, listen_addr="127.0.0.1", hook_timeout=60_000) as bridge:
        process = start_load(bridge.port, count // DEVICES)
        seen = 0
        async for _ in bridge:
            seen += 1
            if seen == count // 10:
                cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
            if seen == count:
                break
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        stats = bridge.stats()["python"]
        process.communicate()
    messages = count - count // 10
    return cpu / messages, messages / (wall / 1e9), stats


STEP = 1000


def main() -> None:
    """Prints the table."""
    print(f"Python {sys.version.split()[0]}, {DEVICES} devices, {PAYLOAD} B messages, {os.cpu_count()} cores")
    print(f"{'':24}{'CPU ns/msg':>12}{'budget':>8}{'msg/s':>12}{'budget':>9}{'attaches':>10}{'wakes':>8}")

    def row(name: str, budget: str, rate_budget: str, figures: Tuple[float, float, Any]) -> None:
        cpu, rate, stats = figures
        print(
            f"{name:24}{cpu:12.0f}{budget:>8}{rate:12,.0f}{rate_budget:>9}{stats['attaches']:>10}{stats['wakes']:>8}",
            flush=True,
        )

    for count in (160_000, 640_000):
        row(f"on_uplink   {count:>9,}", "500", "", measure_hooks(count, one))
    for count in (320_000, 3_200_000):
        row(f"on_uplinks  {count:>9,}", "200", "", measure_hooks(count, many))
    for count in (320_000, 3_200_000):
        row(f"async for   {count:>9,}", "", "300,000", asyncio.run(measure_stream(count)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load(*map(int, sys.argv[2:]))
    else:
        main()
