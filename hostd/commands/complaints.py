"""What is said of each problem of a status, and what cures it.

Decides wording only: which conditions are problems is ``hostd.problems``'.
"""

from typing import Final

import msgspec

from hostd.commands import sentences
from hostd.confd.values import counted
from hostd.status_form import Problem, Status

PROBLEMS: Final[dict[str, tuple[str, str]]] = {
    "peer-lost": (
        "{node} is silent on every link; its services are not touched before it is known to be off.",
        "Look at {node}. If it is off for certain: hostd confirm-down {node}",
    ),
    "takeover-waits": (
        "Services of {node} are not taken over yet: {detail}.",
        "What still answers is still served. If no station answered, silence proves nothing: "
        "see to this node's own way to the LAN (carrier, gateway).",
    ),
    "waiting-for-peer": (
        "Waiting for {node}, which has not been heard since this daemon started ({seconds} s left).",
        "Start hostd on {node}, or if it is off for certain: hostd confirm-down {node}",
    ),
    "node-fenced": (
        "{node} is off: it was fenced. The next failure would not be survived.",
        "Find out why it failed, then switch it on; it joins by itself.",
    ),
    "node-left": (
        "{node} has left the cluster in good order. The next failure would not be survived.",
        "When its maintenance is done, start hostd there: systemctl start hostd",
    ),
    "node-offline": (
        "{node} is not heard on any link. The next failure would not be survived.",
        "Look at {node}: power, network, and there: systemctl status hostd",
    ),
    "node-standby": ("{node} is in standby and runs no services.", "When done: hostd online {node}"),
    "node-maintenance": ("Maintenance: nothing is started, stopped or recovered.", "When done: hostd maintenance off"),
    "node-leaving": ("{node} is leaving: it gives its services away and ends.", "Nothing; it takes a moment."),
    "link-unusable": (
        "Link {link} cannot be used here: {detail}.",
        "See to it; hostd opens it again by itself.",
    ),
    "link-down": (
        "Link {link} is down: {said}.",
        "Check the cable and both ends. Services are not affected while another link works.",
    ),
    "one-link": (
        "There is only one heartbeat link: if it fails, the nodes lose each other.",
        "Add a second medium, such as a serial cable, as [[heartbeat.link]].",
    ),
    "agent-broken": (
        "{service} is set aside on {node}, neither started nor stopped here: {detail}.{left}",
        "{cure}. Then: hostd check && hostd reload",
    ),
    "removed-not-stopped": (
        "{service} is not in conf.d any more, and could not be stopped on {node}: {detail}.",
        "Stop it by hand there, then: hostd reload",
    ),
    "service-missing": (
        "{service} is not known to {node}: its conf.d lacks it, or cannot use its agent. "
        "It stays where it is and does not start anew.",
        "On {node}: hostd status and hostd check; mend what they say, then there: hostd reload",
    ),
    "service-maintenance": ("{service} is in maintenance: hands off.", "When done: hostd maintenance off {service}"),
    "service-stopped": ("{service} is stopped by the operator.", "When wanted: hostd start {service}"),
    "service-blocked": (
        "{service} could not be stopped on {node}: it may still run there, so nobody else starts it.",
        "Stop it by hand on {node} (there, hostd why {service} says what failed), then: hostd cleanup {service}",
    ),
    "service-unknown": (
        "It is not known whether {service} runs on {node}.",
        "It is probed now; if this lasts: hostd status on {node}, and hostd why {service}",
    ),
    "service-failed": (
        "{service} runs nowhere: it failed for good on {node}.",
        "Cure the cause (hostd why {service} on {node}), then: hostd cleanup {service}",
    ),
    "service-failed-on": (
        "{service} failed for good on {node} and cannot run there.",
        "Cure the cause (hostd why {service} on {node}), then: hostd cleanup {service}",
    ),
    "service-down": ("{service} runs nowhere: {because}.", "See: hostd why {service}"),
    "service-degraded": ("{service} serves, but its monitor says that somebody should look.", "See its own log."),
    "address-unverified": (
        "No neighbour was seen to reach {address} ({service}) at {node}.",
        "Try it from a client; check switch and gateway (ARP filters, port security).",
    ),
    "cut-off": (
        "{node} has no way to its clients: its LAN is dead, or it does not reach the tiebreaker.",
        "See to its cable and its switch. Back for ten seconds, it may serve again.",
    ),
    "address-conflict": (
        "Another station ({station}) claims {address}.",
        "Find the machine with this hardware address and take the address off it.",
    ),
    "config-differs": (
        "conf.d differs between the nodes: {what}.",
        "Copy conf.d from the node that is right to the other, and there: hostd plan && hostd reload",
    ),
    "release-differs": ("{node} runs hostd {theirs}, this node {ours}.", "Upgrade the older one: hostd detach."),
    "no-fencing": (
        "No fencing: if all links fail while both nodes live, only the ARP guard keeps a service on one node.",
        "Add [fencing] with a power switch or IPMI to conf.d.",
    ),
    "no-fencing-device": (
        "Fencing is required, and no device could power {node} off: when it falls silent, everything waits.",
        "Add [[fencing.device]] to conf.d; in need: switch it off by hand, then: hostd confirm-down {node}",
    ),
    "fencing-failed": (
        "Fencing {node} failed: {detail}.",
        "See to the device; in need: switch {node} off by hand, then: hostd confirm-down {node}",
    ),
    "fencing-unusable": (
        "By the last drill no fencing device could power {node} off: when it falls silent, everything waits.",
        "See the devices below; in need: switch {node} off by hand, then: hostd confirm-down {node}",
    ),
    "fencing-drill-failed": (
        "Fencing device {device} (level {level}) failed its drill for {node}: {detail}.",
        "{cure}. Then: hostd fence {node} --check",
    ),
    "fencing-device-wrong": (
        "Fencing device {device} (level {level}) is not that of {node}: {detail}. A shot by it would be believed, "
        "and services would run on both nodes.",
        "{cure}. Then: hostd fence {node} --check",
    ),
    "watchdog-off": (
        "The watchdog {device} is not armed: {detail}.",
        "hostd tries again by itself; see: hostd check",
    ),
    "no-heart": ("No heartbeats are sent: {detail}.", "It is started again at once; if this lasts, see the log."),
    "no-realtime": (
        "No real-time scheduling: heartbeats may be late on a busy machine (deadtime is {deadtime_ms} ms).",
        "Give the service CAP_SYS_NICE and rt_runtime, or keep deadtime at 2 s or more.",
    ),
    "metrics-unwritten": (
        "The metrics are not written: {detail}.",
        "See to the folder of [metrics] textfile; it is tried again every 15 s.",
    ),
    "notify-failed": (
        "Events could not be told by {name}: {detail}.",
        "See [[notify]] in conf.d. What was lost is not told again: hostd log has it.",
    ),
    "wishes-unsaved": (
        "Orders to stop, standby or move are not on the disk: {detail}.",
        "See to the disk; a restart of both nodes would forget them.",
    ),
    "records-lost": ("Missing in the flight recorder: {steps}. The disk was too slow.", "See to the disk."),
}

