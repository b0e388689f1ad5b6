"""What ``hostd status --json`` says, as metrics in Prometheus' text format.

Decides names, types and units of the metrics: ``hostd_`` and base units,
``_total`` for what only grows, one line for each state that could be, with 1
for the one that is.  Refuses to know who reads them: the brain writes them
for node_exporter (``[metrics] textfile``), ``hostd metrics`` prints them.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from hostd.api import hookimpl

NODE_STATES: Final = ("online", "offline", "pending", "standby", "maintenance", "leaving", "unclean", "fenced")
SERVICE_STATES: Final = (
    "running", "stopped", "starting", "stopping", "recovering", "failed", "blocked", "unknown",
)  # fmt: skip
PHASES: Final = ("joining", "startup_fencing", "member", "peer_lost", "alone", "left")
SEVERITIES: Final = ("error", "warning", "info")
FAILOVERS: Final = ("takeover", "failover")
"""Kinds of recovery in which the service changed its node without being asked to."""
_COUNTERS: Final = {
    "records_lost": ("hostd_recorder_lost_records_total", "Steps missing in the flight recorder: the disk was slow."),
    "record_failures": ("hostd_recorder_write_failures_total", "Writes of the flight recorder that failed."),
    "timeline_failures": ("hostd_timeline_write_failures_total", "Writes of the timeline that failed."),
    "snapshots_refused": ("hostd_snapshots_refused_total", "Snapshots of the peer that were no good."),
    "messages_refused": ("hostd_messages_refused_total", "Messages between hostd's processes that meant nothing."),
    "metrics_failures": ("hostd_metrics_write_failures_total", "Writes of the metrics themselves that failed."),
    "notifications_sent": ("hostd_notifications_sent_total", "Notifications delivered."),
    "notifications_failed": ("hostd_notifications_failed_total", "Notifications that could not be delivered."),
    "notifications_dropped": ("hostd_notifications_dropped_total", "Notifications dropped: too many were waiting."),
}

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One line: ``suffix`` is what a summary adds to its name."""

    labels: Labels
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """One metric with all its lines."""

    name: str
    type: str
    help: str
    samples: list[Sample]


@hookimpl
def metrics(status: Mapping[str, Any]) -> str:
    """The whole text; ``status`` as ``hostd status --json`` prints it."""
    return "".join(_text(family) for family in families(status) if family.samples)


def families(status: Mapping[str, Any]) -> Iterator[Family]:
    """Every metric, those included that have nothing to say now."""
    yield from _of_this_node(status)
    yield from _of_nodes(status)
    yield from _of_links(status)
    yield from _of_services(status)
    yield from _of_recoveries(status)
    yield from _of_problems(status)
    yield from _of_the_daemon(status)


def _of_this_node(status: Mapping[str, Any]) -> Iterator[Family]:
    me = status["nodes"].get(status["node"], {})
    labels = (("cluster", status["cluster"]), ("node", status["node"]), ("version", me.get("version", "")))
    yield Family("hostd_info", "gauge", "Who says all this; always 1.", [Sample(labels, 1)])
    yield Family("hostd_phase", "gauge", "Where this node stands in the pair.", _one_hot(status["phase"], PHASES))
    is_pair = status["phase"] == "member" and status["confirmed"]
    yield _single("hostd_pair_confirmed", "Both nodes show the same view.", is_pair)
    yield _single("hostd_view", "The number of the view that this node holds.", status["view"])
    required, ready = status["fencing"]["mode"] == "required", status["fencing"]["ready"]
    yield _single("hostd_fencing_required", "conf.d asks for fencing.", required)
    yield _single("hostd_fencing_ready", "A device is configured, and the last shot, if any, hit.", ready)


def _of_nodes(status: Mapping[str, Any]) -> Iterator[Family]:
    nodes = status["nodes"].items()
    states = [s for name, node in nodes for s in _one_hot(node["state"], NODE_STATES, (("node", name),))]
    yield Family("hostd_node_state", "gauge", "State of each node.", states)
    heard = [Sample((("node", name),), node["heard"]) for name, node in nodes]
    yield Family("hostd_node_heard", "gauge", "The node is heard on some link (itself: always).", heard)
    reached = [Sample((("node", name),), node["reached"]) for name, node in nodes if node["reached"] is not None]
    yield Family("hostd_node_reached", "gauge", "The node has a way to its clients, as far as known.", reached)


def _of_links(status: Mapping[str, Any]) -> Iterator[Family]:
    links = [
        ((("link", name), ("peer", peer)), link)
        for peer, node in status["nodes"].items()
        for name, link in node["links"].items()
    ]
    up = [
        Sample((*labels, ("direction", direction)), link[direction] == "up")
        for labels, link in links
        for direction in ("receive", "send")
    ]
    yield Family("hostd_link_up", "gauge", "The peer is heard on it (receive), hears us on it (send).", up)
    usable = [Sample(labels, link["usable"]) for labels, link in links]
    yield Family("hostd_link_usable", "gauge", "The medium itself can be used here.", usable)
    for key, name, text in (
        ("late_max_ms", "hostd_link_lateness_seconds", "The worst delay of a heartbeat in the last minute."),
        ("last_heard_ms", "hostd_link_silence_seconds", "How long ago the peer was last heard on it."),
    ):
        samples = [Sample(labels, link[key] / 1_000) for labels, link in links if link[key] is not None]
        yield Family(name, "gauge", text, samples)
    rejected = [Sample(labels, link["rejected"]) for labels, link in links]
    yield Family("hostd_link_rejected_frames_total", "counter", "Frames that were garbage, forged or old.", rejected)


