"""Every sentence that an operator reads, made of enumerations and codes.

Decides wording only.  A cause is said so that it fits after "because" or a
colon; a problem says what is wrong and its cure says what to do.
"""

import datetime
from pathlib import Path
from typing import Final, assert_never

from hostd.commands.exits import ExitCode
from hostd.core.effects import (
    AddressChecked,
    AddressDisputed,
    AnyFact,
    CarrierTurned,
    ClearanceTurned,
    LinkDirection,
    LinkOpened,
    LinkTurned,
    PauseNoticed,
    PhaseChanged,
    PlansDiffer,
    ReachTurned,
    Refusal,
    ResourceTurned,
    ServiceAssigned,
    ServiceTurned,
    WishTaken,
)
from hostd.core.events import AnyCommand
from hostd.core.snapshot import WishKind
from hostd.core.terms import Clearance, Phase, ServiceState, Why
from hostd.requests import Entry, Rejected
from hostd.status_form import ServiceStatus

WHY: Final[dict[Why, str]] = {
    Why.STARTED: "the daemon has just started",
    Why.PEER_SILENT: "the other node is silent on every link",
    Why.PEER_SILENT_SINCE_START: "the other node has not been heard since the start",
    Why.PEER_HEARD: "the other node is heard again",
    Why.PEER_INVITED: "one node invited the other",
    Why.PEER_CONFIRMED: "both nodes show the same view",
    Why.PEER_RESTARTED: "the other node's daemon started anew",
    Why.PEER_LEFT: "the other node left in good order",
    Why.PEER_ALONE: "the other node acts for both; this one yields",
    Why.PEER_FENCED: "the other node was fenced: it is confirmed to be off",
    Why.PEER_CONFIRMED_DOWN: "the operator confirmed that the other node is off",
    Why.PEER_GUARDED: "the other node's addresses answer no more",
    Why.PEER_DISKS_CUT: "the other node has lost its disks, and its addresses answer no more",
    Why.INVITATION_LAPSED: "an invitation lapsed",
    Why.PRIMARY: "its primary can run it",
    Why.BACKUP: "its primary cannot run it now, so the next node in order does",
    Why.STAYS: "it runs there, and nothing calls for a move",
    Why.MOVED: "the operator moved it",
    Why.FAILBACK: "its primary is back",
    Why.EVERYWHERE: "it runs on every node",
    Why.OPERATOR_STOPPED: "the operator stopped it",
    Why.NODE_STANDBY: "the node is in standby",
    Why.NODE_LEAVING: "the node is leaving",
    Why.NO_NODE: "no node can run it",
    Why.FAILED_HERE: "it failed for good on every node that could run it",
    Why.BLOCKED: "a stop failed, so it may still run",
    Why.REQUIREMENT_MISSING: "a service that it requires does not run there",
    Why.CONFIGURATION_DIFFERS: "its definition differs between the nodes, or one of them cannot use it",
    Why.WAITS_FOR_STOP: "its former owner has not reported it stopped yet",
    Why.WAITS_FOR_FAILBACK: "its primary has to be stable for longer",
    Why.MONITOR_FAILED: "its monitor failed",
    Why.PROCESS_EXITED: "its main process ended",
    Why.ADDRESS_LOST: "its address went away",
    Why.ADDRESS_CONFLICT: "another station has its address",
    Why.START_FAILED: "its start failed",
    Why.STOP_FAILED: "its stop failed",
    Why.PAUSED: "this node was itself frozen",
    Why.ADOPTED: "it was found running",
    Why.MAINTENANCE: "maintenance: hands off",
    Why.NOT_CLEARED: "nothing proves that the silent node does not run it",
    Why.ORDERED: "the coordinator says so",
    Why.NODE_CUT_OFF: "the node has no way to its clients (its LAN is dead, or the tiebreaker is not reached)",
    Why.DEFINITION_CHANGED: "its definition has changed",
    Why.PEER_BLOCKED: "a stop failed on the other node, so it has to be fenced",
}

PHASES: Final[dict[Phase, str]] = {
    Phase.JOINING: "waits to form a pair",
    Phase.STARTUP_FENCING: "alone since its start: finds out whether the other node is off",
    Phase.MEMBER: "is a member of the pair",
    Phase.PEER_LOST: "lost the other node: finds out whether it is off",
    Phase.ALONE: "acts alone",
    Phase.LEFT: "has left",
}

STATES: Final[dict[ServiceState, str]] = {
    ServiceState.STOPPED: "is stopped",
    ServiceState.STARTING: "starts",
    ServiceState.RUNNING: "runs",
    ServiceState.STOPPING: "stops",
    ServiceState.RECOVERING: "failed and is restarted",
    ServiceState.FAILED: "failed and is given up there",
    ServiceState.BLOCKED: "could not be stopped",
    ServiceState.UNKNOWN: "is probed, for it may run",
}

