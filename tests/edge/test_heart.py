"""The beating process: when it speaks, what it says, and what nobody can make it do."""

import itertools
import os
import select
import signal
import time

import pytest

from hostd import messages
from hostd.api import Carrier
from hostd.core import wire
from hostd.core.terms import Incarnation
from tests.edge.heart_lab import BETA, CLUSTER, TIMERS, Pair, Puppet, now_ms, pair, udp_link

pytestmark = pytest.mark.lab


@pytest.fixture
def site():
    """Two machines on one LAN."""
    with pair() as made:
        yield made


@pytest.fixture
def puppet(site: Pair):
    """The test as beta."""
    made = Puppet(site.machines["beta"])
    yield made
    made.socket.close()


@pytest.fixture
def alpha(site: Pair):
    """A heart with one UDP link, which is open."""
    node = site.heart("alpha", [udp_link("alpha")])
    witness = node.fork_brain()
    wait(lambda: bool(witness.all(messages.LinkState)), "the heart does not run")
    witness.end.close()
    return node


def wait(claim, what, seconds=5.0):
    """Until ``claim`` holds, with no brain renewed meanwhile."""
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def pass_ms(duration_ms):
    time.sleep(duration_ms / 1_000)


# -- when it speaks ---------------------------------------------------------------


def test_a_heart_without_a_brain_is_silent(site, alpha, puppet):
    """It has no incarnation to speak for; a brain that only connects gives it none."""
    alpha.fork_brain()
    pass_ms(4 * TIMERS.keepalive_ms)
    assert puppet.beats() == []


def test_beats_come_at_the_rate_that_was_asked(site, alpha, puppet):
    """One a keepalive, on an absolute schedule: twenty in a second."""
    alpha.wake()
    site.pass_time(1.0)
    assert 17 <= len(puppet.beats()) <= 21
    assert {frame.stamp.incarnation for _, frame in puppet.frames} == {alpha.incarnation}


def test_a_brain_that_ends_is_told_for_a_warntime_and_then_silence(site, alpha, puppet):
    """The end of file on its socket is enough."""
    brain = alpha.wake()
    site.until(lambda: bool(puppet.beats()), "no beat")
    assert not puppet.beats()[-1].brain_gone
    puppet.forget()
    ended_at_ms = now_ms()
    brain.end.close()
    pass_ms(3 * TIMERS.warntime_ms)
    gone = [at for at, frame in puppet.frames if frame.payload.brain_gone] if puppet.beats() else []
    assert gone, "it was never said"
    count = len(puppet.beats())
    assert count <= TIMERS.warntime_ms // TIMERS.keepalive_ms + 2
    pass_ms(TIMERS.warntime_ms)
    assert len(puppet.beats()) == count, "it did not fall silent"
    assert now_ms() - ended_at_ms > TIMERS.warntime_ms


def test_the_host_s_word_that_the_brain_is_gone_counts_as_its_end(site, alpha, puppet):
    """Even while somebody still holds the brain's end open."""
    alpha.wake()
    site.until(lambda: bool(puppet.beats()), "no beat")
    puppet.forget()
    messages.send(alpha.hands, messages.BrainGone())
    wait(lambda: any(beat.brain_gone for beat in puppet.beats()), "it was never said")
    pass_ms(2 * TIMERS.warntime_ms)
    puppet.forget()
    pass_ms(TIMERS.warntime_ms)
    assert puppet.beats() == []


def test_a_brain_that_hangs_silences_the_heart(site, alpha, puppet):
    """No renewal for a warntime; nothing is said of a brain that is gone; it may come back."""
    brain = alpha.wake()
    site.until(lambda: bool(puppet.beats()), "no beat")
    pass_ms(2 * TIMERS.warntime_ms)
    assert not any(beat.brain_gone for beat in puppet.beats())
    puppet.forget()
    pass_ms(TIMERS.warntime_ms)
    assert puppet.beats() == []
    brain.say(messages.Renew())
    wait(lambda: bool(puppet.beats()), "the renewal was not heard")
    brain.end.close()


def test_a_brain_that_ends_after_it_hung_breaks_no_silence(site, alpha, puppet):
    """Silent is silent: its death is no sign of life."""
    brain = alpha.wake()
    pass_ms(2 * TIMERS.warntime_ms)
    puppet.forget()
    brain.end.close()
    pass_ms(TIMERS.warntime_ms)
    assert puppet.beats() == []


