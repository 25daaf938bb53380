"""A small central system for OCPP 1.6 and 2.0.1: an HTTP backend behind Fastsock, without a WebSocket of its own.

    pip install fastapi uvicorn
    uvicorn central:app --port 8000

Fastsock POSTs each message of a station to /ocpp/<station>, and what this answers goes back to it. To start a transaction, the page
at / asks the station through Fastsock's admin listener (FASTSOCK_ADMIN, http://127.0.0.1:3001). README.md has the gateway's settings.

All it knows is in its memory, and whoever reaches the page may start transactions: it shows how things fit together. Run one worker.
"""

import asyncio
import collections
import html
import itertools
import json
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Optional, Tuple

import fastapi
from fastapi.responses import HTMLResponse

ADMIN = os.environ.get("FASTSOCK_ADMIN", "http://127.0.0.1:3001")
TOKEN = os.environ.get("FASTSOCK_ADMIN_TOKEN", "")
TAGS = set(os.environ.get("TAGS", "04A2B3C4").split(","))
"""The RFID cards that may charge."""

CALL, CALLRESULT = 2, 3
Payload = Dict[str, Any]


class Station:
    """What is known of a charging station."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.protocol = ""
        self.model = ""
        self.status = "unknown"
        self.transactions: Dict[str, Payload] = {}
        self.calls = asyncio.Lock()
        """OCPP allows one call at a time."""


class NotCalled(Exception):
    """The station could not be asked, or did not answer."""


stations: Dict[str, Station] = {}
numbers = itertools.count(1)
answered: "collections.OrderedDict[str, str]" = collections.OrderedDict()
"""Answers by the Idempotency-Key of the POST: Fastsock repeats one when it did not get the response."""
app = fastapi.FastAPI()


# What stations ask.


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def verdict(tag: str) -> Payload:
    return {"status": "Accepted" if tag in TAGS else "Invalid"}


def boot(station: Station, asked: Payload) -> Payload:
    names = asked.get("chargingStation", asked)  # 2.0.1, 1.6
    station.model = f"{names.get('vendorName') or names.get('chargePointVendor')} {names.get('model') or names.get('chargePointModel')}"
    return {"currentTime": now(), "interval": 300, "status": "Accepted"}


def heartbeat(station: Station, asked: Payload) -> Payload:
    return {"currentTime": now()}


def status(station: Station, asked: Payload) -> Payload:
    station.status = asked.get("connectorStatus") or asked["status"]
    return {}


def authorize_16(station: Station, asked: Payload) -> Payload:
    return {"idTagInfo": verdict(asked["idTag"])}


def start_transaction(station: Station, asked: Payload) -> Payload:
    info = verdict(asked["idTag"])
    number = next(numbers)
    if info["status"] == "Accepted":
        station.transactions[str(number)] = {"tag": asked["idTag"], "state": "Started", "from": asked["meterStart"]}
    return {"transactionId": number, "idTagInfo": info}


def stop_transaction(station: Station, asked: Payload) -> Payload:
    transaction = station.transactions.setdefault(str(asked["transactionId"]), {"tag": asked.get("idTag", "")})
    used = asked["meterStop"] - transaction.get("from", asked["meterStop"])
    transaction.update(state="Ended", used=f"{used / 1000:.2f} kWh")
    return {"idTagInfo": {"status": "Accepted"}}


def authorize_201(station: Station, asked: Payload) -> Payload:
    return {"idTokenInfo": verdict(asked["idToken"]["idToken"])}


def transaction_event(station: Station, asked: Payload) -> Payload:
    number = asked["transactionInfo"]["transactionId"]
    transaction = station.transactions.setdefault(number, {"tag": ""})
    transaction["state"] = asked["eventType"]
    for meter in asked.get("meterValue", []):
        for sample in meter["sampledValue"]:
            transaction.setdefault("from", sample["value"])
            transaction["used"] = f"{(sample['value'] - transaction['from']) / 1000:.2f} kWh"
    if "idToken" not in asked:
        return {}
    transaction["tag"] = asked["idToken"]["idToken"]
    return {"idTokenInfo": verdict(transaction["tag"])}


def noted(station: Station, asked: Payload) -> Payload:
    return {}


Handlers = Dict[str, Callable[[Station, Payload], Payload]]
BOTH: Handlers = {"BootNotification": boot, "Heartbeat": heartbeat, "StatusNotification": status, "MeterValues": noted}
HANDLERS: Dict[str, Handlers] = {
    "ocpp1.6": {
        **BOTH,
        "Authorize": authorize_16,
        "StartTransaction": start_transaction,
        "StopTransaction": stop_transaction,
    },
    "ocpp2.0.1": {**BOTH, "Authorize": authorize_201, "TransactionEvent": transaction_event},
}


def answer(station: Station, asked: List[Any]) -> List[Any]:
    """The CALLRESULT or CALLERROR to a CALL."""
    _, unique_id, action, payload = asked
    if not isinstance(action, str):
        return [4, unique_id, "FormationViolation", "the action is no text", {}]
    handler = HANDLERS.get(station.protocol, {}).get(action)
    if handler is None:
        return [4, unique_id, "NotImplemented", f"{action} of {station.protocol or 'no protocol'}", {}]
    try:
        return [CALLRESULT, unique_id, handler(station, payload)]
    except (KeyError, TypeError, AttributeError) as error:
        return [4, unique_id, "FormationViolation", f"{action}: {error!r}", {}]


@app.post("/ocpp/{name}")
async def uplink(name: str, request: fastapi.Request) -> fastapi.Response:
    """A message of a station. What this answers with 200 goes back to it (FASTSOCK_REMOTE_REPLY)."""
    key = request.headers.get("idempotency-key", "")
    if key in answered:
        return fastapi.Response(answered[key], media_type="application/json")
    station = stations.setdefault(name, Station(name))
    station.protocol = request.headers.get("x-fastsock-protocol", "")
    try:
        message = json.loads(await request.body())
    except ValueError:
        message = None
    if not (isinstance(message, list) and len(message) == 4 and message[0] == CALL):
        return fastapi.Response(status_code=204)  # the answer to a call of ours, which has it already; or no OCPP
    text = json.dumps(answer(station, message))
    if key:
        answered[key] = text
        if len(answered) > 10_000:
            answered.popitem(last=False)
    return fastapi.Response(text, media_type="application/json")


# What is asked of stations.


async def call(station: Station, action: str, payload: Payload) -> Payload:
    """Asks a station: one HTTP request to Fastsock, whose response is the answer of the station."""
    message = json.dumps([CALL, str(uuid.uuid4()), action, payload])
    async with station.calls:
        status, body = await asyncio.to_thread(post, station.name, {"data": message, "ocpp": True, "timeout": 30_000})
    if status != 200:
        raise NotCalled(body.get("error", f"status {status}"))
    said = json.loads(body["data"])
    if said[0] != CALLRESULT:
        raise NotCalled(f"{said[2]}: {said[3]}")  # CALLERROR
    result: Payload = said[2]
    return result


def post(name: str, body: Payload) -> Tuple[int, Payload]:
    """POSTs to the admin listener; gives status and body."""
    url = f"{ADMIN}/api/v1/clients/{urllib.parse.quote(name, safe='')}/call"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if TOKEN:
        request.add_header("Authorization", f"Bearer {TOKEN}")
    try:
        with urllib.request.urlopen(request, timeout=40) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError as error:
        return 503, {"error": f"Fastsock does not answer: {error}"}


async def remote_start(station: Station, tag: str) -> Payload:
    if station.protocol == "ocpp2.0.1":
        token = {"idToken": tag, "type": "ISO14443"}
        asked = {"idToken": token, "remoteStartId": next(numbers), "evseId": 1}
        return await call(station, "RequestStartTransaction", asked)
    return await call(station, "RemoteStartTransaction", {"connectorId": 1, "idTag": tag})


# The page.


@app.get("/", response_class=HTMLResponse)
async def page(said: str = "") -> str:
    rows = "".join(map(row, stations.values()))
    return f"""<!doctype html><meta charset="utf-8"><title>Charging stations</title>
