"""AsyncBridge: the same bridge in an event loop, asyncio's own and uvloop."""

import asyncio
import logging
from typing import Any, AsyncIterator, Iterator, List, Tuple

import fastsock
import pytest
from conftest import Backend, run_script
from device import Device, Refused, eventually
from loops import bridge, off, until


def test_async_for_gets_what_devices_say_and_send_reaches_them(run: Any) -> None:
    async def main() -> None:
        async with bridge() as b:
            device = await off(Device, b.port)
            await off(device.send, "hello")
            async for uplink in b:
                assert (uplink.client_id, uplink.text) == ("dev1", "hello")
                assert await b.send(uplink.client_id, b"back") == "here"
                break
            assert await off(device.receive) == b"back"
            assert await b.send("nobody", "x") == "offline"
            assert [client.client_id for client in b.clients()] == ["dev1"]
            assert b.disconnect("dev1") is True
            assert await off(device.receive) == 4510
            device.close()
        assert b.state == "stopped"

    run(main())


def test_a_stream_keeps_its_order_and_one_wake_is_for_many(run: Any) -> None:
    async def main() -> None:
        count, rounds = 1_000, 20
        async with bridge() as b:
            device = await off(Device, b.port)
            numbers = []
            for each in range(rounds):
                for n in range(count):
                    device.send(str(each * count + n))
                # The loop stands still until all of them wait for it: so many there are, however slow the machine is.
                eventually(lambda: b.stats()["python"]["waiting"] == count)
                async for uplink in b:
                    numbers.append(int(uplink.text))
                    if len(numbers) == (each + 1) * count:
                        break
            assert numbers == list(range(rounds * count))
            books = b.stats()
            assert books["uplink"]["dropped_by_hook"] == rounds * count
            assert books["python"]["wakes"] < rounds * count / 100, "a wake is for many messages when there are many"
            device.close()

    run(main())


def test_a_slow_reader_holds_up_the_device_and_nothing_is_lost(run: Any) -> None:
    async def main() -> None:
        count, size = 600, 65_536
        async with bridge(hook_timeout=60_000) as b:
            device = await off(Device, b.port)
            sending = asyncio.ensure_future(off(lambda: [device.send(b"%06d" % n + bytes(size)) for n in range(count)]))
            await until(lambda: b.stats()["counters"]["reads_paused"] > 0 or b.stats()["python"]["waiting"] > 200)
            await asyncio.sleep(0.2)  # nothing says that no more comes
            assert not sending.done() and b.stats()["python"]["waiting"] < 400, "at most 16 MiB are held"
            seen = 0
            async for uplink in b:
                assert int(uplink.payload[:6]) == seen
                seen += 1
                if seen == count:
                    break
            await sending
            device.close()

    run(main())


def test_coroutine_hooks_decide(run: Any, backend: Backend) -> None:
    async def authenticate(request: fastsock.ConnectRequest) -> Any:
        await asyncio.sleep(0.01)  # a hook that awaits
        if request.token == "bad":
            raise fastsock.Reject(401, "no")
        if request.token == "broken":
            raise ZeroDivisionError
        return f"{request.token}!"

    async def on_uplink(uplink: fastsock.Uplink) -> Any:
        await asyncio.sleep(0.01)  # a hook that awaits
        if uplink.text == "raise":
            raise KeyError
        return {"a": None, "b": fastsock.Drop, "c": fastsock.Replace("C"), "d": fastsock.Reply("D"), "e": 5}[uplink.text]

    async def main() -> None:
        errors: List[Tuple[str, type]] = []
        b = bridge(
            remote_url=backend.url,
            authenticate=authenticate,
            on_uplink=on_uplink,
            on_error=lambda name, error: errors.append((name, type(error))),
        )
        async with b:
            for token, status in (("bad", 401), ("broken", 503)):
                with pytest.raises(Refused) as refused:
                    await off(Device, b.port, token)
                assert refused.value.status == status
            device = await off(Device, b.port)
            assert [client.client_id for client in b.clients()] == ["dev1!"]
            for text in ("a", "b", "raise", "e", "c", "d"):
                device.send(text)
            assert await off(device.receive) == "D"
            await until(lambda: len(backend.posts) == 2)
            assert [post["data"] for post in backend.posts] == ["a", "C"]
            assert b.stats()["uplink"]["lost"]["hook_failed"] == 2
            with pytest.raises(TypeError, match='uplinks="take"'):
                b.__aiter__()
            device.close()
        assert errors == [("authenticate", ZeroDivisionError), ("on_uplink", KeyError), ("on_uplink", TypeError)]

    run(main())


