"""Plans, words and one node on a bench, with sensible defaults.

Decides nothing: a test names what matters to its claim, the rest comes from
here.  ``Bench`` holds one node ``a`` (or ``b``), a puppet for its peer and
hands that do what they are asked at once, unless the test says otherwise.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnswerOperator,
    AnyEffect,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewAddress,
    RenewIncarnation,
    RunAction,
    SaveWishes,
    Tell,
)
from hostd.core.events import (
    ActionFinished,
    AddressFinished,
    AddressOutcome,
    AddressVerified,
    AnyCommand,
    AnyEvent,
    ConfirmDown,
    FenceFinished,
    FrameReceived,
    HeartReturned,
    IncarnationRenewed,
    LinkChanged,
    OperatorAsked,
    ProbeFinished,
    SnapshotReceived,
    Started,
    TimerFired,
    WishesSaved,
)
from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.core.snapshot import Assignment, Invitation, Report, Snapshot
from hostd.core.terms import Action, Epoch, Health, Incarnation, Phase, ResourceState, ServiceState

BEAT_MS = 100
T0_MS = 10_000
MINE = Incarnation(5, 55)
THEIRS = Incarnation(7, 77)
LATER = Incarnation(8, 88)
ADDRESS = "172.23.2.13/24"
OTHER_ADDRESS = "172.23.2.16/24"
TIMERS = Timers()

AWAITED = (
    RunAction, AddAddress, RemoveAddress, RenewAddress, AnnounceAddress, ProbeAddresses, FencePeer, SaveWishes,
    RenewIncarnation,
)  # fmt: skip
"""The effects that are answered by exactly one outcome (the table in ``effects.py``)."""

T = TypeVar("T")


# -- plans -------------------------------------------------------------------------


def agent(name: str = "mysql", **changes: Any) -> Resource:
    """A rung that an agent runs."""
    return Resource(**{"id": name, "agent": name, **changes})


def address(text: str = ADDRESS) -> Resource:
    """A rung that is an address."""
    return Resource(id=text, agent="address", address=text)


def service(name: str = "mysql", **changes: Any) -> Service:
    """On a, then b; one agent unless told otherwise."""
    return Service(**{"name": name, "candidates": ("a", "b"), "resources": (agent(name),), "digest": name, **changes})


def everywhere(name: str = "gfs", **changes: Any) -> Service:
    """``on = "all"``."""
    return service(name, everywhere=True, **changes)


def plan(*services: Service, **changes: Any) -> Plan:
    """Two nodes, an Ethernet link and a serial one."""
    links = (Link("lan"), Link("cable"))
    return Plan(**{"cluster": "site", "nodes": ("a", "b"), "services": services, "links": links, **changes})


# -- words -------------------------------------------------------------------------


def word(**changes: Any) -> Snapshot:
    """What the peer b says: JOINING, nothing known."""
    said = {"node": "b", "incarnation": THEIRS, "version": 1, "phase": Phase.JOINING, "nodes": ("a", "b")}
    return Snapshot(**{**said, **changes})


def report(state: ServiceState = ServiceState.STOPPED, view: int = 0, counter: int = 0, **changes: Any) -> Report:
    """One service as somebody reports it, having obeyed (view, counter)."""
    return Report(state, Epoch(view, counter), **changes)


def frame(at_ms: int, **changes: Any) -> FrameReceived:
    """A beat of b over the LAN that echoes what we sent at the same moment."""
    said = {"link": "lan", "at_ms": at_ms, "sender": "b", "incarnation": THEIRS, "echo_sent_at_ms": at_ms, "version": 0}
    return FrameReceived(**{**said, **changes})


# -- one node on the bench ---------------------------------------------------------


class Bench:
    """One node, its puppet peer and its hands.

    ``says``: the peer's word at every beat, None while it is silent.
    ``holds``: a predicate; an effect that it picks stays unanswered in ``open``.
    ``answers``: (resource, action) → fields of ``ActionFinished``; ``running``:
    what the monitors find.
    """

    def __init__(self, plan: Plan, me: str = "a", **started: Any) -> None:
        self.plan, self.node, self.peer = plan, Node(plan, me), plan.peer_of(me)
        self.now_ms = T0_MS
        self.seen: list[AnyEffect] = []
        self.open: list[AnyEffect] = []
        self.said: Snapshot  # our newest publication
        self.says: Snapshot | None = None
        self.carried: Snapshot | None = None
        self.holds: Callable[[AnyEffect], bool] = started.pop("holds", lambda _: False)
        self.answers: dict[tuple[str, Action], dict[str, Any]] = {}
        self.running: set[str] = set(started.pop("running", ()))
        self.fence_confirms = True
        self.addition = AddressOutcome.DONE
        self.boot = MINE.boot
        self.step(Started(MINE, **started))
        self.step(HeartReturned())
        for link in plan.links:
            self.step(LinkChanged(link.name, self.now_ms, usable=True))

    # -- time ---------------------------------------------------------------------

    def step(self, event: AnyEvent) -> list[AnyEffect]:
        """One event now; the hands answer what comes out.  All effects, in order."""
        effects = self.node.step(self.now_ms, event)
        self.seen += effects
        for publication in of(Publish, effects):
            self.said = publication.snapshot
        answers = [answer for effect in effects if (answer := self._answer(effect)) is not None]
        for answer in answers:
            effects = effects + self.step(answer)
        return effects

    def beat(self) -> list[AnyEffect]:
        """One keepalive passes; the peer beats if it says anything."""
        self.now_ms += BEAT_MS
        said = self.says
        if said is None:
            return self.step(TimerFired())
        effects: list[AnyEffect] = []
        for link in self.plan.links:
            effects += self.step(
                frame(
                    self.now_ms, link=link.name, sender=said.node, incarnation=said.incarnation, version=said.version,
                    hears=2 ** len(self.plan.links) - 1,
                )
            )  # fmt: skip
        if said is not self.carried:
            self.carried = said
            effects += self.step(SnapshotReceived(said))
        return effects

    def run(self, for_ms: int) -> list[AnyEffect]:
        """Beats for that long."""
        return [effect for _ in range(for_ms // BEAT_MS) for effect in self.beat()]

    def until(self, claim: Callable[[], bool], limit_ms: int = 60_000) -> "Bench":
        """Beats until it holds; never is a failure."""
        for _ in range(limit_ms // BEAT_MS):
            if claim():
                return self
            self.beat()
        raise AssertionError(("never", self.phase, self.states))

    def ask(self, command: AnyCommand) -> AnswerOperator:
        """The operator's command and its one answer."""
        answers = of(AnswerOperator, self.step(OperatorAsked(1, command)))
        assert len(answers) == 1, answers
        return answers[0]

    # -- the peer -----------------------------------------------------------------

    def say(self, **changes: Any) -> list[AnyEffect]:
        """The peer's next version, heard with the next beat."""
        before = self.says or self.carried or word(node=self.peer, version=0, nodes=self.plan.nodes)
        if changes.get("incarnation", before.incarnation) != before.incarnation:
            before = word(node=self.peer, version=0, nodes=self.plan.nodes)
        digests = {s.name: s.digest for s in self.plan.services}
        changes = {"digests": before.digests or digests, **changes}
        self.says = msgspec.structs.replace(before, version=before.version + 1, **changes)
        return self.beat()

    def obeys(self) -> dict[str, Report]:
        """What an obedient peer reports of our table: it runs what it owns."""
        return {
            name: Report(ServiceState.RUNNING if self.peer in given.owners else ServiceState.STOPPED, given.epoch)
            for name, given in self.table.items()
        }

    # -- the hands ----------------------------------------------------------------

    def finish(self, effect: AnyEffect, **fields: Any) -> list[AnyEffect]:
        """The outcome of something held open."""
        self.open.remove(effect)
        outcome = self._outcome(effect)
        assert outcome is not None, effect
        return self.step(msgspec.structs.replace(outcome, **fields))

    def _answer(self, effect: AnyEffect) -> AnyEvent | None:
        outcome = self._outcome(effect) if not self.holds(effect) else None
        if outcome is None and isinstance(effect, AWAITED):
            self.open.append(effect)
        return outcome

    def _outcome(self, effect: AnyEffect) -> AnyEvent | None:
        match effect:
            case RunAction():
                return self._act(effect)
            case AddAddress():
                return AddressFinished(effect.request_id, self.addition)
            case RemoveAddress() | RenewAddress():
                return AddressFinished(effect.request_id, AddressOutcome.DONE)
            case AnnounceAddress():
                return AddressVerified(effect.request_id, verified=True)
            case ProbeAddresses():
                return None  # takes its time: see ``listen``
            case FencePeer():
                return FenceFinished(effect.request_id, self.fence_confirms)
            case SaveWishes():
                return WishesSaved(ok=True)
            case RenewIncarnation():
                self.boot += 1
                return IncarnationRenewed(Incarnation(self.boot, 55))
            case _:
                return None

    def _act(self, effect: RunAction) -> ActionFinished:
        fields = self.answers.get((effect.resource, effect.action), {})
        ok = fields.get("ok", True)
        health = None
        if effect.action is Action.START and ok:
            self.running.add(effect.resource)
        elif effect.action is Action.STOP and ok:
            self.running.discard(effect.resource)
        elif effect.action is Action.MONITOR and ok:
            health = Health.RUNNING if effect.resource in self.running else Health.STOPPED
        return ActionFinished(**{"action_id": effect.action_id, "ok": True, "health": health, **fields})

    def listen(self, **found: Any) -> list[AnyEffect]:
        """The outcome of the newest probe: silence that proves something, unless told otherwise."""
        asked = of(ProbeAddresses, self.seen)[-1]
        return self.step(ProbeFinished(asked.request_id, **{"listened": True, **found}))

    # -- looking ------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self.said.phase

    @property
    def states(self) -> dict[str, ServiceState]:
        return {name: told.state for name, told in self.said.services.items()}

    @property
    def table(self) -> dict[str, Assignment]:
        return self.said.assignments

    @property
    def owners(self) -> dict[str, tuple[str, ...]]:
        return {name: given.owners for name, given in self.table.items()}

    def rungs(self, name: str) -> tuple[ResourceState, ...]:
        return self.said.services[name].resources


