"""What effects do on one simulated node, and what is true of its services.

Decides the truth: which processes run, which addresses the kernel holds,
whatever anybody reports.  Every effect that acts is answered by exactly one
outcome, unless the process that asked is gone.  Knows nothing of phases,
views or assignments.
"""

import enum
import random
from collections.abc import Callable
from typing import Any, Protocol

from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnyEffect,
    CancelFence,
    CancelProbe,
    Exit,
    ExitKind,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewAddress,
    RenewIncarnation,
    RunAction,
    SaveWishes,
)
from hostd.core.events import (
    ActionFinished,
    AddressCause,
    AddressFinished,
    AddressLost,
    AddressOutcome,
    AddressVerified,
    AnyEvent,
    FenceFinished,
    ForeignClaim,
    IncarnationRenewed,
    ProbeFinished,
    ProcessExited,
    WishesSaved,
)
from hostd.core.terms import Action, Health, Incarnation
from hostd.sim.faults import Conduct
from hostd.sim.lan import STRANGER, Lan, station_of
from hostd.sim.machine import Machine, Surroundings

ASK_MS = 30
"""The guard before one address is added: three questions, 15 ms apart."""


class Truth(enum.Enum):
    """What is true of one agent resource on one node."""

    STOPPED = 1
    STARTING = 2
    RUNNING = 3
    STOPPING = 4
    ORPHANS = 5  # its main process died, workers stay, and a monitor says failed
    REMAINS = 6  # an action was cut short; a monitor may not see it, the record does


class World(Surroundings, Protocol):
    """What hands reach beyond their own machine."""

    rng: random.Random
    lan: Lan
    conduct: dict[tuple[str, str, Action], Conduct]
    """By service, node and action."""
    durations: dict[tuple[str, Action], int]
    devices: dict[str, Conduct]

    def other(self, machine: Machine) -> Machine: ...
    def answers(self, asker: str, address: str) -> str | None: ...
    def shoot(self, node: str) -> None: ...
    def lied(self, service: str) -> None: ...
    def exited(self, machine: Machine, kind: ExitKind) -> None: ...


class Flight:
    """One agent action that is under way."""

    __slots__ = ("asked", "brain_life", "dead", "truth_before")

    def __init__(self, asked: RunAction, brain_life: int, truth_before: Truth) -> None:
        self.asked = asked
        self.brain_life = brain_life
        self.truth_before = truth_before
        self.dead = False


