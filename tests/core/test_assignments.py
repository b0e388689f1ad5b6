"""Who may run what now?  PROTOCOL.md section 3: two steps, and what "stopped" proves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.core.assignments import Assignments, Members
from hostd.core.placement import Decision
from hostd.core.snapshot import Assignment
from hostd.core.terms import Epoch, ServiceState, Why
from tests.core.builders import everywhere, plan, report, service

VIEW = 4
STOPPED, RUNNING = ServiceState.STOPPED, ServiceState.RUNNING
PLAN = plan(service(), everywhere())


def formed(**running):
    """A view of both in which mysql runs there (``a=RUNNING``)."""
    built = Assignments(PLAN)
    reports = {node: {"mysql": report(running.get(node, STOPPED)), "gfs": report()} for node in ("a", "b")}
    built.form(VIEW, reports, "a")
    return built


def decide(*owners, gfs=()):
    return {"mysql": Decision(owners, Why.PRIMARY), "gfs": Decision(gfs, Why.EVERYWHERE)}


def members(epoch=None, **changes):
    """Both report mysql stopped, having obeyed this epoch."""
    view, counter = epoch or (VIEW, 99)
    both = {node: {"mysql": report(STOPPED, view, counter)} for node in ("a", "b")}
    return Members(**{"reports": both, **changes})


def owners(built):
    return built.table["mysql"].owners


# -- forming -----------------------------------------------------------------------------


def test_a_view_begins_with_what_runs():
    """Whoever may be running a service owns it."""
    assert owners(formed(b=RUNNING)) == ("b",)
    assert owners(formed()) == ()


@pytest.mark.parametrize("state", [s for s in ServiceState if not s.is_stopped])
def test_what_is_not_plainly_stopped_may_be_running(state):
    """UNKNOWN and BLOCKED as well."""
    assert owners(formed(b=state)) == ("b",)


def test_of_two_holders_the_coordinator_keeps_it():
    """The end of a split (story 10)."""
    assert owners(formed(a=RUNNING, b=RUNNING)) == ("a",)


def test_an_everywhere_service_is_adopted_where_it_runs():
    """All holders."""
    built = Assignments(PLAN)
    built.form(VIEW, {n: {"gfs": report(RUNNING)} for n in ("a", "b")}, "a")
    assert built.table["gfs"].owners == ("a", "b")


def test_a_member_that_does_not_know_a_service_does_not_hold_it():
    """Its configuration lacks it."""
    built = Assignments(PLAN)
    built.form(VIEW, {"a": {}, "b": {}}, "a")
    assert owners(built) == ()


# -- two steps ---------------------------------------------------------------------------


def test_a_move_takes_two_steps():
    """To nobody; and when every member has stopped, to the new owner."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    assert owners(built) == ()
    nobody = built.table["mysql"].epoch
    built.update(decide("b"), members(nobody))
    assert owners(built) == ("b",)


def test_a_stop_reported_under_an_older_epoch_moves_nothing():
    """★ An order to start may still be under way."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    nobody = built.table["mysql"].epoch
    for _ in range(3):
        built.update(decide("b"), members((VIEW, nobody.counter - 1)))
    assert owners(built) == ()


def test_a_stop_obeyed_in_an_older_view_moves_nothing():
    """However high its counter was."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    built.update(decide("b"), members((VIEW - 2, 10_000)))
    assert owners(built) == ()


@pytest.mark.parametrize("node", ["a", "b"])
def test_every_member_has_to_have_stopped(node):
    """The new owner as well: it may be running it for reasons of its own."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    waiting = members()
    waiting.reports[node]["mysql"] = report(ServiceState.STOPPING, VIEW, 99)
    built.update(decide("b"), waiting)
    assert owners(built) == ()


def test_a_member_that_says_nothing_of_it_holds_it_up():
    """No report is no proof."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    built.update(decide("b"), Members({"a": members().reports["a"], "b": {}}))
    assert owners(built) == ()


def test_a_blocked_service_is_started_nowhere_by_guess():
    """A stop that failed: it may run."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    stuck = members()
    stuck.reports["a"]["mysql"] = report(ServiceState.BLOCKED, VIEW, 99)
    built.update(decide("b"), stuck)
    assert owners(built) == ()


def test_a_service_that_failed_there_is_stopped_there():
    """FAILED is verified stopped."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    failed = members()
    failed.reports["a"]["mysql"] = report(ServiceState.FAILED, VIEW, 99)
    built.update(decide("b"), failed)
    assert owners(built) == ("b",)


def test_a_change_of_mind_goes_through_nobody_too():
    """The service may have begun to stop."""
    built = formed(a=RUNNING)
    built.update(decide("b"), members())
    running = members()
    running.reports["a"]["mysql"] = report(RUNNING, VIEW, 1)
    built.update(decide("a"), running)
    assert owners(built) == ()
    built.update(decide("a"), members())
    assert owners(built) == ("a",)


def test_everywhere_follows_at_once():
    """The rules hold per node: no other node has to stop."""
    built = formed()
    built.update(decide(gfs=("a", "b")), members())
    assert built.table["gfs"].owners == ("a", "b")
    built.update(decide(gfs=("b",)), members())
    assert built.table["gfs"].owners == ("b",)


def test_what_stands_gets_no_new_epoch():
    """A table that says the same is the same."""
    built = formed(a=RUNNING)
    before = dict(built.table)
    assert built.update(decide("a"), members()) == []
    assert built.table == before


# -- alone -----------------------------------------------------------------------------


def alone(**changes):
    """A table of a node that is ALONE, mysql assigned to nobody, itself stopped."""
    built = Assignments(PLAN)
    built.form(VIEW, {"a": {}}, "a")
    mine = {"a": {"mysql": report(STOPPED, VIEW, 99)}}
    built.update(decide("a"), Members(**{"reports": mine, **changes}))
    return owners(built)


def test_alone_starts_what_the_peer_cannot_be_running():
    """It is cleared, or has left."""
    assert alone() == ("a",)


def test_alone_waits_for_what_a_joining_peer_still_runs():
    """What runs there stays there, and is adopted when the pair forms."""
    assert alone(outside={"mysql": report(RUNNING)}) == ()
    assert alone(outside={"mysql": report(ServiceState.UNKNOWN)}) == ()
    assert alone(outside={"mysql": report()}) == ("a",)


def test_alone_waits_for_the_reports_of_a_new_life():
    """It may run anything until it has said what."""
    assert alone(outside_unknown=True) == ()


def test_a_guard_proves_addresses_only():
    """A service without one may still run behind a dead network."""
    assert alone(provable=("gfs",)) == ()
    assert alone(provable=("mysql",)) == ("a",)


# -- whatever happens --------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from([(), ("a",), ("b",)]),
        st.fixed_dictionaries({n: st.tuples(st.sampled_from(ServiceState), st.integers(0, 12)) for n in ("a", "b")}),
    ),
    max_size=12,
)


@given(steps)
def test_an_owner_always_follows_nobody_and_epochs_grow(moves):
    """Invariant 1 at its source: never from one owner to another, and never an epoch twice."""
    built = formed(a=RUNNING)
    for wanted, told in moves:
        before: Assignment = built.table["mysql"]
        reports = {n: {"mysql": report(state, VIEW, counter)} for n, (state, counter) in told.items()}
        built.update(decide(*wanted), Members(reports))
        after = built.table["mysql"]
        if after == before:
            continue
        assert after.epoch > before.epoch
        assert not (before.owners and after.owners)
        if after.owners:
            assert all(s.is_stopped and Epoch(VIEW, c) >= before.epoch for s, c in told.values())
