"""A device for Fastsock: `python3 device.py ws://127.0.0.1:3000/?token=dev1` (pip install websockets)."""

import asyncio
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

STOP = {4410, 4501, 4503, 4509, 4510}  # gone, new token needed, forbidden, replaced, kicked


async def live(url: str) -> int | None:
    """One session; returns the close code, or None when there was no answer at all."""
    async with connect(url, max_size=16 << 20, ping_interval=None) as socket:
        await socket.send("hello from the device")
        try:
            async for message in socket:  # pings are answered by the library
                print("downlink:", message, flush=True)
        except ConnectionClosed:
            pass
        return socket.close_code


async def main(url: str) -> None:
    failures = 0
    while True:
        try:
            code = await live(url)
            failures = 0
        except InvalidStatus as refused:
            code = refused.response.status_code
        except OSError:
            code = None
        if code in STOP or code in {400, 401, 403}:
            sys.exit(f"told to stop: {code}")
        failures += 1
        # Full jitter: a fleet that lost its gateway together must not come back together.
        await asyncio.sleep(random.uniform(0, min(60, 2**failures)))


asyncio.run(main(sys.argv[1]))
