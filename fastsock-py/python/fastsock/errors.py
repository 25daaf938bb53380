"""The exceptions: FastsockError, one subclass per kind, each also the builtin one would expect."""

from typing import Optional

__all__ = [
    "ArgumentError",
    "BindError",
    "BrokerError",
    "BusyError",
    "ConfigError",
    "FastsockError",
    "ForkedError",
    "NotConnectedError",
    "OsError",
    "OutboxFullError",
    "Reject",
    "StoppedError",
    "TicketError",
    "TooLargeError",
    "UnansweredError",
]


class FastsockError(Exception):
    """A call of the bridge failed."""


class ConfigError(FastsockError, ValueError):
    """A setting has a value that is not allowed, or two settings contradict each other."""


class BindError(FastsockError, OSError):
    """A port is taken, or may not be bound."""


class OutboxFullError(FastsockError, BufferError):
    """The device's outbox is full."""


class NotConnectedError(FastsockError, ConnectionError):
    """No gateway has the device; nothing was sent."""


class BusyError(FastsockError, RuntimeError):
    """As many calls wait as may, or the device has an OCPP call to answer first; nothing was sent."""


class UnansweredError(FastsockError, TimeoutError):
    """The message was sent, and no answer came: the time is over, or the session ended."""


class TooLargeError(FastsockError, ValueError):
    """The message is over the limit."""


class BrokerError(FastsockError, ConnectionError):
    """The broker (Redis) did not take it."""


class StoppedError(FastsockError, RuntimeError):
    """The bridge is not running, stopping or stopped."""


class TicketError(FastsockError, LookupError):
    """The ticket is unknown, answered already, or timed out."""


class ArgumentError(FastsockError, ValueError):
    """An argument is not allowed."""


class OsError(FastsockError, OSError):
    """The operating system refused something."""


class ForkedError(FastsockError, RuntimeError):
    """The bridge was started in the parent of this process; its threads are not in this one."""


class Reject(Exception):
    """Raised (or returned) by authenticate: the device is refused with this HTTP status."""

    def __init__(self, status: int = 403, reason: str = "", *, retry_after: Optional[int] = None) -> None:
        """Refuses with a status from 400 to 599, a short body without secrets, and seconds for Retry-After."""
        if not 400 <= status <= 599:
            raise ArgumentError(f"a refusal has a status from 400 to 599, not {status}")
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
