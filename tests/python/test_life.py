"""Life and death: interpreter exit, collection, fork, subinterpreters, signals, starts and stops."""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import weakref
from typing import Any, List

import fastsock
import pytest
from conftest import run_script
from device import DEADLINE, Device, Refused, eventually

BRIDGE = 'import fastsock; bridge = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1", close_timeout=50'


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def test_the_interpreter_exits_with_a_live_bridge() -> None:
    script = (
        "from device import *\n" + BRIDGE + ", on_uplink=lambda u: fastsock.Reply(u.text), on_connect=print,"
        " on_disconnect=lambda *a: print(*a)).start()\n"
        "device = Device(bridge.port)\ndevice.send('x')\nassert device.receive() == 'x'\n"
    )
    for _ in range(20):
        began = time.monotonic()
        run = run_script(script)
        assert (run.code, run.err) == (0, ""), run.err
        assert "shutdown" in run.out, "the last hook ran"
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "os._exit(3)"])
def test_every_way_out_keeps_its_exit_code(end: str) -> None:
    run = run_script("import os, sys\n" + BRIDGE + f").start()\n{end}")
    assert (run.code, run.err) == (3, "")


def test_an_exception_on_the_main_thread_ends_the_process() -> None:
    run = run_script(BRIDGE + ").start()\nraise ValueError('on purpose')")
    assert run.code == 1 and "on purpose" in run.err


def test_the_interpreter_exits_although_a_hook_is_busy() -> None:
    run = run_script(
        "from device import *\nimport threading, time\nbusy = threading.Event()\n"
        "def hook(uplink):\n    busy.set()\n    time.sleep(0.5)\n    print('done')\n"
        + BRIDGE
        + ", on_uplink=hook).start()\ndevice = Device(bridge.port)\ndevice.send('x')\nbusy.wait()"
    )
    # What the hook let through has nowhere to go, which is a warning; nothing else is said.
    said = [line for line in run.err.splitlines() if not line.startswith("Message forwarding skipped: no REMOTE_URL set")]
    assert (run.code, run.out, said) == (0, "done\n", [])


def test_a_bridge_that_is_collected_stops_without_waiting() -> None:
    bridge = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1", on_uplink=lambda _: None)
    before = threads()
    bridge.start()
    device = Device(bridge.port)
    gone = weakref.ref(bridge)
    began = time.monotonic()
    del bridge
    assert gone() is None and time.monotonic() - began < 1
    assert device.receive() in (1001, None)
    eventually(lambda: threads() <= before, "the end of the threads")


def test_a_bridge_in_a_cycle_with_its_hooks_is_collected() -> None:
    class Host:
        def __init__(self) -> None:
            self.bridge = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1", on_uplink=self.on_uplink)

        def on_uplink(self, uplink: fastsock.Uplink) -> Any:
            return fastsock.Reply(uplink.text)

    before = threads()
    host = Host()
    host.bridge.start()
    with Device(host.bridge.port) as device:
        device.send("x")
        assert device.receive() == "x"
        gone = weakref.ref(host.bridge)
        del host
        eventually(lambda: gc.collect() >= 0 and gone() is None, "the collection")
        assert device.receive() in (1001, None)
    eventually(lambda: threads() <= before, "the end of the threads")


def test_a_hundred_starts_and_stops_leave_nothing(start: Any) -> None:
    bridge = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1", on_uplink=lambda _: fastsock.Drop)
    bridge.start().stop()
    before = (threads(), descriptors())
    for _ in range(100):
        with bridge, Device(bridge.port):
            eventually(bridge.clients)
    eventually(lambda: (threads(), descriptors()) <= before, f"{before} threads and descriptors")


def test_stop_in_a_hook_begins_and_wait_sees_the_end(start: Any) -> None:
    told: List[str] = []

    def on_uplink(_: fastsock.Uplink) -> Any:
        bridge.stop()
        with pytest.raises(RuntimeError, match="wait"):
            bridge.wait()
        return fastsock.Drop

    bridge = start(
        close_timeout=50,
        on_uplink=on_uplink,
        on_disconnect=lambda _, reason: told.append(reason),
        on_state=told.append,
    )
    with Device(bridge.port) as device:
        device.send("x")
        assert bridge.wait(DEADLINE) is True
        assert device.receive() == 1001
    assert told[0] == "stopping" and set(told) == {"stopping", "shutdown", "stopped"}
    assert bridge.start().state == "running", "and again"


