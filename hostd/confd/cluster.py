"""Everything of conf.d but the services: [cluster], [heartbeat], [fencing] and the rest.

Decides which pairs of nodes, timers, links and fencing make a cluster, and
warns of what is allowed but dangerous.  Knows no link type: what a link may
say comes from its plugin.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hostd.api import LinkSettings, Parameters
from hostd.confd import params, values
from hostd.confd.section import Section, by_node
from hostd.confd.values import Unfit, duration, duration_text, whole
from hostd.core.plan import Link, Timers

LINKS_MAX: Final = 16
"""More media than any pair of machines has; a beat names each in a bit mask."""
DEVICES_MAX: Final = 32
FENCE_WORDS: Final = ("action", "option", "nodename")
"""Of the fence agent API: never the operator's to say."""
WATCHDOG_CALM_MS: Final = 5_000
"""Stalls without real-time scheduling reach 2 s (measured), and a feeding comes every half second."""
LEASE_MIN_MS: Final = 3_000
"""Renewed every second and given up when a gap passes half of it: below this a
renewal on time would already be late."""


class Announcements(msgspec.Struct, frozen=True):
    """``[announce]``: when an address is announced, in ms after it was added."""

    burst_ms: tuple[int, ...] = (0, 50, 200, 500, 1_100)
    refresh_ms: tuple[int, ...] = (2_000, 5_000, 10_000, 30_000, 60_000, 120_000)


class FencingDevice(msgspec.Struct, frozen=True):
    """One ``[[fencing.device]]``: a fence agent and what it is told for each node."""

    agent: str
    nodes: tuple[str, ...]
    """Those it can power off, in the cluster's order."""
    params: dict[str, dict[str, Any]]
    """Per node to be fenced."""
    secrets: dict[str, dict[str, Path]]
    """Per node to be fenced: the file that holds the value."""
    level: int = 1
    """Devices of level 1 are tried first, all of them; if one fails, those of level 2."""
    timeout_ms: int = 60_000
    """How long it may take to switch off and to say so."""
    storage: bool = False
    """``mode = "storage"``: it takes the disks away, and no power."""
    by: str = ""
    """This node, which asks."""


class Tiebreaker(msgspec.Struct, frozen=True):
    """``[tiebreaker]``: stations that tell a node whether it can be reached by its clients."""

    ping: tuple[str, ...]
    deadtime_ms: int
    needs_all: bool = False
    """All of them must answer (``mode = "all"``), and not any."""


class Watchdog(msgspec.Struct, frozen=True):
    """``[watchdog]``: the device that resets this node if hostd hangs."""

    device: Path
    timeout_ms: int = 10_000


class Basics(msgspec.Struct, frozen=True):
    """``[cluster]``.  ``nodes`` empty: they are unfit, and that was complained of."""

    name: str
    nodes: tuple[str, ...]
    key: Path
    failback_after_ms: int | None
    address_lease_ms: int
    status_for_everyone: bool = False


class Fencing(msgspec.Struct, frozen=True):
    """``[fencing]``."""

    is_required: bool
    delay_ms: int
    devices: tuple[FencingDevice, ...]
    drill_ms: int = 3_600_000
    """How often devices are tried harmlessly; 0: never by itself."""
    cuts_storage: bool = False
    """``mode = "storage"``."""

    @property
    def mode(self) -> str:
        return "required" if self.is_required else "storage" if self.cuts_storage else "none"


def failback(value: Any) -> int | None:
    """true → 0, false → None, a duration → the stability in ms that is asked of the primary."""
    if isinstance(value, bool):
        return 0 if value else None
    try:
        return values.duration_ms(value)
    except Unfit:
        raise Unfit("is not true, false or a duration", 'use true, false or a stability such as "5m"') from None


def lease(value: Any) -> int:
    if value is False:
        return 0
    if value is True:
        raise Unfit("is no duration", 'use one such as "5s", or false for no lease')
    milliseconds = values.duration_ms(value)
    if milliseconds % 1_000 or not LEASE_MIN_MS <= milliseconds <= 3_600_000:
        raise Unfit("is no lease that the kernel can keep", 'use whole seconds from "3s" to "1h", or false')
    return milliseconds