class Hands:
    """The hands of one machine."""

    __slots__ = (
        "adding",
        "addresses",
        "busy_until_ms",
        "fences",
        "flights",
        "machine",
        "probes",
        "recorded",
        "rng",
        "truth",
        "world",
    )  # fmt: skip

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.rng = world.rng
        self.truth: dict[tuple[str, str], Truth] = {
            (s.name, r.id): Truth.STOPPED for s in world.plan.services for r in s.resources if not r.address
        }
        self.addresses: dict[str, int | None] = {}
        """What the kernel holds, and until when in its own time (None: for ever)."""
        self.flights: list[Flight] = []
        self.recorded: dict[str, bool] = {}
        """The runtime directory: services whose last start or stop is not known to have ended well."""
        self.probes: dict[int, bool] = {}
        """Open probes, and whether they have listened so far."""
        self.fences: dict[int, bool] = {}
        """Open requests, and whether the device has acted."""
        self.adding: dict[str, bool] = {}
        self.busy_until_ms: dict[str, int] = {}

    # -- what is true -------------------------------------------------------------

    def is_active(self, service: str) -> bool:
        """Some process of this service exists here."""
        return any(t is not Truth.STOPPED for (s, _), t in self.truth.items() if s == service)

    def present(self) -> tuple[str, ...]:
        return tuple(self.addresses)

    def _set(self, key: tuple[str, str], truth: Truth) -> None:
        if self.truth[key] is not truth:
            self.truth[key] = truth
            self.world.touched()

    # -- lives ---------------------------------------------------------------------

    def power_lost(self) -> None:
        for key in self.truth:
            self.truth[key] = Truth.STOPPED
        for flight in self.flights:
            flight.dead = True
        self.flights.clear()
        self.addresses.clear()
        self.recorded.clear()
        self.host_lost()

    def host_lost(self) -> None:
        """Nobody waits for an outcome any more."""
        self.probes.clear()
        self.adding.clear()
        self.fences.clear()

    def begin_host(self) -> tuple[str, ...]:
        """Kill what an earlier life left under way; which services did not finish?"""
        for flight in self.flights:
            flight.dead = True
            if flight.asked.action is not Action.MONITOR:
                self._cut_short(flight)
        self.flights.clear()
        return tuple(s.name for s in self.world.plan.services if s.name in self.recorded)

    def _cut_short(self, flight: Flight) -> None:
        key = (flight.asked.service, flight.asked.resource)
        if flight.asked.action is Action.START and flight.truth_before is Truth.RUNNING:
            return
        if self.truth[key] is not Truth.STOPPED:
            gone = flight.asked.action is Action.START and self.rng.random() < 0.3
            self._set(key, Truth.STOPPED if gone else Truth.REMAINS)

    # -- effects ---------------------------------------------------------------------

    def perform(self, effect: AnyEffect) -> None:
        act = _ACTS.get(type(effect))
        if act is not None:
            act(self, effect)

    def _answer(self, delay_ms: int, event: AnyEvent) -> None:
        """An outcome, for the brain that asked."""
        self.machine.later(delay_ms, self._tell, self.machine.brain_life, event)

    def _tell(self, brain_life: int, event: AnyEvent) -> None:
        if brain_life == self.machine.brain_life:
            self.machine.to_brain(event)

    def _publish(self, effect: Publish) -> None:
        if self.machine.heart is not None:
            self.machine.heart.carry(effect.snapshot)

    def _renew_incarnation(self, effect: RenewIncarnation) -> None:
        self.machine.boots += 1
        self._answer(8, IncarnationRenewed(Incarnation(self.machine.boots, self.world.draw_nonce())))

    def _save(self, effect: SaveWishes) -> None:
        well = self.machine.disk_well
        if well:
            self.machine.saved = effect.wishes
        self._answer(5, WishesSaved(well, "" if well else "no space left"))

    def _exit(self, effect: Exit) -> None:
        self.machine.kill_host()
        self.machine.exited = True
        self.world.exited(self.machine, effect.kind)

    # -- agent actions -------------------------------------------------------------

    def _run(self, effect: RunAction) -> None:
        key = (effect.service, effect.resource)
        before = self.truth[key]
        flight = Flight(effect, self.machine.brain_life, before)
        self.flights.append(flight)
        took_ms = self.world.durations[effect.service, effect.action]
        conduct = Conduct.WELL
        if effect.action is not Action.MONITOR:
            self.recorded[effect.service] = True
            conduct = self.world.conduct.get((effect.service, self.machine.name, effect.action), Conduct.WELL)
            if effect.action is Action.START and before is not Truth.RUNNING:
                self._set(key, Truth.STARTING)
            elif effect.action is Action.STOP and before is not Truth.STOPPED:
                self._set(key, Truth.STOPPING)
        if conduct is Conduct.SLOW:
            took_ms = took_ms * 4 + 1_000
        if conduct is Conduct.HANG or took_ms >= effect.timeout_ms:
            self.machine.later(effect.timeout_ms, self._timed_out, flight)
        else:
            self.machine.later(took_ms, self._ended, flight, conduct)

    def _timed_out(self, flight: Flight) -> None:
        if flight.dead:
            return
        self._land(flight)
        if flight.asked.action is not Action.MONITOR:
            self._cut_short(flight)
        self._report(flight, ActionFinished(flight.asked.action_id, ok=False, timed_out=True, reason="time limit"))

    def _ended(self, flight: Flight, conduct: Conduct) -> None:
        if flight.dead:
            return
        self._land(flight)
        match flight.asked.action:
            case Action.MONITOR:
                outcome = self._monitored(flight)
            case Action.START:
                outcome = self._started(flight, conduct)
            case Action.STOP:
                outcome = self._stopped(flight, conduct)
        self._report(flight, outcome)

    def _land(self, flight: Flight) -> None:
        flight.dead = True
        self.flights.remove(flight)

    def _report(self, flight: Flight, outcome: ActionFinished) -> None:
        asked = flight.asked
        if flight.brain_life != self.machine.brain_life:
            return  # whoever asked is gone, and its record says unfinished
        if asked.action is not Action.MONITOR and outcome.ok and not outcome.leftovers:
            self.recorded.pop(asked.service, None)
        self.machine.to_brain(outcome)

    def _monitored(self, flight: Flight) -> ActionFinished:
        asked = flight.asked
        match self.truth[asked.service, asked.resource]:
            case Truth.RUNNING:
                return ActionFinished(asked.action_id, ok=True, health=Health.RUNNING)
            case Truth.STOPPED:
                return ActionFinished(asked.action_id, ok=True, health=Health.STOPPED)
            case Truth.REMAINS if self.rng.random() < 0.5:
                return ActionFinished(asked.action_id, ok=True, health=Health.STOPPED)
            case _:
                return ActionFinished(asked.action_id, ok=False, reason="half of it answers")

    def _started(self, flight: Flight, conduct: Conduct) -> ActionFinished:
        key = (flight.asked.service, flight.asked.resource)
        if conduct is Conduct.FAIL:
            if self.truth[key] is not Truth.RUNNING:
                self._set(key, Truth.STOPPED if self.rng.random() < 0.5 else Truth.REMAINS)
            return ActionFinished(flight.asked.action_id, ok=False, reason="start failed")
        self._set(key, Truth.RUNNING)
        return ActionFinished(flight.asked.action_id, ok=True)

    def _stopped(self, flight: Flight, conduct: Conduct) -> ActionFinished:
        key, action_id = (flight.asked.service, flight.asked.resource), flight.asked.action_id
        was_active = self.truth[key] is not Truth.STOPPED
        if was_active and conduct is Conduct.FAIL:
            back = flight.truth_before if flight.truth_before is Truth.RUNNING else Truth.REMAINS
            self._set(key, back)
            return ActionFinished(action_id, ok=False, reason="stop failed")
        if was_active and conduct is Conduct.LEAVE:
            self._set(key, Truth.REMAINS)
            return ActionFinished(action_id, ok=True, leftovers=2)
        if was_active and conduct is Conduct.LIE:
            self._set(key, Truth.RUNNING)
            self.world.lied(flight.asked.service)
            return ActionFinished(action_id, ok=True)
        self._set(key, Truth.STOPPED)
        return ActionFinished(action_id, ok=True)

    def dies(self, service: str, noticed: bool, orphans: bool) -> None:
        """Every running resource of the service ends by itself."""
        for (name, resource), truth in self.truth.items():
            if name == service and truth is Truth.RUNNING:
                self._set((name, resource), Truth.ORPHANS if orphans else Truth.STOPPED)
                if noticed:
                    self._answer(4, ProcessExited(service, resource))

    # -- addresses -------------------------------------------------------------------

    def _add(self, effect: AddAddress) -> None:
        if effect.guard:
            self.adding[effect.address] = True
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
        self.adding.pop(address, None)
        if outcome is AddressOutcome.DONE:
            self._added(effect, life)
        else:
            self._tell(life, AddressFinished(effect.request_id, outcome, detail))

    def _other_asks(self, address: str) -> bool:
        """The other node's probe for it is seen, and it is the first in order."""
        other = self.world.other(self.machine)
        if not self.world.lan.passes() or not other.userland_runs or not self.world.plan.is_first(other.name):
            return False
        hands = other.hands
        return isinstance(hands, Hands) and address in hands.adding

    def _added(self, effect: AddAddress, life: int) -> None:
        if life != self.machine.brain_life:
            return
        self._hold(effect.address, self.world.plan.address_lease_ms)
        self._tell(life, AddressFinished(effect.request_id, AddressOutcome.DONE))

    def _hold(self, address: str, lease_ms: int) -> None:
        new = address not in self.addresses
        self.addresses[address] = self.machine.kernel_ms() + lease_ms if lease_ms else None
        self._arm_lease(address)
        if new:
            self.world.touched()

    def _arm_lease(self, address: str) -> None:
        until_ms = self.addresses[address]
        if until_ms is not None and self.machine.kernel_runs:
            rest_ms = max(0, until_ms - self.machine.kernel_ms())
            self.machine.queue.after(rest_ms, self._lease_due, self.machine.power_life, address, until_ms)

    def _lease_due(self, power_life: int, address: str, until_ms: int) -> None:
        current = power_life == self.machine.power_life and self.addresses.get(address) == until_ms
        if current and self.machine.kernel_runs and self.machine.kernel_ms() >= until_ms:
            self.drop(address)

    def kernel_resumed(self) -> None:
        for address in list(self.addresses):
            self._arm_lease(address)

    def drop(self, address: str) -> None:
        """The kernel removes it unasked (its lease ran out, or by hand), and netlink says so."""
        if address in self.addresses:
            del self.addresses[address]
            self.world.touched()
            self._answer(1, AddressLost(address, AddressCause.REMOVED))

    def unplugged(self) -> None:
        for address in self.addresses:
            self._answer(1, AddressLost(address, AddressCause.INTERFACE_DOWN))

    def _in_order(self, delay_ms: int, address: str, act: Callable[..., None], effect: AnyEffect) -> None:
        """One address's changes are carried out in the order in which they were asked for."""
        at_ms = max(self.machine.queue.now_ms + delay_ms, self.busy_until_ms.get(address, 0))
        self.busy_until_ms[address] = at_ms
        self.machine.later(at_ms - self.machine.queue.now_ms, act, effect, self.machine.brain_life)

    def _remove(self, effect: RemoveAddress) -> None:
        self._in_order(2, effect.address, self._removed, effect)

    def _removed(self, effect: RemoveAddress, life: int) -> None:
        if life != self.machine.brain_life:
            return
        if self.addresses.pop(effect.address, 0) != 0:
            self.world.touched()
        self._tell(life, AddressFinished(effect.request_id, AddressOutcome.DONE))

    def _renew(self, effect: RenewAddress) -> None:
        late_ms = self.rng.choice((1, 1, 1, 40))
        self._in_order(late_ms, effect.address, self._renewed, effect)

    def _renewed(self, effect: RenewAddress, life: int) -> None:
        """As netlink has it: a renewal re-creates a missing address (there is no "renew only")."""
        if life != self.machine.brain_life:
            return
        outcome = AddressOutcome.DONE
        if self.machine.clock_ms() > effect.not_after_ms:
            outcome = AddressOutcome.FAILED
            if self.addresses.pop(effect.address, 0) != 0:
                self.world.touched()
        else:
            self._hold(effect.address, effect.lease_ms or self.world.plan.address_lease_ms)
        self._tell(life, AddressFinished(effect.request_id, outcome))

    def _announce(self, effect: AnnounceAddress) -> None:
        self.machine.later(2, self._claim, effect.address)
        verified = not self.world.lan.is_off(self.machine.name) and effect.address in self.addresses
        self._answer(40, AddressVerified(effect.request_id, verified))

    def _claim(self, address: str) -> None:
        """A gratuitous ARP: whoever else holds it sees a foreign claim."""
        if address in self.addresses and self.world.lan.passes():
            other = self.world.other(self.machine).hands
            assert isinstance(other, Hands)
            other.claimed(address, station_of(self.machine.name))

    def claimed(self, address: str, station: str) -> None:
        if address in self.addresses and self.machine.kernel_runs:
            self._answer(1, ForeignClaim(address, station, self.machine.clock_ms()))

    # -- the silent peer -----------------------------------------------------------------

    def _probe(self, effect: ProbeAddresses) -> None:
        self.probes[effect.request_id] = True
        self._ask(effect, effect.count, self.machine.brain_life, ())

    def _ask(self, effect: ProbeAddresses, more: int, life: int, found: tuple[tuple[str, str], ...]) -> None:
        if life != self.machine.brain_life or effect.request_id not in self.probes:
            return
        me = self.machine.name
        if self.world.lan.is_off(me) or self.machine.stop is not None:
            self.probes[effect.request_id] = False
        for address in effect.addresses:
            station = self.world.answers(me, address)
            if station is not None and (address, station) not in found:
                found = (*found, (address, station))
        if more and not found:  # an answer ends it
            wait_ms = max(1, effect.over_ms // effect.count)
            self.machine.later(wait_ms, self._ask, effect, more - 1, life, found)
            return
        listened = self.probes.pop(effect.request_id)
        answered = tuple(a for a in effect.addresses if any(a == b for b, _ in found))
        strangers = tuple(a for a, s in found if s == STRANGER)
        self._tell(life, ProbeFinished(effect.request_id, listened, answered, strangers))

    def _cancel_probe(self, effect: CancelProbe) -> None:
        self.probes.pop(effect.request_id, None)

    def _fence(self, effect: FencePeer) -> None:
        conduct = self.world.devices[effect.node]
        self.fences[effect.request_id] = False
        life = self.machine.brain_life
        begin_ms = effect.delay_ms + (6_000 if conduct is Conduct.SLOW else 300)
        if conduct is Conduct.HANG:
            self.machine.later(effect.delay_ms + 20_000, self._shot, effect, life, False)
        elif conduct is Conduct.FAIL:
            self.machine.later(begin_ms, self._shot, effect, life, False)
        else:
            self.machine.later(begin_ms, self._shoot, effect, life)

    def _shoot(self, effect: FencePeer, life: int) -> None:
        """The device acts: after this moment a cancellation comes too late for the peer."""
        if life == self.machine.brain_life and effect.request_id not in self.fences:
            return
        if life == self.machine.brain_life:
            self.fences[effect.request_id] = True
        late_ms = self.rng.choice((0, 0, 400))
        self.machine.queue.after(late_ms, self.world.shoot, effect.node)
        told_ms = 8_000 if self.world.devices[effect.node] is Conduct.LATE else self.rng.choice((100, 700))
        self.machine.later(late_ms + told_ms, self._shot, effect, life, True)

    def _shot(self, effect: FencePeer, life: int, confirmed: bool) -> None:
        if life == self.machine.brain_life and self.fences.pop(effect.request_id, None) is not None:
            self._tell(life, FenceFinished(effect.request_id, confirmed))

    def _cancel_fence(self, effect: CancelFence) -> None:
        """The agent is killed; what the device has done already may be told even so."""
        if not self.fences.get(effect.request_id, True):
            del self.fences[effect.request_id]


_ACTS: dict[type[Any], Any] = {
    Publish: Hands._publish,
    RenewIncarnation: Hands._renew_incarnation,
    RunAction: Hands._run,
    AddAddress: Hands._add,
    RemoveAddress: Hands._remove,
    RenewAddress: Hands._renew,
    AnnounceAddress: Hands._announce,
    ProbeAddresses: Hands._probe,
    CancelProbe: Hands._cancel_probe,
    FencePeer: Hands._fence,
    CancelFence: Hands._cancel_fence,
    SaveWishes: Hands._save,
    Exit: Hands._exit,
}
"""Effects that act.  AnswerOperator and Tell act on people only."""