def test_hooks_of_one_device_run_in_order_and_not_at_once(run: Any) -> None:
    told: List[str] = []

    async def on_connect(_: fastsock.Client) -> None:
        await asyncio.sleep(0.05)  # so that a message could overtake it
        told.append("connected")

    async def on_disconnect(_: fastsock.Client, reason: fastsock.CloseReason) -> None:
        told.append(reason)

    async def main() -> None:
        async with bridge(on_connect=on_connect, on_disconnect=on_disconnect, on_state=told.append) as b:
            device = await off(Device, b.port)
            device.close()
            await until(lambda: len(told) == 2)
        assert told == ["connected", "connection_lost", "stopping", "stopped"]

    run(main())


def test_hooks_beside_each_other_are_bounded(run: Any) -> None:
    active, most = 0, 0

    async def on_uplink(_: fastsock.Uplink) -> Any:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.02)  # so that hooks run at once
        active -= 1
        return fastsock.Reply("ok")

    async def main() -> None:
        async with bridge(on_uplink=on_uplink, max_hooks=3) as b:
            devices = [await off(Device, b.port, f"dev{n}") for n in range(12)]
            for device in devices:
                device.send("x")
            for device in devices:
                assert await off(device.receive) == "ok"
                device.close()
        assert 1 < most <= 3

    run(main())


def test_without_a_remote_uplinks_are_taken_and_with_one_forwarded(run: Any, backend: Backend) -> None:
    async def main() -> None:
        async with bridge(remote_url=backend.url) as b:
            device = await off(Device, b.port)
            device.send("x")
            await until(lambda: backend.posts)
            with pytest.raises(TypeError):
                async for _ in b:
                    pass
            device.close()
        async with bridge(remote_url=backend.url, uplinks="take") as b:
            device = await off(Device, b.port)
            device.send("y")
            assert (await b.__aiter__().__anext__()).text == "y"
            device.close()
        with pytest.raises(fastsock.ArgumentError, match='"forward" or "take"'):
            bridge(uplinks="nonsense")

    run(main())


def test_async_for_ends_with_the_bridge(run: Any) -> None:
    async def main() -> None:
        async with bridge() as b:

            async def consume() -> List[str]:
                return [uplink.text async for uplink in b]

            consumer = asyncio.ensure_future(consume())
            device = await off(Device, b.port)
            device.send("last words")
            await until(lambda: b.stats()["uplink"]["received"] == 1)
            assert not await b.stop()
            assert await consumer == ["last words"]
            device.close()

    run(main())


def test_a_cancelled_reader_leaves_the_stream_usable(run: Any) -> None:
    async def main() -> None:
        async with bridge() as b:
            stream = b.__aiter__()
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(stream.__anext__(), 0.02)
            device = await off(Device, b.port)
            device.send("x")
            assert (await stream.__anext__()).text == "x"
            device.close()

    run(main())


