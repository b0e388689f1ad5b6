"""The power switch: what the guests' fence agent reaches outside.

Decides how a line from a guest becomes a pulled plug.  Each guest has a
channel to here; one line ``NUMBER ACTION NODE``, one answer ``NUMBER WORD``.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence

from tests.machines.guest import Guest

RECONNECT_S = 0.2


class PowerSwitch:
    """Closed with the pair.  ``cut`` is called in a thread of the switch."""

    def __init__(self, nodes: Sequence[Guest], cut: Callable[[Guest], None]) -> None:
        self._nodes, self._cut = {node.name: node for node in nodes}, cut
        self.works = True
        """Whether it does what it is told; if not, it says so."""
        self.journal: list[str] = []
        """One line per order: who, what, whom, and the answer."""
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(node,), name=f"switch of {node.name}", daemon=True)
            for node in nodes
        ]
        for thread in self._threads:
            thread.start()

    @property
    def shots(self) -> list[str]:
        """The orders of the journal that switch off: not those of a drill, which only asks."""
        return [line for line in self.journal if line.split()[1] == "off"]

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(10)

    def _serve(self, node: Guest) -> None:
        """Listen to one guest, through all its lives."""
        while not self._ended.is_set():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as channel:
                channel.connect(str(node.power_port))
                channel.settimeout(RECONNECT_S)
                self._listen(node, channel)
            time.sleep(RECONNECT_S)

    def _listen(self, node: Guest, channel: socket.socket) -> None:
        said = b""
        while not self._ended.is_set():
            try:
                chunk = channel.recv(4096)
            except TimeoutError:
                continue
            if not chunk:
                return  # the guest has lost its power
            *lines, said = (said + chunk).split(b"\n")
            for line in lines:
                channel.sendall(self._answer(node, line.decode(errors="replace")).encode())

    def _answer(self, node: Guest, line: str) -> str:
        number, _, order = line.partition(" ")
        action, _, victim = order.partition(" ")
        answer = self._obey(action, self._nodes.get(victim))
        self.journal.append(f"{node.name}: {action} {victim}: {answer}")
        return f"{number} {answer}\n"

    def _obey(self, action: str, victim: Guest | None) -> str:
        if victim is None:
            return "no such plug"
        if action == "status":
            return "on" if victim.is_on else "off"
        if action != "off" or not self.works:
            return "refused"
        self._cut(victim)
        return "done"
