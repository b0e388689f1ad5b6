"""Drills: is every fencing device there that a shot would need?  Harmless: monitor and status, nothing else.

Decides when devices are tried (when asked, and again and again for the
peer's, the two nodes not at once), that one is tried at a time, and that a
shot goes first: whatever is tried then is killed and says nothing of its
device.  Each device in a child of the host.  Refuses to know what is harmless
to a device: a plugin's ``drill`` does; and what a failure means for the
cluster: the brain does.
"""

import logging
import random
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from hostd import device_child
from hostd.api import FenceOrder
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.config import FencingDevice
from hostd.device_child import DeviceChild, Word
from hostd.messages import Drilled, Trial
from hostd.registry import Registry

log = logging.getLogger("hostd.drills")

FIRST_MS: Final = 30_000
"""After the start: a boot has more urgent things to do ..."""
APART_MS: Final = 60_000
"""... and the second node's later by this: many a switch takes one session at a time."""
SPREAD: Final = 0.1
"""Each interval is longer or shorter by up to this share, so that two nodes do not keep meeting."""
AGAIN_MS: Final = 300_000
"""After a failure, so that a device that was mended is not called broken for an hour."""
BY_ITSELF: Final = 0
"""The id of a drill that nobody asked for."""
ASKED_MAX: Final = 8
"""Drills that wait for their turn; more is nobody's wish."""
CURE: Final = "see to the device, its cable and its params, or give it more time (timeout)"
_GROUP: Final = "@drill"
"""Stands where a service's name does in the cgroup's path."""


class _Drill:
    """One going through of the devices of a node."""

    def __init__(self, drill_id: int, node: str, devices: list[FencingDevice]) -> None:
        self.drill_id, self.node = drill_id, node
        self.left = deque(sorted(devices, key=lambda device: device.level))
        self.trials: tuple[Trial, ...] = ()
        self.child: DeviceChild | None = None
        self.began_at_ms = 0


