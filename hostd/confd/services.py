"""[service.*] → the plan's services, one by one.

Decides which definitions of a service mean something: where it may run, what
it is made of, what it needs.  Knows no agent: what one takes comes from its
own ``Parameters``, asked for by the reference after ``agent =``.  What they
must be to each other is in ``relations``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from hostd.api import ConfigError, Parameters
from hostd.confd import params, values
from hostd.confd.cluster import Basics, failback
from hostd.confd.complain import shown
from hostd.confd.digests import digest
from hostd.confd.section import Section
from hostd.confd.values import Unfit, duration, whole
from hostd.core.plan import Resource, Service

Agents = Callable[[str], Parameters]
"""What an agent takes, by the reference after ``agent =``; raises ConfigError for one that cannot be used."""

SERVICES_MAX: Final = 256
"""A snapshot of so many still passes a slow serial line in reasonable time."""
PROBATION_MS: Final = 3_600_000
RESOURCES_MAX: Final = 64
RELATIONS_MAX: Final = 64

action_limit = duration("100ms", "1d")


class ResourceSettings(msgspec.Struct, frozen=True):
    """An agent's resource as its agent is to see it: the reference after
    ``agent =``, and parameters checked, typed, defaults filled in."""

    service: str
    resource: str
    agent: str
    params: dict[str, Any]
    secrets: tuple[str, ...] = ()
    """Names of parameters that are never shown."""
    written: dict[str, Any] = {}
    """What the operator wrote of ``params`` for this node: no agent's defaults in it,
    so that a newer agent makes no other definition of it."""


class Limits(msgspec.Struct, frozen=True):
    """Times, and a depth, that the operator sets for a service or one resource; None: the agent's own."""

    start_ms: int | None = None
    stop_ms: int | None = None
    monitor_ms: int | None = None
    interval_ms: int | None = None
    depth: int | None = None

    def over(self, below: "Limits") -> "Limits":
        """These, and where they say nothing those of ``below``."""
        return Limits(
            *(
                low if mine is None else mine
                for mine, low in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(below), strict=True)
            )
        )

    def resource(self, id_: str, reference: str, parameters: Parameters) -> Resource:
        """The plan's resource under these limits and, where they say nothing, the agent's own."""

        def limit(mine: int | None, agents_own: str) -> int:
            return values.duration_ms(agents_own) if mine is None else mine

        return Resource(
            id=id_,
            agent=reference,
            start_timeout_ms=limit(self.start_ms, parameters.timeouts["start"]),
            stop_timeout_ms=limit(self.stop_ms, parameters.timeouts["stop"]),
            monitor_timeout_ms=limit(self.monitor_ms, parameters.timeouts["monitor"]),
            monitor_interval_ms=limit(self.interval_ms, parameters.monitor_interval),
            monitor_depth=parameters.monitor_depth if self.depth is None else self.depth,
            exclusive_storage=parameters.exclusive_storage,
        )


class Surroundings(NamedTuple):
    """What a service is read within."""

    basics: Basics
    node: str
    agents: Agents
    directory: Path


class Read(NamedTuple):
    """One service, what its agents see, and where its addresses stand."""

    service: Service
    settings: tuple[ResourceSettings, ...]
    addresses: dict[str, Section]
    """The table that gives each address, by the address without prefix and interface."""
    guards_storage: bool = False
    """One of its resources makes the storage refuse the writes of every other node while it runs."""
    unguarded: tuple[str, ...] = ()
    """Its resources whose data two nodes must never write at once, and which no resource before them guards."""


def probation(value: Any) -> int:
    """A duration in ms; false → 0."""
    if value is True:
        raise Unfit("is no duration", 'use one such as "1h", or false for none')
    return 0 if value is False else values.duration_ms(value)


def read_services(root: Section, around: Surroundings) -> list[Read]:
    """Every ``[service.*]``, in the order of their names: that of files must not matter."""
    services = root.table("service")
    names = sorted(services.names())
    if len(names) > SERVICES_MAX:
        rule = f"has {len(names)} services"
        root.complaints.error(services.path, rule, f"use at most {SERVICES_MAX}: more fit in a second cluster")
        return []
    found = []
    for name in names:
        section = services.table(name)
        try:
            values.service_name(name)
        except values.Unfit as unfit:
            root.complaints.error(section.path, unfit.rule, unfit.cure)
            continue
        found.append(_read_service(name, section, around))
    return found


