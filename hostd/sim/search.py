"""Everything that can happen in a small world: breadth first over the real core.

Two nodes, one service, and a budget of misfortunes.  Decides what a step
is: deliver the newest word, let a tick pass, finish what is under way, or
spend one misfortune.  Time is abstract: a tick is half a ``deadtime``, and
heartbeats pass at every tick on a line that is not cut, so silence and every
timeout come in any order that real clocks could bring.  Between ticks
anything may overtake anything.

Judged in every state: the service is active on one powered node at most
(with fencing), an address is held by one at most, and nothing starts unless
the node is ALONE or a confirmed member.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnyEffect,
    CancelFence,
    CancelProbe,
    Exit,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewIncarnation,
    RunAction,
    SaveWishes,
)
from hostd.core.events import (
    ActionFinished,
    AddressFinished,
    AddressOutcome,
    AddressVerified,
    AnyCommand,
    AnyEvent,
    FenceFinished,
    FrameReceived,
    HeartReturned,
    IncarnationRenewed,
    Leave,
    LinkChanged,
    MoveService,
    OperatorAsked,
    ProbeFinished,
    ProcessExited,
    SnapshotReceived,
    Started,
    TimerFired,
    WishesSaved,
)
from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.core.terms import Action, Health, Incarnation, Phase
from hostd.sim.canon import AGE_MAX_MS, Engine
from hostd.sim.lan import station_of

TICK_MS: Final = 1_000
TICKS_MAX: Final = AGE_MAX_MS // TICK_MS
START_MS: Final = 1_000_000
UNNUMBERED: Final = -1


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


class Search:
    """One search: the plan, the core, and all that has been seen."""

    def __init__(self, plan: Plan, make: Callable[[Plan, str], Any]) -> None:
        self.plan = plan
        self.engine = Engine(START_MS)
        self.fresh = tuple(self.engine.new(partial(make, plan, name)) for name in plan.nodes)
        self.address = next((a for s in plan.services for a in s.addresses), "")

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
                    judge(self.plan, after)
                except (Harm, AssertionError) as found:
                    harm = f"{type(found).__name__}: {found}"
                    path = (*_path(seen, state), name)
                    break
                if after not in seen:
                    seen[after] = (state, name)
                    waiting.append(after)
        return Finding(
            states=len(seen),
            cores=self.engine.states(),
            steps=self.engine.stepped,
            seconds=time.monotonic() - began,
            complete=not waiting and not harm,
            harm=harm,
            path=path,
        )

    # -- what can happen ----------------------------------------------------------

    def moves(self, state: State) -> Iterator[tuple[str, Callable[[], State]]]:
        """Every step from here, by name."""
        left = state.left
        yield "tick", lambda: self._tick(state)
        for i in (0, 1):
            node, cell = self.plan.nodes[i], state.cells[i]
            yield from self._chances(state, i, node)
            if not cell.powered:
                if left.boots:
                    booted = state._replace(left=left._replace(boots=left.boots - 1))
                    yield f"{node} boots", partial(self._boot, booted, i)
                continue
            if left.crashes:
                spent = left._replace(crashes=left.crashes - 1)
                yield f"{node} loses power", partial(_put, state._replace(left=spent), i, _off(cell))
            if cell.asleep:
                yield f"{node} starts hostd", partial(self._begin, state, i)
                continue
            if left.kills:
                spent = left._replace(kills=left.kills - 1)
                yield f"{node} hostd killed", partial(self._begin, state._replace(left=spent), i)
            sender = state.cells[1 - i]
            if sender.powered and not sender.asleep and not state.cut[1 - i]:
                yield f"{node} hears", partial(self._hear, state, i)
            for k, waiting in enumerate(cell.open):
                yield from self._outcomes(state, i, k, waiting)

    def _chances(self, state: State, i: int, node: str) -> Iterator[tuple[str, Callable[[], State]]]:
        left, cell, peer = state.left, state.cells[i], self.plan.nodes[1 - i]
        if state.cut[i]:
            yield f"line mended {node} to {peer}", lambda: state._replace(cut=_at(state.cut, i, False))
        elif left.cuts:
            torn = state._replace(left=left._replace(cuts=left.cuts - 1), cut=_at(state.cut, i, True))
            yield f"line cut {node} to {peer}", lambda: torn
            if i == 0:
                yield "line cut both ways", lambda: torn._replace(cut=(True, True))
        if state.cells[1 - i].powered and not state.cells[1 - i].asleep:
            for letter in state.letters[i]:
                yield f"{peer} gets an old frame", partial(self._late, state, 1 - i, letter)
        if not cell.powered or cell.asleep:
            return
        kept = Letter(cell.said, cell.heard)
        if left.late and cell.said and kept not in state.letters[i]:
            held = state._replace(
                left=left._replace(late=left.late - 1), letters=_at(state.letters, i, (*state.letters[i], kept))
            )
            yield f"a frame of {node} is kept", lambda: held
        if left.deaths and cell.active and not _starting(cell):
            spent = state._replace(left=left._replace(deaths=left.deaths - 1))
            yield f"web dies on {node}", lambda: self._dies(spent, i)
        if left.moves:
            yield (
                f"{node} is asked to move it",
                partial(self._ask, state._replace(left=left._replace(moves=left.moves - 1)), i, MoveService("web")),
            )
        if left.leaves:
            yield (
                f"{node} is asked to leave",
                partial(self._ask, state._replace(left=left._replace(leaves=left.leaves - 1)), i, Leave()),
            )

    def _ask(self, state: State, i: int, command: AnyCommand) -> State:
        return self._step(state, i, ("ask", command), 0, lambda _n, _t: OperatorAsked(1, command))

    def _outcomes(self, state: State, i: int, k: int, waiting: Open) -> Iterator[tuple[str, Callable[[], State]]]:
        node, effect = self.plan.nodes[i], waiting.effect
        what = type(effect).__name__
        if isinstance(effect, RunAction):
            yield f"{node} {effect.action.name} done", lambda: self._action(state, i, k, well=True)
            if state.left.fails:
                spent = state._replace(left=state.left._replace(fails=state.left.fails - 1))
                yield f"{node} {effect.action.name} fails", lambda: self._action(spent, i, k, well=False)
        elif isinstance(effect, FencePeer) and not waiting.acted:
            yield f"{node} shoots", lambda: self._shoot(state, i, k)
        else:
            yield f"{node} {what} done", lambda: self._done(state, i, k)

    # -- lives ------------------------------------------------------------------------

    def _boot(self, state: State, i: int) -> State:
        return self._begin(_put(state, i, state.cells[i]._replace(powered=True)), i)

    def _begin(self, state: State, i: int) -> State:
        """A new brain and heart; what an earlier life left under way is killed first."""
        cell = state.cells[i]
        boots = cell.boots + 1
        unfinished = ("web",) if cell.recorded else ()
        present = (self.address,) if cell.held else ()
        cell = Cell(self.fresh[i], True, boots, cell.active, cell.recorded, cell.held)
        state = _put(state, i, cell)
        started = Started(
            Incarnation(boots, 1), unfinished=unfinished, present=present, stations=(station_of(self.plan.nodes[i]),)
        )
        state = self._step(state, i, ("started", boots, cell.recorded, cell.held), 0, lambda _n, _t: started)
        state = self._step(state, i, "heart", 0, lambda _n, _t: HeartReturned())
        return self._step(state, i, "link", 0, lambda _n, now_ms: LinkChanged("line", now_ms, True))

    # -- frames ----------------------------------------------------------------------

    def _hear(self, state: State, i: int) -> State:
        """One heartbeat of the peer, with its newest word if that is new here."""
        sender = state.cells[1 - i]
        state = _put(state, i, state.cells[i]._replace(heard=(sender.boots, 0)))
        return self._frame(state, i, sender.boots, sender.said, sender.heard, 0)

    def _frame(
        self, state: State, i: int, boots: int, said: int, echo: tuple[int, int] | None, passed_ms: int
    ) -> State:
        cell = state.cells[i]
        new = said != cell.has
        life = self._life_of(said) if said else boots
        sent = echo[1] if echo is not None and echo[0] == cell.boots else None
        peer = self.plan.nodes[1 - i]

        def frame(node: Any, now_ms: int) -> AnyEvent:
            sent_at_ms = None if sent is None else now_ms - sent * TICK_MS
            version = _version(node, life) + new
            return FrameReceived("line", now_ms, peer, Incarnation(life, 1), sent_at_ms, version, 1)

        state = self._step(state, i, ("frame", life, sent, new), passed_ms, frame)
        if not new or not said or not state.cells[i].core or state.cells[i].asleep:
            return state
        word = self.engine.snapshots[said]
        assert word is not None

        def letter(node: Any, _now_ms: int) -> AnyEvent:
            return SnapshotReceived(msgspec.structs.replace(word, version=max(1, _version(node, life))))

        state = _put(state, i, state.cells[i]._replace(has=said))
        return self._step(state, i, ("word", said), 0, letter)

    def _life_of(self, said: int) -> int:
        word = self.engine.snapshots[said]
        assert word is not None
        return word.incarnation.boot

    def _late(self, state: State, i: int, letter: Letter) -> State:
        """An old frame, word and all; the newest word has to follow once more."""
        rest = tuple(x for x in state.letters[1 - i] if x != letter)
        state = state._replace(letters=_at(state.letters, 1 - i, rest))
        word = self.engine.snapshots[letter.said]
        assert word is not None
        life = word.incarnation
        echo = letter.heard
        cell = state.cells[i]
        sent = echo[1] if echo is not None and echo[0] == cell.boots else None
        peer = self.plan.nodes[1 - i]

        def frame(node: Any, now_ms: int) -> AnyEvent:
            sent_at_ms = None if sent is None else now_ms - sent * TICK_MS
            return FrameReceived("line", now_ms, peer, life, sent_at_ms, max(1, _version(node, life.boot) - 1), 1)

        def old(node: Any, _now_ms: int) -> AnyEvent:
            return SnapshotReceived(msgspec.structs.replace(word, version=max(1, _version(node, life.boot) - 1)))

        state = self._step(state, i, ("late frame", life, sent), 0, frame)
        state = self._step(state, i, ("late word", letter.said), 0, old)
        return _put(state, i, state.cells[i]._replace(has=0))

    def _tick(self, state: State) -> State:
        """Time passes; on a line that is not cut the beats of that time arrive."""
        before = state
        hears = [state.cells[1 - i].core and not state.cells[1 - i].asleep and not state.cut[1 - i] for i in (0, 1)]
        cells = []
        for i, cell in enumerate(before.cells):
            heard = _older(cell.heard)
            cells.append(cell._replace(heard=(before.cells[1 - i].boots, 0) if hears[i] else heard))
        letters = [tuple(x._replace(heard=_older(x.heard)) for x in kept) for kept in before.letters]
        state = state._replace(cells=(cells[0], cells[1]), letters=(letters[0], letters[1]))
        told = [(cells[j].boots, before.cells[j].said, cells[j].heard) for j in (1, 0)]
        for i in (0, 1):
            if not state.cells[i].core or state.cells[i].asleep:
                continue
            if hears[i]:
                state = self._frame(state, i, *told[i], TICK_MS)
            else:
                state = self._step(state, i, "time", TICK_MS, lambda _n, _t: TimerFired())
        return state

    # -- outcomes ----------------------------------------------------------------------

    def _dies(self, state: State, i: int) -> State:
        state = _put(state, i, state.cells[i]._replace(active=False))
        return self._step(state, i, "dies", 0, lambda _n, _t: ProcessExited("web", "web"))

    def _action(self, state: State, i: int, k: int, *, well: bool) -> State:
        cell = state.cells[i]
        effect = cell.open[k].effect
        assert isinstance(effect, RunAction)
        if well:
            cell = cell._replace(active=effect.action is Action.START, recorded=False)
        state = _put(state, i, cell)
        return self._answer(state, i, k, ("action", well), lambda number: ActionFinished(number, ok=well))

    def _shoot(self, state: State, i: int, k: int) -> State:
        """The device acts; that it did is known a moment later."""
        waiting = list(state.cells[i].open)
        waiting[k] = waiting[k]._replace(acted=True)
        state = _put(state, i, state.cells[i]._replace(open=tuple(waiting)))
        return _put(state, 1 - i, _off(state.cells[1 - i]))

    def _done(self, state: State, i: int, k: int) -> State:
        """The outcome that the world has for this request now."""
        cell, other = state.cells[i], state.cells[1 - i]
        taken = other.powered and other.held
        match cell.open[k].effect:
            case FencePeer():
                return self._answer(state, i, k, "fenced", lambda n: FenceFinished(n, True))
            case ProbeAddresses():
                answered = (self.address,) if taken else ()
                return self._answer(state, i, k, ("probed", taken), lambda n: ProbeFinished(n, True, answered))
            case AddAddress(guard=True) if taken:
                return self._answer(state, i, k, "conflict", lambda n: AddressFinished(n, AddressOutcome.CONFLICT))
            case AddAddress():
                state = _put(state, i, cell._replace(held=True))
                return self._answer(state, i, k, "added", lambda n: AddressFinished(n, AddressOutcome.DONE))
            case RemoveAddress():
                state = _put(state, i, cell._replace(held=False))
                return self._answer(state, i, k, "removed", lambda n: AddressFinished(n, AddressOutcome.DONE))
            case RenewIncarnation():
                boots = cell.boots + 1
                state = _put(state, i, cell._replace(boots=boots))
                return self._answer(
                    state, i, k, ("renewed", boots), lambda _n: IncarnationRenewed(Incarnation(boots, 1))
                )
            case other_effect:
                raise AssertionError(other_effect)

    def _answer(self, state: State, i: int, k: int, key: Any, event: Callable[[int], AnyEvent]) -> State:
        cell = state.cells[i]
        distance = cell.open[k].distance
        state = _put(state, i, cell._replace(open=cell.open[:k] + cell.open[k + 1 :]))
        return self._step(state, i, (key, distance), 0, lambda node, _t: event(node.ids.last - distance))

    # -- the core ----------------------------------------------------------------------

    def _step(self, state: State, i: int, key: Any, passed_ms: int, event_of: Callable[[Any, int], AnyEvent]) -> State:
        """Step one core and carry out what it asks for."""
        cell = state.cells[i]
        core, effects, given = self.engine.step(cell.core, key, passed_ms, event_of)
        waiting = cell.open
        if given:
            waiting = tuple(o if o.distance == UNNUMBERED else o._replace(distance=o.distance + given) for o in waiting)
        state = _put(state, i, cell._replace(core=core, open=waiting))
        for effect in effects:
            if type(effect) is Publish:
                state = _put(state, i, state.cells[i]._replace(said=self.engine.snapshot(effect.snapshot)))
        for effect in effects:
            state = self._perform(state, i, effect)
        return self._answer_at_once(state, i)

    def _perform(self, state: State, i: int, effect: AnyEffect) -> State:
        """Carry out, or keep as under way, what a core asked for."""
        cell = state.cells[i]
        match effect:
            case RunAction():
                waiting = Open(effect.action_id, msgspec.structs.replace(effect, action_id=0))
                if effect.action is not Action.MONITOR:
                    cell = cell._replace(recorded=True)
                if effect.action is Action.START:
                    self._judge_start(state, i)
                    cell = cell._replace(active=True)
            case AddAddress() | RemoveAddress() | ProbeAddresses() | FencePeer() | AnnounceAddress():
                if isinstance(effect, AddAddress):
                    self._judge_start(state, i)
                waiting = Open(effect.request_id, msgspec.structs.replace(effect, request_id=0))
            case RenewIncarnation() | SaveWishes():
                waiting = Open(UNNUMBERED, effect)
            case CancelFence(request_id=distance) | CancelProbe(request_id=distance):
                kind = FencePeer if isinstance(effect, CancelFence) else ProbeAddresses
                # What a device has done already may be told even so: the answer is under way.
                kept = tuple(
                    o for o in cell.open if not isinstance(o.effect, kind) or o.distance != distance or o.acted
                )
                return _put(state, i, cell._replace(open=kept))
            case Exit():
                gone = cell._replace(asleep=True, open=(), core=0, said=0, has=0, heard=None)
                return _put(state, i, gone)
            case _:
                return state
        return _put(state, i, cell._replace(open=(*cell.open, waiting)))

    def _answer_at_once(self, state: State, i: int) -> State:
        """Outcomes whose delay makes no difference: a monitor's, a save's, an announcement's."""
        for k, waiting in enumerate(state.cells[i].open):
            match waiting.effect:
                case RunAction(action=Action.MONITOR):
                    # What an action that was cut short has left is not seen by a monitor.
                    seen = state.cells[i].active and not state.cells[i].recorded
                    health = Health.RUNNING if seen else Health.STOPPED
                    return self._answer(
                        state, i, k, ("health", health.value), partial(ActionFinished, ok=True, health=health)
                    )
                case SaveWishes():
                    return self._answer(state, i, k, "saved", lambda _n: WishesSaved(True))
                case AnnounceAddress():
                    return self._answer(state, i, k, "verified", lambda n: AddressVerified(n, True))
        return state

    def _judge_start(self, state: State, i: int) -> None:
        word = self.engine.snapshots[state.cells[i].said]
        if word is None or not (word.phase is Phase.ALONE or (word.phase is Phase.MEMBER and word.confirmed)):
            raise Harm(f"{self.plan.nodes[i]} starts the service in {word and word.phase.name}")


