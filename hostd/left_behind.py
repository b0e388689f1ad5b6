"""What an earlier daemon of this boot may have left running, and this one cannot ask.

A service that is set aside is not in the core: nobody here probes it, and a
snapshot without it reads as "it does not run there".  After a reboot that is
true.  After a restart of the daemon it need not be: then the peer is told
UNKNOWN, so that it starts no second one before this node is off or mended.

Decides which services that are, by a note in the runtime directory that is
kept up with every snapshot.  Refuses to know why a service is set aside.
"""

import logging
from pathlib import Path
from typing import Final

import msgspec

from hostd.core.snapshot import Report, Snapshot
from hostd.core.terms import ServiceState
from hostd.decoding import UNDECODABLE
from hostd.processes import boot_id

log = logging.getLogger("hostd")

FILE_NAME: Final = "may-run"
SIZE_MAX: Final = 100_000
"""Bytes; 256 services of 64 characters fit."""


class _Note(msgspec.Struct, frozen=True):
    boot: str
    services: tuple[str, ...]


class LeftBehind:
    """``set_aside``: the services that this daemon does not run."""

    def __init__(self, runtime: Path, set_aside: tuple[str, ...]) -> None:
        self._path, self._boot = runtime / FILE_NAME, boot_id()
        self._set_aside = set_aside
        noted = self._read()
        self.services = frozenset(noted) & frozenset(set_aside)
        """Those of them that may be running here."""
        self._noted: frozenset[str] | None = frozenset(noted)

    def with_unfinished(self, services: tuple[str, ...]) -> frozenset[str]:
        """Add those of which a start or stop did not end well; all by now."""
        self.services |= frozenset(services) & frozenset(self._set_aside)
        return self.services

    def told(self, snapshot: Snapshot) -> Snapshot:
        """What the peer is to be told: the core's word, and what the core does not know.

        Notes on the way, before anybody hears it, what may be running now.
        """
        mine = (name for name, report in snapshot.services.items() if not report.state.is_stopped)
        self._write(self.services.union(mine))
        if not self.services:
            return snapshot
        unknown = {name: Report(ServiceState.UNKNOWN) for name in sorted(self.services)}
        return msgspec.structs.replace(snapshot, services=snapshot.services | unknown)

    def _read(self) -> tuple[str, ...]:
        try:
            with self._path.open("rb") as file:
                note = msgspec.json.decode(file.read(SIZE_MAX), type=_Note)
        except FileNotFoundError:
            return ()  # the first daemon of this boot
        except (OSError, *UNDECODABLE) as error:
            log.error("%s: %s; what is set aside counts as running", self._path, error)
            return self._set_aside
        return note.services if note.boot == self._boot else ()

    def _write(self, services: frozenset[str]) -> None:
        """A few hundred bytes in memory (/run): no disk is waited for."""
        if services == self._noted:
            return
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(_Note(self._boot, tuple(sorted(services)))))
            fresh.rename(self._path)
        except OSError as error:
            if self._noted is not None:
                log.error("%s: %s", self._path, error)
            self._noted = None  # tried again with the next snapshot, complained of once
        else:
            self._noted = services
