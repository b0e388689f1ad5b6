"""The guard's probes: does anybody on the LAN still answer for these addresses?

Decides what one node hears, and whether it listened at all.  What silence is
worth is the core's to say.
"""

from typing import Protocol

from hostd.core.effects import CancelProbe, ProbeAddresses
from hostd.core.events import ProbeFinished
from hostd.sim.lan import STRANGER, Lan
from hostd.sim.machine import Machine


class World(Protocol):
    """What probes need of the world."""

    lan: Lan

    def answers(self, asker: str, address: str) -> str | None: ...


class Probes:
    """Those of one machine."""

    __slots__ = ("_open", "machine", "world")

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self._open: dict[int, bool] = {}
        """Open probes, and whether they have listened so far."""

    def host_lost(self) -> None:
        """Nobody waits for an outcome any more."""
        self._open.clear()

    def probe(self, effect: ProbeAddresses) -> None:
        self._open[effect.request_id] = True
        self._ask(effect, effect.count, self.machine.brain_life, ())

    def _ask(self, effect: ProbeAddresses, more: int, life: int, found: tuple[tuple[str, str], ...]) -> None:
        if life != self.machine.brain_life or effect.request_id not in self._open:
            return
        me = self.machine.name
        if self.world.lan.is_off(me) or self.machine.stop is not None:
            self._open[effect.request_id] = False
        for address in effect.addresses:
            station = self.world.answers(me, address)
            if station is not None and (address, station) not in found:
                found = (*found, (address, station))
        if more and not found:  # an answer ends it
            wait_ms = max(1, effect.over_ms // effect.count)
            self.machine.later(wait_ms, self._ask, effect, more - 1, life, found)
            return
        listened = self._open.pop(effect.request_id)
        answered = tuple(a for a in effect.addresses if any(a == b for b, _ in found))
        strangers = tuple(a for a, s in found if s == STRANGER)
        self.machine.tell(life, ProbeFinished(effect.request_id, listened, answered, strangers))

    def cancel(self, effect: CancelProbe) -> None:
        self._open.pop(effect.request_id, None)
