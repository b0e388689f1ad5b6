"""How long may an address stay?  PROTOCOL.md section 5.4, address leases."""

from hypothesis import given
from hypothesis import strategies as st

from hostd.core.events import AddressFinished, AddressOutcome
from hostd.core.leases import ENDLESS_MS, Leases
from hostd.core.terms import Ids
from tests.core.builders import ADDRESS, OTHER_ADDRESS, T0_MS

LEASE_MS = 5_000
STEP_MS = LEASE_MS // 5


class Holder:
    """Leases with their clock and numbers; both addresses up unless told otherwise."""

    def __init__(self, lease_ms=LEASE_MS, up=(ADDRESS,)):
        self.leases, self.ids, self.now_ms, self.up = Leases(lease_ms), Ids(), T0_MS, list(up)
        self.hold()

    def hold(self, after_ms=0):
        self.now_ms += after_ms
        return self.leases.hold(self.now_ms, self.up, self.ids)

    def answer(self, renewal, outcome=AddressOutcome.DONE):
        return self.leases.finished(AddressFinished(renewal.request_id, outcome))


def test_a_lease_is_renewed_five_times_in_its_time():
    """Every second by default."""
    holder = Holder()
    assert holder.hold(STEP_MS - 1) == []
    for _ in range(5):
        (renewal,) = holder.hold(1)
        assert renewal.address == ADDRESS
        assert holder.answer(renewal) is None
        assert holder.hold(STEP_MS - 1) == []


def test_a_late_renewal_is_not_carried_out():
    """◆ Story 8: not later than half a lease after the one before, since it would re-create what is gone."""
    holder = Holder()
    (renewal,) = holder.hold(STEP_MS)
    assert renewal.not_after_ms == T0_MS + LEASE_MS // 2


def test_the_limit_counts_from_when_the_last_renewal_was_asked_for():
    """Not from when its outcome came, which may be late."""
    holder = Holder()
    (first,) = holder.hold(STEP_MS)
    asked_at_ms = holder.now_ms
    holder.now_ms += 900
    holder.answer(first)
    (second,) = holder.hold(STEP_MS - 900)
    assert second.not_after_ms == asked_at_ms + LEASE_MS // 2


def test_an_unanswered_renewal_is_not_repeated():
    """Every effect is answered once; two under way could pass each other."""
    holder = Holder()
    holder.hold(STEP_MS)
    assert holder.hold(STEP_MS * 3) == []


def test_a_failed_renewal_is_a_lost_address():
    """It came too late and the edge removed it, or it was missing: it is never renewed again."""
    holder = Holder()
    (renewal,) = holder.hold(STEP_MS)
    assert holder.answer(renewal, AddressOutcome.FAILED) == ADDRESS
    assert holder.leases.held == {}


def test_what_is_no_longer_up_is_no_longer_renewed():
    """◆ An address that is gone is added anew under the guard, never renewed."""
    holder = Holder()
    (renewal,) = holder.hold(STEP_MS)
    holder.up = []
    assert holder.hold(STEP_MS) == []
    assert holder.answer(renewal, AddressOutcome.FAILED) is None


def test_an_address_that_came_back_has_a_new_lease():
    """The outcome of a renewal of before is not its own."""
    holder = Holder()
    (before,) = holder.hold(STEP_MS)
    holder.up = []
    holder.hold()
    holder.up = [ADDRESS]
    assert holder.hold() == []
    assert holder.answer(before, AddressOutcome.FAILED) is None
    assert list(holder.leases.held) == [ADDRESS]


def test_without_a_lease_nothing_is_renewed():
    """``address_lease = false``."""
    holder = Holder(lease_ms=0)
    assert holder.hold(60_000) == []
    assert holder.leases.extend(60_000, holder.ids) == []
    assert holder.leases.deadline_at_ms() is None


def test_before_the_daemon_goes_every_lease_is_extended():
    """Detaching: the services stay, so their addresses have to."""
    holder = Holder(up=(ADDRESS, OTHER_ADDRESS))
    extended = holder.leases.extend(60_000, holder.ids)
    assert [(e.address, e.lease_ms) for e in extended] == [(ADDRESS, 60_000), (OTHER_ADDRESS, 60_000)]
    assert all(e.not_after_ms == T0_MS + LEASE_MS // 2 for e in extended)


def test_an_address_left_by_an_earlier_life_is_renewed_at_once():
    """Its lease may be nearly over."""
    holder = Holder(up=())
    holder.leases.adopt(T0_MS, (ADDRESS,))
    holder.up = [ADDRESS]
    assert [renewal.address for renewal in holder.hold()] == [ADDRESS]


def test_under_maintenance_a_lease_outlives_the_daemon():
    """Hands off: the address stays even if hostd is stopped."""
    holder = Holder(up=(ADDRESS, OTHER_ADDRESS))
    holder.now_ms += STEP_MS
    renewals = holder.leases.hold(holder.now_ms, holder.up, holder.ids, endless=[ADDRESS])
    assert [(r.address, r.lease_ms) for r in renewals] == [(ADDRESS, ENDLESS_MS), (OTHER_ADDRESS, 0)]


def test_the_deadline_is_the_next_renewal():
    """Of those that nothing is open for."""
    holder = Holder()
    assert holder.leases.deadline_at_ms() == T0_MS + STEP_MS
    holder.hold(STEP_MS)
    assert holder.leases.deadline_at_ms() is None


@given(st.lists(st.tuples(st.integers(0, 700), st.booleans(), st.booleans()), max_size=40))
def test_at_most_one_renewal_of_an_address_is_open(ticks):
    """Exactly one outcome for each, whatever the pace."""
    holder, waiting = Holder(), []
    for gap_ms, up, answered in ticks:
        holder.up = [ADDRESS] if up else []
        asked = holder.hold(gap_ms)
        waiting = [*waiting, *asked] if up else []
        assert len(waiting) <= 1
        if answered and waiting:
            holder.answer(waiting.pop())
