"""The only place where the machines meet: one node's core.

Two doors: :meth:`Node.step` takes the time and one event and returns effects;
:meth:`Node.deadline` says when to come back if nothing happens.  Everything
is settled anew after each event, from the outside in: who is heard (``peers``)
→ who is a member (``pair``, ``fencing``) → who should run what
(``placement``, ``assignments``) → how it gets there (``services``, ``leases``)
→ what we say of ourselves (the snapshot).

The rooms: ``state`` holds everything, ``membership`` brings together who is
heard and who is a member, ``duties`` who should run what, ``orders`` says what
is to be done with a service here, ``speech`` what is said of it.
"""

from typing import Final, assert_never

from hostd.core import duties, membership, orders, speech
from hostd.core.commands import Scene, judge
from hostd.core.effects import (
    AddressChecked,
    AnswerOperator,
    AnyEffect,
    Exit,
    ExitKind,
    LinkOpened,
    ReachTurned,
    Refusal,
    SaveWishes,
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
    FenceNode,
    ForeignClaim,
    FrameReceived,
    HeartLost,
    HeartReturned,
    IncarnationRenewed,
    LanTurned,
    Leave,
    LinkChanged,
    OperatorAsked,
    ProbeFinished,
    ProcessExited,
    SnapshotReceived,
    Started,
    TiebreakerTurned,
    TimerFired,
    WishesSaved,
)
from hostd.core.services import Ladder
from hostd.core.snapshot import Wish, WishKind
from hostd.core.state import LAST_WORDS, State
from hostd.core.terms import (
    Mode,
    Phase,
)

ROUNDS_MAX: Final = 40
"""Settling ends because every round moves a ladder or a phase forward; more is our bug."""


