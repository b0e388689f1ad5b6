"""What would happen if?  One play on the virtual clock: a site's own plan, and
the faults that somebody wants to see.

Decides how a play is staged (both nodes started and well, then the faults,
then calm) and what is seen of it: who served when, what ran twice, what
waits.  Refuses to know which faults are worth a look (``singles.py``) and how
any of it is worded.
"""

from typing import Final

import msgspec

from hostd.core.effects import AnyEffect, PhaseChanged, ServiceAssigned, ServiceTurned, Tell
from hostd.core.events import AnyEvent
from hostd.core.plan import Plan, Service
from hostd.core.terms import Action, Phase, ServiceState, Why
from hostd.sim import faults
from hostd.sim.actions import Truth
from hostd.sim.faults import AnyFault, Pause, Schedule
from hostd.sim.judge import Judge
from hostd.sim.machine import Machine
from hostd.sim.replay import make_brain
from hostd.sim.run import bound_ms, what_is_missing, where
from hostd.sim.world import Observer, World

LOOK_MS: Final = 100
CALM_BEFORE_MS: Final = 2_000
"""Well for so long before the first fault."""

PLAY_MAX_MS: Final = 3_600_000
"""A play that finds no calm ends here."""

ASSUMED_MS: Final[dict[Action, int]] = {Action.START: 1_000, Action.STOP: 1_000, Action.MONITOR: 50}
"""How long actions of agents take in a play, since nobody knows: less where
half of the configured limit is less."""


class Site(msgspec.Struct, frozen=True):
    """A plan, and what a plan does not say of its site."""

    plan: Plan
    on_lan: tuple[str, ...] = ()
    """Links that share the fate of the client LAN."""
    levels: dict[str, tuple[int, ...]] = {}
    """Per node the levels of fencing devices that can switch it off."""


class Course(msgspec.Struct, frozen=True):
    """What a play came to.  All times are virtual milliseconds since the first fault."""

    before: dict[str, tuple[str, ...]]
    """Per service: the nodes on which it served."""
    after: dict[str, tuple[str, ...]]
    out_ms: dict[str, int]
    """Services that served nowhere for a while (or since then, if ``after`` is empty)."""
    settled_ms: int
    """When the last service came, went or moved; 0: none did."""
    twice_ms: dict[str, int]
    """Services of one node that had processes on both, neither of them switched off."""
    owners_ms: dict[str, int]
    """Addresses that two nodes held, both reachable by clients."""
    for_good: tuple[str, ...]
    """Services and addresses of the two above that it is still true of in the end."""
    blocked: tuple[tuple[str, str], ...]
    """(service, node): a stop failed there, and an operator is needed."""
    given_up: tuple[tuple[str, str], ...]
    """(service, node): not eligible there, until ``hostd cleanup``."""
    waits: tuple[str, ...]
    """Nodes that lost their peer and have no proof of its end: they wait."""
    phases: dict[str, Phase | None]
    """None: nothing of hostd runs there."""
    shot: tuple[str, ...]
    why: dict[str, Why]
    """Per service the reason of its last assignment since the fault."""
    cleared: Why | None
    """Why the survivor acts alone, if one does."""
    harm: str
    """A rule of the protocol that was broken: a bug of hostd."""


class NotWellError(Exception):
    """The site's plan does not come up on two nodes in order; the text says what is missing."""


def at_once(*struck: AnyFault) -> Schedule:
    """A schedule of all of them, as soon as all is well."""
    return tuple(faults.Timed(0, fault) for fault in struck)


def play(site: Site, schedule: Schedule, observers: tuple[Observer, ...] = (), *, calm_ms: int | None = None) -> Course:
    """Start both nodes, wait until all is well, let the faults happen, wait for calm.

    The times of ``schedule`` count from the moment in which all was well.
    Raises :class:`NotWellError`.
    """
    judge, watch = Judge(), Watch(site.plan)
    world = World(site.plan, 0, make_brain, (judge, watch, *observers), on_lan=site.on_lan)
    world.restart_detached = True
    _assume(world)
    for machine in world.machines.values():
        world.queue.at(0, machine.power_on)
    try:
        _until_well(world, judge)
        began_ms = world.queue.now_ms
        watch.begin(world)
        for at_ms, fault in schedule:
            world.queue.at(began_ms + at_ms, world.strike, fault)
        last_ms = began_ms + max((at_ms + _lasts_ms(fault) for at_ms, fault in schedule), default=0)
        _until_calm(world, watch, last_ms, calm_ms or quiet_ms(site.plan, _comes_back(schedule)))
    except AssertionError as error:
        world.harm = world.harm or f"assertion: {where(error)}"
    return watch.course(world, judge)


