"""Leaving and detaching: going away in good order (PROTOCOL.md section 2)."""

import pytest

from hostd.core.effects import (
    Exit,
    ExitKind,
    FencePeer,
    Refusal,
    RenewAddress,
)
from hostd.core.events import (
    Detach,
    Leave,
    SetMaintenance,
    SetStandby,
    StartService,
    StopService,
)
from hostd.core.snapshot import Assignment
from hostd.core.terms import Action, Epoch, Mode, Phase, ServiceState
from tests.core.builders import (
    LATER,
    RUNNING,
    STOPPED,
    TIMERS,
    WITH_ADDRESS,
    actions,
    alone,
    coordinator,
    join,
    lose,
    of,
    report,
    service,
    serving_member,
    settle,
)

# -- leaving ---------------------------------------------------------------------------------


def leave(bench, for_beats=30):
    assert bench.ask(Leave()).refusal is None
    for _ in range(for_beats):
        if bench.says is not None and bench.phase is Phase.MEMBER:
            bench.say(services=bench.obeys() if bench.table else bench.says.services)
        else:
            bench.beat()
    return of(Exit, bench.seen)


def test_a_coordinator_that_leaves_has_verified_everything_stopped_first():
    """Then LEFT, said for several keepalives, then the end."""
    bench = coordinator(service())
    bench.holds = lambda effect: getattr(effect, "action", None) is Action.STOP
    assert leave(bench) == [] and bench.phase is Phase.MEMBER
    bench.finish(bench.open[0])
    left_at_ms = bench.now_ms
    assert bench.phase is Phase.LEFT and bench.states["mysql"] is STOPPED
    bench.until(lambda: of(Exit, bench.seen) != [])
    assert of(Exit, bench.seen) == [Exit(ExitKind.LEFT)]
    assert bench.now_ms - left_at_ms >= 3 * TIMERS.keepalive_ms


def test_a_node_without_a_peer_stops_everything_and_leaves():
    """Nobody is there to take it."""
    bench = alone(WITH_ADDRESS)
    assert leave(bench) == [Exit(ExitKind.LEFT)]
    assert bench.states["mysql"] is STOPPED


def test_a_member_does_not_leave_before_the_coordinator_took_everything():
    """What is assigned here may be started at any moment."""
    bench = serving_member()
    assert leave(bench, 10) == [] and bench.phase is Phase.MEMBER
    bench.say(assignments={"mysql": Assignment((), Epoch(4, 2))})
    bench.run(2_000)
    assert of(Exit, bench.seen) == [Exit(ExitKind.LEFT)]


def test_a_stop_that_fails_makes_no_left():
    """The node ends and is fenced (story 14)."""
    bench = alone(WITH_ADDRESS)
    bench.answers["mysql", Action.STOP] = {"ok": False}
    assert leave(bench, 8) == [Exit(ExitKind.STOP_FAILED)]
    assert bench.phase is Phase.ALONE and bench.states["mysql"] is ServiceState.BLOCKED


@pytest.mark.parametrize("command", [Leave(), Detach(), StopService("mysql"), SetStandby("a", standby=True)])
def test_leaving_is_irrevocable(command):
    """Nothing more is taken."""
    bench = coordinator(service())
    bench.ask(Leave())
    assert bench.ask(command).refusal is Refusal.LEAVING


def test_the_peer_that_left_is_acted_for_at_once():
    """No deadtime, no device."""
    bench = coordinator(service(candidates=("b", "a")), fencing=True)
    bench.say(phase=Phase.LEFT, services={"mysql": report()})
    assert bench.phase is Phase.ALONE and bench.states["mysql"] is RUNNING
    lose(bench, 10_000)
    assert bench.phase is Phase.ALONE and of(FencePeer, bench.seen) == []


def test_a_peer_that_dies_while_leaving_with_nothing_left_needs_no_clearance():
    """Its last word proves it."""
    bench = coordinator(service(candidates=("b", "a")), fencing=True)
    bench.say(mode=Mode.LEAVING)
    settle(bench)
    assert bench.owners == {"mysql": ("a",)}
    lose(bench)
    assert bench.phase is Phase.ALONE and of(FencePeer, bench.seen) == []


@pytest.mark.parametrize("why", ["maintenance", "differs"])
def test_a_frozen_service_does_not_keep_a_node_from_leaving(why):
    """Leaving is irrevocable, so it has to end."""
    bench = coordinator(service())
    if why == "maintenance":
        bench.ask(SetMaintenance(on=True))
    else:
        bench.say(digests={"mysql": "another"})
    assert leave(bench) != []


def test_alone_after_a_goodbye_everything_may_be_started():
    """ "ALONE may start a service if the peer is cleared or LEFT": also later, and without an address."""
    bench = coordinator(service())
    bench.say(phase=Phase.LEFT, services={"mysql": report()})
    lose(bench, 5_000)
    bench.ask(StopService("mysql"))
    bench.run(500)
    bench.ask(StartService("mysql"))
    bench.run(5_000)
    assert bench.states["mysql"] is RUNNING


def test_the_end_is_asked_for_once():
    """Exactly once, also after a failed stop."""
    bench = alone(WITH_ADDRESS)
    bench.answers["mysql", Action.STOP] = {"ok": False}
    assert len(leave(bench, 60)) == 1


# -- detaching -----------------------------------------------------------------------------------


def test_a_daemon_that_detaches_leaves_its_services_running():
    """The mode is published with its limit, leases are extended to it, nothing is stopped."""
    bench = alone(WITH_ADDRESS)
    bench.seen.clear()
    bench.ask(Detach(for_ms=30_000))
    assert (bench.said.mode, bench.said.away_ms) == (Mode.RESTARTING, 30_000)
    assert [renewal.lease_ms for renewal in of(RenewAddress, bench.seen)] == [30_000]
    bench.run(5_000)
    assert of(Exit, bench.seen) == [Exit(ExitKind.DETACHED)] and actions(bench.seen) == []
    assert len(of(RenewAddress, bench.seen)) == 1


def test_without_a_limit_the_plans_limit_holds():
    """``hostd detach`` alone."""
    bench = alone(WITH_ADDRESS)
    bench.ask(Detach())
    assert bench.said.away_ms == bench.plan.restart_limit_ms


def test_the_peer_of_a_detached_node_waits_until_its_limit_has_passed():
    """Neither fenced nor taken over before."""
    bench = coordinator(service(candidates=("b", "a")), fencing=True)
    bench.say(mode=Mode.RESTARTING, away_ms=10_000)
    lose(bench, 9_800)
    assert bench.phase is Phase.MEMBER and "start mysql" not in actions(bench.seen)
    bench.run(400)
    assert of(FencePeer, bench.seen) != []


def test_a_detached_node_that_comes_back_is_adopted():
    """Its new life tells what still runs."""
    bench = coordinator(service(candidates=("b", "a")), fencing=True)
    bench.say(mode=Mode.RESTARTING, away_ms=10_000)
    lose(bench, 5_000)
    bench.say(incarnation=LATER, services={"mysql": report(RUNNING)})
    join(bench, services={"mysql": report(RUNNING)})
    assert bench.owners == {"mysql": ("b",)} and "start mysql" not in actions(bench.seen)
