"""What is the case now?  The gathering of words and wishes that decisions are made from."""

import pytest

from hostd.core import situation
from hostd.core.services import Ladder
from hostd.core.snapshot import Assignment, WishKind
from hostd.core.terms import Clearance, Epoch, Mode, Phase, ServiceState, Why
from hostd.core.wishes import Wishes
from tests.core.builders import OTHER_ADDRESS, address, agent, everywhere, plan, report, service, word
from tests.core.rungs import DISK_ADDRESS_MYSQL, Climb, running

RUNNING, STOPPED = report(ServiceState.RUNNING), report()
WITH_ADDRESS = service("web", resources=(address(), agent("httpd")))
PLAN = plan(service(), WITH_ADDRESS, everywhere(), service("job", without_fencing=True))
BOTH_ACTIVE = {"a": Mode.ACTIVE, "b": Mode.ACTIVE}


def gathered(modes=None, wishes=None, reports=None, differing=(), failback=None):
    return situation.circumstances(
        PLAN, BOTH_ACTIVE if modes is None else modes, wishes or Wishes(), reports or {}, {}, differing, failback or {}
    )


def wished(kind, subject, value="yes"):
    wishes = Wishes()
    wishes.make("a", kind, subject, value)
    return wishes


# -- who may run services --------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "standby", "members", "why"),
    [
        (BOTH_ACTIVE, "", ("a", "b"), Why.NODE_STANDBY),
        ({"a": Mode.ACTIVE}, "", ("a",), Why.NODE_STANDBY),
        (BOTH_ACTIVE, "b", ("a",), Why.NODE_STANDBY),
        ({"a": Mode.ACTIVE}, "a", (), Why.NODE_STANDBY),
        ({"a": Mode.LEAVING, "b": Mode.ACTIVE}, "", ("b",), Why.NODE_LEAVING),
        ({"a": Mode.LEAVING}, "", (), Why.NODE_LEAVING),
        ({}, "", (), Why.NO_NODE),
    ],
)
def test_members_are_present_active_and_not_in_standby(modes, standby, members, why):
    """And if nobody is, the reason."""
    now = gathered(modes, wished(WishKind.STANDBY, standby) if standby else None)
    assert now.members == members
    assert members or now.absent_why is why


def test_what_differs_or_is_maintained_is_frozen():
    """With the reason that the operator can do most about."""
    now = gathered(wishes=wished(WishKind.MAINTENANCE, ""), differing=("web",))
    assert now.frozen["web"] is Why.CONFIGURATION_DIFFERS
    assert now.frozen["mysql"] is Why.MAINTENANCE


def test_bans_are_those_that_members_report():
    """Per service, in configured order."""
    banned = report(ServiceState.FAILED, banned=True)
    now = gathered(reports={"b": {"mysql": banned, "web": STOPPED}, "a": {"mysql": banned}})
    assert now.banned["mysql"] == ("a", "b") and now.banned["web"] == ()


def test_wishes_and_failback_are_sorted_out():
    """Due and waiting, stopped and moved."""
    now = gathered(wishes=wished(WishKind.MOVED, "mysql", "b"), failback={"web": True, "job": False})
    assert now.moved["mysql"] == "b" and now.stopped == ()
    assert (now.failback, now.failback_waits) == (("web",), ("job",))
    assert gathered(wishes=wished(WishKind.STOPPED, "web")).stopped == ("web",)


# -- what may be started alone -----------------------------------------------------------


def members_alone(clearance=Clearance.GUARD, said=None, last=None, **changes):
    known = {"fencing": False, "heard": said is not None, "new_life": False, "address_fell_silent": False, **changes}
    return situation.members_alone(PLAN, "a", {}, clearance, said, last if said is None else said, **known)


@pytest.mark.parametrize("clearance", [Clearance.FENCED, Clearance.CONFIRMED, Clearance.LEFT])
def test_after_a_proof_everything_may_be_started(clearance):
    """It is off, or has left."""
    assert members_alone(clearance) == members_alone(clearance, fencing=True)
    assert members_alone(clearance).provable is None


def test_a_guard_proves_services_with_an_address():
    """And those that the operator released, and those that run everywhere anyway."""
    assert members_alone().provable == ("web", "gfs", "job")


def test_a_guard_proves_all_if_the_peer_had_an_address_that_fell_silent():
    """Then it is the peer that is gone, not only its service."""
    assert members_alone(address_fell_silent=True).provable is None


@pytest.mark.parametrize("phase", [Phase.JOINING, Phase.STARTUP_FENCING, Phase.LEFT])
def test_a_newcomer_is_taken_at_its_word(phase):
    """What it still runs stays there."""
    known = members_alone(said=word(phase=phase, services={"mysql": RUNNING}))
    assert known.outside == {"mysql": RUNNING} and not known.outside_unknown


