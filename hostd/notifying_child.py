"""One notice being delivered by a plugin, in a child of the host.

Decides how long a delivery may take, and how a plugin's exception becomes the
reason why it failed; how the child is born, bounded and buried, ``worker``
decides.  Refuses to know what is said, and to whom.
"""

import logging
import selectors
import traceback
from collections.abc import Callable
from typing import Final

from hostd import action_child, loading
from hostd.api import AgentError, Notice
from hostd.cgroups import Groups
from hostd.worker import End, Worker

log = logging.getLogger("hostd.notify")

SLACK_MS: Final = 1_000
"""The plugin's own limit comes first, so that it can say what hung; then the host kills."""
GROUP: Final = "@notify"
"""Stands where a service's name does in the cgroup's path; no service can be called so."""


class Delivery(Worker):
    """One notice on its way.  Raises OSError if the child cannot be born.

    ``ended`` is called once, from the selector, with why it failed (empty:
    it was delivered), when the child and all that it started are gone.
    """

    def __init__(
        self,
        groups: Groups,
        selector: selectors.BaseSelector,
        name: str,
        timeout_ms: int,
        work: Callable[[], None],
        ended: Callable[[str], None],
    ) -> None:
        self._name, self._timeout_ms, self._hear = name, timeout_ms, ended
        super().__init__(
            groups,
            selector,
            group=GROUP,
            name=name.replace("/", "_"),
            limit_ms=timeout_ms + SLACK_MS,
            work=lambda: _outcome(work).encode()[: action_child.TEXT_MAX] or b"\n",
            ended=self._answered,
        )

    def _answered(self, end: End) -> None:
        if end.output:
            log.info("%s printed: %s", self._name, end.output)
        failure = end.answer.decode(errors="replace")
        if self.is_killed:
            failure = f"it did not end within {self._timeout_ms / 1_000:g} s"
        elif not failure:
            failure = f"its process ended with status {end.status} before it answered"
        self._hear(failure.strip())


def _outcome(work: Callable[[], None]) -> str:
    """In the child: empty, or why it failed."""
    try:
        work()
    except AgentError as error:
        return f"{error.reason}; {error.cure}" if error.cure else error.reason
    except Exception as error:  # noqa: BLE001 - the edge: a plugin may raise anything
        traceback.print_exc()
        return f"plugin's mistake: {loading.last_line(error)}"
    return ""


def deliver(notice: Notice, notify: Callable[[Notice], None]) -> Callable[[], None]:
    """The work of a child: hand the notice to the plugins."""
    return lambda: notify(notice)
