"""A small heart and a small brain for the tests of the host.

Each writes what it hears as one line of JSON into the file ``told``; the
brain does what is written into the file ``orders`` (one message a
line, by name), so that a test can speak with its voice.
"""

import json
import os
import select
import socket
import time
from pathlib import Path

import msgspec

from hostd import messages


class Scribe:
    """One life's diary."""

    def __init__(self, folder: Path, who: str) -> None:
        self.path, self.who = folder / "told", who

    def write(self, what: str, **more: object) -> None:
        line = json.dumps({"who": self.who, "pid": os.getpid(), "what": what, **more})
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, line.encode() + b"\n")
        os.close(fd)


def heart(folder: Path, host_end: socket.socket, brain_end: socket.socket) -> int:
    return _live(Scribe(folder, "heart"), folder / "no-orders", host_end, brain_end)


def brain(folder: Path, host_end: socket.socket, heart_end: socket.socket) -> int:
    if (folder / "crash").exists():
        raise RuntimeError("crashes as asked")
    return _live(Scribe(folder, "brain"), folder / "orders", host_end, heart_end)


def _live(scribe: Scribe, orders: Path, host_end: socket.socket, other_end: socket.socket) -> int:
    scribe.write("born", parent=os.getppid(), files=len(list(Path("/proc/self/fd").iterdir())))
    ends: list[socket.socket] = [host_end, other_end]
    messages.send(other_end, messages.Renew(hears=os.getpid()))
    while True:
        ready, _, _ = select.select(ends, [], [], 0.02)
        for end in ready:
            received = messages.receive(end)
            name = "host" if end is host_end else "other"
            if received is None:
                scribe.write("eof", of=name)
                if end is host_end:
                    return 0
                ends.remove(end)
                end.close()
                continue
            message, files = received
            scribe.write(type(message).__name__, of=name, **_fields(message))
            if isinstance(message, messages.Relieved):
                return 0
            for file in files:
                ends[1:] = [socket.socket(fileno=file)]
                messages.send(ends[1], messages.Renew(hears=os.getpid()))
        if orders.exists():
            text = orders.read_text()
            orders.unlink()
            for line in text.splitlines():
                messages.send(host_end, eval(line, vars(messages)))  # noqa: S307 - the test's own words


def _fields(message: messages.AnyMessage) -> dict[str, object]:
    return {name: _plain(getattr(message, name)) for name in message.__struct_fields__}


def _plain(value: object) -> object:
    return value.name if hasattr(value, "name") else msgspec.to_builtins(value)


def wait_for(condition: object, limit_s: float = 10.0) -> object:
    """The first true answer of ``condition``."""
    assert callable(condition)
    until = time.monotonic() + limit_s
    while not (answer := condition()):
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)
    return answer
