"""One node's core with a peer of any mind, an operator of any mind, and time.

Decides who says what in which order, by a script.  All words of the peer pass
the brain's door (``snapshot_of``), as they do in the daemon; what the core
asks for is answered as the world may answer.  Nothing that a peer with the
right key says, and no order, may end the brain: that is the whole rule here.
What is right to do is the simulator's question.
"""

from typing import Final

import msgspec

from hostd.core import snapshot as snapshots
from hostd.core import wire
from hostd.core.effects import (
    AddAddress,
    AnnounceAddress,
    AnyEffect,
    FencePeer,
    ProbeAddresses,
    Publish,
    RemoveAddress,
    RenewAddress,
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
    ForeignClaim,
    FrameReceived,
    HeartReturned,
    IncarnationRenewed,
    LanTurned,
    LinkChanged,
    OperatorAsked,
    ProbeFinished,
    SnapshotReceived,
    Started,
    TiebreakerTurned,
    TimerFired,
    WishesSaved,
)
from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Resource, Service
from hostd.core.snapshot import Report, Snapshot
from hostd.core.terms import NO_EPOCH, Action, Carrier, Health, Incarnation, Phase, ServiceState
from hostd.figures import Figures
from hostd.hearing import snapshot_of
from hostd.messages import SnapshotHeard
from hostd.observed import differences
from hostd.requests import StatusIs, encode
from hostd.status import status_of
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.typed import Drawn

NODES: Final = ("a", "b")
WEB: Final = Service(
    "web", ("b", "a"), (Resource("192.0.2.1/24", "address", "192.0.2.1/24"), Resource("httpd", "httpd")), digest="w"
)
GFS: Final = Service("gfs", NODES, (Resource("gfs", "gfs"),), everywhere=True, digest="g")
PLANS: Final = tuple(
    Plan("fuzz", NODES, (WEB, GFS), (Link("lan"), Link("cable")), fencing=fencing, digest="same")
    for fencing in (True, False)
)
WORDS: Final = ("a", "b", "web", "gfs", "", "same", "w", "g", "c", "02:00:00:00:00:01")
LIVES: Final = (Incarnation(5, 5), Incarnation(6, 1), Incarnation(wire.BOOT_MAX, wire.NONCE_MAX))
LEAPS_MS: Final = (0, 20, 100, 300, 700, 2_100, 31_000, 120_000)
STEPS_MAX: Final = 60
SNAPSHOT_ROOM: Final = 20_000
"""Far more than two services take, and less than the wire's limit."""


