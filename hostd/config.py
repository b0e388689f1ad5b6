"""conf.d/*.toml → :class:`Configuration`: what the operator wants, checked.

The door of ``hostd.confd``, which does the reading.  Every complaint names
file, key, value, rule and cure, and all complaints of one reading are
collected before any is raised.

Decides nothing by itself but what both nodes must have in common
(``plan.digest``).  Knows nothing of this machine: whether an interface or a
tty is there is the business of ``hostd check``.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from hostd.api import ConfigError, LinkSettings, Parameters
from hostd.confd import aside, cluster, files, relations, services, telling
from hostd.confd.aside import SetAside
from hostd.confd.cluster import Announcements, FencingDevice, Tiebreaker, Watchdog
from hostd.confd.complain import Complaint, Complaints, Place
from hostd.confd.digests import digest
from hostd.confd.params import refill
from hostd.confd.section import Section
from hostd.confd.services import Agents, ResourceSettings
from hostd.confd.telling import Notifier
from hostd.confd.values import duration_ms, duration_text
from hostd.core.plan import Plan

__all__ = [
    "Announcements", "BadConfiguration", "Complaint", "Configuration", "Directories", "Examined", "FencingDevice",
    "Notifier", "Place", "ResourceSettings", "SetAside", "Tiebreaker", "Watchdog", "digest", "duration_ms",
    "duration_text", "examine", "load", "refill",
]  # fmt: skip


class Directories(msgspec.Struct, frozen=True):
    """Where everything is (INTERFACES.md section 1); extra folders come first to last."""

    config: Path = Path("/etc/hostd/conf.d")
    agents: tuple[Path, ...] = ()
    """Named on the command line, in addition to the bundled ones and /etc/hostd/agents."""
    plugins: tuple[Path, ...] = ()
    runtime: Path = Path("/run/hostd")
    state: Path = Path("/var/lib/hostd")

    def absolute(self) -> "Directories":
        """The same wherever a process stands: files are read again from children that stand elsewhere."""
        return Directories(
            self.config.absolute(),
            tuple(folder.absolute() for folder in self.agents),
            tuple(folder.absolute() for folder in self.plugins),
            self.runtime.absolute(),
            self.state.absolute(),
        )


class Configuration(msgspec.Struct, frozen=True):
    """All of conf.d for one node.  ``plan`` is what the core sees of it."""

    plan: Plan
    node: str
    key: Path
    links: tuple[LinkSettings, ...]
    """In the order of ``plan.links``."""
    resources: tuple[ResourceSettings, ...]
    announcements: Announcements = Announcements()
    log_level: str = "info"
    status_for_everyone: bool = False
    """Whoever has an account here may ask how things stand, and no more."""
    warnings: tuple[str, ...] = ()
    """What is allowed but should be known (no fencing, only one link)."""
    fencing_devices: tuple[FencingDevice, ...] = ()
    fencing_drill_ms: int = 0
    """How often the peer's devices are tried harmlessly; 0: never by itself."""
    tiebreaker: Tiebreaker | None = None
    watchdog: Watchdog | None = None
    metrics_textfile: Path | None = None
    notifiers: tuple[Notifier, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    """Services of conf.d that are not in ``plan``: this node cannot run them."""

    def resource(self, service: str, resource: str) -> ResourceSettings:
        for settings in self.resources:
            if (settings.service, settings.resource) == (service, resource):
                return settings
        raise KeyError((service, resource))


class BadConfiguration(ConfigError):
    """All that is wrong with one conf.d; the text has a paragraph for each complaint."""

    def __init__(self, complaints: tuple[Complaint, ...]) -> None:
        super().__init__("\n\n".join(complaint.text for complaint in complaints))
        self.complaints = complaints


class Examined(msgspec.Struct, frozen=True):
    """What a reading came to.  ``configuration`` is None if one of the complaints is fatal."""

    configuration: Configuration | None
    complaints: tuple[Complaint, ...]
    """Mistakes and warnings, by file and line."""
    places: Mapping[tuple[str | int, ...], Place]
    """The line of each key, such as ("heartbeat", "link", 0, "device")."""


def load(
    directory: Path,
    node: str,
    agents: Agents,
    link_types: Mapping[str, Parameters],
    notify_types: Mapping[str, Parameters] | None = None,
) -> Configuration:
    """Read conf.d as ``node`` sees it.

    ``agents`` gives the Parameters for the reference after ``agent =``, and
    raises ConfigError for one that is unknown or broken; ``link_types`` those
    of each ``[[heartbeat.link]] type``, ``notify_types`` of each ``[[notify]]
    type`` (None: they are not judged).  Raises :class:`BadConfiguration`,
    but not for an agent: that costs the services which need it, told in
    ``set_aside``, since after a reboot one broken file must not stop all.
    """
    examined = examine(directory, node, agents, link_types, notify_types)
    if examined.configuration is None:
        raise BadConfiguration(tuple(c for c in examined.complaints if not c.is_warning))
    return examined.configuration


def examine(
    directory: Path,
    node: str,
    agents: Agents,
    link_types: Mapping[str, Parameters],
    notify_types: Mapping[str, Parameters] | None = None,
) -> Examined:
    """The same, with all complaints as a result instead of an error."""
    tree = files.read(directory)
    if tree.complaints:
        return Examined(None, tuple(tree.complaints), tree.places)
    complaints = Complaints(tree.places)
    root = Section(complaints, (), tree.values)
    textfile = telling.read_metrics(root.table("metrics"), directory)
    tables = root.tables("notify")
    configuration = _build(root, node, agents, link_types, directory)
    nodes = configuration.plan.nodes if configuration is not None else (node,)
    notifiers = telling.read_notify(tables, nodes, node, notify_types, directory)
    gathered = tuple(sorted(complaints.gathered, key=lambda c: (c.file, c.line or 0)))
    if any(complaint.is_fatal for complaint in gathered):
        return Examined(None, gathered, tree.places)
    assert configuration is not None
    warnings = tuple(complaint.text for complaint in gathered if complaint.is_warning)
    found = msgspec.structs.replace(configuration, warnings=warnings, metrics_textfile=textfile, notifiers=notifiers)
    return Examined(found, gathered, tree.places)


def _build(
    root: Section, node: str, agents: Agents, link_types: Mapping[str, Parameters], directory: Path
) -> Configuration | None:
    """Every table in turn; None if the nodes are unfit, for nearly all else is judged by them."""
    basics = cluster.read_basics(root.table("cluster"), node, directory)
    heartbeat = root.table("heartbeat")
    timers = cluster.read_timers(heartbeat)
    announcements = cluster.read_announcements(root.table("announce"))
    tiebreaker = cluster.read_tiebreaker(root.table("tiebreaker"), timers)
    watchdog = cluster.read_watchdog(root.table("watchdog"), directory)
    log_level = cluster.read_log(root.table("log"))
    if not basics.nodes:
        return None
    links, settings = cluster.read_links(heartbeat, basics, timers, node, link_types, directory)
    heartbeat.end()
    fencing = cluster.read_fencing(root.table("fencing"), basics, node, directory)
    around = services.Surroundings(basics, node, agents, directory)
    found = services.read_services(root, around)
    registering = _registering(root, found) if fencing.cuts_storage else []
    relations.judge(root, found, is_fenced=fencing.is_required, registering=registering)
    _judge_tiebreaker(root, tiebreaker, found)
    root.end()
    found, set_aside = aside.part(found, root.complaints.gathered)
    plan = Plan(
        cluster=basics.name,
        nodes=basics.nodes,
        services=tuple(read.service for read in found),
        links=links,
        timers=timers,
        fencing=fencing.is_required,
        cuts_storage=fencing.cuts_storage,
        fence_delay_ms=fencing.delay_ms,
        address_lease_ms=basics.address_lease_ms,
        tiebreaker=tiebreaker is not None,
        digest=digest([basics.nodes, fencing.mode, fencing.delay_ms, basics.address_lease_ms]),
    )
    return Configuration(
        plan=plan,
        node=node,
        key=basics.key,
        links=settings,
        resources=tuple(settings for read in found for settings in read.settings),
        announcements=announcements,
        log_level=log_level,
        status_for_everyone=basics.status_for_everyone,
        fencing_devices=fencing.devices,
        fencing_drill_ms=0 if fencing.mode == "none" else fencing.drill_ms,
        tiebreaker=tiebreaker,
        watchdog=watchdog,
        set_aside=set_aside,
    )


def _registering(root: Section, found: list[services.Read]) -> list[str]:
    """For ``mode = "storage"``: a disk takes a node's key away only for one that is registered with it."""
    names = [
        read.service.name
        for read in found
        if read.service.everywhere
        and any(s.agent == "scsi_reservation" and s.params.get("mode") == "registrants" for s in read.settings)
    ]
    if not names:
        root.complaints.error(
            ("fencing", "mode"),
            '= "storage" wants both nodes registered with the disks, and no service registers them',
            'add a service with on = "all" and agent = "scsi_reservation", params.mode = "registrants", '
            "and let the services on these disks require it",
        )
    return names


def _judge_tiebreaker(root: Section, tiebreaker: Tiebreaker | None, found: list[services.Read]) -> None:
    """A service's address would be answered by this node itself, or fall silent with the service."""
    of = {address: read.service.name for read in found for address in read.addresses}
    for ping in tiebreaker.ping if tiebreaker else ():
        if ping in of:
            rule = f"names {ping}, an address of service {of[ping]}"
            root.complaints.error(("tiebreaker", "ping"), rule, "name a station that is no node, best the router")
