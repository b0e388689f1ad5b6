"""One simulated node: its power, and the three processes of hostd.

Decides what runs on it: which of host, heart and brain live, when the brain
is stepped, which events wait while it is paused.  Knows nothing of how its
clocks go (``clocks.py``), nor of what an effect does (``hands.py``) or means.
"""

from collections.abc import Callable
from typing import Protocol

from hostd.core.effects import AnyEffect, Exit, Publish
from hostd.core.events import (
    AnyEvent,
    HeartLost,
    HeartReturned,
    IncarnationRenewed,
    LinkChanged,
    SnapshotReceived,
    Started,
    TimerFired,
)
from hostd.core.plan import Plan
from hostd.core.snapshot import Snapshot, Wish
from hostd.core.terms import Carrier, Incarnation
from hostd.sim.clocks import Clocks
from hostd.sim.faults import Stop
from hostd.sim.heart import Heart
from hostd.sim.lan import station_of
from hostd.sim.links import Frame, Medium
from hostd.sim.queue import Queue

BUFFER_MAX = 64
"""Frames that a socket holds for a heart that does not read; later ones are lost."""


class Brain(Protocol):
    """The decision core, as the simulator meets it."""

    def step(self, now_ms: int, event: AnyEvent) -> list[AnyEffect]: ...
    def deadline(self) -> int | None: ...


class Surroundings(Protocol):
    """What a machine needs of the world."""

    plan: Plan
    queue: Queue
    media: list[Medium]

    def new_brain(self, node: str) -> Brain: ...
    def draw_nonce(self) -> int: ...
    def next_life(self) -> int: ...
    def carrier(self, node: str, medium: Medium) -> Carrier: ...
    def stepped(self, machine: "Machine", event: AnyEvent, effects: list[AnyEffect]) -> None: ...
    def touched(self) -> None: ...
    def power_changed(self) -> None: ...


class Body(Protocol):
    """The hands of a machine: what effects do, and what is true of its services."""

    def perform(self, effect: AnyEffect) -> None: ...
    def power_lost(self) -> None: ...
    def host_lost(self) -> None: ...
    def begin_host(self) -> tuple[str, ...]: ...
    def present(self) -> tuple[str, ...]: ...
    def kernel_resumed(self) -> None: ...


