"""One node from event to effects: forming a pair, losing it, acting for it, being wrong about it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostd.core.effects import (
    CancelFence,
    CancelProbe,
    FencePeer,
    PhaseChanged,
    PlansDiffer,
    ProbeAddresses,
    Publish,
    Refusal,
    RenewIncarnation,
    RunAction,
    SaveWishes,
)
from hostd.core.events import (
    ConfirmDown,
    FenceFinished,
    HeartLost,
    HeartReturned,
    LinkChanged,
    MoveService,
    SetStandby,
    StopService,
    TimerFired,
)
from hostd.core.node import Node
from hostd.core.plan import Link
from hostd.core.snapshot import Assignment, Invitation, Wish, WishKind
from hostd.core.terms import Action, Carrier, Epoch, Incarnation, Phase, ServiceState, Why
from tests.core.builders import (
    ADDRESS,
    LATER,
    MINE,
    THEIRS,
    TIMERS,
    Bench,
    actions,
    address,
    agent,
    alone,
    coordinator,
    facts,
    frame,
    join,
    member,
    of,
    plan,
    report,
    service,
    settle,
)

RUNNING, STOPPED = ServiceState.RUNNING, ServiceState.STOPPED
WITH_ADDRESS = service(resources=(address(), agent()))
THEIRS_WITH_ADDRESS = service(resources=(address(), agent()), candidates=("b", "a"))


def lose(bench: Bench, for_ms: int = TIMERS.deadtime_ms + 200) -> None:
    """The peer falls silent on every link."""
    bench.says = None
    bench.run(for_ms)


def fenceable(*services, **changes):
    """A confirmed coordinator with devices whose outcome the test tells."""
    bench = coordinator(*services, fencing=True, **changes)
    bench.holds = lambda effect: isinstance(effect, FencePeer)
    return bench


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
    """A probe is still under way."""
    bench = Bench.__new__(Bench)
    bench.__init__(plan(service()))
    bench.node.ladders["mysql"].unfinished = True
    bench.holds = lambda effect: isinstance(effect, RunAction)
    bench.say()
    bench.run(500)
    assert bench.said.invitation is None


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
    bench = Bench(plan(service()))
    join(bench, services={"mysql": report(RUNNING)})
    assert bench.owners == {"mysql": ("b",)} or "start mysql" not in actions(bench.seen)


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


@pytest.mark.xfail(strict=True, reason="core bug U6: nobody says it")
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


# -- losing the peer, with fencing --------------------------------------------------------------


def test_a_silent_peer_is_fenced_before_its_services_start():
    """And not before deadtime."""
    bench = fenceable(THEIRS_WITH_ADDRESS)
    bench.says = None
    bench.run(TIMERS.deadtime_ms - 200)
    assert of(FencePeer, bench.seen) == []
    bench.run(400)
    assert bench.phase is Phase.PEER_LOST and f"add {ADDRESS}" not in actions(bench.seen)
    (shot,) = of(FencePeer, bench.seen)
    assert shot.incarnation == THEIRS
    bench.finish(shot)
    assert bench.phase is Phase.ALONE and bench.said.dead == THEIRS
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert not next(e for e in bench.seen if actions([e]) == [f"add {ADDRESS}"]).guard


@pytest.mark.parametrize(
    ("me", "runs_here", "delayed"), [("a", True, False), ("a", False, True), ("b", True, False), ("b", False, True)]
)
def test_the_node_with_fewer_services_waits_before_it_shoots(me, runs_here, delayed):
    """Two that shoot at once: the one that serves more wins."""
    first = me if runs_here else {"a": "b", "b": "a"}[me]
    mysql = service(candidates=(first, "b" if first == "a" else "a"))
    if me == "a":
        bench = fenceable(mysql)
    else:
        bench = member(mysql, fencing=True)
        bench.holds = lambda effect: isinstance(effect, FencePeer)
        state = STOPPED if runs_here else RUNNING
        bench.say(services={"mysql": report(state)}, assignments={"mysql": Assignment((first,), Epoch(4, 1))})
    lose(bench)
    (shot,) = of(FencePeer, bench.seen)
    assert shot.delay_ms == (bench.plan.fence_delay_ms if delayed else 0)


@pytest.mark.parametrize(("me", "delayed"), [("a", False), ("b", True)])
def test_with_equally_many_the_second_in_order_waits(me, delayed):
    """Neither runs anything."""
    bench = fenceable() if me == "a" else member(fencing=True)
    bench.holds = lambda effect: isinstance(effect, FencePeer)
    lose(bench)
    (shot,) = of(FencePeer, bench.seen)
    assert bool(shot.delay_ms) is delayed


def test_being_heard_cancels_the_shot():
    """The peer is back in the same view: everything goes on."""
    bench = fenceable(service())
    lose(bench)
    (shot,) = of(FencePeer, bench.seen)
    effects = bench.say()
    assert bench.phase is Phase.MEMBER and bench.said.confirmed
    assert CancelFence(shot.request_id) in effects


@pytest.mark.xfail(strict=True, reason="core bug U5: only once its word is whole")
def test_being_heard_cancels_the_shot_before_the_word_is_whole():
    """A snapshot takes seconds on a slow serial line; the peer lives meanwhile."""
    bench = fenceable(service())
    lose(bench)
    bench.step(frame(bench.now_ms, version=99))
    assert of(CancelFence, bench.seen) != []


def test_an_outcome_of_an_earlier_loss_is_ignored():
    """◆ Story 4."""
    bench = fenceable(service())
    lose(bench)
    (first,) = of(FencePeer, bench.seen)
    bench.say()
    lose(bench)
    bench.step(FenceFinished(first.request_id, confirmed=True))
    assert bench.phase is Phase.PEER_LOST


def test_the_stricter_fencing_wins():
    """The peer's configuration asks for it, ours does not."""
    bench = coordinator(service())
    bench.say(fencing=True)
    lose(bench)
    assert of(FencePeer, bench.seen) != [] and of(ProbeAddresses, bench.seen) == []


