"""Services that this node sets aside, so that one broken agent does not stop the others.

Decides which services fall with an agent that cannot be used here.  Refuses
to know why it cannot: the complaint says it.
"""

from collections.abc import Iterable

import msgspec

from hostd.confd.complain import Complaint
from hostd.confd.services import Read
from hostd.core.plan import Service


class SetAside(msgspec.Struct, frozen=True):
    """A service that this node does not run, since an agent of it cannot be
    used here, or one that it requires is set aside.  The others run."""

    service: Service
    """As far as it could be read."""
    reason: str
    """Fits after a colon."""
    cure: str


def part(found: list[Read], complaints: Iterable[Complaint]) -> tuple[list[Read], tuple[SetAside, ...]]:
    """Those that can be run here, and those that cannot, with the reason.

    ``requires`` is followed: what needs a service that is set aside is set
    aside too.  ``after`` is not: an order of starts has no meaning with one
    that this node never starts.
    """
    services = {read.service.name: read.service for read in found}
    aside: dict[str, SetAside] = {}
    for complaint in complaints:
        if complaint.sets_aside and complaint.sets_aside not in aside:
            service = services[complaint.sets_aside]
            reason = f"agent = {complaint.value} {complaint.rule}"
            aside[service.name] = SetAside(service, reason, complaint.cure)
    while True:
        fall = {
            service.name: SetAside(service, f"it requires {name}, which is set aside", f"see {name}")
            for service in services.values()
            for name in service.requires
            if name in aside and service.name not in aside
        }
        if not fall:
            break
        aside |= fall
    kept = [
        read._replace(
            service=msgspec.structs.replace(
                read.service, after=tuple(name for name in read.service.after if name not in aside)
            )
        )
        for read in found
        if read.service.name not in aside
    ]
    return kept, tuple(aside[name] for name in services if name in aside)
