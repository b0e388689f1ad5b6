"""How it stands: the core's views and the brain's figures → :class:`hostd.requests.Status`.

Decides what one word each node, service and problem gets.  Problems carry a
code and what they are about; their sentences are made in ``commands``.
Changes nothing and knows no socket.
"""

import datetime
from collections.abc import Iterable
from typing import Final

from hostd.core.node import Node
from hostd.core.plan import Service
from hostd.core.snapshot import Report, Snapshot, Wish, WishKind
from hostd.core.terms import Clearance, Mode, Phase, ResourceState, ServiceState, Why
from hostd.figures import Figures
from hostd.problems import problems_of
from hostd.requests import (
    FencingStatus,
    InstanceStatus,
    LinkStatus,
    NodeStatus,
    ResourceStatus,
    ServiceStatus,
    Status,
    WishStatus,
)

_WEIGHT: Final = {
    ServiceState.BLOCKED: 0,  # first: what needs a person
    ServiceState.STOPPING: 1,
    ServiceState.STARTING: 2,
    ServiceState.RECOVERING: 3,
    ServiceState.RUNNING: 4,
    ServiceState.UNKNOWN: 5,
    ServiceState.FAILED: 6,
    ServiceState.STOPPED: 7,
}
"""Which of two nodes' states a service on one of them is called by."""


def status_of(core: Node, figures: Figures, now_ms: int, wall: float) -> Status:
    """The whole status; ``wall`` is the wall clock at ``now_ms``, in seconds."""
    own, peer, heard = own_snapshot(core), core.peer_snapshot, core.peers.is_heard(now_ms)
    ages_ms = {core.me: now_ms - figures.published_at_ms, core.peer: now_ms - figures.peer_snapshot_at_ms}
    reports = {core.me: own.services}
    if peer is not None and (heard or core.clearance is Clearance.NONE):
        reports[core.peer] = peer.services
    stale = () if heard else (core.peer,)
    services = {
        service.name: _service(core, service, reports, stale, ages_ms, figures, wall) for service in core.plan.services
    }
    nodes = {
        name: _own_node(core, figures) if name == core.me else _peer_node(core, figures, now_ms)
        for name in core.plan.nodes
    }
    status = Status(
        cluster=core.plan.cluster,
        node=core.me,
        coordinator=own.coordinator,
        view=own.view,
        phase=own.phase.name.lower(),
        confirmed=own.confirmed,
        nodes=nodes,
        services=services,
        fencing=FencingStatus(
            mode="required" if core.plan.fencing else "none",
            ready=core.plan.fencing and not figures.clearing_detail,
            clearance=core.clearance.name.lower(),
        ),
        wishes=tuple(_wish(wish, own, peer) for wish in own.wishes),
        figures=dict(figures.counters),
    )
    return problems_of(status, core, figures, now_ms)


def one_line(core: Node, now_ms: int) -> str:
    """For ``systemctl status``."""
    own = own_snapshot(core)
    running = sum(report.state is ServiceState.RUNNING for report in own.services.values())
    heard = "heard" if core.peers.is_heard(now_ms) else "not heard"
    return f"{own.phase.name.lower()}, {running} services run here, {core.peer} {heard}"


def _own_node(core: Node, figures: Figures) -> NodeStatus:
    own = own_snapshot(core)
    state = "pending" if own.phase in (Phase.JOINING, Phase.STARTUP_FENCING) else "online"
    if own.phase is Phase.MEMBER and not own.confirmed:
        state = "pending"
    return NodeStatus(
        state=_wished_state(core, core.me, own, state),
        incarnation=f"{own.incarnation.boot}.{own.incarnation.nonce}",
        version=own.release,
        phase=own.phase.name.lower(),
        realtime=None if figures.heart is None else figures.heart.realtime,
    )


def _peer_node(core: Node, figures: Figures, now_ms: int) -> NodeStatus:
    peer, heard = core.peer_snapshot, core.peers.is_heard(now_ms)
    name = core.peer
    if heard and peer is not None:
        fit = peer.phase in (Phase.ALONE, Phase.PEER_LOST) or peer.confirmed
        fit = fit and peer.mode is not Mode.RESTARTING
        state = _wished_state(core, name, peer, "online" if fit else "pending")
    elif core.clearance in (Clearance.FENCED, Clearance.CONFIRMED):
        state = "fenced"
    elif core.clearance is not Clearance.NONE or (peer is not None and peer.phase is Phase.LEFT):
        state = "offline"
    elif peer is not None and peer.mode is Mode.RESTARTING:
        state = "pending"
    else:
        state = "unclean"
    return NodeStatus(
        state=state,
        incarnation=f"{peer.incarnation.boot}.{peer.incarnation.nonce}" if peer else "",
        version=peer.release if peer else "",
        phase=peer.phase.name.lower() if peer else "",
        heard=heard,
        links=_links(core, figures, now_ms),
    )


def _wished_state(core: Node, name: str, snapshot: Snapshot, state: str) -> str:
    if snapshot.phase is Phase.LEFT:
        return "offline"
    if snapshot.mode is Mode.LEAVING:
        return "leaving"
    if wish_value(own_snapshot(core), WishKind.STANDBY, name):
        return "standby"
    if wish_value(own_snapshot(core), WishKind.MAINTENANCE, ""):
        return "maintenance"
    return state


