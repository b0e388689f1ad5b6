"""Two nodes, their cables and their LAN, on a virtual clock, under faults.

Decides what each fault does to the world, and nothing by itself: everything
random comes from one seed.  Knows what is true; what the nodes believe is
for them to say and for the judge to compare.
"""

import random
from collections.abc import Callable
from typing import Final, Protocol

from hostd.core.effects import AnyEffect, ExitKind
from hostd.core.events import AnyEvent, OperatorAsked
from hostd.core.plan import Plan
from hostd.core.terms import Action, Carrier
from hostd.sim import faults as f
from hostd.sim.addresses import Addresses
from hostd.sim.disk import Disk
from hostd.sim.hands import Hands
from hostd.sim.lan import STRANGER, Lan, station_of
from hostd.sim.links import Medium, Way
from hostd.sim.machine import Brain, Machine
from hostd.sim.queue import Queue
from hostd.sim.senses import Senses

GOOD_DELAY_MS: Final = 40
"""A link slower than this is not counted as working when silence is judged."""

REFRESH_MS: Final = 1_000
"""How often a holder repeats its gratuitous ARP while somebody else holds the address too."""

MakeBrain = Callable[[Plan, str], Brain]


class Observer(Protocol):
    """Who watches the world: the judge, the trace."""

    def stepped(self, world: "World", machine: Machine, event: AnyEvent, effects: list[AnyEffect]) -> None: ...
    def changed(self, world: "World") -> None: ...
    def struck(self, world: "World", fault: f.AnyFault) -> None: ...
    def shot(self, world: "World", node: str) -> None: ...


