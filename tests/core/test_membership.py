"""Own pauses, foreign claims, addresses, the operator's word, failback: what meets in one node."""

import pytest

from hostd.core.effects import (
    AddressDisputed,
    AnnounceAddress,
    FencePeer,
    PauseNoticed,
    Refusal,
    RemoveAddress,
    RenewAddress,
    RenewIncarnation,
)
from hostd.core.events import (
    AddressCause,
    AddressFinished,
    AddressLost,
    AddressOutcome,
    CleanUp,
    ConfirmDown,
    ForeignClaim,
    HeartLost,
    HeartReturned,
    MoveService,
    SetMaintenance,
    SetStandby,
    TimerFired,
)
from hostd.core.terms import Action, Phase, ServiceState
from tests.core.builders import (
    ADDRESS,
    DEADTIME_MS,
    MINE,
    REMOVE,
    RUNNING,
    STATION,
    STOPPED,
    TIMERS,
    WITH_ADDRESS,
    Bench,
    actions,
    address,
    agent,
    alone,
    coordinator,
    facts,
    join,
    lose,
    of,
    plan,
    report,
    service,
    serving_member,
    settle,
)

# -- own pauses ----------------------------------------------------------------------------


def pause(bench, for_ms):
    bench.now_ms += for_ms
    return bench.step(TimerFired())


def test_a_pause_judges_nobody_by_silence_from_before():
    """Longer than half of deadtime: the silence begins anew."""
    bench = coordinator(WITH_ADDRESS, fencing=True)
    effects = pause(bench, 60_000)
    assert facts(PauseNoticed, effects) == [PauseNoticed(60_000)]
    assert bench.phase is Phase.MEMBER
    bench.run(DEADTIME_MS - 200)
    assert bench.phase is Phase.MEMBER


