"""Are we cut off?  What the LAN's carriers and the tiebreaker say, and what follows of it."""

import pytest

from hostd.core import situation
from hostd.core.effects import FencePeer
from hostd.core.events import LanTurned, TiebreakerTurned
from hostd.core.reach import STABLE_MS, Reach
from hostd.core.terms import Phase, ServiceState
from tests.core.builders import ADDRESS, REMOVE, WITH_ADDRESS, actions, coordinator, fenceable, lose, of


def reach(*, lan: bool | None = None, tiebreaker: bool | None = None) -> Reach:
    built = Reach()
    if lan is not None:
        built.take_lan(0, lan)
    if tiebreaker is not None:
        built.take_tiebreaker(0, tiebreaker)
    return built


@pytest.mark.parametrize(
    ("lan", "tiebreaker", "word"),
    [
        (None, None, None),
        (True, None, True),
        (False, None, False),
        (None, False, False),
        (True, False, False),
        (False, True, False),
        (True, True, True),
    ],
)
def test_both_have_to_be_well_as_far_as_they_are_there(lan, tiebreaker, word):
    """A carrier without a tiebreaker's answer serves nobody, nor the other way round."""
    assert reach(lan=lan, tiebreaker=tiebreaker).word(0) is word


def test_lost_counts_at_once_and_found_only_after_a_while():
    """A LAN that comes and goes must not make services do the same."""
    built = reach(tiebreaker=True)
    built.take_tiebreaker(100, False)
    assert built.is_cut_off and built.word(100) is False
    built.take_tiebreaker(200, True)
    assert not built.is_cut_off
    assert built.word(200 + STABLE_MS - 1) is False and built.word(200 + STABLE_MS) is True
    built.take_tiebreaker(300, False)
    built.take_tiebreaker(400, True)
    assert built.word(200 + STABLE_MS) is False and built.word(400 + STABLE_MS) is True


@pytest.mark.parametrize(
    ("reached", "cut_off"),
    [
        ({"a": False, "b": True}, ("a",)),
        ({"a": False, "b": False}, ()),
        ({"a": False, "b": None}, ()),
        ({"a": True, "b": True}, ()),
    ],
    ids=["one", "both: the tiebreaker is gone", "the other cannot tell", "none"],
)
def test_a_node_is_cut_off_only_while_the_other_is_not(reached, cut_off):
    """Else a move would serve nobody better."""
    assert situation.cut_off(reached) == cut_off


def test_a_node_that_hears_nobody_and_is_cut_off_gives_up_its_services():
    """PROTOCOL.md 5.4: without fencing, the other may have taken over."""
    bench = coordinator(WITH_ADDRESS)
    bench.step(TiebreakerTurned(False))
    bench.seen.clear()
    lose(bench, 4_000)
    assert bench.phase is Phase.PEER_LOST and REMOVE in actions(bench.seen)
    assert bench.states["mysql"] is ServiceState.STOPPED


def test_a_node_that_is_cut_off_does_not_shoot():
    """If one of the two is to go on, it is not the one without clients."""
    bench = fenceable(WITH_ADDRESS)
    bench.step(LanTurned((ADDRESS,)))
    lose(bench)
    assert bench.phase is Phase.PEER_LOST and of(FencePeer, bench.seen) == []
    bench.step(LanTurned(()))
    assert len(of(FencePeer, bench.seen)) == 1
