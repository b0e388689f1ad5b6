"""The metrics of this node, as a file for node_exporter's textfile collector.

Decides when it is written and that nobody ever waits for it: a thread of its
own, of which at most one writing is under way; what comes meanwhile is left
out.  A folder that hangs costs metrics, and neither the loop nor the thread
that keeps the books.  What is in the file is a plugin's business (hook
``metrics``).
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hostd import state
from hostd.requests import plain
from hostd.status_form import Status

INTERVAL_MS: Final = 15_000
"""Half of what is common between two scrapes of node_exporter, at most."""

Format = Callable[[dict[str, Any]], str]
"""The registry's: the status as ``--json`` prints it → the text."""


class Textfile:
    """Writes one file again and again.  ``failures``: writings that came to nothing, for the figures."""

    def __init__(self, path: Path, format_: Format) -> None:
        self._path, self._format = path, format_
        self._thread: threading.Thread | None = None
        self._due_at_ms = 0
        self.failures = 0
        self.failure = ""
        """Why the newest writing came to nothing; empty if it did not."""

    def is_due(self, now_ms: int) -> bool:
        """Is it time, and is the last writing over?  One that hangs is counted each time."""
        if now_ms < self._due_at_ms:
            return False
        self._due_at_ms = now_ms + INTERVAL_MS
        if self._thread is not None and self._thread.is_alive():
            self.failures += 1
            self.failure = "the last writing has not ended yet"
            return False
        return True

    def write(self, status: Status) -> None:
        """Begin to write this status; returns at once."""
        self._thread = threading.Thread(target=self._write, args=(status,), name="metrics", daemon=True)
        self._thread.start()

    def _write(self, status: Status) -> None:
        """In the thread."""
        try:
            replace_for_all(self._path, self._format(plain(status)))
            self.failure = ""
        except OSError as error:
            self.failures += 1
            self.failure = f"{self._path}: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - the edge: a plugin's code may raise anything
            self.failures += 1
            self.failure = f"the plugin that makes the metrics failed: {error!r}"


def replace_for_all(path: Path, text: str) -> None:
    """The old or the new content, readable by everybody.  Raises OSError.

    Not synchronised to the disk: after a power cut it is written anew.
    """
    descriptor, beside = state.opened_beside(path, 0o644)  # the collector reads *.prom only
    try:
        with open(descriptor, "w") as file:
            file.write(text)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