class Node(State):
    """The decision core of one node."""

    # -- the two doors -----------------------------------------------------------

    def step(self, now_ms: int, event: AnyEvent) -> list[AnyEffect]:
        """Take one event at ``now_ms``; what is to be done, in order.

        ``now_ms`` never decreases.  Before ``Started`` and after LEFT nothing
        but answers comes out.
        """
        effects: list[AnyEffect] = []
        if self.stepped_at_ms is not None:
            assert now_ms >= self.stepped_at_ms, (now_ms, self.stepped_at_ms)
            effects += membership.notice_pause(self, now_ms, now_ms - self.stepped_at_ms)
        elif not isinstance(event, Started):
            return []
        self.stepped_at_ms = now_ms
        effects += self._take(now_ms, event)
        if not effects and isinstance(event, FrameReceived | TimerFired) and self._nothing_new(now_ms):
            return []
        effects += self._settle(now_ms)
        self.settled_until_ms = self.deadline()
        self.heard_so_far = self.peers.summary(now_ms)
        return effects

    def _nothing_new(self, now_ms: int) -> bool:
        """An ordinary beat: nothing that settling depends on has moved, and nothing is due."""
        due = self.settled_until_ms is not None and now_ms >= self.settled_until_ms
        return not due and self.heard_so_far == self.peers.summary(now_ms)

    def deadline(self) -> int | None:
        """The next time at which something is due if no event comes before."""
        now_ms = self.stepped_at_ms
        if now_ms is None:
            return None
        times = [self.exit_at_ms, self.peers.deadline_at_ms(now_ms), self.clearing.deadline_at_ms(now_ms)]
        times += [ladder.deadline_at_ms() for ladder in self.ladders.values()]
        times += [
            self.leases.deadline_at_ms(),
            self.reach.good_at_ms,
            *self.probation_until_ms.values(),
            *(since + duties.CUT_OFF_MS for since in self.cut_off_since.values()),
            *(at + 2 * self.plan.timers.keepalive_ms for at in self.disputed_at_ms.values()),
        ]
        times += [duties.failback_at_ms(self, name) for name in self.failback_since]
        return min((at for at in times if at is not None and at > now_ms), default=None)

    # -- events ------------------------------------------------------------------------

    def _take(self, now_ms: int, event: AnyEvent) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        match event:
            case Started():
                self._start(now_ms, event)
            case TimerFired():
                pass
            case IncarnationRenewed():
                membership.begin_life(self, now_ms, event.incarnation)
            case HeartLost() | HeartReturned():
                self.peers.listen_anew(now_ms, hearing=isinstance(event, HeartReturned))
            case FrameReceived():
                self.peers.take_frame(event)
            case SnapshotReceived():
                self.peers.take_snapshot(now_ms, event.snapshot)
                effects += self._take_wishes(event.snapshot.wishes)
            case LinkChanged():
                if self.peers.take_link(event):
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
                self.fence_asked = self.fence_asked and event.confirmed
            case WishesSaved():
                self.wishes_dirty = self.wishes_dirty or not event.ok
            case AddressLost():
                self._lose_address(now_ms, event.address, event.cause)
            case AddressFound():
                pass  # told with Started; one that appears later was added by us or by hand
            case ForeignClaim():
                effects += membership.take_claim(self, now_ms, event)
            case LanTurned():
                self._lan_turned(now_ms, event.dead)
            case TiebreakerTurned():
                self.reach.take_tiebreaker(now_ms, event.reached)
                effects.append(Tell(ReachTurned(event.reached, event.detail)))
            case ProcessExited():
                self.ladders[event.service].process_exited(now_ms, event.resource)
            case OperatorAsked():
                effects += self._command(now_ms, event)
            case _:
                assert_never(event)
        return effects

    def _start(self, now_ms: int, event: Started) -> None:
        self.incarnation = event.incarnation
        self.release, self.stations, self.watchdog_ms = event.release, event.stations, event.watchdog_ms
        self.wishes.merge(event.wishes)
        self.leases.adopt(now_ms, event.present)
        self.probation_until_ms = {name: now_ms + left_ms for name, left_ms in event.probation_ms.items()}
        for service in self.plan.services:
            self.cleaned[service.name] = self.wishes.stamp(WishKind.CLEANUP, service.name)
            unfinished = service.name in event.unfinished
            ladder = Ladder(service, now_ms, event.present, unfinished=unfinished)
            ladder.outdated = service.name in event.outdated
            self.ladders[service.name] = ladder

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

    def _lan_turned(self, now_ms: int, dead: tuple[str, ...]) -> None:
        for ladder in self.ladders.values():
            ladder.lan_turned(now_ms, dead)
        addresses = [a for service in self.plan.services for a in service.addresses]
        if addresses:
            self.reach.take_lan(now_ms, any(a not in dead for a in addresses))

    def _lose_address(self, now_ms: int, address: str, cause: AddressCause) -> None:
        for ladder in self.ladders.values():
            ladder.address_lost(now_ms, address, cause)

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
            refusal = membership.confirm_down(self, now_ms, command.node)
        elif isinstance(command, FenceNode):
            refusal = membership.fence_node(self, command.node)
        else:
            taken = judge(command, self._scene(now_ms))
            if isinstance(taken, Refusal):
                return [AnswerOperator(asked.command_id, taken)]
            wish = self.wishes.make(self.me, taken.kind, taken.subject, taken.value)
            self.wishes_dirty = True
            effects += self._wish_taken(now_ms, wish)
            return [AnswerOperator(asked.command_id, None, wish.serial, taken.node), *effects]
        return [AnswerOperator(asked.command_id, refusal), *effects]

    def _scene(self, now_ms: int) -> Scene:
        now = duties.circumstances(self, now_ms)
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
        membership.settle_disputes(self, now_ms)
        for _ in range(ROUNDS_MAX):
            before = len(effects)
            stand = (self.pair.phase, self.pair.confirmed, self.pair.view)
            table = (self.assignments.view, self.assignments.counter)
            obeyed = dict(self.orders)
            effects += membership.turn(self, now_ms)
            if stand != (self.pair.phase, self.pair.confirmed, self.pair.view):
                continue  # nobody climbs before membership has come to rest
            duties.obey(self, now_ms)
            effects += duties.assign(self, now_ms)
            duties.obey(self, now_ms)
            effects += self._climb(now_ms)
            same_table = table == (self.assignments.view, self.assignments.counter)
            if len(effects) == before and same_table and obeyed == self.orders:
                break  # nothing moved, not even silently
        else:
            raise AssertionError(("does not settle", effects[-6:]))
        effects += self._hold_leases(now_ms)
        effects += speech.tell_changes(self, now_ms)
        effects += speech.publish(self, now_ms)
        if self.wishes_dirty:
            self.wishes_dirty = False
            effects.append(SaveWishes(self.wishes.all()))
        effects += self._end(now_ms)
        return effects

    # -- ladders ---------------------------------------------------------------------------------

    def _climb(self, now_ms: int) -> list[AnyEffect]:
        effects: list[AnyEffect] = []
        for service in self.plan.services:
            ladder = self.ladders[service.name]
            stamp = self.wishes.stamp(WishKind.CLEANUP, service.name)
            if stamp > self.cleaned[service.name]:
                self.cleaned[service.name] = stamp
                ladder.clean_up()
            want = orders.want(self, now_ms, service, ladder)
            self.wants[service.name] = want
            effects += ladder.settle(now_ms, want, self.ids)
            effects += speech.tell_service(self, ladder, want)
            if ladder.state.is_stopped:
                self.yielding.pop(service.name, None)
        return effects

    def _hold_leases(self, now_ms: int) -> list[AnyEffect]:
        if self.pair.phase is Phase.LEFT or self.mode is Mode.RESTARTING:
            return []
        up: list[str] = []
        endless: list[str] = []
        for name, ladder in self.ladders.items():
            up += ladder.addresses_up
            if self.wishes.in_maintenance(name):
                endless += ladder.addresses_up  # hands off: it stays even without us
        return [*self.leases.hold(now_ms, up, self.ids, endless)]

    # -- leaving -----------------------------------------------------------------------------------

    def _end(self, now_ms: int) -> list[AnyEffect]:
        if self.ended:
            return []
        if self.mode is Mode.LEAVING and self.exit_at_ms is None:
            kept = {name for name, ladder in self.ladders.items() if not ladder.state.is_stopped}
            if kept and all(orders.is_kept(self, name) for name in kept):
                self.exit_kind = ExitKind.STOP_FAILED
                self.exit_at_ms = now_ms + LAST_WORDS * self.plan.timers.keepalive_ms
        if self.exit_at_ms is not None and now_ms >= self.exit_at_ms:
            self.exit_at_ms = None
            self.ended = True
            return [Exit(self.exit_kind)]
        return []

    # -- saying and telling ----------------------------------------------------------------------------
