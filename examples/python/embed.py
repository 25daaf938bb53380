"""A host with a bridge in its own process: greets who connects, answers "ping", forwards the rest, and logs.

The same program is examples/rust/embed.rs, examples/c/embed.c and examples/cpp/embed.cpp.

    python embed.py

Connect a device to ws://127.0.0.1:3000/?token=dev1; Enter ends it.
"""

import logging
import sys
from typing import Optional

import fastsock


class Host:
    """What the host does when something happens, on the one thread of the hooks."""

    bridge: fastsock.Bridge

    def on_connect(self, client: fastsock.Client) -> None:
        """Greets."""
        print(f"{client.client_id} connected", flush=True)
        self.bridge.send(client.client_id, "welcome")

    def on_uplink(self, uplink: fastsock.Uplink) -> Optional[fastsock.Reply]:
        """Answers what it knows; None goes to the backend."""
        print(f"{uplink.client_id} says {uplink.text}", flush=True)
        return fastsock.Reply("pong") if uplink.payload == b"ping" else None

    def on_disconnect(self, client: fastsock.Client, reason: fastsock.CloseReason) -> None:
        """Notes how it ended."""
        print(f"{client.client_id} left: {reason}", flush=True)


def main() -> None:
    """Runs until Enter."""
    logging.basicConfig(level=logging.WARNING)
    host = Host()
    host.bridge = fastsock.Bridge.from_env(
        on_connect=host.on_connect, on_uplink=host.on_uplink, on_disconnect=host.on_disconnect
    )
    host.bridge.start()
    print("listening on {} port {}".format(*host.bridge.local_addr), flush=True)
    sys.stdin.readline()
    leftover = host.bridge.stop(8)
    print(f"stopped; {leftover.uplinks} uplinks left")


if __name__ == "__main__":
    main()
