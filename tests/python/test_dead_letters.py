"""Dead letters: what the backend refused for good is listed, shown, delivered again, or dropped."""

import asyncio
import http.server
import json
import threading
from typing import Any, Dict, Iterator, List

import fastsock
import pytest
from device import Device, eventually
from loops import until

UNKNOWN = "019ac000-0000-7000-8000-000000000000"


class Moody:
    """A backend that answers with one status until told otherwise."""

    def __init__(self) -> None:
        self.status = 400
        self.taken: List[Dict[str, Any]] = []
        moody = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                post = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if moody.status < 300:
                    moody.taken.append({"key": self.headers["Idempotency-Key"], **post})
                self.send_response(moody.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/uplink"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()


@pytest.fixture
def moody() -> Iterator[Moody]:
    """One that refuses at first."""
    moody = Moody()
    yield moody
    moody.server.shutdown()
    moody.server.server_close()
    moody.thread.join()


def settings(moody: Moody, directory: Any) -> Dict[str, Any]:
    """Those of a bridge that keeps what the backend refuses."""
    headers = {"X-Secret": "s3cret"}
    return {"remote_url": moody.url, "remote_headers": headers, "spool": "disk", "data_dir": str(directory / "data")}


def test_a_refused_uplink_is_a_dead_letter_with_all_of_it(start: Any, moody: Moody, tmp_path: Any) -> None:
    bridge = start(**settings(moody, tmp_path))
    with Device(bridge.port) as device:
        device.send("grüße")
        device.send(b"\x00\xff")
        first, second = eventually(lambda: len(letters := bridge.dead_letters()) == 2 and letters, "two letters")
    assert (first.client_id, first.reason, first.status, first.attempts) == ("dev1", "rejected", 400, 1)
    assert (first.payload, first.text, second.payload) == ("grüße".encode(), "grüße", b"\x00\xff")
    assert (first.uplink.id, first.uplink.seq, first.uplink.is_text, second.uplink.is_text) == (first.id, 1, True, False)
    assert first.uplink.ticket is None and first.error
    assert 0 < first.received_at <= first.first_attempt_at <= first.last_attempt_at <= first.given_up_at
    headers = dict(first.headers)
    assert (headers["idempotency-key"], headers["x-secret"]) == (first.id, "***")
    assert repr(first) == f'<DeadLetter {first.id} of "dev1": rejected after 1 attempts>'

    found = bridge.dead_letter(second.id)
    assert found is not None and (found.id, found.payload) == (second.id, second.payload)
    assert bridge.dead_letter(UNKNOWN) is None
    assert [letter.id for letter in bridge.dead_letters(limit=1)] == [first.id]
    assert [letter.id for letter in bridge.dead_letters(after=first.id)] == [second.id]
    assert bridge.dead_letters(second.id, 1000) == []


def test_a_replayed_letter_is_delivered_under_its_key_and_a_dropped_one_never(
    start: Any, moody: Moody, tmp_path: Any
) -> None:
    bridge = start(**settings(moody, tmp_path))
    with Device(bridge.port) as device:
        for text in ("one", "two", "three"):
            device.send(text)
        one, two, three = eventually(lambda: len(all := bridge.dead_letters()) == 3 and all, "three letters")
    assert bridge.drop_dead_letter(two.id) is True
    moody.status = 204
    assert bridge.replay_dead_letter(three.id) is True
    assert bridge.replay_dead_letter(one.id) is True
    eventually(lambda: len(moody.taken) == 2, "both are delivered")
    assert moody.taken == [
        {"key": letter.id, "client_id": "dev1", "data": letter.text} for letter in (three, one)
    ]
    assert bridge.dead_letters() == []
    for id in (one.id, two.id, UNKNOWN):
        assert bridge.replay_dead_letter(id) is False
        assert bridge.drop_dead_letter(id) is False


def test_what_is_no_id_or_no_limit_is_refused(start: Any, moody: Moody, tmp_path: Any) -> None:
    bridge = start(**settings(moody, tmp_path))
    for call in (bridge.dead_letter, bridge.replay_dead_letter, bridge.drop_dead_letter, bridge.dead_letters):
        with pytest.raises(fastsock.ArgumentError, match="dev1"):
            call("dev1")
    for limit in (0, -1, 1001):
        with pytest.raises(fastsock.ArgumentError, match="1 to 1000"):
            bridge.dead_letters(limit=limit)
    bridge.stop()
    with pytest.raises(fastsock.StoppedError):
        bridge.replay_dead_letter(UNKNOWN)


def test_the_memory_spool_keeps_them_while_the_process_lives(start: Any, moody: Moody) -> None:
    bridge = start(remote_url=moody.url)
    with Device(bridge.port) as device:
        device.send("one")
        (letter,) = eventually(bridge.dead_letters, "a letter")
    assert (letter.text, letter.status) == ("one", 400)
    moody.status = 204
    assert bridge.replay_dead_letter(letter.id) is True
    eventually(lambda: moody.taken, "it is delivered")
    assert bridge.dead_letters() == []
    not_started = fastsock.Bridge()
    with pytest.raises(fastsock.StoppedError):
        not_started.dead_letters()


def test_in_a_loop_they_are_awaited(moody: Moody, tmp_path: Any) -> None:
    async def main() -> None:
        own: Dict[str, Any] = {"websocket_port": 0, "listen_addr": "127.0.0.1", "close_timeout": 50}
        async with fastsock.AsyncBridge(**own, **settings(moody, tmp_path)) as bridge:
            loop = asyncio.get_running_loop()
            device = await loop.run_in_executor(None, Device, bridge.port)
            try:
                device.send("one")
                device.send("two")

                async def both() -> Any:
                    letters = await bridge.dead_letters()
                    return letters if len(letters) == 2 else None

                one, two = await until(both)
                assert isinstance(one, fastsock.DeadLetter)
                shown = await bridge.dead_letter(two.id)
                assert shown is not None and shown.text == "two"
                assert [letter.id for letter in await bridge.dead_letters(one.id, limit=1)] == [two.id]
                assert await bridge.drop_dead_letter(two.id) is True
                assert await bridge.dead_letter(two.id) is None
                moody.status = 204
                assert await bridge.replay_dead_letter(one.id) is True
                await until(lambda: moody.taken)
                with pytest.raises(fastsock.ArgumentError):
                    await bridge.dead_letter("dev1")
            finally:
                device.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [post["data"] for post in moody.taken] == ["one"]
