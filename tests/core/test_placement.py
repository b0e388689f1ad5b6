"""Who should run what?  Primary, backups, failback, wishes, requirements, bans."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.core.placement import Circumstances, Decision, place
from hostd.core.terms import Why
from tests.core.builders import everywhere, plan, service

BOTH = ("a", "b")


def now(**changes):
    """Both nodes may run services."""
    return Circumstances(**{"members": BOTH, **changes})


def placed(*services, **changes):
    return place(plan(*services), now(**changes))


def one(changes, **service_changes):
    """The decision for a single service on a, then b."""
    return placed(service(**service_changes), **changes)["mysql"]


# -- primary and backups ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "owners", "why"),
    [
        ({}, ("a",), Why.PRIMARY),
        ({"members": ("b",)}, ("b",), Why.BACKUP),
        ({"members": ()}, (), Why.NO_NODE),
        ({"members": (), "absent_why": Why.NODE_STANDBY}, (), Why.NODE_STANDBY),
        ({"members": (), "absent_why": Why.NODE_LEAVING}, (), Why.NODE_LEAVING),
        ({"banned": {"mysql": ("a",)}}, ("b",), Why.BACKUP),
        ({"banned": {"mysql": BOTH}}, (), Why.FAILED_HERE),
        ({"stopped": ("mysql",)}, (), Why.OPERATOR_STOPPED),
        ({"stopped": ("mysql",), "current": {"mysql": ("a",)}}, (), Why.OPERATOR_STOPPED),
        ({"current": {"mysql": ("a",)}}, ("a",), Why.PRIMARY),
        ({"current": {"mysql": ("b",)}}, ("b",), Why.STAYS),
        ({"current": {"mysql": ("b",)}, "failback": ("mysql",)}, ("a",), Why.FAILBACK),
        ({"current": {"mysql": ("b",)}, "failback_waits": ("mysql",)}, ("b",), Why.WAITS_FOR_FAILBACK),
        ({"current": {"mysql": ("b",)}, "failback": ("mysql",), "members": ("b",)}, ("b",), Why.STAYS),
        (
            {"current": {"mysql": ("b",)}, "failback": ("mysql",), "banned": {"mysql": ("a",)}},
            ("b",),
            Why.STAYS,
        ),
        ({"current": {"mysql": ("a",)}, "moved": {"mysql": "b"}}, ("b",), Why.MOVED),
        ({"current": {"mysql": ("b",)}, "moved": {"mysql": "b"}, "failback": ("mysql",)}, ("b",), Why.MOVED),
        ({"moved": {"mysql": "b"}, "members": ("a",)}, ("a",), Why.PRIMARY),
        ({"moved": {"mysql": "b"}, "banned": {"mysql": ("b",)}}, ("a",), Why.PRIMARY),
        ({"current": {"mysql": ("b",)}, "frozen": {"mysql": Why.MAINTENANCE}}, ("b",), Why.MAINTENANCE),
        ({"frozen": {"mysql": Why.CONFIGURATION_DIFFERS}}, (), Why.CONFIGURATION_DIFFERS),
        (
            {"current": {"mysql": ("b",)}, "frozen": {"mysql": Why.MAINTENANCE}, "moved": {"mysql": "a"}},
            ("b",),
            Why.MAINTENANCE,
        ),
    ],
    ids=[
        "the primary", "the backup if the primary is away", "nobody if nobody is there", "nobody: standby",
        "nobody: leaving", "not where it failed", "nobody where it failed everywhere", "stopped by the operator",
        "stopped though it runs", "stays on its primary", "stays without failback", "fails back", "waits to fail back",
        "no failback to who is away", "no failback to where it failed", "moved", "moved beats failback",
        "a move to who is away is void", "a move to where it failed is void", "maintenance keeps it",
        "differing definitions do not start", "maintenance beats a move",
    ],
)  # fmt: skip
def test_where_a_service_runs(changes, owners, why):
    """One service on a, then b: each circumstance, with its reason."""
    assert one(changes) == Decision(owners, why)


def test_backups_are_tried_in_order():
    """The order of the configuration, not of the node list."""
    assert one({}, candidates=("b", "a")).owners == ("b",)
    assert one({"banned": {"mysql": ("b",)}}, candidates=("b", "a")).owners == ("a",)


def test_a_node_that_is_no_candidate_never_runs_it():
    """Even if it is the only one left."""
    assert one({"members": ("b",)}, candidates=("a",)) == Decision((), Why.NO_NODE)


def test_what_is_frozen_is_still_given_away_by_a_leaving_node():
    """Leaving is irrevocable, so it has to end."""
    frozen = {"mysql": Why.MAINTENANCE}
    assert one({"current": {"mysql": ("a",)}, "frozen": frozen, "leaving": ("a",)}).owners == ()
    assert one({"current": {"mysql": ("b",)}, "frozen": frozen, "leaving": ("a",)}).owners == ("b",)


# -- on = "all" ---------------------------------------------------------------------------


def test_everywhere_is_every_member():
    """And not where it failed."""
    assert placed(everywhere())["gfs"] == Decision(BOTH, Why.EVERYWHERE)
    assert placed(everywhere(), members=("b",))["gfs"] == Decision(("b",), Why.EVERYWHERE)
    assert placed(everywhere(), banned={"gfs": ("a",)})["gfs"] == Decision(("b",), Why.EVERYWHERE)
    assert placed(everywhere(), banned={"gfs": BOTH})["gfs"] == Decision((), Why.FAILED_HERE)


# -- requirements ----------------------------------------------------------------------------


def test_a_service_runs_where_what_it_needs_can_run():
    """The failure of a requirement makes that node ineligible."""
    gfs, mysql = everywhere(), service(requires=("gfs",))
    assert placed(gfs, mysql)["mysql"].owners == ("a",)
    assert placed(gfs, mysql, banned={"gfs": ("a",)})["mysql"] == Decision(("b",), Why.BACKUP)
    assert placed(gfs, mysql, banned={"gfs": BOTH})["mysql"] == Decision((), Why.FAILED_HERE)


def test_a_service_stops_with_what_it_needs():
    """The operator stopped the requirement."""
    decided = placed(everywhere(), service(requires=("gfs",)), stopped=("gfs",))
    assert decided["mysql"] == Decision((), Why.REQUIREMENT_MISSING)


def test_an_exclusive_requirement_means_the_same_node():
    """Co-location: both follow the first of them, wherever one of them failed."""
    disk, mysql = service("disk"), service(requires=("disk",))
    for changes in ({}, {"banned": {"mysql": ("a",)}}, {"banned": {"disk": ("a",)}}, {"moved": {"mysql": "b"}}):
        decided = placed(disk, mysql, **changes)
        assert decided["disk"].owners == decided["mysql"].owners == (("b",) if changes else ("a",))


def test_a_group_moves_back_together():
    """Failback of one is failback of all."""
    current = {"disk": ("b",), "mysql": ("b",)}
    decided = placed(service("disk"), service(requires=("disk",)), current=current, failback=("disk",))
    assert [decided[name].owners for name in ("disk", "mysql")] == [("a",), ("a",)]


def test_what_is_stopped_does_not_hold_its_group():
    """A dependent that the operator stopped, and that failed on a, does not keep the disk from a."""
    decided = placed(
        service("disk"), service(requires=("disk",)), stopped=("mysql",), banned={"mysql": ("a",)}
    )  # fmt: skip
    assert decided["disk"].owners == ("a",)


@pytest.mark.parametrize(
    ("where", "decision"),
    [(("b",), Decision(("b",), Why.BACKUP)), ((), Decision((), Why.REQUIREMENT_MISSING))],
)
def test_a_service_runs_where_its_frozen_requirement_is_or_nowhere(where, decision):
    """It has to run on the same node, and that one does not move."""
    decided = placed(everywhere(), service(requires=("gfs",)), current={"gfs": where}, frozen={"gfs": Why.MAINTENANCE})
    assert decided["mysql"] == decision


def test_a_node_that_is_cut_off_keeps_only_what_runs_everywhere():
    """Its clients do not reach it; what is mounted there may stay."""
    decided = placed(everywhere(), service(requires=("gfs",)), current={"mysql": ("a",)}, cut_off=("a",))
    assert decided["gfs"].owners == ("a", "b")
    assert decided["mysql"] == Decision(("b",), Why.BACKUP)


def test_chains_of_requirements_are_followed():
    """gfs, then disk, then mysql, in whatever order the plan names them."""
    mysql, disk, gfs = service(requires=("disk",)), service("disk", requires=("gfs",)), everywhere()
    decided = placed(mysql, disk, gfs, banned={"gfs": ("a",)})
    assert (decided["mysql"].owners, decided["disk"].owners, decided["gfs"].owners) == (("b",),) * 3
    assert list(decided) == ["mysql", "disk", "gfs"]


def test_after_does_not_place():
    """It orders starts and nothing else."""
    decided = placed(service("disk"), service(after=("disk",)), banned={"disk": ("a",)})
    assert (decided["disk"].owners, decided["mysql"].owners) == (("b",), ("a",))


# -- whatever the circumstances ----------------------------------------------------------------

PLAN = plan(
    everywhere(),
    service("disk", requires=("gfs",)),
    service(requires=("disk",), candidates=("a",)),
    service("web", candidates=("b", "a"), after=("mysql",)),
    service("cyrus", requires=("gfs",), candidates=("b", "a")),
)
NAMES = [s.name for s in PLAN.services]
nodes = st.lists(st.sampled_from(BOTH), unique=True).map(lambda some: tuple(sorted(some)))
names = st.lists(st.sampled_from(NAMES), unique=True).map(tuple)
one_node = st.sampled_from([(), ("a",), ("b",)])
circumstances = st.builds(
    Circumstances,
    members=nodes,
    current=st.fixed_dictionaries({name: nodes if name == "gfs" else one_node for name in NAMES}),
    banned=st.fixed_dictionaries(dict.fromkeys(NAMES, nodes)),
    stopped=names,
    moved=st.fixed_dictionaries({name: st.sampled_from(["", "a", "b"]) for name in NAMES if name != "gfs"}),
    frozen=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([Why.MAINTENANCE, Why.CONFIGURATION_DIFFERS])),
    failback=names,
)


@given(circumstances)
def test_an_exclusive_service_is_never_on_two_nodes(case):
    """Whatever holds."""
    decided = place(PLAN, case)
    assert all(len(decided[s.name].owners) <= 1 for s in PLAN.services if not s.everywhere)


@given(circumstances)
def test_nothing_is_placed_where_it_may_not_run(case):
    """On a node that is no member or no candidate, or where it or its requirement failed; frozen ones stay."""
    for name, decision in place(PLAN, case).items():
        if name in case.frozen:
            assert decision.owners == case.current[name]
            continue
        for node in decision.owners:
            assert node in case.members and node in PLAN.service(name).candidates
            assert all(node not in case.banned[n] for n in (name, *PLAN.service(name).requires))


@given(circumstances)
def test_what_is_required_runs_on_the_same_node(case):
    """Every service that is not frozen finds its requirements where it is placed."""
    decided = place(PLAN, case)
    for s in PLAN.services:
        if s.name not in case.frozen:
            assert all(set(decided[s.name].owners) <= set(decided[need].owners) for need in s.requires)


@given(circumstances)
def test_placement_comes_to_rest(case):
    """What is placed stays placed: once moved there, nothing calls for another move."""
    decided = place(PLAN, case)
    there = msgspec.structs.replace(case, current={name: d.owners for name, d in decided.items()}, failback=())
    again = place(PLAN, there)
    assert {n: d.owners for n, d in again.items()} == {n: d.owners for n, d in decided.items()}
