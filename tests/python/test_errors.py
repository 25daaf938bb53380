"""What goes wrong in hooks, and how the package says it."""

import logging
import sys
from typing import Any, List, Tuple

import fastsock
import pytest
from conftest import Backend, run_script
from device import Device, Refused, eventually

KINDS = {
    "ConfigError": ValueError,
    "BindError": OSError,
    "OutboxFullError": BufferError,
    "NotConnectedError": ConnectionError,
    "BusyError": RuntimeError,
    "UnansweredError": TimeoutError,
    "TooLargeError": ValueError,
    "BrokerError": ConnectionError,
    "StoppedError": RuntimeError,
    "TicketError": LookupError,
    "ArgumentError": ValueError,
    "OsError": OSError,
    "ForkedError": RuntimeError,
}


def test_each_kind_is_also_the_builtin_one_expects() -> None:
    for name, builtin in KINDS.items():
        kind = getattr(fastsock, name)
        assert issubclass(kind, fastsock.FastsockError) and issubclass(kind, builtin), name


def failing(*_: Any) -> None:
    """A hook that fails."""
    raise ZeroDivisionError("on purpose")


def test_an_exception_in_each_hook_is_told_and_the_bridge_goes_on(start: Any) -> None:
    errors: List[Tuple[str, BaseException]] = []
    bridge = start(
        remote_url="http://127.0.0.1:9",
        on_connect=failing,
        on_uplink=failing,
        on_disconnect=failing,
        on_uplink_lost=failing,
        on_state=failing,
        on_error=lambda hook, error: errors.append((hook, error)),
    )
    with Device(bridge.port) as device:
        device.send("x")
        eventually(lambda: bridge.stats()["uplink"]["lost"]["hook_failed"] == 1, "the loss")
    with Device(bridge.port, "dev2"):
        eventually(lambda: [c for c in bridge.clients() if c.client_id == "dev2"])
    bridge.stop()
    assert all(isinstance(error, ZeroDivisionError) for _, error in errors)
    names = [hook for hook, _ in errors]
    assert set(names) == {"on_connect", "on_uplink", "on_disconnect", "on_uplink_lost", "on_state"}
    assert (names.count("on_connect"), names.count("on_state")) == (2, 2)


def test_an_uplink_whose_hook_failed_is_never_forwarded(start: Any, backend: Backend) -> None:
    def on_uplink(uplink: fastsock.Uplink) -> Any:
        if uplink.text == "raise":
            raise ValueError
        return "nonsense" if uplink.text == "nonsense" else None

    errors: List[str] = []
    bridge = start(remote_url=backend.url, on_uplink=on_uplink, on_error=lambda _, error: errors.append(str(error)))
    with Device(bridge.port) as device:
        for text in ("raise", "nonsense", "fine"):
            device.send(text)
        eventually(lambda: backend.posts)
    assert [post["data"] for post in backend.posts] == ["fine"]
    assert bridge.stats()["uplink"]["lost"]["hook_failed"] == 2
    assert bridge.stats()["python"]["hook_errors"] == 2
    assert "on_uplink returns None, Drop, Replace, Reply or Later" in errors[1]


def test_a_failed_authenticate_refuses_with_503(start: Any) -> None:
    errors: List[str] = []
    for hook in (failing, lambda _: 5, lambda _: ""):
        bridge = start(authenticate=hook, on_error=lambda name, _: errors.append(name))
        with pytest.raises(Refused) as refused:
            Device(bridge.port)
        assert refused.value.status == 503
        bridge.stop()  # and with it the hooks
    assert errors == ["authenticate"] * 3


def test_a_failed_on_uplinks_is_counted(start: Any) -> None:
    errors: List[str] = []
    bridge = start(on_uplinks=failing, on_error=lambda name, _: errors.append(name))
    with Device(bridge.port) as device:
        device.send("x")
        eventually(lambda: bridge.stats()["python"]["uplinks_failed"] == 1)
    assert errors == ["on_uplinks"]