def test_no_hook_begins_after_stop_returned(start: Any) -> None:
    entered, release, told = threading.Event(), threading.Event(), []

    def on_uplink(_: fastsock.Uplink) -> Any:
        entered.set()
        release.wait(DEADLINE)
        return fastsock.Drop

    bridge = start(on_uplink=on_uplink, on_disconnect=lambda *_: told.append("late"))
    with Device(bridge.port) as device:
        device.send("x")
        assert entered.wait(DEADLINE)
        bridge.stop(0.1)
        release.set()
        eventually(lambda: not [t for t in thread_names() if t.startswith("fastsock")], "the end of its threads")
    assert told == []


def thread_names() -> List[str]:
    """The names of the threads of this process."""
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as comm:
                names.append(comm.read().strip())
        except OSError:
            pass  # it has ended
    return names


def test_a_fork_is_told_and_leaves_the_parent_unharmed(start: Any) -> None:
    bridge = start(on_uplink=lambda _: fastsock.Reply("y"))
    with Device(bridge.port) as device:
        child = os.fork()
        if child == 0:
            try:
                calls = (bridge.clients, bridge.stats, bridge.stop, bridge.start, lambda: bridge.send("dev1", "x"))
                for call in calls:
                    try:
                        call()
                    except fastsock.ForkedError:
                        continue
                    os._exit(1)
                own = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1", on_uplink=lambda _: fastsock.Reply("z"))
                with own.start(), Device(own.port) as device:
                    device.send("x")
                    if device.receive() != "z":
                        os._exit(2)
                os._exit(7)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        device.send("x")
        assert device.receive() == "y"


def test_a_child_that_ends_in_order_does_not_hang() -> None:
    run = run_script(
        "from device import *\nimport os, sys, gc\n" + BRIDGE + ", on_uplink=lambda u: fastsock.Reply(u.text)).start()\n"
        "child = os.fork()\n"
        "if child == 0:\n    del bridge\n    gc.collect()\n    sys.exit(5)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5\n"
        "device = Device(bridge.port)\ndevice.send('x')\nassert device.receive() == 'x'\nprint('unharmed')"
    )
    assert (run.code, run.out) == (0, "unharmed\n"), run.err


BUSY = """
import logging, os, sys, threading
from device import *
import fastsock

class Takes(logging.Handler):
    def emit(self, record): pass

log = logging.getLogger("fastsock")
log.addHandler(Takes())
log.propagate = False
log.setLevel(logging.DEBUG)

def start(name):
    return fastsock.Bridge(
        websocket_port=0, listen_addr="127.0.0.1", remote_url=sys.argv[1], spool="disk", mailbox="disk",
        spool_fsync="interval", data_dir=os.path.join(sys.argv[2], name), close_timeout=50,
    ).start()

def child(name):
    own = start(name)
    def talk(name):
        for _ in range(5):
            with Device(own.port, name) as device:
                for _ in range(20):
                    device.send("x")
    talkers = [threading.Thread(target=talk, args=(f"dev{n}",), daemon=True) for n in range(4)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join(DEADLINE)
        if talker.is_alive():
            os._exit(3)
    own.stop()
    os._exit(7)

parent = start("parent")
print(parent.port)
eventually(lambda: parent.stats()["uplink"]["received"] > 100)
for number in range(10):
    pid = os.fork()
    if pid == 0:
        child(str(number))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 7, code
parent.stop()
print("all of them")
"""


def test_children_of_a_busy_process_run_bridges_of_their_own(popen: Any, backend: Any, tmp_path: Any) -> None:
    """Whatever threads of the bridge wait for at the fork: for the log, the spool, a mailbox, a queue.

    The devices are threads of this process: threads of Python's in the one that forks could leave locks of libc behind.
    """
    process = popen([sys.executable, "-X", "faulthandler", "-c", BUSY, backend.url, str(tmp_path)])
    port = int(process.stdout.readline())

    def talk(name: str) -> None:
        while process.returncode is None:
            try:
                with Device(port, name) as device:
                    for _ in range(20):
                        device.send("x")
            except (OSError, Refused):
                time.sleep(0.01)  # it ends

    talkers = [threading.Thread(target=talk, args=(f"dev{n}",), daemon=True) for n in range(4)]
    for talker in talkers:
        talker.start()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "all of them\n"), err
    for talker in talkers:
        talker.join(DEADLINE)


