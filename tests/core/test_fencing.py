"""May we act for it?  PROTOCOL.md section 5: devices, the guard, and what each outcome proves."""

from hostd.core.effects import CancelFence, CancelProbe, ClearanceTurned, FencePeer, ProbeAddresses
from hostd.core.events import FenceFinished, ProbeFinished
from hostd.core.fencing import (
    ASK_AGAIN_MS,
    FENCE_AGAIN_MAX_MS,
    FENCE_AGAIN_MS,
    FRESH_MS,
    PROBE_OVER_MS,
    PROBES,
    Clearing,
    Need,
)
from hostd.core.terms import Clearance, Ids
from tests.core.builders import ADDRESS, LATER, OTHER_ADDRESS, T0_MS, THEIRS, facts, of


def need(**changes):
    """PEER_LOST without fencing; the peer may hold one address."""
    wanted = {
        "seeking": True, "startup": False, "early": False, "devices": False, "peer": "b", "incarnation": THEIRS,
        "addresses": (ADDRESS,), "delay_ms": 0, "said_goodbye": False,
    }  # fmt: skip
    return Need(**{**wanted, **changes})


class Search:
    """A Clearing with its clock and numbers."""

    def __init__(self):
        self.clearing, self.ids, self.now_ms = Clearing(), Ids(), T0_MS

    def seek(self, after_ms=0, **changes):
        self.now_ms += after_ms
        return self.clearing.seek(self.now_ms, need(**changes), self.ids)

    def probed(self, request_id=None, listened=True, **found):
        request_id = request_id or self.clearing.probe_id
        return self.clearing.probe_finished(self.now_ms, ProbeFinished(request_id, listened, **found))

    def fenced(self, request_id=None, *, confirmed=True, detail=""):
        request_id = request_id or self.clearing.fence_id
        return self.clearing.fence_finished(self.now_ms, FenceFinished(request_id, confirmed, detail))

    @property
    def obtained(self):
        return self.clearing.obtained


# -- the guard ----------------------------------------------------------------------


def test_the_guard_asks_five_times_over_half_a_second():
    """For every address that the peer may hold."""
    (probe,) = of(ProbeAddresses, Search().seek())
    assert (probe.addresses, probe.count, probe.over_ms) == ((ADDRESS,), 5, 500)
    assert (PROBES, PROBE_OVER_MS) == (5, 500)


def test_the_guard_begins_before_the_peer_is_lost():
    """At warntime, so that the answer is there at deadtime."""
    search = Search()
    assert of(ProbeAddresses, search.seek(seeking=False, early=True))
    search.now_ms += 500
    search.probed()
    assert search.obtained is Clearance.NONE
    search.seek(400)
    assert search.obtained is Clearance.GUARD


def test_an_early_silence_is_no_clearance_by_itself():
    """Nobody is cleared who is not lost."""
    search = Search()
    search.seek(seeking=False, early=True)
    search.probed()
    search.seek(100, seeking=False, early=True)
    assert search.obtained is Clearance.NONE


def test_silence_counts_only_if_somebody_else_was_heard():
    """A dead interface, no carrier or an own pause: silence proves nothing (story 7)."""
    search = Search()
    search.seek()
    search.probed(listened=False)
    search.seek(10)
    assert search.obtained is Clearance.NONE


def test_any_answer_blocks_the_takeover():
    """This is a partition: the address stays where it is."""
    search = Search()
    search.seek()
    told = search.probed(answered=(ADDRESS,))
    search.seek(10)
    assert search.obtained is Clearance.NONE
    assert facts(ClearanceTurned, told) == [ClearanceTurned(False, Clearance.NONE)]


def test_an_answer_is_asked_for_again():
    """Its lease may be running out."""
    search = Search()
    search.seek()
    search.probed(answered=(ADDRESS,))
    assert search.seek(ASK_AGAIN_MS - 1) == []
    assert search.clearing.deadline_at_ms(search.now_ms) == search.now_ms + 1
    assert of(ProbeAddresses, search.seek(1))
    search.probed()
    search.seek()
    assert search.obtained is Clearance.GUARD


def test_the_same_answer_is_told_once():
    """The log is for people."""
    search = Search()
    search.seek()
    assert search.probed(answered=(ADDRESS,)) != []
    search.seek(ASK_AGAIN_MS)
    assert search.probed(answered=(ADDRESS,)) == []


def test_a_silent_guard_goes_stale():
    """◆ It proves nothing of an address that came up since."""
    search = Search()
    search.seek(seeking=False, early=True)
    search.probed()
    assert of(ProbeAddresses, search.seek(FRESH_MS))
    assert search.obtained is Clearance.NONE


