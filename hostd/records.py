"""What must outlive the host: which action is under way, and which did not end well.

Decides that a service is *unfinished* from the moment a start or stop of
one of its resources begins until one of them ends well; so neither a kill of
the host nor one of the brain lets anybody trust a half-started service.  One
small file per resource and kind in the runtime directory, replaced by
rename.  It does not know how an action is killed.
"""

import functools
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from hostd.decoding import UNDECODABLE

FILE_SIZE_MAX: Final = 20_000
"""A record has some 400 bytes."""


@functools.lru_cache(maxsize=1_000)
def file_name(*parts: str) -> str:
    """One file name for any names; different names never give the same one."""
    return "+".join(quote(part, safe="@:=,").replace(".", "%2E") for part in parts)


class Record(msgspec.Struct, frozen=True):
    """One action, from before it starts."""

    service: str
    resource: str
    action: str
    changes: bool
    """A start or stop; False: a monitor, which leaves nothing to distrust."""
    boot: str
    token: str
    """A name for this one action, unique on this machine."""
    cgroup: str = ""
    pid: int = 0
    """0: not known yet."""
    started: int = 0
    """The child's start time in clock ticks since boot."""
    ended: bool = False
    """No process of it is left, and it did not end well."""

    @property
    def needs_pid(self) -> bool:
        """Must its process be known, too?  Not of a monitor in a cgroup: nothing in there is to survive it."""
        return self.changes or not self.cgroup


class Records:
    """The records in one folder (0700)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        """Replace what was known of this resource and kind; atomic."""
        path = self._path(record)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.rename(path)

    def clear(self, record: Record) -> None:
        self._path(record).unlink(missing_ok=True)

    def all(self, boot: str) -> list[Record]:
        """Every record of this boot; those of an earlier one are removed: nothing of them lives."""
        found = []
        for path in sorted(self.folder.iterdir()):
            if path.suffix != ".json":
                path.unlink(missing_ok=True)  # a write that was interrupted; the record before it stands
                continue
            try:
                record = msgspec.json.decode(path.read_bytes()[:FILE_SIZE_MAX], type=Record)
            except UNDECODABLE:
                path.unlink(missing_ok=True)  # ours are written by rename: this is not one of them
                continue
            if record.boot == boot:
                found.append(record)
            else:
                path.unlink(missing_ok=True)
        return found

    def unfinished(self, boot: str) -> tuple[str, ...]:
        """Services that may be half started or half stopped, in name order."""
        return tuple(sorted({record.service for record in self.all(boot) if record.changes}))

    def _path(self, record: Record) -> Path:
        kind = "change" if record.changes else "monitor"
        return self.folder / (file_name(record.service, record.resource, kind) + ".json")
