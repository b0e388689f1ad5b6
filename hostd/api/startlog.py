"""What a server says while it starts, wherever its log goes.

Decides that this is the file behind the server's standard error: first what
``Resource.spawn`` gave it, then the error log that its configuration names,
which many servers put in that place.  Lines of earlier starts are left out.
Knows no particular server and judges nothing that is said.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

READ_MAX: Final = 262_144
"""Bytes read at once; of a log with earlier starts, only so much of its end is searched for ours."""


class StartLog:
    """The log of one starting process.  ``marker``: a text with which the server begins each start,
    the process id in it, so that earlier starts are known.  ``fresh``: the file that was made for
    this start, all of which is its own."""

    def __init__(self, pid: int, marker: str, fresh: Path) -> None:
        self._pid, self._marker, self._fresh = pid, marker.encode(), fresh.resolve()
        self._path: Path | None = None
        self._position = 0
        self.lines: list[str] = []
        """All lines so far."""

    def news(self) -> list[str]:
        """The lines that came since the last call.  Never fails: what cannot be read says nothing."""
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{self._pid}/fd/2").readlink()
            if path != self._path:
                self.follow(path)
        return self._read()

    def follow(self, path: Path) -> None:
        """Go on with this file: at the marker if it holds one, else at its end."""
        self._path, self._position = path, 0
        if path == self._fresh:
            return
        with contextlib.suppress(OSError), open(path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            start = log.seek(max(0, size - READ_MAX))
            found = log.read(READ_MAX).rfind(self._marker)
            self._position = start + found if found >= 0 else size

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            with open(self._path, "rb") as log:
                log.seek(self._position)
                whole, newline, _ = log.read(READ_MAX).rpartition(b"\n")
        except OSError:
            return []
        self._position += len(whole) + len(newline)
        news = [line for line in whole.decode(errors="replace").splitlines() if line.strip()]
        self.lines += news
        return news
