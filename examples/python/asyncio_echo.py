"""Echoes what devices say, in an asyncio loop.

    python asyncio_echo.py

Connect a device to ws://127.0.0.1:3000/?token=dev1; Ctrl-C ends it.
"""

import asyncio

import fastsock


async def main() -> None:
    """Runs until Ctrl-C."""
    async with fastsock.AsyncBridge.from_env() as bridge:
        print("listening on {} port {}".format(*bridge.local_addr), flush=True)
        async for uplink in bridge:
            await bridge.send(uplink.client_id, uplink.text if uplink.is_text else uplink.payload)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped")
