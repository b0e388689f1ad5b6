"""What is to be done with a service here?  The last column of the table of PROTOCOL.md section 2."""

import pytest

from hostd.core import orders
from hostd.core.events import ConfirmDown, MoveService, ProcessExited, SetMaintenance, StartService, StopService
from hostd.core.pair import Turn
from hostd.core.snapshot import Assignment, WishKind
from hostd.core.terms import Action, Clearance, Epoch, Mode, Phase, ResourceState, ServiceState, Why
from hostd.core.wants import Order
from tests.core.builders import (
    Bench,
    actions,
    address,
    agent,
    alone,
    coordinator,
    everywhere,
    frame,
    join,
    member,
    plan,
    report,
    service,
    settle,
)

RUNNING, STOPPED = ServiceState.RUNNING, ServiceState.STOPPED
MINE, NOBODYS, THEIRS = ("a",), (), ("b",)


def wanted(phase, owners=None, *, confirmed=False, fencing=False, mode=Mode.ACTIVE, clearance=Clearance.NONE):
    """The order for mysql on a, in this phase, assigned to these."""
    node = Bench(plan(service(), fencing=fencing)).node
    node.pair._enter(Turn(phase, Why.STARTED, confirmed=confirmed, view=4, coordinator="a"))
    node.mode, node.clearance = mode, clearance
    if phase is Phase.MEMBER:
        node.peers.take_frame(frame(node.stepped_at_ms))
    if owners is not None:
        node.orders["mysql"] = Assignment(owners, Epoch(4, 1))
    return orders.want(node, node.stepped_at_ms, node.plan.services[0], node.ladders["mysql"])


@pytest.mark.parametrize(
    ("phase", "confirmed", "owners", "order"),
    [
        (Phase.JOINING, False, MINE, Order.HOLD),
        (Phase.STARTUP_FENCING, False, MINE, Order.HOLD),
        (Phase.MEMBER, False, MINE, Order.HOLD),
        (Phase.MEMBER, True, None, Order.HOLD),
        (Phase.MEMBER, True, MINE, Order.RUN),
        (Phase.MEMBER, True, NOBODYS, Order.STOP),
        (Phase.MEMBER, True, THEIRS, Order.STOP),
        (Phase.ALONE, False, None, Order.HOLD),
        (Phase.ALONE, False, MINE, Order.RUN),
        (Phase.ALONE, False, NOBODYS, Order.STOP),
        (Phase.LEFT, False, MINE, Order.HOLD),
    ],
)
def test_who_may_start_services(phase, confirmed, owners, order):
    """As assigned in a confirmed view or ALONE; nobody else starts anything."""
    assert wanted(phase, owners, confirmed=confirmed).order is order


@pytest.mark.parametrize(("fencing", "order"), [(True, Order.HOLD), (False, Order.UNDO)])
def test_who_lost_the_peer_keeps_what_runs(fencing, order):
    """Without fencing an unfinished ladder is undone as well."""
    assert wanted(Phase.PEER_LOST, MINE, fencing=fencing).order is order
    assert wanted(Phase.PEER_LOST, NOBODYS, fencing=fencing).order is order


@pytest.mark.parametrize("phase", [Phase.JOINING, Phase.STARTUP_FENCING, Phase.PEER_LOST, Phase.ALONE])
def test_a_leaving_node_without_a_peer_stops_everything(phase):
    """Leaving is irrevocable."""
    assert wanted(phase, MINE, mode=Mode.LEAVING).order is Order.STOP


def test_after_an_own_pause_nothing_is_started_before_the_peer_has_answered():
    """It may have given us up meanwhile, and have started what was ours."""
    node = member(service(), me="b").node
    node.orders["mysql"] = Assignment(("b",), Epoch(4, 1))
    node.peers.listen_anew(node.stepped_at_ms + 1, hearing=True)
    held = orders.want(node, node.stepped_at_ms + 1, node.plan.services[0], node.ladders["mysql"])
    assert (held.order, held.why) == (Order.HOLD, Why.PAUSED)


