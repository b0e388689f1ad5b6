"""Heart and brain as the host sees them: forked, joined, and forked again when they die.

Decides when a dead one is forked again: at once, and after several deaths
within seconds with a growing pause.  A heart and a brain always talk through
a socket pair made for exactly these two lives.  It does not know what they
do, nor what they say to the host.
"""

import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from hostd import messages, processes
from hostd.clock import now_ms

log = logging.getLogger("hostd.host")

DEATHS_FREE: Final = 3
"""So many deaths within the window are answered at once."""
WINDOW_MS: Final = 10_000
PAUSE_MIN_MS: Final = 250
PAUSE_MAX_MS: Final = 5_000
RELIEF_MAX_MS: Final = 3_000
"""How long a relieved brain may take for its last answers and its books; a busy disk was seen to take 0.5 s."""

CRASHED: Final = 70
"""Exit status of a life that ended with an exception (EX_SOFTWARE)."""

Main = Callable[[socket.socket, socket.socket], int]
"""What a life does: host's end, the other's end → exit code."""


class Life:
    """The heart or the brain, one incarnation after another."""

    def __init__(self, name: str, main: Main) -> None:
        self.name, self.main = name, main
        self.pid = 0
        """0: not alive."""
        self.pidfd = -1
        self.end: socket.socket | None = None
        self.spare: socket.socket | None = None
        """The partner's end of our socket pair, while the partner is yet to be forked."""
        self.due_at_ms: int | None = None
        """When to fork it (again)."""
        self.relieved_until_ms: int | None = None
        """It was told that another one takes its place, and is killed then if it does not end by itself."""
        self._deaths: list[int] = []

    @property
    def is_relieved(self) -> bool:
        return self.relieved_until_ms is not None

    @property
    def is_alive(self) -> bool:
        return self.pid != 0

    def died(self) -> None:
        """Note a death and when to fork it again."""
        now = now_ms()
        if self.is_relieved:
            self.due_at_ms = now
            return
        self._deaths = [at for at in self._deaths if at > now - WINDOW_MS] + [now]
        over = len(self._deaths) - DEATHS_FREE
        pause_ms = 0 if over <= 0 else min(PAUSE_MAX_MS, PAUSE_MIN_MS << min(over - 1, 10))
        self.due_at_ms = now + pause_ms
        if pause_ms:
            log.error(
                "the %s died %d times within seconds; next one in %d ms",
                self.name,
                over + DEATHS_FREE,
                pause_ms,
            )


class Family:
    """Forks the two and tells of their deaths."""

    def __init__(
        self,
        heart: Life,
        brain: Life,
        selector: selectors.BaseSelector,
        *,
        died: Callable[[Life, str], None],
        heard: Callable[[Life], None],
        private: Callable[[], list[int]],
    ) -> None:
        """``died(life, detail)`` after a death; ``heard(life)`` when its end is readable;
        ``private()``: open files of the host that no child may keep."""
        self.heart, self.brain = heart, brain
        self._selector, self._died, self._heard, self._private = selector, died, heard, private

    def fork(self, life: Life) -> int:
        """Fork it, join it to its partner; its process id.

        If the partner is alive already it is to be told, with the end of the
        new pair: returned by :meth:`take_fresh_end`.
        """
        partner = self.brain if life is self.heart else self.heart
        host_end, own_end = messages.pair()
        if partner.spare is not None:
            to_partner, partner.spare, fresh = partner.spare, None, None
        else:
            to_partner, fresh = messages.pair()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError:
            for end in (host_end, own_end, to_partner, fresh):
                if end is not None:
                    end.close()
            raise
        if pid == 0:
            closed = [host_end, fresh, life.end, partner.end, life.spare, partner.spare]
            self._live(life, parent, own_end, to_partner, closed)
        own_end.close()
        to_partner.close()
        life.pid, life.due_at_ms, life.end, life.spare = pid, None, host_end, fresh
        life.pidfd = os.pidfd_open(pid)
        self._selector.register(life.pidfd, selectors.EVENT_READ, lambda: self._ended(life))
        self._selector.register(host_end, selectors.EVENT_READ, lambda: self._heard(life))
        return pid

    def relieve(self, life: Life, limit_ms: int = RELIEF_MAX_MS) -> None:
        """It is to end, and that is no death: the next one follows at once, by ``life.main`` as it is then.
        ``limit_ms`` 0: it is killed, since it keeps no books."""
        life.relieved_until_ms = now_ms() + limit_ms
        if not limit_ms or life.end is None or not messages.send(life.end, messages.Relieved()):
            signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)

    def tick(self) -> None:
        """Kill what was relieved and does not end."""
        for life in (self.heart, self.brain):
            if life.is_alive and life.relieved_until_ms is not None and now_ms() >= life.relieved_until_ms:
                log.warning("the %s does not make room: killed", life.name)
                life.relieved_until_ms = now_ms() + RELIEF_MAX_MS
                signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)

    def take_fresh_end(self, life: Life) -> socket.socket | None:
        """The end of its pair that the living partner is to be handed; the caller closes it."""
        fresh, life.spare = life.spare, None
        return fresh

    def close(self, life: Life) -> None:
        """Stop listening to it."""
        for end in (life.end, life.spare):
            if end is not None:
                if end is life.end:
                    self._selector.unregister(end)
                end.close()
        life.end = life.spare = None

    def _ended(self, life: Life) -> None:
        self._selector.unregister(life.pidfd)
        os.close(life.pidfd)
        pid, status = os.waitpid(life.pid, 0)
        if os.WIFSIGNALED(status):
            how = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        else:
            how = f"ended with exit status {os.WEXITSTATUS(status)}"
        if life.end is not None:
            self._heard(life)  # its last words come before its death
        self.close(life)
        life.pid, life.pidfd = 0, -1
        life.died()
        self._died(life, f"process {pid} was {how}" if "killed" in how else f"process {pid} {how}")

    def _live(
        self,
        life: Life,
        parent: int,
        own_end: socket.socket,
        to_partner: socket.socket,
        closed: list[socket.socket | None],
    ) -> NoReturn:
        code = CRASHED
        try:
            processes.die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # theirs to obey is the host, not the terminal's group
            os.environ.pop("NOTIFY_SOCKET", None)
            Path("/proc/self/comm").write_text(f"hostd-{life.name}")
            for end in closed:
                if end is not None:
                    end.close()
            for file in self._private():
                os.close(file)
            code = life.main(own_end, to_partner)
        except BaseException:  # the edge: the host's stack must not be unwound in a child
            log.exception("the %s crashed", life.name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