def test_cancelling_the_task_stops_the_bridge(run: Any) -> None:
    started: List[fastsock.AsyncBridge] = []

    async def serve() -> None:
        async with bridge() as b:
            started.append(b)
            await b.wait()

    async def main() -> None:
        task = asyncio.ensure_future(serve())
        await until(lambda: started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert started[0].state == "stopped"

    run(main())


def test_stop_in_a_hook_and_start_again(run: Any) -> None:
    async def main() -> None:
        async def on_uplink(_: fastsock.Uplink) -> Any:
            await b.stop()
            return fastsock.Drop

        b = bridge(on_uplink=on_uplink)
        for _ in range(2):
            await b.start()
            device = await off(Device, b.port)
            device.send("x")
            await b.wait()
            assert b.state == "stopped"
            assert await off(device.receive) == 1001
            device.close()

    run(main())


def test_the_log_arrives_in_the_loop(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastsock")

    async def main() -> None:
        async with bridge() as b:
            device = await off(Device, b.port)
            await until(lambda: [r for r in caplog.records if r.getMessage().startswith("Client connected")])
            device.close()

    run(main())


def test_a_loop_that_is_closed_with_a_live_bridge_does_no_harm() -> None:
    run = run_script(
        "import asyncio, fastsock\n"
        "async def main():\n"
        "    global bridge\n"
        "    bridge = fastsock.AsyncBridge(websocket_port=0, listen_addr='127.0.0.1', on_state=print)\n"
        "    await bridge.start()\n"
        "asyncio.run(main())\nprint('ended')"
    )
    assert (run.code, run.out, run.err) == (0, "ended\n", "")


def test_ctrl_c_ends_asyncio_run() -> None:
    run = run_script(
        "import asyncio, fastsock, os, signal\n"
        "async def main():\n"
        "    async with fastsock.AsyncBridge(websocket_port=0, listen_addr='127.0.0.1') as bridge:\n"
        "        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)\n"
        "        try:\n            async for _ in bridge: pass\n"
        "        finally: print('leaving')\n"
        "try: asyncio.run(main())\nexcept KeyboardInterrupt: print('interrupted')"
    )
    assert (run.code, run.out, run.err) == (0, "leaving\ninterrupted\n", "")


def test_what_is_no_hook_is_refused() -> None:
    with pytest.raises(TypeError, match="on_connect is not callable"):
        bridge(on_connect=5)
    with pytest.raises(fastsock.ArgumentError, match="exclude each other"):
        bridge(on_uplink=print, uplinks="take")
    for name in ("max_hooks", "max_notices"):
        with pytest.raises(fastsock.ArgumentError, match=f"{name} is at least 1, not 0"):
            bridge(**{name: 0})

    def generator(_: Any) -> Iterator[None]:
        yield

    async def async_generator(_: Any) -> AsyncIterator[None]:
        yield

    for hook in (generator, async_generator):
        with pytest.raises(TypeError, match="on_connect is a generator function: calling it runs nothing of it"):
            bridge(on_connect=hook)
    with pytest.raises(fastsock.ConfigError):
        bridge(websocket_port=-1)


def test_hooks_can_be_given_by_decorators_and_as_methods(run: Any) -> None:
    class Mine(fastsock.AsyncBridge):
        def __init__(self, name: str) -> None:
            super().__init__(websocket_port=0, listen_addr="127.0.0.1", close_timeout=50)
            self.name = name
            self.seen: List[str] = []

        async def on_connect(self, client: fastsock.Client) -> None:  # type: ignore[override]
            self.seen.append(client.client_id)

    async def main() -> None:
        b = Mine("mine")

        @b.on_uplink
        async def on_uplink(uplink: fastsock.Uplink) -> fastsock.Reply:
            return fastsock.Reply(f"{b.name}: {uplink.text}")

        @b.on_disconnect
        def on_disconnect(_: fastsock.Client, reason: fastsock.CloseReason) -> None:
            b.seen.append(reason)

        with pytest.raises(fastsock.ArgumentError, match="there is an on_uplink already"):
            b.on_uplink(on_uplink)
        async with b:
            device = await off(Device, b.port)
            await off(device.send, "x")
            assert await off(device.receive) == "mine: x"
            assert await b.send(client_id="dev1", payload="y") == "here"
            assert b.disconnect(client_id="dev1", code=4000, reason="bye") is True
            with pytest.raises(RuntimeError, match="on_state: the bridge runs; give its hooks before"):
                b.on_state(b.seen.append)
            await until(lambda: len(b.seen) == 2)
            device.close()
        assert b.seen == ["dev1", "bye"]

    run(main())


def test_a_time_that_is_none_is_refused() -> None:
    async def main() -> None:
        async with bridge() as b:
            for timeout in (float("nan"), -1.0):
                with pytest.raises(fastsock.ArgumentError, match="a timeout is 0 or more seconds"):
                    await b.stop(timeout)
            assert b.state == "running"

    asyncio.run(main())


def test_nothing_works_before_the_start() -> None:
    async def main() -> None:
        b = bridge()
        assert b.state == "stopped" and repr(b) == "<fastsock.AsyncBridge stopped>"
        with pytest.raises(fastsock.StoppedError):
            await b.send("dev1", "x")
        with pytest.raises(fastsock.StoppedError):
            b.clients()
        await b.wait()
        assert not await b.stop()

    asyncio.run(main())
    assert eventually(lambda: True)
