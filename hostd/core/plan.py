"""What the operator wants, in the core's terms: nodes, links, services.

Decides nothing; it is what ``conf.d`` comes to once ``hostd.config`` has
read, merged and checked it.  It knows nothing of files, sockets or agents'
parameters: those stay outside, found again by service name and resource id.
"""

import msgspec


class Timers(msgspec.Struct, frozen=True):
    """The four times of ha.cf, in milliseconds, with ha.cf's meanings."""

    keepalive_ms: int = 100
    warntime_ms: int = 500
    deadtime_ms: int = 2_000
    initdead_ms: int = 30_000


class Link(msgspec.Struct, frozen=True):
    """One heartbeat medium between the two nodes."""

    name: str
    direct: bool = False
    """A cable with nothing in between: its carrier tells of the peer's power."""
    modem_lines: bool = False
    """A serial line: where it has DSR or DCD, they fall with the peer's power."""


class Resource(msgspec.Struct, frozen=True):
    """One rung of a service.  ``address`` is the text of an IP address
    (``172.23.2.13/24`` or with ``@eth0``), or empty for an agent's resource."""

    id: str
    agent: str
    address: str = ""
    start_timeout_ms: int = 20_000
    stop_timeout_ms: int = 20_000
    monitor_timeout_ms: int = 20_000
    monitor_interval_ms: int = 10_000
    """0: never monitored."""
    monitor_depth: int = 0
    """Of the recurring monitor: 0, 10 or 20, as OCF_CHECK_LEVEL."""
    exclusive_storage: bool = False
    """Writes data that two nodes must never write at once."""


class Service(msgspec.Struct, frozen=True):
    """One line of haresources, and what has been learnt since."""

    name: str
    candidates: tuple[str, ...]
    """Primary first, then the backups in order; every node for ``on = "all"``."""
    resources: tuple[Resource, ...] = ()
    everywhere: bool = False
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    failback_after_ms: int | None = 0
    """None: never fails back by itself; else the stability asked of the primary."""
    restarts_max: int = 3
    restarts_within_ms: int = 600_000
    without_fencing: bool = False
    probation_ms: int = 3_600_000
    """For how long after it was added a failed stop of it does not cost its node other services."""
    digest: str = ""
    """Of the service's whole definition, agents' parameters included."""

    @property
    def primary(self) -> str:
        return self.candidates[0]

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(r.address for r in self.resources if r.address)


class Plan(msgspec.Struct, frozen=True):
    """The whole wish of the operator.  ``nodes`` in configured order: it breaks ties."""

    cluster: str
    nodes: tuple[str, ...]
    services: tuple[Service, ...] = ()
    links: tuple[Link, ...] = ()
    timers: Timers = Timers()
    fencing: bool = False
    """True for ``[fencing] mode = "required"``."""
    cuts_storage: bool = False
    """True for ``[fencing] mode = "storage"``: no power is switched, so that all
    that holds without fencing holds here, and a silent peer loses its disks first."""
    fence_delay_ms: int = 2_000
    address_lease_ms: int = 5_000
    """0: no lease."""
    restart_limit_ms: int = 60_000
    """How long a detached daemon may be away unless the operator says otherwise."""
    tiebreaker: bool = False
    """Stations on the client LAN tell each node whether it is cut off."""
    digest: str = ""
    """Of node names and their order, fencing and lease."""

    def peer_of(self, node: str) -> str:
        """The other of the two nodes."""
        assert len(self.nodes) == 2 and node in self.nodes, (node, self.nodes)
        return self.nodes[1] if node == self.nodes[0] else self.nodes[0]

    def is_first(self, node: str) -> bool:
        return self.nodes[0] == node

    def service(self, name: str) -> Service:
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
