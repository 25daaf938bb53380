"""Fastsock keeps devices on WebSockets, in your process: hooks decide about their messages, send() sends to them.

    import fastsock

    with fastsock.Bridge(websocket_port=3000, on_uplink=print) as bridge:
        bridge.wait()

Bridge calls hooks on a thread of its own; AsyncBridge lives in an asyncio loop. docs/python.md has the whole story.
"""

from fastsock._fastsock import (
    Accept,
    Bridge,
    Client,
    ConnectRequest,
    Context,
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
    BusyError,
    ConfigError,
    FastsockError,
    ForkedError,
    NotConnectedError,
    OsError,
    OutboxFullError,
    Reject,
    StoppedError,
    TicketError,
    TooLargeError,
    UnansweredError,
)
from fastsock.words import CloseReason, State

__all__ = [
    "Accept",
    "ArgumentError",
    "AsyncBridge",
    "BindError",
    "Bridge",
    "BrokerError",
    "BusyError",
    "Client",
    "CloseReason",
    "ConfigError",
    "ConnectRequest",
    "Context",
    "DeadLetter",
    "Drop",
    "FastsockError",
    "ForkedError",
    "Later",
    "Leftover",
    "NotConnectedError",
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
    "UnansweredError",
    "Uplink",
    "__version__",
    "setting_table",
]
