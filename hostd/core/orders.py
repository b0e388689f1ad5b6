"""What is to be done with a service here?  Decides the order for one ladder from
the phase, the assignment, and what the service needs or is needed by.

Refuses to know rungs and actions.
"""

from hostd.core import duties, situation
from hostd.core.plan import Service
from hostd.core.services import Ladder
from hostd.core.state import State
from hostd.core.terms import Clearance, Mode, Phase, ServiceState, Why
from hostd.core.wants import Order, Want

IN_USE = (ServiceState.STARTING, ServiceState.RUNNING, ServiceState.RECOVERING, ServiceState.BLOCKED)
"""States in which a node certainly has a service; UNKNOWN is probed first, STOPPING ends by itself."""


def want(state: State, now_ms: int, service: Service, ladder: Ladder) -> Want:
    """The order for one service here (the table of PROTOCOL.md section 2, last column)."""
    phase = state.pair.phase
    free = all(
        state.ladders[other.name].state.is_stopped for other in state.plan.services if service.name in other.requires
    )
    if not ladder.state.is_stopped and must_give_way(state, now_ms, service):
        state.yielding[service.name] = True
    if service.name in state.yielding:
        return Want(Order.YIELD, Why.PEER_ALONE, free=free)
    if state.wishes.in_maintenance(service.name) and state.mode is not Mode.LEAVING:
        return Want(Order.FREEZE, Why.MAINTENANCE)
    if phase is Phase.LEFT or state.mode is Mode.RESTARTING:
        return Want(Order.HOLD, Why.NODE_LEAVING)
    if state.mode is Mode.LEAVING and (not state.pair.is_confirmed or service.name not in state.orders):
        return Want(Order.STOP, Why.NODE_LEAVING, free=free)
    if phase is Phase.PEER_LOST and state.reach.is_cut_off and not state.fencing and not service.everywhere:
        return Want(Order.STOP, Why.NODE_CUT_OFF, free=free)
    if phase is Phase.PEER_LOST:
        return Want(Order.HOLD if state.fencing else Order.UNDO, Why.PEER_SILENT, free=free)
    if not state.pair.is_confirmed and phase is not Phase.ALONE:
        return Want(Order.HOLD, Why.STARTED, free=free)
    if state.pair.is_confirmed and not state.peers.is_answered:
        return Want(Order.HOLD, Why.PAUSED, free=free)
    assignment = state.orders.get(service.name)
    if assignment is None or state.me not in assignment.owners:
        return Want(Order.STOP, assignment.why, free=free) if assignment else Want(Order.HOLD, Why.STARTED, free=free)
    if phase is Phase.ALONE and ladder.state is not ServiceState.RUNNING and _is_claimed(state, now_ms, service):
        return Want(Order.HOLD, Why.WAITS_FOR_STOP, free=free)
    needs = [state.ladders[name] for name in service.requires]
    if not ladder.state.is_stopped and not all(is_there(state, need) for need in needs):
        return Want(Order.STOP, Why.REQUIREMENT_MISSING, free=free)
    ready = (
        all(need.state is ServiceState.RUNNING for need in needs)
        and all(is_settled(state, now_ms, name) for name in service.after)
        and not peer_may_run(state, now_ms, service)
    )
    guard = state.clearance not in (Clearance.FENCED, Clearance.CONFIRMED) or phase is not Phase.ALONE
    return Want(Order.RUN, assignment.why, guard=guard, ready=ready, free=free, renew=is_renewed(state, ladder))


def is_there(state: State, need: Ladder) -> bool:
    """What requires it may go on.  One that has to stop waits for what requires it, so that has to stop first."""
    must_stop = need.gave_up or need.service.name in state.yielding or is_renewed(state, need)
    needs = (state.ladders[name] for name in need.service.requires)
    return need.serves and not must_stop and all(is_there(state, other) for other in needs)


def is_kept(state: State, name: str) -> bool:
    """It will not stop: its own stop failed, or that of a service that requires it."""
    if state.ladders[name].state is ServiceState.BLOCKED:
        return True
    return any(is_kept(state, other.name) for other in state.plan.services if name in other.requires)


def is_renewed(state: State, ladder: Ladder) -> bool:
    """It runs under an older definition, and both nodes know the new one: until
    then it must not be started, so it is not stopped either."""
    name = ladder.service.name
    if not ladder.outdated or ladder.state.is_stopped or state.wishes.in_maintenance(name):
        return False
    word = state.peers.last_word if state.pair.is_confirmed else None
    return name not in situation.differing_services(state.plan, word)


def must_give_way(state: State, now_ms: int, service: Service) -> bool:
    """Both nodes run an exclusive service (the end of a split), and it is not
    ours to keep: the one that acts alone keeps it, then the one that the
    assignment names, then the first in order."""
    word = state.peers.word(now_ms)
    report = word.services.get(service.name) if word is not None else None
    if service.everywhere or word is None or report is None or report.state not in IN_USE:
        return False
    if state.pair.is_confirmed:
        assignment = state.orders.get(service.name)
        return assignment is not None and state.me not in assignment.owners
    if state.pair.phase not in (Phase.JOINING, Phase.MEMBER):
        return False
    return word.phase is Phase.ALONE or not state.plan.is_first(state.me)


def peer_may_run(state: State, now_ms: int, service: Service) -> bool:
    """A peer that we hear may be running an exclusive service by its last word:
    whatever was assigned, and even to restart it after a failure, we wait.  So
    also while a newer word is under way, which may say anything."""
    word = state.peers.last_word if state.peers.is_heard(now_ms) else None
    return not service.everywhere and word is not None and situation.runs_there(word.services.get(service.name))


def is_settled(state: State, now_ms: int, name: str) -> bool:
    """For ``after``: it runs somewhere, or it is not going to."""
    last = state.peers.last_word
    theirs = last.services.get(name) if last is not None and state.pair.is_confirmed else None
    states = [state.ladders[name].state, *([theirs.state] if theirs is not None else [])]
    assignment = state.orders.get(name)
    decision = state.decisions.get(name) if state.pair.is_coordinator else None
    if assignment is None or not assignment.owners:
        between_owners = decision is not None and bool(decision.owners)
        return state.pair.phase is Phase.ALONE or not between_owners  # alone, it is not cleared for us
    done = (ServiceState.RUNNING, ServiceState.FAILED, ServiceState.BLOCKED)
    return any(state in done for state in states)


def _is_claimed(state: State, now_ms: int, service: Service) -> bool:
    """While we are ALONE, a life of the peer that our clearance does not cover
    may be running it: it gives way when it hears us, and not before then do we
    start anything, not even what we have already assigned to ourselves."""
    known = duties.members(state, now_ms, state.peers.word(now_ms))
    if service.everywhere:
        return False
    return known.outside_unknown or situation.runs_there((known.outside or {}).get(service.name))
