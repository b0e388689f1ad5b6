"""Services that conf.d no longer has, and that were started here: they are stopped.

Decides that each is stopped in the way in which it was started, in reverse
order, side by side with the others, and that a stop which fails is told and
not repeated before hostd starts or reads conf.d again.  While the operator
has said hands off, nothing is stopped.  Refuses to know addresses: those are
the brain's.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from hostd.core.snapshot import WishKind
from hostd.errands import Errands
from hostd.jobs import Outcome
from hostd.origins import Origins
from hostd.state import load_wishes

log = logging.getLogger("hostd.host")


class Removed:
    """All of one host.  ``told``: called whenever :attr:`failures` has changed."""

    def __init__(self, origins: Origins, errands: Errands, state: Path, told: Callable[[], None]) -> None:
        self._origins, self._errands, self._state, self._told = origins, errands, state, told
        self._stopping: set[str] = set()
        self.failures: dict[str, str] = {}
        """Service → why it could not be stopped."""

    def stop(self) -> None:
        """Begin with all that is not being stopped already."""
        if self.failures:
            self.failures = {}
            self._told()
        removed = self._origins.removed()
        # Read only if there is something to stop: this is the disk, and it may hang.
        wishes = load_wishes(self._state)[0] if removed else ()
        frozen = {wish.subject for wish in wishes if wish.kind is WishKind.MAINTENANCE and wish.value}
        for service, origins in removed.items():
            if service in frozen or "" in frozen:
                self._ended(service, Outcome(ok=False, reason="it is in maintenance"))
            elif service not in self._stopping:
                log.warning("service %s is not in conf.d any more: it is stopped", service)
                self._stopping.add(service)
                self._errands.stop_each(origins, functools.partial(self._ended, service))

    @property
    def is_busy(self) -> bool:
        return bool(self._stopping)

    def abort(self) -> None:
        """The actions were killed: what was under way is to be begun again."""
        self._stopping.clear()

    def _ended(self, service: str, failed: Outcome | None) -> None:
        self._stopping.discard(service)
        if failed is None:
            log.info("service %s, which is not in conf.d any more, is stopped", service)
            return
        log.error("service %s is not in conf.d any more and may still run: %s", service, failed.reason)
        self.failures[service] = failed.reason
        self._told()