def test_without_on_error_it_goes_to_the_unraisable_hook(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: List[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append((args.exc_type, args.object)))
    bridge = start(on_connect=failing)
    with Device(bridge.port):
        eventually(lambda: told)
    assert told == [(ZeroDivisionError, failing)]


def test_an_on_error_that_fails_hides_nothing(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: List[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))

    def on_error(*_: Any) -> None:
        raise KeyError

    bridge = start(on_connect=failing, on_error=on_error)
    with Device(bridge.port):
        eventually(lambda: len(told) == 2)
    assert told == [ZeroDivisionError, KeyError]


def test_a_refusal_has_a_status_of_refusals() -> None:
    with pytest.raises(fastsock.ArgumentError):
        fastsock.Reject(200)
    reject = fastsock.Reject(429, "slow down", retry_after=3)
    assert (reject.status, reject.reason, reject.retry_after) == (429, "slow down", 3)


def test_the_log_arrives_with_its_fields(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastsock")
    bridge = start()
    with Device(bridge.port):
        connected = eventually(lambda: [r for r in caplog.records if r.getMessage().startswith("Client connected")])
    (record,) = connected
    assert record.name.startswith("fastsock.") and record.levelno == logging.DEBUG
    assert record.fields["client_id"] == "dev1" and "client_id=dev1" in record.getMessage()
    assert record.pathname.endswith(".rs") and record.lineno > 0
    bridge.stop()
    assert [r for r in caplog.records if r.getMessage().startswith("Client disconnected")]


def test_lines_of_a_kind_have_one_text(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What tools that gather lines go by."""
    caplog.set_level(logging.DEBUG, "fastsock")
    bridge = start()
    for name in ("dev1", "100%25"):
        with Device(bridge.port, name):
            eventually(lambda: [r for r in caplog.records if f"client_id={name.replace('%25', '%')}" in r.getMessage()])
    texts = {record.msg for record in caplog.records if record.msg.startswith("Client connected")}
    (text,) = texts
    assert text.startswith("Client connected client_id=%(client_id)s session_id=%(session_id)s")


@pytest.mark.parametrize(("payloads", "shown"), [("capped", 1024 + 1), ("full", 5000), ("none", None)])
def test_payloads_are_in_the_fields_of_a_line_alone(
    start: Any, caplog: pytest.LogCaptureFixture, payloads: str, shown: Any
) -> None:
    bridge = start(on_uplink=failing, on_error=lambda *_: None, log_payloads=payloads)
    with Device(bridge.port) as device:
        device.send("s3cret" + "é" * 2497)
        record = eventually(lambda: [r for r in caplog.records if "hook_failed" in r.getMessage()])[0]
    data = record.fields.get("data")
    assert (data if data is None else len(data.encode()) - 2 * data.endswith("…")) == shown
    assert "s3cret" not in record.getMessage() and "s3cret" not in record.msg


def test_no_payload_is_printed_when_logging_is_not_configured() -> None:
    run = run_script(
        "import fastsock\nfrom device import *\n"
        "def hook(_): raise ValueError\n"
        "bridge = fastsock.Bridge(websocket_port=0, listen_addr='127.0.0.1', on_uplink=hook, on_error=print, close_timeout=50)\n"
        "with bridge, Device(bridge.port) as device:\n"
        "    device.send('s3cret')\n"
        "    eventually(lambda: bridge.stats()['uplink']['lost']['hook_failed'])\n"
    )
    assert run.code == 0 and "s3cret" not in run.out + run.err
    assert "reason=hook_failed" in run.err, "that it was lost is said all the same"


def test_a_level_is_respected_and_a_change_is_seen(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("fastsock").setLevel(logging.WARNING)
    try:
        bridge = start()
        with Device(bridge.port):
            eventually(bridge.clients)
        eventually(lambda: not bridge.clients())
        assert not [r for r in caplog.records if r.name.startswith("fastsock")]
        logging.getLogger("fastsock").setLevel(logging.DEBUG)

        def is_told() -> bool:
            with Device(bridge.port):
                eventually(bridge.clients)
            return any(r.getMessage().startswith("Client connected") for r in caplog.records)

        eventually(is_told, "a line after the level changed")
        assert not [r for r in caplog.records if r.name == "fastsock.messages"]
    finally:
        logging.getLogger("fastsock").setLevel(logging.NOTSET)
