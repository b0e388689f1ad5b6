"""The brain against a host and a heart that the test plays."""

import asyncio
import json
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from hostd import messages, recorder
from hostd.config import Configuration, Directories
from hostd.core import snapshot as snapshots
from hostd.core.effects import Publish
from hostd.core.events import AnyEvent, FrameReceived, HeartReturned, LanTurned, Leave, Started, TimerFired
from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.core.snapshot import Assignment, Invitation, Report, Snapshot, Wish, WishKind
from hostd.core.terms import Action, Carrier, Epoch, Health, Incarnation, Phase, ServiceState
from hostd.daemon import Brain, run
from hostd.messages import (
    Alive,
    AnyMessage,
    Carry,
    Do,
    Done,
    FrameHeard,
    Goodbye,
    HeartForked,
    HeartGone,
    Identify,
    LinkState,
    Renew,
    Signalled,
    SnapshotHeard,
    Unfinished,
)
from hostd.recorder import Header, Record
from hostd.registry import Registry
from hostd.requests import AskStatus, Order, Rejected, StatusIs, decode_answer, encode
from hostd.status_form import Status

PLAN = Plan(
    "example",
    ("a", "b"),
    services=(Service("web", ("a", "b"), (Resource("dummy", "dummy"),)),),
    links=(Link("wire"),),
    timers=Timers(keepalive_ms=50, warntime_ms=200, deadtime_ms=1_000, initdead_ms=60_000),
)
PEER = Incarnation(5, 5)
M = TypeVar("M", bound=messages.Message)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for netlink and packet sockets")


def configuration(folder: Path, plan: Plan = PLAN, **more: Any) -> Configuration:
    return Configuration(plan=plan, node="a", key=folder / "key", links=(), resources=(), **more)


class Family:
    """The host's and the heart's side of one brain in a child process.

    Answers every action like an agent whose service can always be started.
    """

    def __init__(self, folder: Path, plan: Plan = PLAN, **more: Any) -> None:
        self.directories = Directories(runtime=folder / "run", state=folder / "state")
        self.host, host_end = messages.pair()
        self.heart, heart_end = messages.pair()
        self.heard: list[tuple[float, AnyMessage]] = []
        self.is_running = False
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                self.host.close()
                self.heart.close()
                code = run(configuration(folder, plan, **more), self.directories, Registry(), host_end, heart_end)
            finally:
                os._exit(code)
        host_end.close()
        heart_end.close()

    def wait(self, kind: type[M], fits: Callable[[M], bool] = lambda _: True, *, within_s: float = 10.0) -> M:
        """The next message of this kind that fits; what comes before it is kept in ``heard``."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for end in select.select([self.host, self.heart], [], [], 0.05)[0]:
                received = messages.receive(end)
                assert received is not None, "the brain is gone"
                message, _ = received
                self.heard.append((time.monotonic(), message))
                if isinstance(message, Do):
                    self._act(message)
                if isinstance(message, kind) and fits(message):
                    return message
        raise AssertionError(f"no {kind.__name__} within {within_s} s")

    def _act(self, do: Do) -> None:
        health = None
        if do.action is Action.MONITOR:
            health = Health.RUNNING if self.is_running else Health.STOPPED
        else:
            self.is_running = do.action is Action.START
        messages.send(self.host, Done(do.action_id, True, health, False, 0, "", "", 1, "", None))

    def begin(self) -> Identify:
        """As the host does: the first message; then the brain is a node that waits for its peer."""
        messages.send(self.host, Unfinished(()))
        identity = self.wait(Identify)
        self.wait(Alive, lambda alive: alive.ready)
        return identity

    def status(self) -> Status:
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(self.directories.runtime / "hostd.sock"))
            end.sendall(encode(AskStatus()))
            answer = decode_answer(end.makefile("rb").readline())
        assert isinstance(answer, StatusIs)
        return answer.status

    def ended(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self.host.close()
        self.heart.close()


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    family.close()


def test_a_brain_says_who_it_is_before_anything_else_and_renews_its_heart(family: Family) -> None:
    """Identify comes first; then a Renew at least every half warntime, with room for a busy machine."""
    family.begin()
    to_heart = [m for _, m in family.heard if isinstance(m, Identify | Renew | Carry)]
    assert isinstance(to_heart[0], Identify)
    for _ in range(10):
        family.wait(Renew)
    at = [when for when, m in family.heard if isinstance(m, Renew)][-10:]
    assert (at[-1] - at[0]) / 9 < 0.150


def test_a_new_heart_is_told_who_speaks_and_what_was_said_last(family: Family) -> None:
    """After a heart's death the next one gets the same incarnation and the newest snapshot at once."""
    identity = family.begin()
    before = [m for _, m in family.heard if isinstance(m, Carry)]
    carried = before[-1] if before else family.wait(Carry)  # on a busy machine it follows its name by a moment
    messages.send(family.host, HeartGone("killed"))
    family.heart.close()
    family.heart, brain_end = messages.pair()
    messages.send(family.host, HeartForked(1), [brain_end.fileno()])
    brain_end.close()
    assert family.wait(Identify) == identity
    assert family.wait(Carry).version >= carried.version


