"""The command: `fastsock`, or `python -m fastsock`. The same gateway as the binary, in this process."""

import signal
import sys
import threading
from typing import Any, Dict, List, Optional

from fastsock._fastsock import _run_command

__all__ = ["main"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(args: Optional[List[str]] = None) -> int:
    """Runs the gateway with these arguments (sys.argv without the program's name) until a signal ends it.

    Returns the exit code. Python's own signal handlers are back when it returns.
    """
    handlers = _put_aside() if threading.current_thread() is threading.main_thread() else {}
    try:
        return _run_command(["fastsock", *(sys.argv[1:] if args is None else args)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _put_aside() -> Dict[signal.Signals, Any]:
    """Makes Python ignore what the gateway takes; returns what it did before."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    # None was installed by C code: Python could not put that back.
    known = {number: handler for number, handler in handlers.items() if handler is not None}
    for number in known:
        signal.signal(number, lambda *_: None)
    return known


if __name__ == "__main__":
    sys.exit(main())
