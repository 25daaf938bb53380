"""Texts that know a little more: how a session ended, what the bridge is doing."""

from typing import Optional, Tuple

__all__ = ["CloseReason", "State"]


class CloseReason(str):
    """How a session ended: "replaced", "no_life", "closed_by_device", ..., or the text the host chose."""

    code: Optional[int]
    """The close code that was sent or received; None when the connection broke or was cut."""

    def __new__(cls, reason: str, code: Optional[int] = None) -> "CloseReason":
        """Makes one of the word and the code."""
        self = super().__new__(cls, reason)
        self.code = code
        return self


class State(str):
    """What the bridge is doing: "running", "degraded", "gap", "draining", "stopping", "stopped"."""

    gap: Optional[Tuple[float, float]]
    """With "gap": between these two times (seconds since 1970) downlinks may not have arrived."""

    def __new__(cls, state: str, gap: Optional[Tuple[float, float]] = None) -> "State":
        """Makes one of the word and the span."""
        self = super().__new__(cls, state)
        self.gap = gap
        return self
