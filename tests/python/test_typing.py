"""The types are part of the API: stubs against the module, the package and the examples under mypy --strict."""

import inspect
import os
import pathlib
import re
import subprocess
import sys
from typing import List, get_type_hints

import fastsock
import fastsock.settings
import fastsock.types

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = ROOT / "fastsock-py" / "python" / "fastsock" / "settings.py"


def check(*args: str) -> None:
    """Runs a checker of mypy's and fails with what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *args], capture_output=True, text=True, timeout=600, cwd=ROOT / "target" / "python"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stubs_say_what_the_module_is() -> None:
    check("mypy.stubtest", "fastsock._fastsock", "--ignore-missing-stub")


def test_package_and_examples_are_strictly_typed() -> None:
    examples = sorted(map(str, (ROOT / "examples" / "python").glob("*.py")))
    check("mypy", "--strict", "--python-version", "3.10", "-p", "fastsock")
    check("mypy", "--strict", "--python-version", "3.10", "--scripts-are-modules", *examples)


def test_the_tests_are_typed_too() -> None:
    check("mypy", "--strict", "--explicit-package-bases", str(pathlib.Path(__file__).parent))


def test_annotations_can_be_read_at_run_time() -> None:
    """What tools that look at functions do."""
    for thing in (fastsock.types.Keywords, fastsock.types.AsyncKeywords, fastsock.settings.Settings):
        assert get_type_hints(thing)["websocket_port"], thing
    for name in ("__init__", "from_env", "start", "stop", "send", "on_uplink", "dead_letters", "__aenter__"):
        assert get_type_hints(getattr(fastsock.AsyncBridge, name)), name


def test_both_bridges_take_what_their_keywords_say() -> None:
    """`from_env` takes them by these names."""
    given = set(get_type_hints(fastsock.types.AsyncKeywords)) - set(get_type_hints(fastsock.settings.Settings))
    assert given == set(inspect.signature(fastsock.AsyncBridge).parameters) - {"settings"}
    given = set(get_type_hints(fastsock.types.Keywords)) - set(get_type_hints(fastsock.settings.Settings))
    assert given == set(inspect.signature(fastsock.Bridge).parameters) - {"settings"}


USES = """
import datetime, pathlib
import fastsock

class Mine(fastsock.AsyncBridge):
    pass

async def main() -> None:
    mine: Mine = await Mine.from_env(websocket_port=0).start()
    async with mine as same:
        also: Mine = same
    fastsock.Bridge.from_env(remote_ca=pathlib.Path("x"), write_timeout=datetime.timedelta(seconds=1))
    bridge = fastsock.Bridge(config=pathlib.Path("x.toml"), tls_cert=[pathlib.Path("a"), "b"])

    @bridge.on_uplink
    def on_uplink(uplink: fastsock.Uplink) -> fastsock.Reply:
        return fastsock.Reply(payload=uplink.text)

    reply: fastsock.Reply = on_uplink(fastsock.Uplink("dev1", "x"))

    @mine.on_uplink
    async def later(uplink: fastsock.Uplink) -> fastsock.Reply:
        return fastsock.Reply(uplink.text)
"""

WRONG = {
    'fastsock.AsyncBridge(uplinks="some")': "arg-type",
    "fastsock.Bridge.from_env(websocket_prot=0)": "call-arg",
    'fastsock.AsyncBridge.from_env(websocket_port="x")': "arg-type",
    "fastsock.Bridge(on_uplink=lambda uplink: 5)": "arg-type",
    'fastsock.Bridge().state == "runing"': "comparison-overlap",
    "fastsock.Bridge().on_connect(len)": "arg-type|type-var",
}


def test_what_users_write_is_typed(tmp_path: pathlib.Path) -> None:
    good = tmp_path / "good.py"
    good.write_text(USES)
    check("mypy", "--strict", str(good))
    bad = tmp_path / "bad.py"
    bad.write_text("import fastsock\n" + "\n".join(WRONG) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(bad)], capture_output=True, text=True, cwd=ROOT / "target" / "python"
    )
    for line, kind in enumerate(WRONG.values(), 2):
        assert re.search(rf"bad.py:{line}: error: .*\[({kind})\]", done.stdout), (line, done.stdout)


def test_each_setting_has_its_type() -> None:
    """The file is written by this test: FASTSOCK_BLESS=1 make test-python"""
    text = settings_source()
    if os.environ.get("FASTSOCK_BLESS") == "1":
        SETTINGS.write_text(text)
    assert SETTINGS.read_text() == text, "settings have changed: FASTSOCK_BLESS=1 make test-python"


def settings_source() -> str:
    """The source of fastsock/settings.py."""
    lines = [
        '"""The types of the settings, for checkers and editors. Written by tests/python/test_typing.py: do not edit."""',
        "",
        "from datetime import timedelta",
        "from os import PathLike",
        "from typing import List, Literal, Mapping, Optional, Tuple, TypedDict, Union",
        "",
        '__all__ = ["Settings"]',
        "",
        "",
        "class Settings(TypedDict, total=False):",
        '    """All settings of a bridge by name. None means the default. Times are milliseconds as int, text with a unit, or a timedelta; sizes are bytes as int, or text with a unit."""',
        "",
        "    runtime_workers: Optional[int]",
        '    """Threads that run the bridge, 0 to 64. 0: half of the cores, 1 to 4. Default 2. Variable FASTSOCK_RUNTIME_WORKERS."""',
        '    log_payloads: Optional[Literal["capped", "full", "none"]]',
        '    """What becomes of payloads in the fields of log records: cut at 1 KiB, whole, or left out. Default capped. Variable FASTSOCK_LOG_PAYLOADS."""',
    ]
    for name, variable, allowed, about, default in fastsock.setting_table():
        lines.append(f"    {name}: Optional[{python_type(allowed)}]")
        shown = f" Default {default}." if default and default != "***" else ""
        lines.append(f'    """{about}{shown} Variable {variable}."""'.replace("\\", ""))
    return "\n".join(lines) + "\n"


def python_type(allowed: str) -> str:
    """The type of a setting, from the words for what is allowed."""
    words: List[str] = re.split(r", | or ", allowed)
    if allowed == "on or off":
        return "bool"
    if "JSON array" in allowed:
        return "Union[str, List[Mapping[str, object]]]"
    if "JSON object" in allowed:
        return "Mapping[str, Union[str, int, float, bool, None]]"
    if allowed.startswith("milliseconds"):
        return "Union[int, str, timedelta]"
    if allowed.startswith("bytes"):
        return "Union[int, str]"
    if allowed.startswith(("a port", "an integer")):
        return "int"
    if "separated by commas" in allowed and "path" in allowed:
        return "Union[str, PathLike[str], List[Union[str, PathLike[str]]], Tuple[Union[str, PathLike[str]], ...]]"
    if "separated by commas" in allowed:
        return "Union[str, List[str], Tuple[str, ...]]"
    if "path of" in allowed:
        return "Union[str, PathLike[str]]"
    if len(words) > 1 and all(re.fullmatch(r"[a-z0-9_]+", word) for word in words):
        return "Literal[{}]".format(", ".join(f'"{word}"' for word in words))
    return "str"
