"""Who should run what?  Decides, as one pure function, the owner of every
service: plan x members x failures x wishes → owner, with the reason.

Refuses to know how a service gets there, and keeps no memory: what was
decided before comes in as ``current``.
"""

import msgspec

from hostd.core.plan import Plan, Service
from hostd.core.terms import Why


class Decision(msgspec.Struct, frozen=True):
    """Where a service should run: no node, one, or for ``on = "all"`` several."""

    owners: tuple[str, ...]
    why: Why


class Circumstances(msgspec.Struct, frozen=True):
    """What placement depends on besides the plan."""

    members: tuple[str, ...]
    """Nodes that may run services now, in configured order: present, active,
    neither in standby nor leaving."""
    leaving: tuple[str, ...] = ()
    """Nodes that give everything away, whatever else holds."""
    absent_why: Why = Why.NO_NODE
    """Why a node that is present is no member (standby, leaving)."""
    current: dict[str, tuple[str, ...]] = {}
    banned: dict[str, tuple[str, ...]] = {}
    """Per service the nodes where it failed for good."""
    stopped: tuple[str, ...] = ()
    """By the operator."""
    cut_off: tuple[str, ...] = ()
    """Members that serve nobody while another does: what runs on every node may stay there."""
    moved: dict[str, str] = {}
    """By the operator: service → the node it is to stay on."""
    frozen: dict[str, Why] = {}
    """Keeps its owner whatever else holds: maintenance, or configurations differ."""
    failback: tuple[str, ...] = ()
    """Services that may return to their primary now."""
    failback_waits: tuple[str, ...] = ()
    """Services that will, once the primary has been stable for long enough."""


def place(plan: Plan, now: Circumstances) -> dict[str, Decision]:
    """The owner of every service of the plan, in the plan's order."""
    decisions: dict[str, Decision] = {}
    leaders = _leaders(plan)
    homes = {
        leader: _home([s for s in plan.services if leaders[s.name] == leader], plan, now)
        for leader in dict.fromkeys(leaders.values())
    }
    for service in _in_order_of_need(plan):
        if service.name in now.frozen:
            owners = tuple(node for node in now.current.get(service.name, ()) if node not in now.leaving)
            decisions[service.name] = Decision(owners, now.frozen[service.name])
        elif service.name in now.stopped:
            decisions[service.name] = Decision((), Why.OPERATOR_STOPPED)
        elif service.everywhere:
            decisions[service.name] = _everywhere(service, plan, now)
        else:
            home = homes[leaders[service.name]]
            met = all(set(home.owners) & set(decisions[r].owners) for r in service.requires)
            if home.owners and not met:
                home = Decision((), Why.REQUIREMENT_MISSING)
            decisions[service.name] = home
    return {service.name: decisions[service.name] for service in plan.services}


def _everywhere(service: Service, plan: Plan, now: Circumstances) -> Decision:
    nodes = tuple(n for n in service.candidates if n in now.members and _eligible(service, n, plan, now))
    if nodes:
        return Decision(nodes, Why.EVERYWHERE)
    return Decision((), Why.FAILED_HERE if now.members else now.absent_why)


def _home(group: list[Service], plan: Plan, now: Circumstances) -> Decision:
    """One node for services that must run together (an exclusive requirement
    is co-location); mostly the group is a single service."""
    lead = group[0]
    names = tuple(s.name for s in group)
    possible = [
        node
        for node in lead.candidates
        if node in now.members
        and node not in now.cut_off
        and all(_eligible(s, node, plan, now) for s in group if s.name not in now.stopped)
    ]
    if not possible:
        present = any(node in now.members for node in lead.candidates)
        return Decision((), Why.FAILED_HERE if present else now.absent_why)
    moved = next((now.moved[n] for n in names if now.moved.get(n) in possible), None)
    if moved is not None:
        return Decision((moved,), Why.MOVED)
    here = next((o for n in names for o in now.current.get(n, ())), None)
    if here not in possible:
        home = possible[0]
        return Decision((home,), Why.PRIMARY if home == lead.primary else Why.BACKUP)
    if here == lead.primary:
        return Decision((here,), Why.PRIMARY)
    if lead.primary in possible:
        if any(n in now.failback for n in names):
            return Decision((lead.primary,), Why.FAILBACK)
        if any(n in now.failback_waits for n in names):
            return Decision((here,), Why.WAITS_FOR_FAILBACK)
    return Decision((here,), Why.STAYS)


def _eligible(service: Service, node: str, plan: Plan, now: Circumstances) -> bool:
    """The service has not failed there, nor has anything that it needs there."""
    if node in now.banned.get(service.name, ()) or node not in service.candidates:
        return False
    return all(
        _eligible(plan.service(name), node, plan, now) and _may_come_to(name, node, now) for name in service.requires
    )


def _may_come_to(name: str, node: str, now: Circumstances) -> bool:
    """A frozen service that runs somewhere is there or nowhere."""
    where = now.current.get(name, ())
    return name not in now.frozen or not where or node in where


def _leaders(plan: Plan) -> dict[str, str]:
    """Service → the first service of its co-location group in the plan's order."""
    leader = {service.name: service.name for service in plan.services}
    for service in plan.services:
        for need in service.requires:
            if plan.service(need).everywhere or service.everywhere:
                continue
            keep, drop = leader[need], leader[service.name]
            for name, lead in leader.items():
                if lead == drop:
                    leader[name] = keep
    return leader


def _in_order_of_need(plan: Plan) -> list[Service]:
    """Requirements before those who require; the configuration has no cycles."""
    order: list[Service] = []

    def visit(service: Service) -> None:
        if service in order:
            return
        for need in service.requires:
            visit(plan.service(need))
        order.append(service)

    for service in plan.services:
        visit(service)
    return order