def test_a_peer_that_failed_to_stop_is_fenced_on_purpose():
    """Though it is heard all the time; nobody starts the service by guess."""
    bench = fenceable(service(candidates=("b", "a")))
    bench.say(services={"mysql": report(ServiceState.BLOCKED, *bench.table["mysql"].epoch)})
    assert bench.phase is Phase.PEER_LOST
    (shot,) = of(FencePeer, bench.seen)
    bench.run(5_000)
    assert bench.phase is Phase.PEER_LOST and "start mysql" not in actions(bench.seen)
    bench.says = None
    bench.finish(shot)
    bench.until(lambda: bench.states["mysql"] is RUNNING)


def test_without_fencing_a_blocked_service_is_started_nowhere():
    """The operator is called."""
    bench = coordinator(service(candidates=("b", "a")))
    bench.say(services={"mysql": report(ServiceState.BLOCKED, *bench.table["mysql"].epoch)})
    bench.ask(MoveService("mysql"))
    bench.run(5_000)
    assert bench.phase is Phase.MEMBER and "start mysql" not in actions(bench.seen)


# -- losing the peer, without fencing -------------------------------------------------------------


def test_without_fencing_the_guard_asks_from_warntime_on():
    """So that its answer is there at deadtime."""
    bench = coordinator(THEIRS_WITH_ADDRESS)
    bench.says = None
    bench.run(TIMERS.warntime_ms)
    (probe,) = of(ProbeAddresses, bench.seen)
    assert probe.addresses == (ADDRESS,) and bench.phase is Phase.MEMBER
    bench.run(1_000)
    bench.listen()
    bench.run(600)
    assert bench.phase is Phase.ALONE
    bench.until(lambda: bench.states["mysql"] is RUNNING)
    assert next(e for e in bench.seen if actions([e]) == [f"add {ADDRESS}"]).guard


def test_an_address_that_answers_stays_where_it_is():
    """This is a partition, not a death."""
    bench = coordinator(THEIRS_WITH_ADDRESS)
    lose(bench)
    for _ in range(10):
        bench.listen(answered=(ADDRESS,))
        bench.run(1_000)
    assert bench.phase is Phase.PEER_LOST and "start mysql" not in actions(bench.seen)


def test_being_heard_calls_the_guard_off():
    """Its answer would come too late to mean anything."""
    bench = coordinator(THEIRS_WITH_ADDRESS)
    bench.says = None
    bench.run(TIMERS.warntime_ms + 200)
    effects = bench.say()
    assert of(CancelProbe, effects) != [] and bench.phase is Phase.MEMBER


@pytest.mark.xfail(strict=True, reason="core bug U4: a guard's answer counts until the peer's word is whole")
def test_a_guard_does_not_clear_a_peer_that_is_heard():
    """Invariant 6: nobody is declared dead while a link works in both directions."""
    bench = coordinator(THEIRS_WITH_ADDRESS)
    lose(bench)
    bench.listen(answered=(ADDRESS,))
    bench.run(300)
    bench.step(frame(bench.now_ms, version=99))
    bench.listen()
    assert bench.phase is Phase.PEER_LOST


def test_power_that_is_seen_to_go_is_a_loss_at_warntime():
    """Quick evidence; the guard is asked all the same."""
    links = (Link("lan"), Link("cross", direct=True))
    bench = Bench(plan(THEIRS_WITH_ADDRESS, links=links))
    bench.step(LinkChanged("cross", bench.now_ms, usable=True, carrier=Carrier.UP))
    join(bench)
    bench.step(LinkChanged("cross", bench.now_ms, usable=False, carrier=Carrier.DOWN))
    lose(bench, TIMERS.warntime_ms)
    assert bench.phase is Phase.PEER_LOST and of(ProbeAddresses, bench.seen) != []


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
    """Nonsense of the peer is no assertion here; views and versions never fall within a life; no start in a waiting phase."""
    bench = Bench(plan(service(), fencing=fencing))
    for fields, quiet in said:
        incarnation = max(fields["incarnation"], bench.carried.incarnation if bench.carried else THEIRS)
        bench.say(**{**fields, "incarnation": incarnation})
        bench.run(quiet // 5 * 100)
    told = [publication.snapshot for publication in of(Publish, bench.seen)]
    for before, after in zip(told, told[1:], strict=False):
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


def test_incarnations_are_renewed_upwards_only():
    """Anything else is our bug."""
    assert Incarnation(MINE.boot + 1, 0) > MINE