def drill(value: Any) -> int:
    if value is False:
        return 0
    if value is True:
        raise Unfit("is no duration", 'use one such as "1h", or false for no drill')
    return duration("10s", "7d")(value)


def read_basics(section: Section, node: str, directory: Path) -> Basics:
    if not section.is_there:
        cure = "add it with name and nodes, as in 00-cluster.toml of the example"
        section.complaints.error(section.path, "is missing", cure)
        return Basics("", (), directory, 0, 0)
    name = section.need("name", values.node_name, '"example"')
    nodes = section.need(
        "nodes",
        values.several(values.node_name, 16),
        '["clustnode1", "clustnode2"] (as `uname -n` prints them)',
    )
    if nodes is not None and len(nodes) != 2:
        section.error("nodes", f"has {len(nodes)} names: hostd joins exactly two nodes", "name two nodes")
        nodes = None
    if nodes is not None and nodes[0] == nodes[1]:
        section.error("nodes", "names one node twice", "name two different nodes")
        nodes = None
    if nodes is not None and node not in nodes:
        section.error(
            "nodes",
            f'does not name this node, "{node}"',
            "use the names that `uname -n` prints, or say which one this is: --node NAME",
        )
        nodes = None
    basics = Basics(
        name or "",
        nodes or (),
        section.take("key", values.path_in(directory), Path("/etc/hostd/cluster.key")),
        section.take("failback", failback, 0),
        section.take("address_lease", lease, 5_000),
        section.take("status", values.choice("group", "everyone"), "group") == "everyone",
    )
    elsewhere = dict.fromkeys(("keepalive", "warntime", "deadtime", "initdead"), "it belongs to [heartbeat]")
    section.end(elsewhere)
    return basics


def read_timers(section: Section) -> Timers:
    """``[heartbeat]`` less its links, which the caller takes."""
    before = section.complaints.mistakes
    usual = Timers()
    timers = Timers(
        section.take("keepalive", duration("10ms", "1m"), usual.keepalive_ms),
        section.take("warntime", duration("10ms", "1h"), usual.warntime_ms),
        section.take("deadtime", duration("20ms", "1h"), usual.deadtime_ms),
        section.take("initdead", duration("20ms", "1d"), usual.initdead_ms),
    )
    if section.complaints.mistakes > before:
        return timers  # judging the defaults that took the place of unfit ones would mislead
    keepalive, dead = duration_text(timers.keepalive_ms), duration_text(timers.deadtime_ms)

    def complain(key: str, rule: str, cure: str) -> None:
        usual_text = "" if key in section else f" ({duration_text(getattr(usual, f'{key}_ms'))} by default)"
        section.error(key, f"{usual_text} {rule}".strip(), cure)

    if timers.deadtime_ms <= 2 * timers.keepalive_ms:
        cure = f"use more than {duration_text(2 * timers.keepalive_ms)}"
        complain("deadtime", f"is at most twice the keepalive of {keepalive}: one lost beat would kill", cure)
    elif not timers.keepalive_ms < timers.warntime_ms < timers.deadtime_ms:
        rule = f"is not between keepalive ({keepalive}) and deadtime ({dead})"
        complain("warntime", rule, "use a value between the two")
    if timers.initdead_ms < timers.deadtime_ms:
        complain("initdead", f"is shorter than deadtime ({dead})", "use at least twice the deadtime")
    elif timers.initdead_ms < 2 * timers.deadtime_ms:
        section.warn(
            "initdead",
            f"is less than twice the deadtime ({dead})",
            "use more: networks are slow to come up after a boot",
        )
    return timers


