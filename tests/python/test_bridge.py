"""Bridge: messages both ways, hooks, decisions, verbs."""

import functools
import socket
import ssl
import subprocess
import threading
import time
from typing import Any, Iterator, List, Tuple

import fastsock
import pytest
from conftest import Backend
from device import DEADLINE, Device, Refused, eventually


def test_an_uplink_reaches_the_hook_and_a_reply_the_device(start: Any) -> None:
    seen: List[fastsock.Uplink] = []

    def on_uplink(uplink: fastsock.Uplink) -> fastsock.Reply:
        seen.append(uplink)
        return fastsock.Reply(uplink.text.upper() if uplink.is_text else uplink.payload[::-1])

    bridge = start(on_uplink=on_uplink)
    with Device(bridge.port, "dev%201") as device:
        device.send("grüße")
        assert device.receive() == "GRÜSSE"
        device.send(b"\x00\xff")
        assert device.receive() == b"\xff\x00"
    first, second = seen
    assert (first.client_id, first.seq, first.is_text) == ("dev 1", 1, True)
    assert (first.payload, bytes(first), len(first)) == ("grüße".encode(), "grüße".encode(), 7)
    assert first.payload is first.payload
    assert (second.seq, second.is_text, second.text) == (2, False, "\0\ufffd")
    assert first.session_id == second.session_id > 0
    assert first.id != second.id and len(first.id) == 36
    assert first.received_at <= second.received_at
    assert repr(second) == f"<Uplink 2 of \"dev 1\" session {second.session_id}: 2 B binary>"


def test_what_on_uplink_returns_decides_what_is_forwarded(start: Any, backend: Backend) -> None:
    answers = {
        "forward": None,
        "drop": fastsock.Drop,
        "drop2": fastsock.Drop(),
        "replace": fastsock.Replace("replaced"),
        "last": None,
    }
    bridge = start(remote_url=backend.url, on_uplink=lambda uplink: answers[uplink.text])
    with Device(bridge.port) as device:
        for text in answers:
            device.send(text)
        eventually(lambda: len(backend.posts) == 3, "three posts")
    assert [post["data"] for post in backend.posts] == ["forward", "replaced", "last"]
    assert bridge.stats()["uplink"]["dropped_by_hook"] == 2


def test_without_hooks_uplinks_are_forwarded(start: Any, backend: Backend) -> None:
    bridge = start(remote_url=backend.url)
    with Device(bridge.port) as device:
        device.send("hello")
        eventually(lambda: backend.posts, "the post")
    assert backend.posts == [{"client_id": "dev1", "data": "hello"}]


def test_on_uplinks_takes_them_in_lists_and_in_order(start: Any) -> None:
    lists: List[List[fastsock.Uplink]] = []
    bridge = start(on_uplinks=lists.append)
    with Device(bridge.port) as device:
        for number in range(1000):
            device.send(str(number))
        eventually(lambda: sum(map(len, lists)) == 1000, "all uplinks")
    assert [int(uplink.text) for uplinks in lists for uplink in uplinks] == list(range(1000))
    books = bridge.stats()["uplink"]
    assert (books["received"], books["dropped_by_hook"]) == (1000, 1000)


def test_on_uplink_and_on_uplinks_exclude_each_other() -> None:
    with pytest.raises(fastsock.ArgumentError):
        fastsock.Bridge(on_uplink=print, on_uplinks=print)


def test_send_says_where_the_message_went(start: Any) -> None:
    bridge = start()
    assert bridge.send("dev1", "nobody") == "offline"
    with Device(bridge.port) as device:
        eventually(bridge.clients, "the client")
        for payload in ("text", b"bytes", bytearray(b"array"), memoryview(b"--view--")[2:6]):
            assert bridge.send("dev1", payload) == "here"
            received = device.receive()
            assert received == (payload if isinstance(payload, str) else bytes(payload))


