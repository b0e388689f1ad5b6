"""Who is heard?  PROTOCOL.md section 1 (incarnations, heard) and quick evidence of section 5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostd.core.events import LinkChanged
from hostd.core.peers import Peers
from hostd.core.plan import Link
from hostd.core.terms import NEVER_BORN, Carrier, Incarnation, Mode, Phase
from tests.core.builders import BEAT_MS, LATER, T0_MS, THEIRS, TIMERS, frame, plan, word

DEADTIME_MS, WARNTIME_MS = TIMERS.deadtime_ms, TIMERS.warntime_ms
EARLIER = Incarnation(THEIRS.boot, THEIRS.nonce - 1)
CROSSOVER, SERIAL, LAN = Link("cross", direct=True), Link("cable"), Link("lan")


def peers(*links: Link) -> Peers:
    """a, listening since T0 on these links (all up with carrier)."""
    built = Peers(plan(links=links) if links else plan(), "b", T0_MS)
    built.listen_anew(T0_MS, hearing=True)
    for link in built.plan.links:
        built.take_link(LinkChanged(link.name, T0_MS, usable=True, carrier=Carrier.UP))
    return built


def heard(built: Peers, at_ms: int = T0_MS, **changes: object) -> Peers:
    built.take_frame(frame(at_ms, **changes))
    return built


def drop(built: Peers, at_ms: int, *names: str, carrier: Carrier = Carrier.DOWN) -> None:
    for name in names:
        built.take_link(LinkChanged(name, at_ms, usable=carrier is not Carrier.DOWN, carrier=carrier))


# -- heard -------------------------------------------------------------------------


def test_an_echo_is_life():
    """Both directions work."""
    assert heard(peers()).is_heard(T0_MS)


def test_a_one_way_link_never_counts_as_life():
    """The peer is received for ever, and never echoes us."""
    built = peers()
    for beat in range(100):
        heard(built, T0_MS + beat * BEAT_MS, echo_sent_at_ms=None)
    assert not built.is_heard(T0_MS + 9_900)
    assert built.silence_ms(T0_MS + 9_900) == 9_900


def test_after_an_own_pause_a_word_needs_an_echo_of_what_was_sent_since():
    """What waited in our buffers is from before it (seed 203487 without fencing)."""
    built = heard(peers(), version=1)
    built.take_snapshot(T0_MS, word(version=1))
    assert built.word(T0_MS) is not None
    built.listen_anew(T0_MS + 1_000, hearing=True)
    heard(built, T0_MS + 1_000, echo_sent_at_ms=T0_MS, version=1)
    assert built.is_heard(T0_MS + 1_000) and built.word(T0_MS + 1_000) is None
    heard(built, T0_MS + 1_010, echo_sent_at_ms=T0_MS + 1_000, version=1)
    assert built.word(T0_MS + 1_010) is not None


def test_a_backlog_in_a_buffer_never_counts_as_life():
    """What counts is when we sent what is echoed, not when the echo comes."""
    built = heard(heard(peers()), T0_MS + 10_000, echo_sent_at_ms=T0_MS + 100)
    assert not built.is_heard(T0_MS + 10_000)
    assert built.silence_ms(T0_MS + 10_000) == 9_900


def test_an_older_echo_over_a_slower_link_takes_nothing_back():
    """The newest echo of all links counts."""
    built = heard(peers(), T0_MS + 500)
    heard(built, T0_MS + 520, link="cable", echo_sent_at_ms=T0_MS + 100)
    assert built.silence_ms(T0_MS + 520) == 20


def test_a_replay_of_an_earlier_life_never_counts_as_life():
    """◆ Story 2: incarnations are ordered, a higher one replaces a lower for ever."""
    built = heard(peers())
    heard(built, T0_MS + 5_000, incarnation=EARLIER)
    assert built.incarnation == THEIRS and not built.is_heard(T0_MS + 5_000)
    assert built.frame_at_ms == T0_MS


def test_a_late_word_of_an_earlier_life_is_not_believed():
    """◆ Story 2: LEFT and JOINING count only from the newest incarnation known."""
    built = heard(peers(), version=1)
    built.take_snapshot(T0_MS, word())
    built.take_snapshot(T0_MS, word(incarnation=EARLIER, phase=Phase.LEFT, version=99))
    assert built.word(T0_MS) == word()


def test_a_new_life_is_heard_only_once_it_echoes_us():
    """The echo of its predecessor is not its own."""
    built = heard(peers())
    heard(built, T0_MS + 100, incarnation=LATER, echo_sent_at_ms=None)
    assert built.incarnation == LATER and not built.is_heard(T0_MS + 100)
    heard(built, T0_MS + 200, incarnation=LATER)
    assert built.is_heard(T0_MS + 200)


def test_silence_of_a_new_life_counts_from_its_first_frame():
    """Its first frames cannot echo us yet."""
    built = heard(peers())
    heard(built, T0_MS + 3_000, incarnation=LATER, echo_sent_at_ms=None)
    assert built.silence_ms(T0_MS + 3_100) == 100


def test_the_peer_is_silent_after_deadtime_and_not_before():
    """To the millisecond."""
    built = heard(peers())
    assert built.is_heard(T0_MS + DEADTIME_MS - 1)
    assert not built.is_heard(T0_MS + DEADTIME_MS)


def test_a_dead_life_is_never_heard_again():
    """◆ Invariant 4: what fencing confirmed stays off, whatever still arrives."""
    built = heard(peers())
    built.take_snapshot(T0_MS, word())
    built.declare_dead(THEIRS)
    heard(built, T0_MS + 5_000)
    built.take_snapshot(T0_MS + 5_000, word(version=9))
    assert not built.is_heard(T0_MS + 5_000) and built.last_word is None
    heard(built, T0_MS + 5_000, incarnation=LATER)
    assert built.is_heard(T0_MS + 5_000)


def test_a_stranger_is_not_the_peer():
    """Only the other node of the plan counts."""
    built = heard(peers(), sender="c")
    built.take_snapshot(T0_MS, word(node="c"))
    assert built.incarnation == NEVER_BORN and built.last_word is None


def test_echoes_of_our_former_life_are_forgotten():
    """They prove that somebody heard another."""
    built = heard(peers())
    built.forget_echoes()
    assert not built.is_heard(T0_MS + 1)


# -- listening ----------------------------------------------------------------------


def test_a_dead_heart_stops_the_timers():
    """Silence counts only while we listen."""
    built = heard(peers())
    built.listen_anew(T0_MS + 100, hearing=False)
    assert built.silence_ms(T0_MS + 60_000) == 0
    assert not built.is_heard(T0_MS + 200)
    assert built.deadline_at_ms(T0_MS + 60_000) is None


def test_a_heart_that_returns_starts_them_anew():
    """What was not heard without one is no silence."""
    built = heard(peers())
    built.listen_anew(T0_MS + 60_000, hearing=True)
    assert built.silence_ms(T0_MS + 60_100) == 100


def test_the_deadline_is_the_next_mark_of_silence():
    """warntime, then deadtime, then initdead."""
    built = heard(peers())
    marks = [built.deadline_at_ms(T0_MS + at_ms) for at_ms in (0, WARNTIME_MS, DEADTIME_MS, TIMERS.initdead_ms)]
    assert marks == [T0_MS + WARNTIME_MS, T0_MS + DEADTIME_MS, T0_MS + TIMERS.initdead_ms, None]


# -- the brain, restarts ------------------------------------------------------------------


def test_a_heart_without_a_brain_counts_for_one_warntime_and_no_longer():
    """It beats for ever, and is lost a deadtime after that."""
    built = heard(peers())
    for beat in range(100):
        heard(built, T0_MS + beat * BEAT_MS, brain_gone=True)
    last_ms = T0_MS + WARNTIME_MS
    assert built.is_heard(last_ms + DEADTIME_MS - 1)
    assert not built.is_heard(last_ms + DEADTIME_MS)


def test_a_heart_without_a_brain_says_nothing():
    """It confirms, resumes and accepts nothing, though it is heard."""
    built = heard(peers(), version=1)
    built.take_snapshot(T0_MS, word())
    heard(built, T0_MS + 100, version=1, brain_gone=True)
    assert built.is_heard(T0_MS + 100) and built.word(T0_MS + 100) is None
    heard(built, T0_MS + 200, version=1)
    assert built.word(T0_MS + 200) == word()


def test_a_peer_that_only_restarts_has_the_time_that_it_asked_for():
    """Detaching: neither fenced nor taken over until the limit has passed."""
    built = heard(peers())
    built.take_snapshot(T0_MS, word(mode=Mode.RESTARTING, away_ms=60_000))
    assert built.silence_limit_ms() == 60_000


def test_a_restart_is_never_waited_for_less_than_deadtime():
    """However short the time that it asked for."""
    built = heard(peers())
    built.take_snapshot(T0_MS, word(mode=Mode.RESTARTING, away_ms=10))
    assert built.silence_limit_ms() == DEADTIME_MS


# -- its word -------------------------------------------------------------------------------


def test_of_many_words_the_newest_version_counts():
    """Loss, duplication and reordering are harmless."""
    built = heard(peers(), version=3)
    for version in (2, 3, 1, 3):
        built.take_snapshot(T0_MS, word(version=version, view=version))
    assert built.word(T0_MS).version == 3


def test_an_announced_word_that_has_not_come_makes_the_old_one_no_word():
    """Nothing may be decided from a state that the peer has left."""
    built = heard(peers(), version=1)
    built.take_snapshot(T0_MS, word())
    heard(built, T0_MS + 100, version=2)
    assert built.word(T0_MS + 100) is None and built.last_word == word()


@given(st.permutations(range(1, 7)))
def test_words_in_any_order_come_to_the_same(order):
    """Versions decide, not arrival."""
    built = heard(peers())
    for version in order:
        built.take_snapshot(T0_MS, word(version=version))
    assert built.last_word.version == 6


def test_a_new_life_starts_its_versions_anew():
    """Its first word replaces the hundredth of its predecessor."""
    built = heard(peers())
    built.take_snapshot(T0_MS, word(version=100))
    built.take_snapshot(T0_MS, word(version=1, incarnation=LATER))
    assert built.last_word.incarnation == LATER and built.version == 1


# -- quick evidence ---------------------------------------------------------------------------


def test_power_that_is_seen_to_go_shortens_the_wait_to_warntime():
    """The carrier of the crossover cable fell, and everything else fell silent with it."""
    built = heard(peers(CROSSOVER, SERIAL))
    drop(built, T0_MS + 50, "cross")
    assert built.power_seen_to_go and built.silence_limit_ms() == WARNTIME_MS


def test_all_direct_links_have_to_fall():
    """One cable is not the power of a node."""
    built = heard(peers(CROSSOVER, Link("cross2", direct=True), LAN))
    drop(built, T0_MS, "cross")
    assert not built.power_seen_to_go
    drop(built, T0_MS + 100, "cross2")
    assert built.power_seen_to_go


def test_they_have_to_fall_within_a_moment():
    """A cable that was pulled yesterday says nothing of today."""
    built = heard(peers(CROSSOVER, Link("cross2", direct=True), LAN))
    drop(built, T0_MS, "cross")
    drop(built, T0_MS + 101, "cross2")
    assert not built.power_seen_to_go


@pytest.mark.parametrize("links", [(CROSSOVER,), (CROSSOVER, Link("cross2", direct=True)), (LAN, SERIAL)])
def test_it_needs_two_links_one_of_them_not_direct(links):
    """A single cable, only cables, or no cable at all are no evidence."""
    built = heard(peers(*links))
    drop(built, T0_MS, *(link.name for link in links))
    assert not built.power_seen_to_go


def test_a_pulled_cable_means_nothing_while_others_are_heard():
    """The peer is alive on the serial line."""
    built = heard(peers(CROSSOVER, SERIAL))
    drop(built, T0_MS + 50, "cross")
    heard(built, T0_MS + 300, link="cable")
    assert not built.power_seen_to_go and built.silence_limit_ms() == DEADTIME_MS


def test_a_stale_drop_is_no_evidence_of_a_later_silence():
    """Pulled long ago, heard on the other link since: the full deadtime."""
    built = heard(peers(CROSSOVER, SERIAL))
    drop(built, T0_MS, "cross")
    for beat in range(1, 100):
        heard(built, T0_MS + beat * BEAT_MS, link="cable")
    assert built.silence_limit_ms() == DEADTIME_MS


def test_a_carrier_that_is_down_from_the_start_never_fell():
    """Only a fall that was seen is evidence."""
    built = heard(Peers(plan(links=(CROSSOVER, SERIAL)), "b", T0_MS))
    drop(built, T0_MS, "cross")
    assert not built.power_seen_to_go


def test_a_carrier_that_came_back_is_no_evidence():
    """The cable was plugged in again."""
    built = heard(peers(CROSSOVER, SERIAL))
    drop(built, T0_MS, "cross")
    drop(built, T0_MS + 50, "cross", carrier=Carrier.UP)
    assert not built.power_seen_to_go


def test_a_serial_line_that_can_tell_has_to_agree():
    """DSR or DCD still up: the peer has power."""
    built = heard(peers(CROSSOVER, Link("cable", modem_lines=True), LAN))
    drop(built, T0_MS, "cross")
    assert not built.power_seen_to_go
    drop(built, T0_MS + 20, "cable")
    assert built.power_seen_to_go


def test_a_serial_line_that_cannot_tell_is_not_asked():
    """A pty has no modem lines."""
    built = heard(peers(CROSSOVER, Link("cable", modem_lines=True), LAN))
    drop(built, T0_MS, "cable", carrier=Carrier.UNKNOWN)
    drop(built, T0_MS, "cross")
    assert built.power_seen_to_go


# -- links ----------------------------------------------------------------------------------


def test_a_lost_link_is_told_within_deadtime():
    """Although the peer is still heard on the other."""
    built = heard(heard(peers()), link="cable")
    assert [link.name for link in built.refresh_links(T0_MS)] == ["lan", "cable"]
    heard(built, T0_MS + DEADTIME_MS - WARNTIME_MS)
    assert [link.name for link in built.refresh_links(T0_MS + DEADTIME_MS - WARNTIME_MS)] == ["cable"]
    assert built.hears_mask() == 0b01


def test_what_the_peer_hears_is_known_from_its_mask():
    """Each direction of each link."""
    built = heard(peers(), hears=0b10)
    assert [link.send_up for link in built.links] == [False, True]


def test_links_do_not_fall_while_we_do_not_listen():
    """A dead heart is our trouble, not the cable's."""
    built = heard(peers())
    built.refresh_links(T0_MS)
    built.listen_anew(T0_MS + 100, hearing=False)
    assert built.refresh_links(T0_MS + 60_000) == []


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=30))
def test_an_unchanged_summary_means_unchanged_judgements(beats):
    """What settling is skipped for: equal summaries, equal answers to every question."""
    built, now_ms = peers(), T0_MS
    before, answers = None, None
    for gap_ms, comes in beats:
        now_ms += gap_ms
        if comes:
            heard(built, now_ms, version=0)
        told = (built.is_heard(now_ms), built.silence_ms(now_ms) >= built.silence_limit_ms(), built.word(now_ms))
        if built.summary(now_ms) == before:
            assert told == answers
        before, answers = built.summary(now_ms), told