def test_a_new_brain_speaks_for_a_new_life_at_once(site, alpha, puppet):
    """Restarted within the warntime, there is no gap: first "brain gone", then the new incarnation."""
    alpha.wake().end.close()
    wait(lambda: any(beat.brain_gone for beat in puppet.beats()), "it was never said")
    alpha.boot += 1
    alpha.wake()
    site.until(lambda: puppet.newest.incarnation == alpha.incarnation, "the new life was not heard")
    stamps = [at for at, _ in puppet.frames]
    assert max(b - a for a, b in itertools.pairwise(stamps)) < TIMERS.warntime_ms
    assert not puppet.beats()[-1].brain_gone


def test_every_identification_draws_a_new_salt(site, alpha, puppet):
    """The same incarnation twice: a higher generation, a sequence from 1."""
    brain = alpha.wake()
    site.until(lambda: bool(puppet.beats()), "no beat")
    before = puppet.newest
    brain.say(messages.Identify(alpha.incarnation))
    site.until(lambda: puppet.newest.generation > before.generation, "no new generation")
    first = next(f for _, f in puppet.frames if f.stamp.generation > before.generation)
    assert first.stamp.sequence == 1


def test_missed_beats_are_not_made_up_for(site, alpha, puppet):
    """After a pause of the whole process there is one beat, then the usual rhythm."""
    alpha.wake()
    site.until(lambda: len(puppet.beats()) > 2, "no beats")
    os.kill(alpha.pid, signal.SIGSTOP)
    pass_ms(6 * TIMERS.keepalive_ms)
    puppet.forget()
    os.kill(alpha.pid, signal.SIGCONT)
    site.pass_time(4 * TIMERS.keepalive_ms / 1_000)
    assert 1 <= len(puppet.beats()) <= 6


# -- what it says ------------------------------------------------------------------


def test_a_beat_says_what_the_brain_wants_said(site, alpha, puppet):
    """Its snapshot's version and the links it hears; and the newest frame of the peer."""
    brain = alpha.wake(41, b"snapshot")
    puppet.beat(wire.Heartbeat(5))
    puppet.beat(wire.Heartbeat(5))
    brain.say(messages.Renew(hears=0b101))
    wait(lambda: any(beat.hears for beat in puppet.beats()), "nothing heard")
    assert puppet.beats()[-1] == wire.Heartbeat(
        version=41, echo=wire.Stamp(BETA, 1, 2), holds=0, hears=0b101, brain_gone=False
    )


def test_a_snapshot_goes_out_at_once_and_again_until_it_is_held(site, alpha, puppet):
    """All parts together, repeated no more often than once a keepalive, and not to nobody."""
    body = os.urandom(5_000)
    brain = alpha.wake(1, b"old")
    site.pass_time(0.15)
    assert puppet.parts() == [], "nobody was there to take it"
    puppet.beat()
    site.until(lambda: bool(puppet.parts()), "the first snapshot was not sent")
    puppet.forget()
    brain.say(messages.Carry(2, body))
    for _ in range(10):
        puppet.beat()
        site.pass_time(TIMERS.keepalive_ms / 1_000)
    rounds = len(puppet.parts()) / puppet.parts()[-1].total
    assert 3 <= rounds <= 11
    assembler = wire.Assembler()
    assert body in [assembler.add(alpha.incarnation, part) for part in puppet.parts()]
    puppet.beat(wire.Heartbeat(1, echo=puppet.newest, holds=2))
    site.pass_time(0.1)
    puppet.forget()
    site.pass_time(0.3)
    assert puppet.parts() == [] and puppet.beats()


def test_a_silent_heart_carries_no_snapshot(site, alpha, puppet):
    """A part counts as a sign of life, too."""
    brain = alpha.wake()
    site.pass_time(0.1)
    pass_ms(2 * TIMERS.warntime_ms)
    puppet.forget()
    puppet.beat()
    brain.say(messages.Carry(3, b"body"))
    pass_ms(TIMERS.warntime_ms)
    puppet.listen()
    assert puppet.frames == []


# -- what it hears ------------------------------------------------------------------


def test_every_beat_reaches_the_brain_at_once(site, alpha, puppet):
    """Not with our own next beat: the median is below a millisecond on a machine that is free."""
    brain = alpha.wake()
    site.pass_time(0.1)
    delays = []
    for version in range(1, 21):
        sent = time.monotonic()
        puppet.beat(wire.Heartbeat(version))
        wait(lambda version=version: any(b.version == version for b in brain.beats()), "not heard")
        delays.append(time.monotonic() - sent)
    assert sorted(delays)[10] < TIMERS.keepalive_ms / 2_000