CLEARANCES: Final[dict[Clearance, str]] = {
    Clearance.NONE: "not cleared yet",
    Clearance.FENCED: "a fencing device confirmed that it is off",
    Clearance.CONFIRMED: "the operator confirmed that it is off",
    Clearance.GUARD: "no address of it answers any more",
    Clearance.LEFT: "it left in good order",
    Clearance.DATA: "it has lost its disks, and no address of it answers any more",
}

_REFUSALS: Final[dict[Refusal, tuple[str, ExitCode]]] = {
    Refusal.UNKNOWN_SERVICE: (
        "this node runs no service of this name; `hostd status` lists them, and what is set aside",
        ExitCode.WRONG_USE,
    ),
    Refusal.UNKNOWN_NODE: ("there is no node of this name; `hostd status` lists them", ExitCode.WRONG_USE),
    Refusal.NOT_A_CANDIDATE: (
        "that node is neither primary nor backup of the service; see its `backups` in conf.d",
        ExitCode.WRONG_USE,
    ),
    Refusal.ALREADY_THERE: ("it is there already; nothing to do", ExitCode.DONE),
    Refusal.RUNS_EVERYWHERE: ('it runs on every node (on = "all") and cannot be moved', ExitCode.WRONG_USE),
    Refusal.NODE_NOT_ELIGIBLE: (
        "the node cannot run it now: it is absent, in standby or leaving, or the service failed there\n"
        "(`hostd online NODE`, or `hostd cleanup SERVICE` after the cause is cured)",
        ExitCode.NO,
    ),
    Refusal.SERVICE_STOPPED: ("the operator stopped it; `hostd start SERVICE` first", ExitCode.NO),
    Refusal.PEER_IS_HEARD: (
        "refused for safety: that node is heard, so it is not off; there is no override\n"
        "(to empty it: `hostd standby NODE`)",
        ExitCode.UNSAFE,
    ),
    Refusal.CONFIRM_OWN_NODE: ("this node is not off: you are on it", ExitCode.WRONG_USE),
    Refusal.LEAVING: ("this node is leaving and takes no more orders; give them on the other one", ExitCode.NO),
    Refusal.FENCE_OWN_NODE: (
        "refused for safety: you are on this node, and nobody would take its services over in good order\n"
        "(`hostd leave` ends it; or give the command on the other node)",
        ExitCode.UNSAFE,
    ),
    Refusal.NO_FENCING: (
        'no device that could power it off is configured; see [fencing] of conf.d (mode = "required")',
        ExitCode.WRONG_USE,
    ),
    Refusal.NOTHING_TO_FENCE: (
        "this node does not share services with that one now: it acts alone, waits or has left, "
        "so there is nothing to take away from it",
        ExitCode.NO,
    ),
    Refusal.NO_OTHER_NODE: ("there is no other node that may run it", ExitCode.NO),
}


def because(name: str) -> str:
    """The sentence of a cause by its name in the status."""
    return WHY[Why[name.upper()]] if name else "its node has not been chosen yet"


def cleared(name: str) -> str:
    """Why a silent node is taken for off, by the name in the status."""
    return CLEARANCES[Clearance[name.upper()]]


def stands(service: ServiceStatus) -> str:
    """How a service is, to go on after its name."""
    state = {"failed": "has failed", "unknown": "may run"}.get(service.state, f"is {service.state}")
    where = f" on {', '.join(service.nodes)}" if service.nodes else ""
    since = f", for {span(seconds_since(service.since))}" if service.since else ""
    return state + where + since


def refusal(reason: Refusal, command: AnyCommand) -> tuple[str, ExitCode]:
    """Why an order was not taken, and the exit code for it."""
    text, code = _REFUSALS[reason]
    service, node = getattr(command, "service", ""), getattr(command, "node", "")
    text = text.replace("SERVICE", service or "SERVICE").replace("NODE", node or "NODE")
    subject = service or node
    return (f"{subject}: {text}" if subject else text), code


def unreachable(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path}: permission denied; use sudo, or become a member of group hostd"
    return (
        f"hostd is not running here, or not answering ({path}: {getattr(error, 'strerror', None) or error})\n"
        "see: systemctl status hostd; a daemon with another --runtime-dir needs the same option here"
    )


