"""Settings: keywords, dictionaries, TOML, the environment, and what is said of a bad one."""

import base64
import datetime
import hashlib
import hmac
import json
import logging
import pathlib
import socket
import time
from typing import Any

import fastsock
import pytest
from device import Device, Refused, eventually


def test_every_kind_of_value_is_taken() -> None:
    bridge = fastsock.Bridge(
        websocket_port=4000,
        websocket_ping_interval=datetime.timedelta(seconds=1.5),
        write_timeout=1500.0,  # type: ignore[arg-type]
        listen_reuseport=True,
        listen_origins=["https://a.example", "https://b.example"],
        remote_url="http://127.0.0.1:9/x",
        remote_headers={"X-A": 1, "X-B": True, "X-C": None},
        remote_ca=pathlib.Path("/nowhere.pem"),
        redis_host=None,
        runtime_workers=3,
    )
    shown = {name: bridge.setting(name) for name in ("websocket_port", "websocket_ping_interval", "listen_origins")}
    assert shown == {
        "websocket_port": "4000",
        "websocket_ping_interval": "1500",
        "listen_origins": "https://a.example,https://b.example",
    }
    assert bridge.setting("write_timeout") == "1500"
    assert bridge.setting("listen_reuseport") == "on"
    assert bridge.setting("remote_headers") == "***"
    assert bridge.setting("remote_ca") == "/nowhere.pem"
    assert bridge.setting("redis_host") == "127.0.0.1"
    assert bridge.setting("runtime_workers") == "3"
    with pytest.raises(KeyError):
        bridge.setting("nonsense")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"websocket_port": 99999}, 'websocket_port: "99999" is not allowed; give a port from 0 to 65535'),
        ({"websocket_prot": 1}, 'there is no setting "websocket_prot"; did you mean "websocket_port"?'),
        ({"broker": "rabbit"}, "broker: \"rabbit\" is not allowed; give embedded, redis or auto"),
        ({"runtime_workers": 65}, 'runtime_workers: "65" is not allowed; give an integer from 0 to 64'),
        ({"log_payloads": "some"}, 'log_payloads: "some" is not allowed; give capped, full or none'),
        (
            {"websocket_ping_interval": 0.5},
            "websocket_ping_interval: 0.5 is not allowed; give milliseconds from 0 to 86400000 as a whole number, or a "
            "datetime.timedelta",
        ),
        ({"websocket": {"ping_interval": 0.5}}, "websocket_ping_interval: 0.5 is not allowed; give milliseconds"),
        ({"websocket_ping_interval": float("nan")}, "websocket_ping_interval: NaN is not allowed; give milliseconds"),
        ({"websocket_port": 3000.5}, "websocket_port: 3000.5 is not allowed; give a port from 0 to 65535"),
        (
            {"write_timeout": datetime.timedelta(microseconds=1500)},
            "write_timeout: 0:00:00.001500 is not whole milliseconds; give milliseconds from 100 to 600000",
        ),
        ({"write_timeout": datetime.timedelta(days=-1)}, 'write_timeout: "-86400000" is not allowed; give milliseconds'),
        ({"redis_port": datetime.timedelta(1)}, "redis_port: a timedelta is not allowed; give a port"),
        ({"remote_url": "http://h/\udcff"}, "remote_url: the value is not UTF-8"),
        ({"remote_ca": pathlib.Path("/\udcff")}, "remote_ca: the value is not UTF-8"),
        ({"remote_headers": {"X": "\ud800"}}, "remote_headers_X: the value is not UTF-8"),
        ({"admin_addr": "0.0.0.0:1"}, "FASTSOCK_ADMIN_TOKEN is required"),
        ({"auth_url": "http://h/"}, "FASTSOCK_AUTH_URL: it has no effect while FASTSOCK_AUTH is open"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(settings: Any, text: str) -> None:
    with pytest.raises(fastsock.ConfigError) as error:
        fastsock.Bridge(**settings)
    assert text in str(error.value)
    assert isinstance(error.value, ValueError) and isinstance(error.value, fastsock.FastsockError)
    with pytest.raises(fastsock.ConfigError):
        fastsock.Bridge(config=settings)


def test_a_value_of_a_wrong_class_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="websocket_port"):
        fastsock.Bridge(websocket_port=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_uplink is not callable"):
        fastsock.Bridge(on_uplink=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dict or the path"):
        fastsock.Bridge(config=5)  # type: ignore[arg-type]


def test_the_file_of_a_secret_can_be_named(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a-token-of-sixteen\n")
    config = {"admin": {"token_file": str(secret)}}
    assert fastsock.Bridge(config=config).setting("admin_token") == "***"
    secret.unlink()
    with pytest.raises(fastsock.ConfigError, match="FASTSOCK_ADMIN_TOKEN_FILE: cannot read"):
        fastsock.Bridge(config=config)


def test_a_dictionary_and_a_toml_file_say_the_same(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "fastsock.toml"
    file.write_text('websocket_port = 4001\nlog_level = "info"\n[redis]\nport = 6380\n[remote.headers]\nX-A = "1"\n')
    nested = {"websocket_port": 4001, "redis": {"port": 6380}, "remote": {"headers": {"X-A": "1"}}}
    for config in (str(file), file, nested):
        bridge = fastsock.Bridge(config=config)
        assert (bridge.setting("websocket_port"), bridge.setting("redis_port")) == ("4001", "6380")
        assert bridge.setting("remote_headers") == "***"


def test_a_toml_file_that_cannot_be_read_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(fastsock.ConfigError, match="nowhere.toml: cannot be read"):
        fastsock.Bridge(config=tmp_path / "nowhere.toml")
    file = tmp_path / "bad.toml"
    file.write_text("websocket_port = \n")
    with pytest.raises(fastsock.ConfigError, match="bad.toml"):
        fastsock.Bridge(config=file)


def test_keywords_win_over_the_environment_and_that_over_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBSOCKET_PORT", "4002")
    monkeypatch.setenv("REDIS_PREFIX", "env")
    monkeypatch.setenv("REDIS_HOST", "env")
    config = {"redis_prefix": "config", "redis_db": 5}
    bridge = fastsock.Bridge.from_env(config=config, redis_host="keyword")
    shown = [bridge.setting(name) for name in ("websocket_port", "redis_host", "redis_prefix", "redis_db")]
    assert shown == ["4002", "keyword", "env", "5"]
    assert fastsock.AsyncBridge.from_env().setting("websocket_port") == "4002"
    assert fastsock.Bridge().setting("websocket_port") == "3000", "only from_env reads the environment"
    monkeypatch.setenv("WEBSOCKET_PORT", "many")
    with pytest.raises(fastsock.ConfigError, match='WEBSOCKET_PORT: "many"'):
        fastsock.Bridge.from_env()
    monkeypatch.setenv("WEBSOCKET_PORT", "4002")
    monkeypatch.setenv("FASTSOCK_AUTHS", "jwt")
    with pytest.raises(fastsock.ConfigError, match="did you mean FASTSOCK_AUTH?"):
        fastsock.Bridge.from_env()


def test_a_fraction_in_a_toml_file_is_refused_too(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "fastsock.toml"
    file.write_text("[websocket]\nping_interval = 0.5\n")
    with pytest.raises(fastsock.ConfigError, match=r'websocket_ping_interval: "?0\.5"? is not allowed; give milliseconds'):
        fastsock.Bridge(config=file)
    file.write_text("websocket_ping_interval = 500.0\nruntime_workers = 0\n")
    bridge = fastsock.Bridge(config=file)
    assert bridge.setting("websocket_ping_interval") == "500"
    assert 1 <= int(bridge.setting("runtime_workers")) <= 4, "as the gateway reads it"


def test_whole_numbers_of_other_classes_are_taken() -> None:
    class Number:
        def __index__(self) -> int:
            return 4003

    assert fastsock.Bridge(websocket_port=Number()).setting("websocket_port") == "4003"  # type: ignore[arg-type]


def test_the_environment_is_text_and_its_names_are_known(caplog: pytest.LogCaptureFixture) -> None:
    wrong: Any
    for wrong, text in (
        ({"WEBSOCKET_PORT": 4000}, "environ: the value of WEBSOCKET_PORT is a str, not <class 'int'>"),
        ({"FASTSOCK_AUTH_JWT_KEY": b"k"}, "environ: the value of FASTSOCK_AUTH_JWT_KEY is a str, not <class 'bytes'>"),
        ({5: "x"}, "environ: the name of a variable is a str, not <class 'int'>"),
        (["WEBSOCKET_PORT=1"], "environ is a mapping such as os.environ"),
    ):
        with pytest.raises(TypeError) as error:
            fastsock.Bridge(environ=wrong)
        assert str(error.value) == text
    with pytest.raises(fastsock.ConfigError, match="REDIS_PREFIX: the value is not UTF-8"):
        fastsock.Bridge(environ={"REDIS_PREFIX": "\udcff"})
    assert caplog.records == []
    environ = {
        "FASTSOCK_LIMIT_CONECTIONS": "5",
        "FASTSOCK_LOG_FILE": "off",
        "FASTSOCK_RUNTIME_WORKERS": "3",
        "FASTSOCK_LOG_PAYLOADS": "none",
        "PS1": "\udcff",
        "https_proxy": "",
        "FASTSOCK_PORT": "tcp://10.0.0.1:80",  # as Kubernetes names a service
    }
    assert fastsock.Bridge(environ=environ).setting("runtime_workers") == "3"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("fastsock.settings", logging.WARNING)
    known = "FASTSOCK_LIMIT_CONNECTIONS"
    assert record.getMessage() == f"Unknown setting is ignored variable=FASTSOCK_LIMIT_CONECTIONS hint=did you mean {known}?"
    with pytest.raises(fastsock.ConfigError, match="FASTSOCK_LOG_PAYLOADS|log_payloads"):
        fastsock.Bridge(environ={"FASTSOCK_LOG_PAYLOADS": "some"})


def test_a_password_in_a_url_is_not_shown() -> None:
    for name in ("remote_url", "events_url"):
        bridge = fastsock.Bridge(config={name: "https://user:s3cret@host/path?key=s3cret"})
        assert bridge.setting(name) == "https://***@host/path?***"
        assert bridge.setting("redis_url") == ""


@pytest.mark.parametrize("timeout", [float("nan"), -1.0, -float("inf")])
def test_a_time_that_is_none_is_refused(start: Any, timeout: float) -> None:
    bridge = start()
    for call in (bridge.wait, bridge.stop):
        with pytest.raises(fastsock.ArgumentError, match="a timeout is 0 or more seconds, not"):
            call(timeout)
    assert bridge.state == "running"


def test_a_taken_port_is_a_bind_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bridge = fastsock.Bridge(websocket_port=taken.getsockname()[1], listen_addr="127.0.0.1")
        with pytest.raises(fastsock.BindError, match="WEBSOCKET_PORT|websocket_port") as error:
            bridge.start()
    assert isinstance(error.value, OSError) and error.value.errno == 98
    assert bridge.state == "stopped"


def test_the_table_has_a_row_for_each_setting() -> None:
    table = fastsock.setting_table()
    name, variable, allowed, about, default = table[0]
    assert (name, variable, allowed, default) == ("websocket_port", "WEBSOCKET_PORT", "a port from 0 to 65535", "3000")
    assert about.startswith("Port that devices connect to.")


def test_tokens_and_jwts_decide_who_may_connect(start: Any, tmp_path: Any) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    tokens = tmp_path / "tokens"
    tokens.write_text(f"dev1 {hashlib.sha256(b's3cret').hexdigest()}\n")

    def part(data: Any) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"sub": "dev1", "exp": time.time() + 600}
    signed = part(b'{"alg":"HS256"}') + "." + part(json.dumps(claims).encode())
    jwt = signed + "." + part(hmac.new(secret.encode(), signed.encode(), "sha256").digest())
    for settings, token in (
        ({"auth": "tokens", "auth_tokens_file": tokens}, "s3cret"),
        ({"auth": "jwt", "auth_jwt_key": f"hs256:text:{secret}"}, jwt),
    ):
        bridge = start(**settings)
        with Device(bridge.port, "ignored", (f"Authorization: Bearer {token}",)):
            assert eventually(bridge.clients)[0].client_id == "dev1"
        for wrong in ("dev1", token + "x"):
            with pytest.raises(Refused) as refused:
                Device(bridge.port, wrong)
            assert refused.value.status == 401
            assert "www-authenticate: bearer" in refused.value.head.lower()
        assert secret not in repr(bridge)
