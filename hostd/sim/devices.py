"""The fencing devices, as one simulated node reaches them.

Decides when a device acts and what it says of it: well, late, slowly, never,
or nothing but failure.  A shot that has left is not called back.  Where
fencing is of the storage, the disk decides whether it lets itself be taken.
"""

import random
from typing import Protocol

from hostd.core.effects import CancelFence, FencePeer
from hostd.core.events import FenceFinished
from hostd.core.plan import Plan
from hostd.sim.disk import Disk
from hostd.sim.faults import Conduct
from hostd.sim.machine import Machine


class World(Protocol):
    """What devices need of the world."""

    plan: Plan
    rng: random.Random
    disk: Disk
    devices: dict[str, Conduct]
    """By the node that they switch."""

    def shoot(self, node: str) -> None: ...


class Devices:
    """Those that one machine asks."""

    __slots__ = ("_open", "machine", "rng", "world")

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.rng = world.rng
        self._open: dict[int, bool] = {}
        """Open requests, and whether the device has acted."""

    def host_lost(self) -> None:
        """Nobody waits for an outcome any more."""
        self._open.clear()

    def fence(self, effect: FencePeer) -> None:
        conduct = self.world.devices[effect.node]
        self._open[effect.request_id] = False
        life = self.machine.brain_life
        begin_ms = effect.delay_ms + (6_000 if conduct is Conduct.SLOW else 300)
        if conduct is Conduct.HANG:
            self.machine.later(effect.delay_ms + 20_000, self._told, effect, life, False)
        elif conduct is Conduct.FAIL:
            self.machine.later(begin_ms, self._told, effect, life, False)
        else:
            self.machine.later(begin_ms, self._shoot, effect, life)

    def _shoot(self, effect: FencePeer, life: int) -> None:
        """The device acts: after this moment a cancellation comes too late for the peer."""
        if life == self.machine.brain_life and effect.request_id not in self._open:
            return
        if life == self.machine.brain_life:
            self._open[effect.request_id] = True
        late_ms = self.rng.choice((0, 0, 400))
        told_ms = 8_000 if self.world.devices[effect.node] is Conduct.LATE else self.rng.choice((100, 700))
        if self.world.plan.cuts_storage:
            self.machine.later(late_ms, self._cut, effect, life, told_ms)
            return
        self.machine.queue.after(late_ms, self.world.shoot, effect.node)
        self.machine.later(late_ms + told_ms, self._told, effect, life, True)

    def _cut(self, effect: FencePeer, life: int, told_ms: int) -> None:
        """The command comes from this machine: one that has lost its power sends none."""
        is_cut = self.world.disk.cut(effect.node, by=self.machine.name)
        self.machine.later(told_ms, self._told, effect, life, is_cut)

    def _told(self, effect: FencePeer, life: int, confirmed: bool) -> None:
        if life == self.machine.brain_life and self._open.pop(effect.request_id, None) is not None:
            self.machine.tell(life, FenceFinished(effect.request_id, confirmed))

    def cancel(self, effect: CancelFence) -> None:
        """The agent is killed; what the device has done already may be told even so."""
        if not self._open.get(effect.request_id, True):
            del self._open[effect.request_id]
