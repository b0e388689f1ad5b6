"""Everything that can happen in a small world: breadth first over the real core.

Decides what may happen next in each state: deliver the newest word, let a
tick pass, finish what is under way, or spend one misfortune.  Silence and
every timeout come in any order that real clocks could bring, and between
ticks anything may overtake anything.  What a step does is
``small_steps.py``'s.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from hostd.core.effects import FencePeer, RunAction
from hostd.core.events import Leave, MoveService
from hostd.core.plan import Plan
from hostd.sim import small_world
from hostd.sim.small_steps import Steps
from hostd.sim.small_world import Budget, Harm, Letter, Open, State


class Finding(msgspec.Struct):
    """What a search came to."""

    states: int
    cores: int
    steps: int
    seconds: float
    complete: bool
    """Nothing was left to try within the budget."""
    harm: str = ""
    path: tuple[str, ...] = ()


class Search:
    """One search: the plan, the core, and all that has been seen."""

    def __init__(self, plan: Plan, make: Callable[[Plan, str], Any]) -> None:
        self.plan = plan
        self.steps = Steps(plan, make)

    def run(self, budget: Budget, *, states_max: int, seconds_max: float) -> Finding:
        """Breadth first from both nodes switched off."""
        began = time.monotonic()
        start = State(left=budget)
        seen: dict[State, tuple[State, str] | None] = {start: None}
        waiting = deque([start])
        harm = ""
        path: tuple[str, ...] = ()
        while waiting and not harm and len(seen) < states_max and time.monotonic() - began < seconds_max:
            state = waiting.popleft()
            for name, act in self.moves(state):
                try:
                    after = act()
                    small_world.judge(self.plan, after)
                except (Harm, AssertionError) as found:
                    harm = f"{type(found).__name__}: {found}"
                    path = (*_path(seen, state), name)
                    break
                if after not in seen:
                    seen[after] = (state, name)
                    waiting.append(after)
        return Finding(
            states=len(seen),
            cores=self.steps.engine.states(),
            steps=self.steps.engine.stepped,
            seconds=time.monotonic() - began,
            complete=not waiting and not harm,
            harm=harm,
            path=path,
        )

    # -- what can happen ----------------------------------------------------------

    def moves(self, state: State) -> Iterator[tuple[str, Callable[[], State]]]:
        """Every step from here, by name."""
        left = state.left
        yield "tick", lambda: self.steps.tick(state)
        for i in (0, 1):
            node, cell = self.plan.nodes[i], state.cells[i]
            yield from self._chances(state, i, node)
            if not cell.powered:
                if left.boots:
                    booted = state._replace(left=left._replace(boots=left.boots - 1))
                    yield f"{node} boots", partial(self.steps.boot, booted, i)
                continue
            if left.crashes:
                spent = left._replace(crashes=left.crashes - 1)
                yield (
                    f"{node} loses power",
                    partial(small_world.put, state._replace(left=spent), i, small_world.off(cell)),
                )
            if cell.asleep:
                yield f"{node} starts hostd", partial(self.steps.begin, state, i)
                continue
            if left.kills:
                spent = left._replace(kills=left.kills - 1)
                yield f"{node} hostd killed", partial(self.steps.begin, state._replace(left=spent), i)
            sender = state.cells[1 - i]
            if sender.powered and not sender.asleep and not state.cut[1 - i]:
                yield f"{node} hears", partial(self.steps.hear, state, i)
            for k, waiting in enumerate(cell.open):
                yield from self._outcomes(state, i, k, waiting)

    def _chances(self, state: State, i: int, node: str) -> Iterator[tuple[str, Callable[[], State]]]:
        left, cell, peer = state.left, state.cells[i], self.plan.nodes[1 - i]
        if state.cut[i]:
            yield f"line mended {node} to {peer}", lambda: state._replace(cut=small_world.at(state.cut, i, False))
        elif left.cuts:
            torn = state._replace(left=left._replace(cuts=left.cuts - 1), cut=small_world.at(state.cut, i, True))
            yield f"line cut {node} to {peer}", lambda: torn
            if i == 0:
                yield "line cut both ways", lambda: torn._replace(cut=(True, True))
        if state.cells[1 - i].powered and not state.cells[1 - i].asleep:
            for letter in state.letters[i]:
                yield f"{peer} gets an old frame", partial(self.steps.late, state, 1 - i, letter)
        if not cell.powered or cell.asleep:
            return
        kept = Letter(cell.said, cell.heard)
        if left.late and cell.said and kept not in state.letters[i]:
            held = state._replace(
                left=left._replace(late=left.late - 1),
                letters=small_world.at(state.letters, i, (*state.letters[i], kept)),
            )
            yield f"a frame of {node} is kept", lambda: held
        for service in cell.active if left.deaths else ():
            if not small_world.acts_on(cell, service):
                spent = state._replace(left=left._replace(deaths=left.deaths - 1))
                yield f"{service} dies on {node}", partial(self.steps.dies, spent, i, service)
        for name in [service.name for service in self.plan.services] if left.moves else ():
            spent = state._replace(left=left._replace(moves=left.moves - 1))
            yield f"{node} is asked to move {name}", partial(self.steps.ask, spent, i, MoveService(name))
        if left.leaves:
            yield (
                f"{node} is asked to leave",
                partial(self.steps.ask, state._replace(left=left._replace(leaves=left.leaves - 1)), i, Leave()),
            )

    def _outcomes(self, state: State, i: int, k: int, waiting: Open) -> Iterator[tuple[str, Callable[[], State]]]:
        node, effect = self.plan.nodes[i], waiting.effect
        what = type(effect).__name__
        if isinstance(effect, RunAction):
            what = f"{effect.action.name} of {effect.service}"
            yield f"{node} {what} done", lambda: self.steps.action(state, i, k, well=True)
            if state.left.fails:
                spent = state._replace(left=state.left._replace(fails=state.left.fails - 1))
                yield f"{node} {what} fails", lambda: self.steps.action(spent, i, k, well=False)
        elif isinstance(effect, FencePeer) and not waiting.acted:
            yield f"{node} shoots", lambda: self.steps.shoot(state, i, k)
        else:
            yield f"{node} {what} done", lambda: self.steps.done(state, i, k)


def _path(seen: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    told: list[str] = []
    step = seen[state]
    while step is not None:
        told.append(step[1])
        step = seen[step[0]]
    return tuple(reversed(told))
