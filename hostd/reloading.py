"""conf.d is read again: may it be used, and when?

Decides in this order: a child of the host reads conf.d, agents and plugins
first, since what hangs or crashes in them must not be the host's end; a bad
conf.d is refused with all complaints, and what only a restart of both nodes
can do is refused; if nothing differs nothing is done; starts and stops under
way are waited for.  Then, and only then, the host takes it.  It refuses to
know how heart and brain come to live by it.

    IDLE ──asked──→ CHECKING ──good, and different──→ WAITING ──nothing is being changed──→ taken
                       │                                │ too long
                       └──bad, forbidden, the same──────┴──→ answered, and all is as before
"""

import enum
import logging
import os
import selectors
import signal
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from hostd import action_child, changes
from hostd.api import ConfigError
from hostd.changes import Change, Description
from hostd.clock import now_ms
from hostd.config import Configuration
from hostd.family import Main
from hostd.messages import Reloaded, ReloadOutcome
from hostd.registry import Registry

log = logging.getLogger("hostd.host")

CHECK_MAX_MS: Final = 30_000
"""conf.d, agents and plugins are read in half a second; on a busy machine in a few."""
WAIT_MAX_MS: Final = 60_000
"""How long starts and stops under way may take to end; then nothing is changed, and it can be asked again."""
LOOK_MS: Final = 50
_SAID_MAX: Final = 60_000
"""Bytes of complaints: less than a pipe holds."""
_ANSWER_FD: Final = 3
"""Where ``action_child.detach`` puts the file that it is told to keep."""


class Setup(NamedTuple):
    """All that a host lives by."""

    configuration: Configuration
    registry: Registry
    heart: Main
    brain: Main
    description: Description


Read = Callable[[], Setup]
"""Reads everything anew.  Raises ConfigError."""


class _Stage(enum.Enum):
    IDLE = 1
    CHECKING = 2
    WAITING = 3


