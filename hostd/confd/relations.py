"""What the services of conf.d must be to each other, and what is dangerous about them without fencing.

Decides which requirements and addresses go together, and which service is
warned of.  Knows no single service's own rules, and no agent.
"""

from collections.abc import Collection

from hostd.confd.section import Section, nearest
from hostd.confd.services import Read
from hostd.core.plan import Service


def judge(root: Section, found: list[Read], *, is_fenced: bool, registering: Collection[str] = ()) -> None:
    """The rules that need more than one service, and the warnings for a cluster without fencing.

    ``registering``: services that register their node with a disk, where fencing takes that away.
    """
    services = {read.service.name: read.service for read in found}
    for service in services.values():
        _judge_relations(root, service, services)
    _judge_cycles(root, services)
    _judge_addresses(found)
    if not is_fenced:
        guards = {*registering, *(read.service.name for read in found if read.guards_storage)}
        for read in found:
            is_guarded = not guards.isdisjoint(needed(read.service, services))
            _warn_unfenced(root, read.service, () if is_guarded else read.unguarded)


def _judge_relations(root: Section, service: Service, services: dict[str, Service]) -> None:
    complain = root.complaints.error
    for key, names in (("requires", service.requires), ("after", service.after)):
        path = ("service", service.name, key)
        for name in names:
            if name == service.name:
                complain(path, f"names {name} itself", "remove it")
            elif name not in services:
                meant = nearest(name, services)
                cure = f"did you mean {meant}?" if meant else f"services here: {', '.join(services)}"
                complain(path, f'names "{name}", which is not a service', cure)
    path = ("service", service.name, "requires")
    for name in service.requires:
        other = services.get(name)
        if other is None or other.everywhere or name == service.name:
            continue
        if service.everywhere:
            rule = f'names {name}, which runs on one node, and this service is on = "all"'
            complain(path, rule, 'require only services that are on = "all"')
        elif other.primary != service.primary:
            primaries = f"{service.primary}, {other.primary}"
            rule = f"names {name}, so both run on one node, but the primaries differ ({primaries})"
            complain(path, rule, f'set primary = "{other.primary}" here, or the other way round')


def _judge_cycles(root: Section, services: dict[str, Service]) -> None:
    """Each ring of requires and after once, told from its first service by name."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            ring = (*way[way.index(name) :], name)
            last = services[ring[-2]]
            key = "requires" if name in last.requires else "after"
            rule = f"closes a ring: {' → '.join(ring)}"
            root.complaints.error(("service", last.name, key), rule, "remove one of these")
        elif name not in done and name in services:
            needed = dict.fromkeys((*services[name].requires, *services[name].after))
            for other in needed:
                if other != name:
                    visit(other, (*way, name))
            done.add(name)

    for name in services:
        visit(name, ())


def _judge_addresses(found: list[Read]) -> None:
    owners: dict[str, str] = {}
    for read in found:
        for address, section in read.addresses.items():
            owner = owners.setdefault(address, read.service.name)
            if owner != read.service.name:
                rule = f"gives {address}, which is {owner}'s"
                section.error("address", rule, "give each service addresses of its own")


def needed(service: Service, services: dict[str, Service]) -> set[str]:
    """Every service that runs wherever this one does, since it is required, or required by one of these."""
    found: set[str] = set()
    to_visit = list(service.requires)
    while to_visit:
        name = to_visit.pop()
        if name in services and name not in found:
            found.add(name)
            to_visit += services[name].requires
    return found


def _warn_unfenced(root: Section, service: Service, storage: tuple[str, ...]) -> None:
    """``storage``: its resources with data that only fencing could keep from being written twice."""
    path = ("service", service.name)
    if storage and not service.everywhere:
        root.complaints.warn(
            path,
            f"has data that two nodes must never write at once ({', '.join(storage)}), and there is no fencing",
            'add [fencing], or agent = "scsi_reservation" for its disk',
        )
    if not service.addresses and not service.everywhere and not service.without_fencing:
        root.complaints.warn(
            path,
            "has no address, and without fencing only its addresses can tell that a silent node is gone: "
            "it is taken over after `hostd confirm-down` only",
            "add [fencing], an address, or without_fencing = true if two of it do no harm",
        )
