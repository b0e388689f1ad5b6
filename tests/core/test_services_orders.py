"""One service's ladder: its addresses, and the orders that are neither start nor stop."""

import pytest

from hostd.core.events import AddressCause, AddressOutcome
from hostd.core.services import ADDRESS_BAN_MS, CONFLICT_RETRY_MS
from hostd.core.terms import Health, ResourceState, ServiceState, Why
from hostd.core.wants import Order
from tests.core.builders import ADDRESS, address, agent, service
from tests.core.rungs import STOPPED, running, stopped

ADD, REMOVE = f"add {ADDRESS}", f"remove {ADDRESS}"
INTERVAL_MS = agent().monitor_interval_ms
ONLY_ADDRESS = service(resources=(address(),))


# -- addresses ----------------------------------------------------------------------------------


def test_an_address_that_vanished_is_put_back_in_place():
    """The rungs above it are not touched."""
    climb = running()
    climb.ladder.address_lost(climb.now_ms, ADDRESS, AddressCause.REMOVED)
    assert climb.settle() == [ADD]
    assert climb.done(ADD) == []
    assert climb.state is ServiceState.RUNNING and climb.rungs == [ResourceState.RUNNING] * 3
    assert len(climb.announced) == 2


def test_an_interface_that_went_down_moves_the_service_for_a_while():
    """Both nodes may have lost the LAN, so the ban ends."""
    climb = running()
    climb.ladder.address_lost(climb.now_ms, ADDRESS, AddressCause.INTERFACE_DOWN)
    climb.settle()
    climb.drive()
    assert climb.state is ServiceState.FAILED and climb.ladder.banned
    assert climb.ladder.deadline_at_ms() == climb.now_ms + ADDRESS_BAN_MS
    assert climb.settle(ADDRESS_BAN_MS) == ["start disk"]


def test_a_conflict_is_tried_again():
    """Somebody answers for the address: its lease may be running out."""
    climb = stopped(ONLY_ADDRESS)
    climb.order(Order.RUN)
    assert climb.done(ADD, outcome=AddressOutcome.CONFLICT) == []
    assert climb.ladder.why is Why.ADDRESS_CONFLICT and climb.state.is_stopped
    assert climb.ladder.deadline_at_ms() == climb.now_ms + CONFLICT_RETRY_MS
    assert climb.settle(CONFLICT_RETRY_MS - 1) == []
    assert climb.settle(1) == [ADD]
    climb.done(ADD)
    assert climb.state is ServiceState.RUNNING


def test_an_address_that_cannot_be_added_gives_the_service_up_for_a_while():
    """No interface for it here."""
    climb = stopped(ONLY_ADDRESS)
    climb.order(Order.RUN)
    climb.done(ADD, outcome=AddressOutcome.FAILED)
    climb.drive()
    assert climb.state is ServiceState.FAILED and climb.ladder.ban_ends_at_ms is not None


# -- hold, undo, yield, freeze ---------------------------------------------------------------------


def test_hold_starts_nothing_and_keeps_what_runs():
    """A finished start stays, the next does not come."""
    climb = stopped()
    climb.order(Order.RUN)
    climb.order(Order.HOLD)
    assert climb.done("start disk") == []
    assert climb.rungs[0] is ResourceState.RUNNING


@pytest.mark.parametrize("order", [Order.HOLD, Order.UNDO])
def test_a_local_recovery_waits_while_the_peer_is_lost(order):
    """What failed stays down until it is known who acts."""
    climb = running()
    climb.order(order)
    climb.ladder.process_exited(climb.now_ms, "mysql")
    assert climb.settle() == []
    assert climb.order(Order.RUN) == ["stop mysql"]


def test_undo_climbs_an_unfinished_ladder_down_again():
    """◆ Story 6: links lost in the middle of a ladder, the address not yet up."""
    climb = stopped()
    climb.order(Order.RUN)
    climb.order(Order.UNDO)
    assert climb.done("start disk") == ["stop disk"]
    climb.drive()
    assert climb.state is ServiceState.STOPPED


def test_undo_keeps_what_runs():
    """Only a ladder in the middle is undone."""
    assert running().order(Order.UNDO) == []


def test_yield_drops_addresses_at_once_whatever_is_under_way():
    """Before anything else, in the middle of a start."""
    climb = stopped()
    climb.order(Order.RUN)
    climb.done("start disk")
    climb.done(ADD)
    assert climb.order(Order.YIELD) == [REMOVE]
    climb.done(REMOVE)
    assert climb.done("start mysql") == ["stop mysql"]
    climb.drive()
    assert climb.state is ServiceState.STOPPED


def test_yield_removes_an_address_that_is_just_being_added():
    """Its outcome, when it comes, counts no more."""
    climb = stopped(ONLY_ADDRESS)
    climb.order(Order.RUN)
    adding = climb.open.pop(ADD)
    assert climb.order(Order.YIELD) == [REMOVE]
    assert not climb.finish(adding)
    assert climb.rungs == [ResourceState.STOPPING]
    climb.drive()
    assert climb.state is ServiceState.STOPPED


def test_freeze_keeps_hands_off_and_goes_on_monitoring():
    """No start, stop or recovery."""
    climb = running()
    assert climb.order(Order.FREEZE, after_ms=INTERVAL_MS) == []
    assert len(climb.monitors) == 2
    climb.monitored(health=STOPPED)
    assert climb.settle(10_000) == []


def test_what_the_operator_mended_by_hand_is_running_again():
    """Under maintenance a failed rung goes on being monitored, and nothing is restarted afterwards."""
    climb = running(service())
    climb.order(Order.FREEZE, after_ms=INTERVAL_MS)
    climb.monitored(health=STOPPED)
    assert climb.state is not ServiceState.RUNNING
    climb.settle(0)
    climb.settle(INTERVAL_MS)
    climb.monitored(health=Health.RUNNING)
    assert climb.state is ServiceState.RUNNING
    assert climb.order(Order.RUN) == []