class Machine(Clocks):
    """One node of the world."""

    __slots__ = (
        "_buffered", "_inbox", "_timer_at_ms", "_told_carrier", "boots", "brain", "brain_life", "disk_well", "exited",
        "hands", "heart", "heart_life", "host_life", "incarnation", "name", "plan", "published", "saved",
        "well_since_ms", "world",
    )  # fmt: skip

    def __init__(self, world: Surroundings, name: str, hands: Callable[["Machine"], Body]) -> None:
        super().__init__(world.queue)
        self.world = world
        self.plan = world.plan
        self.name = name
        self.host_life = 0  # odd while a host lives
        self.brain_life = 0
        self.heart_life = 0
        self.brain: Brain | None = None
        self.heart: Heart | None = None
        self.incarnation: Incarnation | None = None
        self.published: Snapshot | None = None
        self.exited = False
        self.boots = 0  # on the disk
        self.saved: tuple[Wish, ...] = ()  # on the disk
        self.disk_well = True
        self.well_since_ms: int | None = None
        self._inbox: list[AnyEvent] = []
        self._buffered: list[list[Frame]] = [[] for _ in world.media]
        self._timer_at_ms: int | None = None
        self._told_carrier: dict[str, Carrier] = {}
        self.hands = hands(self)

    # -- power --------------------------------------------------------------------

    def power_on(self) -> None:
        if self.powered:
            return
        self._boot()
        self.exited = False
        self.world.power_changed()
        self.later(50, self.start_host)

    def power_off(self) -> None:
        """Everything in memory is gone: services, addresses, processes."""
        if not self.powered:
            return
        self.kill_host()
        self._die()
        self.hands.power_lost()
        self.world.power_changed()
        self.world.touched()

    # -- the three processes ------------------------------------------------------

    @property
    def host_runs(self) -> bool:
        return self.host_life % 2 == 1

    def start_host(self) -> None:
        if not self.userland_runs or self.host_runs:
            return
        self.host_life += 1
        self.exited = False
        self._start_heart()
        self._start_brain(self.hands.begin_host())

    def kill_host(self) -> None:
        """Heart and brain die with it; services and their actions do not."""
        if not self.host_runs:
            return
        self.host_life += 1
        self._brain_lost()
        self._heart_lost()
        self.hands.host_lost()
        self.world.touched()

    def kill_brain(self, back_ms: int) -> None:
        """The host kills what is left of its actions and forks a new one."""
        if self.brain is None or not self.userland_runs:
            return
        self._brain_lost()
        self.hands.host_lost()
        unfinished = self.hands.begin_host()
        if self.heart is not None:
            self.heart.brain_gone()
        self.later(back_ms, self._fork_brain, self.host_life, unfinished)
        self.world.touched()

    def kill_heart(self, back_ms: int) -> None:
        if self.heart is None or not self.userland_runs:
            return
        self._heart_lost()
        self.to_brain(HeartLost())
        self.later(back_ms, self._fork_heart, self.host_life)

    def _fork_brain(self, host_life: int, unfinished: tuple[str, ...]) -> None:
        if host_life == self.host_life and self.brain is None:
            self._start_brain(unfinished)

    def _fork_heart(self, host_life: int) -> None:
        if host_life == self.host_life and self.heart is None:
            self._start_heart()
            self._greet()

    def _brain_lost(self) -> None:
        self.brain = None
        self.brain_life += 1
        self.well_since_ms = None
        self._inbox.clear()
        self._timer_at_ms = None
        if self.stop is Stop.BRAIN:
            self.stop = None

    def _heart_lost(self) -> None:
        self.heart = None
        self.heart_life += 1
        self.well_since_ms = None
        for frames in self._buffered:
            frames.clear()

    def _start_heart(self) -> None:
        self.heart_life += 1
        self.heart = Heart(self, self.plan, self.world.media, self.world.next_life)
        self._tick(self.heart_life)

    def _start_brain(self, unfinished: tuple[str, ...]) -> None:
        self.brain_life += 1
        self.boots += 1
        self.published = None
        self.incarnation = Incarnation(self.boots, self.world.draw_nonce())
        self.brain = self.world.new_brain(self.name)
        self._timer_at_ms = None
        self.to_brain(
            Started(
                incarnation=self.incarnation,
                wishes=self.saved,
                unfinished=unfinished,
                stations=(station_of(self.name),),
                release="sim",
                present=self.hands.present(),
            )
        )
        if self.heart is not None:
            self._greet()

    def _greet(self) -> None:
        """Heart and brain meet: one of them is new."""
        heart = self.heart
        assert heart is not None
        if self.brain is None or self.incarnation is None:
            return
        self.well_since_ms = self.queue.now_ms if self.stop is None else None
        heart.identify(self.incarnation)
        self.to_brain(HeartReturned())
        self._told_carrier.clear()
        self.tell_carriers()
        last = heart.last_snapshot()
        if last is not None:
            self.to_brain(SnapshotReceived(last))
        if self.published is not None:
            heart.carry(self.published)

    def tell_carriers(self) -> None:
        """What the hardware says of the links, where it says something new."""
        if self.heart is None or self.brain is None or not self.userland_runs:
            return
        for medium in self.world.media:
            carrier = self.world.carrier(self.name, medium)
            if self._told_carrier.get(medium.name) is not carrier:
                self._told_carrier[medium.name] = carrier
                self.to_brain(LinkChanged(medium.name, self.clock_ms(), True, carrier))

    # -- heartbeats ------------------------------------------------------------------

    def _tick(self, life: int) -> None:
        heart = self.heart
        if heart is None or life != self.heart_life:
            return
        heart.beat()
        self.later(self.plan.timers.keepalive_ms, self._tick, life)

    def brain_renews_until_ms(self) -> int:
        """Until when the heart may beat: the brain renews it every half warntime."""
        if self.brain is None:
            return 0
        warntime_ms = self.plan.timers.warntime_ms
        if self.stop is Stop.BRAIN:
            return self.stopped_at_ms - self._zero_at_ms + warntime_ms * 3 // 4
        return self.clock_ms() + warntime_ms

    def arrive(self, link: int, frame: Frame) -> None:
        """A frame reaches this node's interface."""
        heart = self.heart
        if heart is None or not self.kernel_runs:
            return
        if self.userland_runs:
            heart.hear(link, frame)
        elif len(self._buffered[link]) < BUFFER_MAX:
            self._buffered[link].append(frame)

    # -- the brain ---------------------------------------------------------------------

    def to_brain(self, event: AnyEvent) -> None:
        """Step the core, or keep the event until it is awake again."""
        if self.brain is None:
            return
        if self.stop is not None:
            self._inbox.append(event)
            return
        self._perform(self._step(event))

    def _step(self, event: AnyEvent) -> list[AnyEffect]:
        brain = self.brain
        assert brain is not None
        if type(event) is IncarnationRenewed:
            self.incarnation = event.incarnation
            if self.heart is not None:
                self.heart.identify(event.incarnation)
        effects = brain.step(self.clock_ms(), event)
        for effect in effects:
            if type(effect) is Publish:
                self.published = effect.snapshot
        self.world.stepped(self, event, effects)
        return effects

    def _perform(self, effects: list[AnyEffect]) -> None:
        life = self.brain_life
        for effect in effects:
            if life == self.brain_life:
                self.hands.perform(effect)
        if life == self.brain_life:
            self._arm()

    def _arm(self) -> None:
        """Step again at the core's deadline, and at least once a keepalive."""
        brain = self.brain
        assert brain is not None
        due_at_ms = self.queue.now_ms + self.plan.timers.keepalive_ms
        deadline_at_ms = brain.deadline()
        if deadline_at_ms is not None:
            due_at_ms = min(due_at_ms, max(deadline_at_ms + self._zero_at_ms, self.queue.now_ms + 1))
        armed = self._timer_at_ms
        if armed is None or armed <= self.queue.now_ms or due_at_ms < armed:
            self._timer_at_ms = due_at_ms
            self.queue.at(due_at_ms, self._timer, self.brain_life, due_at_ms)

    def _timer(self, life: int, due_at_ms: int) -> None:
        if life != self.brain_life or due_at_ms != self._timer_at_ms or self.stop is not None:
            return
        self._timer_at_ms = None
        self.to_brain(TimerFired())

    def answer(self, delay_ms: int, event: AnyEvent) -> None:
        """An outcome, for the brain that asked."""
        self.later(delay_ms, self.tell, self.brain_life, event)

    def tell(self, brain_life: int, event: AnyEvent) -> None:
        """An event for this life of the brain and no other."""
        if brain_life == self.brain_life:
            self.to_brain(event)

    # -- pauses --------------------------------------------------------------------------

    def pause(self, stop: Stop, for_ms: int) -> None:
        if not self.powered or self.stop is not None or (stop is Stop.BRAIN and self.brain is None):
            return
        self.well_since_ms = None
        self._stand_still(stop, for_ms, self._resume)
        self.world.touched()

    def _resume(self, life: int, pause: int) -> None:
        stop = self._is_over(life, pause)
        if stop is not None:
            self._wake(stop)
            self.world.touched()

    def _wake(self, stop: Stop) -> None:
        """All input first, then the brain's steps on it, then what they ask for."""
        if stop is not Stop.BRAIN:
            self.stop = Stop.BRAIN  # processes run; what they say to the brain is read in order
            self.hands.kernel_resumed()
            self._go_on()
            heart = self.heart
            for link, frames in enumerate(self._buffered):
                for frame in frames:
                    if heart is not None:
                        heart.hear(link, frame)
                frames.clear()
        self.stop = None
        if self.brain is None:
            return
        self.well_since_ms = self.queue.now_ms if self.heart is not None else None
        inbox, self._inbox = self._inbox, []
        effects: list[AnyEffect] = []
        for event in [*inbox, TimerFired()]:
            effects += self._step(event)
            if effects and type(effects[-1]) is Exit:
                break  # the daemon is at its end and reads no more
        self._timer_at_ms = None
        self._perform(effects)
        self.tell_carriers()
