"""Hooks in an event loop: their order, their bounds, what is said of those that are stuck, and tasks as asyncio knows them."""

import asyncio
import contextvars
import logging
import sys
import threading
import time
from typing import Any, AsyncIterator, Iterator, List, Set, Tuple

import aiohttp
import fastsock
import pytest
from conftest import Backend, run_script
from device import DEADLINE, Device, eventually
from loops import bridge, off, until


async def ask(device: Device, text: str = "x") -> Any:
    """Sends, and waits for the answer."""
    await off(device.send, text)
    return await off(device.receive)


def say_in_one_turn(b: fastsock.AsyncBridge, *devices: Device) -> None:
    """Sends, and blocks the loop until its hooks have one message of each device before them."""
    for device in devices:
        waiting = b.stats()["python"]["waiting"]
        device.send("x")
        eventually(lambda: b.stats()["python"]["waiting"] > waiting)


def lost(b: fastsock.AsyncBridge) -> int:
    """Uplinks lost since a hook failed."""
    number: int = b.stats()["uplink"]["lost"]["hook_failed"]
    return number


def test_hooks_that_live_as_long_as_their_device_hold_up_nothing(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The habit of other servers: on_connect returns when the device has gone."""
    count = 110

    async def main() -> None:
        alive: Set[str] = set()

        async def on_connect(client: fastsock.Client) -> None:
            alive.add(client.client_id)
            await asyncio.Event().wait()

        async def on_uplink(uplink: fastsock.Uplink) -> Any:
            await asyncio.sleep(0)  # a hook that awaits
            return fastsock.Reply(uplink.text)

        async with bridge(on_connect=on_connect, on_uplink=on_uplink, hook_timeout=2000) as b:
            devices = [await off(Device, b.port, f"dev{n}") for n in range(count)]
            for device in devices:
                await off(device.send, "hello")
            for device in devices:
                assert await off(device.receive) == "hello"
            assert len(alive) == count and lost(b) == 0
            records = await until(lambda: [r for r in caplog.records if r.name == "fastsock.hooks"])
            assert records[0].levelno == logging.WARNING and records[0].fields["hook"] == "on_connect"
            assert records[0].getMessage().startswith("Hook has not returned hook=on_connect running=")
            await b.stop(0.2)
            for device in devices:
                device.close()

    run(main())


def test_notices_have_a_bound_of_their_own(run: Any) -> None:
    async def main() -> None:
        told: List[str] = []
        go = asyncio.Event()

        async def on_connect(client: fastsock.Client) -> None:
            told.append(client.client_id)
            await go.wait()

        async def on_disconnect(client: fastsock.Client, _: fastsock.CloseReason) -> None:
            told.append(f"{client.client_id} left")

        hooks = {"on_connect": on_connect, "on_disconnect": on_disconnect, "on_uplink": lambda _: fastsock.Reply("y")}
        async with bridge(**hooks, max_notices=2, hook_timeout=400) as b:
            devices = [await off(Device, b.port, f"dev{n}") for n in range(3)]
            for device in devices:
                assert await ask(device) == "y"
            assert told == ["dev0", "dev1"], "the third waits for its turn"
            devices[0].close()
            await until(lambda: "dev0 left" in told)
            go.set()
            await until(lambda: "dev2" in told)
            for device in devices:
                device.close()

    run(main())


def test_stop_keeps_its_word_although_hooks_never_return(run: Any) -> None:
    async def main() -> None:
        begun: List[str] = []

        async def never(subject: Any, *_: Any) -> None:
            begun.append(subject)
            await asyncio.Event().wait()

        b = bridge(on_connect=never, on_uplink=never, on_disconnect=never, on_state=never, hook_timeout=60_000)
        await b.start()
        device = await off(Device, b.port)
        other = await off(Device, b.port, "dev2")
        await off(device.send, "x")
        await until(lambda: len(begun) >= 2)
        began = time.monotonic()
        await b.stop(0.5)
        assert time.monotonic() - began < 2.5
        assert b.state == "stopped" and len(asyncio.all_tasks()) <= 2
        device.close()
        other.close()

    run(main())


def test_a_hook_may_finish_its_work_while_the_bridge_stops(run: Any) -> None:
    async def main() -> None:
        done: List[str] = []

        async def on_disconnect(client: fastsock.Client, _: fastsock.CloseReason) -> None:
            await asyncio.sleep(0.2)  # so that a stop has to wait for it
            done.append(client.client_id)

        async with bridge(on_disconnect=on_disconnect) as b:
            device = await off(Device, b.port)
            await until(b.clients)
        assert done == ["dev1"]
        device.close()

    run(main())


def test_a_decision_whose_time_is_over_is_cancelled_and_told(run: Any) -> None:
    async def main() -> None:
        errors: List[Tuple[str, BaseException]] = []
        ends: List[str] = []

        async def on_uplink(uplink: fastsock.Uplink) -> Any:
            if uplink.text == "hang":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    ends.append(uplink.client_id)
                    raise
            return fastsock.Reply(uplink.text)

        settings = {"max_hooks": 1, "hook_timeout": 300}
        async with bridge(on_uplink=on_uplink, on_error=lambda *args: errors.append(args), **settings) as b:
            device, other = [await off(Device, b.port, f"dev{n}") for n in range(2)]
            await off(device.send, "hang")
            await until(lambda: lost(b) == 1)
            await until(lambda: ends)
            assert await ask(other) == "x" and await ask(device) == "x", "its place is free again"
            ((name, error),) = errors
            assert name == "on_uplink" and isinstance(error, asyncio.TimeoutError)
            assert str(error) == "on_uplink of 'dev0' did not answer within hook_timeout, 0.3 s, and was cancelled"
            device.close()
            other.close()

    run(main())


def test_a_hook_that_ends_itself_by_cancelling_is_told(run: Any) -> None:
    async def main() -> None:
        errors: List[Tuple[str, type]] = []

        async def on_uplink(_: fastsock.Uplink) -> Any:
            await asyncio.sleep(0)  # a hook that awaits
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

        async with bridge(on_uplink=on_uplink, on_error=lambda name, e: errors.append((name, type(e)))) as b:
            device = await off(Device, b.port)
            await off(device.send, "x")
            await until(lambda: lost(b) == 1)
            assert errors == [("on_uplink", asyncio.CancelledError)]
            device.close()

    run(main())


@pytest.mark.parametrize("kind", ["def hook(*_):", "async def hook(*_):", "async def hook(*_):\n    await asyncio.sleep(0.01)"])
@pytest.mark.parametrize(("error", "code"), [("SystemExit(7)", 7), ("KeyboardInterrupt", 8)])
@pytest.mark.parametrize("name", ["on_uplink", "on_connect"])
def test_what_ends_a_program_ends_it_from_a_hook_too(kind: str, error: str, code: int, name: str) -> None:
    run = run_script(
        "import asyncio, fastsock, sys\nfrom device import Device\n"
        f"{kind}\n    raise {error}\n"
        "async def main():\n"
        f"    async with fastsock.AsyncBridge(websocket_port=0, listen_addr='127.0.0.1', close_timeout=50, {name}=hook) as b:\n"
        "        device = await asyncio.get_running_loop().run_in_executor(None, Device, b.port)\n"
        "        device.send('x')\n"
        "        await asyncio.sleep(20)\n"
        "try: asyncio.run(main())\nexcept KeyboardInterrupt: sys.exit(8)"
    )
    assert (run.code, run.out, run.err) == (code, "", "")


def test_each_message_has_a_context_of_its_own(run: Any) -> None:
    async def main() -> None:
        user: "contextvars.ContextVar[str]" = contextvars.ContextVar("user", default="nobody")
        user.set("starter")
        seen: List[str] = []

        async def on_uplink(uplink: fastsock.Uplink) -> Any:
            seen.append(user.get())
            user.set(uplink.client_id)
            await asyncio.sleep(0)  # a turn of the loop, for others
            seen.append(user.get())
            return fastsock.Reply("y")

        def on_connect(client: fastsock.Client) -> None:
            seen.append(user.get())
            user.set(client.client_id)

        async with bridge(on_uplink=on_uplink, on_connect=on_connect) as b:
            device = await off(Device, b.port)
            for _ in range(2):
                assert await ask(device) == "y"
            device.close()
        assert seen == ["starter", "starter", "dev1", "starter", "dev1"]

    run(main())


def test_a_hook_is_a_task_as_asyncio_knows_it(run: Any, backend: Backend) -> None:
    """What needs a current task works on the first line of a hook, before anything has suspended."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session:

            async def on_uplink(uplink: fastsock.Uplink) -> Any:
                async with session.post(backend.url, json={"text": uplink.text}) as answer:
                    assert answer.status == 204
                if sys.version_info >= (3, 11):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await asyncio.sleep(10)  # longer than its time-out
                    async with asyncio.TaskGroup() as group:
                        parts = [group.create_task(asyncio.sleep(0, part)) for part in ("a", "b")]
                    text = "".join(part.result() for part in parts)
                else:
                    text = "".join(await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")))
                assert asyncio.current_task() in asyncio.all_tasks()
                return fastsock.Reply(text)

            async with bridge(on_uplink=on_uplink) as b:
                device = await off(Device, b.port)
                assert [await ask(device, str(n)) for n in range(3)] == ["ab"] * 3
                device.close()
        assert [post["text"] for post in backend.posts] == ["0", "1", "2"]

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout and TaskGroup come with Python 3.11")
def test_a_time_limit_on_the_first_line_of_a_hook(run: Any) -> None:
    async def main() -> None:
        if sys.version_info < (3, 11):
            return

        async def on_uplink(_: fastsock.Uplink) -> Any:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)  # longer than its time-out
            except TimeoutError:
                return fastsock.Reply("in time")

        async def on_connect(client: fastsock.Client) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(b.send(client.client_id, "welcome"))

        async with bridge(on_uplink=on_uplink, on_connect=on_connect) as b:
            device = await off(Device, b.port)
            assert await off(device.receive) == "welcome"
            assert await ask(device) == "in time"
            device.close()

    run(main())


def test_the_task_factory_of_a_loop_is_used(run: Any) -> None:
    async def main() -> None:
        made: List[str] = []

        def factory(loop: Any, coroutine: Any, **keywords: Any) -> Any:
            made.append(coroutine.__qualname__)
            return asyncio.Task(coroutine, loop=loop, **keywords)

        async def on_uplink(_: fastsock.Uplink) -> Any:
            return fastsock.Reply("y")

        asyncio.get_running_loop().set_task_factory(factory)
        async with bridge(on_uplink=on_uplink) as b:
            device = await off(Device, b.port)
            assert await ask(device) == "y"
            device.close()
        assert made

    run(main())


def test_on_error_may_be_a_coroutine_function(run: Any) -> None:
    async def main() -> None:
        told: List[Tuple[str, type]] = []

        async def on_error(name: str, error: BaseException) -> None:
            await asyncio.sleep(0.01)  # a hook that awaits
            told.append((name, type(error)))

        def on_connect(_: fastsock.Client) -> None:
            raise ZeroDivisionError

        async with bridge(on_connect=on_connect, on_error=on_error) as b:
            device = await off(Device, b.port)
            await until(lambda: told)
            assert told == [("on_connect", ZeroDivisionError)]
            assert b.stats()["python"]["hook_errors"] == 1
            device.close()

    run(main())


def test_an_on_error_that_fails_hides_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: List[Tuple[type, Any]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append((args.exc_type, args.object)))

    async def main() -> None:
        async def on_error(*_: Any) -> None:
            await asyncio.sleep(0)  # a hook that awaits
            raise KeyError

        def on_connect(_: fastsock.Client) -> None:
            raise ZeroDivisionError

        async with bridge(on_connect=on_connect, on_error=on_error) as b:
            device = await off(Device, b.port)
            await until(lambda: len(told) == 2)
            assert told == [(ZeroDivisionError, on_connect), (KeyError, on_error)]
            device.close()

    run(main())


def test_states_are_told_one_after_the_other(run: Any) -> None:
    async def main() -> None:
        told: List[str] = []

        async def on_state(state: fastsock.State) -> None:
            await asyncio.sleep(0.05 if state == "stopping" else 0)  # so that another state could overtake it
            told.append(state)

        async with bridge(on_state=on_state):
            pass
        assert told == ["stopping", "stopped"]

    run(main())


def test_a_generator_that_a_hook_returns_is_told(run: Any) -> None:
    """Calling it runs nothing, so that nobody would ever know."""

    async def main() -> None:
        errors: List[str] = []

        def on_connect(_: fastsock.Client) -> Iterator[None]:
            yield

        async def on_disconnect(_: fastsock.Client, __: fastsock.CloseReason) -> AsyncIterator[None]:
            yield

        hooks = {"on_connect": lambda *args: on_connect(*args), "on_disconnect": lambda *args: on_disconnect(*args)}
        async with bridge(**hooks, on_error=lambda _, error: errors.append(str(error))) as b:
            device = await off(Device, b.port)
            device.close()
            await until(lambda: len(errors) == 2)
        assert errors == [f"{name} returned a generator, of which nothing has run" for name in hooks]

    run(main())


def test_an_exception_that_is_returned_is_no_answer(run: Any) -> None:
    async def main() -> None:
        errors: List[str] = []
        hooks: Any = {"on_uplink": lambda _: ValueError("x"), "on_error": lambda _, error: errors.append(str(error))}
        async with bridge(**hooks) as b:
            device = await off(Device, b.port)
            await off(device.send, "x")
            await until(lambda: lost(b) == 1)
            assert errors == ["on_uplink returns None, Drop, Replace, Reply or Later, not <class 'ValueError'>"]
            device.close()

    run(main())


def test_an_answer_that_comes_at_once_does_not_wait_for_the_loop(run: Any) -> None:
    """Hooks without a suspension run where the message is drained, from Python 3.12 on."""

    async def main() -> None:
        tasks: List[Any] = []

        async def on_uplink(_: fastsock.Uplink) -> Any:
            tasks.append(asyncio.current_task())
            return fastsock.Reply("y")

        async with bridge(on_uplink=on_uplink) as b:
            device = await off(Device, b.port)
            for _ in range(3):
                assert await ask(device) == "y"
            device.close()
        assert len(set(tasks)) == 3 and all(task.done() for task in tasks)

    run(main())


def test_stop_on_the_first_line_of_a_hook_does_not_wait_for_itself(run: Any) -> None:
    async def main() -> None:
        async def on_uplink(_: fastsock.Uplink) -> Any:
            await b.stop(DEADLINE)
            return fastsock.Drop

        async with bridge(on_uplink=on_uplink) as b:
            device = await off(Device, b.port)
            began = time.monotonic()
            await off(device.send, "x")
            await b.wait()
            assert time.monotonic() - began < DEADLINE / 2
            device.close()

    run(main())


def test_what_hooks_of_one_turn_reply_and_send_keeps_its_order(run: Any) -> None:
    """Replies are handed over at the end of a turn; what a later hook sends, and a disconnect, come after them all the same."""

    async def main() -> None:
        async def on_uplink(uplink: fastsock.Uplink) -> Any:
            if uplink.client_id == "a":
                return fastsock.Reply("1")
            assert await b.send("a", "2") == "here"
            assert b.disconnect("a")
            return fastsock.Drop

        async with bridge(on_uplink=on_uplink) as b:
            a, other = [await off(Device, b.port, name) for name in ("a", "b")]
            say_in_one_turn(b, a, other)
            assert await off(a.receive) == "1"
            assert await off(a.receive) == "2"
            assert await off(a.receive) == 4510
            other.close()

    run(main())


def test_a_device_does_not_wait_for_hooks_of_others_that_block(run: Any) -> None:
    """They should not, but what was answered before them goes out."""

    async def main() -> None:
        has_answer = threading.Event()

        async def on_uplink(uplink: fastsock.Uplink) -> Any:
            if uplink.client_id == "a":
                time.sleep(0.005)
            else:
                assert has_answer.wait(DEADLINE)
            return fastsock.Reply("y")

        def hear(device: Device) -> None:
            assert device.receive() == "y"
            has_answer.set()

        async with bridge(on_uplink=on_uplink) as b:
            a, other = [await off(Device, b.port, name) for name in ("a", "b")]
            say_in_one_turn(b, a, other)
            await off(hear, a)
            assert await off(other.receive) == "y"
            a.close()
            other.close()

    run(main())
