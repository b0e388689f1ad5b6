"""The world's own truth, shown with a node that does as it is told."""

from hostd.core.effects import (
    AddAddress,
    AnyEffect,
    FencePeer,
    ProbeAddresses,
    Publish,
    RenewAddress,
    RunAction,
)
from hostd.core.events import (
    ActionFinished,
    AddressFinished,
    AddressLost,
    AddressOutcome,
    AnyEvent,
    FenceFinished,
    FrameReceived,
    HeartReturned,
    ProbeFinished,
    SnapshotReceived,
    Started,
)
from hostd.core.plan import Plan
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Action, Health, Phase
from hostd.sim import plans
from hostd.sim.faults import (
    Conduct,
    Cut,
    Fencing,
    Hold,
    KillBrain,
    KillHeart,
    LanCut,
    Mend,
    Pause,
    PowerOff,
    PowerOn,
    Release,
    Replay,
    Stop,
    Stops,
)
from hostd.sim.world import World

WEB = "172.23.2.69/24"


class Puppet:
    """Publishes itself at the start, notes what happens, and does what the test wants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[tuple[int, AnyEvent]] = []
        self.to_do: list[AnyEffect] = []

    def step(self, now_ms: int, event: AnyEvent) -> list[AnyEffect]:
        self.events.append((now_ms, event))
        if isinstance(event, Started):
            return [Publish(Snapshot(self.name, event.incarnation, 1, Phase.JOINING))]
        done, self.to_do = self.to_do, []
        return done

    def deadline(self) -> int | None:
        return None


class Stage:
    """A world with two puppets, both switched on."""

    def __init__(self) -> None:
        self.lives: dict[str, list[Puppet]] = {"a": [], "b": []}
        self.world = World(plans.plan(plans.service("web"), fencing=True), 0, self._make)
        for node in plans.NODES:
            self.world.strike(PowerOn(node))
        self.run(1_000)

    def _make(self, _plan: Plan, node: str) -> Puppet:
        self.lives[node].append(Puppet(node))
        return self.lives[node][-1]

    def run(self, for_ms: int) -> None:
        self.world.run_until(self.world.queue.now_ms + for_ms)

    def ask(self, node: str, *effects: AnyEffect) -> None:
        self.lives[node][-1].to_do += effects
        self.run(300)  # at least one step a keepalive

    def got(self, node: str, kind: type) -> list:
        return [event for _, event in self.lives[node][-1].events if isinstance(event, kind)]

    def freshest(self, node: str) -> int:
        """How old the newest echo is, by that node's clock."""
        echoes = [f.echo_sent_at_ms for f in self.got(node, FrameReceived) if f.echo_sent_at_ms is not None]
        return self.world.machines[node].clock_ms() - max(echoes)


def test_a_brain_begins_with_started_and_a_heart() -> None:
    """The order that the core may rely on."""
    kinds = [type(event) for _, event in Stage().lives["a"][-1].events[:2]]
    assert kinds == [Started, HeartReturned]


def test_a_snapshot_arrives_once_and_echoes_stay_fresh() -> None:
    """The word follows only while the peer's beat shows that it lacks it."""
    stage = Stage()
    stage.run(3_000)
    assert [e.snapshot.node for e in stage.got("a", SnapshotReceived)] == ["b"]
    assert stage.freshest("a") < 2 * plans.QUICK.keepalive_ms + 50


def test_a_one_way_link_brings_frames_and_no_fresh_echo() -> None:
    """b says nothing to a's words: a still hears b's frames, echoing ever older ones."""
    stage = Stage()
    for link in plans.LINKS:
        stage.world.strike(Cut(link.name, "a"))
    before = len(stage.got("a", FrameReceived))
    stage.run(2_000)
    assert len(stage.got("a", FrameReceived)) > before + 10
    assert stage.freshest("a") >= 2_000


def test_a_new_heart_is_echoed_nothing_until_it_is_heard() -> None:
    """What was echoed to the heart before means nothing to this one, and frames of before are dropped."""
    stage = Stage()
    stage.world.strike(Hold("serial", "b"))
    stage.run(1_000)
    stage.world.strike(KillHeart("a", 50))
    stage.run(60)
    stage.world.strike(Release("serial", "b"))
    stage.run(5)
    events = [event for _, event in stage.lives["a"][-1].events]
    new = events[events.index(HeartReturned(), 2) :]
    late = [event for event in new if isinstance(event, FrameReceived) and event.link == "serial"]
    assert late[0].echo_sent_at_ms is None


def test_a_replayed_frame_is_dropped_by_a_heart_that_knows_better() -> None:
    """Never an older frame than any before on the same link."""
    stage = Stage()
    stage.world.strike(Cut("serial", "b"))
    stage.world.strike(Mend("serial"))
    before = len(stage.got("a", FrameReceived))
    stage.world.strike(Replay("serial", "b", 5))
    stage.run(5)
    beats = [f for f in stage.got("a", FrameReceived)[before:] if f.link == "serial"]
    assert beats == []


def test_a_dead_brain_is_said_to_be_gone_and_then_nothing_is_said() -> None:
    """At most warntime of "brain gone", then silence."""
    stage = Stage()
    stage.world.strike(KillBrain("b", 60_000))
    stage.run(plans.QUICK.warntime_ms + 300)
    gone = [f for f in stage.got("a", FrameReceived) if f.brain_gone]
    assert gone
    count = len(stage.got("a", FrameReceived))
    stage.run(2_000)
    assert len(stage.got("a", FrameReceived)) == count