def test_one_message_reaches_a_group_or_everyone(start: Any) -> None:
    bridge = start()
    assert bridge.send_group("site", "nobody") == 0
    with Device(bridge.port) as device:
        eventually(bridge.clients, "the client")
        assert bridge.join_group("dev1", "site") == "here"
        assert bridge.join_group("nobody", "site") == "offline"
        assert bridge.groups() == {"site": 1}
        assert bridge.send_group("site", "to the site") == 1
        assert bridge.broadcast(b"all") == 1
        assert [device.receive(), device.receive()] == ["to the site", b"all"]
        assert bridge.leave_group("dev1", "site") == "here"
        assert bridge.groups() == {}
        with pytest.raises(fastsock.ArgumentError, match="group"):
            bridge.join_group("dev1", "")


def test_what_is_no_payload_and_no_client_id_is_refused(start: Any) -> None:
    bridge = start()
    with pytest.raises(TypeError, match="str or bytes-like"):
        bridge.send("dev1", 5)
    with pytest.raises(fastsock.ArgumentError, match="client id"):
        bridge.send("", "x")
    with pytest.raises(fastsock.TooLargeError, match="16777217 bytes"):
        bridge.send("dev1", b"x" * (16 * 1024 * 1024 + 1))


def test_connects_and_disconnects_are_told_in_order_with_their_reason(start: Any) -> None:
    told: List[Tuple[str, Any]] = []
    bridge = start(
        on_connect=lambda client: told.append(("connect", client)),
        on_disconnect=lambda client, reason: told.append(("disconnect", (client, reason))),
        on_state=lambda state: told.append(("state", state)),
    )
    with Device(bridge.port) as old, Device(bridge.port) as new:
        assert old.receive() == 4509
        eventually(lambda: len(told) == 3, "three notices")
        assert [name for name, _ in told] == ["connect", "disconnect", "connect"]
        client, reason = told[1][1]
        assert (reason, reason.code) == ("replaced", 4509)
        assert client.session_id == told[0][1].session_id < told[2][1].session_id
        assert client.remote_addr[0] == "127.0.0.1" and abs(client.last_seen - client.connected_at) < 1
        (here,) = bridge.clients()
        assert (here.client_id, here.session_id) == ("dev1", told[2][1].session_id)
        assert bridge.disconnect("dev1", code=4000, reason="go away") is True
        assert new.receive() == 4000
        eventually(lambda: len(told) == 4, "the fourth notice")
    reason = told[3][1][1]
    assert (reason, reason.code) == ("go away", 4000)
    assert bridge.disconnect("dev1") is False
    assert bridge.stop().sessions == 0
    assert [what for name, what in told if name == "state"] == ["stopping", "stopped"]


def test_a_close_code_of_our_own_is_checked(start: Any) -> None:
    with pytest.raises(fastsock.ArgumentError, match="close code"):
        start().disconnect("dev1", code=1002)
    with pytest.raises(fastsock.ArgumentError, match="a reason has at most 123 bytes; this has 124"):
        start().disconnect("dev1", reason="ü" * 62)


def test_text_that_is_no_unicode_is_an_error_wherever_it_comes_from(start: Any) -> None:
    errors: List[Tuple[str, type]] = []

    def on_uplink(_: fastsock.Uplink) -> Any:
        return fastsock.Reply("\ud800")

    hooks = {"authenticate": lambda request: "\ud800" if request.token == "bad" else None, "on_uplink": on_uplink}
    bridge = start(**hooks, on_error=lambda name, error: errors.append((name, type(error))))
    with Device(bridge.port) as device:
        for call in (
            lambda: bridge.send("dev1", "\ud800"),
            lambda: bridge.send("\ud800", "x"),
            lambda: bridge.disconnect("\ud800"),
            lambda: bridge.disconnect("dev1", reason="\ud800"),
            lambda: fastsock.Replace("\ud800"),
        ):
            with pytest.raises(UnicodeEncodeError):
                call()
        device.send("x")
        eventually(lambda: errors)
        with pytest.raises(Refused) as refused:
            Device(bridge.port, "bad")
        assert refused.value.status == 503
    eventually(lambda: len(errors) == 2)
    assert errors == [("on_uplink", UnicodeEncodeError), ("authenticate", UnicodeEncodeError)]


