"""A device made with the PyPI package `websockets`: everything a session has, seen by a library that is not ours."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def main(port: int) -> None:
    address = f"ws://127.0.0.1:{port}"
    # Offers permessage-deflate, as it does by default, and two subprotocols.
    async with connect(f"{address}/?token=py%201", subprotocols=["first", "second"]) as socket:
        assert socket.subprotocol == "first", socket.subprotocol
        assert socket.protocol.extensions == [], socket.protocol.extensions
        await socket.send("text ü")
        await socket.send(b"\x00\xff")
        await socket.send(["in ", "three ", "fragments"])
        await socket.send("x" * 200_000)
        pong = await socket.ping(b"are you there")
        await asyncio.wait_for(pong, 10)
        print("ready", flush=True)
        assert await asyncio.wait_for(socket.recv(), 10) == "down ü"
        assert await asyncio.wait_for(socket.recv(), 10) == ""
        assert len(await asyncio.wait_for(socket.recv(), 10)) == 1 << 20
        await socket.close(4000, "done")
        assert socket.close_code == 4000, socket.close_code

    try:
        await connect(f"{address}/")
        raise AssertionError("let in without a token")
    except InvalidStatus as refused:
        assert refused.response.status_code == 401, refused

    async with connect(f"{address}/?token=old") as old, connect(f"{address}/?token=old"):
        try:
            await asyncio.wait_for(old.recv(), 10)
            raise AssertionError("not replaced")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4509, "replaced"), closed

    async with connect(f"{address}/?token=big", max_size=None) as socket:
        await socket.send(b"x" * ((1 << 20) + 1))
        try:
            await asyncio.wait_for(socket.recv(), 10)
            raise AssertionError("not too big")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 1009, closed
    print("done", flush=True)


asyncio.run(main(int(sys.argv[1])))
