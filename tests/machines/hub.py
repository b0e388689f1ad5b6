"""An Ethernet hub between emulated machines, and a plug per machine.

Decides which frames reach whom.  One unix datagram socket per port, since
datagrams need no connection: any machine may die and come back.
"""

import contextlib
import select
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

FRAME_MAX = 70_000


@dataclass(frozen=True)
class Port:
    """Where a machine's card and the hub find each other."""

    ours: Path
    theirs: Path


class Hub:
    """A frame that comes in at one port goes out at all others that are plugged."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._sockets: dict[str, socket.socket] = {}
        self._ports: dict[str, Port] = {}
        self._unplugged: set[str] = set()
        self._poll = select.epoll()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"hub {name}", daemon=True)
        self._thread.start()

    def port(self, who: str) -> Port:
        """The port of this machine, made at the first call."""
        if who not in self._ports:
            port = Port(self._folder / f"{self.name}-hub-{who}", self._folder / f"{self.name}-nic-{who}")
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            opened.bind(str(port.ours))
            self._sockets[who], self._ports[who] = opened, port
            self._poll.register(opened, select.EPOLLIN)
        return self._ports[who]

    def unplug(self, who: str) -> None:
        """Nothing passes to or from this machine; its carrier is its guest's business."""
        self._unplugged.add(who)

    def plug(self, who: str) -> None:
        self._unplugged.discard(who)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        for opened in self._sockets.values():
            opened.close()
        self._poll.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            for file, _ in self._poll.poll(0.2):
                who = next(name for name, opened in list(self._sockets.items()) if opened.fileno() == file)
                with contextlib.suppress(OSError):  # a card that is gone
                    self._pass_on(who, self._sockets[who].recv(FRAME_MAX))

    def _pass_on(self, sender: str, frame: bytes) -> None:
        if sender in self._unplugged:
            return
        for other, port in list(self._ports.items()):
            if other != sender and other not in self._unplugged:
                with contextlib.suppress(OSError):  # off, or its queue is full: a hub drops
                    self._sockets[sender].sendto(frame, str(port.theirs))
