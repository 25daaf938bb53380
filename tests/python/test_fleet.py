"""Gateways that share a Redis: what each can ask and do about the devices of the others, and what it is told of mailboxes."""

import asyncio
import socket
import subprocess
from typing import Any, Dict, Iterator, List, Tuple

import pytest

import fastsock
from conftest import free_port
from device import Device, eventually


@pytest.fixture
def redis() -> Iterator[Dict[str, Any]]:
    """A Redis of its own, as settings."""
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    try:
        eventually(answers, "Redis")
        yield {"broker": "redis", "redis_host": "127.0.0.1", "redis_port": port}
    finally:
        process.kill()
        process.wait()


def is_up(bridge: fastsock.Bridge) -> bool:
    """Whether its links to Redis are."""
    try:
        bridge.send("nobody", "x")
    except fastsock.BrokerError:
        return False
    return True


def test_a_device_of_another_gateway_is_found_grouped_and_kicked(start: Any, redis: Dict[str, Any]) -> None:
    a = start(node_name="a", **redis)
    b = start(node_name="b", **redis)
    eventually(lambda: is_up(a) and is_up(b), "Redis")
    eventually(lambda: {node["name"] for node in a.nodes()} == {"a", "b"}, "both gateways")
    with Device(b.port, "there") as device:
        eventually(lambda: a.are_online(["there", "nobody"]) == [True, False], "the device")
        assert b.are_online(["nobody", "there"]) == [False, True]
        assert a.join_group("there", "news") == "elsewhere"
        eventually(lambda: b.groups() == {"news": 1}, "the group")
        assert a.groups() == {}
        at = a.device("there")["node"]
        [node] = [node for node in a.nodes() if node["name"] == "b"]
        assert (at["id"], at["name"]) == (node["node"], "b")
        assert a.kick("there", 4000, "maintenance") == "elsewhere"
        assert device.receive() == 4000
    assert a.kick("nobody") == "offline"


def test_lost_messages_of_a_mailbox_are_told(start: Any, redis: Dict[str, Any]) -> None:
    lost: List[Tuple[str, str, int]] = []
    bridge = start(mailbox="redis", mailbox_messages=2, on_mailbox_lost=lambda *told: lost.append(told), **redis)
    eventually(lambda: is_up(bridge), "Redis")
    for n in range(5):
        bridge.send_kept("away", f"message {n}")
    eventually(lambda: sum(count for _, _, count in lost) == 3, "three lost messages")
    assert {(client_id, reason) for client_id, reason, _ in lost} == {("away", "mailbox_full")}


def test_in_a_loop_as_well(redis: Dict[str, Any]) -> None:
    async def main() -> None:
        lost: List[Tuple[str, str, int]] = []
        enough = asyncio.Event()

        async def on_mailbox_lost(client_id: str, reason: str, count: int) -> None:
            await asyncio.sleep(0)  # a hook that awaits
            lost.append((client_id, reason, count))
            if sum(count for _, _, count in lost) == 3:
                enough.set()

        settings = {"websocket_port": 0, "listen_addr": "127.0.0.1", "mailbox": "redis", "mailbox_messages": 2, **redis}
        async with fastsock.AsyncBridge(on_mailbox_lost=on_mailbox_lost, **settings) as bridge:
            while True:
                try:
                    await bridge.send_kept("away", "message 0")
                    break
                except fastsock.BrokerError:
                    await asyncio.sleep(0.01)  # tries again until Redis is there
            for n in range(1, 5):
                await bridge.send_kept("away", f"message {n}")
            await asyncio.wait_for(enough.wait(), 20)
        assert {(client_id, reason) for client_id, reason, _ in lost} == {("away", "mailbox_full")}

    asyncio.run(main())
