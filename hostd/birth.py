"""What a brain finds when it is born → ``Started``, the first event of its core.

Decides what of an earlier life counts: the operator's wishes on the disk, what
the host knows to be unfinished or outdated, which addresses hang on this node,
and how much of a service's probation is left.  Refuses to know what follows
from it.  Reads the disk in the loop: until it is done, nothing else is.
"""

import logging
import time

import hostd
from hostd import former_addresses, state
from hostd.address import Addresses
from hostd.config import Directories
from hostd.core.events import Started
from hostd.core.plan import Plan
from hostd.core.terms import Incarnation
from hostd.figures import Figures
from hostd.messages import Unfinished

log = logging.getLogger("hostd")


async def begin(
    plan: Plan,
    incarnation: Incarnation,
    directories: Directories,
    addresses: Addresses,
    figures: Figures,
    left: Unfinished,
) -> Started:
    """Clear the addresses that conf.d no longer has, and say how things stand.

    ``addresses`` are open; ``figures`` know what is set aside and the watchdog;
    ``left``: the host's word.
    """
    wishes, complaint = state.load_wishes(directories.state)
    if complaint:
        log.error("the operator's wishes of before are lost unless the peer holds them: %s", complaint)
    set_aside = [aside.service for aside in figures.set_aside]
    former_addresses.clear(addresses, directories.runtime, plan, set_aside, wishes)
    return Started(
        incarnation=incarnation,
        wishes=wishes,
        unfinished=left.services,
        outdated=left.outdated,
        stations=await addresses.stations(),
        release=hostd.__version__,
        present=addresses.held(),
        watchdog_ms=figures.watchdog.bound_ms if figures.watchdog is not None else 0,
        probation_ms=_probation_ms(plan, directories),
    )


def _probation_ms(plan: Plan, directories: Directories) -> dict[str, int]:
    now_s = time.time()
    seen = state.first_seen(directories.state, tuple(s.name for s in plan.services), now_s)
    left = {s.name: s.probation_ms - round((now_s - seen[s.name]) * 1_000) for s in plan.services}
    return {name: left_ms for name, left_ms in left.items() if left_ms > 0}
