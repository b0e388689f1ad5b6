"""One run: a plan, a schedule of faults, then peace, and a verdict.

Decides how long a cluster may take to be well again once faults have
stopped (invariant 5), and what "well" is.  Everything else is judged while
it happens (``judge.py``).
"""

from typing import Final

import msgspec

from hostd.core.plan import Plan, Service
from hostd.core.snapshot import Snapshot, WishKind
from hostd.core.terms import Phase
from hostd.sim.actions import Truth
from hostd.sim.faults import AnyFault, Ask, KillBrain, Schedule
from hostd.sim.judge import Judge
from hostd.sim.world import MakeBrain, Observer, World

CALM_MS: Final = 2_000
"""Well for this long without a change: the run may end."""

LOOK_MS: Final = 250


class Verdict(msgspec.Struct, frozen=True):
    """What came of one run.  ``harm`` empty: nothing wrong."""

    seed: int
    harm: str
    at_ms: int
    """Virtual time of the harm, or of the end."""
    well_after_ms: int = 0
    """How long after the last fault everything was in its place."""
    overlap_ms: int = 0
    """The longest time for which an address had two owners, all of it allowed."""


def simulate(
    plan: Plan,
    schedule: Schedule,
    seed: int,
    make_brain: MakeBrain,
    *,
    over_ms: int,
    observers: tuple[Observer, ...] = (),
    on_lan: tuple[str, ...] | None = None,
) -> Verdict:
    """Run the schedule for ``over_ms``, heal everything, wait until all is well.

    An assertion of the core is harm like any other: our bug, found.
    """
    judge = Judge()
    world = World(plan, seed, make_brain, (judge, *observers), on_lan=on_lan)
    world.restart_detached = True
    for machine in world.machines.values():
        world.queue.at(world.rng.randrange(0, 400), machine.power_on)
    world.schedule(schedule)
    well_after_ms = 0
    try:
        world.run_until(over_ms)
        if not world.harm:
            well_after_ms = _recover(world, judge)
    except AssertionError as error:
        world.harm = world.harm or f"assertion: {where(error)}"
    return Verdict(seed, world.harm, world.queue.now_ms, well_after_ms, judge.overlap_ms_max)


