"""The command: `fastsock` and `python -m fastsock` are the gateway."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Dict, Iterator, List

import fastsock
import pytest
from conftest import Backend, environment, run_script
from device import DEADLINE, Device

COMMANDS = {
    "module": [sys.executable, "-m", "fastsock"],
    "script": [str(pathlib.Path(sys.executable).parent / "fastsock")],
}


@pytest.fixture(params=sorted(COMMANDS))
def command(request: pytest.FixtureRequest) -> Iterator[List[str]]:
    """Each way to call it."""
    command = COMMANDS[request.param]
    if not os.path.exists(command[0]):
        pytest.fail(f"{command[0]} is missing: the package is not installed")
    yield command


@pytest.fixture
def serve(popen: Any) -> Any:
    """Starts the gateway on a free port."""

    def serve(command: List[str], directory: pathlib.Path, **settings: str) -> Any:
        env = {
            **environment(),
            "WEBSOCKET_PORT": "0",
            "FASTSOCK_LISTEN_ADDR": "127.0.0.1",
            "FASTSOCK_ADMIN_ADDR": "off",
            "FASTSOCK_BROKER": "embedded",
            **settings,
        }
        return popen(command, env=env, cwd=directory)

    return serve


def ready(process: Any) -> Dict[str, Any]:
    """The ready line."""
    for text in process.stdout:
        line: Dict[str, Any] = json.loads(text)
        if line["message"].startswith("WebSocket server running on"):
            return line
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(
    serve: Any, command: List[str], number: signal.Signals, tmp_path: pathlib.Path, backend: Backend
) -> None:
    process = serve(command, tmp_path, REMOTE_URL=backend.url)
    port = int(ready(process)["addr"].rsplit(":", 1)[1])
    with Device(port) as device:
        device.send("hello")
        process.send_signal(number)
        assert device.receive() == 1001
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["message"] == "Shutdown complete."
    assert backend.posts == [{"client_id": "dev1", "data": "hello"}]
    assert (tmp_path / "logs" / "fastsock.log").exists()


def test_flags_and_exit_codes(command: List[str], tmp_path: pathlib.Path) -> None:
    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *args], capture_output=True, text=True, timeout=60, env=environment(), cwd=tmp_path
        )

    assert run("--version").stdout == f"fastsock {fastsock.__version__}\n"
    bad = run("--port", "99999")
    assert bad.returncode == 1 and len(bad.stderr.splitlines()) == 1 and "99999" in bad.stderr
    assert "WEBSOCKET_PORT=3000" in run("--print-config").stdout


def test_python_has_its_handlers_back_and_it_runs_again(tmp_path: pathlib.Path) -> None:
    run = run_script(
        "import os, signal, threading, time\nfrom fastsock.__main__ import main\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "os.environ.update(WEBSOCKET_PORT='0', FASTSOCK_LISTEN_ADDR='127.0.0.1', FASTSOCK_ADMIN_ADDR='off',"
        " FASTSOCK_BROKER='embedded', FASTSOCK_LOG_FILE='serving')\n"
        "def interrupt():\n"
        "    while not (os.path.exists('serving') and 'running on' in open('serving').read()): time.sleep(0.01)\n"
        "    os.remove('serving')\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "for _ in range(2):\n"
        "    threading.Thread(target=interrupt).start()\n"
        "    assert main([]) == 0\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(10)\n"
        "except KeyboardInterrupt:\n    print('as before', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert run.code == -signal.SIGTERM, run.err
    assert run.out.splitlines()[-1] == "as before"
