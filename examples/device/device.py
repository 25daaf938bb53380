"""A device for Fastsock: `python3 device.py ws://127.0.0.1:3000/?token=dev1` (websockets 13 or newer)."""

import asyncio
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

STOP = {400, 401, 403, 4410, 4501, 4503, 4509, 4510}  # not allowed, gone, new token needed, forbidden, replaced, kicked
BACK_OFF = {1011, 1013, 4429}  # internal error, try again later, too many


async def live(url: str) -> "int | None":
    """One session; returns its close code, the status that refused it, or None when there was no answer at all."""
    try:
        async with connect(url, max_size=16 << 20, ping_interval=None) as socket:
            try:
                await socket.send("hello from the device")
                async for message in socket:  # pings are answered by the library
                    print("downlink:", message, flush=True)
            except ConnectionClosed:
                pass
            return socket.close_code
    except InvalidStatus as refused:
        return refused.response.status_code
    except (OSError, asyncio.TimeoutError, WebSocketException):
        return None


async def main(url: str) -> None:
    failures = 0
    while True:
        code = await live(url)
        if code in STOP:
            sys.exit(f"told to stop: {code}")
        worked = code is not None and code >= 1000 and code not in BACK_OFF
        failures = 1 if worked else failures + 1
        # Full jitter: a fleet that lost its gateway together must not come back together.
        await asyncio.sleep(random.uniform(0, min(60, 2**failures)))


asyncio.run(main(sys.argv[1]))
