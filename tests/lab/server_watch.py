"""Watches from outside which node's servers work on which data: never those of both.

Decides when two servers had one data directory: if a process of a service
began on one node before the last one on the other was gone.  Looks into the
machine's own /proc, which has the processes of all nodes, and believes
nobody else.
"""

import contextlib
import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.mission import SERVERS
from tests.lab.probe_process import now_ms

INTERVAL_S = 0.02
TICK_MS = 10.0
"""The kernel tells when a process began in hundredths of a second."""

SERVICE_OF = {program: service for service, programs in SERVERS.items() for program in programs}


@dataclass
class Stay:
    """The processes of one service on one node, one after the other or together."""

    node: str
    began_at_ms: float
    seen_at_ms: float
    pids: set[int] = field(default_factory=set)


class ServerWatch:
    """Looks every few ms from when it is made until it is closed; a context manager."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stays: dict[str, list[Stay]] = {service: [] for service in SERVERS}
        self._ended = threading.Event()
        self._looks = 0
        self._thread = threading.Thread(target=self._watch, name="server watch", daemon=True)
        self._thread.start()

    def stays(self, service: str) -> list[Stay]:
        """Where it ran, oldest first."""
        return list(self._stays[service])

    def overlaps(self) -> list[str]:
        """Every time that a service had servers on both nodes, in words."""
        found = []
        for service, stays in self._stays.items():
            for before, after in itertools.pairwise(stays):
                both_ms = before.seen_at_ms - after.began_at_ms
                if both_ms > TICK_MS:
                    found.append(f"{service}: {both_ms:.0f} ms on {before.node} and {after.node}")
        return found

    def assert_never_two(self) -> None:
        assert self._looks and self._thread.is_alive(), "nobody looks"
        assert self.overlaps() == []

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)

    def __enter__(self) -> "ServerWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._look()
            self._looks += 1

    def _look(self) -> None:
        homes = {pid_namespace(node.pid): node.name for node in self._lab.nodes if node.is_on}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                service = SERVICE_OF.get(process_name(int(entry.name)))
                node = homes.get(pid_namespace(int(entry.name))) if service else None
                if service and node:
                    self._note(service, node, int(entry.name), (entry / "stat").read_text())

    def _note(self, service: str, node: str, pid: int, stat: str) -> None:
        words = stat.rpartition(")")[2].split()
        state, began_at_ms = words[0], int(words[19]) * TICK_MS  # proc(5): fields 3 and 22
        if state in "ZX":
            return
        stays, now = self._stays[service], now_ms()
        mine = next((stay for stay in reversed(stays) if stay.node == node), None)
        if mine is None or (mine is not stays[-1] and pid not in mine.pids):
            mine = Stay(node, began_at_ms, now)
            stays.append(mine)
        mine.seen_at_ms = now
        mine.pids.add(pid)


def process_name(pid: int) -> str:
    """Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def pid_namespace(pid: int) -> str:
    """Empty for a process that is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
