"""Where do we stand?  Brings together who is heard (``peers``), the pair's table
(``pair``) and the search for clearance (``fencing``), and decides what an own
pause or another's claim to one of our addresses means.

Refuses to know how services are assigned and climbed.
"""

from hostd.core import situation
from hostd.core.assignments import Assignments
from hostd.core.effects import (
    AddressDisputed,
    AnyEffect,
    ExitKind,
    PauseNoticed,
    PhaseChanged,
    Refusal,
    RenewIncarnation,
    Tell,
)
from hostd.core.events import ForeignClaim
from hostd.core.fencing import Need
from hostd.core.pair import CLEARED, Sight, Turn
from hostd.core.state import LAST_WORDS, State
from hostd.core.terms import NO_EPOCH, Clearance, Incarnation, Mode, Phase, ServiceState, Why


def notice_pause(state: State, now_ms: int, gap_ms: int) -> list[AnyEffect]:
    """We were away: judge nobody by silence from before; without fencing and
    for longer than deadtime, another node may have taken over (section 5)."""
    deadtime_ms = state.plan.timers.deadtime_ms
    if gap_ms <= deadtime_ms // 2:
        return []
    state.peers.listen_anew(now_ms, hearing=state.peers.hearing)
    effects: list[AnyEffect] = [Tell(PauseNoticed(gap_ms))]
    if gap_ms > deadtime_ms and not state.fencing and state.pair.phase is not Phase.LEFT:
        for ladder in state.ladders.values():
            effects += ladder.drop_addresses(state.ids)
        effects += entered(state, now_ms, state.pair.fall_back(Why.PAUSED))
    return effects


def take_claim(state: State, now_ms: int, claim: ForeignClaim) -> list[AnyEffect]:
    """Somebody else says that he has an address of ours.  If it is the peer
    and we hear it, its phase decides; if we do not hear it, the second in
    order gives way, but not before a frame could have come."""
    for ladder in state.ladders.values():
        if claim.address not in ladder.addresses_up:
            continue
        if may_be_the_peers(state, claim.station):
            state.disputed_at_ms.setdefault(ladder.service.name, now_ms)
        for rung in ladder.rungs:
            if rung.resource.address == claim.address and rung.announce_id is None:
                rung.announced = False  # say again that it is ours
        return [Tell(AddressDisputed(claim.address, claim.station))]
    return []


def may_be_the_peers(state: State, station: str) -> bool:
    """The peer published it; or, without fencing, no life of the peer has said
    yet which stations it has, and whoever claims our address may be the peer."""
    known = state.peers.snapshot
    return station in known.stations if known is not None else not state.fencing


def settle_disputes(state: State, now_ms: int) -> None:
    """A claim is settled by hearing the peer after it (its phase decides then),
    or, unheard, by order.  Heard before it says nothing: our clock may have stood."""
    wait_ms = 2 * state.plan.timers.keepalive_ms
    for name, claimed_at_ms in list(state.disputed_at_ms.items()):
        if state.peers.echo_at_ms is not None and state.peers.echo_at_ms > claimed_at_ms:
            del state.disputed_at_ms[name]
        elif now_ms >= claimed_at_ms + wait_ms:
            del state.disputed_at_ms[name]
            if not state.plan.is_first(state.me):
                state.yielding[name] = True


def confirm_down(state: State, now_ms: int, node: str) -> Refusal | None:
    """The operator says that the peer is off: valid in every phase while it is unheard."""
    if node == state.me:
        return Refusal.CONFIRM_OWN_NODE
    if node != state.peer:
        return Refusal.UNKNOWN_NODE
    if state.peers.is_heard(now_ms):
        return Refusal.PEER_IS_HEARD
    if state.pair.phase is Phase.ALONE:
        state.clearance = Clearance.CONFIRMED
        state.pair.settled = max(state.pair.settled, state.peers.incarnation)
        state.peers.declare_dead(state.peers.incarnation)
    else:
        state.confirmed_down = True
    return None


def fence_node(state: State, node: str) -> Refusal | None:
    """The operator wants the peer shot: PEER_LOST on purpose, until a device confirms or fails."""
    if node == state.me:
        return Refusal.FENCE_OWN_NODE
    if node != state.peer:
        return Refusal.UNKNOWN_NODE
    if not state.plan.fencing:
        return Refusal.NO_FENCING
    if not state.pair.is_confirmed and not state.pair.seeks_clearance:
        return Refusal.NOTHING_TO_FENCE
    state.fence_asked = True
    return None