class Scene:
    """A core that has just started, and what it has asked for."""

    def __init__(self, script: Script) -> None:
        self.script, self.drawn = script, Drawn(script, WORDS)
        self.plan = script.choice(PLANS)
        self.core = Node(self.plan, "a")
        self.now_ms, self.version = 1_000, 0
        self.asked: list[AnyEffect] = []
        self.life = LIVES[0]
        self.word: Snapshot | None = None
        self.step(Started(Incarnation(7, 7)))
        self.step(HeartReturned())
        for link in self.plan.links:
            self.step(LinkChanged(link.name, self.now_ms, True, Carrier.UP))

    def step(self, event: AnyEvent) -> None:
        """One step; all that comes out can be sent, shown and told."""
        for effect in self.core.step(self.now_ms, event):
            if isinstance(effect, Publish):
                body = snapshots.encode(effect.snapshot)
                assert len(body) < SNAPSHOT_ROOM, "it grows"
                assert snapshots.decode(body) == effect.snapshot
            self.asked.append(effect)
        del self.asked[:-STEPS_MAX]
        deadline = self.core.deadline()
        assert deadline is None or deadline > self.now_ms

    def turn(self) -> None:
        """Whatever the script has next."""
        match self.script.byte() % 14:
            case 0 | 1:
                self._pass_time()
            case 2:
                self._hear_beat()
            case 3:
                self._hear(self.drawn.value(Snapshot))
            case 4 | 5:
                self._hear(self._sensible())
            case 6:
                self.step(OperatorAsked(1, self.drawn.value(AnyCommand)))
            case 7 | 8:
                self._answer_all()
            case 9:
                self._befall()
            case _:
                self._go_along()

    def _pass_time(self) -> None:
        """A pause of our own, or a silence of the peer's."""
        if self.script.byte() & 1:
            self.now_ms += self.script.choice(LEAPS_MS)
            self.step(TimerFired())
            return
        for _ in range(self.script.choice((1, 6, 22, 22))):
            self.now_ms += 100
            self.step(TimerFired())

    def _hear_beat(self) -> None:
        script = self.script
        self.now_ms += script.choice(LEAPS_MS[:4])
        self.life = script.choice((self.life, self.life, self.life, *LIVES))
        echo_at_ms = script.choice((self.now_ms, self.now_ms, self.now_ms - 500, None))
        link = script.choice(self.plan.links).name
        self.step(
            FrameReceived(
                link, self.now_ms, "b", self.life, echo_at_ms, self.version, script.byte(), script.byte() > 250
            )
        )

    def _hear(self, snapshot: Snapshot) -> None:
        """As heart and brain pass it on, with the frame that it came in."""
        self.version = max(self.version + 1, 1)
        snapshot = msgspec.structs.replace(snapshot, node="b", incarnation=self.life, version=self.version)
        heard = snapshot_of(self.plan, "b", SnapshotHeard("b", self.life, self.version, snapshots.encode(snapshot)))
        if heard is None:
            return
        self.step(FrameReceived("lan", self.now_ms, "b", self.life, self.now_ms, self.version, 3))
        tuple(differences(self.word, heard))
        self.word = heard
        self.step(SnapshotReceived(heard))

    def _sensible(self) -> Snapshot:
        """Nearly what a true peer would say of itself now; so that the pair gets further than JOINING."""
        ours = self.core.snapshot
        reports = {s.name: Report(self.script.choice(tuple(ServiceState))) for s in self.plan.services}
        said = Snapshot(
            "b", self.life, 1, self.script.choice(tuple(Phase)), bool(self.script.byte() & 1), services=reports,
            nodes=NODES, digest="same", digests={"web": "w", "gfs": "g"}, fencing=self.plan.fencing,
        )  # fmt: skip
        if ours is not None and self.script.byte() % 4:
            said = msgspec.structs.replace(
                said,
                view=ours.invitation.view if ours.invitation else ours.view,
                coordinator="a",
                heard=ours.incarnation,
            )
        return said

    def _go_along(self) -> None:
        """A while in which all is well: so that a pair forms, serves, and has something to lose."""
        for _ in range(1 + self.script.byte() % 4):
            self._answer_all(Script(b""))
            self.now_ms += 100
            beat = FrameReceived("lan", self.now_ms, "b", self.life, self.now_ms, self.version, 3)
            self.step(beat)
            ours = self.core.snapshot
            if ours is None:
                continue
            invitation = ours.invitation
            is_member = ours.phase is Phase.MEMBER or (invitation is not None and invitation.to == self.life)
            states = {s.name: ServiceState.STOPPED for s in self.plan.services}
            said = Snapshot(
                "b", self.life, 1, Phase.MEMBER if is_member else Phase.JOINING, confirmed=ours.phase is Phase.MEMBER,
                view=invitation.view if invitation is not None else ours.view, coordinator="a" if is_member else "",
                services={name: Report(state, ours.assignments[name].epoch if name in ours.assignments else NO_EPOCH)
                          for name, state in states.items()},
                heard=ours.incarnation, nodes=NODES, digest="same", digests={"web": "w", "gfs": "g"},
                fencing=self.plan.fencing, view_max=ours.view_max,
            )  # fmt: skip
            self._hear(said)

    def _answer_all(self, script: Script | None = None) -> None:
        asked, self.asked = self.asked, []
        for effect in asked:
            event = self._outcome(effect, script or self.script)
            if event is not None:
                self.step(event)

    def _outcome(self, effect: AnyEffect, script: Script) -> AnyEvent | None:
        is_well = script.byte() % 4 != 1
        match effect:
            case RunAction(action_id=number, action=action):
                health = script.choice(tuple(Health)) if action is Action.MONITOR and is_well else None
                return ActionFinished(number, is_well, health, timed_out=not is_well)
            case AddAddress(request_id=number) | RemoveAddress(request_id=number) | RenewAddress(request_id=number):
                return AddressFinished(number, AddressOutcome.DONE if is_well else script.choice(tuple(AddressOutcome)))
            case AnnounceAddress(request_id=number):
                return AddressVerified(number, is_well)
            case ProbeAddresses(request_id=number, addresses=addresses):
                return ProbeFinished(number, is_well, () if is_well else addresses)
            case FencePeer(request_id=number):
                return FenceFinished(number, is_well)
            case SaveWishes():
                return WishesSaved(is_well)
            case RenewIncarnation():
                life = self.core.incarnation
                assert life.boot < wire.BOOT_MAX, "no life is left"
                return IncarnationRenewed(Incarnation(life.boot + 1, 0))
            case _:
                return None

    def _befall(self) -> None:
        script = self.script
        self.step(
            script.choice(
                (
                    LanTurned(()), LanTurned(WEB.addresses), TiebreakerTurned(True), TiebreakerTurned(False),
                    ForeignClaim(WEB.addresses[0], "02:00:00:00:00:0" + str(script.byte() % 3), self.now_ms),
                )
            )
        )  # fmt: skip


def live(data: bytes) -> int:
    """A life of so many steps; at its end the status can be told."""
    scene = Scene(Script(data))
    count = 0
    while not scene.script.is_over and count < STEPS_MAX:
        count += 1
        scene.turn()
    encode(StatusIs(status_of(scene.core, Figures(), scene.now_ms, 1e9)))
    return count


def life_seeds() -> list[bytes]:
    joins = bytes((4, 0, 1, 2, 2, 0, 0)) * 4
    return [bytes((1, 2, 0, 0, 0)) * 9, b"\0" + joins, b"\1" + joins + b"\x07\0\0" * 5, bytes(range(256)), b"\3" * 90]


TARGETS: Final = (
    Target("peer", "a peer with the right key, an operator and time, against the core", live, life_seeds, 1_024),
)
