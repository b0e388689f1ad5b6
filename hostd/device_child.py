"""One fencing device worked in a child of the host: shot, drilled, or asked about itself.

Decides how the child is born, bounded and buried: a session and a group of
its own, a limit, SIGKILL for it and for all that it started, and exactly one
answer.  Refuses to know what is done with the device (``work`` does it, in
the child) and what follows (``ended``).  It never waits, so it lives in the
host's loop.
"""

import logging
import os
import secrets
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from hostd import action_child, evidence, loading, processes
from hostd.api import AgentError, FenceOrder, Note
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.config import FencingDevice

log = logging.getLogger("hostd.fencing")

SLACK_MS: Final = 1_000
"""A device's own limit comes first, so that its plugin can say what hung; then the host kills."""
DEATH_MAX_MS: Final = 2_000
"""As for actions: a process that SIGKILL does not end waits in the kernel for a device."""
OUTPUT_SHOWN: Final = 2_000
SENTENCES_MAX: Final = 30
_ANSWER_FD: Final = 3
"""Where ``action_child.detach`` puts the file that it is told to keep."""


class Complaint(msgspec.Struct, frozen=True):
    """What a plugin finds wrong with a device: a sentence, its cure after a semicolon."""

    sentence: str
    is_note: bool


class Word(msgspec.Struct, frozen=True):
    """What the child hands back over its pipe, once."""

    ok: bool
    said: str = ""
    """Of a drill: the node's power as the device says, ``on`` or ``off``."""
    complaints: tuple[Complaint, ...] = ()
    reason: str = ""
    cure: str = ""


class DeviceChild:
    """The child and the files by which the host holds it.  Raises OSError if it cannot be born."""

    def __init__(
        self,
        groups: Groups,
        selector: selectors.BaseSelector,
        *,
        device: FencingDevice,
        node: str,
        group: str,
        is_last: bool = True,
        work: Callable[[FenceOrder], Word],
        ended: Callable[["DeviceChild", Word], None],
    ) -> None:
        """``group`` stands where a service's name does in the cgroup's path: no
        service's.  ``ended`` is called once, from the selector, when the child
        and all that it started are gone."""
        self.device, self.node = device, node
        self.until_ms = now_ms() + device.timeout_ms + SLACK_MS
        self.is_killed = False
        self._groups, self._selector, self._told = groups, selector, ended
        self._place = groups.open(group, node, secrets.token_hex(6))
        self.pid = self._pidfd = self._pipe = self._output = -1
        order = FenceOrder(
            agent=device.agent,
            node=node,
            params=device.params.get(node, {}),
            secrets=device.secrets.get(node, {}),
            deadline=time.monotonic() + device.timeout_ms / 1_000,
            is_last=is_last,
        )
        try:
            self._fork(order, work)
        except OSError:
            if self.pid > 0:  # no file left for its pidfd: nobody could hold it
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            for file in (self._output, self._pipe):
                if file >= 0:
                    os.close(file)
            groups.close(self._place)
            raise
        selector.register(self._pidfd, selectors.EVENT_READ, self._ended)

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [self._pidfd, self._pipe, self._output]

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
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # first: a newborn has not entered its group yet
        self._groups.kill(self._place, self.pid, daemons=True)

    def too_long(self) -> str:
        """Why it failed, if it was killed at its limit."""
        return f"{self.device.agent} did not end within {self.device.timeout_ms / 1_000:g} s"

    # -- birth and burial ------------------------------------------------------------

    def _fork(self, order: FenceOrder, work: Callable[[FenceOrder], Word]) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self._output = os.memfd_create("fencing")
        self._pipe, answer_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                self._live(parent, answer_end, order, work)
        finally:
            os.close(answer_end)
        self._pidfd = os.pidfd_open(self.pid)

    def _live(self, parent: int, answer_end: int, order: FenceOrder, work: Callable[[FenceOrder], Word]) -> NoReturn:
        try:
            action_child.detach(parent, self._output, answer_end)
            self._groups.enter(self._place)
            os.write(_ANSWER_FD, msgspec.msgpack.encode(_worked(work, order)))
        except BaseException:  # noqa: BLE001 - the edge: the host's stack must not be unwound in a child
            os.write(2, traceback.format_exc().encode())
            os._exit(70)  # EX_SOFTWARE: no answer was written, and the host says so
        os._exit(0)

    def _ended(self) -> None:
        """The child is gone; so is, from here on, all that it started."""
        self._selector.unregister(self._pidfd)
        self._groups.kill(self._place, self.pid, daemons=True)
        _, status = os.waitpid(self.pid, 0)
        word = _read(self._pipe) or Word(ok=False, reason=self._died(status))
        output = evidence.tail(Path(f"/proc/self/fd/{self._output}"), OUTPUT_SHOWN)
        for file in self.files():
            os.close(file)
        self._groups.close(self._place)
        if output:
            log.info("%s printed: %s", self.device.agent, output)
        self._told(self, word)

    def _died(self, status: int) -> str:
        how = (
            f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
            if os.WIFSIGNALED(status)
            else f"ended with exit status {os.WEXITSTATUS(status)}"
        )
        return f"the process for {self.device.agent} {how} before it answered"


def _worked(work: Callable[[FenceOrder], Word], order: FenceOrder) -> Word:
    """In the child: what the plugin answers, or raises."""
    try:
        return work(order)
    except AgentError as error:
        return Word(ok=False, reason=error.reason[: action_child.TEXT_MAX], cure=error.cure[: action_child.TEXT_MAX])
    except Exception as error:  # noqa: BLE001 - the edge: a plugin may raise anything
        traceback.print_exc()
        return Word(ok=False, reason=f"plugin's mistake: {loading.last_line(error)}"[: action_child.TEXT_MAX])


def complaints(sentences: tuple[str, ...]) -> tuple[Complaint, ...]:
    """A plugin's sentences, so that they survive the pipe, as few and as short as it takes."""
    short = [(sentence[: action_child.TEXT_MAX // 2], isinstance(sentence, Note)) for sentence in sentences]
    return tuple(Complaint(sentence, is_note) for sentence, is_note in short[:SENTENCES_MAX])


def recover(groups: Groups, group: str, nodes: list[str]) -> None:
    """End what an earlier host left working: nobody remembers what for."""
    for node in nodes:
        for process in groups.in_resource(group, node):
            log.warning("an earlier hostd left %s (%d) working for %s: killed", process.name, process.pid, node)
            processes.kill(process)


def _read(pipe: int) -> Word | None:
    try:
        return msgspec.msgpack.decode(os.read(pipe, 65_536), type=Word)
    except (BlockingIOError, msgspec.DecodeError):
        return None  # it died before it wrote, or in the middle