def test_a_lease_that_nobody_renews_runs_out() -> None:
    """The kernel drops the address and netlink says so; a guarded add finds it free then, and not before."""
    stage = Stage()
    stage.ask("a", AddAddress(1, "web", WEB, guard=True))
    stage.ask("b", AddAddress(1, "web", WEB, guard=True))
    assert stage.got("a", AddressFinished)[-1].outcome is AddressOutcome.DONE
    assert stage.got("b", AddressFinished)[-1].outcome is AddressOutcome.CONFLICT
    stage.run(5_000)
    assert stage.got("a", AddressLost)
    stage.ask("b", AddAddress(2, "web", WEB, guard=True))
    assert stage.got("b", AddressFinished)[-1].outcome is AddressOutcome.DONE


def test_a_renewal_that_comes_too_late_removes_the_address() -> None:
    """As the real edge does: carried out after ``not_after_ms`` it takes the address off."""
    stage = Stage()
    stage.ask("a", AddAddress(1, "web", WEB, guard=False))
    stage.ask("a", RenewAddress(2, WEB, not_after_ms=0))
    assert stage.got("a", AddressFinished)[-1].outcome is AddressOutcome.FAILED
    assert stage.world.addresses("a").held == {}


def test_a_probe_on_a_dead_interface_has_not_listened() -> None:
    """Silence there proves nothing; on a live one the holder answers."""
    stage = Stage()
    stage.ask("a", AddAddress(1, "web", WEB, guard=False))
    stage.ask("b", ProbeAddresses(1, (WEB,), 5, 500))
    stage.world.strike(LanCut("b"))
    stage.ask("b", ProbeAddresses(2, (WEB,), 5, 500))
    stage.run(1_000)
    first, second = sorted(stage.got("b", ProbeFinished), key=lambda probe: probe.request_id)
    assert first.answered == (WEB,)
    assert not second.listened


def test_a_confirmed_shot_really_took_the_power() -> None:
    """Truthful fencing: the confirmation comes after the act; a failing device does nothing."""
    stage = Stage()
    stage.world.strike(Fencing("b", Conduct.FAIL))
    stage.ask("a", FencePeer(1, "b", None, 0))
    stage.run(2_000)
    assert not stage.got("a", FenceFinished)[-1].confirmed
    assert stage.world.machines["b"].powered
    stage.world.strike(Fencing("b", Conduct.WELL))
    stage.ask("a", FencePeer(2, "b", None, 0))
    stage.run(2_000)
    assert stage.got("a", FenceFinished)[-1].confirmed
    assert not stage.world.machines["b"].powered


def test_what_a_killed_brain_left_under_way_is_cut_short_and_recorded() -> None:
    """The next brain hears that the service is unfinished; the one before hears nothing."""
    stage = Stage()
    stage.lives["a"][-1].to_do.append(RunAction(1, "web", "web", Action.START, 4_000))
    stage.run(210)
    stage.world.strike(KillBrain("a", 100))
    stage.run(2_000)
    started = stage.got("a", Started)[0]
    assert started.unfinished == ("web",)
    assert all(not isinstance(event, ActionFinished) for _, event in stage.lives["a"][0].events)


def test_a_stop_that_leaves_processes_says_so_and_the_truth_shows_it() -> None:
    """Nothing is stopped while something is left."""
    stage = Stage()
    stage.ask("a", RunAction(1, "web", "web", Action.START, 4_000))
    stage.run(1_000)
    stage.ask("a", RunAction(2, "web", "web", Action.MONITOR, 4_000))
    assert stage.got("a", ActionFinished)[-1].health is Health.RUNNING
    stage.world.strike(Stops("web", "a", Conduct.LEAVE))
    stage.ask("a", RunAction(3, "web", "web", Action.STOP, 4_000))
    stage.run(1_000)
    assert stage.got("a", ActionFinished)[-1].leftovers == 2
    assert stage.world.is_active("web", "a")


def test_pauses_differ_in_what_the_clock_shows() -> None:
    """A suspended node sees the gap, a frozen one does not; actions stand still in both."""
    for stop, seen_ms in ((Stop.SUSPEND, 3_000), (Stop.FREEZE, 0)):
        stage = Stage()
        before = stage.world.machines["a"].clock_ms()
        stage.world.strike(Pause("a", stop, 3_000))
        stage.run(3_100)
        gap_ms = stage.world.machines["a"].clock_ms() - before - 100
        assert gap_ms == seen_ms
        times = [at_ms for at_ms, _ in stage.lives["a"][-1].events]
        assert times == sorted(times)


def test_a_power_cut_takes_everything_but_the_disk() -> None:
    """Addresses, processes and records go; the boot counter stays and grows."""
    stage = Stage()
    stage.ask("a", AddAddress(1, "web", WEB, guard=False), RunAction(2, "web", "web", Action.START, 4_000))
    stage.run(2_000)
    stage.world.strike(PowerOff("a"))
    assert stage.world.addresses("a").held == {}
    assert not stage.world.is_active("web", "a")
    stage.world.strike(PowerOn("a"))
    stage.run(500)
    first, second = (life.events[0][1] for life in stage.lives["a"])
    assert isinstance(first, Started) and isinstance(second, Started)
    assert second.incarnation.boot > first.incarnation.boot
    assert second.unfinished == ()
