"""Names for what calls and hooks take and give, to annotate with."""

import os
from typing import Any, Dict, Literal, Type, Union

from fastsock._fastsock import Drop, Later, Replace, Reply
from fastsock.errors import Reject

__all__ = ["Admission", "Config", "Payload", "Sent", "UplinkAction"]

Payload = Union[str, bytes, bytearray, memoryview]
"""What is sent to a device: str is TEXT, the others BINARY (so is anything else with the buffer protocol)."""

Sent = Union[Literal["here"], Literal["elsewhere"], Literal["offline"]]
"""Where a message went."""

Config = Union[Dict[str, Any], str, "os.PathLike[str]"]
"""A dict of settings, or the path of a TOML file."""

Admission = Union[None, str, Reject, Later, Type[Later]]
"""What authenticate returns."""

UplinkAction = Union[None, Drop, Type[Drop], Replace, Reply, Later, Type[Later]]
"""What on_uplink returns."""