def test_a_leaving_member_waits_for_the_coordinator():
    """It moves everything away; what is still assigned here runs on."""
    assert wanted(Phase.MEMBER, MINE, confirmed=True, mode=Mode.LEAVING).order is Order.RUN


def test_a_detaching_node_touches_nothing():
    """The services stay."""
    assert wanted(Phase.ALONE, NOBODYS, mode=Mode.RESTARTING).order is Order.HOLD


@pytest.mark.parametrize(
    ("phase", "clearance", "guard"),
    [
        (Phase.ALONE, Clearance.FENCED, False),
        (Phase.ALONE, Clearance.CONFIRMED, False),
        (Phase.ALONE, Clearance.GUARD, True),
        (Phase.ALONE, Clearance.LEFT, True),
        (Phase.ALONE, Clearance.NONE, True),
        (Phase.MEMBER, Clearance.NONE, True),
    ],
)
def test_every_address_without_proof_is_asked_for_first(phase, clearance, guard):
    """Only a peer that is known to be off needs no guard."""
    assert wanted(phase, MINE, confirmed=phase is Phase.MEMBER, clearance=clearance).guard is guard


def go_alone(bench):
    bench.ask(ConfirmDown("b"))


# -- requires and after -----------------------------------------------------------------------

GFS, MYSQL = everywhere(), service(requires=("gfs",))


def test_what_is_needed_starts_first_and_stops_last():
    """The same node, and that node's instance running there."""
    bench = alone(GFS, MYSQL)
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert actions(bench.seen)[-2:] == ["start gfs", "start mysql"]
    bench.seen.clear()
    bench.ask(StopService("gfs"))
    bench.until(lambda: bench.states["gfs"] is STOPPED)
    assert actions(bench.seen) == ["stop mysql", "monitor mysql", "stop gfs", "monitor gfs"]


def test_a_start_waits_until_what_it_needs_runs():
    """Not only until it is being started."""
    bench = Bench(plan(GFS, MYSQL))
    bench.holds = lambda effect: getattr(effect, "action", None) is Action.START
    go_alone(bench)
    assert actions(bench.seen)[-1] == "start gfs"
    bench.holds = lambda _: False
    bench.finish(bench.open[-1], ok=True)
    assert actions(bench.seen)[-1] == "start mysql"


def test_a_failure_below_stops_what_stands_on_it_first():
    """Then it is mended, then what stood on it comes back."""
    bench = alone(GFS, MYSQL)
    bench.seen.clear()
    bench.step(ProcessExited("gfs", "gfs"))
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert actions(bench.seen) == [
        "stop mysql", "monitor mysql", "stop gfs", "monitor gfs", "start gfs", "start mysql",
    ]  # fmt: skip


def test_an_address_put_back_does_not_stop_what_stands_on_it():
    """All but an address has to be running."""
    bench = alone(service("web", resources=(address(), agent("httpd"))), service(requires=("web",)))
    bench.seen.clear()
    bench.holds = lambda effect: actions([effect]) == ["add 172.23.2.13/24"]
    bench.node.ladders["web"].rungs[0].turn(ResourceState.STOPPED)
    bench.run(1_000)
    assert "stop mysql" not in actions(bench.seen)


def test_after_waits_for_the_other_to_run():
    """It orders starts."""
    bench = Bench(plan(service("ldap"), service(after=("ldap",))))
    bench.holds = lambda effect: getattr(effect, "action", None) is Action.START
    go_alone(bench)
    assert actions(bench.seen)[-1] == "start ldap"
    bench.finish(bench.open[-1], ok=True)
    assert actions(bench.seen)[-1] == "start mysql"


@pytest.mark.parametrize("trouble", ["failed", "stopped by the operator"])
def test_after_does_not_wait_for_what_is_not_going_to_run(trouble):
    """And nothing else: no requirement."""
    bench = Bench(plan(service("ldap"), service(after=("ldap",))))
    if trouble == "failed":
        bench.answers["ldap", Action.START] = {"ok": False}
    else:
        bench.ask(StopService("ldap"))
    go_alone(bench)
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert bench.states["ldap"].is_stopped


