"""What a node notices of the client LAN: its interface's carrier, and the tiebreaker.

Decides when the brain is told: of a carrier at once, of a tiebreaker that is
lost after its deadtime.  Knows no links, addresses or services' states.
"""

from typing import Final

from hostd.core.events import LanTurned, TiebreakerTurned
from hostd.core.plan import Plan
from hostd.sim.lan import Lan
from hostd.sim.machine import Machine

FOUND_MS: Final = 200
"""A ping and its answer, and the interval between two pings."""


class Senses:
    """Those of one machine, for the brain that lives now."""

    __slots__ = ("dead", "lan", "machine", "plan", "reached")

    def __init__(self, plan: Plan, lan: Lan, machine: Machine) -> None:
        self.plan, self.lan, self.machine = plan, lan, machine
        self.dead: tuple[str, ...] | None = None
        self.reached: bool | None = None

    def begin(self) -> None:
        """A new brain: it has been told nothing."""
        self.dead = self.reached = None
        self.look()

    def look(self) -> None:
        """Something about the LAN may have changed; what is told is how it is when the telling comes."""
        life = self.machine.brain_life
        self.machine.later(1, self._tell_lan, life)
        if self.plan.tiebreaker:
            wait_ms = FOUND_MS if self._reaches() else self.plan.timers.deadtime_ms
            self.machine.later(wait_ms, self._tell_tiebreaker, life, self._reaches())

    def _tell_lan(self, life: int) -> None:
        is_cut = self.lan.cut[self.machine.name]
        dead = tuple(a for s in self.plan.services for a in s.addresses) if is_cut else ()
        if life == self.machine.brain_life and dead != self.dead:
            self.dead = dead
            self.machine.to_brain(LanTurned(dead))

    def _tell_tiebreaker(self, life: int, reached: bool) -> None:
        if life == self.machine.brain_life and reached is self._reaches() and reached is not self.reached:
            self.reached = reached
            self.machine.to_brain(TiebreakerTurned(reached))

    def _reaches(self) -> bool:
        name = self.machine.name
        return not self.lan.is_off(name) and not self.lan.no_tiebreaker[name]
