"""JSON objects, one a line, over a unix socket: what QEMU's two control channels have in common.

Decides how a line is sent and how long an answer is awaited; what is said is
the business of ``monitor.py`` and ``guest_agent.py``.
"""

import json
import socket
import time
from pathlib import Path
from typing import Any

POLL_S = 0.05


class JsonLines:
    """A connection.  Every wait ends with TimeoutError after its limit, a lost one with ConnectionError."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        """Connect, waiting for the listener to appear."""
        end = time.monotonic() + timeout_s
        self._buffer = b""
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                self._socket.connect(str(path))
                return
            except OSError as error:
                self._socket.close()
                if time.monotonic() > end:
                    raise TimeoutError(f"nobody listens at {path}: {error.strerror}") from None
                time.sleep(POLL_S)

    def send(self, message: dict[str, Any], *, prefix: bytes = b"") -> None:
        self._socket.settimeout(10)
        self._socket.sendall(prefix + json.dumps(message).encode() + b"\n")

    def receive(self, *, timeout_s: float) -> dict[str, Any]:
        """The next object."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                chunk = self._socket.recv(65_536)
            except TimeoutError:
                raise TimeoutError(f"no answer within {timeout_s:.0f} s") from None
            if not chunk:
                raise ConnectionError("the other end is gone")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        # QEMU's guest agent marks the answer to a delimited sync with 0xff
        found: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
        return found

    def close(self) -> None:
        self._socket.close()