def judge(plan: Plan, state: State) -> None:
    """Raise :class:`Harm` if this state must not be."""
    one, other = state.cells
    if one.powered and other.powered:
        if one.active and other.active and plan.fencing:
            raise Harm("the service is active on both nodes")
        if one.held and other.held:
            raise Harm("the address is held by both nodes")


def _version(node: Any, life: int) -> int:
    """The version that this core has seen of that life."""
    return node.peers.version if node.peers.incarnation == Incarnation(life, 1) else 0


def _older(heard: tuple[int, int] | None) -> tuple[int, int] | None:
    return heard and (heard[0], min(heard[1] + 1, TICKS_MAX))


def _off(cell: Cell) -> Cell:
    """Power is gone; the disk keeps the boot counter."""
    return Cell(boots=cell.boots)


def _starting(cell: Cell) -> bool:
    return any(isinstance(o.effect, RunAction) for o in cell.open)


def _put(state: State, i: int, cell: Cell) -> State:
    cells = (cell, state.cells[1]) if i == 0 else (state.cells[0], cell)
    return state._replace(cells=cells)


def _at(pair: tuple[Any, Any], i: int, value: Any) -> tuple[Any, Any]:
    return (value, pair[1]) if i == 0 else (pair[0], value)


def _path(seen: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    told: list[str] = []
    step = seen[state]
    while step is not None:
        told.append(step[1])
        step = seen[step[0]]
    return tuple(reversed(told))
