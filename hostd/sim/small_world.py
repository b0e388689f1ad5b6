"""A small world as a value: two nodes, one line, one service or two, a budget of misfortunes.

Decides what a state is made of and which state must not be.  How one state
follows from another is ``small_steps.py``'s; in which order they are tried,
``search.py``'s.

Judged in every state: a service is active on one powered node at most
(with fencing), an address is held by one at most.
"""

from typing import Any, Final, NamedTuple

from hostd.core.effects import AnyEffect, RunAction
from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.sim.canon import AGE_MAX_MS

TICK_MS: Final = 1_000
TICKS_MAX: Final = AGE_MAX_MS // TICK_MS


class Budget(NamedTuple):
    """How many of each misfortune the world may still spend."""

    boots: int = 3
    """Times that a node is switched on."""
    crashes: int = 1
    """Power cuts; a shot is none."""
    kills: int = 1
    """Of hostd alone: the service stays, a new life begins at once."""
    cuts: int = 1
    """A line cut, in one direction or both; mending is free."""
    deaths: int = 0
    """A service ends by itself."""
    fails: int = 0
    """An action that fails."""
    moves: int = 0
    """An operator's move."""
    leaves: int = 0
    late: int = 0
    """A frame kept by a buffer and delivered at any later time."""


class Open(NamedTuple):
    """A request that waits for its outcome."""

    distance: int
    """Back from the last number that the core gave."""
    effect: AnyEffect
    acted: bool = False
    """A fencing device has acted, and has not said so yet."""


class Cell(NamedTuple):
    """One node."""

    core: int = 0
    powered: bool = False
    boots: int = 0
    active: tuple[str, ...] = ()
    """Services of which a process may exist."""
    recorded: tuple[str, ...] = ()
    """Services whose last start or stop is not known to have ended well."""
    held: tuple[str, ...] = ()
    """Addresses."""
    open: tuple[Open, ...] = ()
    said: int = 0
    has: int = 0
    """The peer's word that was delivered last."""
    heard: tuple[int, int] | None = None
    """The peer's life that our heart heard last, and how many ticks ago that was sent."""
    asleep: bool = False
    """hostd has ended itself."""


class Letter(NamedTuple):
    """A frame in a buffer."""

    said: int
    heard: tuple[int, int] | None


class State(NamedTuple):
    cells: tuple[Cell, Cell] = (Cell(), Cell())
    cut: tuple[bool, bool] = (False, False)
    """By sender."""
    letters: tuple[tuple[Letter, ...], tuple[Letter, ...]] = ((), ())
    """By sender; delivered in any order."""
    left: Budget = Budget()


class Harm(Exception):
    """A state that must not be."""


SERVICES: Final = (("web", ("b", "a"), "172.23.2.1/24"), ("db", ("a", "b"), "172.23.2.2/24"))
"""Each with a primary of its own, and its address where there is no fencing."""


def small_plan(*, fencing: bool, services: int = 1) -> Plan:
    """One service or two without times of their own: agents, or without fencing addresses."""
    return Plan(
        cluster="search",
        nodes=("a", "b"),
        services=tuple(_service(*service, fencing=fencing) for service in SERVICES[:services]),
        links=(Link("line"),),
        timers=Timers(keepalive_ms=TICK_MS, warntime_ms=TICK_MS, deadtime_ms=2 * TICK_MS, initdead_ms=3 * TICK_MS),
        fencing=fencing,
        fence_delay_ms=0,
        address_lease_ms=0,
        digest="nodes",
    )


def _service(name: str, candidates: tuple[str, ...], address: str, *, fencing: bool) -> Service:
    agent = Resource(name, "dummy", monitor_interval_ms=0, exclusive_storage=True)
    resource = agent if fencing else Resource(address, "address", address=address)
    return Service(name, candidates, (resource,), digest=name, failback_after_ms=0)


def judge(plan: Plan, state: State) -> None:
    """Raise :class:`Harm` if this state must not be."""
    one, other = state.cells
    if one.powered and other.powered:
        for service in one.active:
            if service in other.active and plan.fencing:
                raise Harm(f"{service} is active on both nodes")
        for address in one.held:
            if address in other.held:
                raise Harm(f"{address} is held by both nodes")


# -- one part of a state made anew -------------------------------------------------


def older(heard: tuple[int, int] | None) -> tuple[int, int] | None:
    return heard and (heard[0], min(heard[1] + 1, TICKS_MAX))


def off(cell: Cell) -> Cell:
    """Power is gone; the disk keeps the boot counter."""
    return Cell(boots=cell.boots)


def acts_on(cell: Cell, service: str) -> bool:
    """A start or a stop of it is under way."""
    return any(isinstance(o.effect, RunAction) and o.effect.service == service for o in cell.open)


def having(names: tuple[str, ...], name: str, has: bool) -> tuple[str, ...]:
    """The names with or without this one, in one order always."""
    rest = [other for other in names if other != name]
    return tuple(sorted([*rest, name] if has else rest))


def put(state: State, i: int, cell: Cell) -> State:
    cells = (cell, state.cells[1]) if i == 0 else (state.cells[0], cell)
    return state._replace(cells=cells)


def at(pair: tuple[Any, Any], i: int, value: Any) -> tuple[Any, Any]:
    return (value, pair[1]) if i == 0 else (pair[0], value)
