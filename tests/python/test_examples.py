"""Each example, run as its reader would."""

import http.client
import json
import os
import pathlib
import signal
import sys
from typing import Any, Iterator, List

import pytest
from conftest import Backend, environment, free_port
from device import DEADLINE, Device, eventually

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"


@pytest.fixture
def spawn(popen: Any) -> Any:
    """Starts Python with an example."""

    def spawn(*args: str, **settings: str) -> Any:
        env = {**environment(), "FASTSOCK_LISTEN_ADDR": "127.0.0.1", **settings}
        return popen([sys.executable, *args], env=env, cwd=EXAMPLES)

    return spawn


def port_of(process: Any) -> int:
    """The port in "listening on 127.0.0.1 port 1234"."""
    line = process.stdout.readline()
    assert line.startswith("listening on"), line + process.stderr.read()
    return int(line.split()[-1])


def test_embed(spawn: Any, backend: Backend) -> None:
    process = spawn("embed.py", WEBSOCKET_PORT="0", REMOTE_URL=backend.url)
    with Device(port_of(process)) as device:
        assert device.receive() == "welcome"
        device.send("ping")
        assert device.receive() == "pong"
        device.send("hello")
        eventually(lambda: backend.posts)
    assert backend.posts == [{"client_id": "dev1", "data": "hello"}]
    lines = [process.stdout.readline().strip() for _ in range(4)]
    assert lines == ["dev1 connected", "dev1 says ping", "dev1 says hello", "dev1 left: connection_lost"]
    out, err = process.communicate("\n", timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "stopped; 0 uplinks left\n", "")


def test_asyncio_echo(spawn: Any) -> None:
    process = spawn("asyncio_echo.py", WEBSOCKET_PORT="0")
    with Device(port_of(process)) as device:
        for payload in ("text", b"\x00\xff"):
            device.send(payload)
            assert device.receive() == payload
        process.send_signal(signal.SIGINT)
        assert device.receive() == 1001
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_fastapi_app(spawn: Any) -> None:
    pytest.importorskip("fastapi", reason="there is no wheel of it for this interpreter")
    web, devices = free_port(), free_port()
    process = spawn(
        *("-m", "uvicorn", "fastapi_app:app", "--port", str(web), "--log-level", "warning"),
        WEBSOCKET_PORT=str(devices),
        REMOTE_URL=f"http://127.0.0.1:{web}/uplink",
    )

    def call(method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", web, timeout=DEADLINE)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def is_up() -> bool:
        assert process.poll() is None, process.stderr.read()
        try:
            return bool(call("GET", "/devices") == [])
        except OSError:
            return False

    eventually(is_up, "the app")
    with Device(devices) as device:
        device.send("hello")
        assert device.receive() == "you said hello"
        assert call("GET", "/devices") == ["dev1"]
        assert call("POST", "/devices/dev1", "news") == {"sent": "here"}
        assert device.receive() == "news"
    assert call("POST", "/devices/nobody", "news") == {"sent": "offline"}
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("", ""), err
    assert os.path.exists(EXAMPLES / "django_or_flask.md")
