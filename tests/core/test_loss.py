"""Losing the peer: the shot, the guard, quick evidence, and being wrong about it (PROTOCOL.md section 5)."""

import pytest

from hostd.core.effects import (
    CancelFence,
    CancelProbe,
    FencePeer,
    ProbeAddresses,
)
from hostd.core.events import (
    FenceFinished,
    LinkChanged,
    MoveService,
)
from hostd.core.plan import Link
from hostd.core.snapshot import Assignment
from hostd.core.terms import Carrier, Epoch, Phase, ServiceState
from tests.core.builders import (
    ADDRESS,
    RUNNING,
    STOPPED,
    THEIRS,
    THEIRS_WITH_ADDRESS,
    TIMERS,
    Bench,
    actions,
    coordinator,
    fenceable,
    frame,
    join,
    lose,
    member,
    of,
    plan,
    report,
    service,
)

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