def turn(state: State, now_ms: int) -> list[AnyEffect]:
    """Membership: seek clearance if that is called for, then decide the phase."""
    if state.peers.is_heard(now_ms):
        state.confirmed_down = False  # whoever is heard is not down, whatever was typed
    effects = state.clearing.seek(now_ms, need(state, now_ms), state.ids)
    if state.renewing or state.pair.phase is Phase.LEFT:
        return effects
    if may_leave(state):
        return [*effects, *entered(state, now_ms, state.pair.leave())]
    seen = sight(state, now_ms)
    turn = state.pair.decide(seen)
    if turn is None:
        return effects
    if turn.phase is Phase.ALONE:
        state.clearance = seen.clearance if turn.why in CLEARED.values() else Clearance.NONE
        table = state.orders
        state.address_fell_silent = situation.peer_had_address(state.plan, state.peer, seen.last_word, table)
        if state.clearance in (Clearance.FENCED, Clearance.CONFIRMED):
            state.peers.declare_dead(seen.cleared)
    return [*effects, *entered(state, now_ms, turn)]


def entered(state: State, now_ms: int, turn: Turn) -> list[AnyEffect]:
    """What belongs to a phase that has just been entered."""
    effects: list[AnyEffect] = [Tell(PhaseChanged(turn.phase, turn.confirmed, state.pair.view, turn.why))]
    if not (state.pair.is_confirmed or state.pair.seeks_clearance):
        state.fence_asked = False
    if turn.phase is not Phase.ALONE:
        state.clearance = Clearance.NONE
    if turn.phase not in (Phase.STARTUP_FENCING, Phase.JOINING, Phase.PEER_LOST):
        state.confirmed_down = False
    if turn.phase is Phase.JOINING:
        state.orders = {}
    if turn.yields and not state.renewing:
        state.renewing = True
        effects.append(RenewIncarnation())
    if turn.phase is Phase.LEFT:
        state.exit_kind = ExitKind.LEFT
        state.exit_at_ms = now_ms + LAST_WORDS * state.plan.timers.keepalive_ms
    return effects


def sight(state: State, now_ms: int) -> Sight:
    """What the pair's table is asked with."""
    word = state.peers.word(now_ms)
    unknown = any(ladder.state is ServiceState.UNKNOWN for ladder in state.ladders.values())
    same_nodes = word is None or word.nodes == state.plan.nodes
    on_probation = tuple(name for name, until_ms in state.probation_until_ms.items() if now_ms < until_ms)
    blocked = word is not None and situation.is_blocked(word, on_probation)
    clearance, cleared = state.clearing.obtained, state.clearing.cleared
    if state.confirmed_down and word is None:
        clearance, cleared = Clearance.CONFIRMED, state.peers.incarnation
    return Sight(
        incarnation=state.incarnation,
        word=word,
        last_word=state.peers.last_word,
        peer_incarnation=state.peers.incarnation,
        silence_ms=state.peers.silence_ms(now_ms),
        silence_limit_ms=state.peers.silence_limit_ms(),
        clearance=clearance,
        cleared=cleared,
        may_form=not unknown and same_nodes and state.mode is Mode.ACTIVE,
        peer_blocked=state.fence_asked or (blocked and state.fencing and not state.reach.is_cut_off),
    )


def need(state: State, now_ms: int) -> Need:
    """What has to be cleared before we may act for the peer, if anything."""
    quiet = state.peers.silence_ms(now_ms) >= state.plan.timers.warntime_ms or state.peers.power_seen_to_go
    last = state.peers.last_word
    mine = sum(not ladder.state.is_stopped for ladder in state.ladders.values())
    theirs = sum(situation.runs_there(r) for r in last.services.values()) if last else 0
    spares = mine < theirs or (mine == theirs and not state.plan.is_first(state.me))
    return Need(
        seeking=state.pair.seeks_clearance and (state.pair.must_fence or not state.peers.is_heard(now_ms)),
        startup=state.pair.phase is Phase.STARTUP_FENCING and not state.fence_asked,
        early=state.pair.is_confirmed and quiet,
        devices=state.fencing,
        peer=state.peer,
        incarnation=state.peers.incarnation,
        addresses=situation.addresses_to_ask_for(state.plan, state.ladders, fencing=state.fencing),
        delay_ms=state.plan.fence_delay_ms if spares and not state.fence_asked else 0,
        said_goodbye=situation.said_goodbye(state.peer, last, state.orders),
        cut_off=state.reach.is_cut_off and not state.fence_asked,
        storage=state.plan.cuts_storage,
    )


def may_leave(state: State) -> bool:
    """Leaving, with nothing left here and, in a view, nothing assigned to us."""
    if state.mode is not Mode.LEAVING:
        return False
    if not all(ladder.state.is_stopped for ladder in state.ladders.values()):
        return False
    if not state.pair.is_confirmed:
        return True
    return not any(state.me in assignment.owners for assignment in state.orders.values())


def begin_life(state: State, now_ms: int, incarnation: Incarnation) -> None:
    """A new incarnation: what was held, obeyed or echoed was another's."""
    assert incarnation > state.incarnation, (incarnation, state.incarnation)
    state.incarnation = incarnation
    state.renewing = False
    state.pair.begin_life()
    state.assignments = Assignments(state.plan)
    state.orders = {}
    state.peers.forget_echoes()
    state.peers.listen_anew(now_ms, hearing=state.peers.hearing)
    for ladder in state.ladders.values():
        ladder.obeyed = NO_EPOCH
