"""One GET over a connection: HTTP/1.1 as far as a monitor needs it (RFC 9112).

Decides what the server at the other end answers: its status and how its body
begins.  It neither connects nor knows whose server that is, follows no
redirect and undoes no compression.  ``http.client``, which reads a head as if
it were mail, made up a fifth of what a monitor of a web server cost.
"""

import socket
import time
from typing import Final, NamedTuple

_AT_ONCE: Final = 16_384
HEAD_MAX: Final = 65_536
"""Bytes of one line of a head, and lines of it: far more than any server sends."""


class Answer(NamedTuple):
    """What came."""

    status: int
    body: bytes
    """Not more than was asked for."""


def get(connection: socket.socket, host: str, target: str, *, until: float, body_max: int) -> Answer:
    """Ask for ``target`` (path and query) at ``host`` (name or address, with its port as in a URL).

    ``until``: on ``time.monotonic()``; then TimeoutError.  OSError if it hangs
    up or speaks no HTTP; ValueError if ``target`` cannot be asked for.
    """
    if not (target.isascii() and target.isprintable() and " " not in target):
        raise ValueError(f"{target!r} holds what must be written as %XX")
    reader = _Reader(connection, until)
    fields = f"Host: {host}\r\nUser-Agent: hostd\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
    connection.sendall(f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode())
    while True:
        status, head = _head(reader)
        if status >= 200:  # else an answer is still to come
            break
    if "chunked" in head.get("transfer-encoding", ""):
        return Answer(status, _chunks(reader, body_max))
    length = head.get("content-length", "")
    if status in (204, 304):
        return Answer(status, b"")
    return Answer(status, reader.take(min(body_max, int(length)) if length.isdecimal() else body_max))


def _head(reader: "_Reader") -> tuple[int, dict[str, str]]:
    """The status, and the fields by their names in small letters."""
    version, _, rest = reader.line().partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/") or not (len(status) == 3 and status.isdecimal()):
        raise ConnectionError("it speaks no HTTP")
    fields: dict[str, str] = {}
    for _ in range(HEAD_MAX):
        line = reader.line()
        if not line:
            break
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip().lower()
    return int(status), fields


def _chunks(reader: "_Reader", size_max: int) -> bytes:
    body = b""
    while len(body) < size_max:
        size = reader.line().partition(";")[0].strip()
        try:
            left = int(size, 16)
        except ValueError:
            raise ConnectionError(f"it sends a chunk of {size!r} bytes") from None
        if left == 0:
            break
        body += reader.take(min(left, size_max - len(body)))
        if len(body) < size_max:
            reader.line()  # the empty one behind it
    return body


class _Reader:
    """What comes, by lines and by bytes."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until, self._data = connection, until, b""

    def line(self) -> str:
        """The next line without its end.  ConnectionError if there is none."""
        while b"\n" not in self._data:
            if len(self._data) > HEAD_MAX or not self._more():
                raise ConnectionError("it speaks no HTTP" if self._data else "it hung up")
        line, _, self._data = self._data.partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")

    def take(self, size: int) -> bytes:
        """So many bytes, or fewer if it hangs up before."""
        while len(self._data) < size and self._more():
            pass
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _more(self) -> bool:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        more = self._connection.recv(_AT_ONCE)
        self._data += more
        return bool(more)