def test_what_a_thread_cannot_run_is_no_hook() -> None:
    async def coroutine(*_: Any) -> None:
        pass

    def generator(*_: Any) -> Iterator[None]:
        yield

    class Callable:
        async def __call__(self, *_: Any) -> None:
            pass

    for name in ("authenticate", "on_connect", "on_uplink", "on_uplinks", "on_state", "on_error"):
        hooks: Any = [coroutine, functools.partial(coroutine, 1), Callable()]
        for hook in hooks:
            with pytest.raises(TypeError, match=f"{name} is a coroutine function, and Bridge calls its hooks on a thread; use"):
                fastsock.Bridge(**{name: hook})
        with pytest.raises(TypeError, match=f"{name} is a generator function: calling it runs nothing of it"):
            wrong: Any = {name: generator}
            fastsock.Bridge(**wrong)


def test_a_coroutine_that_a_hook_returns_is_told_and_not_forgotten(start: Any, recwarn: pytest.WarningsRecorder) -> None:
    async def coroutine() -> None:
        pass

    errors: List[str] = []
    hooks = {name: lambda *_: coroutine() for name in ("on_connect", "on_uplink")}
    bridge = start(**hooks, on_error=lambda _, error: errors.append(str(error)))
    with Device(bridge.port) as device:
        device.send("x")
        eventually(lambda: len(errors) == 2)
    assert errors == [f"{name} returned a coroutine, of which nothing has run" for name in hooks]
    assert bridge.stats()["uplink"]["lost"]["hook_failed"] == 1
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_a_subclass_may_have_arguments_and_hooks_of_its_own(start: Any) -> None:
    class Mine(fastsock.Bridge):
        def __init__(self, name: str, **keywords: Any) -> None:
            super().__init__(websocket_port=0, listen_addr="127.0.0.1", **keywords)
            self.name = name
            self.seen: List[str] = []

        def on_connect(self, client: fastsock.Client) -> None:  # type: ignore[override]
            self.seen.append(client.client_id)

        def answer(self, uplink: fastsock.Uplink) -> fastsock.Reply:
            return fastsock.Reply(f"{self.name}: {uplink.text}")

    class Forgetful(fastsock.Bridge):
        def __init__(self, name: str) -> None:
            pass

    with Mine("mine", on_uplinks=print):
        pass
    bridge = Mine("mine", close_timeout=50)
    bridge.on_uplink(bridge.answer)
    with bridge, Device(bridge.port) as device:
        device.send("x")
        assert device.receive() == "mine: x"
        assert bridge.seen == ["dev1"]
    forgetful = Forgetful("x")
    assert repr(forgetful) == "<fastsock.Bridge, not made>"
    for call in (forgetful.start, forgetful.stop, forgetful.clients):
        with pytest.raises(RuntimeError, match=r"the __init__\(\) of the bridge was not called"):
            call()


def test_hooks_can_be_given_by_decorators(start: Any) -> None:
    bridge = fastsock.Bridge(websocket_port=0, listen_addr="127.0.0.1", close_timeout=50)
    told: List[str] = []

    @bridge.authenticate
    def authenticate(request: fastsock.ConnectRequest) -> str:
        return f"{request.token}!"

    @bridge.on_connect
    def on_connect(client: fastsock.Client) -> None:
        told.append(client.client_id)

    @bridge.on_uplink
    def on_uplink(uplink: fastsock.Uplink) -> fastsock.Reply:
        return fastsock.Reply(uplink.text)

    @bridge.on_disconnect
    def on_disconnect(_: fastsock.Client, reason: fastsock.CloseReason) -> None:
        told.append(reason)

    assert callable(on_uplink) and callable(authenticate)
    with pytest.raises(fastsock.ArgumentError, match="there is an on_uplink already"):
        bridge.on_uplink(on_uplink)
    with pytest.raises(fastsock.ArgumentError, match="exclude each other"):
        bridge.on_uplinks(print)
    with bridge, Device(bridge.port) as device:
        device.send("x")
        assert device.receive() == "x"
        with pytest.raises(RuntimeError, match="on_state: the bridge runs; give its hooks before"):
            bridge.on_state(told.append)
    assert told[0] == "dev1!" and told[1] in ("connection_lost", "shutdown")


