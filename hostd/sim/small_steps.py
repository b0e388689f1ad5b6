"""One step of a small world: what follows, over the real core.

Decides the state that comes of a boot, a frame, a tick, an outcome or an
order: the core is stepped, what it asks for is carried out or kept as under
way.  Time is abstract: a tick is half a ``deadtime``, and heartbeats pass at
every tick on a line that is not cut.  Judged at each start: nothing starts
unless the node is ALONE or a confirmed member.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

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
    LinkChanged,
    OperatorAsked,
    ProbeFinished,
    ProcessExited,
    SnapshotReceived,
    Started,
    TimerFired,
    WishesSaved,
)
from hostd.core.plan import Plan
from hostd.core.terms import Action, Health, Incarnation, Phase
from hostd.sim import small_world
from hostd.sim.canon import Engine
from hostd.sim.lan import station_of
from hostd.sim.small_world import TICK_MS, Cell, Harm, Letter, Open, State

START_MS: Final = 1_000_000
UNNUMBERED: Final = -1


class Steps:
    """What each step does to a state."""

    def __init__(self, plan: Plan, make: Callable[[Plan, str], Any]) -> None:
        self.plan = plan
        self.engine = Engine(START_MS)
        self.fresh = tuple(self.engine.new(partial(make, plan, name)) for name in plan.nodes)

    # -- lives ------------------------------------------------------------------------

    def boot(self, state: State, i: int) -> State:
        return self.begin(small_world.put(state, i, state.cells[i]._replace(powered=True)), i)

    def begin(self, state: State, i: int) -> State:
        """A new brain and heart; what an earlier life left under way is killed first."""
        cell = state.cells[i]
        boots = cell.boots + 1
        cell = Cell(self.fresh[i], True, boots, cell.active, cell.recorded, cell.held)
        state = small_world.put(state, i, cell)
        started = Started(
            Incarnation(boots, 1),
            unfinished=cell.recorded,
            present=cell.held,
            stations=(station_of(self.plan.nodes[i]),),
        )
        state = self._step(state, i, ("started", boots, cell.recorded, cell.held), 0, lambda _n, _t: started)
        state = self._step(state, i, "heart", 0, lambda _n, _t: HeartReturned())
        return self._step(state, i, "link", 0, lambda _n, now_ms: LinkChanged("line", now_ms, True))

    # -- frames ----------------------------------------------------------------------

    def hear(self, state: State, i: int) -> State:
        """One heartbeat of the peer, with its newest word if that is new here."""
        sender = state.cells[1 - i]
        state = small_world.put(state, i, state.cells[i]._replace(heard=(sender.boots, 0)))
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

        state = small_world.put(state, i, state.cells[i]._replace(has=said))
        return self._step(state, i, ("word", said), 0, letter)

    def _life_of(self, said: int) -> int:
        word = self.engine.snapshots[said]
        assert word is not None
        return word.incarnation.boot

    def late(self, state: State, i: int, letter: Letter) -> State:
        """An old frame, word and all; the newest word has to follow once more."""
        rest = tuple(x for x in state.letters[1 - i] if x != letter)
        state = state._replace(letters=small_world.at(state.letters, 1 - i, rest))
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
        return small_world.put(state, i, state.cells[i]._replace(has=0))

    def tick(self, state: State) -> State:
        """Time passes; on a line that is not cut the beats of that time arrive."""
        before = state
        hears = [state.cells[1 - i].core and not state.cells[1 - i].asleep and not state.cut[1 - i] for i in (0, 1)]
        cells = []
        for i, cell in enumerate(before.cells):
            heard = small_world.older(cell.heard)
            cells.append(cell._replace(heard=(before.cells[1 - i].boots, 0) if hears[i] else heard))
        letters = [tuple(x._replace(heard=small_world.older(x.heard)) for x in kept) for kept in before.letters]
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

    def dies(self, state: State, i: int, service: str) -> State:
        active = small_world.having(state.cells[i].active, service, False)
        state = small_world.put(state, i, state.cells[i]._replace(active=active))
        return self._step(state, i, ("dies", service), 0, lambda _n, _t: ProcessExited(service, service))

    def action(self, state: State, i: int, k: int, *, well: bool) -> State:
        cell = state.cells[i]
        effect = cell.open[k].effect
        assert isinstance(effect, RunAction)
        if well:
            cell = cell._replace(
                active=small_world.having(cell.active, effect.service, effect.action is Action.START),
                recorded=small_world.having(cell.recorded, effect.service, False),
            )
        state = small_world.put(state, i, cell)
        return self._answer(state, i, k, ("action", well), lambda number: ActionFinished(number, ok=well))

    def shoot(self, state: State, i: int, k: int) -> State:
        """The device acts; that it did is known a moment later."""
        waiting = list(state.cells[i].open)
        waiting[k] = waiting[k]._replace(acted=True)
        state = small_world.put(state, i, state.cells[i]._replace(open=tuple(waiting)))
        return small_world.put(state, 1 - i, small_world.off(state.cells[1 - i]))

    def done(self, state: State, i: int, k: int) -> State:
        """The outcome that the world has for this request now."""
        cell, other = state.cells[i], state.cells[1 - i]
        theirs = other.held if other.powered else ()
        match cell.open[k].effect:
            case FencePeer():
                return self._answer(state, i, k, "fenced", lambda n: FenceFinished(n, True))
            case ProbeAddresses(addresses=addresses):
                answered = tuple(a for a in addresses if a in theirs)
                return self._answer(state, i, k, ("probed", answered), lambda n: ProbeFinished(n, True, answered))
            case AddAddress(guard=True, address=address) if address in theirs:
                return self._answer(state, i, k, "conflict", lambda n: AddressFinished(n, AddressOutcome.CONFLICT))
            case AddAddress(address=address):
                held = small_world.having(cell.held, address, True)
                state = small_world.put(state, i, cell._replace(held=held))
                return self._answer(state, i, k, "added", lambda n: AddressFinished(n, AddressOutcome.DONE))
            case RemoveAddress(address=address):
                held = small_world.having(cell.held, address, False)
                state = small_world.put(state, i, cell._replace(held=held))
                return self._answer(state, i, k, "removed", lambda n: AddressFinished(n, AddressOutcome.DONE))
            case RenewIncarnation():
                boots = cell.boots + 1
                state = small_world.put(state, i, cell._replace(boots=boots))
                return self._answer(
                    state, i, k, ("renewed", boots), lambda _n: IncarnationRenewed(Incarnation(boots, 1))
                )
            case other_effect:
                raise AssertionError(other_effect)

    def _answer(self, state: State, i: int, k: int, key: Any, event: Callable[[int], AnyEvent]) -> State:
        cell = state.cells[i]
        distance = cell.open[k].distance
        state = small_world.put(state, i, cell._replace(open=cell.open[:k] + cell.open[k + 1 :]))
        return self._step(state, i, (key, distance), 0, lambda node, _t: event(node.ids.last - distance))

    # -- orders -----------------------------------------------------------------------

    def ask(self, state: State, i: int, command: AnyCommand) -> State:
        return self._step(state, i, ("ask", command), 0, lambda _n, _t: OperatorAsked(1, command))

    # -- the core ----------------------------------------------------------------------

    def _step(self, state: State, i: int, key: Any, passed_ms: int, event_of: Callable[[Any, int], AnyEvent]) -> State:
        """Step one core and carry out what it asks for."""
        cell = state.cells[i]
        core, effects, given = self.engine.step(cell.core, key, passed_ms, event_of)
        waiting = cell.open
        if given:
            waiting = tuple(o if o.distance == UNNUMBERED else o._replace(distance=o.distance + given) for o in waiting)
        state = small_world.put(state, i, cell._replace(core=core, open=waiting))
        for effect in effects:
            if type(effect) is Publish:
                state = small_world.put(state, i, state.cells[i]._replace(said=self.engine.snapshot(effect.snapshot)))
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
                    cell = cell._replace(recorded=small_world.having(cell.recorded, effect.service, True))
                if effect.action is Action.START:
                    self._judge_start(state, i, effect.service)
                    cell = cell._replace(active=small_world.having(cell.active, effect.service, True))
            case AddAddress() | RemoveAddress() | ProbeAddresses() | FencePeer() | AnnounceAddress():
                if isinstance(effect, AddAddress):
                    self._judge_start(state, i, effect.service)
                waiting = Open(effect.request_id, msgspec.structs.replace(effect, request_id=0))
            case RenewIncarnation() | SaveWishes():
                waiting = Open(UNNUMBERED, effect)
            case CancelFence(request_id=distance) | CancelProbe(request_id=distance):
                kind = FencePeer if isinstance(effect, CancelFence) else ProbeAddresses
                # What a device has done already may be told even so: the answer is under way.
                kept = tuple(
                    o for o in cell.open if not isinstance(o.effect, kind) or o.distance != distance or o.acted
                )
                return small_world.put(state, i, cell._replace(open=kept))
            case Exit():
                gone = cell._replace(asleep=True, open=(), core=0, said=0, has=0, heard=None)
                return small_world.put(state, i, gone)
            case _:
                return state
        return small_world.put(state, i, cell._replace(open=(*cell.open, waiting)))

    def _answer_at_once(self, state: State, i: int) -> State:
        """Outcomes whose delay makes no difference: a monitor's, a save's, an announcement's."""
        for k, waiting in enumerate(state.cells[i].open):
            match waiting.effect:
                case RunAction(action=Action.MONITOR, service=service):
                    # What an action that was cut short has left is not seen by a monitor.
                    seen = service in state.cells[i].active and service not in state.cells[i].recorded
                    health = Health.RUNNING if seen else Health.STOPPED
                    return self._answer(
                        state, i, k, ("health", health.value), partial(ActionFinished, ok=True, health=health)
                    )
                case SaveWishes():
                    return self._answer(state, i, k, "saved", lambda _n: WishesSaved(True))
                case AnnounceAddress():
                    return self._answer(state, i, k, "verified", lambda n: AddressVerified(n, True))
        return state

    def _judge_start(self, state: State, i: int, service: str) -> None:
        word = self.engine.snapshots[state.cells[i].said]
        if word is None or not (word.phase is Phase.ALONE or (word.phase is Phase.MEMBER and word.confirmed)):
            raise Harm(f"{self.plan.nodes[i]} starts {service} in {word and word.phase.name}")


def _version(node: Any, life: int) -> int:
    """The version that this core has seen of that life."""
    return node.peers.version if node.peers.incarnation == Incarnation(life, 1) else 0
