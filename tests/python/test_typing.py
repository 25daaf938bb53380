"""The types are part of the API: stubs against the module, the package and the examples under mypy --strict."""

import os
import pathlib
import re
import subprocess
import sys
from typing import List

import fastsock

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
        '    """Threads that run the bridge, 0 to 64. 0: the number of cores, at most 4. Default 2. Variable FASTSOCK_RUNTIME_WORKERS."""',
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
