"""Agent actions on one simulated node, and what is true of the services there.

Decides which processes really run, whatever anybody reports: what a start, a
stop or a monitor does when it ends well, fails, hangs, lies or is cut short.
Knows nothing of addresses, of the peer, or of who asked and why.
"""

import enum
import random
from typing import Protocol

from hostd.core.effects import RunAction
from hostd.core.events import ActionFinished, ProcessExited
from hostd.core.plan import Plan
from hostd.core.terms import Action, Health
from hostd.sim.disk import Disk
from hostd.sim.faults import Conduct
from hostd.sim.machine import Machine


class Truth(enum.Enum):
    """What is true of one agent resource on one node."""

    STOPPED = 1
    STARTING = 2
    RUNNING = 3
    STOPPING = 4
    ORPHANS = 5  # its main process died, workers stay, and a monitor says failed
    REMAINS = 6  # an action was cut short; a monitor may not see it, the record does


class World(Protocol):
    """What actions need of the world."""

    plan: Plan
    rng: random.Random
    conduct: dict[tuple[str, str, Action], Conduct]
    """By service, node and action."""
    durations: dict[tuple[str, Action], int]
    disk: Disk

    def touched(self) -> None: ...
    def lied(self, service: str) -> None: ...


class Flight:
    """One agent action that is under way."""

    __slots__ = ("asked", "brain_life", "dead", "truth_before")

    def __init__(self, asked: RunAction, brain_life: int, truth_before: Truth) -> None:
        self.asked = asked
        self.brain_life = brain_life
        self.truth_before = truth_before
        self.dead = False


class Actions:
    """Those of one machine."""

    __slots__ = ("_flights", "_recorded", "machine", "rng", "truth", "world")

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.rng = world.rng
        self.truth: dict[tuple[str, str], Truth] = {
            (s.name, r.id): Truth.STOPPED for s in world.plan.services for r in s.resources if not r.address
        }
        self._flights: list[Flight] = []
        self._recorded: dict[str, bool] = {}
        """The runtime directory: services whose last start or stop is not known to have ended well."""

    # -- what is true -------------------------------------------------------------

    def is_active(self, service: str) -> bool:
        """Some process of this service exists here."""
        return any(t is not Truth.STOPPED for (s, _), t in self.truth.items() if s == service)

    def dies(self, service: str, noticed: bool, orphans: bool) -> None:
        """Every running resource of the service ends by itself."""
        for (name, resource), truth in self.truth.items():
            if name == service and truth is Truth.RUNNING:
                self._set((name, resource), Truth.ORPHANS if orphans else Truth.STOPPED)
                if noticed:
                    self.machine.answer(4, ProcessExited(service, resource))

    def _set(self, key: tuple[str, str], truth: Truth) -> None:
        if self.truth[key] is not truth:
            self.truth[key] = truth
            if key[0] in self.world.disk.registrars:
                self._at_the_disk(truth)
            self.world.touched()

    def _lost_its_key(self, service: str) -> bool:
        disk = self.world.disk
        return service in disk.registrars and not disk.keys[self.machine.name]

    def _at_the_disk(self, truth: Truth) -> None:
        if truth is Truth.STOPPED:
            self.world.disk.leave(self.machine.name)
        elif truth in (Truth.RUNNING, Truth.REMAINS):
            self.world.disk.register(self.machine.name)

    # -- lives ---------------------------------------------------------------------

    def power_lost(self) -> None:
        for key in self.truth:
            self.truth[key] = Truth.STOPPED
        for flight in self._flights:
            flight.dead = True
        self._flights.clear()
        self._recorded.clear()

    def begin_host(self) -> tuple[str, ...]:
        """Kill what an earlier life left under way; which services did not finish?"""
        for flight in self._flights:
            flight.dead = True
            if flight.asked.action is not Action.MONITOR:
                self._cut_short(flight)
        self._flights.clear()
        return tuple(s.name for s in self.world.plan.services if s.name in self._recorded)

    def _cut_short(self, flight: Flight) -> None:
        key = (flight.asked.service, flight.asked.resource)
        if flight.asked.action is Action.START and flight.truth_before is Truth.RUNNING:
            return
        if self.truth[key] is not Truth.STOPPED:
            gone = flight.asked.action is Action.START and self.rng.random() < 0.3
            self._set(key, Truth.STOPPED if gone else Truth.REMAINS)

    # -- an action begins ------------------------------------------------------------

    def run(self, effect: RunAction) -> None:
        key = (effect.service, effect.resource)
        before = self.truth[key]
        flight = Flight(effect, self.machine.brain_life, before)
        self._flights.append(flight)
        took_ms = self.world.durations[effect.service, effect.action]
        conduct = Conduct.WELL
        if effect.action is not Action.MONITOR:
            self._recorded[effect.service] = True
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

    # -- and ends ------------------------------------------------------------------------

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
        self._flights.remove(flight)

    def _report(self, flight: Flight, outcome: ActionFinished) -> None:
        asked = flight.asked
        if flight.brain_life != self.machine.brain_life:
            return  # whoever asked is gone, and its record says unfinished
        if asked.action is not Action.MONITOR and outcome.ok and not outcome.leftovers:
            self._recorded.pop(asked.service, None)
        self.machine.to_brain(outcome)

    def _monitored(self, flight: Flight) -> ActionFinished:
        asked = flight.asked
        match self.truth[asked.service, asked.resource]:
            case Truth.RUNNING if (
                asked.service in self.world.disk.registrars and not self.world.disk.keys[self.machine.name]
            ):
                return ActionFinished(asked.action_id, ok=False, reason="its key was removed")
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