def _read_service(name: str, section: Section, around: Surroundings) -> Read:
    basics = around.basics
    is_everywhere = section.take("on", values.choice("all"), None) is not None
    candidates = _read_candidates(section, basics.nodes, is_everywhere)
    relation = values.several(values.service_name, RELATIONS_MAX)
    requires, after = section.take("requires", relation, ()), section.take("after", relation, ())
    failback_after_ms = section.take("failback", failback, basics.failback_after_ms)
    restarts = section.table("restarts")
    restarts_max = restarts.take("limit", whole(0, 100), 3)
    restarts_within_ms = restarts.take("within", duration("1s", "7d"), 600_000)
    restarts.end()
    without_fencing = section.take("without_fencing", values.flag, False)
    probation_ms = section.take("probation", probation, PROBATION_MS)
    rungs = _read_resources(name, section, around)
    section.end({"node": 'did you mean primary, or on = "all"?', "enabled": f"use `hostd stop {name}`"})
    if is_everywhere:
        _refuse_on_all(section, rungs)
    service = Service(
        name=name,
        candidates=candidates,
        resources=tuple(rungs.resources),
        everywhere=is_everywhere,
        requires=requires,
        after=after,
        failback_after_ms=None if is_everywhere else failback_after_ms,
        restarts_max=restarts_max,
        restarts_within_ms=restarts_within_ms,
        without_fencing=without_fencing,
        probation_ms=probation_ms,
    )
    # Of what is written, not of an agent's defaults: two releases of an agent
    # on the two nodes of a rolling upgrade are no difference of configuration.
    whole_definition = {**msgspec.to_builtins(service), "resources": rungs.definitions}
    service = msgspec.structs.replace(service, digest=digest(whole_definition))
    return Read(service, tuple(rungs.settings), rungs.addresses, rungs.guards_storage, tuple(rungs.unguarded))


def _read_candidates(section: Section, nodes: tuple[str, ...], is_everywhere: bool) -> tuple[str, ...]:
    """Primary first; the default is the first node, then the others in order."""
    member = values.choice(*nodes, rule="is not a node of the cluster")
    primary = section.take("primary", member, nodes[0])
    others = tuple(node for node in nodes if node != primary)
    backups = section.take("backups", values.several(member, len(nodes)), others)
    if len(set(backups)) < len(backups):
        section.error("backups", "names a node twice", "name each once, or leave the line out")
    if primary in backups and "backups" in section:
        section.error("backups", f"names the primary, {primary}", "name only the others, or leave the line out")
    return nodes if is_everywhere else (primary, *(node for node in backups if node != primary))


def _refuse_on_all(section: Section, rungs: "_Rungs") -> None:
    for key in ("primary", "backups", "failback"):
        if key in section:
            section.error(key, 'means nothing with on = "all": it runs on every node', "remove it")
    if rungs.addresses:
        key = "address" if "address" in section else "resources"
        rule = 'holds an address, and on = "all" would give it to both nodes at once'
        section.error(key, rule, "move the address to a service that requires this one")


def _read_limits(section: Section) -> Limits:
    monitor, timeout = section.table("monitor"), section.table("timeout")
    limits = Limits(
        timeout.take("start", action_limit, None),
        timeout.take("stop", action_limit, None),
        monitor.take("timeout", action_limit, None),
        monitor.take("interval", _interval, None),
        monitor.take("depth", _depth, None),
    )
    monitor.end()
    timeout.end({"monitor": 'write monitor = { timeout = "…" }'})
    return limits


def _depth(value: Any) -> int:
    if type(value) is not int or value not in (0, 10, 20):
        raise values.Unfit("is no depth of a monitor", "use 0, 10 or 20; each looks deeper and costs more")
    return value


def _interval(value: Any) -> int:
    milliseconds = values.duration_ms(value)
    if milliseconds and not 100 <= milliseconds <= 86_400_000:
        raise values.Unfit("is out of range", "use a duration from 100ms to 1d, or 0 for never")
    return milliseconds


