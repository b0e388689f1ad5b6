"""What PROTOCOL.md section 6 promises of sealed frames: authentic, ordered, replay-proof."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostd.core import wire
from hostd.core.stream import FRAME_MAX, frame_for_stream
from hostd.core.terms import Incarnation
from hostd.core.wire import (
    Cluster,
    Frame,
    Heartbeat,
    Opener,
    Part,
    Refusal,
    Salt,
    Sealer,
    Stamp,
)

OLD_KEY, KEY, OTHER_KEY = bytes(32), bytes(range(32)), bytes(range(1, 33))
CLUSTER = Cluster("site", ("beta", "alpha"), (KEY,))
LIFE = Incarnation(5, 77)
BEAT = Heartbeat(3)


def sealer(cluster=CLUSTER, node="alpha", life=LIFE, generation=1, random=b"salted", **speaks):
    return Sealer(cluster, node, life, Salt(generation, random), **speaks)


def opener(cluster=CLUSTER, **speaks):
    return Opener(cluster, "alpha", **speaks)


def opened(reader, frame, link="lan"):
    """The frame, which must open."""
    result = reader.open(frame, link)
    assert isinstance(result, Frame), result
    return result


incarnations = st.builds(Incarnation, st.integers(0, wire.BOOT_MAX), st.integers(0, wire.NONCE_MAX))
stamps = st.builds(Stamp, incarnations, st.integers(0, wire.GENERATION_MAX), st.integers(0, wire.SEQUENCE_MAX))
versions = st.integers(0, 2**32 - 1)
heartbeats = st.builds(Heartbeat, versions, stamps, versions, st.integers(0, 2**16 - 1), st.booleans())
parts = st.builds(Part, versions, st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1), st.binary(max_size=1_000))


@given(heartbeats | parts, incarnations, st.integers(1, wire.GENERATION_MAX))
def test_what_is_sealed_comes_out_as_it_was(payload, life, generation):
    """Round trip of every payload, under every incarnation and generation."""
    frame = opened(opener(), sealer(life=life, generation=generation).seal(payload))
    assert frame == Frame(Stamp(life, generation, 1), payload, newest=True, speaks=wire.LAYOUT)


def test_a_heartbeat_takes_less_than_a_hundred_bytes_on_a_serial_line():
    """With the largest numbers that fit, delimiters and checksum included."""
    life = Incarnation(wire.BOOT_MAX, wire.NONCE_MAX)
    full = Heartbeat(
        2**32 - 1,
        Stamp(life, wire.GENERATION_MAX, wire.SEQUENCE_MAX),
        2**32 - 1,
        2**16 - 1,
        brain_gone=True,
    )
    sender = sealer(life=life, generation=wire.GENERATION_MAX, random=b"\xff" * 6)
    sender.sequence = wire.SEQUENCE_MAX - 1
    frame = sender.seal(full)
    assert len(frame) == wire.BEAT_SIZE
    assert len(frame_for_stream(frame)) < 100
    assert opened(opener(), frame).payload == full


@given(st.binary(max_size=FRAME_MAX + 100))
def test_garbage_is_refused_and_never_raises(garbage):
    """No bytes at all make the opener raise or believe them."""
    assert opener().open(garbage, "lan") is Refusal.NO_FRAME


@given(st.binary(min_size=16, max_size=200), st.integers(0, 255), st.integers(0, 255), st.binary(min_size=30))
def test_garbage_behind_a_fitting_beginning_is_refused(sealed, layout, number, rest):
    """Headers that look right lead to no exception and to no belief either."""
    frame = wire.MAGIC + bytes((layout, 1)) + CLUSTER.tag + bytes((number,)) + rest + sealed
    assert isinstance(opener().open(frame, "lan"), Refusal)


@given(st.data())
def test_a_frame_with_any_byte_changed_is_refused(data):
    """The header is authenticated as well as the payload."""
    frame = bytearray(sealer().seal(BEAT))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    reader = opener()
    assert isinstance(reader.open(bytes(frame), "lan"), Refusal)
    assert reader.newest == wire.NOTHING_HEARD


@given(st.data())
def test_a_frame_cut_short_or_prolonged_is_refused(data):
    """Every length but the right one."""
    frame = sealer().seal(BEAT)
    length = data.draw(st.integers(0, len(frame) + 9).filter(lambda n: n != len(frame)))
    assert isinstance(opener().open((frame + bytes(9))[:length], "lan"), Refusal)


@pytest.mark.parametrize(
    ("sender", "refusal"),
    [
        (sealer(Cluster("site", CLUSTER.nodes, (OTHER_KEY,))), Refusal.FORGED),
        (sealer(Cluster("elsewhere", CLUSTER.nodes, (KEY,))), Refusal.OTHER_CLUSTER),
        (sealer(node="beta"), Refusal.OWN),
        (sealer(Cluster("site", ("alpha", "aardvark", "beta"), (KEY,)), node="beta"), Refusal.OTHER_NODE),
        (sealer(Cluster("site", ("alpha", "zeta"), (KEY,)), node="zeta"), Refusal.OWN),
    ],
    ids=["wrong key", "other cluster", "own frame", "third node", "own number"],
)
def test_frames_of_others_are_refused_by_their_kind(sender, refusal):
    """The count of refusals tells an operator what is wrong with his wires."""
    assert opener().open(sender.seal(BEAT), "lan") is refusal


def test_a_node_of_another_name_with_the_peers_number_is_no_peer():
    """The name takes part in the key, not the number alone."""
    stranger = sealer(Cluster("site", ("aaron", "beta"), (KEY,)), node="aaron")
    assert opener().open(stranger.seal(BEAT), "lan") is Refusal.FORGED


def test_nodes_that_are_configured_in_different_orders_hear_each_other():
    """They are numbered by sorted name; that their conf.d differs shows in the digests."""
    turned = Cluster("site", CLUSTER.nodes[::-1], CLUSTER.keys)
    opened(opener(turned), sealer().seal(BEAT))


# -- keys -------------------------------------------------------------------------


@pytest.mark.parametrize("reader_keys", [(KEY,), (KEY, OLD_KEY), (OLD_KEY, KEY)])
def test_both_valid_keys_open_and_the_first_one_seals(reader_keys):
    """Rotation: a node with both keys is understood by one that knows only the newer."""
    sender = sealer(Cluster("site", CLUSTER.nodes, (KEY, OLD_KEY)))
    opened(opener(Cluster("site", CLUSTER.nodes, reader_keys)), sender.seal(BEAT))


def test_a_dropped_key_opens_nothing():
    """After the rotation the old key is worthless."""
    old = sealer(Cluster("site", CLUSTER.nodes, (OLD_KEY,)))
    assert opener().open(old.seal(BEAT), "lan") is Refusal.FORGED


def test_a_new_salt_gives_a_new_key():
    """The same sequence under another salt is sealed with another key: no nonce is used twice."""
    frames = {
        sealer(generation=generation, random=random, life=life).seal(BEAT)[-40:]
        for generation in (1, 2)
        for random in (b"aaaaaa", b"bbbbbb")
        for life in (LIFE, Incarnation(6, 77))
    }
    assert len(frames) == 8


@given(st.lists(heartbeats | parts, min_size=2, max_size=8))
def test_every_sealed_frame_has_a_sequence_of_its_own(payloads):
    """Parts count as well as heartbeats: the sequence is the nonce."""
    sender, reader = sealer(), opener()
    sequences = [opened(reader, sender.seal(payload)).stamp.sequence for payload in payloads]
    assert sequences == list(range(1, len(payloads) + 1))


# -- order and replay -------------------------------------------------------------


def test_a_frame_is_taken_once_per_link():
    """Its copy from a second link is authentic but not new; the same again is a replay."""
    reader, frame = opener(), sealer().seal(BEAT)
    assert opened(reader, frame, "lan").newest
    assert not opened(reader, frame, "cable").newest
    assert reader.open(frame, "lan") is Refusal.REPLAYED
    assert reader.open(frame, "cable") is Refusal.REPLAYED


def test_a_slower_link_may_lag_behind():
    """A beat that the serial line brings after the next one came by Ethernet still counts for the line."""
    reader, sender = opener(), sealer()
    first, second = sender.seal(BEAT), sender.seal(BEAT)
    assert opened(reader, second, "lan").newest
    late = opened(reader, first, "cable")
    assert not late.newest and reader.newest.sequence == 2


def test_a_link_may_not_lag_for_ever():
    """Frames kept back by a stranger for long prove nothing on any link."""
    reader, sender = opener(), sealer()
    old = sender.seal(BEAT)
    for _ in range(wire.LATE_MAX):
        frame = sender.seal(BEAT)
    opened(reader, frame, "lan")
    assert reader.open(old, "cable") is Refusal.REPLAYED


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=30))
def test_what_was_heard_never_goes_back(arrivals):
    """Lives, generations and sequences in any order: the newest only grows, and per
    link only what is newer than all it brought before is taken."""
    senders = {
        (boot, generation): sealer(life=Incarnation(boot, 9), generation=generation)
        for boot in range(3)
        for generation in range(1, 4)
    }
    frames = {life: [sender.seal(BEAT) for _ in range(3)] for life, sender in senders.items()}
    reader = opener()
    best = wire.NOTHING_HEARD
    for boot, generation, sequence in arrivals:
        stamp = Stamp(Incarnation(boot, 9), generation, sequence)
        result = reader.open(frames[boot, generation][sequence - 1], "lan")
        assert isinstance(result, Frame) == (stamp > best)
        best = max(best, stamp)
        assert reader.newest == best


def test_a_heart_that_restarts_is_heard_at_its_first_frame():
    """Its sequence starts at 1 again, under a higher generation of the same incarnation."""
    reader, before = opener(), sealer(generation=1000)
    for _ in range(5):
        last = before.seal(BEAT)
        opened(reader, last)
    after = sealer(generation=1001)
    assert opened(reader, after.seal(BEAT)).stamp == Stamp(LIFE, 1001, 1)
    assert reader.open(before.seal(BEAT), "cable") is Refusal.REPLAYED
    assert reader.open(last, "cable") is Refusal.REPLAYED


def test_two_hearts_of_one_generation_are_not_mixed():
    """Whoever was heard first is heard on; the other's frames do not count as its."""
    reader = opener()
    one, other = sealer(random=b"aaaaaa"), sealer(random=b"bbbbbb")
    opened(reader, one.seal(BEAT))
    other.sequence = 9
    assert reader.open(other.seal(BEAT), "lan") is Refusal.REPLAYED