def test_each_life_has_a_higher_incarnation(family: Family, tmp_path: Path) -> None:
    """A brain killed and forked again is a new life, known as such to the peer."""
    first = family.begin()
    family.close()
    second = Family(tmp_path)
    try:
        assert second.begin().incarnation > first.incarnation
    finally:
        second.close()


BEYOND_MEASURE: tuple[dict[str, Any], ...] = (
    {"view": 2**63},
    {"view_max": -1},
    {"away_ms": 2**40},
    {"watchdog_ms": -1},
    {"dead": Incarnation(2**63, 0)},
    {"heard": Incarnation(-1, 0)},
    {"invitation": Invitation(2**64 - 1, PEER)},
    {"wishes": (Wish(WishKind.STOPPED, "web", "yes", 2**64 - 1, "b"),)},
    {"services": {"web": Report(ServiceState.STOPPED, since_ms=2**62)}},
    {"services": {"web": Report(ServiceState.STOPPED, failures=-1)}},
    {"services": {"web": Report(ServiceState.STOPPED, Epoch(2**63, 0))}},
    {"assignments": {"web": Assignment(("a",), Epoch(0, 2**63))}},
)
"""What no node says, and what would end a brain that counts on from it or shows it."""


def test_snapshots_that_lie_about_their_sender_never_reach_the_core(family: Family) -> None:
    """Garbage, another name, another incarnation, no number that could be counted on: counted and dropped."""
    family.begin()
    honest = Snapshot("b", PEER, 1, Phase.JOINING)
    lies = [
        SnapshotHeard("b", PEER, 1, b"\xc1garbage"),
        SnapshotHeard("b", PEER, 1, snapshots.encode(Snapshot("a", PEER, 1, Phase.ALONE))),
        SnapshotHeard("b", PEER, 1, snapshots.encode(Snapshot("b", Incarnation(6, 6), 1, Phase.ALONE))),
        SnapshotHeard("b", PEER, 2, snapshots.encode(honest)),
        SnapshotHeard("b", PEER, 1, snapshots.encode(Snapshot("b", PEER, 1, Phase.ALONE, coordinator="mallory"))),
        *(
            SnapshotHeard("b", PEER, 1, snapshots.encode(msgspec.structs.replace(honest, **lie)))
            for lie in BEYOND_MEASURE
        ),
        SnapshotHeard("b", PEER, 1, snapshots.encode(honest).replace(b"\xa1b", b"\xa1\xff")),
    ]
    for lie in lies:
        messages.send(family.heart, lie)
    family.wait(Alive)
    status = family.status()
    assert status.figures["snapshots_refused"] == len(lies)
    assert status.nodes["b"].phase == ""
    messages.send(family.heart, SnapshotHeard("b", PEER, 1, snapshots.encode(honest)))
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    messages.send(family.heart, FrameHeard("wire", now_ms, "b", PEER, now_ms, 1, 1, False))
    family.wait(Alive)
    assert family.status().nodes["b"].phase == "joining"


