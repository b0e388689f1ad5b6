"""What is the case now?  Gathers from words and wishes what placement,
assignments, clearance and commands decide from.

Pure functions of plan, words and wishes.  Refuses to decide: each returns a
structure that one of the machines takes.
"""

from hostd.core.assignments import Members
from hostd.core.pair import NEWCOMER
from hostd.core.placement import Circumstances
from hostd.core.plan import Plan, Service
from hostd.core.services import Ladder
from hostd.core.snapshot import Assignment, Report, Snapshot, WishKind
from hostd.core.terms import Clearance, Mode, Phase, ServiceState, Why
from hostd.core.wishes import Wishes


def report_of(ladder: Ladder) -> Report:
    """One service as this node publishes it."""
    return Report(
        state=ladder.state,
        obeyed=ladder.obeyed,
        banned=ladder.banned,
        failures=len(ladder.failures),
        resources=tuple(rung.state for rung in ladder.rungs),
        verified=tuple(rung.verified for rung in ladder.rungs),
        degraded=any(rung.degraded for rung in ladder.rungs),
    )


def runs_there(report: Report | None) -> bool:
    """It may be running there; a service that the node does not know is not."""
    return report is not None and not report.state.is_stopped


def circumstances(
    plan: Plan,
    modes: dict[str, Mode],
    wishes: Wishes,
    reports: dict[str, dict[str, Report]],
    current: dict[str, tuple[str, ...]],
    differing: tuple[str, ...],
    failback: dict[str, bool],
    cut_off: tuple[str, ...] = (),
) -> Circumstances:
    """What placement depends on.

    ``modes``: of the nodes that are present; ``failback``: per service that
    may return to its primary, whether the primary was stable for long enough.
    """
    ready = [n for n in plan.nodes if modes.get(n) is Mode.ACTIVE]
    members = tuple(n for n in ready if not wishes.has(WishKind.STANDBY, n))
    if any(mode is Mode.LEAVING for mode in modes.values()):
        absent_why = Why.NODE_LEAVING
    else:
        absent_why = Why.NODE_STANDBY if ready else Why.NO_NODE
    frozen: dict[str, Why] = {}
    for service in plan.services:
        if service.name in differing:
            frozen[service.name] = Why.CONFIGURATION_DIFFERS
        elif wishes.in_maintenance(service.name):
            frozen[service.name] = Why.MAINTENANCE
    return Circumstances(
        members=members,
        leaving=tuple(node for node in plan.nodes if modes.get(node) is Mode.LEAVING),
        absent_why=absent_why,
        current=current,
        banned={s.name: banned_on(plan, s, reports) for s in plan.services},
        cut_off=tuple(node for node in members if node in cut_off),
        stopped=tuple(s.name for s in plan.services if wishes.has(WishKind.STOPPED, s.name)),
        moved={s.name: wishes.value(WishKind.MOVED, s.name) for s in plan.services},
        frozen=frozen,
        failback=tuple(name for name, due in failback.items() if due),
        failback_waits=tuple(name for name, due in failback.items() if not due),
    )


def cut_off(reached: dict[str, bool | None]) -> tuple[str, ...]:
    """Nodes that do not reach the tiebreaker while another one does; if nobody
    does, it is the tiebreaker that is gone."""
    return tuple(n for n, word in reached.items() if word is False and any(other for other in reached.values()))


def banned_on(plan: Plan, service: Service, reports: dict[str, dict[str, Report]]) -> tuple[str, ...]:
    """Nodes where the service failed for good, in configured order."""
    return tuple(n for n in plan.nodes if n in reports and (r := reports[n].get(service.name)) is not None and r.banned)


def members_alone(
    plan: Plan,
    me: str,
    reports: dict[str, Report],
    clearance: Clearance,
    word: Snapshot | None,
    last_word: Snapshot | None,
    *,
    fencing: bool,
    heard: bool,
    new_life: bool,
    address_fell_silent: bool,
) -> Members:
    """What a node that is ALONE may start (PROTOCOL.md sections 3 and 5.4).

    ``new_life``: a life of the peer was heard that the clearance does not
    cover; ``address_fell_silent``: the peer had an address, and it answers
    no more, which without fencing is the proof for services without one.
    """
    mine = {me: reports}
    last = word if word is not None else last_word
    provable: tuple[str, ...] | None = None
    if clearance is not Clearance.FENCED and clearance is not Clearance.CONFIRMED and not fencing:
        # The peer may act alone by its own guard: only what has an address is kept apart.
        provable = tuple(s.name for s in plan.services if s.addresses or s.without_fencing or s.everywhere)
    if last is not None and last.phase is Phase.LEFT:
        return Members(mine, outside=last.services)  # final for that life, even if silent since
    if heard and word is None:
        return Members(mine, outside_unknown=True)  # it lives, and its newest word is still under way
    if word is not None or new_life:
        if last is None or last.phase not in (*NEWCOMER, Phase.LEFT):
            return Members(mine, outside_unknown=True)  # it lives, and one of us has yet to yield
        return Members(mine, outside=last.services, provable=None if word is not None else provable)
    if clearance in (Clearance.GUARD, Clearance.DATA) and not address_fell_silent:
        return Members(mine, provable=provable)
    return Members(mine)


def addresses_to_ask_for(plan: Plan, ladders: dict[str, Ladder], *, fencing: bool) -> tuple[str, ...]:
    """Every address of a service that does not run here: the guard asks for them
    all.  Holding an address is no proof that nobody else runs its service: it
    may be what an earlier life left behind.

    If all run here there is nothing to find out for a device; but without
    fencing the guard's word also covers services without an address, and a
    node that nobody answers may be the one that is cut off: then it asks for
    those that it holds itself.
    """
    elsewhere = tuple(
        address
        for service in plan.services
        if ladders[service.name].state is not ServiceState.RUNNING
        for address in service.addresses
    )
    return elsewhere if elsewhere or fencing else tuple(a for service in plan.services for a in service.addresses)


def peer_had_address(plan: Plan, peer: str, last: Snapshot | None, table: dict[str, Assignment]) -> bool:
    """By its last word or by assignment the peer held an address."""
    for service in plan.services:
        assigned = service.name in table and peer in table[service.name].owners
        ran = last is not None and runs_there(last.services.get(service.name))
        if service.addresses and (assigned or ran):
            return True
    return False


def said_goodbye(peer: str, last: Snapshot | None, table: dict[str, Assignment]) -> bool:
    """The peer left, or was leaving with nothing running and nothing assigned."""
    if last is None:
        return False
    if last.phase is Phase.LEFT:
        return True
    running = any(runs_there(report) for report in last.services.values())
    assigned = any(peer in assignment.owners for assignment in table.values())
    return last.mode is Mode.LEAVING and not running and not assigned


def is_blocked(word: Snapshot, on_probation: tuple[str, ...]) -> bool:
    """A stop failed there for good, so that the node has to be made to let go.

    A new service may still be ill-configured: it does not cost the node the
    others that run there.
    """
    blocked = [name for name, report in word.services.items() if report.state is ServiceState.BLOCKED]
    others = any(runs_there(report) for name, report in word.services.items() if name not in blocked)
    return any(name not in on_probation or not others for name in blocked)


def differing_services(plan: Plan, word: Snapshot | None) -> tuple[str, ...]:
    """Services that the peer knows otherwise, or not at all."""
    if word is None:
        return ()
    return tuple(s.name for s in plan.services if word.digests.get(s.name) != s.digest)
