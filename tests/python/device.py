"""Devices at the wire, without pytest: scripts of the tests import this too."""

import base64
import os
import socket
import struct
import time
from typing import Any, Callable, Optional, Tuple

DEADLINE = 20.0
"""A loaded machine is slow, and a passing test never waits that long."""


def eventually(check: Callable[[], Any], what: str = "it") -> Any:
    """Waits until a check gives something true, and returns that."""
    until = time.monotonic() + DEADLINE
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.005)  # polls


class Refused(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status: int, head: str, body: str) -> None:
        super().__init__(status, head, body)
        self.status = status
        self.head = head
        self.body = body


class Device:
    """A WebSocket client at the wire: what a small device does, without a library in between."""

    def __init__(self, port: int, token: str = "dev1", headers: Tuple[str, ...] = ()) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._input = b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /?token={token} HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *headers,
        ]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._input:
            more = self._socket.recv(65536)
            if not more:
                raise Refused(0, "", "")
            self._input += more
        head, _, self._input = self._input.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 101:
            body = self._input
            while True:
                more = self._socket.recv(65536)
                if not more:
                    break
                body += more
            raise Refused(status, head.decode(), body.decode())

    def send(self, payload: Any) -> None:
        """Sends one message: str is TEXT, bytes BINARY."""
        self._socket.sendall(frame(payload))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._socket.sendall(data)

    def receive(self) -> Any:
        """The next message as str or bytes; the close code as int when it is closed, None when it is cut. Answers pings."""
        while True:
            head = self._take(2)
            if head is None:
                return None
            opcode, length = head[0] & 0x0F, head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self._take(2) or b"\0\0")
            elif length == 127:
                (length,) = struct.unpack("!Q", self._take(8) or bytes(8))
            payload = self._take(length)
            if payload is None:
                return None
            if opcode == 1:
                return payload.decode()
            if opcode == 2:
                return payload
            if opcode == 8:
                self._socket.sendall(frame(payload, 8))
                return struct.unpack("!H", payload[:2])[0] if payload else 1005
            if opcode == 9:
                self._socket.sendall(frame(payload, 10))

    def _take(self, count: int) -> Optional[bytes]:
        while len(self._input) < count:
            try:
                more = self._socket.recv(65536)
            except ConnectionError:
                return None
            if not more:
                return None
            self._input += more
        taken, self._input = self._input[:count], self._input[count:]
        return taken

    def close(self) -> None:
        """Cuts the connection."""
        self._socket.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frame(payload: Any, opcode: Optional[int] = None) -> bytes:
    """One masked frame. The mask is zero, so that the payload goes as it is."""
    data = payload.encode() if isinstance(payload, str) else bytes(payload)
    if opcode is None:
        opcode = 1 if isinstance(payload, str) else 2
    if len(data) < 126:
        head = bytes([0x80 | opcode, 0x80 | len(data)])
    elif len(data) < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack("!H", len(data))
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack("!Q", len(data))
    return head + bytes(4) + data