_DIRECTIONS: Final = {
    "both": "nothing is heard on it in either direction",
    "receive": "{node} hears us, and we do not hear it",
    "send": "we hear {node}, and it does not hear us",
}


def with_texts(status: Status) -> Status:
    """The same status, its problems with text and cure."""
    return msgspec.structs.replace(status, problems=tuple(_with_text(problem) for problem in status.problems))


def _with_text(problem: Problem) -> Problem:
    about = dict(problem.about)
    if problem.code == "link-down":
        about["said"] = _DIRECTIONS[about["direction"]].format_map(about)
        if about["carrier"] == "down":
            about["said"] += " (no carrier)"
    if problem.code == "config-differs":
        about["what"] = f"service {about['service']}" if about["service"] else "nodes, fencing or lease"
    if problem.code == "service-down":
        about["because"] = sentences.because(about["why"])
    if problem.code in ("fencing-drill-failed", "fencing-device-wrong"):
        cure = about["cure"] or "see to the device"
        about["cure"] = cure[:1].upper() + cure[1:]
    if problem.code == "records-lost":
        about["steps"] = counted(int(about["count"]), "step")
    if problem.code == "agent-broken":
        about["left"] = " It may run here still, left by an earlier hostd." if about["may_run"] else ""
        about["cure"] = about["cure"][:1].upper() + about["cure"][1:]
    text, cure = PROBLEMS[problem.code]
    return msgspec.structs.replace(problem, text=text.format_map(about), cure=cure.format_map(about))