@pytest.mark.parametrize("phase", [Phase.MEMBER, Phase.PEER_LOST, Phase.ALONE])
def test_a_peer_that_still_acts_proves_nothing(phase):
    """Its "stopped" may be about to change: one of us has yet to yield (story 10)."""
    assert members_alone(said=word(phase=phase, services={"mysql": STOPPED})).outside_unknown


def test_a_new_life_that_has_said_nothing_may_run_anything():
    """The clearance does not cover it."""
    assert members_alone(new_life=True).outside_unknown


def test_a_peer_that_is_heard_again_without_its_word_may_run_anything():
    """A guard's clearance ends when the peer is heard."""
    assert members_alone(heard=True, last=word(services={})).outside_unknown


# -- addresses, goodbyes, digests ------------------------------------------------------------


def test_the_guard_asks_for_every_address_that_is_not_here():
    """Also for those that are just being added."""
    other = service("web", resources=(address(OTHER_ADDRESS),))
    ladders = {"mysql": running().ladder, "web": Climb(other).ladder}
    assert situation.addresses_to_ask_for(plan(DISK_ADDRESS_MYSQL, other), ladders, fencing=False) == (OTHER_ADDRESS,)


def test_an_address_that_is_left_over_does_not_excuse_the_guard():
    """It is up here, its service is not: another node may run that (seed 60104 without fencing)."""
    web = service("web", resources=(address(OTHER_ADDRESS), agent("web")))
    ladder = Ladder(web, 0, (OTHER_ADDRESS,), unfinished=False)
    assert ladder.addresses_up == [OTHER_ADDRESS]
    assert situation.addresses_to_ask_for(plan(web), {"web": ladder}, fencing=True) == (OTHER_ADDRESS,)


def test_a_node_that_runs_everything_asks_whether_it_is_cut_off_unless_a_device_tells():
    """Else it would start a service without an address on a dead interface (seed 201274 without fencing)."""
    ladders = {"mysql": running().ladder}
    (mine,) = DISK_ADDRESS_MYSQL.addresses
    assert situation.addresses_to_ask_for(plan(DISK_ADDRESS_MYSQL), ladders, fencing=False) == (mine,)
    assert situation.addresses_to_ask_for(plan(DISK_ADDRESS_MYSQL), ladders, fencing=True) == ()


@pytest.mark.parametrize(
    ("services", "owners", "had"),
    [
        ({"web": RUNNING}, (), True),
        ({"web": STOPPED}, (), False),
        ({"web": STOPPED}, ("b",), True),
        ({"web": STOPPED}, ("a",), False),
        ({"mysql": RUNNING}, (), False),
    ],
    ids=["it ran", "it did not", "it was assigned", "we were assigned", "it ran what has no address"],
)
def test_whether_the_peer_had_an_address(services, owners, had):
    """By its last word or by assignment."""
    table = {"web": Assignment(owners, Epoch(4, 1))}
    assert situation.peer_had_address(PLAN, "b", word(services=services), table) is had


@pytest.mark.parametrize(
    ("last", "owners", "goodbye"),
    [
        (None, (), False),
        (word(phase=Phase.LEFT), (), True),
        (word(mode=Mode.LEAVING, services={"web": STOPPED}), (), True),
        (word(mode=Mode.LEAVING, services={"web": RUNNING}), (), False),
        (word(mode=Mode.LEAVING, services={"web": STOPPED}), ("b",), False),
        (word(services={"web": STOPPED}), (), False),
    ],
    ids=["silent from the start", "left", "leaving, empty", "leaving, running", "leaving, assigned", "empty"],
)
def test_who_said_goodbye(last, owners, goodbye):
    """LEFT, or leaving with nothing running and nothing assigned: it needs no clearance."""
    table = {"web": Assignment(owners, Epoch(4, 1))}
    assert situation.said_goodbye("b", last, table) is goodbye


def test_services_differ_by_digest_or_by_being_unknown():
    """A peer that is not heard differs in nothing."""
    known = plan(service(), service("web"), service("job"))
    theirs = word(digests={"mysql": "mysql", "web": "another"})
    assert situation.differing_services(known, theirs) == ("web", "job")
    assert situation.differing_services(known, None) == ()


BLOCKED = report(ServiceState.BLOCKED)


@pytest.mark.parametrize(
    ("services", "on_probation", "blocked"),
    [
        ({"web": BLOCKED}, (), True),
        ({"web": BLOCKED, "mysql": RUNNING}, (), True),
        ({"web": BLOCKED}, ("web",), True),
        ({"web": BLOCKED, "mysql": STOPPED}, ("web",), True),
        ({"web": BLOCKED, "mysql": RUNNING}, ("web",), False),
        ({"web": BLOCKED, "mysql": RUNNING}, ("mysql",), True),
        ({"web": BLOCKED, "mysql": BLOCKED, "job": RUNNING}, ("web",), True),
        ({"web": RUNNING}, (), False),
    ],
)
def test_a_new_service_never_costs_its_node_the_others(services, on_probation, blocked):
    """Nor does it shield one that is not new."""
    assert situation.is_blocked(word(services=services), on_probation) is blocked