def where(error: AssertionError) -> str:
    """The line of an assertion that failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno} {code.co_name} {error}"


def bound_ms(plan: Plan) -> int:
    """How long a healed cluster may take to be well: the longest chain of waits.

    Both nodes start anew (``initdead`` twice), one is fenced once more, every
    lease runs out, every service goes down and up once on its slowest legal
    way, one after the other, and each primary proves its stability.
    """
    timers = plan.timers
    total_ms = 2 * timers.initdead_ms + 6 * timers.deadtime_ms + 2 * plan.address_lease_ms
    total_ms += plan.restart_limit_ms
    if plan.fencing:
        total_ms += 2 * plan.fence_delay_ms + 10_000
    for service in plan.services:
        for resource in service.resources:
            total_ms += 2 * (resource.start_timeout_ms + resource.stop_timeout_ms) * (not resource.address)
            total_ms += resource.monitor_interval_ms + resource.monitor_timeout_ms
        total_ms += service.failback_after_ms or 0
    return total_ms + CALM_MS


def _recover(world: World, judge: Judge) -> int:
    """Heal, clean up as an operator would, and look until all is well; how long it took."""
    survivors = world.plan.nodes
    if world.rng.random() < 0.25:
        survivors = (world.rng.choice(survivors),)
        if world.rng.random() < 0.5:  # it dies in the moment in which it joins
            world.strike(KillBrain(world.plan.peer_of(survivors[0]), 20))
            world.run_until(world.queue.now_ms + world.rng.randrange(20, 60))
    world.heal(*[node for node in world.plan.nodes if node not in survivors])
    began_ms = world.queue.now_ms
    limit_ms = began_ms + bound_ms(world.plan)
    calm_since_ms: int | None = None
    asked_at_ms = [began_ms + 1_000, began_ms + world.plan.timers.initdead_ms + 3_000]
    while not world.harm:
        now_ms = world.queue.now_ms
        for machine in [world.machines[node] for node in survivors]:
            machine.power_on()  # one that was shot at the end of the faults
            machine.start_host()  # one that was leaving when they stopped ends later
        if asked_at_ms and now_ms >= asked_at_ms[0]:
            asked_at_ms.pop(0)
            for ask in _clean_up(world.plan, survivors[0]):
                world.strike(ask)
        missing = what_is_missing(world, judge, survivors)
        if missing:
            calm_since_ms = None
        elif calm_since_ms is None:
            calm_since_ms = now_ms
        elif now_ms - calm_since_ms >= CALM_MS and len(asked_at_ms) < 2:
            return calm_since_ms - began_ms
        if now_ms > limit_ms:
            world.harm = f"5: not well {now_ms - began_ms} ms after the last fault: {missing}"
            break
        world.run_until(now_ms + LOOK_MS)
    return 0


def _clean_up(plan: Plan, node: str) -> list[AnyFault]:
    asks: list[AnyFault] = [Ask(node, "online", other) for other in plan.nodes]
    asks.append(Ask(node, "maintenance", "off"))
    for service in plan.services:
        asks.append(Ask(node, "maintenance", "off", service.name))
        asks.append(Ask(node, "start", service.name))
        asks.append(Ask(node, "cleanup", service.name))
    return asks


def what_is_missing(world: World, judge: Judge, survivors: tuple[str, ...]) -> str:
    """What keeps the cluster from being well; empty if it is (invariant 5).

    The other node may be switched off for good: then the survivor has to be
    ALONE and to run all that it may run without it.
    """
    if len(survivors) == 1 and not _may_take_disk(world, survivors[0]):
        return ""
    said = [judge.said(node) for node in survivors]
    views = []
    for word in said:
        if len(survivors) == 1:
            if word is None or word.phase is not Phase.ALONE:
                return "the survivor is not ALONE"
        elif word is None or word.phase is not Phase.MEMBER or not word.confirmed:
            return "a node is no confirmed member"
        views.append(word.view)
    if len(set(views)) > 1:
        return "the views differ"
    for service in world.plan.services:
        if service.name in world.lies:
            continue
        if len(survivors) == 1 and not world.plan.fencing and _is_unproven(world.plan, service):
            continue  # nobody confirmed that the other node is off
        missing = _missing(world, judge, service, said[0], survivors)
        if missing:
            return missing
    return ""


def _is_unproven(plan: Plan, service: Service) -> bool:
    """Nothing tells that a silent node no longer runs it, or what it requires."""
    if not service.addresses and not service.without_fencing and not service.everywhere:
        return True
    return any(_is_unproven(plan, plan.service(name)) for name in service.requires)


def _may_take_disk(world: World, survivor: str) -> bool:
    """A survivor that has lost the disk, or never had it, waits for the operator's confirm-down."""
    keys = world.disk.keys
    return not world.plan.cuts_storage or keys[survivor] or not any(keys.values())


def _missing(world: World, judge: Judge, service: Service, word: Snapshot | None, survivors: tuple[str, ...]) -> str:
    here = [node for node in world.plan.nodes if _runs(world, service, node)]
    touched = [node for node in world.plan.nodes if world.is_active(service.name, node)]
    if service.everywhere:
        return "" if here == list(survivors) else f"{service.name} runs on {here}"
    for address in service.addresses:
        holders = [node for node in world.plan.nodes if address in world.addresses(node).held]
        if holders != here:
            return f"{service.name} runs on {here}, {address} is held by {holders}"
    if len(here) != 1 or any(node not in here for node in touched):
        return f"{service.name} runs on {here}, active on {touched}"
    assert word is not None
    group = _together(world.plan, service)
    moved = any(w.kind is WishKind.MOVED and w.subject in group and w.value for w in word.wishes)
    free = service.failback_after_ms is None or moved or any(name in judge.given_up for name in group)
    free = free or service.primary not in survivors
    return "" if free or here[0] == service.primary else f"{service.name} runs on {here}, not on its primary"


def _together(plan: Plan, service: Service) -> set[str]:
    """It and all that must run on the same node, by exclusive requirements."""
    group, before = {service.name}, set[str]()
    while group != before:
        before = set(group)
        for other in plan.services:
            needs = {need for need in other.requires if not plan.service(need).everywhere}
            if not other.everywhere and needs and group & {other.name, *needs}:
                group |= {other.name, *needs}
    return group


def _runs(world: World, service: Service, node: str) -> bool:
    hands = world.hands(node)
    return all(
        resource.address in hands.addresses.held
        if resource.address
        else hands.actions.truth[service.name, resource.id] is Truth.RUNNING
        for resource in service.resources
    )
