"""The simulated disk: who may take it from whom."""

from hostd.sim import plans
from hostd.sim.disk import Disk

PLAN = plans.plan(fencing=False, cuts_storage=True)


def test_who_has_lost_his_key_takes_nothing_back():
    """Of two nodes that ask at once the second is refused."""
    disk = Disk(PLAN)
    disk.register("a")
    disk.register("b")
    assert disk.cut("b", by="a") and not disk.cut("a", by="b")
    assert disk.keys == {"a": True, "b": False}


def test_a_disk_with_which_nobody_is_registered_may_be_taken():
    """Both nodes left in good order, and one is back."""
    disk = Disk(PLAN)
    assert disk.cut("a", by="b") and disk.keys == {"a": False, "b": True}


def test_a_node_that_never_registered_does_not_take_a_disk_in_use():
    """It may be the one that is cut off."""
    disk = Disk(PLAN)
    disk.register("a")
    assert not disk.cut("a", by="b") and disk.keys["a"]
