"""One process forked off the host: its birth, its one answer, its burial.

Decides that nothing of the host goes with it (``action_child.detach``), that
what it is to do can never unwind the host's stack, and that the host holds it
by files alone: a pipe for the answer and a pidfd for its end, so that nobody
waits.  Refuses to know what it does, how long that may take, and what else
must die with it.
"""

import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from hostd import action_child

ANSWER_MAX: Final = 65_536
"""Bytes: what a pipe takes in one write."""
_ANSWER_FD: Final = 3
"""Where ``action_child.detach`` puts the file that it is told to keep."""


class Child:
    """Alive as soon as it is made.  Raises OSError if it cannot be born; nothing of it is left then.

    ``work`` is done in the child and returns its answer; what it raises is
    printed to the open file ``output``, as is all that it prints.  ``ended``
    is called from the selector, once: then :meth:`reap`.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        work: Callable[[], bytes],
        *,
        output: int,
        ended: Callable[[], None],
    ) -> None:
        self.pid = -1
        self.is_held = True
        """Neither reaped nor abandoned."""
        self._selector = selector
        self._pipe, answer_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.pid = _fork(work, output, answer_end)
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            if self.pid > 0:  # no file left for its pidfd: nobody could hold it
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            os.close(self._pipe)
            raise
        finally:
            os.close(answer_end)
        selector.register(self._pidfd, selectors.EVENT_READ, ended)

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [self._pidfd, self._pipe] if self.is_held else []

    def kill(self) -> None:
        """The process itself, and nothing that it has started."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reap(self) -> tuple[bytes, int]:
        """After its end: its answer, which is empty if it gave none, and its wait status."""
        _, status = os.waitpid(self.pid, 0)
        try:
            answer = os.read(self._pipe, ANSWER_MAX)
        except BlockingIOError:  # what it started holds the other end
            answer = b""
        self._let_go()
        return answer, status

    def abandon(self) -> None:
        """Kill it, and hear no more of it.  It is still to be waited for, by its ``pid``, when that costs no time."""
        self.kill()
        self._let_go()

    def _let_go(self) -> None:
        self._selector.unregister(self._pidfd)
        for file in self.files():
            os.close(file)
        self.is_held = False


def death(status: int) -> str:
    """How a process came to its end, by its wait status: what follows its name in a sentence."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit status {os.WEXITSTATUS(status)}"


def _fork(work: Callable[[], bytes], output: int, answer_end: int) -> int:
    """The child's number; in the child this never returns."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    action_child.prepare()
    pid = os.fork()
    if pid == 0:
        _live(parent, work, output, answer_end)
    return pid


def _live(parent: int, work: Callable[[], bytes], output: int, answer_end: int) -> NoReturn:
    try:
        action_child.detach(parent, output, answer_end)
        os.write(_ANSWER_FD, work())
    except BaseException:  # noqa: BLE001 - the edge: the host's stack must not be unwound in a child
        os.write(2, traceback.format_exc().encode())
        os._exit(70)  # EX_SOFTWARE: no answer was written, and the host says so
    os._exit(0)
