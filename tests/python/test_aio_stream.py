"""`async for` with several readers: none waits while there is something to read."""

import asyncio
from typing import Any

import fastsock
from device import DEADLINE, Device, eventually
from loops import bridge, off, until


def test_a_reader_cancelled_as_it_is_woken_hands_the_message_on(run: Any) -> None:
    async def main() -> None:
        async with bridge() as b:
            device = await off(Device, b.port)
            stream = b.__aiter__()
            first, second = (asyncio.ensure_future(stream.__anext__()) for _ in range(2))
            await asyncio.sleep(0.05)  # both wait now: nothing shows from outside that a reader does
            loop = asyncio.get_running_loop()

            def cancel_once_woken() -> None:
                # Runs once in each round of the loop: so after the wake-up, and before the reader itself.
                if b.stats()["python"]["events"] == 0:
                    loop.call_soon(cancel_once_woken)
                else:
                    first.cancel()

            cancel_once_woken()
            await off(device.send, "x")
            assert (await asyncio.wait_for(second, DEADLINE)).text == "x"
            assert first.cancelled()
            device.close()

    run(main())


def test_a_busy_reader_keeps_nothing_from_another(run: Any) -> None:
    async def main() -> None:
        async with bridge() as b:
            device = await off(Device, b.port)
            stream = b.__aiter__()
            other = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0.05)  # it waits now: nothing shows that from outside
            for text in ("0", "1"):
                device.send(text)
            eventually(lambda: b.stats()["python"]["waiting"] == 2)  # holds the loop: so this reader comes first
            mine = await stream.__anext__()
            theirs: fastsock.Uplink = await asyncio.wait_for(other, DEADLINE)
            assert {mine.text, theirs.text} == {"0", "1"}
            device.close()

    run(main())


def test_all_readers_end_with_the_bridge(run: Any) -> None:
    async def main() -> None:
        async with bridge() as b:

            async def read() -> int:
                return len([uplink async for uplink in b])

            readers = [asyncio.ensure_future(read()) for _ in range(5)]
            device = await off(Device, b.port)
            await off(lambda: [device.send(str(n)) for n in range(100)])
            await until(lambda: b.stats()["uplink"]["received"] >= 100)
            await b.stop()
            assert sum(await asyncio.gather(*readers)) == 100
            device.close()

    run(main())