def _read_resources(name: str, section: Section, around: Surroundings) -> "_Rungs":
    """What the service is made of, from either form."""
    items = section.tables("resources")
    has_short_form = "address" in section or "agent" in section
    if "resources" in section and (has_short_form or "params" in section):
        key = next(key for key in ("address", "agent", "params") if key in section)
        section.error(key, "cannot stand beside resources", "put it into the list, at its place in the order")
    elif not items and not has_short_form:
        section.complaints.error(section.path, "has nothing to run", "add address, agent, or both")
    elif len(items) > RESOURCES_MAX:
        section.error("resources", f"has {len(items)} items", f"use at most {RESOURCES_MAX}")
        items = []
    limits = _read_limits(section)
    rungs = _Rungs(name, around)
    if "resources" in section:
        section.raw("address"), section.raw("agent"), section.raw("params")
        for item in items:
            rungs.add(item, _read_limits(item).over(limits))
            item.end()
    else:
        rungs.add(section, limits)
    return rungs


class _Rungs:
    """Gathers the resources of one service and gives each its id."""

    def __init__(self, service: str, around: Surroundings) -> None:
        self._service, self._around = service, around
        self.resources: list[Resource] = []
        self.settings: list[ResourceSettings] = []
        self.definitions: list[Any] = []
        """Each resource as the operator wrote it, in the same order."""
        self.addresses: dict[str, Section] = {}
        self.guards_storage = False
        self.unguarded: list[str] = []

    def add(self, section: Section, limits: Limits) -> None:
        """The addresses of a table, and then its agent (the order of haresources)."""
        for address in section.take("address", _addresses, ()):
            if values.bare(address) in self.addresses:
                section.error("address", f"names {values.bare(address)} twice", "name each address once")
            else:
                self.addresses[values.bare(address)] = section
                self.resources.append(Resource(id=address, agent="address", address=address))
                self.definitions.append({"address": address})
        reference = section.take("agent", values.text, None)
        given = section.table("params")
        if reference is not None:
            self._add_agent(section, reference, given, limits)
        elif given.is_there and "agent" not in section:
            section.error("params", "belongs to an agent, and there is none", "add agent = …")
        elif "address" not in section and "agent" not in section and len(section.path) > 2:
            section.complaints.error(section.path, "has neither address nor agent", "add one of the two")

    def _add_agent(self, section: Section, reference: str, given: Section, limits: Limits) -> None:
        id_, raw = self._free_id(reference), given.rest()
        try:
            parameters = self._around.agents(reference)
            resource = limits.resource(id_, reference, parameters)
        except ConfigError as error:
            rule, _, cure = str(error).partition("; ")
            self._set_aside(section, reference, rule, cure or "mend that file (`hostd-agent list` shows all)")
            return
        except values.Unfit as unfit:
            self._set_aside(section, reference, f"one of its own times {unfit.rule}", "mend the agent's Parameters")
            return
        basics, directory = self._around.basics, self._around.directory
        filled = params.fill(section.complaints, given.path, raw, parameters, basics.nodes, directory)
        own = filled.values[self._around.node]
        self.resources.append(resource)
        self.guards_storage |= all(parameters.guards(theirs) for theirs in filled.values.values())
        if parameters.exclusive_storage and not self.guards_storage:
            self.unguarded.append(id_)
        written = filled.written[self._around.node]
        self.settings.append(ResourceSettings(self._service, id_, reference, own, filled.secrets, written))
        self.definitions.append({"agent": reference, "params": raw, "limits": limits})

    def _set_aside(self, section: Section, reference: str, rule: str, cure: str) -> None:
        """What one agent file costs: the services that need it, and no other."""
        section.complaints.set_aside(
            self._service, section.at("agent"), f"cannot be used: {rule}", cure, value=shown(reference)
        )

    def _free_id(self, reference: str) -> str:
        """``mysql``, the second ``mysql-2``."""
        taken = {resource.id for resource in self.resources}
        id_, number = reference, 1
        while id_ in taken:
            number += 1
            id_ = f"{reference}-{number}"
        return id_


def _addresses(value: Any) -> tuple[str, ...]:
    if isinstance(value, list):
        return values.several(values.address, RESOURCES_MAX)(value)
    return (values.address(value),)
