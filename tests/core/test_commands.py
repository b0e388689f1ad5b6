"""May the operator have that?  Every command: the wish it becomes, or the reason why not."""

import pytest

from hostd.core.commands import Scene, Taken, judge
from hostd.core.effects import Refusal
from hostd.core.events import CleanUp, MoveService, SetMaintenance, SetStandby, StartService, StopService
from hostd.core.snapshot import WishKind
from tests.core.builders import everywhere, plan, service

PLAN = plan(service(), everywhere(), service("pinned", candidates=("a",)))


def scene(**changes):
    """mysql and pinned run on a; both nodes may run services."""
    known = {"members": ("a", "b"), "current": {"mysql": ("a",), "pinned": ("a",)}, "banned": {}, "stopped": ()}
    return Scene(PLAN, **{**known, **changes})


@pytest.mark.parametrize(
    ("command", "wish"),
    [
        (StopService("mysql"), Taken(WishKind.STOPPED, "mysql", "yes")),
        (StartService("mysql"), Taken(WishKind.STOPPED, "mysql", "")),
        (CleanUp("gfs"), Taken(WishKind.CLEANUP, "gfs", "yes")),
        (SetStandby("b", standby=True), Taken(WishKind.STANDBY, "b", "yes")),
        (SetStandby("b", standby=False), Taken(WishKind.STANDBY, "b", "")),
        (SetMaintenance(on=True), Taken(WishKind.MAINTENANCE, "", "yes")),
        (SetMaintenance(on=False, service="mysql"), Taken(WishKind.MAINTENANCE, "mysql", "")),
        (MoveService("mysql", "b"), Taken(WishKind.MOVED, "mysql", "b", node="b")),
    ],
)
def test_a_command_becomes_a_wish(command, wish):
    """The wish is what both nodes hold and keep."""
    assert judge(command, scene()) == wish


@pytest.mark.parametrize(
    ("command", "changes", "refusal"),
    [
        (StopService("nosuch"), {}, Refusal.UNKNOWN_SERVICE),
        (StartService("nosuch"), {}, Refusal.UNKNOWN_SERVICE),
        (CleanUp("nosuch"), {}, Refusal.UNKNOWN_SERVICE),
        (MoveService("nosuch"), {}, Refusal.UNKNOWN_SERVICE),
        (SetMaintenance(on=True, service="nosuch"), {}, Refusal.UNKNOWN_SERVICE),
        (SetStandby("nosuch", standby=True), {}, Refusal.UNKNOWN_NODE),
        (MoveService("mysql", "nosuch"), {}, Refusal.UNKNOWN_NODE),
        (MoveService("gfs", "b"), {}, Refusal.RUNS_EVERYWHERE),
        (MoveService("mysql", "b"), {"stopped": ("mysql",)}, Refusal.SERVICE_STOPPED),
        (MoveService("pinned", "b"), {}, Refusal.NOT_A_CANDIDATE),
        (MoveService("pinned"), {}, Refusal.NO_OTHER_NODE),
        (MoveService("mysql", "a"), {}, Refusal.ALREADY_THERE),
        (MoveService("mysql", "b"), {"members": ("a",)}, Refusal.NODE_NOT_ELIGIBLE),
        (MoveService("mysql"), {"members": ("a",)}, Refusal.NODE_NOT_ELIGIBLE),
        (MoveService("mysql", "b"), {"banned": {"mysql": ("b",)}}, Refusal.NODE_NOT_ELIGIBLE),
    ],
)
def test_a_command_is_refused_with_its_reason(command, changes, refusal):
    """Nothing is taken that could not be carried out."""
    assert judge(command, scene(**changes)) is refusal


@pytest.mark.parametrize(("here", "target"), [("a", "b"), ("b", "a")])
def test_a_move_without_a_node_goes_to_the_primary_or_to_the_next(here, target):
    """``hostd move SERVICE``."""
    taken = judge(MoveService("mysql"), scene(current={"mysql": (here,)}))
    assert isinstance(taken, Taken) and taken.node == target


def test_a_service_that_runs_nowhere_moves_to_its_primary():
    """Nothing is excluded then."""
    taken = judge(MoveService("mysql"), scene(current={}))
    assert isinstance(taken, Taken) and taken.node == "a"
