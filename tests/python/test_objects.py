"""What hooks are given and give back, as values: equal, hashable, picklable, and made by hand for the tests of a hook."""

import copy
import pickle
import time
import uuid
from typing import Any, List

import fastsock
import pytest
from device import Device, eventually

ID = str(uuid.uuid4())


def test_an_uplink_is_a_value(start: Any) -> None:
    seen: List[fastsock.Uplink] = []
    bridge = start(on_uplinks=seen.extend)
    with Device(bridge.port) as device:
        for payload in ("text", b"\x00\xff", ""):
            device.send(payload)
        eventually(lambda: len(seen) == 3)
    for uplink in seen:
        for other in (pickle.loads(pickle.dumps(uplink)), copy.copy(uplink), copy.deepcopy(uplink)):
            assert other == uplink and hash(other) == hash(uplink) and other is not uplink
            for name in ("client_id", "session_id", "seq", "payload", "text", "is_text", "id", "received_at"):
                assert getattr(other, name) == getattr(uplink, name), name
    assert len(set(seen)) == 3 and seen[0] != seen[1] and seen[0] != "text"
    assert seen[2] and len(seen[2]) == 0, "an empty message is a message"


def test_an_uplink_can_be_made_to_try_a_hook() -> None:
    uplink = fastsock.Uplink("dev1", '{"a": [1, "ü"]}', session_id=7, seq=2, id=ID, received_at=1.5)
    assert (uplink.client_id, uplink.session_id, uplink.seq, uplink.id, uplink.received_at) == ("dev1", 7, 2, ID, 1.5)
    assert uplink.json() == {"a": [1, "ü"]} and uplink.is_text and uplink.ticket is None
    assert fastsock.Uplink("dev1", b"[1]").json() == [1]
    assert abs(fastsock.Uplink("dev1", b"").received_at - time.time()) < 60
    assert fastsock.Uplink("dev1", "x") != fastsock.Uplink("dev1", "x"), "two messages"
    with pytest.raises(ValueError):
        fastsock.Uplink("dev1", "{").json()
    for wrong, text in (
        ({"id": "x"}, '"x" is not the id of an uplink, a UUID'),
        ({"received_at": -1.0}, "a time is 0 or more seconds since 1970, not -1"),
        ({"received_at": float("nan")}, "a time is 0 or more seconds since 1970, not NaN"),
    ):
        keywords: Any = wrong
        with pytest.raises(fastsock.ArgumentError, match=text):
            fastsock.Uplink("dev1", "x", **keywords)


def test_a_client_is_its_session(start: Any) -> None:
    bridge = start(on_uplinks=print)
    with Device(bridge.port) as device:
        (before,) = eventually(bridge.clients)

        def is_seen_again() -> bool:
            device.send("x")
            return bool(bridge.clients()[0].last_seen > before.last_seen)

        eventually(is_seen_again)
        (after,) = bridge.clients()
    assert before == after and hash(before) == hash(after) and after in {before}
    other = pickle.loads(pickle.dumps(after))
    assert other == after and repr(other) == repr(after)
    assert (other.connected_at, other.last_seen, other.remote_addr) == (after.connected_at, after.last_seen, after.remote_addr)
    made = fastsock.Client("dev1", session_id=after.session_id)
    assert made == after and made != fastsock.Client("dev1", session_id=after.session_id + 1)
    assert fastsock.Client("a", remote_addr=("2001:db8::1", 5)).remote_addr == ("2001:db8::1", 5)
    assert made.remote_addr == ("127.0.0.1", None)
    with pytest.raises(fastsock.ArgumentError, match='"nowhere" is not an IP address'):
        fastsock.Client("a", remote_addr=("nowhere", 5))


@pytest.mark.parametrize("kind", [fastsock.Reply, fastsock.Replace])
def test_answers_are_values(kind: Any) -> None:
    text, binary = kind("x"), kind(b"x")
    assert (text.payload, binary.payload, kind(payload=bytearray(b"y")).payload) == ("x", b"x", b"y")
    assert text == kind("x") and hash(text) == hash(kind("x")) and text != binary
    assert fastsock.Reply("x") != fastsock.Replace("x")
    for answer in (text, binary):
        other = pickle.loads(pickle.dumps(answer))
        assert other == answer and type(other.payload) is type(answer.payload)


def test_small_things_are_values_too() -> None:
    reason = fastsock.CloseReason("go away", 4000)
    state = fastsock.State("gap", (1.0, 2.0))
    rest = fastsock.Leftover(sessions=1, spooled=2)
    for thing in (fastsock.Drop(), fastsock.Later(), reason, state, rest):
        other: Any = pickle.loads(pickle.dumps(thing))
        assert other == thing
    assert pickle.loads(pickle.dumps(reason)).code == 4000 and pickle.loads(pickle.dumps(state)).gap == (1.0, 2.0)
    assert {fastsock.Drop(), fastsock.Drop()} == {fastsock.Drop()} and fastsock.Drop() != fastsock.Later()
    reject = pickle.loads(pickle.dumps(fastsock.Reject(429, "slow down", retry_after=3)))
    assert (reject.status, reject.reason, reject.retry_after) == (429, "slow down", 3)
    for error in (fastsock.ConfigError("x"), fastsock.BindError(98, "taken"), fastsock.TicketError("t")):
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), other.args, str(other)) == (type(error), error.args, str(error))
