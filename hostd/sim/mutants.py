"""The core with one rule broken on purpose, to show that the judge bites.

Decides which rules can be broken and how: each mutant wraps one method of
the core for the length of a ``with``.  The ★ and ◆ are PROTOCOL.md's.
Nothing but the simulator's own tests and commands may use it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import msgspec

from hostd.core import membership, state
from hostd.core.assignments import Assignments
from hostd.core.effects import AddAddress, CancelFence, RenewAddress
from hostd.core.events import FenceFinished, FrameReceived, ProbeFinished
from hostd.core.fencing import Clearing, Need
from hostd.core.leases import Leases
from hostd.core.pair import Pair, Sight, Turn
from hostd.core.peers import Peers
from hostd.core.services import Ladder
from hostd.core.snapshot import Report, Snapshot
from hostd.core.state import State
from hostd.core.terms import NO_EPOCH, Clearance, Ids, ServiceState, Why

Method = Callable[..., Any]


class Mutant(msgspec.Struct, frozen=True):
    """One rule, and the method that keeps it."""

    name: str
    rule: str
    owner: Any
    """A class, or a module that calls the function by this name."""
    method: str
    wrap: Callable[[Method], Method]
    fencing: bool | None
    """In which clusters the harm lives; None: in either."""


MUTANTS: dict[str, Mutant] = {}


def applied(name: str | None) -> AbstractContextManager[None]:
    """Break the named rule for the length of a ``with``, or none."""
    if name is None:
        return nullcontext()
    if name not in MUTANTS:
        raise ValueError(f"no such mutant: {name} (one of {', '.join(sorted(MUTANTS))})")
    return _broken(MUTANTS[name])


@contextmanager
def _broken(mutant: Mutant) -> Iterator[None]:
    kept = getattr(mutant.owner, mutant.method)
    setattr(mutant.owner, mutant.method, mutant.wrap(kept))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.method, kept)


def breaks(rule: str, owner: Any, method: str, *, fencing: bool | None = None) -> Callable[[Any], Any]:
    """Register the decorated function as the wrapper of ``owner.method``."""

    def register(wrap: Callable[[Method], Method]) -> Callable[[Method], Method]:
        name = wrap.__name__.replace("_", "-")
        MUTANTS[name] = Mutant(name, rule, owner, method, wrap, fencing)
        return wrap

    return register


# -- section 1: who is heard ------------------------------------------------------


@breaks("◆ a higher incarnation replaces a lower for ever", Peers, "take_snapshot")
def old_life_is_believed(method: Method) -> Method:
    def take_snapshot(self: Peers, now_ms: int, snapshot: Snapshot) -> None:
        if snapshot.incarnation < self.incarnation:
            self.incarnation, self.version = snapshot.incarnation, 0
        method(self, now_ms, snapshot)

    return take_snapshot


@breaks("◆ heard means that the peer echoes us: a one-way link is no life", Peers, "take_frame")
def one_way_is_heard(method: Method) -> Method:
    def take_frame(self: Peers, frame: FrameReceived) -> None:
        method(self, msgspec.structs.replace(frame, echo_sent_at_ms=frame.at_ms))

    return take_frame


@breaks("◆ heard means fresh: what counts is when we sent what is echoed", Peers, "take_frame")
def stale_echo_is_heard(method: Method) -> Method:
    def take_frame(self: Peers, frame: FrameReceived) -> None:
        if frame.echo_sent_at_ms is not None:
            frame = msgspec.structs.replace(frame, echo_sent_at_ms=frame.at_ms)
        method(self, frame)

    return take_frame


# -- section 2: who is a member ------------------------------------------------------


@breaks("◆ a service left unfinished by an earlier life is UNKNOWN until it is stopped", Ladder, "__init__")
def unfinished_is_trusted(method: Method) -> Method:
    def init(self: Ladder, *args: Any, unfinished: bool) -> None:
        method(self, *args, unfinished=False)

    return init


@breaks("◆ UNKNOWN counts as may be running", state, "report_of")
def unknown_counts_as_stopped(method: Method) -> Method:
    def report_of(ladder: Ladder) -> Report:
        report: Report = method(ladder)
        unknown = report.state is ServiceState.UNKNOWN
        return msgspec.structs.replace(report, state=ServiceState.STOPPED) if unknown else report

    return report_of


@breaks("◆ an invitation counts only above every view that this life has held", Pair, "_joining")
def invitation_accepted_twice(method: Method) -> Method:
    def joining(self: Pair, sight: Sight) -> Turn | None:
        held, self.view_max = self.view_max, 0
        turn: Turn | None = method(self, sight)
        self.view_max = held
        return turn

    return joining


@breaks("◆ going ALONE takes a new, higher view", Pair, "_go_alone")
def alone_keeps_its_view(method: Method) -> Method:
    def go_alone(self: Pair, why: Why) -> Turn:
        turn: Turn = method(self, why)
        return msgspec.structs.replace(turn, view=self.view or turn.view)

    return go_alone


@breaks("◆ ALONE, and a new life falls silent with a service: PEER_LOST", Pair, "_alone")
def alone_forgets_a_new_life(method: Method) -> Method:
    def alone(self: Pair, sight: Sight) -> Turn | None:
        turn: Turn | None = method(self, sight) if sight.word is not None else None
        return turn

    return alone


@breaks("a node that hears the peer ALONE yields", Pair, "_confirmed", fencing=False)
def member_does_not_yield(method: Method) -> Method:
    def confirmed(self: Pair, sight: Sight) -> Turn | None:
        turn: Turn | None = method(self, sight)
        return None if turn is not None and turn.why is Why.PEER_ALONE else turn

    return confirmed


# -- section 3: who may run what ------------------------------------------------------


@breaks("★ stopped proves something only under the epoch that took it away", Assignments, "_all_stopped")
def stopped_under_any_epoch(method: Method) -> Method:
    def all_stopped(self: Assignments, name: str, _epoch: Any, *rest: Any) -> bool:
        proven: bool = method(self, name, NO_EPOCH, *rest)
        return proven

    return all_stopped


@breaks("stopped is claimed only when nothing is left of its processes", Ladder, "action_finished")
def leftovers_do_not_count(method: Method) -> Method:
    def action_finished(self: Ladder, now_ms: int, outcome: Any) -> bool:
        taken: bool = method(self, now_ms, msgspec.structs.replace(outcome, leftovers=0))
        return taken

    return action_finished


# -- section 5: may we act for it ------------------------------------------------------


@breaks("◆ a fencing outcome counts only for the open request", Clearing, "fence_finished", fencing=True)
def any_fence_outcome_counts(method: Method) -> Method:
    def fence_finished(self: Clearing, now_ms: int, outcome: FenceFinished) -> Any:
        self.fence_id = outcome.request_id
        return method(self, now_ms, outcome)

    return fence_finished


@breaks("◆ leaving the phase cancels the fence request", Clearing, "reset", fencing=True)
def fence_is_never_cancelled(method: Method) -> Method:
    def reset(self: Clearing) -> list[Any]:
        return [effect for effect in method(self) if not isinstance(effect, CancelFence)]

    return reset


@breaks("◆ a fence clears the lives known when it was asked for", membership, "sight", fencing=True)
def fence_clears_later_lives(method: Method) -> Method:
    def sight(state: State, now_ms: int) -> Sight:
        seen: Sight = method(state, now_ms)
        fenced = seen.clearance is Clearance.FENCED
        return msgspec.structs.replace(seen, cleared=seen.peer_incarnation) if fenced else seen

    return sight


@breaks("only a confirmed off counts", Clearing, "fence_finished", fencing=True)
def unconfirmed_off_counts(method: Method) -> Method:
    def fence_finished(self: Clearing, now_ms: int, outcome: FenceFinished) -> Any:
        return method(self, now_ms, msgspec.structs.replace(outcome, confirmed=True))

    return fence_finished


@breaks("a silent peer loses its disks before anybody else writes to them", Clearing, "_seek_cut", fencing=False)
def data_is_cleared_by_silence(method: Method) -> Method:
    def _seek_cut(self: Clearing, now_ms: int, need: Need, ids: Ids) -> Any:
        return self._obtain(Clearance.DATA, "", need.incarnation)

    return _seek_cut


@breaks("◆ a renewal that comes too late removes the address", Leases, "hold", fencing=False)
def late_renewal_renews(method: Method) -> Method:
    def hold(self: Leases, *args: Any) -> list[RenewAddress]:
        far = 1 << 40
        return [msgspec.structs.replace(effect, not_after_ms=far) for effect in method(self, *args)]

    return hold


@breaks("◆ an address reported gone is never renewed", Ladder, "address_lost", fencing=False)
def lost_address_is_renewed(method: Method) -> Method:
    def address_lost(self: Ladder, *_args: Any) -> None:
        return None

    return address_lost


@breaks("◆ silence counts only where some other station answered", Clearing, "probe_finished", fencing=False)
def deaf_guard_counts(method: Method) -> Method:
    def probe_finished(self: Clearing, now_ms: int, outcome: ProbeFinished) -> Any:
        return method(self, now_ms, msgspec.structs.replace(outcome, listened=True))

    return probe_finished


@breaks("any answer blocks the takeover", Clearing, "probe_finished", fencing=False)
def guard_is_not_believed(method: Method) -> Method:
    def probe_finished(self: Clearing, now_ms: int, outcome: ProbeFinished) -> Any:
        return method(self, now_ms, msgspec.structs.replace(outcome, answered=(), listened=True))

    return probe_finished


@breaks("◆ every address added without fencing clearance is asked for first", Ladder, "_start", fencing=False)
def address_is_added_unasked(method: Method) -> Method:
    def start(self: Ladder, *args: Any) -> Any:
        effect = method(self, *args)
        return msgspec.structs.replace(effect, guard=False) if isinstance(effect, AddAddress) else effect

    return start