def test_what_calls_take_can_be_named(start: Any) -> None:
    def on_uplink(uplink: fastsock.Uplink) -> Any:
        assert uplink.ticket
        bridge.resolve(ticket=uplink.ticket, answer=fastsock.Drop)
        return fastsock.Later

    bridge: fastsock.Bridge = start(on_uplink=on_uplink)
    with Device(bridge.port) as device:
        assert bridge.send(client_id="dev1", payload="x") == "here"
        assert device.receive() == "x"
        device.send("y")
        eventually(lambda: bridge.stats()["uplink"]["dropped_by_hook"] == 1)
        assert bridge.setting(name="redis_prefix") == "fastsock"
        assert bridge.disconnect(client_id="dev1", code=4000, reason="bye") is True
        assert device.receive() == 4000


def test_stop_keeps_its_word_although_a_hook_never_returns(start: Any) -> None:
    busy, go = threading.Event(), threading.Event()

    def on_uplink(_: fastsock.Uplink) -> None:
        busy.set()
        go.wait(DEADLINE)

    bridge = start(on_uplink=on_uplink)
    with Device(bridge.port) as device:
        device.send("x")
        assert busy.wait(DEADLINE)
        began = time.monotonic()
        bridge.stop(0)
        took = time.monotonic() - began
        go.set()
    assert took < 1.2


def test_authenticate_accepts_renames_and_rejects(start: Any) -> None:
    requests: List[fastsock.ConnectRequest] = []

    def authenticate(request: fastsock.ConnectRequest) -> Any:
        requests.append(request)
        if request.token == "as-configured":
            return None
        if request.token == "returned":
            return fastsock.Reject(402, "pay")
        if request.token != "s3cret":
            raise fastsock.Reject(403, "who are you", retry_after=7)
        return request.header("X-Device")

    bridge = start(authenticate=authenticate)
    with Device(bridge.port, "s3cret", ("X-Device: sensor-7", "Authorization: Bearer b")):
        assert eventually(bridge.clients)[0].client_id == "sensor-7"
    with Device(bridge.port, "as-configured"):
        eventually(lambda: [c for c in bridge.clients() if c.client_id == "as-configured"])
    with pytest.raises(Refused) as refused:
        Device(bridge.port, "wrong")
    assert (refused.value.status, refused.value.body) == (403, "who are you")
    assert "retry-after: 7" in refused.value.head.lower()
    with pytest.raises(Refused) as refused:
        Device(bridge.port, "returned")
    assert refused.value.status == 402
    first = requests[0]
    assert (first.token, first.bearer, first.subprotocol) == ("s3cret", "b", None)
    assert first.target == "/?token=s3cret" and ("x-device", "sensor-7") in first.headers
    assert first.header("absent") is None and first.remote_addr[0] == "127.0.0.1"
    assert "s3cret" not in repr(first)


def test_a_decision_can_be_answered_later_from_another_thread(start: Any) -> None:
    def later(ticket: fastsock.Ticket, answer: Any) -> Any:
        threading.Timer(0.01, lambda: bridge.resolve(ticket, answer)).start()
        return fastsock.Later

    tickets: List[fastsock.Ticket] = []

    def on_uplink(uplink: fastsock.Uplink) -> Any:
        assert uplink.ticket is not None
        tickets.append(uplink.ticket)
        return later(uplink.ticket, fastsock.Reply("later"))

    bridge = start(authenticate=lambda request: later(request.ticket, request.token + "!"), on_uplink=on_uplink)
    with Device(bridge.port) as device:
        assert eventually(bridge.clients)[0].client_id == "dev1!"
        device.send("x")
        assert device.receive() == "later"
    with pytest.raises(fastsock.TicketError):
        bridge.resolve(tickets[0], None)
    assert isinstance(fastsock.TicketError("x"), LookupError)