def test_an_echo_tells_when_we_sent_it(site, alpha, puppet):
    """The brain learns its own sending time, by the heart's clock."""
    brain = alpha.wake()
    site.until(lambda: len(puppet.beats()) > 3, "no beats")
    came_at_ms, frame = puppet.frames[-1]
    puppet.beat(wire.Heartbeat(1, echo=frame.stamp))
    site.until(lambda: bool(brain.beats()), "not heard")
    (beat,) = brain.beats()
    assert beat.echo_sent_at_ms is not None
    assert came_at_ms - 50 <= beat.echo_sent_at_ms <= came_at_ms <= beat.at_ms <= now_ms()
    assert (beat.link, beat.sender, beat.incarnation, beat.version) == ("lan", "beta", BETA, 1)


def test_an_echo_of_anything_but_our_present_life_is_none(site, alpha, puppet):
    """A one-way link, an earlier life, an earlier heart of this life, a frame never sent."""
    brain = alpha.wake()
    site.until(lambda: len(puppet.beats()) > 3, "no beats")
    present = puppet.newest
    echoes = [
        wire.NOTHING_HEARD,
        present._replace(incarnation=Incarnation(0, 7)),
        present._replace(generation=present.generation - 1),
        present._replace(sequence=present.sequence + 1_000),
        present._replace(sequence=0),
    ]
    for version, echo in enumerate(echoes, 1):
        puppet.beat(wire.Heartbeat(version, echo=echo))
    site.until(lambda: len(brain.beats()) == len(echoes), "not heard")
    assert [beat.echo_sent_at_ms for beat in brain.beats()] == [None] * len(echoes)


def test_after_a_new_life_old_echoes_count_no_more(site, alpha, puppet):
    """What the peer echoed before we restarted proves nothing of now."""
    alpha.wake()
    site.until(lambda: len(puppet.beats()) > 2, "no beats")
    old = puppet.newest
    alpha.boot += 1
    alpha.brain.end.close()
    brain = alpha.wake()
    site.pass_time(0.1)
    puppet.beat(wire.Heartbeat(1, echo=old))
    site.until(lambda: bool(brain.beats()), "not heard")
    assert brain.beats()[-1].echo_sent_at_ms is None


def test_a_snapshot_of_the_peer_reaches_the_brain_and_the_next_brain(site, alpha, puppet):
    """Once each; and our beats say that we hold it."""
    body = os.urandom(3_000)
    brain = alpha.wake()
    for _ in range(2):
        for part in wire.split(8, body, 1_200):
            puppet.send(puppet.sealer.seal(part))
    site.until(lambda: bool(brain.all(messages.SnapshotHeard)), "not complete")
    site.until(lambda: bool(puppet.beats()) and puppet.beats()[-1].holds == 8, "not acknowledged")
    expected = messages.SnapshotHeard("beta", BETA, 8, body)
    assert brain.all(messages.SnapshotHeard) == [expected]
    brain.end.close()
    alpha.boot += 1
    heir = alpha.wake()
    site.until(lambda: bool(heir.all(messages.SnapshotHeard)), "not handed on")
    assert heir.all(messages.SnapshotHeard) == [expected]
    assert heir.all(messages.LinkState), "the new brain has to be told of the links, too"


def test_the_snapshot_of_an_earlier_life_is_not_held(site, alpha, puppet):
    """A peer that restarted counts its versions anew."""
    alpha.wake()
    puppet.send(puppet.sealer.seal(wire.Part(8, 0, 1, b"body")))
    site.until(lambda: bool(puppet.beats()) and puppet.beats()[-1].holds == 8, "not acknowledged")
    puppet.sealer = wire.Sealer(CLUSTER, "beta", Incarnation(2, 1), wire.Salt(1, bytes(6)))
    puppet.beat()
    site.until(lambda: puppet.beats()[-1].echo.incarnation == Incarnation(2, 1), "not heard")
    assert puppet.beats()[-1].holds == 0


# -- what nobody can make it do --------------------------------------------------------


