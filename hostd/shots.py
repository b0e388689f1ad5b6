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
import selectors
from collections.abc import Callable
from typing import Final

from hostd import device_child
from hostd.api import FenceOrder
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.config import FencingDevice
from hostd.device_child import DeviceChild, Word
from hostd.messages import Shot
from hostd.registry import Registry

log = logging.getLogger("hostd.shots")

_GROUP: Final = "@fencing"
"""Stands where a service's name does in the cgroup's path; no service can be called so."""


class _Aim:
    """One shot under way."""

    def __init__(self, request_id: int, node: str, devices: list[FencingDevice], begin_at_ms: int) -> None:
        self.request_id, self.node = request_id, node
        self.left = sorted(devices, key=lambda device: device.level)  # stable: in a level as in conf.d
        self.begin_at_ms = begin_at_ms
        self.child: DeviceChild | None = None
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
        self._dying: list[DeviceChild] = []
        """Killed, and nobody waits for their answer."""

    # -- asked by the host -----------------------------------------------------------

    def renew(self, registry: Registry, devices: tuple[FencingDevice, ...]) -> None:
        """From the next shot on, these."""
        self._registry, self._devices = registry, devices

    def recover(self) -> None:
        """End what an earlier host left: a shot that nobody remembers is held."""
        nodes = list(dict.fromkeys(node for device in self._devices for node in device.nodes))
        device_child.recover(self._groups, _GROUP, nodes)

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
            aim.child.kill()
            self._dying.append(aim.child)

    def abort(self) -> None:
        """Hold everything: nobody is left to be answered."""
        for request_id in list(self._aims):
            self.hold(request_id)

    @property
    def under_way(self) -> bool:
        """Has somebody asked for a shot that is not yet answered or held?"""
        return bool(self._aims)

    @property
    def busy(self) -> bool:
        """Is a child there that is not yet reaped?"""
        return bool(self._children())

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [file for child in self._children() for file in child.files()]

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
            elif child.tick():
                self._failed(aim, f"{child.too_long()} and cannot be killed")
                self._dying.append(child)
                self._next(aim)

    def _children(self) -> list[DeviceChild]:
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
        aim.child = None
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

    def _ended(self, child: DeviceChild, word: Word) -> None:
        aim = next((aim for aim in self._aims.values() if aim.child is child), None)
        if aim is None:
            self._dying.remove(child)
            return
        aim.child = None
        if word.ok and not child.is_killed:
            self._said_off(aim)
        else:
            self._failed(aim, child.too_long() if child.is_killed else word.reason, word.cure)
            self._next(aim)

    def _begin(self, aim: _Aim, device: FencingDevice) -> None:
        aim.child = DeviceChild(
            self._groups,
            self._selector,
            device=device,
            node=aim.node,
            group=_GROUP,
            work=self._work,
            ended=self._ended,
        )

    def _work(self, order: FenceOrder) -> Word:
        """In the child."""
        self._registry.fence(order)
        return Word(ok=True)