def quiet_ms(plan: Plan, comes_back: bool) -> int:
    """How long nothing may happen before nothing more is expected: the longest single wait of hostd."""
    timers = plan.timers
    waits_ms = [10_000, 2 * timers.deadtime_ms + plan.address_lease_ms]
    waits_ms += [r.monitor_interval_ms + r.monitor_timeout_ms for s in plan.services for r in s.resources]
    if plan.fencing or plan.cuts_storage:
        waits_ms.append(plan.fence_delay_ms + 25_000)  # a device that hangs is given up after 20 s (hands.py)
    if comes_back:
        waits_ms.append(timers.initdead_ms)
        waits_ms += [service.failback_after_ms or 0 for service in plan.services]
    return max(waits_ms) + timers.deadtime_ms


def _lasts_ms(fault: AnyFault) -> int:
    return fault.for_ms if isinstance(fault, Pause) and fault.for_ms < PLAY_MAX_MS else 0


def _comes_back(schedule: Schedule) -> bool:
    """Is anything repaired in the end, so that a service may fail back?"""
    repairs = (faults.PowerOn, faults.StartHost, faults.Mend, faults.LanMend, faults.PingBack, faults.KillBrain)
    return any(isinstance(fault, repairs) or _lasts_ms(fault) for _, fault in schedule)


