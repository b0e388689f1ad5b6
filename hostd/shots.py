"""One shot: the fencing devices of a node, level by level, each in a child of the host.

Decides in which order devices are tried, how long each may take, and that a
node counts as off only if every device of one level has said so.  Each shot
is answered exactly once, unless it is held.  It knows neither why a node is
to be shot nor what follows, and nothing of any device: a plugin's ``fence``
does.  It never waits, so it lives in the host's loop.

A shot::

    WAITING (delay) ──→ first device of the lowest level ──said off──→ the next of this level, or confirmed
                           │ failed, or killed at its limit
                           └──→ first device of the next level; after the last level: not confirmed

    held, or the brain is gone: what runs is killed, and there is no answer
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
from hostd.action_child import Answer
from hostd.api import AgentError, FenceOrder
from hostd.cgroups import Groups, Place
from hostd.clock import now_ms
from hostd.config import FencingDevice
from hostd.messages import Shot
from hostd.registry import Registry

log = logging.getLogger("hostd.shots")

SLACK_MS: Final = 1_000
"""A device's own limit comes first, so that its plugin can say what hung; then the host kills."""
DEATH_MAX_MS: Final = 2_000
"""As for actions: a process that SIGKILL does not end waits in the kernel for a device."""
OUTPUT_SHOWN: Final = 2_000
_GROUP: Final = "@fencing"
"""Stands where a service's name does in the cgroup's path; no service can be called so."""
_ANSWER_FD: Final = 3
"""Where ``action_child.detach`` puts the file that it is told to keep."""


class _Child:
    """One device being worked."""

    def __init__(self, device: FencingDevice, place: Place) -> None:
        self.device, self.place = device, place
        self.pid = self.pidfd = self.pipe = self.output = -1
        self.until_ms = now_ms() + device.timeout_ms + SLACK_MS
        self.is_killed = False


class _Aim:
    """One shot under way."""

    def __init__(self, request_id: int, node: str, devices: list[FencingDevice], begin_at_ms: int) -> None:
        self.request_id, self.node = request_id, node
        self.left = sorted(devices, key=lambda device: device.level)  # stable: in a level as in conf.d
        self.begin_at_ms = begin_at_ms
        self.child: _Child | None = None
        self.failures: list[str] = []


