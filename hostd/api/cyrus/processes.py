"""The processes of one Cyrus IMAP server: master, what it runs, and what outlives it.

Decides who belongs to the server with one imapd.conf: a master by its
program and ``-C``; a service by the mark that master puts into its
environment and ``-C``; and whatever else holds the lock on configdirectory
under which the server was started (``hostd.api.occupancy``).  Knows neither
pid files nor parents: after a crash both lie.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from hostd.api import claims, occupancy, servers
from hostd.api.cyrus import conf
from hostd.api.errors import AgentError

MASTERS: Final = {"master", "cyrmaster", "cyrus-master"}
"""File names of the program; Debian's cyrmaster is a link to master."""


class Server(NamedTuple):
    """All processes of the server at the time of the look."""

    masters: list[int]
    others: list[int]

    @property
    def pids(self) -> list[int]:
        return self.masters + self.others


class Processes:
    """Those of the server with ``config``.  ``program``: master itself, in the folder of Cyrus' own programs;
    None where it is not installed."""

    def __init__(self, config: Path, program: Path | None) -> None:
        self._config = config.resolve()
        self._masters = MASTERS | ({program.name} if program else set())
        self._program = program

    def masters(self) -> list[int]:
        """One, or something is wrong."""
        found = servers.find(self._masters, lambda process: _is_cyrus(process.pid) and self._is_ours(process))
        pids = {process.pid for process in found}
        return [process.pid for process in found if process.parent not in pids]  # its children until they exec

    def look(self) -> Server:
        """Masters, the services that any of them has started, and what else holds the lock, such
        as tools that master runs and what these run."""
        masters = self.masters()
        found = servers.find(self._names(), lambda process: _is_service(process.pid) and self._is_ours(process))
        others = {process.pid for process in found}
        if (directory := self._directory()) is not None:
            others |= set(filter(servers.is_here, occupancy.occupants(directory)))
        return Server(masters, sorted(others - set(masters)))

    def strangers(self) -> list[int]:
        """Programs of Cyrus that work on our data and are not ours: of another configuration or namespace, or
        an administrator's tools."""
        directory = self._directory()
        if directory is None:
            return []
        ours = set(self.look().pids)
        return [pid for pid in occupancy.at_work(directory, self._names()) if pid not in ours]

    def in_the_way(self, directory: Path, lock: int | None) -> list[int]:
        """Who keeps us from starting, after an attempt to ``occupy`` configdirectory with this result.  Numbers as
        ``claims.lock_holder`` gives them: 0 is somebody who is not visible from here."""
        if lock is None:
            return occupancy.occupants(directory) or [0]
        if strangers := self.strangers():
            return strangers
        turns = map(claims.lock_holder, directory.glob("socket/*.lock"))  # with which Cyrus' services take turns
        return [pid for pid in turns if pid is not None]

    def _names(self) -> set[str]:
        """File names of all programs of Cyrus."""
        return self._masters | ({path.name for path in self._program.parent.iterdir()} if self._program else set())

    def _is_ours(self, process: servers.ServerProcess) -> bool:
        return Path(process.option("-C") or conf.IMAPD_CONF).resolve() == self._config

    def _directory(self) -> Path | None:
        """configdirectory, if imapd.conf is there to tell it."""
        try:
            directory = conf.settings(self._config).get("configdirectory")
        except AgentError:
            return None
        return Path(directory) if directory else None


def children(pid: int) -> list[int]:
    """Of a master: what it runs now."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_cyrus(pid: int) -> bool:
    """Postfix' parent is called master as well."""
    try:
        program = Path(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)"))  # noqa: PTH115 - to cut it
    except OSError:
        return False
    return program.name != "master" or (program.parent / "ctl_cyrusdb").exists()


def _is_service(pid: int) -> bool:
    """master marks what it starts to serve; a tool that an administrator runs has no such mark."""
    try:
        return b"CYRUS_SERVICE=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