def test_a_signal_to_end_makes_it_leave_and_say_so_several_times(family: Family) -> None:
    """Without a peer everything is stopped, LEFT is carried for some keepalives, then comes Goodbye(0)."""
    family.begin()
    messages.send(family.host, Signalled(signal.SIGTERM))
    left = family.wait(Carry, lambda carry: snapshots.decode(carry.body).phase is Phase.LEFT)
    said_at = family.heard[-1][0]
    assert family.wait(Goodbye) == Goodbye(0)
    assert family.heard[-1][0] - said_at >= 4 * 0.050
    assert left.version > 0
    assert family.ended() == 0


def test_a_brain_whose_host_is_gone_ends(family: Family) -> None:
    """The end of file from the host ends the brain, even where no kernel kills it."""
    family.begin()
    family.host.close()
    assert family.ended() == 1


def test_the_flight_record_of_a_life_replays_to_what_was_published(family: Family) -> None:
    """Stepping a fresh core through the recorded file gives, letter for letter, the snapshots that were carried."""
    family.begin()
    messages.send(family.heart, LinkState("wire", 1, True, Carrier.UP, ""))
    family.wait(Alive)
    messages.send(family.host, Signalled(signal.SIGTERM))
    family.wait(Goodbye)
    assert family.ended() == 0
    (path,) = recorder.flights(family.directories.state)
    start, *records = recorder.read(path)
    assert isinstance(start, Header)
    core = Node(start.plan, start.node)
    replayed = [
        snapshots.encode(effect.snapshot)
        for record in records
        if isinstance(record, Record)
        for effect in core.step(record.now_ms, record.event)
        if isinstance(effect, Publish)
    ]
    carried = [m.body for _, m in family.heard if isinstance(m, Carry)]
    assert carried
    assert [body for body in replayed if body in carried] == carried
    assert replayed[-1] == carried[-1]


@pytest.mark.parametrize("status_for_everyone", [False, True])
def test_a_brain_lets_everyone_ask_if_conf_d_says_so(tmp_path: Path, status_for_everyone: bool) -> None:
    """The second socket is there and answers, or it is not there."""
    family = Family(tmp_path, status_for_everyone=status_for_everyone)
    try:
        family.begin()
        readers = family.directories.runtime / "status.sock"
        family.wait(Alive)
        assert readers.exists() == status_for_everyone
        if status_for_everyone:
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(str(readers))
                end.sendall(encode(AskStatus()) + encode(Order(Leave())))
                answers = end.makefile("rb")
                assert isinstance(decode_answer(answers.readline()), StatusIs)
                assert decode_answer(answers.readline()) == Rejected("not-allowed")
    finally:
        family.close()


# -- what a core is born with ------------------------------------------------------------


def recorded(family: Family) -> list[AnyEvent]:
    """All events of its only life, after it has left."""
    messages.send(family.host, Signalled(signal.SIGTERM))
    family.wait(Goodbye)
    assert family.ended() == 0
    (path,) = recorder.flights(family.directories.state)
    return [frame.event for frame in recorder.read(path) if isinstance(frame, Record)]


@pytest.mark.parametrize(
    ("interface", "is_dead"), [("lo", False), ("absent0", True)], ids=["a living interface", "no such interface"]
)
def test_a_core_hears_at_its_birth_which_addresses_have_no_interface(
    tmp_path: Path, interface: str, is_dead: bool
) -> None:
    """LanTurned follows Started, before anything on the LAN has turned: a LAN dead from the start never turns."""
    address = f"127.77.7.7/8@{interface}"
    service = Service("web", ("a", "b"), (Resource(address, "address", address),))
    family = Family(tmp_path, msgspec.structs.replace(PLAN, services=(service,)))
    try:
        family.begin()
        events = recorded(family)
    finally:
        family.close()
    started, *others = events
    assert isinstance(started, Started)
    turned = [event for event in others if isinstance(event, LanTurned)]
    assert turned[:1] == [LanTurned((address,) if is_dead else ())]
    before = others[: others.index(turned[0])]
    assert not any(isinstance(event, TimerFired) for event in before), "time has passed before the core knew its LAN"