def of(kind: type[T], effects: list[AnyEffect]) -> list[T]:
    """Those of one kind, in order."""
    return [effect for effect in effects if isinstance(effect, kind)]


def facts(kind: type[T], effects: list[AnyEffect]) -> list[T]:
    """The facts of one kind that were told, in order."""
    return [tell.fact for tell in of(Tell, effects) if isinstance(tell.fact, kind)]


def actions(effects: list[AnyEffect]) -> list[str]:
    """What was done to services, readably: ``start mysql``, ``add 172.23.2.13/24``."""
    lines = []
    for effect in effects:
        match effect:
            case RunAction(resource=name, action=action, recurring=False):
                lines.append(f"{action.name.lower()} {name}")
            case AddAddress(address=text):
                lines.append(f"add {text}")
            case RemoveAddress(address=text):
                lines.append(f"remove {text}")
            case _:
                pass
    return lines


# -- a bench in a phase ------------------------------------------------------------


def coordinator(*services: Service, **changes: Any) -> Bench:
    """a has invited b, b has accepted and obeys: a is confirmed and assigns."""
    bench = Bench(plan(*services, **changes))
    join(bench)
    return bench


def join(bench: Bench, **said: Any) -> None:
    """The peer accepts our invitation and obeys our first tables."""
    bench.say(**{"phase": Phase.JOINING, **said})
    offer = bench.said.invitation
    assert offer is not None
    bench.say(phase=Phase.MEMBER, confirmed=True, view=offer.view, coordinator=bench.node.me, invitation=None)
    settle(bench)


