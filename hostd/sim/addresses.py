"""The services' addresses on one simulated node.

Decides which addresses the kernel holds and until when (leases), what the
guard before an addition hears, and which claims of others are seen.  As with
netlink, changes of one address happen in the order in which they were asked
for, and a renewal re-creates what is missing.  Knows nothing of services.
"""

import random
from collections.abc import Callable
from typing import Final, Protocol

from hostd.core.effects import AddAddress, AnnounceAddress, AnyEffect, RemoveAddress, RenewAddress
from hostd.core.events import (
    AddressCause,
    AddressFinished,
    AddressLost,
    AddressOutcome,
    AddressVerified,
    ForeignClaim,
)
from hostd.core.plan import Plan
from hostd.sim.lan import Lan, station_of
from hostd.sim.machine import Machine

ASK_MS: Final = 30
"""The guard before one address is added: three questions, 15 ms apart."""


class World(Protocol):
    """What addresses need of the world."""

    plan: Plan
    rng: random.Random
    lan: Lan

    def other(self, machine: Machine) -> Machine: ...
    def addresses(self, node: str) -> "Addresses": ...
    def answers(self, asker: str, address: str) -> str | None: ...
    def touched(self) -> None: ...


class Addresses:
    """Those of one machine."""

    __slots__ = ("_adding", "_busy_until_ms", "held", "machine", "rng", "world")

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.rng = world.rng
        self.held: dict[str, int | None] = {}
        """What the kernel holds, and until when in its own time (None: for ever)."""
        self._adding: dict[str, bool] = {}
        self._busy_until_ms: dict[str, int] = {}

    # -- lives ---------------------------------------------------------------------

    def power_lost(self) -> None:
        self.held.clear()

    def host_lost(self) -> None:
        """Nobody waits for an outcome any more."""
        self._adding.clear()

    # -- adding, after asking who has it ---------------------------------------------

    def add(self, effect: AddAddress) -> None:
        if effect.guard:
            self._adding[effect.address] = True
            self._ask_before(effect, 2, self.machine.brain_life)
        else:
            self.machine.later(3, self._added, effect, self.machine.brain_life)

    def _ask_before(self, effect: AddAddress, more: int, life: int) -> None:
        if life != self.machine.brain_life:
            return
        me, address = self.machine.name, effect.address
        outcome, detail = AddressOutcome.DONE, ""
        if self.world.lan.cut[me]:
            outcome, detail = AddressOutcome.FAILED, "no carrier"
        elif (station := self.world.answers(me, address)) is not None:
            outcome, detail = AddressOutcome.CONFLICT, station
        elif self._other_asks(address):
            outcome, detail = AddressOutcome.CONFLICT, "asked for by the other"
        elif more:
            self.machine.later(ASK_MS // 2, self._ask_before, effect, more - 1, life)
            return
        self._adding.pop(address, None)
        if outcome is AddressOutcome.DONE:
            self._added(effect, life)
        else:
            self.machine.tell(life, AddressFinished(effect.request_id, outcome, detail))

    def _other_asks(self, address: str) -> bool:
        """The other node's probe for it is seen, and it is the first in order."""
        other = self.world.other(self.machine)
        if not self.world.lan.passes() or not other.userland_runs or not self.world.plan.is_first(other.name):
            return False
        return address in self.world.addresses(other.name)._adding

    def _added(self, effect: AddAddress, life: int) -> None:
        if life != self.machine.brain_life:
            return
        self._hold(effect.address, self.world.plan.address_lease_ms)
        self.machine.tell(life, AddressFinished(effect.request_id, AddressOutcome.DONE))

    # -- leases ------------------------------------------------------------------------

    def _hold(self, address: str, lease_ms: int) -> None:
        new = address not in self.held
        self.held[address] = self.machine.kernel_ms() + lease_ms if lease_ms else None
        self._arm_lease(address)
        if new:
            self.world.touched()

    def _arm_lease(self, address: str) -> None:
        until_ms = self.held[address]
        if until_ms is not None and self.machine.kernel_runs:
            rest_ms = max(0, until_ms - self.machine.kernel_ms())
            self.machine.queue.after(rest_ms, self._lease_due, self.machine.power_life, address, until_ms)

    def _lease_due(self, power_life: int, address: str, until_ms: int) -> None:
        current = power_life == self.machine.power_life and self.held.get(address) == until_ms
        if current and self.machine.kernel_runs and self.machine.kernel_ms() >= until_ms:
            self.drop(address)

    def kernel_resumed(self) -> None:
        for address in list(self.held):
            self._arm_lease(address)

    def drop(self, address: str) -> None:
        """The kernel removes it unasked (its lease ran out, or by hand), and netlink says so."""
        if address in self.held:
            del self.held[address]
            self.world.touched()
            self.machine.answer(1, AddressLost(address, AddressCause.REMOVED))

    def unplugged(self) -> None:
        for address in self.held:
            self.machine.answer(1, AddressLost(address, AddressCause.INTERFACE_DOWN))

    # -- removing and renewing, in order -------------------------------------------------

    def _in_order(self, delay_ms: int, address: str, act: Callable[..., None], effect: AnyEffect) -> None:
        """One address's changes are carried out in the order in which they were asked for."""
        at_ms = max(self.machine.queue.now_ms + delay_ms, self._busy_until_ms.get(address, 0))
        self._busy_until_ms[address] = at_ms
        self.machine.later(at_ms - self.machine.queue.now_ms, act, effect, self.machine.brain_life)

    def remove(self, effect: RemoveAddress) -> None:
        self._in_order(2, effect.address, self._removed, effect)

    def _removed(self, effect: RemoveAddress, life: int) -> None:
        if life != self.machine.brain_life:
            return
        if self.held.pop(effect.address, 0) != 0:
            self.world.touched()
        self.machine.tell(life, AddressFinished(effect.request_id, AddressOutcome.DONE))

    def renew(self, effect: RenewAddress) -> None:
        late_ms = self.rng.choice((1, 1, 1, 40))
        self._in_order(late_ms, effect.address, self._renewed, effect)

    def _renewed(self, effect: RenewAddress, life: int) -> None:
        """As netlink has it: a renewal re-creates a missing address (there is no "renew only")."""
        if life != self.machine.brain_life:
            return
        outcome = AddressOutcome.DONE
        if self.machine.clock_ms() > effect.not_after_ms:
            outcome = AddressOutcome.FAILED
            if self.held.pop(effect.address, 0) != 0:
                self.world.touched()
        else:
            self._hold(effect.address, effect.lease_ms or self.world.plan.address_lease_ms)
        self.machine.tell(life, AddressFinished(effect.request_id, outcome))

    # -- announcing ------------------------------------------------------------------------

    def announce(self, effect: AnnounceAddress) -> None:
        self.machine.later(2, self._claim, effect.address)
        verified = not self.world.lan.is_off(self.machine.name) and effect.address in self.held
        self.machine.answer(40, AddressVerified(effect.request_id, verified))

    def _claim(self, address: str) -> None:
        """A gratuitous ARP: whoever else holds it sees a foreign claim."""
        if address in self.held and self.world.lan.passes():
            other = self.world.other(self.machine)
            self.world.addresses(other.name).claimed(address, station_of(self.machine.name))

    def claimed(self, address: str, station: str) -> None:
        if address in self.held and self.machine.kernel_runs:
            self.machine.answer(1, ForeignClaim(address, station, self.machine.clock_ms()))