def test_after_waits_for_one_that_is_between_two_nodes():
    """It is assigned to nobody just now, and going to run."""
    bench = coordinator(service("ldap", candidates=("b", "a")), service(after=("ldap",)))
    bench.ask(StopService("mysql"))
    settle(bench)
    bench.ask(MoveService("ldap"))
    bench.ask(StartService("mysql"))
    bench.seen.clear()
    bench.say(services={**bench.obeys(), "ldap": report(ServiceState.STOPPING, *bench.table["ldap"].epoch)})
    bench.run(1_000)
    assert bench.owners["ldap"] == NOBODYS and actions(bench.seen) == []
    settle(bench)
    assert actions(bench.seen) == ["start ldap", "start mysql"]


# -- both at once -------------------------------------------------------------------------------


def test_nothing_is_started_while_the_peer_says_that_it_may_run_it():
    """Whatever is assigned, and even to restart it after a failure."""
    bench = coordinator(service())
    bench.seen.clear()
    bench.say(services={"mysql": report(ServiceState.STOPPING, *bench.table["mysql"].epoch)})
    bench.step(ProcessExited("mysql", "mysql"))
    bench.run(1_000)
    assert "start mysql" not in actions(bench.seen)
    bench.say(services=bench.obeys())
    settle(bench)
    assert bench.states["mysql"] is RUNNING


def test_nothing_is_started_while_a_newer_word_of_the_peer_is_under_way():
    """Its last word was that it may run it; what the next one says is not known yet (seed 200257)."""
    bench = coordinator(service())
    bench.say(services={"mysql": report(ServiceState.STOPPING, *bench.table["mysql"].epoch)})
    bench.seen.clear()
    newer = bench.says.version + 1
    bench.step(frame(bench.now_ms, version=newer))
    assert bench.node.peers.word(bench.now_ms) is None
    bench.step(ProcessExited("mysql", "mysql"))
    assert "stop mysql" in actions(bench.seen) and "start mysql" not in actions(bench.seen)


def test_of_two_that_run_it_the_assigned_one_keeps_it():
    """The end of a split: the other drops its address at once, also under maintenance."""
    both = service(resources=(address(), agent()))
    for maintenance in (False, True):
        bench = Bench(plan(both), me="b", present=("172.23.2.13/24",), running=["mysql"])
        if maintenance:
            bench.ask(SetMaintenance(on=True))
        bench.seen.clear()
        bench.say(phase=Phase.ALONE, view=2, coordinator="a", services={"mysql": report(RUNNING)})
        assert actions(bench.seen)[0] == "remove 172.23.2.13/24"
        assert bench.states["mysql"] is STOPPED


def test_alone_nothing_is_started_that_a_peer_that_acts_too_says_is_stopped():
    """Story 10: both ALONE at the heal of a split; one has yet to yield."""
    bench = Bench(plan(service()))
    bench.run(bench.plan.timers.initdead_ms + 500)
    assert bench.phase is Phase.ALONE and bench.states["mysql"] is STOPPED
    bench.say(phase=Phase.ALONE, view=7, coordinator="b", services={"mysql": report(STOPPED)})
    bench.run(2_000)
    assert "start mysql" not in actions(bench.seen)


# -- the coordinator and its table, on one node -------------------------------------------------


def test_the_failed_service_moves_to_the_backup():
    """It is banned here, so placement goes on; b starts it only when we have stopped it."""
    bench = Bench(plan(service()))
    bench.answers["mysql", Action.START] = {"ok": False, "reason": "no space"}
    join(bench)
    settle(bench)
    assert bench.owners == {"mysql": THEIRS} and bench.states["mysql"] is ServiceState.FAILED
    assert bench.said.services["mysql"].banned


