"""Everything that can happen in small worlds, over the real core."""

import pytest

from hostd.sim import replay
from hostd.sim.search import Search
from hostd.sim.small_world import Budget, small_plan

WORLDS = {
    "hostd killed once": (True, Budget(boots=3, crashes=0, kills=1, cuts=0)),
    "two moves by the operator": (True, Budget(boots=2, crashes=0, kills=0, cuts=0, moves=2)),
    "without fencing, hostd killed": (False, Budget(boots=2, crashes=0, kills=1, cuts=0)),
    "two services with a primary each": (True, Budget(boots=2, crashes=0, kills=0, cuts=0)),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", WORLDS)
def test_no_order_of_events_brings_harm(world: str) -> None:
    """Breadth first until nothing is left to try: no double start, no second owner, no start out of turn."""
    fencing, budget = WORLDS[world]
    plan = small_plan(fencing=fencing, services=2 if world.startswith("two services") else 1)
    finding = Search(plan, replay.make_brain).run(budget, states_max=2_000_000, seconds_max=240)
    assert finding.harm == "", finding.path
    assert finding.complete


def test_a_search_that_gives_up_says_so() -> None:
    """A limit is not an answer."""
    finding = Search(small_plan(fencing=True), replay.make_brain).run(Budget(), states_max=200, seconds_max=60)
    assert not finding.complete
    assert finding.harm == ""


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_no_order_of_events_brings_harm_in_larger_worlds() -> None:
    """A power cut, a kill of hostd and a cut line in one world."""
    finding = Search(small_plan(fencing=True), replay.make_brain).run(
        Budget(boots=3, crashes=1, kills=1, cuts=1), states_max=3_000_000, seconds_max=3_000
    )
    assert finding.harm == "", finding.path
