"""What somebody should look at, from a status and what stands behind it.

Decides which conditions are problems and how severe each is.  An ``error``
makes ``hostd status`` exit with 1: a service that should run does not, or the
next failure would not be survived.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from hostd.core.node import Node
from hostd.core.terms import Phase, ResourceState
from hostd.drill_book import could_shoot, is_wrong
from hostd.figures import Figures
from hostd.status_form import Problem, ServiceStatus, Status

DISPUTE_MS: Final = 15_000
"""A foreign claim to an address of ours is shown for so long."""
_ORDER: Final = {"error": 0, "warning": 1, "info": 2}


def problems_of(status: Status, core: Node, figures: Figures, now_ms: int) -> Status:
    """The same status with its problems, worst first."""
    found = [
        *_of_peer(status, core, figures, now_ms),
        *_of_links(status, core),
        *_of_services(status),
        *_of_set_aside(status, figures),
        *_of_removed(status, figures),
        *_of_addresses(status, figures, now_ms),
        *_of_agreement(status, core, figures),
        *_of_fencing_devices(status),
        *_of_watchdog(status),
        *_of_this_node(core, figures),
    ]
    found.sort(key=lambda problem: _ORDER[problem.severity])  # stable: within a severity as listed above
    return msgspec.structs.replace(status, problems=tuple(found))


def _of_peer(status: Status, core: Node, figures: Figures, now_ms: int) -> Iterator[Problem]:
    peer = core.peer
    state = status.nodes[peer].state
    about = {"node": peer}
    if core.pair.phase is Phase.PEER_LOST:
        if figures.clearing_detail and not core.plan.fencing:
            yield Problem("error", "takeover-waits", about | {"detail": figures.clearing_detail})
        yield Problem("error", "peer-lost", about | {"fencing": status.fencing.mode})
    elif core.pair.phase in (Phase.JOINING, Phase.STARTUP_FENCING) and not status.nodes[core.peer].heard:
        left_ms = max(0, core.plan.timers.initdead_ms - core.peers.silence_ms(now_ms))
        about |= {"seconds": str(-(-left_ms // 1_000)), "fencing": status.fencing.mode}
        yield Problem("warning", "waiting-for-peer", about)
    elif state == "fenced":
        yield Problem("error", "node-fenced", about)
    elif state == "offline" and status.nodes[peer].phase == "left":
        yield Problem("warning", "node-left", about)
    elif not status.nodes[core.peer].heard:
        yield Problem("error", "node-offline", about)
    for name, node in status.nodes.items():
        if node.reached is False:
            yield Problem("error", "cut-off", {"node": name})
        if node.state in ("standby", "maintenance", "leaving"):
            yield Problem("info", f"node-{node.state}", {"node": name})


def _of_links(status: Status, core: Node) -> Iterator[Problem]:
    peer = core.peer
    links = status.nodes[peer].links
    is_speaking = status.nodes[peer].heard and any("up" in (link.receive, link.send) for link in links.values())
    for name, link in links.items():
        directions = [d for d, state in (("receive", link.receive), ("send", link.send)) if state == "down"]
        if not link.usable:
            yield Problem("warning", "link-unusable", {"link": name, "detail": link.detail})
        elif directions and is_speaking:  # else it is the node, or all links: said above
            direction = directions[0] if len(directions) == 1 else "both"
            about = {"link": name, "direction": direction, "carrier": link.carrier, "node": peer}
            yield Problem("warning", "link-down", about)
    if len(links) < 2:
        yield Problem("warning", "one-link", {})


def _of_services(status: Status) -> Iterator[Problem]:
    for name, service in status.services.items():
        if service.set_aside:
            continue
        about = {"service": name, "node": service.node or "", "why": service.why}
        if service.maintenance:
            yield Problem("info", "service-maintenance", {"service": name})
        if service.operator_stopped:
            yield Problem("info", "service-stopped", {"service": name})
        elif service.state in ("blocked", "unknown"):
            is_serious = service.state == "blocked" or status.phase == "peer_lost"
            yield Problem("error" if is_serious else "warning", f"service-{service.state}", about)
        elif service.state == "failed" or (service.state == "stopped" and not service.owners):
            if status.phase in ("alone", "member", "peer_lost") and not _is_forming(status):
                code = "service-failed" if any(i.banned for i in service.instances.values()) else "service-down"
                yield Problem("error", code, about | {"node": _banned(service)})
        elif any(instance.banned for instance in service.instances.values()):
            yield Problem("warning", "service-failed-on", about | {"node": _banned(service)})
        if service.degraded:
            yield Problem("warning", "service-degraded", about)


def _of_set_aside(status: Status, figures: Figures) -> Iterator[Problem]:
    for aside in figures.set_aside:
        about = {"service": aside.service.name, "node": status.node, "detail": aside.reason, "cure": aside.cure}
        about["may_run"] = "yes" if aside.service.name in figures.left_behind else ""
        yield Problem("error", "agent-broken", about)


def _of_removed(status: Status, figures: Figures) -> Iterator[Problem]:
    for service, detail in figures.unstopped.items():
        yield Problem("error", "removed-not-stopped", {"service": service, "node": status.node, "detail": detail})


def _is_forming(status: Status) -> bool:
    return status.phase == "member" and not status.confirmed


def _banned(service: ServiceStatus) -> str:
    return ", ".join(node for node, instance in service.instances.items() if instance.banned)


def _of_addresses(status: Status, figures: Figures, now_ms: int) -> Iterator[Problem]:
    running = ResourceState.RUNNING.name.lower()
    for name, service in status.services.items():
        for resource in service.resources:
            if resource.verified is False and resource.state == running and service.state == "running":
                about = {"service": name, "address": resource.id, "node": service.node or ""}
                yield Problem("warning", "address-unverified", about)
    for address, (station, at_ms) in figures.disputes.items():
        if now_ms - at_ms < DISPUTE_MS:
            yield Problem("error", "address-conflict", {"address": address, "station": station})


def _of_agreement(status: Status, core: Node, figures: Figures) -> Iterator[Problem]:
    own, peer = core.snapshot, core.peer_snapshot
    if own is None or peer is None or not status.nodes[core.peer].heard:
        return
    about = {"node": peer.node}
    if own.digest != peer.digest:
        yield Problem("error", "config-differs", about | {"service": ""})
    ours_too = {aside.service.name for aside in figures.set_aside}  # told with its reason already
    for service in sorted({*own.digests, *peer.digests} - ours_too):
        if service not in own.digests or service not in peer.digests:
            lacks = core.me if service not in own.digests else peer.node
            yield Problem("error", "service-missing", {"service": service, "node": lacks})
        elif own.digests[service] != peer.digests[service]:
            yield Problem("error", "config-differs", about | {"service": service})
    if peer.release and own.release != peer.release:
        yield Problem("info", "release-differs", about | {"theirs": peer.release, "ours": own.release})


def _of_fencing_devices(status: Status) -> Iterator[Problem]:
    devices = status.fencing.devices
    if devices and not could_shoot(devices):
        yield Problem("error", "fencing-unusable", {"node": devices[0].node})
    for device in devices:
        if device.ok is False:
            about = {"node": device.node, "device": device.agent, "level": str(device.level)}
            about |= {"detail": device.reason, "cure": device.cure}
            if is_wrong(device):  # a shot by it would be believed
                yield Problem("error", "fencing-device-wrong", about)
            else:
                yield Problem("warning", "fencing-drill-failed", about)


def _of_watchdog(status: Status) -> Iterator[Problem]:
    watchdog = status.watchdog
    if watchdog is not None and not watchdog.armed and watchdog.detail:
        yield Problem("warning", "watchdog-off", {"device": watchdog.device, "detail": watchdog.detail})


def _of_this_node(core: Node, figures: Figures) -> Iterator[Problem]:
    if not core.plan.fencing and not core.plan.cuts_storage:
        yield Problem("warning", "no-fencing", {})
    elif not figures.fences_peer:
        yield Problem("warning", "no-fencing-device", {"node": core.peer})
    elif figures.fencing_failure:  # no longer needed: still good to know before the next time
        severity: Literal["error", "warning"] = "error" if core.pair.seeks_clearance else "warning"
        yield Problem(severity, "fencing-failed", {"node": core.peer, "detail": figures.fencing_failure})
    if figures.heart_lost:
        yield Problem("error", "no-heart", {"detail": figures.heart_lost})
    elif figures.heart is not None and not figures.heart.realtime:
        yield Problem("warning", "no-realtime", {"deadtime_ms": str(core.plan.timers.deadtime_ms)})
    if figures.unsaved:
        yield Problem("warning", "wishes-unsaved", {"detail": figures.unsaved})
    if figures.metrics_failure:
        yield Problem("warning", "metrics-unwritten", {"detail": figures.metrics_failure})
    for name, detail in figures.notify_failures.items():
        yield Problem("warning", "notify-failed", {"name": name, "detail": detail})
    if figures.counters["records_lost"]:
        yield Problem("info", "records-lost", {"count": str(figures.counters["records_lost"])})
