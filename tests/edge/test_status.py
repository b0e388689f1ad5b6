"""What the status says of a core: one word each, problems with their codes."""

import inspect
import re

import msgspec

from hostd import problems
from hostd.commands import complaints
from hostd.core.effects import AddressDisputed, ClearanceTurned
from hostd.core.events import FrameReceived, HeartReturned, LinkChanged, SnapshotReceived, Started, TimerFired
from hostd.core.node import Node
from hostd.core.plan import Link, Plan, Resource, Service, Timers
from hostd.core.snapshot import Report, Snapshot
from hostd.core.terms import Carrier, Clearance, Incarnation, Mode, Phase, ResourceState, ServiceState
from hostd.figures import Figures
from hostd.messages import HeartFigures
from hostd.status import one_line, status_of
from hostd.status_form import Status

MAIL = Service("mail", ("b", "a"), (Resource("192.0.2.1/24", "address", "192.0.2.1/24"),), digest="x")
PLAN = Plan("example", ("a", "b"), (MAIL,), (Link("cross"), Link("serial")), Timers(), digest="same")
OURS, THEIRS = Incarnation(9, 9), Incarnation(5, 5)
BEGIN_MS = 100_000


class Scene:
    """One core with its peer's words put into it."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.core = Node(plan, "a")
        self.figures = Figures(published_at_ms=BEGIN_MS)
        self.now_ms = BEGIN_MS
        self.version = 0
        self.core.step(self.now_ms, Started(OURS, release="1.0"))
        self.core.step(self.now_ms, HeartReturned())
        for link in plan.links:
            self.core.step(self.now_ms, LinkChanged(link.name, self.now_ms, True, Carrier.UP))

    def hear(self, *links: str, hears: int = 3) -> None:
        """A frame of the peer on each link, echoing what we sent just now."""
        for link in links:
            frame = FrameReceived(link, self.now_ms, "b", THEIRS, self.now_ms, self.version, hears)
            self.core.step(self.now_ms, frame)

    def receive(self, **changes: object) -> None:
        """A newer snapshot of the peer, which is JOINING unless said otherwise."""
        self.version += 1
        snapshot = Snapshot(
            "b", THEIRS, self.version, Phase.JOINING, nodes=("a", "b"), digest="same", digests={"mail": "x"},
            release="1.0", services={"mail": Report(ServiceState.STOPPED)},
        )  # fmt: skip
        self.figures.peer_snapshot_at_ms = self.now_ms
        self.core.step(self.now_ms, SnapshotReceived(msgspec.structs.replace(snapshot, **changes)))

    def later(self, ms: int) -> None:
        until = self.now_ms + ms
        while self.now_ms < until:
            self.now_ms = min(until, self.now_ms + 100)
            self.core.step(self.now_ms, TimerFired())

    @property
    def status(self) -> Status:
        return status_of(self.core, self.figures, self.now_ms, 1_000.0)

    @property
    def codes(self) -> dict[str, str]:
        return {problem.code: problem.severity for problem in self.status.problems}


def test_every_problem_has_a_text_and_a_cure() -> None:
    """Each code that problems.py can give is one that sentences.py knows, and none is left over."""
    source = inspect.getsource(problems)
    given = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source)) | {"node-standby", "node-maintenance", "node-leaving"}
    given |= {"service-blocked", "service-unknown"}
    assert given == set(complaints.PROBLEMS)


def test_a_node_that_waits_says_for_whom_and_how_long() -> None:
    """JOINING and nobody heard: a warning with the seconds that are left, and the peer is unclean."""
    scene = Scene()
    scene.later(10_000)
    assert scene.codes == {"waiting-for-peer": "warning", "no-fencing": "warning"}
    (waiting,) = (p for p in complaints.with_texts(scene.status).problems if p.code == "waiting-for-peer")
    assert "20 s left" in waiting.text
    assert scene.status.nodes["a"].state == "pending"
    assert scene.status.nodes["b"].state == "unclean"
    assert scene.status.nodes["b"].links["cross"].receive == "down"


def test_a_link_is_reported_by_the_direction_that_failed() -> None:
    """Heard on one link only, and heard there on one only: both losses are told apart."""
    scene = Scene()
    scene.receive()
    scene.hear("cross", hears=2)
    links = scene.status.nodes["b"].links
    assert (links["cross"].receive, links["cross"].send) == ("up", "down")
    assert (links["serial"].receive, links["serial"].send) == ("down", "up")
    about = [p.about["direction"] for p in scene.status.problems if p.code == "link-down"]
    assert about == ["send", "receive"]


def test_a_peer_that_left_is_a_warning_and_one_that_died_an_error() -> None:
    """After goodbye the node is offline in good order; silence without goodbye is an error."""
    left = Scene()
    left.receive(phase=Phase.LEFT)
    left.hear("cross", "serial")
    left.later(40_000)
    assert left.status.nodes["b"].state == "offline"
    assert left.codes["node-left"] == "warning"
    assert "node-offline" not in left.codes


def test_words_of_a_silent_peer_are_not_passed_on_as_true() -> None:
    """What a silent, uncleared peer said that it runs is unknown; what it had stopped stays stopped."""
    scene = Scene()
    running = Report(ServiceState.RUNNING, resources=(ResourceState.RUNNING,), verified=(True,))
    scene.receive(services={"mail": running})
    scene.hear("cross", "serial")
    assert scene.status.services["mail"].state == "running"
    assert scene.status.services["mail"].node == "b"
    scene.later(5_000)
    service = scene.status.services["mail"]
    assert (service.state, service.nodes) == ("unknown", ("b",))
    assert scene.status.nodes["b"].links["cross"].send == "down"


def test_a_peer_that_restarts_its_daemon_is_pending() -> None:
    """A detached daemon is neither offline nor an error of its links."""
    scene = Scene()
    scene.receive(phase=Phase.MEMBER, confirmed=True, mode=Mode.RESTARTING, away_ms=60_000)
    scene.hear("cross", "serial")
    scene.later(3_000)
    assert scene.status.nodes["b"].state == "pending"


def test_differing_configurations_are_errors_that_name_the_service() -> None:
    """The cluster's digest and each service's are compared while the peer is heard."""
    scene = Scene()
    scene.receive(digest="other", digests={"mail": "y", "web": "z"}, release="1.1")
    scene.hear("cross", "serial")
    about = [p.about["service"] for p in scene.status.problems if p.code == "config-differs"]
    assert about == ["", "mail"]
    (missing,) = (p.about for p in scene.status.problems if p.code == "service-missing")
    assert missing == {"service": "web", "node": "a"}
    assert scene.codes["release-differs"] == "info"


def test_what_the_brain_knows_beside_the_core_is_told() -> None:
    """No real-time scheduling, a dead heart, unsaved wishes, a disputed address (for a while)."""
    scene = Scene()
    scene.figures.heart = HeartFigures(False, True, 3, {"cross": 7}, {"cross": 150})
    scene.figures.unsaved = "/var/lib/hostd: no space left"
    scene.figures.note(AddressDisputed("192.0.2.1/24", "02:00:00:00:00:01"), scene.now_ms)
    assert {"no-realtime": "warning", "wishes-unsaved": "warning", "address-conflict": "error"}.items() <= (
        scene.codes.items()
    )
    link = scene.status.nodes["b"].links["cross"]
    assert (link.rejected, link.late_max_ms) == (7, 50)
    scene.later(problems.DISPUTE_MS)
    assert "address-conflict" not in scene.codes
    scene.figures.heart_lost = "killed"
    assert scene.codes["no-heart"] == "error"


def test_fencing_is_ready_until_it_fails() -> None:
    """Fencing that is required shows no warning; a failed attempt makes it not ready, a success ready again."""
    scene = Scene(msgspec.structs.replace(PLAN, fencing=True))
    assert "no-fencing" not in scene.codes
    assert scene.status.fencing.mode == "required" and scene.status.fencing.ready
    scene.figures.note(ClearanceTurned(True, Clearance.FENCED), scene.now_ms)
    scene.figures.note(ClearanceTurned(False, Clearance.NONE, "no answer from the switch"), scene.now_ms)
    assert not scene.status.fencing.ready
    assert scene.codes["fencing-failed"] == "warning"
    scene.figures.note(ClearanceTurned(True, Clearance.FENCED), scene.now_ms)
    assert "fencing-failed" in scene.codes  # it stands while the next shot is under way
    scene.figures.note(ClearanceTurned(False, Clearance.FENCED), scene.now_ms)
    assert scene.status.fencing.ready


def test_what_the_guard_finds_is_no_failure_of_fencing() -> None:
    """At a start the addresses are asked before anybody is shot: an answer says nothing of the devices."""
    scene = Scene(msgspec.structs.replace(PLAN, fencing=True))
    scene.figures.note(ClearanceTurned(False, Clearance.NONE, "10.0.0.1 answers"), scene.now_ms)
    assert "fencing-failed" not in scene.codes and scene.status.fencing.ready


def test_without_a_device_for_the_peer_fencing_is_not_ready() -> None:
    """Required and impossible: said before it is needed, and a warning only."""
    scene = Scene(msgspec.structs.replace(PLAN, fencing=True))
    scene.figures.fences_peer = False
    assert scene.codes["no-fencing-device"] == "warning"
    assert not scene.status.fencing.ready


def test_the_line_for_systemctl_says_phase_services_and_peer() -> None:
    """One line, no more."""
    scene = Scene()
    assert one_line(scene.core, scene.figures, scene.now_ms) == "joining, services here: 0, b not heard"
