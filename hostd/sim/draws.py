"""How a schedule of faults is drawn from a seed.

Decides which faults come together and how often each; knows nothing of what
they do to the world.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

from hostd.core.plan import Plan
from hostd.sim.faults import (
    AnyFault,
    ArpBlock,
    ArpPass,
    Ask,
    Conduct,
    Cut,
    Dies,
    Disk,
    Fencing,
    Hold,
    KillBrain,
    KillHeart,
    KillHost,
    LanCut,
    LanDeaf,
    LanMend,
    Mend,
    Pause,
    PingBack,
    PingLost,
    PowerOff,
    PowerOn,
    Release,
    Replay,
    Schedule,
    StartHost,
    Starts,
    Stop,
    Stops,
    Stranger,
    Timed,
    Unaddress,
    Weather,
)

BURST_MS: Final = (0, 2, 5, 15, 40, 100, 300, 1_000, 3_000)
"""Distances between faults: harm lives where they crowd."""

DEVICES: Final = (Conduct.WELL, Conduct.WELL, Conduct.FAIL, Conduct.HANG, Conduct.SLOW, Conduct.LATE)

NOBODY: Final = "nobody"
"""No node and no service: operators mistype."""

Draws = Callable[[random.Random, Plan], Sequence[AnyFault | int]]
"""Faults that come together; a number is a wait between two of them, in ms."""


def draw(seed: int, plan: Plan, faults: int, over_ms: int) -> Schedule:
    """A schedule of about ``faults`` faults; the same seed and plan draw the same.

    Each seed plays with a few kinds of faults only (a swarm): a schedule of
    everything is too mixed for the third of one kind to meet the second.
    """
    rng = random.Random(f"faults {seed}")
    deck = [(draws, weight) for draws, weight in _deck(plan) if weight]
    if rng.random() < 0.8:
        deck = rng.sample(deck, rng.randrange(3, 8))
        deck += [(_repair, sum(weight for _, weight in deck) // 4 + 1)]
    kinds, weights = [d for d, _ in deck], [w for _, w in deck]
    at_ms = rng.randrange(over_ms // 3)
    timed: list[Timed] = []
    for _ in range(faults):
        for fault in rng.choices(kinds, weights)[0](rng, plan):
            if isinstance(fault, int):
                at_ms += fault
                continue
            timed.append(Timed(at_ms % over_ms, fault))
            if isinstance(fault, Ask) or rng.random() < 0.2:
                at_ms += rng.choice((0, 0, 5, 20, 60))
        if rng.random() < 0.25:
            at_ms += rng.randrange(over_ms // 4)
        else:
            at_ms += rng.choice(BURST_MS) + rng.randrange(20)
        at_ms %= over_ms
    return tuple(sorted(timed, key=lambda t: t.at_ms))


def _repair(rng: random.Random, plan: Plan) -> list[AnyFault]:
    """Something is mended, switched on or started again."""
    node = _node(rng, plan)
    repairs: tuple[AnyFault, ...] = (Mend(), PowerOn(node), StartHost(node), LanMend(node))
    return [rng.choice(repairs)]


def _second_thoughts(rng: random.Random, plan: Plan) -> list[AnyFault]:
    """There and back again, while words are slow."""
    service, (one, other) = _service(rng, plan), plan.nodes
    slow = [Weather(link.name, 0.0, 0.0, rng.choice((40, 150, 400)), rng.choice((0, 200))) for link in plan.links]
    where = _node(rng, plan)
    moves = [Ask(where, "move", service, one), Ask(where, "move", service, other)] * 2
    return [*(slow if rng.random() < 0.7 else []), *moves[: rng.randrange(2, 5)]]


def _old_frames(rng: random.Random, plan: Plan) -> list[AnyFault]:
    """A new heart has no memory of what it heard: an old frame finds it."""
    link, sender, node = _link(rng, plan), _node(rng, plan), _node(rng, plan)
    told: list[AnyFault] = [Hold(link, sender)] if rng.random() < 0.4 else []
    told.append(rng.choice((KillHeart(node, 20), KillHost(node), KillBrain(node, 20), PowerOff(node))))
    told += [PowerOn(node), StartHost(node)]
    told += [Replay(link, sender, rng.randrange(60)) for _ in range(3)]
    return [*told, Release(link, sender)]


def _back_at_once(rng: random.Random, plan: Plan) -> list[AnyFault]:
    node = _node(rng, plan)
    return [PowerOff(node), PowerOn(node)]


def _node(rng: random.Random, plan: Plan) -> str:
    return rng.choice(plan.nodes)


def _service(rng: random.Random, plan: Plan) -> str:
    return rng.choice(plan.services).name


def _link(rng: random.Random, plan: Plan) -> str:
    return rng.choice(plan.links).name


def _ask(rng: random.Random, plan: Plan) -> list[AnyFault]:
    where, service, node = _node(rng, plan), _service(rng, plan), _node(rng, plan)
    name = rng.choice(
        ("move", "move", "move", "stop", "start", "standby", "online", "maintenance", "cleanup", "confirm-down",
         "fence", "leave", "detach")
    )  # fmt: skip
    match name:
        case "move":
            return [Ask(where, name, service, node if rng.random() < 0.5 else "")]
        case "standby" | "online" | "confirm-down" | "fence":
            return [Ask(where, name, node)]
        case "maintenance":
            return [Ask(where, name, rng.choice(("on", "off", "off")), rng.choice(("", service)))]
        case "leave":
            return [Ask(where, name)]
        case "detach":
            return [Ask(where, name, str(rng.choice((1_000, 5_000))))]
        case _:
            return [Ask(where, name, service)]


def _pause(rng: random.Random, plan: Plan) -> list[AnyFault]:
    dead_ms, warn_ms = plan.timers.deadtime_ms, plan.timers.warntime_ms
    for_ms = rng.choice((warn_ms // 2, warn_ms * 2, dead_ms // 2 + 100, dead_ms + 50, dead_ms * 2, dead_ms * 5))
    return [Pause(_node(rng, plan), rng.choice(list(Stop)), for_ms + rng.randrange(100))]


def _split(rng: random.Random, plan: Plan) -> list[AnyFault]:
    """Every link at once, sometimes one way, sometimes ARP with them."""
    sender = rng.choice(("", "", *plan.nodes))
    torn: list[AnyFault] = [Cut(link.name, sender) for link in plan.links]
    if rng.random() < 0.3:
        torn.append(ArpBlock())
    return torn


def _weather(rng: random.Random, plan: Plan) -> list[AnyFault]:
    return [
        Weather(
            _link(rng, plan),
            rng.choice((0.0, 0.1, 0.5, 0.9)),
            rng.choice((0.0, 0.3)),
            rng.choice((1, 20, 300)),
            rng.choice((0, 50, 1_000)),
        )
    ]


def _agent(rng: random.Random, plan: Plan) -> list[AnyFault]:
    service, node = _service(rng, plan), _node(rng, plan)
    if rng.random() < 0.5:
        starts = (Conduct.FAIL, Conduct.HANG, Conduct.SLOW, Conduct.WELL, Conduct.WELL)
        return [Starts(service, node, rng.choice(starts))]
    stops = (Conduct.FAIL, Conduct.HANG, Conduct.SLOW, Conduct.LEAVE, Conduct.WELL, Conduct.WELL, Conduct.WELL)
    conduct = Conduct.LIE if rng.random() < 0.1 else rng.choice(stops)  # rare: afterwards nobody is blamed for it
    return [Stops(service, node, conduct)]


def _bad_stop(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """A stop that goes wrong, and a cause to stop it: mostly where it belongs."""
    service = rng.choice(plan.services)
    node = service.primary if rng.random() < 0.7 else _node(rng, plan)
    conduct = rng.choice((Conduct.FAIL, Conduct.HANG, Conduct.LEAVE, Conduct.LIE))
    causes = (Ask(node, "standby", node), Ask(node, "stop", service.name), Dies(service.name, node))
    cause = Ask(node, "move", service.name) if rng.random() < 0.5 else rng.choice(causes)
    return [Stops(service.name, node, conduct), rng.choice((0, 300)), cause]


def _dies_again(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """Until its restarts are used up."""
    service, node = _service(rng, plan), _node(rng, plan)
    told: list[AnyFault | int] = []
    for _ in range(rng.randrange(3, 6)):
        told += [Dies(service, node, rng.random() < 0.8, rng.random() < 0.3), rng.choice((1_200, 2_000, 3_500))]
    return told


def _believed_dead(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """No device confirms it, and an operator does: too soon, in time, or to a node that has just started."""
    node = _node(rng, plan)
    peer = plan.peer_of(node)
    told: list[AnyFault | int] = [Fencing(node, Conduct.FAIL)] if plan.fencing else [ArpBlock()]
    told += [PowerOff(node)]
    if rng.random() < 0.4:
        told += [PowerOff(peer), PowerOn(peer)]
    return [*told, rng.choice((0, 300, 900, 2_500, 6_000)), Ask(peer, "confirm-down", node)]


def _two_owners(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """A split of everything, and ARP is back before the links are."""
    torn: list[AnyFault | int] = [*(Cut(link.name) for link in plan.links), ArpBlock()]
    return [*torn, rng.choice((3_500, 6_000)), ArpPass(), rng.choice((100, 600, 1_500, 3_000)), Mend()]


def _goodbyes(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """A node leaves while it joins, while nobody hears it, or dies with the word on its lips."""
    node = _node(rng, plan)
    leave = Ask(node, "leave")
    wait_ms = rng.choice((30, 100, 300, 700, 1_200))
    match rng.randrange(3):
        case 0:
            return [PowerOff(node), PowerOn(node), wait_ms, leave]
        case 1:
            told: list[AnyFault | int] = [Fencing(node, Conduct.FAIL)] if plan.fencing else []
            told += [Cut(link.name) for link in plan.links]
            return [*told, rng.choice((300, 2_500)), leave, wait_ms, Mend()]
        case _:
            return [leave, wait_ms, PowerOff(node)]


def _crowded_start(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """Both start, and the brain of one dies while they make a view."""
    one, other = plan.nodes
    told: list[AnyFault | int] = [PowerOff(one), PowerOff(other), PowerOn(one), PowerOn(other)]
    return [*told, rng.randrange(50, 900), KillBrain(_node(rng, plan), 20)]


def _contradictions(rng: random.Random, plan: Plan) -> list[AnyFault | int]:
    """Orders that exclude each other."""
    service, node, where = _service(rng, plan), _node(rng, plan), _node(rng, plan)
    if rng.random() < 0.5:
        return [Ask(where, "stop", service), rng.choice((0, 900)), Ask(_node(rng, plan), "move", service)]
    to = rng.choice(("", node))
    return [Ask(where, "standby", node), rng.choice((0, 900)), Ask(_node(rng, plan), "move", service, to)]


def _mistyped(rng: random.Random, plan: Plan) -> list[AnyFault]:
    where, service = _node(rng, plan), _service(rng, plan)
    asks = (
        Ask(where, "move", NOBODY),
        Ask(where, "move", service, NOBODY),
        Ask(where, "maintenance", "on", NOBODY),
        Ask(where, "standby", NOBODY),
        Ask(where, "fence", NOBODY),
        Ask(where, "confirm-down", NOBODY),
    )
    return rng.sample(asks, 3)


def _address(rng: random.Random, plan: Plan) -> list[AnyFault]:
    addresses = [a for s in plan.services for a in s.addresses]
    if not addresses:
        return []
    address = rng.choice(addresses)
    if rng.random() < 0.7:
        return [Unaddress(_node(rng, plan), address)]
    return [Stranger(address, rng.random() < 0.4)]


def _deck(plan: Plan) -> list[tuple[Draws, int]]:
    return [
        (lambda r, p: [PowerOff(_node(r, p))], 8),
        (lambda r, p: [PowerOn(_node(r, p))], 12),
        (lambda r, p: [KillBrain(_node(r, p), r.choice((20, 200, 450, 3_000)))], 12),
        (lambda r, p: [KillHeart(_node(r, p), r.choice((20, 200, 450, 3_000)))], 4),
        (lambda r, p: [KillHost(_node(r, p))], 4),
        (lambda r, p: [StartHost(_node(r, p))], 8),
        (_pause, 8),
        (_split, 8),
        (lambda r, p: [Cut(_link(r, p), r.choice(("", *p.nodes)))], 6),
        (lambda r, p: [Mend(r.choice(("", "", _link(r, p))))], 12),
        (_weather, 4),
        (lambda r, p: [Hold(_link(r, p), _node(r, p))], 3),
        (lambda r, p: [Release(_link(r, p), _node(r, p))], 4),
        (lambda r, p: [Replay(_link(r, p), _node(r, p), r.randrange(60))], 4),
        (lambda r, p: [LanCut(_node(r, p))], 3),
        (lambda r, p: [LanDeaf(_node(r, p))], 2),
        (lambda r, p: [LanMend(_node(r, p))], 6),
        (lambda r, p: [ArpPass()], 3),
        (lambda r, p: [PingLost(_node(r, p))], 3 if plan.tiebreaker else 0),
        (lambda r, p: [PingBack(_node(r, p))], 4 if plan.tiebreaker else 0),
        (_address, 4),
        (_agent, 6),
        (lambda r, p: [Dies(_service(r, p), _node(r, p), r.random() < 0.6, r.random() < 0.3)], 8),
        (lambda r, p: [Fencing(_node(r, p), r.choice(DEVICES))], 4 if plan.fencing else 0),
        (lambda r, p: [Disk(_node(r, p), r.random() < 0.6)], 1),
        (_ask, 14),
        (_second_thoughts, 6),
        (_old_frames, 6),
        (_back_at_once, 4),
        (_dies_again, 2),
        (_bad_stop, 4),
        (_believed_dead, 3),
        (_two_owners, 4),
        (_goodbyes, 3),
        (_crowded_start, 2),
        (_contradictions, 2),
        (_mistyped, 2),
    ]
