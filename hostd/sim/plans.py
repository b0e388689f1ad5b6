"""The clusters that the simulator plays with.

Decides the shape of small plans: what a story, a seed or the search runs
when nobody hands it the site's own.  Times are shorter than the defaults so
that a minute of virtual time holds more faults, in the same proportions.
"""

import random

import msgspec

from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.sim import disk

NODES = ("a", "b")

LINKS = (Link("serial"), Link("cross", direct=True))

DISK = "disk"
"""A service of this name registers its node with the shared disk."""

QUICK = Timers(keepalive_ms=200, warntime_ms=600, deadtime_ms=2_000, initdead_ms=5_000)


def address_of(service: str) -> str:
    """The address that a service of ours has: its letters make the last byte."""
    return f"172.23.2.{sum(service.encode()) % 250 + 1}/24"


def service(
    name: str,
    primary: str = "a",
    *,
    address: bool = True,
    agent: bool = True,
    everywhere: bool = False,
    requires: tuple[str, ...] = (),
    after: tuple[str, ...] = (),
    failback_after_ms: int | None = 0,
    without_fencing: bool = False,
) -> Service:
    """One service: an address first, then an agent, either of them left out on request."""
    resources: list[Resource] = []
    if address and not everywhere:
        resources.append(Resource(id=address_of(name), agent="address", address=address_of(name)))
    if agent:
        resources.append(
            Resource(
                id=name,
                agent=disk.AGENT if name == DISK else "dummy",
                start_timeout_ms=4_000,
                stop_timeout_ms=4_000,
                monitor_timeout_ms=3_000,
                monitor_interval_ms=2_000,
                exclusive_storage=not everywhere,
            )
        )
    order = NODES if primary == "a" or everywhere else NODES[::-1]
    return Service(
        name=name,
        candidates=order,
        resources=tuple(resources),
        everywhere=everywhere,
        requires=requires,
        after=after,
        failback_after_ms=failback_after_ms,
        restarts_max=2,
        restarts_within_ms=60_000,
        without_fencing=without_fencing,
        digest=name,
    )


def plan(
    *services: Service,
    fencing: bool,
    cuts_storage: bool = False,
    links: tuple[Link, ...] = LINKS,
    timers: Timers = QUICK,
    tiebreaker: bool = False,
) -> Plan:
    return Plan(
        cluster="sim",
        nodes=NODES,
        services=services,
        links=links,
        timers=timers,
        fencing=fencing,
        cuts_storage=cuts_storage,
        fence_delay_ms=1_000,
        address_lease_ms=5_000,
        restart_limit_ms=8_000,
        tiebreaker=tiebreaker,
        digest="nodes",
    )


def draw(seed: int, fencing: bool | None = None) -> Plan:
    """One of many small clusters: the seed decides services, links and fencing.

    Of those without fencing one in three has fencing of the storage.
    """
    rng = random.Random(f"plan {seed}")
    fenced = rng.random() < 0.5 if fencing is None else fencing
    choice = [
        service("web", rng.choice(NODES), failback_after_ms=rng.choice((0, 0, 1_500, None))),
        service("db", rng.choice(NODES), failback_after_ms=rng.choice((0, None))),
        service("ip", rng.choice(NODES), agent=False),
        service("job", rng.choice(NODES), address=False, without_fencing=rng.random() < 0.5),
    ]
    services = rng.sample(choice, rng.choice((1, 1, 2, 3)))
    if rng.random() < 0.2:
        gfs = service("gfs", everywhere=True)
        name = services[0].name
        services = [gfs, service(name, services[0].primary, requires=("gfs",), agent=name != "ip"), *services[1:]]
    elif len(services) > 1 and rng.random() < 0.2:
        first, second = services[0], services[1]
        services[1] = service(second.name, second.primary, agent=second.name != "ip", after=(first.name,))
    elif len(services) > 1 and rng.random() < 0.2:  # an exclusive requirement: both on one node
        first, second = services[0], services[1]
        services[1] = msgspec.structs.replace(second, candidates=first.candidates, requires=(first.name,))
    links = rng.choice((LINKS, LINKS, (*LINKS, Link("lan"))))
    tiebreaker = rng.random() < 0.3
    cuts_storage = not fenced and random.Random(f"storage {seed}").random() < 1 / 3
    if cuts_storage:
        services = with_disk(*services)
    return plan(*services, fencing=fenced, cuts_storage=cuts_storage, links=links, tiebreaker=tiebreaker)


def with_disk(*services: Service) -> list[Service]:
    """What is exclusive and more than an address has its data on the shared disk."""
    on_disk = [
        msgspec.structs.replace(s, requires=(*s.requires, DISK))
        if not s.everywhere and any(r.exclusive_storage for r in s.resources)
        else s
        for s in services
    ]
    return [service(DISK, everywhere=True), *on_disk]
