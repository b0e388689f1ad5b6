"""Is anything wrong?  Judges the invariants of PROTOCOL.md section 4.

From: what is true in the world, and the effects of each step.  It never
believes a report where the truth can be seen, and it trusts nothing of the
core but its door.  What is allowed is written at each rule; whatever is not
allowed is harm, and the first harm ends the run.
"""

from typing import Final

from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnswerOperator,
    AnyEffect,
    Exit,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewAddress,
    RunAction,
)
from hostd.core.events import AnyEvent, FenceNode, FrameReceived, OperatorAsked
from hostd.core.snapshot import Assignment, Snapshot
from hostd.core.terms import Action, Epoch, Incarnation, Mode, Phase, ServiceState
from hostd.sim.faults import AnyFault
from hostd.sim.machine import Machine
from hostd.sim.world import REFRESH_MS, World

PAUSE_GRACE_MS: Final = 50
"""PROTOCOL.md section 4: one keepalive and this, after a pause that no clock shows."""

HEAL_GRACE_BEATS: Final = 3
"""Two owners after the heal of a split in which not even ARP passed: 300 ms at the default keepalive."""

FENCE_ASKED_MS: Final = 30_000
"""An operator's wish to shoot is tried for so long: the devices' limit, and some."""

HEARING_MARGIN_MS: Final = 2_000
"""The slowest weather, and a few keepalives."""


