"""How does it get there?  One service's ladder: start, stop, verify, mend, give up, block."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.core.events import AddressOutcome
from hostd.core.terms import Health, ResourceState, ServiceState, Why
from hostd.core.wants import Order
from tests.core.builders import ADDRESS, address, agent, service
from tests.core.rungs import DISK_ADDRESS_MYSQL, STOPPED, Climb, running, stopped

ADD, REMOVE = f"add {ADDRESS}", f"remove {ADDRESS}"
INTERVAL_MS = agent().monitor_interval_ms
ONLY_ADDRESS = service(resources=(address(),))


# -- probing and adoption ---------------------------------------------------------------


def test_a_new_life_asks_what_runs_before_anything_else():
    """Until then the service is UNKNOWN, which counts as "may be running"."""
    climb = Climb()
    assert climb.order(Order.RUN) == ["monitor disk", "monitor mysql"]
    assert climb.state is ServiceState.UNKNOWN
    assert climb.done("monitor disk", health=STOPPED) == []


def test_what_runs_is_adopted_and_not_started_again():
    """A service that outlived its daemon."""
    climb = Climb(present=(ADDRESS,))
    climb.probe(disk=Health.RUNNING, mysql=Health.RUNNING)
    assert climb.state is ServiceState.RUNNING
    assert climb.order(Order.RUN) == []
    assert len(climb.announced) == 1


def test_a_partial_adoption_starts_what_is_missing_on_top():
    """The disk is mounted; address and mysql follow."""
    climb = Climb()
    climb.probe(disk=Health.RUNNING)
    assert climb.order(Order.RUN) == [ADD]
    assert climb.done(ADD) == ["start mysql"]


def test_a_hole_under_a_running_resource_is_climbed_down_to():
    """mysql without its disk has to be stopped first."""
    climb = Climb(present=(ADDRESS,))
    climb.probe(mysql=Health.RUNNING)
    assert climb.order(Order.RUN) == ["stop mysql"]
    assert climb.drive() == ["monitor mysql", "start disk", "start mysql"]
    assert climb.state is ServiceState.RUNNING


def test_a_probe_that_errs_means_that_it_may_run():
    """It is stopped before it is started."""
    climb = Climb()
    climb.settle()
    climb.done("monitor disk", health=STOPPED)
    climb.done("monitor mysql", ok=False, reason="no socket")
    assert not climb.state.is_stopped
    assert climb.order(Order.RUN) == ["stop mysql"]


def test_an_unfinished_service_is_stopped_and_verified_first():
    """◆ Story 1: a start of the life before may still have done half its work."""
    climb = Climb(unfinished=True)
    assert climb.order(Order.RUN) == ["stop mysql"]
    assert climb.state is ServiceState.UNKNOWN
    assert climb.done("stop mysql") == ["monitor mysql"]
    assert climb.done("monitor mysql", health=STOPPED) == [REMOVE]
    assert climb.done(REMOVE) == ["stop disk"]
    assert climb.state is ServiceState.UNKNOWN
    climb.drive()
    assert climb.state is ServiceState.RUNNING


@pytest.mark.parametrize("order", [Order.HOLD, Order.UNDO, Order.FREEZE, Order.STOP])
def test_an_unfinished_service_is_stopped_whatever_is_wanted(order):
    """While it is UNKNOWN the node can join nobody."""
    climb = Climb(unfinished=True)
    climb.order(order)
    climb.drive()
    assert climb.state is ServiceState.STOPPED


# -- start and stop ----------------------------------------------------------------------


def test_rungs_are_started_in_order_one_after_the_other():
    """Each when the one below is up."""
    climb = stopped()
    assert climb.order(Order.RUN) == ["start disk"]
    assert climb.state is ServiceState.STARTING
    assert climb.done("start disk") == [ADD]
    assert climb.done(ADD) == ["start mysql"]
    assert climb.done("start mysql") == []
    assert climb.state is ServiceState.RUNNING


def test_rungs_are_stopped_in_reverse_and_each_stop_is_verified():
    """ "Stopped" is claimed only when the monitor says so too."""
    climb = running()
    assert climb.order(Order.STOP) == ["stop mysql"]
    assert climb.state is ServiceState.STOPPING
    assert climb.drive() == ["monitor mysql", REMOVE, "stop disk", "monitor disk"]
    assert climb.state is ServiceState.STOPPED


def test_nothing_is_started_that_is_not_ready():
    """A requirement does not run yet."""
    climb = stopped()
    assert climb.order(Order.RUN, ready=False) == []
    assert climb.order(Order.RUN) == ["start disk"]


def test_nothing_is_stopped_that_something_depends_on():
    """Its dependents stop first."""
    climb = running()
    assert climb.order(Order.STOP, free=False) == []
    assert climb.order(Order.STOP) == ["stop mysql"]


def test_an_order_to_stop_waits_for_the_start_that_is_under_way():
    """One action of a service at a time."""
    climb = stopped()
    climb.order(Order.RUN)
    assert climb.order(Order.STOP) == []
    assert climb.done("start disk") == ["stop disk"]


def test_an_address_is_asked_for_with_the_guard_unless_there_is_proof():
    """Every address that is added without fencing clearance."""
    for guard in (True, False):
        climb = stopped(ONLY_ADDRESS)
        climb.order(Order.RUN, guard=guard)
        assert climb.open[ADD].guard is guard


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ("stop mysql", {"ok": False, "reason": "hangs"}),
        ("stop mysql", {"ok": False, "timed_out": True}),
        ("stop mysql", {"leftovers": 2}),
        ("monitor mysql", {"health": Health.RUNNING}),
        ("monitor mysql", {"health": Health.DEGRADED}),
        ("monitor mysql", {"ok": False}),
    ],
)
def test_a_stop_without_proof_blocks(asked, fields):
    """The action succeeded, nothing is left of its group, and the monitor says not running: or BLOCKED."""
    climb = running()
    climb.order(Order.STOP)
    if asked != "stop mysql":
        climb.done("stop mysql")
    assert climb.done(asked, **fields) == []
    assert climb.state is ServiceState.BLOCKED and not climb.state.is_stopped
    assert climb.ladder.why is Why.STOP_FAILED
    assert climb.order(Order.RUN) == climb.order(Order.STOP) == []


def test_an_address_that_cannot_be_removed_blocks():
    """It may still be held."""
    climb = running(ONLY_ADDRESS)
    climb.order(Order.STOP)
    climb.done(REMOVE, outcome=AddressOutcome.FAILED)
    assert climb.state is ServiceState.BLOCKED


def test_cleanup_of_a_blocked_service_stops_it_again():
    """A monitor alone does not see what a broken stop left behind."""
    climb = running()
    climb.order(Order.STOP)
    climb.done("stop mysql", leftovers=1)
    climb.ladder.clean_up()
    assert climb.settle() == ["stop mysql"]
    assert climb.state is ServiceState.UNKNOWN
    climb.drive()
    assert climb.state is ServiceState.STOPPED


def test_an_unfinished_service_whose_stop_fails_is_blocked():
    """UNKNOWN for ever would keep the node out of every view, and nobody would be told."""
    climb = Climb(unfinished=True)
    climb.order(Order.HOLD)
    climb.done("stop mysql", ok=False)
    assert climb.state is ServiceState.BLOCKED


# -- failures --------------------------------------------------------------------------------


def test_a_failed_start_gives_the_service_up_here():
    """What was started is stopped again; then the coordinator moves it."""
    climb = stopped()
    climb.order(Order.RUN)
    climb.done("start disk")
    climb.done(ADD)
    assert climb.done("start mysql", ok=False, reason="no space") == ["stop mysql"]
    assert climb.drive() == ["monitor mysql", REMOVE, "stop disk", "monitor disk"]
    assert climb.state is ServiceState.FAILED and climb.ladder.banned
    assert (climb.ladder.why, climb.ladder.detail) == (Why.START_FAILED, "no space")
    assert climb.order(Order.RUN, after_ms=10**9) == []


def test_a_failure_is_mended_here():
    """Only the rung that failed, and what stands on it."""
    climb = running()
    climb.ladder.process_exited(climb.now_ms, "mysql")
    assert climb.settle() == ["stop mysql"]
    assert climb.state is ServiceState.RECOVERING
    assert climb.drive() == ["monitor mysql", "start mysql"]
    assert climb.state is ServiceState.RUNNING and len(climb.ladder.failures) == 1


def test_a_failure_below_takes_down_what_stands_on_it():
    """The disk is gone: mysql and the address go first."""
    climb = running()
    climb.ladder.process_exited(climb.now_ms, "disk")
    assert climb.settle() == ["stop mysql"]
    assert climb.drive() == [
        "monitor mysql", REMOVE, "stop disk", "monitor disk", "start disk", ADD, "start mysql",
    ]  # fmt: skip


def test_a_service_is_restarted_within_its_limit_and_then_given_up():
    """``restarts = { limit = 3 }``: three recoveries, the fourth failure moves it."""
    climb = running()
    for _ in range(3):
        climb.ladder.process_exited(climb.now_ms, "mysql")
        climb.settle()
        climb.drive()
        assert climb.state is ServiceState.RUNNING
    climb.ladder.process_exited(climb.now_ms, "mysql")
    climb.settle()
    climb.drive()
    assert climb.state is ServiceState.FAILED


def test_failures_of_long_ago_are_not_counted():
    """``within = "10m"``."""
    climb = running()
    for _ in range(10):
        climb.ladder.process_exited(climb.now_ms, "mysql")
        climb.settle()
        climb.drive()
        climb.settle(DISK_ADDRESS_MYSQL.restarts_within_ms // 3 + 1)
    assert climb.state is ServiceState.RUNNING


def test_cleanup_forgets_failures():
    """And the ban with them."""
    climb = stopped()
    climb.order(Order.RUN)
    climb.done("start disk", ok=False)
    climb.drive()
    assert climb.state is ServiceState.FAILED
    climb.ladder.clean_up()
    assert climb.settle() == ["start disk"]
    assert not climb.ladder.banned


# -- monitors -----------------------------------------------------------------------------------


def test_what_runs_is_monitored_at_its_interval():
    """One at a time."""
    climb = running()
    climb.settle(INTERVAL_MS - 1)
    assert climb.monitors == []
    assert climb.ladder.deadline_at_ms() == climb.now_ms + 1
    climb.settle(1)
    assert sorted(m.resource for m in climb.monitors) == ["disk", "mysql"]
    climb.settle(INTERVAL_MS * 3)
    assert len(climb.monitors) == 2


def test_a_recurring_monitor_looks_as_deep_as_it_is_told():
    """A probe does not: it has to work where nothing runs."""
    deep = agent(monitor_depth=10)
    climb = running(service(resources=(deep,)))
    climb.settle(INTERVAL_MS)
    assert [(m.depth, m.recurring) for m in climb.monitors] == [(10, True)]


@pytest.mark.parametrize("found", [{"health": STOPPED}, {"ok": False, "reason": "timeout"}])
def test_a_monitor_that_finds_it_down_starts_a_recovery(found):
    """Not running and not knowing are failures alike."""
    climb = running(service())
    climb.settle(INTERVAL_MS)
    assert climb.monitored(**found) == ["stop mysql"]
    assert climb.state is ServiceState.RECOVERING and climb.ladder.why is Why.MONITOR_FAILED


def test_degraded_is_running_and_said():
    """It serves, and somebody should look."""
    climb = running(service())
    climb.settle(INTERVAL_MS)
    assert climb.monitored(health=Health.DEGRADED) == []
    assert climb.state is ServiceState.RUNNING and climb.ladder.rungs[0].degraded


def test_a_monitor_under_way_is_overtaken_by_a_stop():
    """The stop does not wait for it, and its outcome counts no more."""
    climb = running(service())
    climb.settle(INTERVAL_MS)
    assert climb.order(Order.STOP) == ["stop mysql"]
    assert not climb.finish(climb.monitors[-1], ok=False)
    assert climb.ladder.failures == []


# -- whatever happens --------------------------------------------------------------------------------

turns = st.lists(
    st.tuples(st.sampled_from(Order), st.booleans(), st.sampled_from(["ok", "fails", "waits"])), min_size=1, max_size=25
)


@given(turns)
def test_stopped_is_never_claimed_while_anything_is_up_or_open(moves):
    """Whatever is ordered and however it goes: nothing started, asked or unverified behind a "stopped"."""
    climb = stopped()
    for order, ready, luck in moves:
        climb.order(order, after_ms=500, ready=ready)
        for name in list(climb.open) if luck != "waits" else []:
            fields = {"health": STOPPED} if name.startswith("monitor") else {}
            if name.startswith(("add", "remove")):
                fields = {"outcome": AddressOutcome.FAILED if luck == "fails" else AddressOutcome.DONE}
            else:
                fields |= {"ok": luck == "ok"}
            climb.done(name, **fields)
        if climb.state.is_stopped:
            assert climb.rungs == [ResourceState.STOPPED] * 3
            assert climb.open == {}
