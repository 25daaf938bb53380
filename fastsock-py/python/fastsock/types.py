"""Names for annotations: what calls and hooks take and return."""

import os
from typing import Any, Awaitable, Callable, Dict, List, Literal, Mapping, Optional, Type, Union

from fastsock._fastsock import Accept, Client, ConnectRequest, Drop, Later, Replace, Reply, Uplink
from fastsock.errors import Reject
from fastsock.settings import Settings
from fastsock.words import CloseReason, State

__all__ = [
    "Admission",
    "AsyncKeywords",
    "Config",
    "Keywords",
    "LostReason",
    "MailboxLostReason",
    "Payload",
    "Sent",
    "StateName",
    "UplinkAction",
]

Payload = Union[str, bytes, bytearray, memoryview]
"""What is sent to a device: str is TEXT, the others BINARY (so is anything else with the buffer protocol)."""

Sent = Literal["here", "elsewhere", "offline", "kept"]
"""Where a message went."""

Config = Union[Dict[str, Any], str, os.PathLike[str]]
"""A dict of settings, or the path of a TOML file."""

Admission = Union[None, str, Accept, Reject, Later, Type[Later]]
"""What authenticate returns."""

UplinkAction = Union[None, Drop, Type[Drop], Replace, Reply, Later, Type[Later]]
"""What on_uplink returns."""

LostReason = Literal["no_remote_url", "hook_failed", "rejected", "poison", "too_old", "full", "shutdown", "spool"]
"""Why the bridge gave up an uplink."""

MailboxLostReason = Literal["mailbox_full", "mailbox_expired", "mailbox_bad"]
"""Why kept messages are lost."""

StateName = Literal["running", "degraded", "draining", "stopping", "stopped"]
"""What a bridge is doing; on_state also gets "gap"."""


class Keywords(Settings, total=False):
    """What Bridge and Bridge.from_env take."""

    config: Optional[Config]
    environ: Optional[Mapping[str, str]]
    authenticate: Optional[Callable[[ConnectRequest], Admission]]
    on_connect: Optional[Callable[[Client], object]]
    on_uplink: Optional[Callable[[Uplink], UplinkAction]]
    on_uplinks: Optional[Callable[[List[Uplink]], object]]
    on_disconnect: Optional[Callable[[Client, CloseReason], object]]
    on_uplink_lost: Optional[Callable[[Uplink, LostReason], object]]
    on_mailbox_lost: Optional[Callable[[str, MailboxLostReason, int], object]]
    on_state: Optional[Callable[[State], object]]
    on_error: Optional[Callable[[str, BaseException], object]]


class AsyncKeywords(Settings, total=False):
    """What AsyncBridge and AsyncBridge.from_env take."""

    config: Optional[Config]
    environ: Optional[Mapping[str, str]]
    authenticate: Optional[Callable[[ConnectRequest], Union[Admission, Awaitable[Admission]]]]
    on_connect: Optional[Callable[[Client], object]]
    on_uplink: Optional[Callable[[Uplink], Union[UplinkAction, Awaitable[UplinkAction]]]]
    on_disconnect: Optional[Callable[[Client, CloseReason], object]]
    on_uplink_lost: Optional[Callable[[Uplink, LostReason], object]]
    on_mailbox_lost: Optional[Callable[[str, MailboxLostReason, int], object]]
    on_state: Optional[Callable[[State], object]]
    on_error: Optional[Callable[[str, BaseException], object]]
    uplinks: Optional[Literal["forward", "take"]]
    max_hooks: int
    max_notices: int
