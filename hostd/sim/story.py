"""Scenarios in words: what is given, what goes wrong, and what then happens.

Decides the little language of ``tests/scenarios/*.txt``:

    # what the story claims, in a sentence or two
    fencing required                       or: none, or storage (a service "disk" everywhere registers its node)
    links serial cross lan                 default: serial cross
    tiebreaker                             stations on the LAN tell who is cut off
    service web primary a                  an address and an agent; then, as wished:
                                           no-address no-agent everywhere without-fencing
                                           requires X, after X, failback never|MS
    order b b a                            node b has the nodes in this order
    at 0.000 power-on a                    a time in seconds, and a fault (``faults.py``)
    until 10.000
    ---
    the timeline, written by the tool, and the judge's verdict

Everything below the line is compared word by word, and written anew by
``python -m hostd.sim story --rewrite FILE``.
"""

from pathlib import Path
from typing import Any

import msgspec

from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Service
from hostd.sim import plans
from hostd.sim.faults import Schedule, Timed, parse
from hostd.sim.judge import Judge
from hostd.sim.machine import Brain
from hostd.sim.run import where
from hostd.sim.trace import Trace
from hostd.sim.world import World

LINE = "---"


class StoryError(Exception):
    """A story that cannot be read: the line, and what is wrong with it."""


class Story(msgspec.Struct, frozen=True):
    """What a story gives, and what it expects."""

    plan: Plan
    orders: dict[str, tuple[str, ...]]
    """Nodes whose configuration names the nodes in another order."""
    schedule: Schedule
    until_ms: int
    given: str
    """The text above the line."""
    expected: str


def read(text: str) -> Story:
    """Read a story; raises :class:`StoryError`."""
    given, _, expected = text.partition(f"\n{LINE}\n")
    fencing = "required"
    links: tuple[Link, ...] = plans.LINKS
    services: list[Service] = []
    timed: list[Timed] = []
    orders: dict[str, tuple[str, ...]] = {}
    tiebreaker = False
    until_ms = 0
    for number, line in enumerate(given.splitlines(), 1):
        word, *rest = line.split() or ["#"]
        try:
            match word:
                case "#":
                    pass
                case "fencing":
                    if rest[0] not in ("required", "storage", "none"):
                        raise ValueError(f"{rest[0]} is no way of fencing")
                    fencing = rest[0]
                case "links":
                    links = tuple(Link(name, direct=name == "cross") for name in rest)
                case "tiebreaker":
                    tiebreaker = True
                case "service":
                    services.append(_service(rest))
                case "order":
                    orders[rest[0]] = tuple(rest[1:])
                case "at":
                    timed.append(Timed(_ms(rest[0]), parse(" ".join(rest[1:]))))
                case "until":
                    until_ms = _ms(rest[0])
                case _:
                    raise StoryError(f"line {number}: {word} is not known here")
        except (ValueError, KeyError, IndexError) as error:
            raise StoryError(f"line {number}: {line}: {error}") from error
    plan = plans.plan(
        *services,
        fencing=fencing == "required",
        cuts_storage=fencing == "storage",
        links=links,
        tiebreaker=tiebreaker,
    )
    return Story(plan, orders, tuple(timed), until_ms, given, expected)


def _ms(seconds: str) -> int:
    return round(float(seconds) * 1000)


def _service(words: list[str]) -> Service:
    name, *rest = words
    wished: dict[str, Any] = {}
    while rest:
        match rest.pop(0):
            case "primary":
                wished["primary"] = rest.pop(0)
            case "requires":
                wished["requires"] = (*wished.get("requires", ()), rest.pop(0))
            case "after":
                wished["after"] = (*wished.get("after", ()), rest.pop(0))
            case "failback":
                value = rest.pop(0)
                wished["failback_after_ms"] = None if value == "never" else int(value)
            case "no-address":
                wished["address"] = False
            case "no-agent":
                wished["agent"] = False
            case "everywhere" | "without-fencing" as flag:
                wished[flag.replace("-", "_")] = True
            case other:
                raise ValueError(f"{other} is nothing that a service can be")
    return plans.service(name, **wished)


def tell(story: Story) -> str:
    """Play it on the real core: the timeline and the verdict, as text."""
    trace = Trace()
    judge = Judge()

    def brain(plan: Plan, node: str) -> Brain:
        order = story.orders.get(node)
        if order is not None:
            plan = msgspec.structs.replace(plan, nodes=order, digest=" ".join(order))
        return Node(plan, node)

    world = World(story.plan, 0, brain, (judge, trace))
    world.schedule(story.schedule)
    try:
        world.run_until(story.until_ms)
    except AssertionError as error:
        world.harm = world.harm or f"assertion: {where(error)}"
    verdict = world.harm or "nothing wrong"
    return "\n".join([*trace.lines(), f"{world.queue.now_ms / 1000:9.3f} == {verdict}", ""])


def rewrite(path: Path) -> bool:
    """Write the timeline that the story has now; True if that changed the file."""
    text = path.read_text()
    story = read(text)
    new = f"{story.given}\n{LINE}\n{tell(story)}"
    if new != text:
        path.write_text(new)
    return new != text