class Judge:
    """An observer of one world."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, Epoch], tuple[Incarnation, Assignment]] = {}
        """What each epoch said, and the life of the coordinator who gave it out."""
        self._views: dict[int, str] = {}
        self._seen: dict[str, Snapshot] = {}
        self._requests: dict[tuple[str, str, int], int] = {}
        """The brain's life in which each number was used last."""
        self._commands: dict[int, int] = {}
        self._heard_at_ms: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._active: dict[str, tuple[str, ...]] = {}
        self._both_hold: dict[str, bool] = {}
        self._owners: dict[str, int] = {}
        """Addresses with two owners now, and since when."""
        self._away_until_ms: dict[str, int] = {}
        self._fence_asked_at_ms: dict[str, int] = {}
        self._deaf_at_clearance: dict[str, bool] = {}
        """Whether a node's LAN was dead when it went ALONE; what it starts later is kept apart by its address alone."""
        self.overlap_ms_max = 0
        self.given_up: dict[str, bool] = {}
        """Services that were banned somewhere: failback does not undo that by itself."""

    # -- every change of the truth (invariant 1) ------------------------------------

    def struck(self, world: World, fault: AnyFault) -> None:
        pass

    def shot(self, world: World, node: str) -> None:
        """A shot that was called off must not fall on a peer that is back."""
        other = world.other(world.machines[node])
        self._judge_cause(world, other, "shoots its peer")

    def changed(self, world: World) -> None:
        """Something true has changed: may it?"""
        for service in world.plan.services:
            if not service.everywhere and service.name not in world.lies:
                self._judge_service(world, service.name)
                if any(name in world.disk.registrars for name in service.requires):
                    self._judge_data(world, service.name)
            for address in service.addresses:
                self._judge_address(world, address)

    def _judge_service(self, world: World, service: str) -> None:
        """An exclusive service is never starting, running or stopping on two powered nodes.

        With fencing, never.  Without, processes that a guard cannot see may
        be left on a node that was truly silent to the starter (no frame of a
        living brain for ``warntime``), as long as the starter's own interface
        lives, and none of whose addresses for it answered (unless it holds that address too: a split in which not even
        ARP passed); then both run until they hear each other.
        """
        active = tuple(n for n, m in world.machines.items() if m.powered and world.is_active(service, n))
        before, self._active[service] = self._active.get(service, ()), active
        if len(active) < 2 or before == active:
            return
        starters = [n for n in active if n not in before]
        if world.plan.fencing or len(starters) != 1:
            self._harm(world, f"1: {service} is active on both nodes")
            return
        starter = starters[0]
        silence_ms = world.queue.now_ms - self._heard_at_ms.get(starter, -1 << 40)
        if silence_ms < world.plan.timers.warntime_ms:
            self._harm(world, f"1: {starter} starts {service}, active on the other node, heard {silence_ms} ms ago")
        if world.plan_addresses() and world.lan.is_off(starter) and self._deaf_at_clearance.get(starter, True):
            self._harm(world, f"1: {starter} starts {service}, active on the other node, with a dead interface")
        wished = world.plan.service(service)
        if not wished.addresses and (wished.without_fencing or self._is_unprovable(world, world.machines[starter])):
            return  # the first by the operator's own word
        for address in world.plan_addresses():
            mine = address in world.addresses(starter).held
            if not mine and world.answers(starter, address) is not None:
                self._harm(world, f"1: {starter} starts {service}, active on the other node, and {address} answers")

    def _judge_data(self, world: World, service: str) -> None:
        """What is on a disk that lets go of a node is never written by two,
        whatever the clocks and cables did (PROTOCOL.md section 5.2)."""
        writers = [n for n, m in world.machines.items() if m.powered and world.is_active(service, n)]
        lied = any(name in world.lies for name in world.disk.registrars)
        if len(writers) > 1 and all(world.disk.keys[n] for n in writers) and not lied:
            self._harm(world, f"1: both nodes write to the disk of {service}")

    def _is_unprovable(self, world: World, starter: Machine) -> bool:
        """A service without an address, and without fencing: nothing but the
        silence of other addresses speaks for it (PROTOCOL.md 5.4).  Two things
        that no silence excludes: the other node has just come back from a
        pause; an order was under way when its coordinator gave the starter up.
        """
        other = world.other(starter)
        now_ms, timers = world.queue.now_ms, world.plan.timers
        if other.well_since_ms is None or now_ms - other.well_since_ms < timers.deadtime_ms + HEARING_MARGIN_MS:
            return True
        mine, theirs = self._seen.get(starter.name), self._seen.get(other.name)
        by_order = mine is not None and mine.phase is Phase.MEMBER
        return by_order and theirs is not None and theirs.phase is Phase.ALONE

    def _judge_address(self, world: World, address: str) -> None:
        """An address is never held by two powered nodes while ARP passes between them.

        A node whose kernel stands still holds nothing.  Two owners are
        allowed if both held it while ARP did not pass or one stood still,
        until it could be noticed and for a grace after that (``_overdue``).
        """
        both = world.held_by_both(address)
        effective = both and world.lan.passes() and all(m.kernel_runs for m in world.machines.values())
        held_before, self._both_hold[address] = self._both_hold.get(address, False), both
        since_ms = self._owners.get(address)
        if not effective:
            if since_ms is not None:
                self.overlap_ms_max = max(self.overlap_ms_max, world.queue.now_ms - since_ms)
                del self._owners[address]
        elif since_ms is None:
            self._owners[address] = world.queue.now_ms
            if not held_before:
                self._harm(world, f"1: {address} was added on a second node while ARP passes")
            world.queue.after(20, self._overdue, world, address, world.queue.now_ms)

    def _overdue(self, world: World, address: str, since_ms: int) -> None:
        """How long two owners may last once ARP passes again.

        Both brains awake and a link working both ways: ``HEAL_GRACE_BEATS``.
        No link: until the next gratuitous ARP, three keepalives (a frame
        might come) and ``PAUSE_GRACE_MS``.  A brain that is away cannot drop anything: its
        lease does it.
        """
        if self._owners.get(address) != since_ms:
            return
        timers, now_ms = world.plan.timers, world.queue.now_ms
        from_ms = since_ms
        works_since_ms = world.works_since_ms()
        grace_ms = HEAL_GRACE_BEATS * timers.keepalive_ms
        if works_since_ms is None:
            grace_ms = REFRESH_MS + 3 * timers.keepalive_ms + PAUSE_GRACE_MS
        else:
            from_ms = max(from_ms, works_since_ms)
        limit_ms = world.plan.address_lease_ms + world.plan.restart_limit_ms + timers.deadtime_ms
        for machine in world.machines.values():
            if machine.well_since_ms is None:
                from_ms, grace_ms = since_ms, max(grace_ms, limit_ms)
            else:
                from_ms = max(from_ms, machine.well_since_ms)
        if now_ms - from_ms > grace_ms:
            self._harm(world, f"1: {address} has two owners for {now_ms - since_ms} ms")
            return
        world.queue.after(20, self._overdue, world, address, since_ms)

    # -- every step of a core ----------------------------------------------------------

    def stepped(self, world: World, machine: Machine, event: AnyEvent, effects: list[AnyEffect]) -> None:
        name = machine.name
        self._judge_hearing(world, machine)
        if type(event) is FrameReceived:
            if not event.brain_gone and event.echo_sent_at_ms is not None:
                ago_ms = machine.clock_ms() - event.echo_sent_at_ms
                self._heard_at_ms[name] = max(self._heard_at_ms.get(name, 0), world.queue.now_ms - ago_ms)
        elif type(event) is OperatorAsked:
            self._commands[event.command_id] = 0
            if isinstance(event.command, FenceNode):
                self._fence_asked_at_ms[name] = world.queue.now_ms
        if self._ended.get(name) == machine.brain_life and effects:
            self._harm(world, f"{name} acts after Exit: {effects[0]!r}")
        if not effects:
            return
        for effect in effects:
            if type(effect) is Publish:
                self._judge_snapshot(world, machine, effect.snapshot)
        for effect in effects:
            match effect:
                case RunAction(action=Action.START, service=service):
                    self._judge_right(world, machine, service, effect)
                case AddAddress(service=service):
                    self._judge_right(world, machine, service, effect)
                case FencePeer():
                    self._judge_cause(world, machine, "fences its peer")
                case AnswerOperator(command_id=command_id):
                    self._commands[command_id] = self._commands.get(command_id, 1) + 1
                    if self._commands[command_id] != 1:
                        self._harm(world, f"{name} answers command {command_id} twice or unasked")
                case Exit():
                    self._ended[name] = machine.brain_life
            self._judge_request(world, machine, effect)

    def _judge_hearing(self, world: World, machine: Machine) -> None:
        """Section 1: a peer that is off, or that hears nothing of us, is silent:
        nobody stays a confirmed member with it, whatever frames still arrive.

        Exception: a peer that only restarts has said how long it is away.
        """
        mine = self._seen.get(machine.name)
        if mine is None or mine.phase is not Phase.MEMBER or not mine.confirmed:
            return
        other = world.other(machine)
        times = (world.mute_since_ms[machine.name], world.mute_since_ms[other.name])
        mute_ms = max((world.queue.now_ms - t for t in times if t is not None), default=0)
        if mute_ms < HEARING_MARGIN_MS or machine.well_since_ms is None:
            return
        limit_ms = world.plan.timers.deadtime_ms + HEARING_MARGIN_MS
        if world.queue.now_ms < self._away_until_ms.get(other.name, 0):
            return
        # The first frames of a new life cannot echo anybody yet: silence counts from them.
        its_life_ms = mute_ms if other.well_since_ms is None else world.queue.now_ms - other.well_since_ms
        if min(mute_ms, its_life_ms, world.queue.now_ms - machine.well_since_ms) > limit_ms:
            self._harm(world, f"2: {machine.name} is still a member {mute_ms} ms after the lines fell silent")

    def _judge_request(self, world: World, machine: Machine, effect: AnyEffect) -> None:
        """Every request of one brain has a number of its own."""
        match effect:
            case RunAction(action_id=number):
                key = (machine.name, "action", number)
            case AddAddress() | RemoveAddress() | RenewAddress() | AnnounceAddress() | ProbeAddresses() | FencePeer():
                key = (machine.name, "request", effect.request_id)
            case _:
                return
        if self._requests.get(key) == machine.brain_life:
            self._harm(world, f"{machine.name} uses a number twice: {effect!r}")
        self._requests[key] = machine.brain_life

    def _judge_right(self, world: World, machine: Machine, service: str, effect: AnyEffect) -> None:
        """Invariant 2: a service starts only under an assignment of the node's
        current confirmed view, or ALONE (then under its own)."""
        mine = self._seen.get(machine.name)
        what = f"2: {machine.name} does {type(effect).__name__} for {service}"
        if mine is None or mine.incarnation != machine.incarnation:
            self._harm(world, f"{what} before it has said anything")
            return
        if not (mine.phase is Phase.ALONE or (mine.phase is Phase.MEMBER and mine.confirmed)):
            self._harm(world, f"{what} in {mine.phase.name}")
            return
        if mine.coordinator == machine.name:
            assignment = mine.assignments.get(service)
        else:
            report = mine.services.get(service)
            given = self._epochs.get((service, report.obeyed)) if report else None
            assignment = given[1] if given else None
        if assignment is None or machine.name not in assignment.owners:
            self._harm(world, f"{what} without an assignment to it")
        elif assignment.epoch.view != mine.view:
            self._harm(world, f"{what} under epoch {tuple(assignment.epoch)} in view {mine.view}")

    def _judge_snapshot(self, world: World, machine: Machine, new: Snapshot) -> None:
        """Invariants 3, 4 and 6, from what a node says of itself."""
        old = self._seen.get(machine.name)
        self._seen[machine.name] = new
        if new.phase is not Phase.ALONE:
            self._deaf_at_clearance.pop(machine.name, None)
        else:
            self._deaf_at_clearance.setdefault(machine.name, world.lan.is_off(machine.name))
        if old is not None:
            if (new.incarnation, new.version) <= (old.incarnation, old.version):
                self._harm(world, f"4: {machine.name} speaks for an older life or version")
            if new.incarnation == old.incarnation:
                self._judge_obedience(world, machine.name, old, new)
        if new.phase is Phase.ALONE or (new.phase is Phase.MEMBER and new.confirmed):
            coordinator = self._views.setdefault(new.view, new.coordinator)
            if coordinator != new.coordinator:
                self._harm(world, f"3: view {new.view} has two coordinators")
        for service, assignment in new.assignments.items():
            giver, known = self._epochs.get((service, assignment.epoch), (None, assignment))
            if known != assignment and giver == new.incarnation:
                self._harm(world, f"3: {service} epoch {tuple(assignment.epoch)} was given out twice")
            self._epochs[service, assignment.epoch] = new.incarnation, assignment
        if new.mode is Mode.RESTARTING:
            away_ms = max(new.away_ms, world.plan.timers.deadtime_ms)
            self._away_until_ms[machine.name] = world.queue.now_ms + away_ms + 2 * HEARING_MARGIN_MS
        seeks = new.phase in (Phase.PEER_LOST, Phase.STARTUP_FENCING)
        if seeks and (old is None or old.phase is not new.phase):
            self._judge_cause(world, machine, f"goes to {new.phase.name}")

    def _judge_obedience(self, world: World, node: str, old: Snapshot, new: Snapshot) -> None:
        """Invariant 3: epochs obeyed never decrease within an incarnation."""
        for service, report in new.services.items():
            if report.banned:
                self.given_up[service] = True
            before = old.services.get(service)
            if before is not None and report.obeyed < before.obeyed:
                self._harm(world, f"3: {node} obeys an older epoch for {service}")

    def _judge_cause(self, world: World, machine: Machine, what: str) -> None:
        """Invariant 6: as long as one link works in both directions and both
        daemons run, nobody is declared dead.

        Exceptions: with fencing, a node whose stop failed is shot on purpose,
        and so is one that the operator wants shot.
        """
        timers = world.plan.timers
        other = world.other(machine)
        if world.queue.now_ms - self._fence_asked_at_ms.get(machine.name, -1 << 40) < FENCE_ASKED_MS:
            return
        theirs = self._seen.get(other.name)
        if theirs is not None and any(r.state is ServiceState.BLOCKED for r in theirs.services.values()):
            return
        margin_ms = timers.deadtime_ms + 3 * timers.keepalive_ms
        times = (world.works_since_ms(), machine.well_since_ms, other.well_since_ms)
        if all(t is not None and world.queue.now_ms - t > margin_ms for t in times):
            self._harm(world, f"6: {machine.name} {what} though both daemons and a link work")

    def _harm(self, world: World, text: str) -> None:
        if not world.harm:
            world.harm = text

    # -- the end -----------------------------------------------------------------------

    def unanswered(self) -> int:
        """Commands without an answer (their brain may have died first)."""
        return sum(1 for count in self._commands.values() if count == 0)

    def said(self, node: str) -> Snapshot | None:
        return self._seen.get(node)
