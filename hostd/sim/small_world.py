"""A small world as a value: two nodes, one service, one line, a budget of misfortunes.

Decides what a state is made of and which state must not be.  How one state
follows from another is ``small_steps.py``'s; in which order they are tried,
``search.py``'s.

Judged in every state: the service is active on one powered node at most
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
    """The service ends by itself."""
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
    active: bool = False
    recorded: bool = False
    held: bool = False
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


def small_plan(*, fencing: bool) -> Plan:
    """One service without times of its own: an agent, or without fencing an address."""
    agent = Resource("web", "dummy", monitor_interval_ms=0, exclusive_storage=True)
    address = Resource("172.23.2.1/24", "address", address="172.23.2.1/24")
    web = Service("web", ("b", "a"), (agent,) if fencing else (address,), digest="web", failback_after_ms=0)
    return Plan(
        cluster="search",
        nodes=("a", "b"),
        services=(web,),
        links=(Link("line"),),
        timers=Timers(keepalive_ms=TICK_MS, warntime_ms=TICK_MS, deadtime_ms=2 * TICK_MS, initdead_ms=3 * TICK_MS),
        fencing=fencing,
        fence_delay_ms=0,
        address_lease_ms=0,
        digest="nodes",
    )


def judge(plan: Plan, state: State) -> None:
    """Raise :class:`Harm` if this state must not be."""
    one, other = state.cells
    if one.powered and other.powered:
        if one.active and other.active and plan.fencing:
            raise Harm("the service is active on both nodes")
        if one.held and other.held:
            raise Harm("the address is held by both nodes")


# -- one part of a state made anew -------------------------------------------------


def older(heard: tuple[int, int] | None) -> tuple[int, int] | None:
    return heard and (heard[0], min(heard[1] + 1, TICKS_MAX))


def off(cell: Cell) -> Cell:
    """Power is gone; the disk keeps the boot counter."""
    return Cell(boots=cell.boots)


def starting(cell: Cell) -> bool:
    return any(isinstance(o.effect, RunAction) for o in cell.open)


def put(state: State, i: int, cell: Cell) -> State:
    cells = (cell, state.cells[1]) if i == 0 else (state.cells[0], cell)
    return state._replace(cells=cells)


def at(pair: tuple[Any, Any], i: int, value: Any) -> tuple[Any, Any]:
    return (value, pair[1]) if i == 0 else (pair[0], value)
