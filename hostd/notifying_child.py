"""One notice being delivered by a plugin, in a child of the host.

Decides how the child is born, bounded and buried: a session and a group of
its own, a limit, SIGKILL for it and all that it started, exactly one answer.
Refuses to know what is said, and to whom.  It never waits, so it lives in the
host's loop.
"""

import logging
import os
import secrets
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from hostd import action_child, evidence, loading
from hostd.api import AgentError, Notice
from hostd.cgroups import Groups
from hostd.clock import now_ms

log = logging.getLogger("hostd.notify")

SLACK_MS: Final = 1_000
"""The plugin's own limit comes first, so that it can say what hung; then the host kills."""
OUTPUT_SHOWN: Final = 2_000
GROUP: Final = "@notify"
"""Stands where a service's name does in the cgroup's path; no service can be called so."""
_ANSWER_FD: Final = 3
"""Where ``action_child.detach`` puts the file that it is told to keep."""


class Delivery:
    """The child and the files by which the host holds it.  Raises OSError if it cannot be born.

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
        self.until_ms = now_ms() + timeout_ms + SLACK_MS
        self._name, self._timeout_ms, self._groups, self._selector, self._told = (
            name,
            timeout_ms,
            groups,
            selector,
            ended,
        )
        self.is_killed = False
        self._place = groups.open(GROUP, name.replace("/", "_"), secrets.token_hex(6))
        self._pid = self._pidfd = self._pipe = self._output = -1
        try:
            self._fork(work)
        except OSError:
            if self._pid > 0:  # no file left for its pidfd: nobody could hold it
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            for file in (self._output, self._pipe):
                if file >= 0:
                    os.close(file)
            groups.close(self._place)
            raise
        selector.register(self._pidfd, selectors.EVENT_READ, self._ended)

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [self._pidfd, self._pipe, self._output]

    def tick(self) -> None:
        """Strike at its limit, once: what SIGKILL does not end waits in the kernel, and this queue with it."""
        if not self.is_killed and now_ms() >= self.until_ms:
            self.kill()

    def kill(self) -> None:
        self.is_killed = True
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # first: a newborn has not entered its group yet
        self._groups.kill(self._place, self._pid, daemons=True)

    def _fork(self, work: Callable[[], None]) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self._output = os.memfd_create("notify")
        self._pipe, answer_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                self._live(parent, answer_end, work)
        finally:
            os.close(answer_end)
        self._pidfd = os.pidfd_open(self._pid)

    def _live(self, parent: int, answer_end: int, work: Callable[[], None]) -> NoReturn:
        try:
            action_child.detach(parent, self._output, answer_end)
            self._groups.enter(self._place)
            os.write(_ANSWER_FD, _outcome(work).encode()[: action_child.TEXT_MAX] or b"\n")
        except BaseException:  # noqa: BLE001 - the edge: the host's stack must not be unwound in a child
            os.write(2, traceback.format_exc().encode())
            os._exit(70)  # EX_SOFTWARE: no answer was written, and the host says so
        os._exit(0)

    def _ended(self) -> None:
        self._selector.unregister(self._pidfd)
        self._groups.kill(self._place, self._pid, daemons=True)
        _, status = os.waitpid(self._pid, 0)
        try:
            answer = os.read(self._pipe, 65_536).decode(errors="replace")
        except BlockingIOError:
            answer = ""
        output = evidence.tail(Path(f"/proc/self/fd/{self._output}"), OUTPUT_SHOWN)
        for file in self.files():
            os.close(file)
        self._groups.close(self._place)
        if output:
            log.info("%s printed: %s", self._name, output)
        if self.is_killed:
            answer = f"it did not end within {self._timeout_ms / 1_000:g} s"
        elif not answer:
            answer = f"its process ended with status {status} before it answered"
        self._told(answer.strip())


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