def _of_services(status: Mapping[str, Any]) -> Iterator[Family]:
    services = status["services"].items()
    states = [s for name, service in services for s in _one_hot(service["state"], SERVICE_STATES, _named(name))]
    yield Family("hostd_service_state", "gauge", "State of each service in the cluster.", states)
    running = [
        Sample((*_named(name), ("node", node)), service["instances"].get(node, {}).get("state") == "running")
        for name, service in services
        for node in status["nodes"]
    ]
    yield Family("hostd_service_running", "gauge", "The service runs on this node.", running)
    for key, text in (
        ("failures", "Failures that are not forgotten yet."),
        ("degraded", "Its monitor says that somebody should look."),
        ("maintenance", "Hands off: it is not started, stopped or recovered."),
        ("operator_stopped", "The operator stopped it."),
    ):
        samples = [Sample(_named(name), service[key]) for name, service in services]
        yield Family(f"hostd_service_{key}", "gauge", text, samples)
    away = [
        Sample(_named(name), service["node"] not in (None, service["primary"]))
        for name, service in services
        if not service["everywhere"]
    ]
    yield Family("hostd_service_away_from_primary", "gauge", "It is on another node than its primary.", away)
    verified = [
        Sample((*_named(name), ("address", resource["id"]), ("node", service["node"] or "")), resource["verified"])
        for name, service in services
        for resource in service["resources"]
        if resource["verified"] is not None and resource["state"] == "running"
    ]
    text = "A neighbour was seen to send to the node that has the address."
    yield Family("hostd_address_verified", "gauge", text, verified)


def _of_recoveries(status: Mapping[str, Any]) -> Iterator[Family]:
    totals = [
        (service, kind, total)
        for service, kinds in status["recovered"].items()
        for kind, total in kinds.items()
    ]  # fmt: skip
    counted = [Sample((*_named(service), ("kind", kind)), total["count"]) for service, kind, total in totals]
    text = "Recoveries that ended on this node since its daemon started."
    yield Family("hostd_service_recoveries_total", "counter", text, counted)
    failovers = dict.fromkeys(status["services"], 0)
    for service, kind, total in totals:
        failovers[service] = failovers.get(service, 0) + (total["count"] if kind in FAILOVERS else 0)
    text = "Takeovers by this node since its daemon started: the other one, or the service on it, had failed."
    samples = [Sample(_named(name), count) for name, count in failovers.items()]
    yield Family("hostd_service_failovers_total", "counter", text, samples)
    durations = []
    for service, kind, total in totals:
        labels = (*_named(service), ("kind", kind))
        durations += [Sample(labels, total["total_ms"] / 1_000, "_sum"), Sample(labels, total["count"], "_count")]
    text = "How long recoveries took, from the first sign to a service that runs."
    yield Family("hostd_recovery_duration_seconds", "summary", text, durations)
    last = {recovery["service"]: recovery for recovery in status["recoveries"]}
    phases = [
        Sample((*_named(service), ("kind", recovery["kind"]), ("phase", phase["name"])), phase["took_ms"] / 1_000)
        for service, recovery in last.items()
        for phase in recovery["phases"]
    ]
    yield Family("hostd_last_recovery_phase_seconds", "gauge", "The newest recovery, phase by phase.", phases)
    ended = [Sample(_named(service), recovery["ended_at"]) for service, recovery in last.items()]
    yield Family("hostd_last_recovery_timestamp_seconds", "gauge", "When the newest recovery ended.", ended)


def _of_problems(status: Mapping[str, Any]) -> Iterator[Family]:
    found = [(problem["severity"], problem["code"]) for problem in status["problems"]]
    counts = [Sample((("severity", each),), sum(s == each for s, _ in found)) for each in SEVERITIES]
    yield Family("hostd_problems", "gauge", "Problems that `hostd status` shows.", counts)
    each = [Sample((("code", c), ("severity", s)), found.count((s, c))) for s, c in dict.fromkeys(found)]
    yield Family("hostd_problem", "gauge", "The same by their codes; what is no problem has no line.", each)


def _of_the_daemon(status: Mapping[str, Any]) -> Iterator[Family]:
    heart = status["heart"]
    lateness = [] if heart is None else [Sample((), heart["late_max_ms"] / 1_000)]
    text = "The worst lateness of a beat of this node in the last minute."
    yield Family("hostd_heart_lateness_seconds", "gauge", text, lateness)
    yield _single("hostd_heart_alive", "Heartbeats are sent.", heart is not None)
    for key, text in (
        ("realtime", "The heart has real-time scheduling."),
        ("locked", "The heart's memory cannot be paged out."),
    ):
        samples = [] if heart is None else [Sample((), heart[key])]
        yield Family(f"hostd_heart_{key}", "gauge", text, samples)
    for key, (name, text_of_it) in _COUNTERS.items():
        yield Family(name, "counter", text_of_it, [Sample((), status["figures"].get(key, 0))])


# -- the text ------------------------------------------------------------------------


def _named(service: str) -> Labels:
    return (("service", service),)


def _single(name: str, text: str, value: float) -> Family:
    return Family(name, "gauge", text, [Sample((), value)])


def _one_hot(is_now: str, states: Iterable[str], labels: Labels = ()) -> list[Sample]:
    """A line for each state; one that this release does not know has a line while it lasts."""
    known = tuple(states)
    return [Sample((*labels, ("state", s)), s == is_now) for s in (*known, *((is_now,) if is_now not in known else ()))]


def _text(family: Family) -> str:
    lines = [f"# HELP {family.name} {_escaped(family.help, quotes=False)}", f"# TYPE {family.name} {family.type}"]
    for sample in family.samples:
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels)
        lines.append(f"{family.name}{sample.suffix}{'{' + labels + '}' if labels else ''} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
