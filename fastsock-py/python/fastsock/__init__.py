"""Fastsock keeps devices on WebSockets, in your process: hooks decide about their messages, send() sends to them.

    import fastsock

    with fastsock.Bridge(websocket_port=3000, on_uplink=print) as bridge:
        bridge.wait()

Bridge calls hooks on a thread of its own; AsyncBridge lives in an asyncio loop. docs/python.md has the whole story.
"""

from fastsock._fastsock import (
    Bridge,
    Client,
    ConnectRequest,
    DeadLetter,
    Drop,
    Later,
    Leftover,
    Replace,
    Reply,
    Ticket,
    Uplink,
    __version__,
    setting_table,
)
from fastsock.aio import AsyncBridge
from fastsock.errors import (
    ArgumentError,
    BindError,
    BrokerError,
    ConfigError,
    FastsockError,
    ForkedError,
    OsError,
    OutboxFullError,
    Reject,
    StoppedError,
    TicketError,
    TooLargeError,
)
from fastsock.words import CloseReason, State

__all__ = [
    "ArgumentError",
    "AsyncBridge",
    "BindError",
    "Bridge",
    "BrokerError",
    "Client",
    "CloseReason",
    "ConfigError",
    "ConnectRequest",
    "DeadLetter",
    "Drop",
    "FastsockError",
    "ForkedError",
    "Later",
    "Leftover",
    "OsError",
    "OutboxFullError",
    "Reject",
    "Replace",
    "Reply",
    "State",
    "StoppedError",
    "Ticket",
    "TicketError",
    "TooLargeError",
    "Uplink",
    "__version__",
    "setting_table",
]
