"""call(): a message to a device and its answer, on threads and in a loop."""

import asyncio
import threading
from typing import Any, List

import fastsock
import pytest
from device import Device
from loops import bridge, off

RESET = '[2,"17","Reset",{"type":"Soft"}]'
ACCEPTED = '[3,"17",{"status":"Accepted"}]'


def test_a_call_returns_what_the_device_answers(start: Any) -> None:
    running = start()
    with Device(running.port, "CP001") as station:

        def answer() -> None:
            assert station.receive() == RESET
            station.send(ACCEPTED)
            station.receive()
            station.send(b'{"id": [7]}')

        answering = threading.Thread(target=answer)
        answering.start()
        assert running.call("CP001", RESET, ocpp=True, timeout=20) == ACCEPTED
        assert running.call("CP001", "x", match=("/id", [7]), timeout=20.0) == b'{"id": [7]}'
        answering.join()
        with pytest.raises(fastsock.UnansweredError) as unanswered:
            running.call("CP001", RESET, ocpp=True, timeout=0.01)
        assert isinstance(unanswered.value, TimeoutError)
        for wrong in ({}, {"ocpp": True, "match": ("/id", 7)}, {"match": ("id", 7)}, {"ocpp": True, "timeout": 601}):
            with pytest.raises(fastsock.ArgumentError):
                running.call("CP001", RESET, **wrong)
        with pytest.raises(fastsock.ArgumentError):
            running.call("CP001", "no call", ocpp=True)
    with pytest.raises(fastsock.NotConnectedError):
        running.call("nobody", RESET, ocpp=True)


def test_a_call_in_a_hook_is_refused_since_it_would_wait_for_itself(start: Any) -> None:
    raised: List[BaseException] = []

    def on_uplink(uplink: fastsock.Uplink) -> None:
        try:
            running.call(uplink.client_id, RESET, ocpp=True)
        except RuntimeError as error:
            raised.append(error)

    running = start(on_uplink=on_uplink)
    with Device(running.port) as device:
        device.send("x")
        running.stop()
    assert len(raised) == 1


def test_calls_in_a_loop_wait_beside_each_other(run: Any) -> None:
    async def main() -> None:
        count = 100
        async with bridge(limit_calls_per_device=count, uplinks="forward") as b:
            device = await off(Device, b.port)

            async def call(number: int) -> None:
                text = '{"n": %d}' % number
                assert await b.call("dev1", text, match=("/n", number), timeout=20) == text

            def echo() -> None:
                said = [device.receive() for _ in range(count)]
                for text in reversed(said):
                    device.send(text)

            await asyncio.gather(off(echo), *map(call, range(count)))
            with pytest.raises(fastsock.NotConnectedError):
                await b.call("nobody", RESET, ocpp=True)
            waiting = asyncio.ensure_future(b.call("dev1", RESET, ocpp=True))
            assert await off(device.receive) == RESET
            with pytest.raises(fastsock.BusyError):
                await b.call("dev1", RESET, ocpp=True)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(fastsock.BusyError):
                await b.call("dev1", RESET, ocpp=True)
            stopped = asyncio.ensure_future(b.call("dev1", "x", match=("/n", 1)))
            assert await off(device.receive) == "x"
            device.close()
            with pytest.raises(fastsock.UnansweredError):
                await stopped

    run(main())