def test_the_guard_has_to_have_asked_for_everything_that_counts_now():
    """An address that we lost meanwhile may be the peer's by now."""
    search = Search()
    search.seek(seeking=False, early=True)
    search.probed()
    search.seek(10, addresses=(ADDRESS, OTHER_ADDRESS))
    assert search.obtained is Clearance.NONE


def test_no_address_at_stake_needs_no_guard():
    """We hold them all, or there are none: what may then be started is decided elsewhere."""
    search = Search()
    search.seek(addresses=())
    assert search.obtained is Clearance.GUARD


def test_a_late_probe_of_an_earlier_loss_is_ignored():
    """◆ An outcome counts only for the open request (story 4)."""
    search = Search()
    search.seek()
    late = search.clearing.probe_id
    assert search.seek(10, seeking=False) == [CancelProbe(late)]
    search.seek(5_000)
    search.probed(request_id=late)
    search.seek(10)
    assert search.obtained is Clearance.NONE and search.clearing.probe_id != late


# -- devices ------------------------------------------------------------------------


def test_with_fencing_silence_of_addresses_clears_nothing():
    """The stricter proof was asked for."""
    search = Search()
    assert of(ProbeAddresses, search.seek(devices=True)) == []
    assert search.obtained is Clearance.NONE


def test_devices_are_not_asked_before_the_peer_is_lost():
    """warntime is for questions, not for shots."""
    assert Search().seek(seeking=False, early=True, devices=True) == []


def test_a_shot_names_the_life_known_when_it_was_issued():
    """◆ And only that life is cleared by it."""
    search = Search()
    (shot,) = of(FencePeer, search.seek(devices=True))
    assert (shot.node, shot.incarnation) == ("b", THEIRS)
    search.seek(10, devices=True, incarnation=LATER)
    search.fenced()
    assert (search.obtained, search.clearing.cleared) == (Clearance.FENCED, THEIRS)


def test_only_a_confirmed_off_counts():
    """A device that failed proves nothing."""
    search = Search()
    search.seek(devices=True)
    search.fenced(confirmed=False)
    search.seek(10, devices=True)
    assert search.obtained is Clearance.NONE


def test_a_late_shot_of_an_earlier_loss_is_ignored():
    """◆ Story 4: leaving the phase cancels the request, its outcome counts no more."""
    search = Search()
    search.seek(devices=True)
    late = search.clearing.fence_id
    assert search.seek(10, seeking=False) == [CancelFence(late)]
    search.seek(5_000, devices=True)
    assert search.fenced(request_id=late) == []
    assert search.obtained is Clearance.NONE


def test_one_shot_at_a_time():
    """At most one open request."""
    search = Search()
    search.seek(devices=True)
    assert search.seek(60_000, devices=True) == []


def test_a_failed_shot_is_repeated_later_and_later():
    """Up to a minute; the deadline says when."""
    search, waits = Search(), []
    search.seek(devices=True)
    for _ in range(20):
        search.fenced(confirmed=False)
        due_ms = search.clearing.deadline_at_ms(search.now_ms)
        waits.append(due_ms - search.now_ms)
        assert search.seek(waits[-1] - 1, devices=True) == []
        assert of(FencePeer, search.seek(1, devices=True))
    assert waits[0] == FENCE_AGAIN_MS and waits[-1] == FENCE_AGAIN_MAX_MS and waits == sorted(waits)


def test_only_the_first_shot_is_delayed():
    """The delay decides a duel; a repetition is no duel."""
    search = Search()
    (first,) = of(FencePeer, search.seek(devices=True, delay_ms=2_000))
    search.fenced(confirmed=False)
    (second,) = of(FencePeer, search.seek(FENCE_AGAIN_MS, devices=True, delay_ms=2_000))
    assert (first.delay_ms, second.delay_ms) == (2_000, 0)


# -- at a start -----------------------------------------------------------------------


def test_at_a_start_the_addresses_are_asked_before_the_peer_is_shot():
    """No fencing ping-pong."""
    search = Search()
    asked = search.seek(startup=True, devices=True)
    assert of(ProbeAddresses, asked) and not of(FencePeer, asked)
    search.probed()
    assert of(FencePeer, search.seek(startup=True, devices=True))


def test_at_a_start_a_peer_that_serves_is_not_shot():
    """It is we who are cut off."""
    search = Search()
    search.seek(startup=True, devices=True)
    for _ in range(20):
        search.probed(answered=(ADDRESS,))
        assert not of(FencePeer, search.seek(ASK_AGAIN_MS, startup=True, devices=True))