def test_a_forged_header_of_a_later_life_changes_nothing():
    """An unproven header must not lock the real peer out."""
    reader, sender = opener(), sealer()
    opened(reader, sender.seal(BEAT))
    stranger = sealer(Cluster("site", CLUSTER.nodes, (OTHER_KEY,)), life=Incarnation(wire.BOOT_MAX, 1))
    assert reader.open(stranger.seal(BEAT), "lan") is Refusal.FORGED
    assert opened(reader, sender.seal(BEAT)).newest


# -- releases -----------------------------------------------------------------------


def test_a_release_speaks_with_the_one_before_and_the_one_after():
    """Wire version N speaks to N-1, in both directions and from the first frame on."""
    new, old = sealer(speaks=wire.LAYOUT + 1), sealer(speaks=wire.LAYOUT)
    first = opened(opener(speaks=wire.LAYOUT), new.seal(BEAT, peer_speaks=None))
    assert first.speaks == wire.LAYOUT + 1
    heard = opened(opener(speaks=wire.LAYOUT + 1), old.seal(BEAT, peer_speaks=first.speaks))
    opened(opener(speaks=wire.LAYOUT), new.seal(BEAT, peer_speaks=heard.speaks))


def test_two_new_releases_use_the_new_layout_once_they_know_each_other():
    """The older layout is only for the first words."""
    frame = sealer(speaks=2).seal(BEAT, peer_speaks=2)
    assert opener(speaks=1).open(frame, "lan") is Refusal.OTHER_LAYOUT
    opened(opener(speaks=2), frame)


def test_a_release_too_far_away_is_refused():
    """N does not understand N-2, and says so."""
    assert opener(speaks=3).open(sealer(speaks=1).seal(BEAT), "lan") is Refusal.OTHER_LAYOUT


@given(heartbeats, st.binary(max_size=40))
def test_a_heartbeat_that_grew_is_understood(beat, more):
    """A later release may append to a payload without a new layout."""
    plain = wire._encode(beat) + more
    assert wire._decode(plain) == beat


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_an_authentic_payload_of_an_unknown_kind_is_no_error(plain):
    """Whatever the peer's release sends, decoding never raises."""
    decoded = wire._decode(plain)
    assert decoded is None or plain[0] in (1, 2)
