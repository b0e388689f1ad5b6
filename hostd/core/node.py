"""The only place where the machines meet: one node's core.

Two doors: :meth:`Node.step` takes the time and one event and returns effects;
:meth:`Node.deadline` says when to come back if nothing happens.  Everything
is settled anew after each event, from the outside in: who is heard (``peers``)
→ who is a member (``pair``, ``fencing``) → who should run what
(``placement``, ``assignments``) → how it gets there (``services``, ``leases``)
→ what we say of ourselves (the snapshot).

Decides nothing itself but the order of a service here (:meth:`Node._want`)
and what an own pause or another's claim to an address means.
"""

from typing import Final, assert_never

import msgspec

from hostd.core import situation
from hostd.core.assignments import Assignments, Members
from hostd.core.commands import Scene, judge
from hostd.core.effects import (
    AddressChecked,
    AddressDisputed,
    AnswerOperator,
    AnyEffect,
    Exit,
    ExitKind,
    LinkDirection,
    LinkOpened,
    LinkTurned,
    PauseNoticed,
    PhaseChanged,
    PlansDiffer,
    Publish,
    Refusal,
    RenewIncarnation,
    ResourceTurned,
    SaveWishes,
    ServiceTurned,
    Tell,
    WishTaken,
)
from hostd.core.events import (
    ActionFinished,
    AddressCause,
    AddressFinished,
    AddressFound,
    AddressLost,
    AddressVerified,
    AnyEvent,
    ConfirmDown,
    Detach,
    FenceFinished,
    ForeignClaim,
    FrameReceived,
    HeartLost,
    HeartReturned,
    IncarnationRenewed,
    Leave,
    LinkChanged,
    OperatorAsked,
    ProbeFinished,
    ProcessExited,
    SnapshotReceived,
    Started,
    TimerFired,
    WishesSaved,
)
from hostd.core.fencing import Clearing, Need
from hostd.core.leases import Leases
from hostd.core.pair import CLEARED, Pair, Sight, Turn
from hostd.core.peers import Peers
from hostd.core.placement import Circumstances, Decision, place
from hostd.core.plan import Plan, Service
from hostd.core.services import Ladder, Order, Want
from hostd.core.snapshot import Assignment, Report, Snapshot, Wish, WishKind
from hostd.core.terms import (
    NEVER_BORN,
    Clearance,
    Ids,
    Incarnation,
    Mode,
    Phase,
    ResourceState,
    ServiceState,
    Why,
)
from hostd.core.wishes import Wishes

ROUNDS_MAX: Final = 40
"""Settling ends because every round moves a ladder or a phase forward; more is our bug."""
LAST_WORDS: Final = 5
"""LEFT and RESTARTING are repeated for this many keepalives before the daemon ends."""