def _assume(world: World) -> None:
    for service in world.plan.services:
        for action, assumed_ms in ASSUMED_MS.items():
            limits_ms = [
                {
                    Action.START: resource.start_timeout_ms,
                    Action.STOP: resource.stop_timeout_ms,
                    Action.MONITOR: resource.monitor_timeout_ms,
                }[action]
                for resource in service.resources
                if not resource.address
            ]
            world.durations[service.name, action] = min([assumed_ms, *(limit // 2 for limit in limits_ms)])


def _until_well(world: World, judge: Judge) -> None:
    calm_since_ms: int | None = None
    while True:
        world.run_until(world.queue.now_ms + LOOK_MS)
        missing = world.harm or what_is_missing(world, judge, world.plan.nodes)
        if missing:
            calm_since_ms = None
        elif calm_since_ms is None:
            calm_since_ms = world.queue.now_ms
        elif world.queue.now_ms - calm_since_ms >= CALM_BEFORE_MS:
            return
        if world.harm or world.queue.now_ms > bound_ms(world.plan):
            raise NotWellError(missing)


def _until_calm(world: World, watch: "Watch", last_ms: int, calm_ms: int) -> None:
    while not world.harm and world.queue.now_ms < max(last_ms, watch.changed_at_ms) + calm_ms:
        if world.queue.now_ms - watch.began_ms > PLAY_MAX_MS:
            return
        world.run_until(world.queue.now_ms + LOOK_MS)


class Watch:
    """An observer that keeps who served, what ran twice, and since when."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began = False
        self.began_ms = self.changed_at_ms = self._moved_at_ms = 0
        self._serving: dict[str, tuple[str, ...]] = {}
        self._before: dict[str, tuple[str, ...]] = {}
        self._out_since: dict[str, int] = {}
        self._out_ms: dict[str, int] = {}
        self._twice = _Spans()
        self._owners = _Spans()
        self._why: dict[str, Why] = {}
        self._cleared: Why | None = None
        self._shot: list[str] = []

    def begin(self, world: World) -> None:
        """From now on it counts."""
        self._began = True
        self.began_ms = self.changed_at_ms = self._moved_at_ms = world.queue.now_ms
        self._before = self._serving = self._now_serving(world)

    # -- the world tells -------------------------------------------------------------

    def struck(self, world: World, fault: AnyFault) -> None:
        pass

    def shot(self, world: World, node: str) -> None:
        self._shot.append(node)

    def stepped(self, world: World, machine: Machine, event: AnyEvent, effects: list[AnyEffect]) -> None:
        for effect in effects if self._began else ():
            if isinstance(effect, Tell):
                self._told(world, effect)

    def changed(self, world: World) -> None:
        if not self._began:
            return
        now_ms, serving = world.queue.now_ms, self._now_serving(world)
        if serving != self._serving:
            self._serving, self.changed_at_ms, self._moved_at_ms = serving, now_ms, now_ms
        for name, nodes in serving.items():
            if not nodes:
                self._out_since.setdefault(name, now_ms)
            elif name in self._out_since:
                self._out_ms[name] = self._out_ms.get(name, 0) + now_ms - self._out_since.pop(name)
        for service in self._plan.services:
            active = [n for n, m in world.machines.items() if m.powered and world.is_active(service.name, n)]
            self._twice.mark(service.name, not service.everywhere and len(active) > 1, now_ms)
            for address in service.addresses:
                seen = [
                    name
                    for name, machine in world.machines.items()
                    if address in world.addresses(name).held and machine.kernel_runs and not world.lan.cut[name]
                ]
                self._owners.mark(address, len(seen) > 1, now_ms)

    def _told(self, world: World, effect: Tell) -> None:
        match effect.fact:
            case PhaseChanged():
                self.changed_at_ms = world.queue.now_ms
                if effect.fact.phase is Phase.ALONE:
                    self._cleared = effect.fact.why
            case ServiceAssigned(service=service, why=why):
                self._why[service] = why
            case ServiceTurned():
                self.changed_at_ms = world.queue.now_ms

    def _now_serving(self, world: World) -> dict[str, tuple[str, ...]]:
        return {
            service.name: tuple(name for name in world.plan.nodes if serves(world, service, name))
            for service in self._plan.services
        }

    # -- in the end --------------------------------------------------------------------

    def course(self, world: World, judge: Judge) -> Course:
        now_ms = world.queue.now_ms
        for name, since_ms in self._out_since.items():
            self._out_ms[name] = self._out_ms.get(name, 0) + now_ms - since_ms
        said = {n: judge.said(n) if m.brain is not None else None for n, m in world.machines.items()}
        phases = {name: word.phase if word is not None else None for name, word in said.items()}
        reports = [
            (service, name, report.state)
            for name, word in said.items()
            if word is not None
            for service, report in word.services.items()
        ]
        still = (*self._twice.since, *self._owners.since)
        return Course(
            before=self._before,
            after=self._serving,
            out_ms={name: ms for name, ms in self._out_ms.items() if self._before.get(name)},
            settled_ms=self._moved_at_ms - self.began_ms,
            twice_ms=self._twice.all(now_ms),
            owners_ms=self._owners.all(now_ms),
            for_good=still,
            blocked=tuple((s, n) for s, n, state in reports if state is ServiceState.BLOCKED),
            given_up=tuple((s, n) for n, word in said.items() if word for s, r in word.services.items() if r.banned),
            waits=tuple(n for n, p in phases.items() if p in (Phase.PEER_LOST, Phase.STARTUP_FENCING)),
            phases=phases,
            shot=tuple(dict.fromkeys(self._shot)),
            why=self._why,
            cleared=self._cleared if Phase.ALONE in phases.values() else None,
            harm=world.harm,
        )


def serves(world: World, service: Service, node: str) -> bool:
    """Would a client be served there: all of it runs, nothing stands still, and the LAN reaches it?"""
    machine, hands = world.machines[node], world.hands(node)
    if not machine.userland_runs or (service.addresses and world.lan.cut[node]):
        return False
    return all(
        resource.address in hands.addresses.held
        if resource.address
        else hands.actions.truth[service.name, resource.id] is Truth.RUNNING
        for resource in service.resources
    )


class _Spans:
    """How long each of several things has been so, all in all."""

    def __init__(self) -> None:
        self.since: dict[str, int] = {}
        self._sum: dict[str, int] = {}

    def mark(self, name: str, is_so: bool, now_ms: int) -> None:
        if is_so:
            self.since.setdefault(name, now_ms)
        elif name in self.since:
            self._sum[name] = self._sum.get(name, 0) + now_ms - self.since.pop(name)

    def all(self, now_ms: int) -> dict[str, int]:
        for name, since_ms in self.since.items():
            self._sum[name] = self._sum.get(name, 0) + now_ms - since_ms
        self.since.clear()
        return self._sum
