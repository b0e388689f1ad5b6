"""How it stands: the core's views and the brain's figures → :class:`hostd.status_form.Status`.

Decides what one word each node, service and problem gets.  Problems carry a
code and what they are about; their sentences are made in ``commands``.
Changes nothing and knows no socket.
"""

import datetime
from collections.abc import Iterable
from typing import Final

import msgspec

from hostd.core.node import Node
from hostd.core.plan import Service
from hostd.core.snapshot import Report, Snapshot, Wish, WishKind
from hostd.core.terms import Clearance, Incarnation, Mode, Phase, ResourceState, ServiceState, Why
from hostd.drill_book import could_shoot
from hostd.figures import Figures
from hostd.problems import problems_of
from hostd.status_form import (
    FencingStatus,
    HeartStatus,
    InstanceStatus,
    LinkStatus,
    NodeStatus,
    ResourceStatus,
    ServiceStatus,
    Status,
    WatchdogStatus,
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


def life_of_peer(core: Node, now_ms: int) -> Incarnation | None:
    """The life of the peer that is heard now."""
    return core.peers.incarnation if core.peers.is_heard(now_ms) else None


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
    for aside in figures.set_aside:
        reports[core.me] = own.services | {aside.service.name: figures.aside_report(aside.service.name)}
        seen = _service(core, aside.service, reports, stale, ages_ms, figures, wall)
        services[aside.service.name] = _not_ours(seen, aside.reason, core.me)
    nodes = {
        name: _own_node(core, figures) if name == core.me else _peer_node(core, figures, now_ms)
        for name in core.plan.nodes
    }
    devices = figures.drills.statuses(life_of_peer(core, now_ms))
    status = Status(
        cluster=core.plan.cluster,
        node=core.me,
        coordinator=own.coordinator,
        view=own.view,
        phase=own.phase.name.lower(),
        confirmed=own.confirmed,
        nodes=nodes,
        services=dict(sorted(services.items())),
        fencing=FencingStatus(
            mode="required" if core.plan.fencing else "storage" if core.plan.cuts_storage else "none",
            ready=(core.plan.fencing or core.plan.cuts_storage)
            and figures.fences_peer
            and could_shoot(devices)
            and not figures.fencing_failure,
            clearance=core.clearance.name.lower(),
            devices=devices,
        ),
        watchdog=_watchdog(figures),
        wishes=tuple(_wish(wish, own, peer) for wish in own.wishes),
        figures=dict(figures.counters),
        heart=_heart(figures),
        recoveries=figures.recoveries,
        recovered=figures.recovered,
    )
    return problems_of(status, core, figures, now_ms)


def one_line(core: Node, figures: Figures, now_ms: int) -> str:
    """For ``systemctl status``."""
    own = own_snapshot(core)
    running = sum(report.state is ServiceState.RUNNING for report in own.services.values())
    aside = f", {len(figures.set_aside)} set aside" if figures.set_aside else ""
    heard = "heard" if core.peers.is_heard(now_ms) else "not heard"
    return f"{own.phase.name.lower()}, services here: {running}{aside}, {core.peer} {heard}"


def _watchdog(figures: Figures) -> WatchdogStatus | None:
    word = figures.watchdog
    if not figures.watchdog_device:
        return None
    if word is None:  # the host has not said a word yet
        return WatchdogStatus(figures.watchdog_device, armed=False)
    return WatchdogStatus(figures.watchdog_device, word.timeout_ms > 0, word.timeout_ms, word.identity, word.detail)


def _heart(figures: Figures) -> HeartStatus | None:
    heart = figures.heart
    return None if heart is None else HeartStatus(heart.realtime, heart.locked, heart.late_max_ms)


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
        reached=own.reached,
        watchdog_ms=own.watchdog_ms,
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
        reached=peer.reached if peer is not None and heard else None,
        watchdog_ms=peer.watchdog_ms if peer is not None else 0,
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
    heart, said_at_ms = figures.heart, core.peers.frame_at_ms
    limit_ms = min(core.peers.silence_limit_ms(), core.plan.timers.deadtime_ms)
    # Who is silent for so long hears nobody as far as we know, whatever was his last word on it
    speaks = said_at_ms is not None and now_ms - said_at_ms < limit_ms
    links = {}
    for view in core.peers.links:
        gap_ms = heart.gap_max_ms.get(view.name) if heart else None
        links[view.name] = LinkStatus(
            send="up" if view.send_up and speaks else "down",
            receive="up" if view.receive_up and speaks else "down",
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
    owners, why = _order(core, service, found)
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


def _not_ours(seen: ServiceStatus, reason: str, me: str) -> ServiceStatus:
    """A service that is set aside here: it is where the peer says that it runs,
    else here if an earlier daemon may have left it running."""
    elsewhere = tuple(node for node in seen.nodes if node != me)
    mine = msgspec.structs.replace(seen.instances[me], since="", resources=())
    instances = {node: mine if node == me else instance for node, instance in seen.instances.items()}
    nodes = elsewhere or seen.nodes
    since = seen.since if elsewhere else None
    return msgspec.structs.replace(
        seen,
        node=nodes[0] if nodes else None,
        nodes=nodes,
        since=since,
        instances=instances,
        resources=(),
        set_aside=reason,
    )


_PLAIN: Final = (Why.ADOPTED, Why.ORDERED, Why.PRIMARY, Why.BACKUP, Why.STAYS)
"""How an assignment came about, or that nothing changes it: what holds now tells more."""


def _order(core: Node, service: Service, found: dict[str, Report]) -> tuple[tuple[str, ...], Why | None]:
    """Where it is to run and why, the same on both nodes as far as can be.

    The coordinator decides the reason anew all the time; the other node has
    the one that came with the assignment.
    """
    decision, order = core.decisions.get(service.name), core.orders.get(service.name)
    plain: tuple[Why, ...] = _PLAIN
    if decision is not None and core.pair.is_coordinator:
        owners, why = decision.owners, decision.why
    elif order is not None:
        owners, why, plain = order.owners, order.why, (*_PLAIN, Why.FAILBACK)  # if it is there, it is over
    else:
        return (), None
    if not owners and why is Why.ADOPTED:  # a new view found it nowhere: why that is so, only the coordinator knows
        return (), None
    if not owners or why not in plain:
        return owners, why
    if service.everywhere:
        return owners, Why.EVERYWHERE
    if wish_value(own_snapshot(core), WishKind.MOVED, service.name) == owners[0]:
        return owners, Why.MOVED
    if owners[0] == service.primary:
        return owners, Why.PRIMARY
    return owners, Why.STAYS if _can_run(core, service.primary, found) else Why.BACKUP


def _can_run(core: Node, node: str, found: dict[str, Report]) -> bool:
    """As far as nodes go: it is there, takes services, and this one has not failed there."""
    is_there = node == core.me or core.peers.is_heard(core.stepped_at_ms or 0)
    is_banned = node in found and found[node].banned
    return is_there and not is_banned and not wish_value(own_snapshot(core), WishKind.STANDBY, node)


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