def in_child(queue: Any, bridge: Any) -> None:
    """What a process of multiprocessing does."""
    try:
        bridge.clients()
    except fastsock.ForkedError as error:
        queue.put(str(error))


def test_multiprocessing_by_fork_is_told(start: Any) -> None:
    bridge = start()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=in_child, args=(queue, bridge))
    process.start()
    assert "parent of this process" in queue.get()
    process.join(DEADLINE)
    assert process.exitcode == 0
    assert bridge.clients() == []


def test_a_subinterpreter_may_not_import_it() -> None:
    if sys.version_info >= (3, 13):
        module = "_interpreters"
    else:
        module = "_xxsubinterpreters"
    run = run_script(
        f"import fastsock, {module} as interpreters\n"
        "id = interpreters.create()\n"
        "source = '''\ntry:\n    import fastsock\nexcept ImportError as e:\n    print('refused', flush=True)\n'''\n"
        "interpreters.run_string(id, source)\n"
        "interpreters.destroy(id)\n"
        "with fastsock.Bridge(websocket_port=0): print('fine')"
    )
    assert (run.code, run.out) == (0, "refused\nfine\n"), run.out + run.err


@pytest.fixture
def spawn(popen: Any) -> Any:
    """Starts Python source in a process of its own, and waits until it says that it is ready."""

    def spawn(script: str) -> Any:
        process = popen([sys.executable, "-c", script])
        assert process.stdout.readline() == "ready\n"
        return process

    return spawn


WAITS = {
    "wait": "bridge.wait()",
    "wait for a time": "bridge.wait(60)",
    "sleep": "time.sleep(60)",
    "call": "bridge.call('dev1', 'x', match=('/id', 1), timeout=60)",
    "drain": "bridge.drain(60)",  # the second device goes after half a minute
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_ctrl_c_ends_the_wait_at_once(spawn: Any, wait: str) -> None:
    process = spawn(
        "import time\nfrom device import *\n"
        + BRIDGE
        + ")\nwith bridge:\n    devices = [Device(bridge.port, f'dev{n}') for n in (1, 2)]\n    try:\n        print('ready')\n"
        f"        {wait}\n    except KeyboardInterrupt:\n        print('interrupted')\nprint(bridge.state)"
    )
    time.sleep(0.1)  # to be in the wait, most likely; it must work in any case
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "interrupted\nstopped\n", "")
    assert time.monotonic() - began < 5


def test_signals_go_to_the_main_thread_alone(spawn: Any) -> None:
    process = spawn(
        "import os, signal, threading, time\nhits = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: hits.append(threading.current_thread().name))\n"
        + BRIDGE
        + ")\nbridge.start()\nprint('ready')\n"
        "while len(hits) < 20: time.sleep(0.002)\nprint(set(hits), flush=True)\nos._exit(0)"
    )
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.01)  # the tempo of the signals
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "{'MainThread'}\n", "")


def test_the_interpreter_is_let_go_while_waiting(start: Any) -> None:
    """A device that connects in this very process could not, if start, wait or stop held the interpreter."""
    bridge = start(on_uplink=lambda _: fastsock.Reply("y"))
    waiting = threading.Thread(target=bridge.wait)
    waiting.start()
    with Device(bridge.port) as device:
        device.send("x")
        assert device.receive() == "y"
    bridge.stop()
    waiting.join(DEADLINE)
    assert not waiting.is_alive()


def test_the_port_is_free_after_stop(start: Any) -> None:
    bridge = start()
    port = bridge.port
    bridge.stop()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def test_attaching_does_not_grow_with_messages(start: Any) -> None:
    bridge = start(on_uplink=lambda _: fastsock.Drop)
    with Device(bridge.port) as device:
        for _ in range(2000):
            device.send("x")
        eventually(lambda: bridge.stats()["uplink"]["dropped_by_hook"] == 2000)
    assert bridge.stats()["python"]["attaches"] == 1
