"""Which single failures does a site have?

Decides the rows of the what-if table, from the plan alone; knows nothing of
what each of them does or how it is worded.
"""

import enum
from collections.abc import Iterator
from typing import Final

import msgspec

from hostd.core.plan import Plan, Service
from hostd.sim import faults as f
from hostd.sim.faults import AnyFault, Conduct, Schedule, Stop, Timed
from hostd.sim.whatif import PLAY_MAX_MS, Site, at_once

FOR_EVER_MS: Final = 10 * PLAY_MAX_MS

MENDED_AFTER_MS: Final = 60_000
"""How long the switch of the clients is away in the row in which it comes back: the time of its restart."""


class What(enum.Enum):
    """What fails; the first ones are single failures, SPLIT and TOTAL_SPLIT are the two that everybody fears."""

    POWER = enum.auto()
    DAEMON_KILLED = enum.auto()
    HANGS = enum.auto()  # every process of a node, for ever
    STANDS_STILL = enum.auto()  # a whole virtual machine, and comes back
    LINK = enum.auto()
    LINK_ONE_WAY = enum.auto()
    LAN_NODE = enum.auto()
    LAN_BOTH = enum.auto()
    LAN_BOTH_BACK = enum.auto()  # and it is mended
    TIEBREAKER_NODE = enum.auto()
    TIEBREAKER_BOTH = enum.auto()
    DIES = enum.auto()
    DIES_UNSEEN = enum.auto()
    START_FAILS = enum.auto()
    STOP_FAILS = enum.auto()
    FENCE_FAILS = enum.auto()  # all devices of a node, when it loses its power
    FENCE_LEVEL_FAILS = enum.auto()
    SPLIT = enum.auto()
    TOTAL_SPLIT = enum.auto()


class Single(msgspec.Struct, frozen=True):
    """One failure, and the faults that make it."""

    what: What
    schedule: Schedule
    node: str = ""
    link: str = ""
    service: str = ""
    level: int = 0
    for_ms: int = 0


def singles(site: Site) -> Iterator[Single]:
    """Every single failure of the site, nodes first."""
    plan = site.plan
    for node in plan.nodes:
        yield from _of_node(site, node)
    yield from _of_links(plan)
    if any(service.addresses for service in plan.services):
        for node in plan.nodes:
            yield Single(What.LAN_NODE, at_once(f.LanCut(node)), node=node)
        cuts = at_once(*(f.LanCut(node) for node in plan.nodes))
        yield Single(What.LAN_BOTH, cuts)
        back = tuple(Timed(MENDED_AFTER_MS, f.LanMend(node)) for node in plan.nodes)
        yield Single(What.LAN_BOTH_BACK, (*cuts, *back), for_ms=MENDED_AFTER_MS)
    if plan.tiebreaker:
        for node in plan.nodes:
            yield Single(What.TIEBREAKER_NODE, at_once(f.PingLost(node)), node=node)
        yield Single(What.TIEBREAKER_BOTH, at_once(*(f.PingLost(node) for node in plan.nodes)))
    for service in plan.services:
        yield from _of_service(plan, service)


def _of_node(site: Site, node: str) -> Iterator[Single]:
    plan = site.plan
    yield Single(What.POWER, at_once(f.PowerOff(node)), node=node)
    yield Single(What.DAEMON_KILLED, at_once(f.KillHost(node)), node=node)
    yield Single(What.HANGS, at_once(f.Pause(node, Stop.USERLAND, FOR_EVER_MS)), node=node)
    for_ms = 5 * plan.timers.deadtime_ms
    yield Single(What.STANDS_STILL, at_once(f.Pause(node, Stop.FREEZE, for_ms)), node=node, for_ms=for_ms)
    if not plan.fencing:
        return
    levels = site.levels.get(node, ())
    yield Single(What.FENCE_FAILS, at_once(f.Fencing(node, Conduct.FAIL), f.PowerOff(node)), node=node)
    for level in levels if len(levels) > 1 else ():
        if level != levels[-1]:  # the last one is not asked as long as an earlier one works
            slow = f.Fencing(node, Conduct.SLOW)
            yield Single(What.FENCE_LEVEL_FAILS, at_once(slow, f.PowerOff(node)), node=node, level=level)


def _of_links(plan: Plan) -> Iterator[Single]:
    for link in plan.links:
        yield Single(What.LINK, at_once(f.Cut(link.name)), link=link.name)
        for node in plan.nodes:
            yield Single(What.LINK_ONE_WAY, at_once(f.Cut(link.name, node)), link=link.name, node=node)
    cuts: list[AnyFault] = [f.Cut(link.name) for link in plan.links]
    if len(plan.links) > 1:
        yield Single(What.SPLIT, at_once(*cuts))
    yield Single(What.TOTAL_SPLIT, at_once(*cuts, f.ArpBlock()))


def _of_service(plan: Plan, service: Service) -> Iterator[Single]:
    name, node = service.name, service.primary
    if not any(not resource.address for resource in service.resources):
        return
    dies = f.Dies(name, node)
    yield Single(What.DIES, at_once(dies), node=node, service=name)
    yield Single(What.DIES_UNSEEN, at_once(f.Dies(name, node, noticed=False)), node=node, service=name)
    yield Single(What.START_FAILS, at_once(f.Starts(name, node, Conduct.FAIL), dies), node=node, service=name)
    ask = f.Ask(node, "standby", node) if service.everywhere else f.Ask(node, "move", name, plan.peer_of(node))
    if service.everywhere or len(service.candidates) > 1:
        yield Single(What.STOP_FAILS, at_once(f.Stops(name, node, Conduct.FAIL), ask), node=node, service=name)