class Reloading:
    """One reload at a time.

    ``running()``: what the host lives by.  ``is_quiet()``: no start, stop or
    shot is under way.  ``hold()``: begin no new ones; ``release()``: begin them again.
    ``take(setup, changes)``: live by this from now on.  ``answer``: gets the
    one answer to each that asked; ``begun()`` and ``ended()`` frame each reload.
    """

    def __init__(
        self,
        read: Read,
        selector: selectors.BaseSelector,
        *,
        running: Callable[[], Setup],
        is_quiet: Callable[[], bool],
        hold: Callable[[], None],
        release: Callable[[], None],
        take: Callable[[Setup, tuple[Change, ...]], None],
        answer: Callable[[Reloaded], None],
        begun: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._read, self._selector, self._running = read, selector, running
        self._is_quiet, self._hold, self._release, self._take = is_quiet, hold, release, take
        self._answer, self._begun, self._ended = answer, begun, ended
        self._stage = _Stage.IDLE
        self._asker: int | None = None
        self._until_ms = 0
        self._pid = self._pidfd = self._pipe = -1
        self._fresh: Setup | None = None
        self._changes: tuple[Change, ...] = ()

    # -- asked by the host ----------------------------------------------------------

    def ask(self, asker: int | None) -> None:
        """Begin.  ``asker``: the id that the answer will have; None: by signal, and the log is the answer."""
        if self._stage is not _Stage.IDLE:
            self._tell(asker, ReloadOutcome.BUSY, text="hostd is already reading conf.d again")
            return
        self._asker = asker
        log.info("reading conf.d again")
        self._begun()
        try:
            self._fork()
        except OSError as error:  # no more processes or memory
            self._refuse(ReloadOutcome.BUSY, f"conf.d cannot be checked now: {error}")

    def forget_asker(self) -> None:
        """The brain is gone, and whoever asked it with it."""
        self._asker = None

    @property
    def is_waiting(self) -> bool:
        """Errands are held."""
        return self._stage is _Stage.WAITING

    def wake_at_ms(self) -> int | None:
        match self._stage:
            case _Stage.CHECKING:
                return self._until_ms
            case _Stage.WAITING:
                return now_ms() + LOOK_MS
            case _Stage.IDLE:
                return None

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [self._pidfd, self._pipe] if self._stage is _Stage.CHECKING else []

    def tick(self) -> None:
        """Go on where it is time."""
        is_late = now_ms() >= self._until_ms
        if self._stage is _Stage.CHECKING and is_late:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._until_ms = now_ms() + CHECK_MAX_MS  # its end is told by its pidfd
        elif self._stage is _Stage.WAITING and self._is_quiet():
            self._use()
        elif self._stage is _Stage.WAITING and is_late:
            self._release()
            text = f"a start or stop has been under way for {WAIT_MAX_MS // 1_000} s; nothing was changed, ask again"
            self._refuse(ReloadOutcome.BUSY, text)

    # -- the child that looks first -----------------------------------------------------

    def _fork(self) -> None:
        self._pipe, said_end = os.pipe2(os.O_CLOEXEC)
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        parent = os.getpid()
        try:
            self._pid = os.fork()
            if self._pid == 0:
                self._in_child(parent, nothing, said_end)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(nothing)
            os.close(said_end)
        self._pidfd = os.pidfd_open(self._pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._checked)
        self._stage, self._until_ms = _Stage.CHECKING, now_ms() + CHECK_MAX_MS

    def _in_child(self, parent: int, nothing: int, said_end: int) -> NoReturn:
        code = 70  # EX_SOFTWARE
        try:
            action_child.detach(parent, nothing, said_end)
            try:
                self._read()
                code = 0
            except ConfigError as error:
                os.write(_ANSWER_FD, str(error).encode()[:_SAID_MAX])
                code = 1
        except BaseException as error:  # noqa: BLE001 - the edge: the host's stack must not be unwound in a child
            os.write(_ANSWER_FD, repr(error).encode()[:_SAID_MAX])
        os._exit(code)

    def _checked(self) -> None:
        self._selector.unregister(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        os.set_blocking(self._pipe, False)  # what the child started may hold the other end
        try:
            said = os.read(self._pipe, _SAID_MAX).decode(errors="replace")
        except BlockingIOError:
            said = ""
        os.close(self._pipe)
        if os.WIFSIGNALED(status):
            how = f"no end in {CHECK_MAX_MS // 1_000} s" if os.WTERMSIG(status) == signal.SIGKILL else "it crashed"
            text = f"reading conf.d, agents and plugins failed: {how}; an agent or a plugin is to blame"
            self._refuse(ReloadOutcome.BAD, text)
        elif os.WEXITSTATUS(status):
            self._refuse(ReloadOutcome.BAD, said or "reading conf.d failed")
        else:
            self._compare()

    # -- the host itself ------------------------------------------------------------------

    def _compare(self) -> None:
        """Read it ourselves, now that a child has survived it, and judge what is different."""
        try:
            fresh = self._read()
        except ConfigError as error:  # it was changed this very moment
            self._refuse(ReloadOutcome.BAD, str(error))
            return
        found = changes.between(self._running().description, fresh.description)
        if not found:
            self._refuse(ReloadOutcome.SAME, "nothing differs from what hostd runs by")
        elif changes.forbidden(found):
            self._refuse(ReloadOutcome.FORBIDDEN, "another cluster, or other nodes: restart hostd on both", found)
        elif spoiled := changes.spoiled(found):
            text = "\n".join(f"service {change.subject} could not run here: {change.what[0]}" for change in spoiled)
            self._refuse(ReloadOutcome.BAD, text, found)
        else:
            self._fresh, self._changes = fresh, found
            self._stage, self._until_ms = _Stage.WAITING, now_ms() + WAIT_MAX_MS
            self._hold()
            self.tick()

    def _use(self) -> None:
        assert self._fresh is not None
        fresh, found, asker = self._fresh, self._changes, self._asker
        self._forget()
        for change in found:
            log.info("%s %s: %s", change.kind.value, change.subject, ", ".join(change.what) or "-")
        self._tell(asker, ReloadOutcome.DONE, found)
        self._take(fresh, found)  # ``ended`` comes when the next brain is there

    def _refuse(self, outcome: ReloadOutcome, text: str, found: tuple[Change, ...] = ()) -> None:
        asker = self._asker
        self._forget()
        self._tell(asker, outcome, found, text)
        self._ended()

    def _forget(self) -> None:
        self._stage, self._asker, self._fresh, self._changes = _Stage.IDLE, None, None, ()

    def _tell(self, asker: int | None, outcome: ReloadOutcome, found: tuple[Change, ...] = (), text: str = "") -> None:
        if text:
            is_fine = outcome is ReloadOutcome.SAME
            for line in filter(None, text.splitlines()):
                log.log(logging.INFO if is_fine else logging.ERROR, "%s", line)
            if not is_fine:
                log.error("conf.d is not used; hostd goes on as it was")
        if asker is not None:
            self._answer(Reloaded(asker, outcome, found, text))
