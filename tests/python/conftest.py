"""What the tests share beside devices: a backend, bridges, a process to run Python in. All real, on loopback and free ports."""

import asyncio
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, Awaitable, Callable, Dict, Iterator, List

import pytest

import fastsock
from loops import LOOPS

# Ctrl-C is tried in children. A shell that starts the tests in the background has it ignored in all of them.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Backend:
    """An HTTP server that keeps what is POSTed to it."""

    def __init__(self) -> None:
        self.posts: List[Dict[str, Any]] = []
        posts = self.posts

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/uplink"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend that takes everything."""
    backend = Backend()
    yield backend
    backend.close()


@pytest.fixture
def start() -> Iterator[Callable[..., fastsock.Bridge]]:
    """Starts bridges on free ports of loopback, and stops them in the end."""
    bridges = []

    def start(**keywords: Any) -> fastsock.Bridge:
        settings = {"websocket_port": 0, "listen_addr": "127.0.0.1", "close_timeout": 50, **keywords}
        bridge = fastsock.Bridge(**settings)
        bridges.append(bridge)
        return bridge.start()

    yield start
    for bridge in bridges:
        bridge.stop(2)


class Run:
    """What a script did: exit code, output, errors."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def environment() -> Dict[str, str]:
    """The environment of scripts: ours, without settings that the machine may have, and with this folder to import from."""
    own = ("FASTSOCK_", "WEBSOCKET_", "REDIS_", "REMOTE_", "LOG_LEVEL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    env["PYTHONPATH"] = os.path.dirname(__file__)
    env["PYTHONUNBUFFERED"] = "1"
    return env


def run_script(script: str, *args: str) -> Run:
    """Runs Python source in a process of its own, to its end."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def popen() -> Iterator[Any]:
    """Starts programs with pipes for what they print, and kills those that still run at the end."""
    started: List["subprocess.Popen[str]"] = []

    def popen(command: List[str], **keywords: Any) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        keywords = {"env": environment(), **keywords}
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **keywords)
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


MARKS: List[socket.socket] = []
"""Names for the ports that were handed out, as in tests/servers: no other test takes one of them."""


def free_port() -> int:
    """A free port, below those of outgoing connections: nobody takes it by chance before its server does."""
    while True:
        port = random.randrange(10_000, 32_000)
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with socket.socket() as bound:
            try:
                mark.bind(f"\0fastsock-test-port-{port}")
                bound.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
                continue
            MARKS.append(mark)
            return port


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Runs a coroutine in each kind of loop."""
    loop = LOOPS[request.param]()
    yield lambda main: loop.run_until_complete(asyncio.wait_for(main, 60))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
