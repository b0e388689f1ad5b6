"""``hostd fence``: the operator has the peer shot."""

import pytest

from hostd.core.effects import FencePeer, Refusal
from hostd.core.events import FenceFinished, FenceNode, TiebreakerTurned
from hostd.core.terms import Clearance, Phase, ServiceState
from tests.core.builders import Bench, actions, alone, coordinator, fenceable, of, plan, service


def test_a_member_is_shot_at_once_though_it_is_heard():
    """No delay: nobody else decides; its services are taken over when the device has said that it is off."""
    bench = fenceable(service(candidates=("b", "a")))
    assert bench.ask(FenceNode("b")).refusal is None
    (shot,) = of(FencePeer, bench.seen)
    assert (shot.node, shot.delay_ms, bench.phase) == ("b", 0, Phase.PEER_LOST)
    bench.run(1_000)
    assert "start mysql" not in actions(bench.seen)
    bench.says = None
    bench.step(FenceFinished(shot.request_id, confirmed=True))
    bench.run(200)
    assert (bench.phase, bench.node.clearance) == (Phase.ALONE, Clearance.FENCED)
    assert bench.states["mysql"] is ServiceState.RUNNING


def test_a_device_that_fails_ends_the_attempt():
    """One try: the peer is a member again, and nobody shoots it later for an old wish."""
    bench = fenceable(service(candidates=("b", "a")))
    bench.ask(FenceNode("b"))
    (shot,) = of(FencePeer, bench.seen)
    bench.step(FenceFinished(shot.request_id, confirmed=False, detail="no answer"))
    bench.run(120_000)
    assert bench.phase is Phase.MEMBER and len(of(FencePeer, bench.seen)) == 1


def test_a_node_that_is_cut_off_shoots_when_the_operator_says_so():
    """He knows more than the tiebreaker."""
    bench = fenceable(service())
    bench.step(TiebreakerTurned(False))
    bench.ask(FenceNode("b"))
    assert len(of(FencePeer, bench.seen)) == 1


@pytest.mark.parametrize(
    ("make", "node", "refusal"),
    [
        (lambda: coordinator(service(), fencing=True), "a", Refusal.FENCE_OWN_NODE),
        (lambda: coordinator(service(), fencing=True), "c", Refusal.UNKNOWN_NODE),
        (lambda: coordinator(service()), "b", Refusal.NO_FENCING),
        (lambda: alone(service(), fencing=True), "b", Refusal.NOTHING_TO_FENCE),
        (lambda: Bench(plan(service(), fencing=True)), "b", Refusal.NOTHING_TO_FENCE),
    ],
    ids=["oneself", "a stranger", "without fencing", "acting alone", "joining"],
)
def test_what_is_refused(make, node, refusal):
    """And nobody is shot."""
    bench = make()
    assert bench.ask(FenceNode(node)).refusal is refusal
    assert of(FencePeer, bench.seen) == []
