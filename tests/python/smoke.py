"""The installed package does its job: run by fastsock-py/scripts/package, without the tools of the tests."""

import asyncio
import base64
import importlib.metadata
import json
import os
import socket

import fastsock


def talk(port: int) -> bytes:
    """Connects a device, says "hello", and returns what it is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as device:
        key = base64.b64encode(os.urandom(16)).decode()
        head = "GET /?token=dev1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        device.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += device.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        device.sendall(bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello")
        message = b""
        while len(message) < 7:
            message += device.recv(4096)
        return message[2:]


async def aio() -> bytes:
    """The same in a loop."""
    async with fastsock.AsyncBridge(websocket_port=0, listen_addr="127.0.0.1") as bridge:
        answer = asyncio.get_running_loop().run_in_executor(None, talk, bridge.port)
        async for uplink in bridge:
            await bridge.send(uplink.client_id, uplink.text.upper())
            return await answer
    raise AssertionError


def check_papers() -> None:
    """What has to come along: whose work is in it, under which licences, and what the index shows."""
    about = importlib.metadata.metadata("fastsock")
    assert about["License-Expression"] == "MIT" and "Homepage" in str(about.get_all("Project-URL")), about
    assert "Programming Language :: Python :: 3.12" in (about.get_all("Classifier") or [])
    text = about.get_payload() if hasattr(about, "get_payload") else ""
    assert "on_uplink" in text and "](docs/" not in text, "the description stands alone"
    papers = {str(path).rsplit("/", 1)[-1]: path for path in importlib.metadata.files("fastsock") or []}
    texts = papers["THIRD-PARTY-LICENSES.txt"].read_text()
    bill = json.loads(papers["fastsock-py.cdx.json"].read_text())
    names = [f"{component['name']} {component['version']} (" for component in bill["components"]]
    assert len(names) > 50 and not [name for name in names if name not in texts]
    assert "Apache License" in texts and "LICENSE" in papers
    assert "sboms" in str(papers["fastsock-py.cdx.json"]), papers["fastsock-py.cdx.json"]


def main() -> None:
    """Says what is installed and that it works."""
    with fastsock.Bridge(
        websocket_port=0, listen_addr="127.0.0.1", on_uplink=lambda uplink: fastsock.Reply(uplink.text.upper())
    ) as bridge:
        assert talk(bridge.port) == b"HELLO"
    assert asyncio.run(aio()) == b"HELLO"
    assert importlib.metadata.version("fastsock") == fastsock.__version__
    folder = os.path.dirname(fastsock.__file__)
    assert {"py.typed", "_fastsock.pyi", "settings.py"} <= set(os.listdir(folder)), os.listdir(folder)
    check_papers()
    print(f"fastsock {fastsock.__version__} works, from {folder}")


main()