def rejected(answer: Rejected) -> str:
    return {
        "not-allowed": "only root and members of group hostd may do that",
        "bad-request": f"the daemon does not understand this command: {answer.detail}\n"
        "(another release of hostd? restart it: hostd detach)",
        "busy": "too many commands at once; try again",
        "too-slow": "the daemon did not answer in time; see its log",
        "unknown-service": f"{answer.detail}: there is no service of this name; `hostd status` lists them",
    }[answer.reason]


def entry(what: Entry) -> str:
    """One entry of the timeline, without its time and node."""
    return fact(what.fact, cause=not what.observed or isinstance(what.fact, ServiceAssigned))


def fact(what: AnyFact, *, cause: bool = True) -> str:
    """One fact in words.  ``cause`` False: without its reason (of what was read
    from the peer's snapshots, only assignments have one that is known here)."""
    match what:
        case PhaseChanged():
            return _phase(what) + _cause(what.why, cause)
        case LinkTurned():
            heard = "the other node" if what.direction is LinkDirection.RECEIVE else "the other node hears us"
            if what.direction is LinkDirection.RECEIVE:
                return f"link {what.link}: {heard} is {'heard' if what.up else 'no longer heard'}"
            return f"link {what.link}: {heard if what.up else 'the other node no longer hears us'}"
        case LinkOpened():
            return f"link {what.link} {_medium(what)}"
        case CarrierTurned():
            return f"link {what.link} {'has its carrier back' if what.up else 'lost its carrier'}"
        case ServiceAssigned():
            where = ", ".join(what.owners) or "no node"
            nowhere = " nowhere" if what.why is Why.ADOPTED and not what.owners else ""
            return f"{what.service} is assigned to {where}{_cause(what.why, cause)}{nowhere}"
        case ServiceTurned():
            detail = f" ({what.detail})" if what.detail else ""
            return f"{what.service} {STATES[what.state]}{_cause(what.why, cause)}{detail}"
        case ResourceTurned():
            detail = f" ({what.detail})" if what.detail else ""
            return f"{what.service}: {what.resource} {what.state.name.lower()}{detail}"
        case AddressChecked():
            found = "was seen to arrive here" if what.verified else "was not seen to arrive here"
            return f"traffic for {what.address} {found}" + (f" ({what.detail})" if what.detail else "")
        case AddressDisputed():
            return f"station {what.station} claims {what.address}, too"
        case ClearanceTurned():
            act = "asks whether the other node is off" if what.asked else CLEARANCES[what.clearance]
            return f"clearance: {act}" + (f" ({what.detail})" if what.detail else "")
        case ReachTurned():
            found = "is reached" if what.reached else "is not reached: this node may be cut off"
            return f"the tiebreaker {found}" + (f" ({what.detail})" if what.detail else "")
        case PauseNoticed():
            return f"this node was itself frozen for {what.paused_ms} ms"
        case WishTaken():
            wish = what.wish
            return _wish(wish.kind, wish.subject, wish.value) + f" (asked on {wish.node})"
        case PlansDiffer():
            return f"conf.d differs between the nodes: {what.service or 'nodes, fencing or lease'}"
        case _:
            assert_never(what)


def _medium(what: LinkOpened) -> str:
    """Of the medium on this side; whether the peer is heard on it is told apart."""
    if not what.usable:
        return f"cannot be used: {what.detail}" if what.detail else "cannot be used"
    return f"is open, but {what.detail}" if what.detail else "is open"


def _phase(what: PhaseChanged) -> str:
    text = PHASES[what.phase]
    if what.phase is Phase.MEMBER:
        text = f"is a member of view {what.view}" if what.confirmed else f"accepted view {what.view}"
    return text


def _cause(why: Why, is_known: bool) -> str:
    return "" if not is_known or why is Why.ORDERED else f": {WHY[why]}"


def _wish(kind: WishKind, subject: str, value: str) -> str:
    what = subject or "everything"
    match kind:
        case WishKind.STOPPED:
            return f"operator: {'stop' if value else 'start'} {what}"
        case WishKind.STANDBY:
            return f"operator: {what} {'to standby' if value else 'online'}"
        case WishKind.MAINTENANCE:
            return f"operator: maintenance {'on' if value else 'off'} for {what}"
        case WishKind.MOVED:
            return f"operator: {what} is to stay on {value}" if value else f"{what}: the move is over"
        case WishKind.CLEANUP:
            return f"operator: forget the failures of {what}"
        case _:
            assert_never(kind)


def span(seconds: float) -> str:
    """A length of time in at most two units: ``3 h 12 min``, ``40 ms``."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1_000))} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def seconds_since(iso: str) -> float:
    """Seconds since a time of the status (``2026-01-01T00:00:00Z``)."""
    at = datetime.datetime.fromisoformat(iso)
    return max(0.0, (datetime.datetime.now(datetime.UTC) - at).total_seconds())