def read_links(
    heartbeat: Section,
    basics: Basics,
    timers: Timers,
    node: str,
    types: Mapping[str, Parameters],
    directory: Path,
) -> tuple[tuple[Link, ...], tuple[LinkSettings, ...]]:
    """Every ``[[heartbeat.link]]``, in order; the two results run in parallel."""
    sections = heartbeat.tables("link")
    if not sections:
        cure = "add [[heartbeat.link]], best two: a cable between the nodes and the LAN"
        heartbeat.complaints.error(heartbeat.at("link"), "is missing: the nodes cannot hear each other", cure)
    elif len(sections) == 1:
        cure = "add a second medium that shares no card, cable or switch with it"
        heartbeat.complaints.warn(
            heartbeat.at("link"), "is the only one: if it fails, each node takes the other for dead", cure
        )
    elif len(sections) > LINKS_MAX:
        heartbeat.complaints.error(heartbeat.at("link"), f"is there {len(sections)} times", f"use {LINKS_MAX}")
        return (), ()
    links: list[Link] = []
    settings: list[LinkSettings] = []
    counts: dict[str, int] = {}
    for section in sections:
        kind = section.need("type", values.choice(*types), values.one_of([*types] or ["udp"]))
        given_name = section.take("name", values.link_name, None)
        is_direct = section.take("direct", values.flag, False)
        given = section.rest()
        if kind is None:
            _hint_type(section, types)
            continue
        counts[kind] = counts.get(kind, 0) + 1
        name = given_name or f"{kind}{counts[kind]}"
        if name in [link.name for link in links]:
            by_default = "" if given_name else f"({name} by default) "
            section.error("name", f"{by_default}is the name of two links", "give each a name of its own")
        filled = params.fill(section.complaints, section.path, given, types[kind], basics.nodes, directory)
        peer = basics.nodes[1 - basics.nodes.index(node)]
        peers = {f"peer_{key}": filled.values[peer].get(key) for key in filled.split}
        own = {**filled.values[node], **peers}
        links.append(Link(name, is_direct, modem_lines=types[kind].cable))
        settings.append(LinkSettings(name, kind, node, peer, basics.name, timers.keepalive_ms, own))
    return tuple(links), tuple(settings)


def _hint_type(section: Section, types: Mapping[str, Parameters]) -> None:
    """A misspelt key of a link whose type is unfit cannot be judged; ``typ`` for ``type`` can."""
    for key in section.names():
        if key not in ("type", "name", "direct") and difflib.SequenceMatcher(None, key, "type").ratio() > 0.7:
            section.error(key, "is not a known key", "did you mean type?")


def read_fencing(section: Section, basics: Basics, node: str, directory: Path) -> Fencing:
    default = "required" if section.is_there else "none"
    mode = section.take("mode", values.choice("required", "storage", "none"), default)
    delay_ms = section.take("delay", duration("0s", "5m"), 2_000)
    drill_ms = section.take("drill", drill, 3_600_000)
    sections = section.tables("device")
    if len(sections) > DEVICES_MAX:
        section.complaints.error(section.at("device"), f"is there {len(sections)} times", f"use {DEVICES_MAX}")
        sections = []
    before = section.complaints.mistakes
    read = [_read_device(device, basics.nodes, directory) for device in sections]
    devices = tuple(
        msgspec.structs.replace(device, storage=mode == "storage", by=node) for device in read if device is not None
    )
    section.end()
    is_required = mode == "required"
    if mode == "none" and devices:
        section.complaints.warn(section.at("device"), 'is there, but mode = "none"', "set mode or remove the device")
    if mode == "storage":
        section.complaints.warn(
            ("fencing", "mode"),
            '= "storage" takes its disks from a silent node, and no power: if no link and no ARP passes between two '
            "living nodes, both hold every address",
            'add a power switch and mode = "required" if that must not be',
        )
    if mode == "none":
        section.complaints.warn(
            ("fencing",),
            'is not configured (mode = "none"): if no link and no ARP passes between two living nodes, '
            "both run every service",
            "add [fencing] with a device for each node",
        )
    elif section.complaints.mistakes == before:
        for node in basics.nodes:
            if not any(node in device.nodes for device in devices):
                section.complaints.warn(
                    ("fencing",),
                    f"has no device for {node}: when {node} falls silent, everything waits for "
                    f"`hostd confirm-down {node}`",
                    "add [[fencing.device]]",
                )
    return Fencing(is_required, delay_ms, devices, drill_ms, cuts_storage=mode == "storage")


