"""A charging station to try a central system with, made of the PyPI package `ocpp`. It boots, waits for a remote start, charges once
and ends.

    pip install ocpp websockets
    python station.py wss://localhost:3000/ocpp/CP001 --protocol ocpp1.6 --password secret --ca ca.pem
    python station.py wss://localhost:3000/ocpp/CP002 --protocol ocpp2.0.1 --cert CP002.pem --key CP002.key --ca ca.pem
"""

import argparse
import asyncio
import base64
import ssl
import sys
from typing import Any, Union

import ocpp.routing
import ocpp.v16
import ocpp.v201
import websockets
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201

TIME = "2026-01-01T00:00:00Z"


def say(text: str) -> None:
    print(text, flush=True)


def accepted(what: str, status: Any) -> None:
    """Says it, and ends the program unless the central system accepts."""
    say(f"{what} {getattr(status, 'value', status)}")
    if status != "Accepted":
        sys.exit(1)


class Station16(ocpp.v16.ChargePoint):
    """A station that speaks OCPP 1.6."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.started: "asyncio.Future[str]" = asyncio.get_running_loop().create_future()

    @ocpp.routing.on("RemoteStartTransaction")
    def remote_start(self, id_tag: str, **_: Any) -> result16.RemoteStartTransaction:
        if self.started.done():
            return result16.RemoteStartTransaction(status="Rejected")
        self.started.set_result(id_tag)
        return result16.RemoteStartTransaction(status="Accepted")

    async def charge(self) -> None:
        booted = await self.call(call16.BootNotification(charge_point_model="Wallbox", charge_point_vendor="Example"))
        accepted("BootNotification", booted.status)
        beat = await self.call(call16.Heartbeat())
        say(f"Heartbeat {beat.current_time}")
        await self.call(call16.StatusNotification(connector_id=1, error_code="NoError", status="Available"))
        say("ready")
        tag = await self.started
        accepted("Authorize", (await self.call(call16.Authorize(id_tag=tag))).id_tag_info["status"])
        begun = await self.call(call16.StartTransaction(connector_id=1, id_tag=tag, meter_start=1000, timestamp=TIME))
        accepted("StartTransaction", begun.id_tag_info["status"])
        over = call16.StopTransaction(meter_stop=3500, timestamp=TIME, transaction_id=begun.transaction_id)
        accepted("StopTransaction", (await self.call(over)).id_tag_info["status"])


class Station201(ocpp.v201.ChargePoint):
    """A station that speaks OCPP 2.0.1."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.started: "asyncio.Future[Any]" = asyncio.get_running_loop().create_future()

    @ocpp.routing.on("RequestStartTransaction")
    def remote_start(self, id_token: Any, remote_start_id: int, **_: Any) -> result201.RequestStartTransaction:
        if self.started.done():
            return result201.RequestStartTransaction(status="Rejected")
        self.started.set_result((id_token, remote_start_id))
        return result201.RequestStartTransaction(status="Accepted")

    async def charge(self) -> None:
        it = {"model": "Wallbox", "vendor_name": "Example"}
        booted = await self.call(call201.BootNotification(charging_station=it, reason="PowerUp"))
        accepted("BootNotification", booted.status)
        beat = await self.call(call201.Heartbeat())
        say(f"Heartbeat {beat.current_time}")
        await self.call(
            call201.StatusNotification(timestamp=TIME, connector_status="Available", evse_id=1, connector_id=1)
        )
        say("ready")
        token, remote_start_id = await self.started
        accepted("Authorize", (await self.call(call201.Authorize(id_token=token))).id_token_info["status"])
        info = {"transaction_id": "t-1", "remote_start_id": remote_start_id}
        for number, event, energy in ((0, "Started", 1000), (1, "Ended", 3500)):
            meter = [{"timestamp": TIME, "sampled_value": [{"value": energy}]}]
            told = await self.call(
                call201.TransactionEvent(
                    event_type=event,
                    timestamp=TIME,
                    trigger_reason="RemoteStart" if event == "Started" else "RemoteStop",
                    seq_no=number,
                    transaction_info=info,
                    meter_value=meter,
                    id_token=token,
                )
            )
            accepted(f"TransactionEvent {event}", told.id_token_info["status"])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="wss://host/ocpp/<identity>")
    parser.add_argument("--protocol", choices=["ocpp1.6", "ocpp2.0.1"], default="ocpp1.6")
    parser.add_argument("--password", help="for HTTP Basic; the user is the identity")
    parser.add_argument("--cert", help="client certificate, PEM")
    parser.add_argument("--key", help="its key, PEM")
    parser.add_argument("--ca", help="who signed the certificate of the central system, PEM")
    args = parser.parse_args()
    identity = args.url.rsplit("/", 1)[1]
    headers = {}
    if args.password is not None:
        shown = base64.b64encode(f"{identity}:{args.password}".encode()).decode()
        headers["Authorization"] = f"Basic {shown}"
    tls = None
    if args.url.startswith("wss:"):
        tls = ssl.create_default_context(cafile=args.ca)
        if args.cert:
            tls.load_cert_chain(args.cert, args.key)
    connecting = websockets.connect(args.url, subprotocols=[args.protocol], additional_headers=headers, ssl=tls)
    async with connecting as socket:
        assert socket.subprotocol == args.protocol, socket.subprotocol
        kind: Any = {"ocpp1.6": Station16, "ocpp2.0.1": Station201}[args.protocol]
        station: Union[Station16, Station201] = kind(identity, socket)
        listening = asyncio.ensure_future(station.start())
        try:
            await station.charge()
        finally:
            listening.cancel()


if __name__ == "__main__":
    asyncio.run(main())