@pytest.mark.parametrize(
    ("seen_s_ago", "left_s"),
    [(None, 3_600), (0, 3_600), (1_800, 1_800), (3_700, None), (-86_400, 3_600)],
    ids=["never seen", "just seen", "half an hour ago", "long ago", "by a clock that has been set back"],
)
def test_a_core_hears_at_its_birth_what_is_left_of_each_probation(
    tmp_path: Path, seen_s_ago: int | None, left_s: int | None
) -> None:
    """Started says so of each service that is still new on this node, by the wall clock of its first sight."""
    if seen_s_ago is not None:
        (tmp_path / "state").mkdir()
        body = json.dumps({"web": time.time() - seen_s_ago, "gone": 1.0})
        (tmp_path / "state" / "services.json").write_text(body)
    family = Family(tmp_path)
    try:
        family.begin()
        started, *_ = recorded(family)
    finally:
        family.close()
    assert isinstance(started, Started)
    if left_s is None:
        assert started.probation_ms == {}
    else:
        assert list(started.probation_ms) == ["web"]
        assert left_s * 1_000 - 60_000 <= started.probation_ms["web"] <= left_s * 1_000
    assert list(json.loads((tmp_path / "state" / "services.json").read_text())) == ["web"]


class Watched(Brain):
    """A brain whose core and acts write down when they are called."""

    def __init__(self, folder: Path, disk: ThreadPoolExecutor, loop: asyncio.AbstractEventLoop) -> None:
        directories = Directories(runtime=folder / "run", state=folder / "state")
        super().__init__(configuration(folder), directories, disk, loop)
        self.order: list[str] = []
        core, order = self.core, self.order

        class Core:
            """The real core, and a snapshot to publish at every frame."""

            def step(self, now_ms: int, event: AnyEvent) -> list[Any]:
                effects = core.step(now_ms, event)
                if isinstance(event, FrameReceived):
                    order.append("step")
                    assert core.snapshot is not None
                    return [Publish(core.snapshot), *effects]
                return effects

            def __getattr__(self, name: str) -> Any:
                return getattr(core, name)

        self.core = Core()  # type: ignore[assignment]

    def publish(self, snapshot: Snapshot) -> None:
        self.order.append("act")
        super().publish(snapshot)


def test_all_input_that_is_ready_is_stepped_through_before_anything_is_done(tmp_path: Path) -> None:
    """Twenty frames that piled up while the loop was busy are all stepped before the first effect of any."""
    host, host_end = messages.pair()
    heart, heart_end = messages.pair()
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as disk:
        brain = Watched(tmp_path, disk, loop)

        async def story() -> None:
            life = asyncio.ensure_future(brain.live(host_end, heart_end))
            messages.send(host, Unfinished(()))
            await asyncio.sleep(0.3)
            brain.order.clear()
            for number in range(20):
                messages.send(heart, FrameHeard("wire", number, "b", PEER, None, 1, 0, False))
                time.sleep(0.001)  # the loop stands still meanwhile
            await asyncio.sleep(0.2)
            host.close()
            assert await life == 1

        loop.run_until_complete(story())
    loop.close()
    heart.close()
    assert brain.order[:20] == ["step"] * 20
    assert brain.order[20:].count("act") >= 20


def test_the_core_can_be_put_on_record() -> None:
    """A checkpoint of the core (pickle) goes on exactly as the core itself."""
    core = Node(PLAN, "a")
    for now_ms, event in ((1, Started(Incarnation(1, 1))), (2, HeartReturned()), (60, TimerFired())):
        core.step(now_ms, event)
    twin = pickle.loads(pickle.dumps(core))
    for now_ms in range(100, 3_000, 50):
        assert twin.step(now_ms, TimerFired()) == core.step(now_ms, TimerFired())