def settle(bench: Bench) -> None:
    """The peer obeys until our table no longer changes."""
    for _ in range(20):
        before = bench.table
        bench.say(services=bench.obeys())
        if bench.table == before:
            return
    raise AssertionError(("the table does not settle", bench.table))


def member(*services: Service, me: str = "b", **changes: Any) -> Bench:
    """b has accepted a's invitation to view 4; a is the coordinator and has assigned nothing."""
    bench = Bench(plan(*services, **changes), me=me)
    peer = bench.peer
    bench.say(invitation=Invitation(4, MINE))
    bench.say(phase=Phase.MEMBER, confirmed=True, view=4, coordinator=peer, invitation=None)
    return bench


def alone(*services: Service, **changes: Any) -> Bench:
    """a is ALONE because the operator confirmed that b is off."""
    bench = Bench(plan(*services, **changes))
    bench.ask(ConfirmDown("b"))
    return bench


# -- scenes that several files of tests begin with ---------------------------------------------

RUNNING, STOPPED = ServiceState.RUNNING, ServiceState.STOPPED
WITH_ADDRESS = service(resources=(address(), agent()))
THEIRS_WITH_ADDRESS = service(resources=(address(), agent()), candidates=("b", "a"))
REMOVE = f"remove {ADDRESS}"
DEADTIME_MS = TIMERS.deadtime_ms
STATION = "02:00:00:00:00:0b"


def lose(bench: "Bench", for_ms: int = DEADTIME_MS + 200) -> None:
    """The peer falls silent on every link."""
    bench.says = None
    bench.run(for_ms)


def serving_member(**changes):
    """b, the second in order, runs mysql with its address for a."""
    bench = member(WITH_ADDRESS, **changes)
    bench.say(assignments={"mysql": Assignment(("b",), Epoch(4, 1))}, stations=(STATION,))
    assert bench.states["mysql"] is RUNNING
    return bench


def fenceable(*services, **changes):
    """A confirmed coordinator with devices whose outcome the test tells."""
    bench = coordinator(*services, fencing=True, **changes)
    bench.holds = lambda effect: isinstance(effect, FencePeer)
    return bench
