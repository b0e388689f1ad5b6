"""The main processes of services, watched so that a crash is noticed at once.

Decides that a process which was there when the action ended and is gone now
has exited.  It does not know whether anybody wanted it to exit: the host
forgets a watch before a stop begins.
"""

import os
import selectors
from collections.abc import Callable, Collection

from hostd import processes

Exited = Callable[[str, str, int], None]


class Watches:
    """One watched process per resource, by pidfd."""

    def __init__(self, selector: selectors.BaseSelector, exited: Exited) -> None:
        self._selector, self._exited = selector, exited
        self._watched: dict[tuple[str, str], tuple[int, int, int]] = {}

    def watch(self, service: str, resource: str, pid: int, started: int) -> bool:
        """Watch this process instead of the one before; False if it is gone already."""
        key = (service, resource)
        watched = self._watched.get(key)
        if watched and watched[:2] == (pid, started):
            return True
        self.forget(service, resource)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if not processes.is_same(pid, started):
            os.close(pidfd)
            return False
        self._watched[key] = (pid, started, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._ended(service, resource))
        return True

    def forget(self, service: str, resource: str) -> None:
        watched = self._watched.pop((service, resource), None)
        if watched:
            self._selector.unregister(watched[2])
            os.close(watched[2])

    def keep(self, resources: Collection[tuple[str, str]]) -> None:
        """Forget all others."""
        for service, resource in [key for key in self._watched if key not in resources]:
            self.forget(service, resource)

    def files(self) -> list[int]:
        return [pidfd for _, _, pidfd in self._watched.values()]

    def _ended(self, service: str, resource: str) -> None:
        pid = self._watched[service, resource][0]
        self.forget(service, resource)
        self._exited(service, resource, pid)
