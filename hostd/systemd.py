"""What systemd hears of us: readiness, status, watchdog, and log levels.

Decides nothing; without systemd it does nothing (sd_notify(3), sd-daemon(3)).
"""

import logging
import os
import socket
import sys
import time
from typing import Final

_PRIORITY: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class Notifier:
    """Tells the service manager, if one listens."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        if self._socket:
            self._socket.setblocking(False)

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``; a manager that does not listen is no failure."""
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            logging.getLogger("hostd.systemd").debug("sd_notify: %s", error)

    def reloading(self) -> None:
        """Until the next ``READY=1`` the unit is "reloading" (sd_notify(3))."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self.tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


class _JournalFormatter(logging.Formatter):
    """One line with its priority; the journal adds time and process."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return "\n".join(prefix + line for line in text.splitlines())


def log_to_stderr(level: str) -> None:
    """Log to stderr: with priorities for the journal, with times for a terminal or a file."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ and not sys.stderr.isatty():
        handler.setFormatter(_JournalFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