class Node:
    """The decision core of one node."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan = plan
        self.me = name
        self.peer = plan.peer_of(name)
        self.ids = Ids()
        self.incarnation: Incarnation = NEVER_BORN
        self.renewing = False
        self.release = ""
        self.stations: tuple[str, ...] = ()
        self.mode = Mode.ACTIVE
        self.away_ms = 0
        self.exit_at_ms: int | None = None
        self.exit_kind = ExitKind.LEFT
        self.stepped_at_ms: int | None = None
        self.peers = Peers(plan, self.peer, 0)
        self.pair = Pair(plan, name)
        self.clearing = Clearing()
        self.clearance = Clearance.NONE
        self.confirmed_down = False
        self.address_fell_silent = False
        self.assignments = Assignments(plan)
        self.orders: dict[str, Assignment] = {}
        self.decisions: dict[str, Decision] = {}
        self.wishes = Wishes()
        self.wishes_dirty = False
        self.cleaned: dict[str, tuple[int, str]] = {}
        self.failback_since: dict[str, int] = {}
        self.ladders: dict[str, Ladder] = {}
        self.wants: dict[str, Want] = {}
        self.yielding: dict[str, bool] = {}
        self.leases = Leases(plan.address_lease_ms)
        self.disputed_at_ms: dict[str, int] = {}
        self.differing: tuple[str, ...] = ()
        self.differing_told: tuple[str, ...] = ()
        self.snapshot: Snapshot | None = None
        self.said: Snapshot | None = None
        self.told: dict[tuple[str, str], ServiceState | ResourceState] = {}

    # -- the two doors -----------------------------------------------------------

    def step(self, now_ms: int, event: AnyEvent) -> list[AnyEffect]:
        """Take one event at ``now_ms``; what is to be done, in order.

        ``now_ms`` never decreases.  Before ``Started`` and after LEFT nothing
        but answers comes out.
        """
        effects: list[AnyEffect] = []
        if self.stepped_at_ms is not None:
            assert now_ms >= self.stepped_at_ms, (now_ms, self.stepped_at_ms)
            effects += self._notice_pause(now_ms, now_ms - self.stepped_at_ms)
        elif not isinstance(event, Started):
            return []
        self.stepped_at_ms = now_ms
        effects += self._take(now_ms, event)
        effects += self._settle(now_ms)
        return effects

    def deadline(self) -> int | None:
        """The next time at which something is due if no event comes before."""
        now_ms = self.stepped_at_ms
        if now_ms is None:
            return None
        times = [self.exit_at_ms, self.peers.deadline_at_ms(now_ms), self.clearing.deadline_at_ms(now_ms)]
        times += [ladder.deadline_at_ms() for ladder in self.ladders.values()]
        times += [self.leases.deadline_at_ms(), *self.disputed_at_ms.values()]
        times += [self._failback_at_ms(name) for name in self.failback_since]
        return min((max(at, now_ms + 1) for at in times if at is not None), default=None)

    # -- what status shows ---------------------------------------------------------

    @property
    def peer_snapshot(self) -> Snapshot | None:
        """The newest word of the peer's newest life, however old."""
        return self.peers.last_word

    @property
    def fencing(self) -> bool:
        """Fencing is required here or at the peer: the stricter wins."""
        last = self.peers.last_word
        return self.plan.fencing or (last is not None and last.fencing)

    # -- events ------------------------------------------------------------------------

    def _take(self, now_ms: int, event: AnyEvent) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        match event:
            case Started():
                self._start(now_ms, event)
            case TimerFired():
                pass
            case IncarnationRenewed():
                self._begin_life(now_ms, event.incarnation)
            case HeartLost() | HeartReturned():
                self.peers.listen_anew(now_ms, hearing=isinstance(event, HeartReturned))
            case FrameReceived():
                self.peers.take_frame(event)
            case SnapshotReceived():
                self.peers.take_snapshot(now_ms, event.snapshot)
                effects += self._take_wishes(event.snapshot.wishes)
            case LinkChanged():
                self.peers.take_link(event)
                effects.append(Tell(LinkOpened(event.link, event.usable, event.detail)))
            case ActionFinished():
                any(ladder.action_finished(now_ms, event) for ladder in self.ladders.values())
            case AddressFinished():
                self._address_finished(now_ms, event)
            case AddressVerified():
                effects += self._address_verified(event)
            case ProbeFinished():
                effects += self.clearing.probe_finished(now_ms, event)
            case FenceFinished():
                effects += self.clearing.fence_finished(now_ms, event)
            case WishesSaved():
                self.wishes_dirty = self.wishes_dirty or not event.ok
            case AddressLost():
                self._lose_address(now_ms, event.address, event.cause)
            case AddressFound():
                pass  # told with Started; one that appears later was added by us or by hand
            case ForeignClaim():
                effects += self._take_claim(now_ms, event)
            case ProcessExited():
                self.ladders[event.service].process_exited(now_ms, event.resource)
            case OperatorAsked():
                effects += self._command(now_ms, event)
            case _:
                assert_never(event)
        return effects

    def _start(self, now_ms: int, event: Started) -> None:
        self.incarnation = event.incarnation
        self.release, self.stations = event.release, event.stations
        self.wishes.merge(event.wishes)
        for service in self.plan.services:
            self.cleaned[service.name] = self.wishes.stamp(WishKind.CLEANUP, service.name)
            unfinished = service.name in event.unfinished
            self.ladders[service.name] = Ladder(service, now_ms, event.present, unfinished=unfinished)

    def _begin_life(self, now_ms: int, incarnation: Incarnation) -> None:
        assert incarnation > self.incarnation, (incarnation, self.incarnation)
        self.incarnation = incarnation
        self.renewing = False
        self.pair.begin_life()
        self.assignments = Assignments(self.plan)
        self.orders = {}
        self.peers.forget_echoes()
        self.peers.listen_anew(now_ms, hearing=self.peers.hearing)
        for ladder in self.ladders.values():
            ladder.obeyed = type(ladder.obeyed)(0, 0)

    def _address_finished(self, now_ms: int, event: AddressFinished) -> None:
        lost = self.leases.finished(event)
        if lost is not None:
            self._lose_address(now_ms, lost, AddressCause.REMOVED)
            return
        any(ladder.address_finished(now_ms, event) for ladder in self.ladders.values())

    def _address_verified(self, event: AddressVerified) -> list[AnyEffect]:
        for ladder in self.ladders.values():
            for rung in ladder.rungs:
                if rung.announce_id == event.request_id:
                    ladder.address_verified(event)
                    return [Tell(AddressChecked(rung.resource.address, event.verified, event.detail))]
        return []

    def _lose_address(self, now_ms: int, address: str, cause: AddressCause) -> None:
        for ladder in self.ladders.values():
            ladder.address_lost(now_ms, address, cause)

    # -- own pauses, others' claims ------------------------------------------------------

    def _notice_pause(self, now_ms: int, gap_ms: int) -> list[AnyEffect]:
        """We were away: judge nobody by silence from before; without fencing and
        for longer than deadtime, another node may have taken over (section 5)."""
        deadtime_ms = self.plan.timers.deadtime_ms
        if gap_ms <= deadtime_ms // 2:
            return []
        self.peers.listen_anew(now_ms, hearing=self.peers.hearing)
        effects: list[AnyEffect] = [Tell(PauseNoticed(gap_ms))]
        if gap_ms > deadtime_ms and not self.fencing and self.pair.phase is not Phase.LEFT:
            for ladder in self.ladders.values():
                effects += ladder.drop_addresses(self.ids)
            effects += self._entered(now_ms, self.pair.fall_back(Why.PAUSED))
        return effects

    def _take_claim(self, now_ms: int, claim: ForeignClaim) -> list[AnyEffect]:
        """Somebody else says that he has an address of ours.  If it is the peer
        and we hear it, its phase decides; if we do not hear it, the second in
        order gives way, but not before a frame could have come."""
        for ladder in self.ladders.values():
            if claim.address not in ladder.addresses_up:
                continue
            last = self.peers.last_word
            if last is not None and claim.station in last.stations:
                wait_ms = 2 * self.plan.timers.keepalive_ms
                self.disputed_at_ms.setdefault(ladder.service.name, now_ms + wait_ms)
            for rung in ladder.rungs:
                if rung.resource.address == claim.address and rung.announce_id is None:
                    rung.announced = False  # say again that it is ours
            return [Tell(AddressDisputed(claim.address, claim.station))]
        return []

    def _settle_disputes(self, now_ms: int) -> None:
        for name, due_at_ms in list(self.disputed_at_ms.items()):
            if self.peers.is_heard(now_ms):
                del self.disputed_at_ms[name]
            elif now_ms >= due_at_ms:
                del self.disputed_at_ms[name]
                if not self.plan.is_first(self.me):
                    self.yielding[name] = True

    # -- the operator --------------------------------------------------------------------

    def _command(self, now_ms: int, asked: OperatorAsked) -> list[AnyEffect]:
        command = asked.command
        refusal: Refusal | None = None
        effects: list[AnyEffect] = []
        if self.mode is not Mode.ACTIVE:
            refusal = Refusal.LEAVING
        elif isinstance(command, Leave):
            self.mode = Mode.LEAVING
        elif isinstance(command, Detach):
            self.mode, self.away_ms = Mode.RESTARTING, command.for_ms or self.plan.restart_limit_ms
            self.exit_kind = ExitKind.DETACHED
            self.exit_at_ms = now_ms + LAST_WORDS * self.plan.timers.keepalive_ms
            effects += self.leases.extend(self.away_ms, self.ids)
        elif isinstance(command, ConfirmDown):
            refusal = self._confirm_down(now_ms, command.node)
        else:
            taken = judge(command, self._scene(now_ms))
            if isinstance(taken, Refusal):
                return [AnswerOperator(asked.command_id, taken)]
            wish = self.wishes.make(self.me, taken.kind, taken.subject, taken.value)
            self.wishes_dirty = True
            effects += self._wish_taken(now_ms, wish)
            return [AnswerOperator(asked.command_id, None, wish.serial, taken.node), *effects]
        return [AnswerOperator(asked.command_id, refusal), *effects]

    def _confirm_down(self, now_ms: int, node: str) -> Refusal | None:
        if node == self.me:
            return Refusal.CONFIRM_OWN_NODE
        if node != self.peer:
            return Refusal.UNKNOWN_NODE
        if self.peers.is_heard(now_ms):
            return Refusal.PEER_IS_HEARD
        if self.pair.phase is Phase.ALONE:
            self.clearance = Clearance.CONFIRMED
            self.pair.settled = max(self.pair.settled, self.peers.incarnation)
            self.peers.declare_dead(self.peers.incarnation)
        else:
            self.confirmed_down = True
        return None

    def _scene(self, now_ms: int) -> Scene:
        now = self._circumstances(now_ms)
        return Scene(self.plan, now.members, now.current, now.banned, now.stopped)

    def _take_wishes(self, wishes: tuple[Wish, ...]) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        for wish in self.wishes.merge(wishes):
            self.wishes_dirty = True
            effects += self._wish_taken(self.stepped_at_ms or 0, wish)
        return effects

    def _wish_taken(self, now_ms: int, wish: Wish) -> list[AnyEffect]:
        if wish.kind is WishKind.STANDBY and not wish.value:
            for service in self.plan.services:
                if service.primary == wish.subject:
                    self.failback_since[service.name] = now_ms  # it came online
        if wish.kind is WishKind.MOVED:
            self.failback_since.pop(wish.subject, None)
        return [Tell(WishTaken(wish))]

    # -- settling --------------------------------------------------------------------------

    def _settle(self, now_ms: int) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        self._settle_disputes(now_ms)
        for _ in range(ROUNDS_MAX):
            before = len(effects)
            effects += self._turn(now_ms)
            self._obey(now_ms)
            effects += self._assign(now_ms)
            self._obey(now_ms)
            effects += self._climb(now_ms)
            if len(effects) == before:
                break
        else:
            raise AssertionError(("does not settle", effects[-6:]))
        effects += self._hold_leases(now_ms)
        effects += self._tell_changes(now_ms)
        effects += self._publish(now_ms)
        if self.wishes_dirty:
            self.wishes_dirty = False
            effects.append(SaveWishes(self.wishes.all()))
        effects += self._end(now_ms)
        return effects

    def _turn(self, now_ms: int) -> list[AnyEffect]:
        """Membership: seek clearance if that is called for, then decide the phase."""
        effects = self.clearing.seek(now_ms, self._need(now_ms), self.ids)
        if self.renewing or self.pair.phase is Phase.LEFT:
            return effects
        if self._may_leave(now_ms):
            return [*effects, *self._entered(now_ms, self.pair.leave())]
        sight = self._sight(now_ms)
        turn = self.pair.decide(sight)
        if turn is None:
            return effects
        if turn.phase is Phase.ALONE:
            self.clearance = sight.clearance if turn.why in CLEARED.values() else Clearance.NONE
            table = self.orders
            self.address_fell_silent = situation.peer_had_address(self.plan, self.peer, sight.last_word, table)
            if self.clearance in (Clearance.FENCED, Clearance.CONFIRMED):
                self.peers.declare_dead(sight.cleared)
        return [*effects, *self._entered(now_ms, turn)]

    def _entered(self, now_ms: int, turn: Turn) -> list[AnyEffect]:
        effects: list[AnyEffect] = [Tell(PhaseChanged(turn.phase, turn.confirmed, self.pair.view, turn.why))]
        if turn.phase is not Phase.ALONE:
            self.clearance = Clearance.NONE
        if turn.phase not in (Phase.STARTUP_FENCING, Phase.JOINING, Phase.PEER_LOST):
            self.confirmed_down = False
        if turn.phase is Phase.JOINING:
            self.orders = {}
        if turn.yields and not self.renewing:
            self.renewing = True
            effects.append(RenewIncarnation())
        if turn.phase is Phase.LEFT:
            self.exit_kind = ExitKind.LEFT
            self.exit_at_ms = now_ms + LAST_WORDS * self.plan.timers.keepalive_ms
        return effects

    def _sight(self, now_ms: int) -> Sight:
        word = self.peers.word(now_ms)
        unknown = any(ladder.state is ServiceState.UNKNOWN for ladder in self.ladders.values())
        same_nodes = word is None or word.nodes == self.plan.nodes
        blocked = word is not None and any(r.state is ServiceState.BLOCKED for r in word.services.values())
        clearance, cleared = self.clearing.obtained, self.clearing.cleared
        if self.confirmed_down and word is None:
            clearance, cleared = Clearance.CONFIRMED, self.peers.incarnation
        return Sight(
            incarnation=self.incarnation,
            word=word,
            last_word=self.peers.last_word,
            peer_incarnation=self.peers.incarnation,
            silence_ms=self.peers.silence_ms(now_ms),
            silence_limit_ms=self.peers.silence_limit_ms(),
            clearance=clearance,
            cleared=cleared,
            may_form=not unknown and same_nodes and self.mode is Mode.ACTIVE,
            peer_blocked=blocked and self.fencing,
        )

    def _need(self, now_ms: int) -> Need:
        quiet = self.peers.silence_ms(now_ms) >= self.plan.timers.warntime_ms or self.peers.power_seen_to_go
        last = self.peers.last_word
        mine = sum(not ladder.state.is_stopped for ladder in self.ladders.values())
        theirs = sum(situation.runs_there(r) for r in last.services.values()) if last else 0
        spares = mine < theirs or (mine == theirs and not self.plan.is_first(self.me))
        return Need(
            seeking=self.pair.seeks_clearance,
            startup=self.pair.phase is Phase.STARTUP_FENCING,
            early=self.pair.is_confirmed and quiet,
            devices=self.fencing,
            peer=self.peer,
            incarnation=self.peers.incarnation,
            addresses=situation.addresses_not_here(self.plan, self.ladders),
            delay_ms=self.plan.fence_delay_ms if spares else 0,
            said_goodbye=situation.said_goodbye(self.peer, last, self.orders),
        )

    # -- who runs what -------------------------------------------------------------------------

    def reports(self) -> dict[str, Report]:
        """What this node says of each service on itself."""
        return {name: situation.report_of(ladder) for name, ladder in self.ladders.items()}

    def _obey(self, now_ms: int) -> None:
        """Take newer assignments of this view: our own table, or the coordinator's."""
        table: dict[str, Assignment] = {}
        if self.pair.is_coordinator:
            table = self.assignments.table
        elif self.pair.is_confirmed:
            word = self.peers.word(now_ms)
            if word is not None and word.view == self.pair.view and word.coordinator == self.pair.coordinator:
                table = word.assignments
        for name, assignment in table.items():
            ladder = self.ladders.get(name)
            if ladder is not None and assignment.epoch > ladder.obeyed and assignment.epoch.view == self.pair.view:
                ladder.obeyed = assignment.epoch
                self.orders[name] = assignment

    def _assign(self, now_ms: int) -> list[AnyEffect]:
        if not self.pair.is_coordinator:
            return []
        effects: list[AnyEffect] = []
        word = self.peers.word(now_ms)
        if self.assignments.view != self.pair.view:
            effects += self._form(now_ms, word)
        members = self._members(word)
        self.decisions = place(self.plan, self._circumstances(now_ms))
        effects += [Tell(fact) for fact in self.assignments.update(self.decisions, members)]
        for name in list(self.failback_since):
            service = self.plan.service(name)
            assignment = self.assignments.table.get(name)
            if assignment is not None and assignment.owners == (service.primary,):
                del self.failback_since[name]
        self._drop_void_moves(now_ms)
        return effects

    def _form(self, now_ms: int, word: Snapshot | None) -> list[AnyEffect]:
        """A new view begins with what runs; those who joined may get services back."""
        reports = {self.me: self.reports()}
        self.failback_since = {}
        if self.pair.is_confirmed:
            assert word is not None
            reports[self.peer] = word.services
            self.failback_since = {s.name: now_ms for s in self.plan.services if not s.everywhere}
        return [Tell(fact) for fact in self.assignments.form(self.pair.view, reports, self.me)]

    def _members(self, word: Snapshot | None) -> Members:
        if self.pair.phase is Phase.ALONE:
            return situation.members_alone(
                self.plan, self.me, self.reports(), self.clearance, word, self.peers.last_word,
                new_life=self.peers.incarnation > self.pair.settled,
                address_fell_silent=self.address_fell_silent,
            )  # fmt: skip
        last = self.peers.last_word
        in_view = last is not None and last.phase is Phase.MEMBER and last.view == self.pair.view
        theirs = last.services if last is not None and in_view else {}
        return Members({self.me: self.reports(), self.peer: theirs})

    def _circumstances(self, now_ms: int) -> Circumstances:
        modes = {self.me: self.mode}
        reports = {self.me: self.reports()}
        last = self.peers.last_word
        self.differing = ()
        if self.pair.is_confirmed and last is not None:
            modes[self.peer] = last.mode
            reports[self.peer] = last.services
            self.differing = situation.differing_services(self.plan, last)
        current = {name: assignment.owners for name, assignment in self.orders.items()}
        failback = {
            name: now_ms >= due for name in self.failback_since if (due := self._failback_at_ms(name)) is not None
        }
        return situation.circumstances(self.plan, modes, self.wishes, reports, current, self.differing, failback)

    def _failback_at_ms(self, name: str) -> int | None:
        wait_ms = self.plan.service(name).failback_after_ms
        since = self.failback_since.get(name)
        return None if wait_ms is None or since is None else since + wait_ms

    def _drop_void_moves(self, now_ms: int) -> None:
        """A move holds until its node fails, goes standby or leaves."""
        members = self._circumstances(now_ms).members
        for service in self.plan.services:
            node = self.wishes.value(WishKind.MOVED, service.name)
            decision = self.decisions.get(service.name)
            gone = node not in members or (decision is not None and decision.owners not in ((), (node,)))
            if node and gone and not self.wishes.has(WishKind.STOPPED, service.name):
                self.wishes.make(self.me, WishKind.MOVED, service.name, "")
                self.wishes_dirty = True

    # -- ladders ---------------------------------------------------------------------------------

    def _climb(self, now_ms: int) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        for service in self.plan.services:
            ladder = self.ladders[service.name]
            stamp = self.wishes.stamp(WishKind.CLEANUP, service.name)
            if stamp > self.cleaned[service.name]:
                self.cleaned[service.name] = stamp
                ladder.clean_up()
            want = self._want(now_ms, service, ladder)
            self.wants[service.name] = want
            effects += ladder.settle(now_ms, want, self.ids)
            effects += self._tell_service(ladder, want)
            if ladder.state.is_stopped:
                self.yielding.pop(service.name, None)
        return effects

    def _want(self, now_ms: int, service: Service, ladder: Ladder) -> Want:
        """The order for one service here (the table of PROTOCOL.md section 2, last column)."""
        phase = self.pair.phase
        free = all(
            self.ladders[other.name].state.is_stopped for other in self.plan.services if service.name in other.requires
        )
        if not ladder.state.is_stopped and self._peer_has_it(now_ms, service):
            self.yielding[service.name] = True
        if service.name in self.yielding:
            return Want(Order.YIELD, Why.PEER_ALONE, free=free)
        if self.wishes.in_maintenance(service.name) and self.mode is not Mode.LEAVING:
            return Want(Order.FREEZE, Why.MAINTENANCE)
        if phase is Phase.LEFT or self.mode is Mode.RESTARTING:
            return Want(Order.HOLD, Why.NODE_LEAVING)
        if self.mode is Mode.LEAVING and not self.pair.is_confirmed:
            return Want(Order.STOP, Why.NODE_LEAVING, free=free)
        if phase is Phase.PEER_LOST:
            return Want(Order.HOLD if self.fencing else Order.UNDO, Why.PEER_SILENT, free=free)
        if not self.pair.is_confirmed and phase is not Phase.ALONE:
            return Want(Order.HOLD, Why.STARTED, free=free)
        assignment = self.orders.get(service.name)
        decision = self.decisions.get(service.name)
        if assignment is None or self.me not in assignment.owners:
            why = decision.why if decision is not None and self.pair.is_coordinator else Why.ORDERED
            return Want(Order.STOP if assignment is not None else Order.HOLD, why, free=free)
        needs = [self.ladders[name] for name in service.requires]
        if not ladder.state.is_stopped and not all(need.serves for need in needs):
            return Want(Order.STOP, Why.REQUIREMENT_MISSING, free=free)
        ready = all(need.state is ServiceState.RUNNING for need in needs) and all(
            self._is_settled(now_ms, name) for name in service.after
        )
        why = decision.why if decision is not None and self.pair.is_coordinator else Why.ORDERED
        guard = self.clearance not in (Clearance.FENCED, Clearance.CONFIRMED) or phase is not Phase.ALONE
        return Want(Order.RUN, why, guard=guard, ready=ready, free=free)

    def _peer_has_it(self, now_ms: int, service: Service) -> bool:
        """While we are JOINING, a peer that is ALONE runs what we still run too."""
        if service.everywhere or self.pair.phase is not Phase.JOINING:
            return False
        word = self.peers.word(now_ms)
        return word is not None and word.phase is Phase.ALONE and situation.runs_there(word.services.get(service.name))

    def _is_settled(self, now_ms: int, name: str) -> bool:
        """For ``after``: it runs somewhere, or it is not going to."""
        last = self.peers.last_word
        theirs = last.services.get(name) if last is not None and self.pair.is_confirmed else None
        states = [self.ladders[name].state, *([theirs.state] if theirs is not None else [])]
        assignment = self.orders.get(name)
        if assignment is None or not assignment.owners:
            return True
        done = (ServiceState.RUNNING, ServiceState.FAILED, ServiceState.BLOCKED)
        return any(state in done for state in states)

    def _hold_leases(self, now_ms: int) -> list[AnyEffect]:
        if self.pair.phase is Phase.LEFT or self.mode is Mode.RESTARTING:
            return []
        up = [address for ladder in self.ladders.values() for address in ladder.addresses_up]
        return [*self.leases.hold(now_ms, up, self.ids)]

    # -- leaving -----------------------------------------------------------------------------------

    def _may_leave(self, now_ms: int) -> bool:
        if self.mode is not Mode.LEAVING:
            return False
        if not all(ladder.state.is_stopped for ladder in self.ladders.values()):
            return False
        if not self.pair.is_confirmed:
            return True
        mine = any(self.me in assignment.owners for assignment in self.orders.values())
        return not mine and set(self.orders) == set(self.ladders)

    def _end(self, now_ms: int) -> list[AnyEffect]:
        if self.mode is Mode.LEAVING and self.exit_at_ms is None:
            states = [ladder.state for ladder in self.ladders.values()]
            if ServiceState.BLOCKED in states and all(s.is_stopped or s is ServiceState.BLOCKED for s in states):
                self.exit_kind = ExitKind.STOP_FAILED
                self.exit_at_ms = now_ms + LAST_WORDS * self.plan.timers.keepalive_ms
        if self.exit_at_ms is not None and now_ms >= self.exit_at_ms:
            self.exit_at_ms = None
            return [Exit(self.exit_kind)]
        return []

    # -- saying and telling ----------------------------------------------------------------------------

    def _publish(self, now_ms: int) -> list[AnyEffect]:
        table = self.assignments.table if self.pair.is_coordinator else {}
        known = self.peers.incarnation
        said = Snapshot(
            node=self.me,
            incarnation=self.incarnation,
            version=0,
            phase=self.pair.phase,
            confirmed=self.pair.confirmed,
            view=self.pair.view,
            coordinator=self.pair.coordinator,
            mode=self.mode,
            away_ms=self.away_ms,
            invitation=self.pair.invitation,
            services=self.reports(),
            assignments=dict(table),
            heard=known if known > NEVER_BORN else None,
            dead=self.peers.dead if self.peers.dead > NEVER_BORN else None,
            wishes=self.wishes.all(),
            digest=self.plan.digest,
            digests={service.name: service.digest for service in self.plan.services},
            fencing=self.plan.fencing,
            stations=self.stations,
            release=self.release,
            view_max=max(self.pair.view_max, self.pair.view_seen),
            nodes=self.plan.nodes,
        )
        if said == self.said:
            return []
        self.said = said
        version = self.snapshot.version + 1 if self.snapshot is not None else 1
        ages = {
            name: msgspec.structs.replace(report, since_ms=now_ms - self.ladders[name].since_at_ms)
            for name, report in said.services.items()
        }
        self.snapshot = msgspec.structs.replace(said, version=version, services=ages)
        return [Publish(self.snapshot)]

    def _tell_service(self, ladder: Ladder, want: Want) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        name = ladder.service.name
        for rung in ladder.rungs:
            key = (name, rung.resource.id)
            if self.told.get(key) is not rung.state:
                self.told[key] = rung.state
                effects.append(Tell(ResourceTurned(name, rung.resource.id, rung.state)))
        if self.told.get((name, "")) is not ladder.state:
            self.told[name, ""] = ladder.state
            ailing = ladder.gave_up or ladder.conflict or ladder.state in (
                ServiceState.RECOVERING, ServiceState.FAILED, ServiceState.BLOCKED,
            )  # fmt: skip
            why, detail = (ladder.why, ladder.detail) if ailing else (want.why, "")
            effects.append(Tell(ServiceTurned(name, ladder.state, why, detail)))
        return effects

    def _tell_changes(self, now_ms: int) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        for link in self.peers.refresh_links(now_ms):
            effects.append(Tell(LinkTurned(link.name, LinkDirection.RECEIVE, link.receive_up)))
        for link in self.peers.links:
            if link.send_up != link.send_told:
                link.send_told = link.send_up
                effects.append(Tell(LinkTurned(link.name, LinkDirection.SEND, link.send_up)))
        word = self.peers.word(now_ms)
        differing = situation.differing_services(self.plan, word)
        for name in differing:
            if name not in self.differing_told:
                effects.append(Tell(PlansDiffer(name)))
        if word is not None:
            self.differing_told = differing
        return effects