def test_a_hook_may_send_disconnect_and_read_the_books(start: Any) -> None:
    def on_uplink(uplink: fastsock.Uplink) -> Any:
        if uplink.text == "bye":
            bridge.disconnect(uplink.client_id)
        else:
            assert bridge.send(uplink.client_id, str(bridge.stats()["uplink"]["received"])) == "here"
        return fastsock.Drop

    bridge = start(on_uplink=on_uplink)
    with Device(bridge.port) as device:
        device.send("how many")
        assert device.receive() == "1"
        device.send("bye")
        assert device.receive() == 4510


def test_a_lost_uplink_is_told(start: Any) -> None:
    lost: List[Tuple[str, str]] = []
    bridge = start(
        remote_url="http://127.0.0.1:9",
        on_uplink_lost=lambda uplink, reason: lost.append((uplink.text, reason)),
    )
    with Device(bridge.port) as device:
        device.send("x")
        eventually(lambda: bridge.stats()["uplink"]["held"] == 1)
        leftover = bridge.stop(0.1)
    assert leftover and leftover.uplinks == 1
    assert lost == [("x", "shutdown")]


def test_the_books_balance(start: Any) -> None:
    bridge = start(on_uplink=lambda _: fastsock.Reply(b"y"))
    with Device(bridge.port) as device:
        for _ in range(50):
            device.send("x")
        for _ in range(50):
            assert device.receive() == b"y"
    stats = bridge.stats()
    assert set(stats) == {"uplink", "downlink", "mailbox", "lifecycle", "sessions", "counters", "python"}
    up = stats["uplink"]
    assert up["received"] == 50 == up["delivered"] + up["held"] + up["dropped_by_hook"] + sum(up["lost"].values())
    assert stats["python"]["hook_errors"] == 0


def test_addresses_and_states(start: Any) -> None:
    bridge = start(admin_addr="127.0.0.1:0")
    host, port = bridge.local_addr
    assert (host, port) == ("127.0.0.1", bridge.port) and port > 0
    assert bridge.admin_addr and bridge.admin_addr[1] not in (0, port)
    assert bridge.state == "running"
    assert repr(bridge) == f"<fastsock.Bridge running on 127.0.0.1:{port}>"
    assert bridge.start() is bridge and bridge.port == port
    assert not bridge.stop()
    assert bridge.state == "stopped" and repr(bridge) == "<fastsock.Bridge stopped>"
    assert not bridge.stop() and bridge.wait() is True
    with pytest.raises(fastsock.StoppedError):
        bridge.send("dev1", "x")


def test_wait_ends_with_the_bridge(start: Any) -> None:
    bridge = start()
    assert bridge.wait(0.01) is False
    threading.Timer(0.05, bridge.stop).start()
    assert bridge.wait(DEADLINE) is True


def test_two_bridges_know_nothing_of_each_other(start: Any) -> None:
    first, second = start(on_uplink=lambda _: fastsock.Reply("1")), start(on_uplink=lambda _: fastsock.Reply("2"))
    with Device(first.port) as one, Device(second.port) as two:
        one.send("x")
        two.send("x")
        assert (one.receive(), two.receive()) == ("1", "2")
        first.stop()
        assert one.receive() == 1001
        two.send("x")
        assert two.receive() == "2"


def test_help_shows_the_hooks_and_the_verbs() -> None:
    assert "on_uplink(uplink)" in (fastsock.Bridge.__doc__ or "")
    for name in ("start", "stop", "wait", "send", "disconnect", "clients", "stats", "resolve", "from_env", "state"):
        assert getattr(fastsock.Bridge, name).__doc__, name
    for name in fastsock.__all__:
        assert name.startswith("__") or getattr(fastsock, name).__doc__, name


def test_reload_reads_the_certificates_again_and_tells_what_is_wrong(start: Any, tmp_path: Any) -> None:
    """Without TLS there is nothing to read; with it, a file that cannot be used is a ConfigError, and what was read stays."""
    start().reload()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    bridge = start(tls_cert=str(cert), tls_key=str(key))
    bridge.reload()
    cert.write_text("no certificate")
    with pytest.raises(fastsock.ConfigError, match="FASTSOCK_TLS_CERT"):
        bridge.reload()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", bridge.port)) as raw, context.wrap_socket(raw) as device:
        assert device.version() == "TLSv1.3"
