"""What is our part?  Brings together placement and assignments: makes the table
if we are the coordinator, and takes the newest orders of the view.

Refuses to know how an order is carried out here.
"""

from typing import Final

from hostd.core import situation
from hostd.core.assignments import Members
from hostd.core.effects import AnyEffect, Tell
from hostd.core.placement import Circumstances, place
from hostd.core.snapshot import Assignment, Snapshot, WishKind
from hostd.core.state import State
from hostd.core.terms import Phase, Why

CUT_OFF_MS: Final = 2_000
"""The two nodes ask the tiebreaker at different moments, and hear of each other's answers later still."""


def obey(state: State, now_ms: int) -> None:
    """Take newer assignments of this view: our own table, or the coordinator's."""
    table: dict[str, Assignment] = {}
    if state.pair.is_coordinator:
        table = state.assignments.table
    elif state.pair.is_confirmed:
        word = state.peers.word(now_ms)
        if word is not None and word.view == state.pair.view and word.coordinator == state.pair.coordinator:
            table = word.assignments
    for name, assignment in table.items():
        ladder = state.ladders.get(name)
        if ladder is not None and assignment.epoch > ladder.obeyed and assignment.epoch.view == state.pair.view:
            ladder.obeyed = assignment.epoch
            state.orders[name] = assignment


def assign(state: State, now_ms: int) -> list[AnyEffect]:
    """As coordinator: form the table of a new view, then take every safe step towards placement."""
    if not state.pair.is_coordinator:
        return []
    effects: list[AnyEffect] = []
    word = state.peers.word(now_ms)
    if state.assignments.view != state.pair.view:
        effects += form(state, now_ms, word)
        obey(state, now_ms)
    known = members(state, now_ms, word)
    now = circumstances(state, now_ms)
    for service in state.plan.services:
        if not service.everywhere and service.primary in state.cut_off and service.primary not in now.cut_off:
            state.failback_since[service.name] = now_ms  # its primary can serve again
    state.cut_off = now.cut_off
    state.decisions = place(state.plan, circumstances(state, now_ms))
    effects += [Tell(fact) for fact in state.assignments.update(state.decisions, known)]
    for name in list(state.failback_since):
        service = state.plan.service(name)
        assignment = state.assignments.table.get(name)
        if assignment is not None and assignment.owners == (service.primary,):
            del state.failback_since[name]
    drop_void_moves(state, now_ms)
    return effects


def form(state: State, now_ms: int, word: Snapshot | None) -> list[AnyEffect]:
    """A new view begins with what runs; those who joined may get services back."""
    reports = {state.me: state.reports()}
    state.failback_since = {}
    if state.pair.is_confirmed:
        assert word is not None
        reports[state.peer] = word.services
        state.failback_since = {s.name: now_ms for s in state.plan.services if not s.everywhere}
    return [Tell(fact) for fact in state.assignments.form(state.pair.view, reports, state.me)]


def members(state: State, now_ms: int, word: Snapshot | None) -> Members:
    """Who has to report a service stopped before it may start here or there."""
    if state.pair.phase is Phase.ALONE:
        return situation.members_alone(
            state.plan, state.me, state.reports(), state.clearance, word, state.peers.last_word,
            fencing=state.fencing,
            heard=state.peers.is_heard(now_ms),
            new_life=state.peers.incarnation > state.pair.settled,
            address_fell_silent=state.address_fell_silent,
        )  # fmt: skip
    last = state.peers.last_word
    in_view = last is not None and last.phase is Phase.MEMBER and last.view == state.pair.view
    theirs = last.services if last is not None and in_view else {}
    return Members({state.me: state.reports(), state.peer: theirs})


def circumstances(state: State, now_ms: int) -> Circumstances:
    """What placement depends on besides the plan, as far as this node knows."""
    modes = {state.me: state.mode}
    reports = {state.me: state.reports()}
    last = state.peers.last_word
    reached = {state.me: state.reach.word(now_ms)}
    state.differing = ()
    if state.pair.is_confirmed and last is not None:
        modes[state.peer] = last.mode
        reports[state.peer] = last.services
        reached[state.peer] = last.reached
        state.differing = situation.differing_services(state.plan, last)
    current = {name: assignment.owners for name, assignment in state.orders.items()}
    failback = {
        name: now_ms >= due for name in state.failback_since if (due := failback_at_ms(state, name)) is not None
    }
    return situation.circumstances(
        state.plan, modes, state.wishes, reports, current, state.differing, failback,
        cut_off=_cut_off(state, now_ms, situation.cut_off(reached)),
    )  # fmt: skip


def _cut_off(state: State, now_ms: int, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of them that have been for a while: a tiebreaker that is gone is missed first by one, then by both."""
    state.cut_off_since = {node: state.cut_off_since.get(node, now_ms) for node in nodes}
    return tuple(node for node, since_ms in state.cut_off_since.items() if now_ms - since_ms >= CUT_OFF_MS)


def failback_at_ms(state: State, name: str) -> int | None:
    """When the primary has been back for long enough; None if nothing is pending."""
    wait_ms = state.plan.service(name).failback_after_ms
    since = state.failback_since.get(name)
    return None if wait_ms is None or since is None else since + wait_ms


def drop_void_moves(state: State, now_ms: int) -> None:
    """A move holds until its node fails, goes standby or leaves."""
    members = circumstances(state, now_ms).members
    for service in state.plan.services:
        node = state.wishes.value(WishKind.MOVED, service.name)
        decision = state.decisions.get(service.name)
        if decision is not None and decision.why in (Why.MAINTENANCE, Why.CONFIGURATION_DIFFERS):
            continue
        gone = node not in members or (decision is not None and decision.owners not in ((), (node,)))
        if node and gone and not state.wishes.has(WishKind.STOPPED, service.name):
            state.wishes.make(state.me, WishKind.MOVED, service.name, "")
            state.wishes_dirty = True
