"""One node from event to effects: forming a pair, losing it, acting for it, being wrong about it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostd.core.effects import (
    FencePeer,
    PhaseChanged,
    PlansDiffer,
    Publish,
    Refusal,
    RenewIncarnation,
    RunAction,
    SaveWishes,
)
from hostd.core.events import (
    ConfirmDown,
    HeartLost,
    HeartReturned,
    SetStandby,
    StopService,
    TimerFired,
)
from hostd.core.node import Node
from hostd.core.snapshot import Assignment, Invitation, Wish, WishKind
from hostd.core.terms import Action, Epoch, Phase, ServiceState, Why
from tests.core.builders import (
    ADDRESS,
    LATER,
    MINE,
    RUNNING,
    STOPPED,
    THEIRS,
    TIMERS,
    WITH_ADDRESS,
    Bench,
    actions,
    alone,
    coordinator,
    facts,
    fenceable,
    join,
    lose,
    member,
    of,
    plan,
    report,
    service,
    settle,
)

# -- starting and forming ----------------------------------------------------------------


def test_nothing_comes_out_before_the_node_is_started():
    """There is no incarnation to speak for."""
    assert Node(plan(service()), "a").step(0, TimerFired()) == []


def test_a_node_that_starts_asks_what_runs_and_joins():
    """It starts nothing."""
    bench = Bench(plan(service()))
    assert bench.phase is Phase.JOINING and actions(bench.seen) == ["monitor mysql"]
    bench.run(10_000)
    assert actions(bench.seen) == ["monitor mysql"]


def test_no_invitation_while_something_is_unknown():
    """A probe is still under way: a view that begins with what runs has to know it."""
    bench = Bench(plan(service()), holds=lambda effect: isinstance(effect, RunAction))
    bench.say()
    bench.run(500)
    assert bench.said.invitation is None and bench.states["mysql"] is ServiceState.UNKNOWN
    bench.finish(bench.open[0])
    bench.run(500)
    assert bench.said.invitation is not None


def test_an_invited_node_starts_nothing_before_both_show_the_view():
    """Unconfirmed members have started nothing."""
    bench = Bench(plan(service(candidates=("b", "a"))), me="b")
    bench.say(invitation=Invitation(4, MINE), assignments={"mysql": Assignment(("b",), Epoch(4, 1))})
    assert bench.phase is Phase.MEMBER and not bench.said.confirmed
    bench.run(500)
    assert "start mysql" not in actions(bench.seen)
    bench.say(phase=Phase.MEMBER, confirmed=True, view=4, coordinator="a", invitation=None)
    assert bench.said.confirmed and bench.states["mysql"] is RUNNING


def test_forming_a_view_adopts_what_runs():
    """Nothing is restarted because a daemon was."""
    bench = Bench(plan(service(failback_after_ms=None)))
    join(bench, services={"mysql": report(RUNNING)})
    assert bench.owners == {"mysql": ("b",)} and "start mysql" not in actions(bench.seen)


def test_a_member_obeys_only_the_coordinator_of_its_view():
    """An order of another view or of nobody's is none."""
    bench = member(service())
    ours = {"mysql": Assignment(("b",), Epoch(2, 9))}
    bench.say(assignments=ours)
    assert actions(bench.seen) == ["monitor mysql"]
    bench.say(assignments={"mysql": Assignment(("b",), Epoch(4, 1))}, coordinator="b")
    assert actions(bench.seen) == ["monitor mysql"]


def test_a_member_obeys_only_newer_epochs():
    """Invariant 3: epochs obeyed never decrease within an incarnation."""
    bench = member(service())
    bench.say(assignments={"mysql": Assignment(("b",), Epoch(4, 2))})
    assert bench.states["mysql"] is RUNNING
    bench.say(assignments={"mysql": Assignment((), Epoch(4, 1))})
    assert bench.states["mysql"] is RUNNING
    bench.say(assignments={"mysql": Assignment((), Epoch(4, 3))})
    assert bench.states["mysql"] is STOPPED
    assert bench.said.services["mysql"].obeyed == Epoch(4, 3)


def test_different_node_orders_make_no_view():
    """Story 15: they would break ties differently."""
    bench = Bench(plan(service()))
    bench.say(nodes=("b", "a"))
    bench.run(1_000)
    assert bench.said.invitation is None and bench.phase is Phase.JOINING


def test_different_node_orders_are_said():
    """Both say why there is no view."""
    bench = Bench(plan(service()))
    bench.say(nodes=("b", "a"))
    assert PlansDiffer("") in facts(PlansDiffer, bench.seen)


def test_a_service_that_differs_is_not_moved_and_said():
    """Nor started; the others go on."""
    bench = coordinator(service())
    bench.say(digests={"mysql": "another"})
    assert facts(PlansDiffer, bench.seen) == [PlansDiffer("mysql")]
    bench.ask(SetStandby("a", standby=True))
    settle(bench)
    assert bench.owners == {"mysql": ("a",)}


# -- one node alone, yielding ----------------------------------------------------------------------


@pytest.mark.parametrize("fencing", [True, False])
def test_a_node_that_boots_alone_waits_for_initdead_and_clearance(fencing):
    """Story 13."""
    bench = Bench(plan(WITH_ADDRESS, fencing=fencing))
    bench.run(TIMERS.initdead_ms - 200)
    assert bench.phase is Phase.JOINING
    bench.run(400)
    assert bench.phase is Phase.STARTUP_FENCING and "start mysql" not in actions(bench.seen)
    bench.listen()
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert bool(of(FencePeer, bench.seen)) is fencing