def test_a_short_stall_is_no_pause():
    """A busy machine stalls; half of deadtime is the limit."""
    bench = coordinator(WITH_ADDRESS)
    assert facts(PauseNoticed, pause(bench, DEADTIME_MS // 2)) == []
    assert facts(PauseNoticed, pause(bench, DEADTIME_MS // 2 + 1)) != []
    assert bench.phase is Phase.MEMBER


def test_without_fencing_a_long_pause_drops_addresses_first():
    """Another node may have taken over: addresses off, a new incarnation, JOINING."""
    bench = coordinator(WITH_ADDRESS)
    effects = pause(bench, DEADTIME_MS + 1)
    kinds = [type(e) for e in effects if isinstance(e, RemoveAddress | RenewIncarnation | RenewAddress)]
    assert kinds == [RemoveAddress, RenewIncarnation]
    assert bench.phase is Phase.JOINING and bench.said.incarnation > MINE


def test_with_fencing_a_long_pause_keeps_what_runs():
    """If somebody had taken over, we would be off."""
    bench = coordinator(WITH_ADDRESS, fencing=True)
    effects = pause(bench, DEADTIME_MS + 1)
    assert REMOVE not in actions(effects) and of(RenewIncarnation, effects) == []


# -- foreign claims ------------------------------------------------------------------------


def claim(bench, station=STATION):
    return bench.step(ForeignClaim(ADDRESS, station, bench.now_ms))


def test_a_strangers_claim_is_reported_and_answered():
    """A conflict with somebody who is no node: we say again that it is ours."""
    bench = serving_member()
    effects = claim(bench, "02:00:00:00:00:99")
    assert facts(AddressDisputed, effects) == [AddressDisputed(ADDRESS, "02:00:00:00:00:99")]
    assert of(AnnounceAddress, effects) != []
    lose(bench, 1_000)
    assert REMOVE not in actions(bench.seen)


@pytest.mark.parametrize(("fencing", "gives_way"), [(False, True), (True, False)])
def test_a_claim_may_be_the_peers_as_long_as_it_never_said_which_stations_it_has(fencing, gives_way):
    """After a split the second in order gives way to whoever answers, unless the peer was seen to be off
    (seed 201126 without fencing)."""
    bench = Bench(plan(WITH_ADDRESS, fencing=fencing), me="b")
    bench.ask(ConfirmDown("a"))
    bench.until(lambda: bench.phase is Phase.ALONE and bench.states["mysql"] is RUNNING)
    claim(bench, "02:00:00:00:00:99")
    bench.run(1_000)
    assert (REMOVE in actions(bench.seen)) is gives_way


def test_without_links_the_second_in_order_gives_way():
    """◆ Story 9: a pause that no clock shows."""
    bench = serving_member()
    lose(bench)
    assert REMOVE not in actions(bench.seen)
    claim(bench)
    bench.run(500)
    assert REMOVE in actions(bench.seen)


def test_without_links_the_first_in_order_keeps_it():
    """One of them has to."""
    bench = coordinator(WITH_ADDRESS)
    bench.say(stations=(STATION,))
    lose(bench)
    claim(bench)
    bench.run(1_000)
    assert REMOVE not in actions(bench.seen)


def test_a_claim_of_a_peer_that_is_heard_after_it_changes_nothing():
    """Its phase decides then."""
    bench = serving_member()
    claim(bench)
    bench.run(2_000)
    assert REMOVE not in actions(bench.seen) and bench.states["mysql"] is RUNNING


def test_a_claim_to_what_we_do_not_hold_is_none_of_our_business():
    """The peer announces its own address."""
    bench = coordinator(service(resources=(address(), agent()), candidates=("b", "a")))
    assert facts(AddressDisputed, claim(bench)) == []


# -- addresses ------------------------------------------------------------------------------


def test_addresses_are_renewed_while_they_are_up():
    """Every second, also while the peer is lost."""
    bench = alone(WITH_ADDRESS)
    bench.seen.clear()
    bench.run(5_000)
    assert len(of(RenewAddress, bench.seen)) == 5


def test_a_joining_node_renews_what_is_present_and_adds_nothing():
    """A daemon that restarts keeps the addresses of the services that it found."""
    bench = Bench(plan(WITH_ADDRESS), present=(ADDRESS,), running=["mysql"])
    bench.run(3_000)
    assert of(RenewAddress, bench.seen) != [] and actions(bench.seen) == ["monitor mysql"]
    bench.step(AddressLost(ADDRESS, AddressCause.REMOVED))
    bench.run(3_000)
    assert actions(bench.seen) == ["monitor mysql"]


def test_a_renewal_that_failed_is_a_lost_address_and_put_back():
    """Under the guard where there is no proof; the agent's rung is not touched."""
    bench = alone(WITH_ADDRESS)
    bench.holds = lambda effect: isinstance(effect, RenewAddress)
    bench.run(1_500)
    bench.seen.clear()
    renewal = bench.open.pop()
    bench.step(AddressFinished(renewal.request_id, AddressOutcome.FAILED))
    assert actions(bench.seen) == [f"add {ADDRESS}"] and bench.states["mysql"] is RUNNING


def test_a_lost_peer_means_that_no_address_is_added():
    """◆ Story 6: what vanishes in PEER_LOST stays away until it is known who acts."""
    bench = coordinator(WITH_ADDRESS, fencing=True)
    bench.holds = lambda effect: isinstance(effect, FencePeer)
    lose(bench)
    bench.seen.clear()
    bench.step(AddressLost(ADDRESS, AddressCause.REMOVED))
    bench.run(2_000)
    assert actions(bench.seen) == []


# -- confirm-down ---------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.JOINING, Phase.STARTUP_FENCING, Phase.PEER_LOST])
def test_confirm_down_is_taken_in_every_waiting_phase(phase):
    """While the peer is unheard."""
    if phase is Phase.PEER_LOST:
        bench = coordinator(WITH_ADDRESS, fencing=True)
        bench.holds = lambda effect: isinstance(effect, FencePeer)
        lose(bench)
    else:
        bench = Bench(plan(WITH_ADDRESS, fencing=True))
        bench.run(TIMERS.initdead_ms + 200 if phase is Phase.STARTUP_FENCING else 1_000)
    assert bench.phase is phase
    assert bench.ask(ConfirmDown("b")).refusal is None
    assert bench.phase is Phase.ALONE and bench.states["mysql"] is RUNNING


def test_confirm_down_when_alone_makes_the_proof_complete():
    """The guard alone did not let services without an address start."""
    bench = Bench(plan(service()))
    bench.run(TIMERS.initdead_ms + 500)
    assert bench.phase is Phase.ALONE and bench.states["mysql"] is STOPPED
    assert bench.ask(ConfirmDown("b")).refusal is None
    bench.until(lambda: bench.states["mysql"] is RUNNING)


@pytest.mark.parametrize(("node", "refusal"), [("a", Refusal.CONFIRM_OWN_NODE), ("c", Refusal.UNKNOWN_NODE)])
def test_confirm_down_of_another_is_refused(node, refusal):
    """Only the peer can be confirmed."""
    assert Bench(plan()).ask(ConfirmDown(node)).refusal is refusal


def test_confirm_down_is_void_once_the_peer_is_heard():
    """The next silence is another one: it needs its own proof."""
    bench = coordinator(service(), fencing=True)
    bench.holds = lambda effect: isinstance(effect, FencePeer)
    bench.step(HeartLost())
    bench.ask(ConfirmDown("b"))
    bench.step(HeartReturned())
    bench.run(1_000)
    assert bench.phase is Phase.MEMBER
    lose(bench, 5_000)
    assert bench.phase is Phase.PEER_LOST


# -- failback, standby, moves --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait_ms", "stays_ms"), [(0, 0), (None, 30_000), (5_000, 4_000)], ids=["true", "false", "a duration"]
)
def test_a_service_fails_back_by_its_rule(wait_ms, stays_ms):
    """Considered when the primary joins."""
    bench = Bench(plan(service(failback_after_ms=wait_ms)))
    join(bench, services={"mysql": report(RUNNING)})
    for _ in range(stays_ms // 100):
        assert bench.owners == {"mysql": ("b",)}
        bench.say(services=bench.obeys())
    if wait_ms is not None:
        for _ in range(20):
            bench.say(services=bench.obeys())
        assert bench.owners == {"mysql": ("a",)} and bench.states["mysql"] is RUNNING


def test_standby_empties_a_node_and_online_takes_it_back():
    """Failback is considered again then."""
    bench = coordinator(service())
    bench.ask(SetStandby("a", standby=True))
    settle(bench)
    assert bench.owners == {"mysql": ("b",)}
    bench.ask(SetStandby("a", standby=False))
    settle(bench)
    assert bench.owners == {"mysql": ("a",)}


def test_cleanup_lets_a_service_start_here_again():
    """It had failed on both nodes."""
    bench = Bench(plan(service(candidates=("a",))))
    bench.answers["mysql", Action.START] = {"ok": False}
    join(bench)
    assert bench.states["mysql"] is ServiceState.FAILED
    bench.answers.clear()
    bench.ask(CleanUp("mysql"))
    settle(bench)
    assert bench.states["mysql"] is RUNNING


def test_a_move_that_is_taken_is_kept():
    """Under maintenance it waits; or it would have to be refused."""
    bench = coordinator(service())
    bench.ask(SetMaintenance(on=True))
    if bench.ask(MoveService("mysql", "b")).refusal is None:
        bench.ask(SetMaintenance(on=False))
        settle(bench)
        assert bench.owners == {"mysql": ("b",)}
