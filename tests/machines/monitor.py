"""QEMU's monitor (QMP): the hardware of a guest, as seen from outside.

Decides how a command is told from an event that comes in between; events are
kept, oldest first, until somebody waits for them.
"""

import threading
import time
from pathlib import Path
from typing import Any

from tests.machines.json_lines import JsonLines

ANSWER_WITHIN_S = 60.0
POLL_S = 0.2


class MonitorError(Exception):
    """QEMU refused a command: its own words."""


class Monitor:
    """One connection for the life of a QEMU; the power switch's thread may use it beside the test's."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path, timeout_s=30)
        self._events: list[dict[str, Any]] = []
        self._turn = threading.RLock()
        self._lines.receive(timeout_s=ANSWER_WITHIN_S)  # the greeting
        self.command("qmp_capabilities")

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Execute a command; its answer.  MonitorError if QEMU refuses."""
        with self._turn:
            self._lines.send({"execute": name, "arguments": arguments})
            while True:
                said = self._lines.receive(timeout_s=ANSWER_WITHIN_S)
                if "event" in said:
                    self._events.append(said)
                elif "error" in said:
                    raise MonitorError(f"{name}: {said['error']['desc']}")
                else:
                    return said["return"]

    def take_events(self) -> list[str]:
        """The names of all events since the last call, without waiting."""
        with self._turn:
            self.command("query-status")  # brings in what has arrived
            names = [event["event"] for event in self._events]
            self._events.clear()
            return names

    def wait_for_event(self, name: str, *, within_s: float) -> None:
        """Until this event has come; all that came with it are forgotten."""
        end = time.monotonic() + within_s
        while name not in self.take_events():
            if time.monotonic() > end:
                raise AssertionError(f"no {name} within {within_s:.0f} s")
            time.sleep(POLL_S)

    def close(self) -> None:
        self._lines.close()