class World:
    """Everything that is true."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        make_brain: MakeBrain,
        observers: tuple[Observer, ...] = (),
        *,
        on_lan: tuple[str, ...] | None = None,
    ) -> None:
        """``on_lan``: the links that share the fate of the client LAN; None: those whose names say so."""
        self.plan = plan
        self.queue = Queue()
        self.rng = random.Random(f"world {seed}")
        self.lan = Lan(plan)
        self.disk = Disk(plan)
        self.media = [Medium(i, link.name, link.direct, self.queue, self.rng) for i, link in enumerate(plan.links)]
        for medium in self.media if on_lan is not None else ():
            medium.on_lan = medium.name in (on_lan or ())
        self.conduct: dict[tuple[str, str, Action], f.Conduct] = {}
        self.durations = {
            (s.name, action): self.rng.randrange(*span)
            for s in plan.services
            for action, span in ((Action.START, (80, 900)), (Action.STOP, (40, 600)), (Action.MONITOR, (5, 60)))
        }
        self.devices: dict[str, f.Conduct] = dict.fromkeys(plan.nodes, f.Conduct.WELL)
        self.lies: dict[str, bool] = {}
        self.restart_detached = False
        self.good_since_ms: list[int | None] = [0 for _ in self.media]
        self.mute_since_ms: dict[str, int | None] = dict.fromkeys(plan.nodes, 0)
        """Since when nothing that this node says can arrive."""
        self.harm: str = ""
        self._make_brain = make_brain
        self._observers = observers
        self._lives = 0
        self._commands = 0
        self.machines = {name: Machine(self, name, self._hands) for name in plan.nodes}
        self.senses = {name: Senses(plan, self.lan, machine) for name, machine in self.machines.items()}
        first, second = self.machines.values()
        self._other = {first.name: second, second.name: first}
        for medium in self.media:
            medium.ways = {first.name: Way(second), second.name: Way(first)}
        self._overlap: dict[str, bool] = {}

    def _hands(self, machine: Machine) -> Hands:
        return Hands(self, machine)

    # -- what machines ask of the world ------------------------------------------

    def new_brain(self, node: str) -> Brain:
        self.queue.after(1, self.senses[node].begin)
        return self._make_brain(self.plan, node)

    def draw_nonce(self) -> int:
        return self.rng.randrange(1, 1 << 30)

    def next_life(self) -> int:
        self._lives += 1
        return self._lives

    def other(self, machine: Machine) -> Machine:
        return self._other[machine.name]

    def hands(self, node: str) -> Hands:
        hands = self.machines[node].hands
        assert isinstance(hands, Hands)
        return hands

    def addresses(self, node: str) -> Addresses:
        return self.hands(node).addresses

    def is_active(self, service: str, node: str) -> bool:
        """Some process of this service exists there."""
        return self.hands(node).actions.is_active(service)

    def carrier(self, node: str, medium: Medium) -> Carrier:
        """A cable without anything in between, or modem lines, show the peer's power."""
        if medium.on_lan:
            return Carrier.DOWN if self.lan.cut[node] else Carrier.UP
        if not medium.direct and not self.plan.links[medium.index].modem_lines:
            return Carrier.UNKNOWN
        torn = all(way.cut for way in medium.ways.values())
        return Carrier.UP if self._other[node].powered and not torn else Carrier.DOWN

    def answers(self, asker: str, address: str) -> str | None:
        """The station that answers when ``asker`` asks the LAN for this address."""
        other = self._other[asker]
        if self.lan.passes() and other.kernel_runs and address in self.addresses(other.name).held:
            return station_of(other.name)
        if address in self.lan.strangers and not self.lan.is_off(asker):
            return STRANGER
        return None

    def shoot(self, node: str) -> None:
        for observer in self._observers:
            observer.shot(self, node)
        self.machines[node].power_off()

    def lied(self, service: str) -> None:
        """From now on nobody can be blamed for this service."""
        self.lies[service] = True

    def exited(self, machine: Machine, kind: ExitKind) -> None:
        if kind is ExitKind.DETACHED and self.restart_detached:
            limit_ms = self.plan.restart_limit_ms
            machine.later(self.rng.randrange(300, limit_ms * 5 // 4), machine.start_host)

    def power_changed(self) -> None:
        for machine in self.machines.values():
            machine.later(1, machine.tell_carriers)
        self._weigh_links()

    # -- observing ------------------------------------------------------------------

    def stepped(self, machine: Machine, event: AnyEvent, effects: list[AnyEffect]) -> None:
        for observer in self._observers:
            observer.stepped(self, machine, event, effects)

    def touched(self) -> None:
        """Something that is true has changed."""
        for address in self.plan_addresses():
            both = self.held_by_both(address)
            if both and address not in self._overlap:
                self._overlap[address] = True
                self.queue.after(REFRESH_MS, self._refresh, address)
        for observer in self._observers:
            observer.changed(self)

    def plan_addresses(self) -> tuple[str, ...]:
        return tuple(a for s in self.plan.services for a in s.addresses)

    def held_by_both(self, address: str) -> bool:
        return all(m.powered and address in self.addresses(m.name).held for m in self.machines.values())

    def _refresh(self, address: str) -> None:
        """Holders repeat their gratuitous ARP; each sees the other's, if ARP passes."""
        del self._overlap[address]
        if not self.held_by_both(address):
            return
        self._overlap[address] = True
        self.queue.after(REFRESH_MS, self._refresh, address)
        if self.lan.passes() and all(m.userland_runs for m in self.machines.values()):
            for machine in self.machines.values():
                self.addresses(machine.name).claimed(address, station_of(self._other[machine.name].name))

    def works_since_ms(self) -> int | None:
        """Since when the link that has worked longest, both ways and without loss, works."""
        times = [since_ms for since_ms in self.good_since_ms if since_ms is not None]
        return min(times) if times else None

    # -- faults -----------------------------------------------------------------------

    def schedule(self, schedule: f.Schedule) -> None:
        for at_ms, fault in schedule:
            self.queue.at(at_ms, self.strike, fault)

    def run_until(self, at_ms: int) -> None:
        """Run on; ends early if an observer found harm."""
        self.queue.run_until(at_ms, self._is_harmed)

    def _is_harmed(self) -> bool:
        return bool(self.harm)

    def strike(self, fault: f.AnyFault) -> None:
        """Let one fault happen now.  One that cannot (no such power, link or life) does nothing."""
        for observer in self._observers:
            observer.struck(self, fault)
        self._strike_machine(fault)
        self._strike_cable(fault)
        self._strike_service(fault)
        self._weigh_links()
        for machine in self.machines.values():
            machine.tell_carriers()
            self.senses[machine.name].look()
        self.touched()

    def _strike_machine(self, fault: f.AnyFault) -> None:
        match fault:
            case f.PowerOff(node):
                self.machines[node].power_off()
            case f.PowerOn(node):
                self.machines[node].power_on()
            case f.KillBrain(node, back_ms):
                self.machines[node].kill_brain(back_ms)
            case f.KillHeart(node, back_ms):
                self.machines[node].kill_heart(back_ms)
            case f.KillHost(node) if self.machines[node].kernel_runs:
                self.machines[node].kill_host()
            case f.StartHost(node):
                self.machines[node].start_host()
            case f.Pause(node, stop, for_ms):
                self.machines[node].pause(stop, for_ms)
            case f.Disk(node, well):
                self.machines[node].disk_well = well
            case f.Ask(node):
                self._ask(self.machines[node], fault)

    def _ask(self, machine: Machine, ask: f.Ask) -> None:
        if ask.command == "confirm-down" and ask.subject in self.machines and self.machines[ask.subject].powered:
            return  # our operator looks before he types
        self._commands += 1
        machine.to_brain(OperatorAsked(self._commands, f.command(ask)))

    def _medium(self, name: str) -> Medium:
        return next(m for m in self.media if m.name == name)

    def _strike_cable(self, fault: f.AnyFault) -> None:
        match fault:
            case f.Cut(link, sender):
                for name, way in self._medium(link).ways.items():
                    way.cut = way.cut or sender in ("", name)
            case f.Mend(link):
                for medium in self.media:
                    if link in ("", medium.name):
                        medium.mend()
                if not link:
                    self.lan.blocked = False
            case f.Weather(link, loss, copies, delay_ms, jitter_ms):
                medium = self._medium(link)
                medium.loss, medium.copies = loss, copies
                medium.delay_ms, medium.jitter_ms = delay_ms, jitter_ms
            case f.Hold(link, sender):
                medium = self._medium(link)
                medium.hold(medium.ways[sender])
            case f.Release(link, sender):
                medium = self._medium(link)
                medium.release(medium.ways[sender])
            case f.Replay(link, sender, back):
                self._medium(link).replay(sender, back)
            case f.LanCut(node):
                self.lan.cut[node] = True
                self.addresses(node).unplugged()
                self.senses[node].look()
            case f.LanDeaf(node):
                self.lan.deaf[node] = True
                self.senses[node].look()
            case f.LanMend(node):
                self.lan.cut[node] = self.lan.deaf[node] = False
                self.senses[node].look()
            case f.PingLost(node):
                self.lan.no_tiebreaker[node] = True
                self.senses[node].look()
            case f.PingBack(node):
                self.lan.no_tiebreaker[node] = False
                self.senses[node].look()
            case f.ArpBlock():
                self.lan.blocked = True
            case f.ArpPass():
                self.lan.blocked = False

    def _strike_service(self, fault: f.AnyFault) -> None:
        match fault:
            case f.Stranger(address, True):
                self.lan.strangers[address] = True
                for node in self.machines:
                    if not self.lan.is_off(node):
                        self.addresses(node).claimed(address, STRANGER)
            case f.Stranger(address, False):
                self.lan.strangers.pop(address, None)
            case f.Unaddress(node, address):
                self.addresses(node).drop(address)
            case f.Starts(service, node, conduct):
                self.conduct[service, node, Action.START] = conduct
            case f.Stops(service, node, conduct):
                self.conduct[service, node, Action.STOP] = conduct
            case f.Dies(service, node, noticed, orphans):
                self.hands(node).actions.dies(service, noticed, orphans)
            case f.Fencing(node, conduct):
                self.devices[node] = conduct

    def _weigh_links(self) -> None:
        for i, medium in enumerate(self.media):
            lan_cut = medium.on_lan and any(map(self.lan.is_off, self.machines))
            whole = all(not way.cut and way.held is None for way in medium.ways.values())
            calm = not medium.loss and medium.delay_ms + medium.jitter_ms <= GOOD_DELAY_MS
            for way in medium.ways.values():
                way.lan_cut = lan_cut
            if not (whole and calm and not lan_cut):
                self.good_since_ms[i] = None
            elif self.good_since_ms[i] is None:
                self.good_since_ms[i] = self.queue.now_ms

        for node, machine in self.machines.items():
            ways = [medium.ways[node] for medium in self.media]
            if machine.powered and not all(way.cut or way.lan_cut for way in ways):
                self.mute_since_ms[node] = None
            elif self.mute_since_ms[node] is None:
                self.mute_since_ms[node] = self.queue.now_ms

    def heal(self, for_good: str = "") -> None:
        """The end of all faults: everything repaired and switched on, but for
        the node that is ``for_good`` (and switched off instead)."""
        for medium in self.media:
            medium.mend()
        self.lan.mend()
        self.conduct.clear()
        for node, machine in self.machines.items():
            self.devices[node] = f.Conduct.WELL
            machine.disk_well = True
            if node == for_good:
                machine.power_off()
            else:
                machine.power_on()
                machine.start_host()
        self._weigh_links()
        for machine in self.machines.values():
            machine.tell_carriers()
        self.touched()