def test_frames_of_strangers_are_counted_and_ignored(site, alpha, puppet):
    """Garbage, forged, replayed, from another cluster, with another key, from an earlier life."""
    brain = alpha.wake()
    site.until(lambda: bool(puppet.beats()), "no beat")
    good = puppet.sealer.seal(wire.Heartbeat(1))
    other = wire.Sealer(CLUSTER._replace(name="other"), "beta", BETA, wire.Salt(2, bytes(6)))
    wrong = wire.Sealer(CLUSTER._replace(keys=(bytes(32),)), "beta", BETA, wire.Salt(2, bytes(6)))
    early = wire.Sealer(CLUSTER, "beta", Incarnation(0, 1), wire.Salt(2, bytes(6)))
    puppet.send(good)
    bad = [
        b"", b"\0" * 60, os.urandom(300), good, good[:-1] + b"\0", good[:50],
        *(sealer.seal(wire.Heartbeat(9)) for sealer in (other, wrong, early)),
    ]  # fmt: skip
    for frame in bad:
        puppet.send(frame)
    figures = brain.all(messages.HeartFigures)
    site.until(lambda: len(brain.all(messages.HeartFigures)) > len(figures) + 1, "no figures", 5)
    assert [beat.version for beat in brain.beats()] == [1]
    assert brain.all(messages.HeartFigures)[-1].rejected == {"lan": len(bad)}
    assert site.nodes[0].brain is brain and puppet.beats()[-1].echo == wire.Stamp(BETA, 1, 1)


def test_a_brain_that_does_not_read_never_blocks_the_heart(site, alpha, puppet):
    """Its socket fills; the beats go on for as long as it renews."""
    brain = alpha.wake()
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        for _ in range(40):
            puppet.beat()
        messages.send(brain.end, messages.Renew())
        pass_ms(10)
    assert 15 <= len(puppet.beats()) <= 22
    brain.listen()
    assert len(brain.beats()) >= 100
    puppet.beat()
    site.until(lambda: len(brain.all(messages.HeartFigures)) > 0, "it fell dumb")


def test_signals_that_everybody_gets_do_not_end_it(site, alpha, puppet):
    """TERM from systemd, INT from a terminal: the host decides."""
    alpha.wake()
    site.until(lambda: bool(puppet.beats()), "no beat")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(alpha.pid, number)
    puppet.forget()
    site.until(lambda: len(puppet.beats()) > 2, "it died of a signal")


def test_it_ends_when_the_host_s_socket_ends(site, alpha):
    """Without a word, with exit code 0."""
    alpha.wake()
    alpha.hands.close()
    _, status = os.waitpid(alpha.pid, 0)
    assert status == 0


def test_it_dies_with_its_host(site):
    """A host that is killed leaves no heart behind: two sets of processes on one node are excluded."""
    reader, writer = os.pipe()
    host = os.fork()
    if host == 0:
        node = site.heart("alpha", [udp_link("alpha")])
        os.write(writer, b"%d" % node.pid)
        while True:
            signal.pause()
    try:
        pid = int(os.read(reader, 20))
        keeps = os.pidfd_open(pid)
        pass_ms(200)
    finally:
        os.kill(host, signal.SIGKILL)
        os.waitpid(host, 0)
    assert select.select([keeps], [], [], 5)[0], "the heart outlived its host"
    for fd in (reader, writer, keeps):
        os.close(fd)


def test_it_says_what_the_kernel_granted(site, alpha):
    """Real-time scheduling and locked memory; here both, as root."""
    brain = alpha.wake()
    site.until(lambda: bool(brain.all(messages.HeartFigures)), "no figures", 5)
    figures = brain.all(messages.HeartFigures)[0]
    assert figures.realtime == (os.sched_getscheduler(alpha.pid) == os.SCHED_RR | os.SCHED_RESET_ON_FORK)
    assert figures.locked and figures.gap_max_ms == {"lan": 0}


def test_a_pulled_cable_is_told_within_two_keepalives_or_so(site, alpha):
    """And its return; the link stays usable, only its carrier is gone."""
    brain = alpha.wake()
    site.until(lambda: bool(brain.all(messages.LinkState)), "no state")
    assert brain.all(messages.LinkState) == [
        messages.LinkState("lan", brain.all(messages.LinkState)[0].at_ms, True, Carrier.UP, "")
    ]
    site.machines["alpha"].unplug()
    site.until(lambda: brain.all(messages.LinkState)[-1].carrier is Carrier.DOWN, "not noticed")
    site.machines["alpha"].plug()
    site.until(lambda: brain.all(messages.LinkState)[-1].carrier is Carrier.UP, "not noticed")