<h1>Charging stations</h1><p>{html.escape(said)}</p>
<table border="1" cellpadding="4"><tr><th>station<th>protocol<th>model<th>status<th>transactions<th></tr>{rows}</table>"""


def row(station: Station) -> str:
    transactions = "<br>".join(
        html.escape(f"{number}: {t.get('state')} {t['tag']} {t.get('used', '')}") for number, t in station.transactions.items()
    )
    cells = "".join(f"<td>{html.escape(text)}" for text in (station.name, station.protocol, station.model, station.status))
    return f"""<tr>{cells}<td>{transactions}<td><form method="post" action="/start">
<input type="hidden" name="station" value="{html.escape(station.name)}"><input name="tag" value="{html.escape(min(TAGS))}">
<button>start</button></form></tr>"""


@app.post("/start")
async def start(request: fastapi.Request) -> fastapi.Response:
    """The form: starts a transaction, and shows the page with what the station said."""
    form = urllib.parse.parse_qs((await request.body()).decode())
    station: Optional[Station] = stations.get(form.get("station", [""])[0])
    if station is None:
        said = "There is no such station."
    else:
        try:
            result = await remote_start(station, form.get("tag", [""])[0])
            said = f"{station.name}: {result['status']}"
        except NotCalled as error:
            said = f"{station.name}: {error}"
    return fastapi.responses.RedirectResponse("/?said=" + urllib.parse.quote(said), status_code=303)