def test_a_peer_that_only_restarts_its_daemon_needs_no_fencing():
    """It is JOINING and tells what runs there: that stays and is adopted."""
    bench = fenceable(service(candidates=("b", "a")))
    bench.say(incarnation=LATER, services={"mysql": report(RUNNING)})
    assert bench.phase is Phase.ALONE and of(FencePeer, bench.seen) == []
    bench.run(1_000)
    assert "start mysql" not in actions(bench.seen)
    join(bench, services={"mysql": report(RUNNING)})
    assert bench.owners == {"mysql": ("b",)}


@pytest.mark.parametrize("theirs", [RUNNING, STOPPED])
def test_who_hears_the_peer_alone_gives_up_what_it_runs_and_keeps_the_rest(theirs):
    """Yield: addresses first, then the service, then a new incarnation that joins."""
    bench = member(WITH_ADDRESS)
    bench.say(assignments={"mysql": Assignment(("b",), Epoch(4, 1))})
    assert bench.states["mysql"] is RUNNING
    effects = bench.say(phase=Phase.ALONE, view=6, services={"mysql": report(theirs)}, assignments={})
    bench.run(500)
    assert of(RenewIncarnation, effects) != [] and bench.said.incarnation > MINE and bench.phase is Phase.JOINING
    expected = [f"remove {ADDRESS}", "stop mysql", "monitor mysql"] if theirs is RUNNING else []
    assert actions(effects) == expected


def test_the_first_in_order_keeps_all_at_the_end_of_a_split():
    """Story 10: both ALONE; the second yields."""
    bench = alone(WITH_ADDRESS)
    bench.say(incarnation=LATER, phase=Phase.ALONE, view=7, coordinator="b", services={"mysql": report(RUNNING)})
    bench.run(2_000)
    assert bench.phase is Phase.ALONE and bench.states["mysql"] is RUNNING


# -- our own ears ------------------------------------------------------------------------------------


def test_a_dead_heart_loses_nobody():
    """Timers run only while we listen."""
    bench = fenceable(service())
    bench.step(HeartLost())
    lose(bench, 60_000)
    assert bench.phase is Phase.MEMBER
    bench.step(HeartReturned())
    bench.run(TIMERS.deadtime_ms + 100)
    assert bench.phase is Phase.PEER_LOST


def test_stopping_a_service_is_held_by_both_and_kept():
    """Story 17: published and saved, so that the death of this node loses nothing."""
    bench = member(service())
    bench.say(assignments={"mysql": Assignment(("b",), Epoch(4, 1))})
    answer = bench.ask(StopService("mysql"))
    (wish,) = bench.said.wishes
    assert answer == type(answer)(1, None, wish.serial) and wish.kind is WishKind.STOPPED
    assert of(SaveWishes, bench.seen)[-1].wishes == (wish,)


def test_a_wish_of_the_peer_is_taken_over_and_kept():
    """Whoever took the command."""
    bench = coordinator(service())
    bench.say(wishes=(Wish(WishKind.STOPPED, "mysql", "yes", 1, "b"),))
    settle(bench)
    assert bench.states["mysql"] is STOPPED and of(SaveWishes, bench.seen) != []


# -- whatever happens ------------------------------------------------------------------------------------

words = st.builds(
    dict,
    phase=st.sampled_from(Phase), view=st.integers(0, 8), incarnation=st.sampled_from([THEIRS, LATER]),
    invitation=st.one_of(st.none(), st.builds(Invitation, st.integers(1, 9), st.just(MINE))),
    coordinator=st.sampled_from(["a", "b"]), services=st.sampled_from([{}, {"mysql": report(RUNNING)}]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, st.integers(0, 25)), max_size=8), st.booleans())
def test_every_word_of_a_peer_is_survived_and_versions_grow(said, fencing):
    """Views and versions never fall within a life, and nothing starts in a waiting phase."""
    bench = Bench(plan(service(), fencing=fencing))
    for fields, quiet in said:
        incarnation = max(fields["incarnation"], bench.carried.incarnation if bench.carried else THEIRS)
        bench.say(**{**fields, "incarnation": incarnation})
        bench.run(quiet // 5 * 100)
    told = [publication.snapshot for publication in of(Publish, bench.seen)]
    for before, after in itertools.pairwise(told):
        assert after.version > before.version and after.incarnation >= before.incarnation
        assert after.view >= before.view or after.incarnation > before.incarnation
    phase = Phase.JOINING
    for effect in bench.seen:
        for turned in facts(PhaseChanged, [effect]):
            phase = turned.phase
        if isinstance(effect, RunAction) and effect.action is Action.START:
            assert phase in (Phase.MEMBER, Phase.ALONE)


def test_why_is_told_with_every_turn():
    """For ``hostd why``."""
    bench = coordinator(service())
    lose(bench, TIMERS.deadtime_ms + 100)
    whys = [turn.why for turn in facts(PhaseChanged, bench.seen)]
    assert whys[:2] == [Why.PEER_INVITED, Why.PEER_SILENT]


def test_confirm_down_of_a_node_that_is_heard_is_refused():
    """It is not off."""
    assert coordinator(service()).ask(ConfirmDown("b")).refusal is Refusal.PEER_IS_HEARD