def _read_device(section: Section, nodes: tuple[str, ...], directory: Path) -> FencingDevice | None:
    agent = section.need("agent", values.text, '"fence_ipmilan"')
    given = section.take("nodes", values.several(values.node_name, 16), nodes)
    for node in given:
        if node not in nodes:
            section.error("nodes", f'names "{node}", which is not a node of the cluster', f"use {values.one_of(nodes)}")
    level = section.take("level", whole(1, 9), 1)
    timeout_ms = section.take("timeout", duration("1s", "10m"), 60_000)
    fenced = tuple(node for node in nodes if node in given)
    params_table = section.table("params")
    for key in FENCE_WORDS:
        if key in params_table:
            params_table.error(key, "is what hostd itself tells the device (off, then status)", f"remove {key}")
    told = _per_node(params_table, fenced, nodes, _scalar)
    secrets = _per_node(section.table("secrets"), fenced, nodes, values.path_in(directory))
    section.end()
    return FencingDevice(agent, fenced, told, secrets, level, timeout_ms) if agent else None


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise Unfit("must be a text, a number, true or false", "or a table that gives each node its value")
    return value


def _per_node(
    section: Section, fenced: tuple[str, ...], nodes: tuple[str, ...], parse: Callable[[Any], Any]
) -> dict[str, dict[str, Any]]:
    """Each key's value for each node: the same, or its own from a table of node names."""

    def halves(raw: Any) -> dict[str, Any]:
        table = by_node(raw, nodes) or dict.fromkeys(fenced, raw)
        return {node: parse(table[node]) for node in fenced if node in table}

    found: dict[str, dict[str, Any]] = {node: {} for node in fenced}
    for key in section.names():
        for node, value in section.take(key, halves, {}).items():
            found[node][key] = value
    return found


def read_tiebreaker(section: Section, timers: Timers) -> Tiebreaker | None:
    ping = section.take("ping", values.several(values.ip, 16), ())
    if section.is_there and not section.raw("ping"):
        section.error("ping", "names no station", 'name one or more, best the router: ping = ["172.23.2.1"]')
    deadtime_ms = section.take("deadtime", duration("20ms", "1h"), timers.deadtime_ms)
    mode = section.take("mode", values.choice("any", "all"), "any")
    section.end()
    return Tiebreaker(ping, deadtime_ms, mode == "all") if section.is_there else None


def read_watchdog(section: Section, directory: Path) -> Watchdog | None:
    device = section.take("device", values.path_in(directory), Path("/dev/watchdog"))
    timeout_ms = section.take("timeout", duration("1s", "10m"), 10_000)
    section.end()
    if section.is_there and timeout_ms < WATCHDOG_CALM_MS:
        rule = "is shorter than the stalls of a busy machine may be: it would be reset while it is well"
        section.warn("timeout", rule, f"use {duration_text(WATCHDOG_CALM_MS)} or more")
    return Watchdog(device, timeout_ms) if section.is_there else None


def read_announcements(section: Section) -> Announcements:
    usual = Announcements()
    found = {}
    for key, default in (("burst", usual.burst_ms), ("refresh", usual.refresh_ms)):
        times = section.take(key, values.several(values.duration_ms, 32), default)
        if list(times) != sorted(set(times)):
            section.error(key, "does not rise from each time to the next", 'use times such as ["0s", "50ms", "200ms"]')
        found[key] = times
    section.end()
    return Announcements(found["burst"], found["refresh"])


def read_log(section: Section) -> str:
    level = section.take("level", values.choice("debug", "info", "warning", "error"), "info")
    section.end()
    return level
