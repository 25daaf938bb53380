"""A FastAPI app with devices in it: what they say is POSTed to the app itself, and its endpoints push back.

    pip install fastapi uvicorn
    REMOTE_URL=http://127.0.0.1:8000/uplink uvicorn fastapi_app:app

Connect a device to ws://127.0.0.1:3000/?token=dev1, then: curl -d '"hello"' http://127.0.0.1:8000/devices/dev1
(one worker: each has a bridge of its own; see django_or_flask.md for more).
"""

import contextlib
from typing import AsyncIterator, Dict, List

import fastapi
import pydantic

import fastsock


class Said(pydantic.BaseModel):
    """What the bridge POSTs."""

    client_id: str
    data: str


bridge = fastsock.AsyncBridge.from_env()


@contextlib.asynccontextmanager
async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
    """The bridge runs as long as the app."""
    async with bridge:
        yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/uplink", status_code=204)
async def uplink(said: Said) -> None:
    """Takes what a device says, and answers it."""
    await bridge.send(said.client_id, f"you said {said.data}")


@app.post("/devices/{client_id}")
async def push(client_id: str, message: str = fastapi.Body()) -> Dict[str, str]:
    """Sends a message to a device."""
    return {"sent": await bridge.send(client_id, message)}


@app.get("/devices")
async def devices() -> List[str]:
    """Who is connected."""
    return sorted(client.client_id for client in bridge.clients())