class Shots:
    """All shots of one host; the core asks for one at a time."""

    def __init__(
        self,
        registry: Registry,
        groups: Groups,
        devices: tuple[FencingDevice, ...],
        selector: selectors.BaseSelector,
        answer: Callable[[Shot], None],
    ) -> None:
        self._registry, self._groups, self._devices = registry, groups, devices
        self._selector, self._answer = selector, answer
        self._aims: dict[int, _Aim] = {}
        self._dying: list[_Child] = []
        """Killed, and nobody waits for their answer."""

    # -- asked by the host -----------------------------------------------------------

    def recover(self) -> None:
        """End what an earlier host left: a shot that nobody remembers is held."""
        for node in dict.fromkeys(node for device in self._devices for node in device.nodes):
            for process in self._groups.in_resource(_GROUP, node):
                log.warning("an earlier hostd left %s (%d) shooting at %s: killed", process.name, process.pid, node)
                processes.kill(process)

    def shoot(self, request_id: int, node: str, delay_ms: int) -> None:
        """Begin after ``delay_ms``; the answer comes later, or at once if there is no device."""
        assert request_id not in self._aims, request_id
        devices = [device for device in self._devices if node in device.nodes]
        if not devices:
            log.error("%s is to be fenced, and no device could do it", node)
            detail = f"there is no fencing device in conf.d that could power {node} off"
            self._answer(Shot(request_id, confirmed=False, detail=detail))
            return
        if delay_ms:
            log.warning("fencing %s in %d ms", node, delay_ms)
        self._aims[request_id] = _Aim(request_id, node, devices, now_ms() + delay_ms)
        if not delay_ms:
            self._next(self._aims[request_id])

    def hold(self, request_id: int) -> None:
        """Kill what runs for this shot, and never answer it; one that is over already is no error."""
        aim = self._aims.pop(request_id, None)
        if aim is None:
            return
        log.warning("fencing of %s is called off", aim.node)
        if aim.child is not None:
            self._kill(aim.child)
            self._dying.append(aim.child)

    def abort(self) -> None:
        """Hold everything: nobody is left to be answered."""
        for request_id in list(self._aims):
            self.hold(request_id)

    @property
    def busy(self) -> bool:
        """Is a child there that is not yet reaped?"""
        return bool(self._children())

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [file for child in self._children() for file in (child.pidfd, child.pipe, child.output)]

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do; None: not before a file is readable."""
        return min((a.begin_at_ms if a.child is None else a.child.until_ms for a in self._aims.values()), default=None)

    def tick(self) -> None:
        """Begin what has waited long enough, strike what takes too long."""
        for aim in list(self._aims.values()):
            child = aim.child
            if child is None:
                if now_ms() >= aim.begin_at_ms:
                    self._next(aim)
            elif now_ms() >= child.until_ms:
                self._strike(aim, child)

    def _children(self) -> list[_Child]:
        return self._dying + [aim.child for aim in self._aims.values() if aim.child is not None]

    # -- one device after the other ----------------------------------------------------

    def _next(self, aim: _Aim) -> None:
        """Work the next device; one that cannot even begin has failed."""
        while aim.left:
            device = aim.left[0]
            log.warning("fencing %s: %s, level %d", aim.node, device.agent, device.level)
            try:
                self._begin(aim, device)
            except OSError as error:  # no more processes or memory
                self._failed(aim, f"{device.agent} could not be started: {error}")
                continue
            return
        del self._aims[aim.request_id]
        detail = "; ".join(aim.failures)
        log.error("%s is not known to be off: %s", aim.node, detail)
        self._answer(Shot(aim.request_id, confirmed=False, detail=detail))

    def _failed(self, aim: _Aim, reason: str, cure: str = "") -> None:
        """One device failed: its whole level did."""
        level = aim.left[0].level
        log.error("fencing %s failed at level %d: %s%s", aim.node, level, reason, f"; {cure}" if cure else "")
        aim.failures.append(reason)
        aim.left = [device for device in aim.left if device.level > level]

    def _said_off(self, aim: _Aim) -> None:
        device = aim.left.pop(0)
        log.warning("%s says that %s is off", device.agent, aim.node)
        if aim.left and aim.left[0].level == device.level:
            self._next(aim)
            return
        del self._aims[aim.request_id]
        detail = f"{device.agent} says that {aim.node} is off"
        self._answer(Shot(aim.request_id, confirmed=True, detail=detail))

    def _ended(self, child: _Child) -> None:
        """The child is gone; so is, from here on, all that it started."""
        self._selector.unregister(child.pidfd)
        self._groups.kill(child.place, child.pid, daemons=True)
        _, status = os.waitpid(child.pid, 0)
        answer = _read_answer(child.pipe) or Answer(ok=False, reason=_died(child, status))
        output = evidence.tail(Path(f"/proc/self/fd/{child.output}"), OUTPUT_SHOWN)
        for file in (child.pidfd, child.pipe, child.output):
            os.close(file)
        self._groups.close(child.place)
        if output:
            log.info("%s printed: %s", child.device.agent, output)
        aim = next((aim for aim in self._aims.values() if aim.child is child), None)
        if aim is None:
            self._dying.remove(child)
            return
        aim.child = None
        if answer.ok and not child.is_killed:
            self._said_off(aim)
        else:
            self._failed(aim, _too_long(child) if child.is_killed else answer.reason, answer.cure)
            self._next(aim)

    def _strike(self, aim: _Aim, child: _Child) -> None:
        """Its time is over; or it was killed, does not die, and nobody waits for it any longer."""
        if not child.is_killed:
            self._kill(child)
            child.until_ms = now_ms() + DEATH_MAX_MS
            return
        aim.child = None
        self._dying.append(child)
        self._failed(aim, f"{_too_long(child)} and cannot be killed")
        self._next(aim)

    def _kill(self, child: _Child) -> None:
        child.is_killed = True
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)  # first: a newborn has not entered its group yet
        self._groups.kill(child.place, child.pid, daemons=True)

    # -- the child -----------------------------------------------------------------------

    def _begin(self, aim: _Aim, device: FencingDevice) -> None:
        place = self._groups.open(_GROUP, aim.node, secrets.token_hex(6))
        child = _Child(device, place)
        order = FenceOrder(
            agent=device.agent,
            node=aim.node,
            params=device.params.get(aim.node, {}),
            secrets=device.secrets.get(aim.node, {}),
            deadline=time.monotonic() + device.timeout_ms / 1_000,
        )
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            child.output = os.memfd_create("fencing")
            child.pipe, answer_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                child.pid = os.fork()
                if child.pid == 0:
                    self._in_child(parent, child, answer_end, order)
            finally:
                os.close(answer_end)
            child.pidfd = os.pidfd_open(child.pid)
        except OSError:
            if child.pid > 0:  # no file left for its pidfd: nobody could hold it
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            for file in (child.output, child.pipe):
                if file >= 0:
                    os.close(file)
            self._groups.close(place)
            raise
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._ended(child))
        aim.child = child

    def _in_child(self, parent: int, child: _Child, answer_end: int, order: FenceOrder) -> NoReturn:
        try:
            action_child.detach(parent, child.output, answer_end)
            self._groups.enter(child.place)
            os.write(_ANSWER_FD, msgspec.msgpack.encode(_worked(self._registry, order)))
        except BaseException:  # noqa: BLE001 - the edge: the host's stack must not be unwound in a child
            os.write(2, traceback.format_exc().encode())
            os._exit(70)  # EX_SOFTWARE: no answer was written, and the host says so
        os._exit(0)


def _worked(registry: Registry, order: FenceOrder) -> Answer:
    try:
        registry.fence(order)
    except AgentError as error:
        return Answer(ok=False, reason=error.reason[: action_child.TEXT_MAX], cure=error.cure[: action_child.TEXT_MAX])
    except Exception as error:  # noqa: BLE001 - the edge: a plugin may raise anything
        traceback.print_exc()
        return Answer(ok=False, reason=f"plugin's mistake: {loading.last_line(error)}"[: action_child.TEXT_MAX])
    return Answer(ok=True)


def _read_answer(pipe: int) -> Answer | None:
    try:
        return msgspec.msgpack.decode(os.read(pipe, 65_536), type=Answer)
    except (BlockingIOError, msgspec.DecodeError):
        return None  # it died before it wrote, or in the middle


def _died(child: _Child, status: int) -> str:
    how = (
        f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        if os.WIFSIGNALED(status)
        else f"ended with exit status {os.WEXITSTATUS(status)}"
    )
    return f"the process for {child.device.agent} {how} before it answered"


def _too_long(child: _Child) -> str:
    return f"{child.device.agent} did not end within {child.device.timeout_ms / 1_000:g} s"