def test_at_a_start_each_shot_needs_a_fresh_answer():
    """While the device failed, the peer may have begun to serve."""
    search = Search()
    search.seek(startup=True, devices=True)
    search.probed()
    search.seek(startup=True, devices=True)
    search.fenced(confirmed=False)
    again = search.seek(FENCE_AGAIN_MS, startup=True, devices=True)
    assert of(ProbeAddresses, again) and not of(FencePeer, again)


def test_at_a_start_without_addresses_there_is_nobody_to_ask():
    """The devices are all there is."""
    assert of(FencePeer, Search().seek(startup=True, devices=True, addresses=()))


# -- other ways, and the end ---------------------------------------------------------------


def test_a_peer_that_said_goodbye_needs_no_clearance():
    """It left, or was leaving with nothing left: no device, no probe."""
    search = Search()
    effects = search.seek(said_goodbye=True, devices=True)
    assert search.obtained is Clearance.LEFT
    assert not of(FencePeer, effects) and not of(ProbeAddresses, effects)


def test_what_was_obtained_stands_until_the_search_ends():
    """And nothing more is asked."""
    search = Search()
    search.seek(devices=True)
    search.fenced()
    assert search.seek(60_000, devices=True) == []
    assert search.obtained is Clearance.FENCED


def test_being_heard_ends_the_search_and_calls_everything_off():
    """An open request is cancelled, and what was learnt is forgotten."""
    search = Search()
    search.seek(seeking=False, early=True)
    search.probed()
    search.seek(10, seeking=False, early=True)
    open_id = search.clearing.probe_id
    assert search.seek(10, seeking=False) == [CancelProbe(open_id)]
    search.seek(10)
    assert search.obtained is Clearance.NONE


def test_nothing_is_due_while_something_is_open():
    """Its outcome is what is waited for."""
    search = Search()
    search.seek()
    assert search.clearing.deadline_at_ms(search.now_ms) is None


# -- fencing of the storage: the guard, and the disks (section 5.2) -----------------------------


def cut_when_silent(**changes):
    """The guard has been silent, and the disks are being taken from the peer."""
    search = Search()
    search.seek(storage=True, **changes)
    search.probed()
    (shot,) = of(FencePeer, search.seek(storage=True, **changes))
    return search, shot


def test_a_silent_peer_loses_its_disks_and_is_cleared_for_data_only():
    """Not dead: its life counts as cleared, and nothing says that it is off."""
    search, shot = cut_when_silent()
    assert shot.delay_ms == 0 and search.obtained is Clearance.NONE
    search.fenced(shot.request_id)
    (cleared,) = facts(ClearanceTurned, search.seek(10, storage=True))
    assert search.obtained is cleared.clearance is Clearance.DATA and search.clearing.cleared == THEIRS


def test_a_peer_whose_address_answers_keeps_its_disks():
    """It serves: this is a partition of the heartbeats."""
    search = Search()
    search.seek(storage=True)
    search.probed(answered=(ADDRESS,))
    assert not of(FencePeer, search.seek(ASK_AGAIN_MS, storage=True))


def test_the_disks_alone_clear_nobody():
    """While the devices worked, an address may have come up: the guard has to be fresh."""
    search, shot = cut_when_silent()
    search.now_ms += FRESH_MS
    search.fenced(shot.request_id)
    assert of(ProbeAddresses, search.seek(storage=True)) and search.obtained is Clearance.NONE
    search.probed(answered=(ADDRESS,))
    search.seek(ASK_AGAIN_MS, storage=True)
    search.probed()
    search.seek(storage=True)
    assert search.obtained is Clearance.DATA


def test_disks_that_could_not_be_taken_are_asked_for_again_later():
    """No clearance, no storm, and the reason is told."""
    search, shot = cut_when_silent()
    told = search.fenced(shot.request_id, confirmed=False, detail="no path to the disk")
    assert facts(ClearanceTurned, told) == [ClearanceTurned(False, Clearance.NONE, "no path to the disk")]
    assert not of(FencePeer, search.seek(FENCE_AGAIN_MS - 1, storage=True))
    search.seek(1, storage=True)
    search.probed()
    assert of(FencePeer, search.seek(storage=True)) and search.obtained is Clearance.NONE


def test_a_life_that_begins_after_the_cut_is_not_covered_by_it():
    """It may have registered anew."""
    search, shot = cut_when_silent()
    search.fenced(shot.request_id)
    assert of(FencePeer, search.seek(10, storage=True, incarnation=LATER)) and search.obtained is Clearance.NONE


def test_without_any_address_to_ask_for_the_disks_are_cut_all_the_same():
    """What the operator lets start without fencing may write to them."""
    search = Search()
    (shot,) = of(FencePeer, search.seek(storage=True, addresses=()))
    search.fenced(shot.request_id)
    search.seek(storage=True, addresses=())
    assert search.obtained is Clearance.DATA