class Drills:
    """All drills of one host.  ``tell`` hears of each device as it is done with, and of the end."""

    def __init__(
        self,
        registry: Registry,
        groups: Groups,
        devices: tuple[FencingDevice, ...],
        selector: selectors.BaseSelector,
        tell: Callable[[Drilled], None],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._registry, self._groups, self._devices = registry, groups, devices
        self._selector, self._tell, self._dice = selector, tell, dice
        self._waiting: deque[_Drill] = deque()
        self._current: _Drill | None = None
        self._dying: list[DeviceChild] = []
        self._peer, self._every_ms = "", 0
        self._due_at_ms: int | None = None
        self._newest: Drilled | None = None
        """The last drill of the peer's devices that came to its end: a new brain is told."""

    # -- asked by the host -------------------------------------------------------------

    def renew(self, registry: Registry, devices: tuple[FencingDevice, ...]) -> None:
        """From the next drill on, these; what was found of the others is forgotten."""
        self.abort()
        if devices != self._devices:
            self._newest = None
        self._registry, self._devices = registry, devices

    def repeat(self, peer: str, every_ms: int, *, is_first: bool) -> None:
        """Try the devices of ``peer`` by ourselves from now on; ``every_ms`` 0: do not."""
        self._peer, self._every_ms = peer, every_ms
        first_ms = min(every_ms, FIRST_MS) + (0 if is_first else min(every_ms // 2, APART_MS))
        has_any = any(peer in device.nodes for device in self._devices)
        self._due_at_ms = now_ms() + self._spread(first_ms) if every_ms and has_any else None

    def recover(self) -> None:
        """End what an earlier host left."""
        nodes = list(dict.fromkeys(node for device in self._devices for node in device.nodes))
        device_child.recover(self._groups, _GROUP, nodes)

    def begin(self, drill_id: int, node: str) -> None:
        """Try every device that could power ``node`` off, after those that wait already."""
        if len(self._waiting) >= ASKED_MAX:
            self._tell(Drilled(drill_id, node, (), is_over=True, detail="too many drills wait already"))
            return
        self._waiting.append(_Drill(drill_id, node, [device for device in self._devices if node in device.nodes]))

    def abort(self) -> None:
        """End all, without a word: nobody is left to hear it."""
        self._waiting.clear()
        self._let_go()

    def remembered(self) -> Drilled | None:
        """What a brain that has just been born does not know."""
        return self._newest

    @property
    def busy(self) -> bool:
        """Is a child there that is not yet reaped?"""
        return bool(self._children())

    @property
    def idle(self) -> bool:
        """Nothing runs, nothing waits."""
        return self._current is None and not self._waiting

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [file for child in self._children() for file in child.files()]

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do; None: not before a file is readable."""
        if self._current is not None:
            return None if self._current.child is None else self._current.child.until_ms
        return now_ms() if self._waiting else self._due_at_ms

    def tick(self, *, shooting: bool = False) -> None:
        """Begin what is due, strike what takes too long; ``shooting``: a shot is under way."""
        if shooting:
            self._call_off("a shot was under way")
            if self._due_at_ms is not None:
                self._due_at_ms = now_ms() + FIRST_MS  # a shot has told more than the last drill
            return
        if self._due_at_ms is not None and now_ms() >= self._due_at_ms:
            self._due_at_ms = now_ms() + self._spread(self._every_ms)
            self.begin(BY_ITSELF, self._peer)
        current = self._current
        if current is None:
            if self._waiting:
                self._current = self._waiting.popleft()
                self._next()
        elif current.child is not None and current.child.tick():
            child, current.child = current.child, None
            self._dying.append(child)
            self._note(child.device, Word(ok=False, reason=f"{child.too_long()} and cannot be killed"))

    # -- one device after the other ------------------------------------------------------

    def _next(self) -> None:
        """Try the next device; one that cannot even begin has failed."""
        drill = self._current
        assert drill is not None and drill.child is None
        if not drill.left:
            self._end(drill)
            return
        device, drill.began_at_ms = drill.left.popleft(), now_ms()
        try:
            drill.child = DeviceChild(
                self._groups,
                self._selector,
                device=device,
                node=drill.node,
                group=_GROUP,
                work=self._work,
                ended=self._ended,
            )
        except OSError as error:  # no more processes or memory
            self._note(device, Word(ok=False, reason=f"{device.agent} could not be started: {error}"))

    def _work(self, order: FenceOrder) -> Word:
        """In the child."""
        return Word(ok=True, said=self._registry.drill(order))

    def _ended(self, child: DeviceChild, word: Word) -> None:
        if self._current is None or self._current.child is not child:
            self._dying.remove(child)
            return
        self._current.child = None
        self._note(child.device, Word(ok=False, reason=child.too_long()) if child.is_killed else word)

    def _note(self, device: FencingDevice, word: Word) -> None:
        """One device is done with: say so, and go on."""
        drill = self._current
        assert drill is not None
        trial = Trial(
            device=self._devices.index(device) if device in self._devices else -1,
            agent=device.agent,
            level=device.level,
            ok=word.ok,
            power=word.said,
            reason=word.reason,
            cure=word.cure or ("" if word.ok else CURE),
            took_ms=now_ms() - drill.began_at_ms,
            at=time.time(),
        )
        level = logging.INFO if word.ok else logging.WARNING
        log.log(level, "drill of %s for %s: %s", device.agent, drill.node, word.reason or f"says {word.said}")
        drill.trials += (trial,)
        if drill.left:
            self._tell(Drilled(drill.drill_id, drill.node, drill.trials, is_over=False))
        self._next()

    def _end(self, drill: _Drill) -> None:
        self._current = None
        detail = "" if drill.trials else f"there is no fencing device in conf.d that could power {drill.node} off"
        done = Drilled(drill.drill_id, drill.node, drill.trials, is_over=True, detail=detail)
        if drill.node == self._peer:
            self._newest = done
            if self._due_at_ms is not None:
                is_good = all(trial.ok for trial in drill.trials)
                after_ms = self._every_ms if is_good else min(self._every_ms, AGAIN_MS)
                self._due_at_ms = now_ms() + self._spread(after_ms)
        self._tell(done)

    # -- making room ---------------------------------------------------------------------

    def _call_off(self, why: str) -> None:
        """End what runs and what waits; nothing was found out of any device."""
        drills = [*([self._current] if self._current else []), *self._waiting]
        self._waiting.clear()
        self._let_go()
        for drill in drills:
            self._tell(Drilled(drill.drill_id, drill.node, drill.trials, is_over=True, detail=why))

    def _let_go(self) -> None:
        if self._current is not None and self._current.child is not None:
            self._current.child.kill()
            self._dying.append(self._current.child)
        self._current = None

    def _children(self) -> list[DeviceChild]:
        current = self._current.child if self._current is not None else None
        return self._dying + ([current] if current is not None else [])

    def _spread(self, ms: int) -> int:
        return int(ms * (1 + SPREAD * (2 * self._dice() - 1)))
