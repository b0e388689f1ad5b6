"""A plugin's work in a child of the host: a limit, a group of its own, and one end for all of it.

Decides how long the child may live, that everything it started is killed with
it, and that its answer, if any, is handed on exactly once.  Refuses to know
what is done, what the answer says, and what follows.  It never waits, so it
lives in the host's loop.
"""

import os
import secrets
import selectors
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from hostd import evidence
from hostd.cgroups import Groups
from hostd.child import Child
from hostd.clock import now_ms

DEATH_MAX_MS: Final = 2_000
"""As for actions: a process that SIGKILL does not end waits in the kernel for a device."""
OUTPUT_SHOWN: Final = 2_000


class End(NamedTuple):
    """What is left of a worker."""

    answer: bytes
    """Empty if it gave none."""
    status: int
    """As ``waitpid`` gives it."""
    output: str
    """The last of what it printed."""


class Worker:
    """The child and the files by which the host holds it.  Raises OSError if it cannot be born."""

    def __init__(
        self,
        groups: Groups,
        selector: selectors.BaseSelector,
        *,
        group: str,
        name: str,
        limit_ms: int,
        work: Callable[[], bytes],
        ended: Callable[[End], None],
    ) -> None:
        """``group`` and ``name`` stand where those of a service and a resource do in
        the cgroup's path: no service's.  ``work`` is done in the child and returns the
        answer.  ``ended`` is called once, from the selector, when the child and all
        that it started are gone."""
        self.until_ms = now_ms() + limit_ms
        """When :meth:`tick` strikes next."""
        self.is_killed = False
        self._groups, self._told = groups, ended
        self._place = place = groups.open(group, name, secrets.token_hex(6))

        def in_child() -> bytes:
            groups.enter(place)
            return work()

        self._output = -1
        try:
            self._output = os.memfd_create(group)
            self._child = Child(selector, in_child, output=self._output, ended=self._ended)
        except OSError:
            if self._output >= 0:
                os.close(self._output)
            groups.close(place)
            raise

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [*self._child.files(), self._output]

    def tick(self) -> bool:
        """Strike at its limit.  True if it was killed and does not die: nobody need wait for it."""
        if now_ms() < self.until_ms:
            return False
        if self.is_killed:
            return True
        self.kill()
        self.until_ms = now_ms() + DEATH_MAX_MS
        return False

    def kill(self) -> None:
        """The child and all that it started."""
        self.is_killed = True
        self._child.kill()  # first: a newborn has not entered its group yet
        self._groups.kill(self._place, self._child.pid, daemons=True)

    def _ended(self) -> None:
        """The child is gone; so is, from here on, all that it started."""
        self._groups.kill(self._place, self._child.pid, daemons=True)
        answer, status = self._child.reap()
        output = evidence.tail(Path(f"/proc/self/fd/{self._output}"), OUTPUT_SHOWN)
        os.close(self._output)
        self._groups.close(self._place)
        self._told(End(answer, status, output))
