"""Frames in a byte stream: found again after any noise, and never a wrong one."""

import random

from hypothesis import given
from hypothesis import strategies as st

from hostd.core.stream import FRAME_MAX, StreamDecoder, frame_for_stream

frames_of_any_kind = st.binary(min_size=1, max_size=700)


def fed(decoder, data, sizes):
    """Feed ``data`` in pieces of these sizes, round and round."""
    found, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += decoder.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


@given(st.lists(frames_of_any_kind, max_size=6), st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_frames_come_out_however_the_stream_is_cut(frames, sizes):
    """Round trip, in pieces of any size."""
    decoder = StreamDecoder()
    assert fed(decoder, b"".join(map(frame_for_stream, frames)), sizes) == frames
    assert decoder.rejected == 0


@given(st.integers(1, FRAME_MAX), st.booleans())
def test_blocks_without_a_zero_are_stuffed_within_bounds(size, zeros):
    """One byte per 254, the CRC and the two delimiters; no zero inside."""
    frame = bytes(size) if zeros else b"\x01" * size
    stuffed = frame_for_stream(frame)
    assert stuffed[0] == stuffed[-1] == 0 and 0 not in stuffed[1:-1]
    assert len(stuffed) <= size + 4 + (size + 4) // 254 + 1 + 2
    assert StreamDecoder().feed(stuffed) == [frame]


@given(st.binary(max_size=3_000), frames_of_any_kind, st.lists(st.integers(1, 900), min_size=1, max_size=3))
def test_the_frame_behind_any_garbage_is_found(garbage, frame, sizes):
    """The delimiter in front ends the noise: nothing of the first frame is lost."""
    found = fed(StreamDecoder(), garbage + frame_for_stream(frame), sizes)
    assert found[-1:] == [frame]


@given(st.binary(max_size=3_000))
def test_garbage_yields_no_frame_and_is_counted(garbage):
    """No noise passes for a frame (the CRC sees to it), and it never raises."""
    decoder = StreamDecoder()
    assert decoder.feed(garbage + b"\0") == []
    assert (decoder.rejected > 0) == any(garbage)


def test_noise_on_the_line_never_yields_a_wrong_frame():
    """Ten thousand frames through bit flips, losses and inserted bytes: each that
    comes out went in, and most do."""
    dice = random.Random(4)
    decoder = StreamDecoder()
    sent, found = set(), []
    for _ in range(10_000):
        frame = dice.randbytes(dice.randint(40, 120))
        sent.add(frame)
        noisy = bytearray()
        for byte in frame_for_stream(frame):
            fate = dice.random()
            if fate < 0.0005:
                continue
            noisy.append(byte ^ (1 << dice.randrange(8)) if fate < 0.001 else byte)
            if fate > 0.9995:
                noisy.append(dice.randrange(256))
        found += decoder.feed(bytes(noisy))
    assert len(found) > 8_000
    assert set(found) <= sent
    assert decoder.rejected >= 10_000 - len(found) - 10


@given(st.integers(1, 50))
def test_a_stream_without_delimiters_takes_bounded_memory(blocks):
    """A line that babbles for ever; the frame after it is found, the babble counted once."""
    decoder = StreamDecoder()
    for _ in range(blocks):
        decoder.feed(b"\x55" * 1_000)
        assert len(decoder._tail) <= StreamDecoder.CHUNK_MAX
    assert decoder.feed(frame_for_stream(b"after")) == [b"after"]
    assert decoder.rejected == 1


def test_a_frame_torn_in_the_middle_costs_only_itself():
    """The rest of it does not swallow the next."""
    first, second = frame_for_stream(b"one" * 20), frame_for_stream(b"two" * 20)
    decoder = StreamDecoder()
    assert decoder.feed(first[:30] + second) == [b"two" * 20]
    assert decoder.rejected == 1