def _links(core: Node, figures: Figures, now_ms: int) -> dict[str, LinkStatus]:
    heart, heard = figures.heart, core.peers.is_heard(now_ms)
    links = {}
    for view in core.peers.links:
        gap_ms = heart.gap_max_ms.get(view.name) if heart else None
        links[view.name] = LinkStatus(
            send="up" if view.send_up and heard else "down",  # a silent peer's last word on it is void
            receive="up" if view.receive_up else "down",
            late_max_ms=None if gap_ms is None else max(0, gap_ms - core.plan.timers.keepalive_ms),
            last_heard_ms=None if view.heard_at_ms is None else max(0, now_ms - view.heard_at_ms),
            usable=view.usable,
            carrier=view.carrier.name.lower(),
            detail=view.detail,
            rejected=heart.rejected.get(view.name, 0) if heart else 0,
        )
    return links


def _service(
    core: Node,
    service: Service,
    reports: dict[str, dict[str, Report]],
    stale: tuple[str, ...],
    ages_ms: dict[str, int],
    figures: Figures,
    wall: float,
) -> ServiceStatus:
    found = {node: reports[node][service.name] for node in core.plan.nodes if service.name in reports.get(node, {})}
    believed = {
        node: ServiceState.UNKNOWN if node in stale and not report.state.is_stopped else report.state
        for node, report in found.items()
    }
    instances = {
        node: _instance(service, report, believed[node], figures if node == core.me else None, ages_ms[node], wall)
        for node, report in found.items()
    }
    where = [node for node, state in believed.items() if not state.is_stopped]
    named = min(believed, key=lambda node: _WEIGHT[believed[node]], default=None)
    state = believed[named] if named is not None else ServiceState.UNKNOWN
    chosen = instances.get(named) if named is not None else None
    wishes = own_snapshot(core)
    owners, why = _order(core, service)
    return ServiceStatus(
        state=state.name.lower(),
        node=named if named in where else None,
        nodes=tuple(where),
        primary=service.primary,
        since=chosen.since if chosen else None,
        failures=sum(report.failures for report in found.values()),
        resources=chosen.resources if chosen else (),
        owners=owners,
        why=why.name.lower() if why is not None else "",
        addresses=service.addresses,
        everywhere=service.everywhere,
        moved=wish_value(wishes, WishKind.MOVED, service.name),
        operator_stopped=bool(wish_value(wishes, WishKind.STOPPED, service.name)),
        maintenance=bool(
            wish_value(wishes, WishKind.MAINTENANCE, service.name) or wish_value(wishes, WishKind.MAINTENANCE, "")
        ),
        degraded=any(report.degraded for report in found.values()),
        instances=instances,
    )


def _order(core: Node, service: Service) -> tuple[tuple[str, ...], Why | None]:
    """Where it is to run and why.  The coordinator knows the reason; the other
    node sees the assignment and infers the reason from what both can see."""
    decision = core.decisions.get(service.name)
    if decision is not None and core.pair.is_coordinator:
        return decision.owners, decision.why
    order = core.orders.get(service.name)
    if order is None:
        return (), None
    if not order.owners:
        return (), Why.ORDERED
    if service.everywhere:
        return order.owners, Why.EVERYWHERE
    if wish_value(own_snapshot(core), WishKind.MOVED, service.name) == order.owners[0]:
        return order.owners, Why.MOVED
    return order.owners, Why.PRIMARY if order.owners[0] == service.primary else Why.STAYS


def own_snapshot(core: Node) -> Snapshot:
    """The core has published one since its first step; nobody asks before."""
    assert core.snapshot is not None
    return core.snapshot


def _instance(
    service: Service,
    report: Report,
    state: ServiceState,
    figures: Figures | None,
    age_ms: int,
    wall: float,
) -> InstanceStatus:
    """``figures``: of the local node only; ``age_ms``: of the snapshot that the report is in."""
    resources = []
    for index, resource in enumerate(service.resources):
        rung = report.resources[index] if index < len(report.resources) else ResourceState.UNKNOWN
        verified: bool | None = None
        if resource.address:
            verified = index < len(report.verified) and report.verified[index]
            if figures is not None:
                verified = figures.verified.get(resource.address, verified)
        resources.append(ResourceStatus(resource.id, resource.agent, rung.name.lower(), verified))
    since = wall - (age_ms + report.since_ms) / 1_000
    return InstanceStatus(
        state=state.name.lower(),
        banned=report.banned,
        failures=report.failures,
        degraded=report.degraded,
        since=datetime.datetime.fromtimestamp(since, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        resources=tuple(resources),
    )


def _wish(wish: Wish, own: Snapshot, peer: Snapshot | None) -> WishStatus:
    holders: Iterable[Snapshot] = (own,) if peer is None else (own, peer)
    held_by = tuple(snapshot.node for snapshot in holders if any(w.stamp >= wish.stamp for w in _same(wish, snapshot)))
    return WishStatus(wish.kind.name.lower(), wish.subject, wish.value, wish.serial, wish.node, held_by)


def _same(wish: Wish, snapshot: Snapshot) -> list[Wish]:
    return [w for w in snapshot.wishes if (w.kind, w.subject) == (wish.kind, wish.subject)]


def wish_value(snapshot: Snapshot, kind: WishKind, subject: str) -> str:
    """The value of a wish that this node holds, or empty."""
    for wish in snapshot.wishes:
        if (wish.kind, wish.subject) == (kind, subject):
            return wish.value
    return ""