def test_nothing_is_assigned_to_the_peer_before_we_have_stopped():
    """★ Two steps, also for our own services."""
    bench = coordinator(service())
    bench.holds = lambda effect: getattr(effect, "action", None) is Action.STOP
    assert bench.ask(MoveService("mysql")).node == "b"
    settle(bench)
    assert bench.owners == {"mysql": NOBODYS} and bench.states["mysql"] is ServiceState.STOPPING
    bench.holds = lambda _: False
    bench.finish(bench.open[-1], ok=True)
    settle(bench)
    assert bench.owners == {"mysql": THEIRS}


def test_nothing_is_started_here_before_the_peer_has_stopped():
    """★ Having obeyed the epoch that took it away."""
    bench = coordinator(service(candidates=("b", "a")))
    assert bench.owners == {"mysql": THEIRS}
    before = bench.obeys()
    assert bench.ask(MoveService("mysql")).node == "a"
    bench.run(1_000)
    assert bench.owners == {"mysql": NOBODYS}
    bench.say(services={"mysql": report(STOPPED, *before["mysql"].obeyed)})
    bench.run(1_000)
    assert bench.owners == {"mysql": NOBODYS} and "start mysql" not in actions(bench.seen)
    bench.say(services=bench.obeys())
    settle(bench)
    assert bench.owners == {"mysql": MINE} and bench.states["mysql"] is RUNNING


def test_maintenance_keeps_hands_off():
    """No start, stop or recovery; nor a move."""
    bench = coordinator(service())
    bench.ask(SetMaintenance(on=True))
    bench.seen.clear()
    bench.step(ProcessExited("mysql", "mysql"))
    bench.ask(StopService("mysql"))
    bench.run(60_000)
    assert actions(bench.seen) == [] and bench.owners == {"mysql": MINE}
    bench.ask(SetMaintenance(on=False))
    bench.until(lambda: bench.states["mysql"] is STOPPED)


def test_a_moved_service_stays_where_it_was_put():
    """Until its node fails: then the wish is void."""
    bench = coordinator(service())
    bench.ask(MoveService("mysql"))
    settle(bench)
    assert bench.owners == {"mysql": THEIRS}
    bench.run(5_000)
    assert bench.owners == {"mysql": THEIRS}
    bench.says = None
    bench.run(3_000)
    go_alone(bench)
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert not bench.node.wishes.has(WishKind.MOVED, "mysql")


# -- a definition that has changed ----------------------------------------------------------------


def renewed(*services, **peer):
    """a runs everything under older definitions, and becomes coordinator; b says these things."""
    names = tuple(s.name for s in services)
    bench = Bench(plan(*services), running=names, outdated=names)
    join(bench, **peer)
    return bench


def test_a_service_that_runs_under_an_older_definition_is_stopped_and_started():
    """And once only."""
    bench = renewed(service())
    settle(bench)
    assert [a for a in actions(bench.seen) if not a.startswith("monitor")] == ["stop mysql", "start mysql"]
    assert bench.states["mysql"] is RUNNING


def test_nothing_is_stopped_for_a_definition_that_the_peer_does_not_have_yet():
    """It could not be started again: who differs starts nothing."""
    bench = renewed(service(), digests={"mysql": "another"})
    bench.run(3_000)
    assert "stop mysql" not in actions(bench.seen) and bench.states["mysql"] is RUNNING
    bench.say(digests={"mysql": "mysql"})
    settle(bench)
    assert "stop mysql" in actions(bench.seen) and bench.states["mysql"] is RUNNING


def test_what_requires_it_is_stopped_first_and_started_last():
    """A filesystem is not unmounted under its database."""
    bench = Bench(plan(service("disk"), service(requires=("disk",))), running=("disk", "mysql"), outdated=("disk",))
    join(bench)
    settle(bench)
    moves = [a for a in actions(bench.seen) if not a.startswith("monitor")]
    assert moves == ["stop mysql", "stop disk", "start disk", "start mysql"]


def test_a_service_that_does_not_run_is_not_outdated():
    """Its next start is under the new definition anyway."""
    bench = Bench(plan(service()), outdated=("mysql",))
    join(bench)
    settle(bench)
    assert [a for a in actions(bench.seen) if not a.startswith("monitor")] == ["start mysql"]
