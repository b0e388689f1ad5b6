"""The serial link on pseudo terminals: garbage, torn frames, hangups, a reader that sleeps."""

import fcntl
import itertools
import os
import pty
import select
import struct
import termios
import time
import tty

import pytest

from hostd.api import Carrier, LinkSettings, StreamDecoder, frame_for_stream
from plugins import serial


def settings(device, baud=115_200, keepalive_ms=100):
    return LinkSettings("cable", "serial", "a", "b", "test", keepalive_ms, {"device": str(device), "baud": baud})


class Line:
    """A tty whose other end is the test.  The device is a link in a directory, so
    that it can go away and come back under its name."""

    def __init__(self, directory):
        self.device = directory / "ttyS0"
        self.master = -1
        self.plug()

    def plug(self):
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self.master, False)
        self.device.symlink_to(os.ttyname(slave))
        self.slave = slave

    def pull(self):
        self.device.unlink()
        self.close()

    def close(self):
        if self.master >= 0:
            os.close(self.master)
            os.close(self.slave)
        self.master = -1

    def read(self):
        """All that was written: the kernel hands it over a little later, in pieces."""
        data = b""
        while select.select([self.master], [], [], 0.05)[0]:
            data += os.read(self.master, 100_000)
        return data


@pytest.fixture
def line(tmp_path):
    made = Line(tmp_path)
    yield made
    made.close()


@pytest.fixture
def link(line):
    made = serial.open_link(settings(line.device))
    assert made.usable, made.detail
    yield made
    made.close()


def arrived(link, seconds=1.0):
    select.select([link], [], [], seconds)
    return link.received()


def test_frames_pass_both_ways(line, link):
    """Whole, in order, with zero bytes and all."""
    assert link.send(b"one\0two") and link.send(bytes(100))
    assert StreamDecoder().feed(line.read()) == [b"one\0two", bytes(100)]
    os.write(line.master, frame_for_stream(b"back") + frame_for_stream(b"again"))
    assert arrived(link) == [b"back", b"again"]
    assert link.received() == [] and link.usable


def test_an_empty_line_is_not_a_hangup(line, link):
    """Nothing to read is nothing to worry about."""
    for now in range(0, 1_000, 100):
        assert link.received() == []
        link.tick(now)
    assert link.usable and link.rejected == 0


@pytest.mark.parametrize("special", [b"\x03", b"\x04", b"\x11\x13", b"\r\n", b"\x1a\x1c", b"\x7f\xff\xff"])
def test_the_line_is_raw(line, link, special):
    """Control characters, flow control and line ends are data like any other."""
    frame = special * 5
    os.write(line.master, frame_for_stream(frame))
    assert arrived(link) == [frame]
    link.send(frame)
    assert StreamDecoder().feed(line.read()) == [frame]


def test_garbage_and_half_frames_cost_only_themselves(line, link):
    """A tty at the wrong speed, a getty's prompt, a frame cut by the plug."""
    os.write(line.master, b"\xf0\x00\x80login: " + frame_for_stream(b"half" * 9)[:20] + frame_for_stream(b"good"))
    assert arrived(link) == [b"good"]
    assert link.rejected >= 2


def test_a_hangup_closes_and_the_next_tick_opens_again(line, link):
    """A USB adapter that is pulled and plugged in: no spinning on a dead descriptor, why and what is told."""
    line.pull()
    assert arrived(link) == []
    assert not link.usable and link.fileno() == -1 and str(line.device) in link.detail
    assert not link.send(b"lost")
    link.tick(0)
    assert not link.usable and link.detail.endswith("No such file or directory")
    line.plug()
    link.tick(serial.REOPEN_MAX_MS)
    assert link.usable and link.detail == ""
    assert link.send(b"found")
    assert StreamDecoder().feed(line.read()) == [b"found"]


def test_a_write_to_a_dead_line_is_no_error(line, link):
    """The hangup is met in send first."""
    line.pull()
    assert not link.send(b"x")
    assert not link.usable


def test_a_missing_tty_is_tried_again_with_a_growing_pause(tmp_path):
    """At most once a second in the end: no open() in every beat."""
    link = serial.open_link(settings(tmp_path / "none"))
    assert not link.usable and "No such file" in link.detail
    tried = []
    for now in range(0, 10_000, 100):
        before = link._reopen_at_ms
        link.tick(now)
        if link._reopen_at_ms != before:
            tried.append(now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert gaps[0] <= 200 and gaps[-1] == serial.REOPEN_MAX_MS and gaps == sorted(gaps)


def test_a_tty_that_another_hostd_holds_is_not_shared(line, link):
    """Two readers would tear each other's frames."""
    second = serial.open_link(settings(line.device))
    assert not second.usable
    assert second.detail
    link.close()
    second.tick(0)
    assert second.usable
    second.close()


def test_a_reader_that_sleeps_never_blocks_us_and_never_gets_a_torn_frame(line, link):
    """Its buffer fills, frames are dropped, a partly written one is completed when it wakes."""
    frame = bytes(range(256)) * 4
    started = time.monotonic()
    results = [link.send(frame) for _ in range(200)]
    assert time.monotonic() - started < 2
    assert results[0] and not results[-1] and link.usable
    decoder, read = StreamDecoder(), []
    while data := line.read():
        read += decoder.feed(data)
        link.tick(0)
    assert read == [frame] * len(read) and decoder.rejected == 0
    assert len(read) == sum(results)
    assert link.send(b"fresh")
    assert decoder.feed(line.read()) == [b"fresh"]


def test_a_frame_is_dropped_while_more_than_a_beat_is_leaving(line, link, monkeypatch):
    """Latest wins, nothing queues (a pty cannot tell what is still leaving, so the tty's answer is played)."""
    leaving = 0
    monkeypatch.setattr(link, "_leaving", lambda: leaving)
    assert link.send(b"beat")
    leaving = serial.BEAT_SIZE
    assert link.send(b"part behind a beat")
    leaving = serial.BEAT_SIZE + 1
    assert not link.send(b"stale before it leaves")
    assert StreamDecoder().feed(line.read()) == [b"beat", b"part behind a beat"]


# -- speeds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baud", "keepalive_ms", "slowest_ms"),
    [(115_200, 100, 100), (19_200, 100, 100), (19_200, 50, 87), (9_600, 100, 174), (2_400, 100, 695)],
)
def test_a_slow_line_beats_as_often_as_it_can(line, baud, keepalive_ms, slowest_ms):
    """Frames of a hundred bytes at 60 % duty; never more often than asked."""
    link = serial.open_link(settings(line.device, baud, keepalive_ms))
    assert link.keepalive_ms == slowest_ms
    assert link.keepalive_ms * baud * 0.6 / 10_000 >= 100 or link.keepalive_ms == keepalive_ms
    link.close()
    said = serial.check_link(settings(line.device, baud, keepalive_ms))
    assert bool(said) == (slowest_ms > keepalive_ms)
    assert all(f"every {slowest_ms} ms" in sentence for sentence in said)


@pytest.mark.parametrize("baud", [1_200, 2_400, 9_600, 19_200, 38_400, 57_600, 115_200])
@pytest.mark.parametrize("keepalive_ms", [20, 100, 500])
def test_a_part_delays_the_next_beat_by_a_keepalive_at_most(baud, keepalive_ms):
    """Beat and part together leave within two keepalives, on a fast line within one."""
    interval_ms = serial.beat_interval_ms(baud, keepalive_ms)
    size = serial.BEAT_SIZE + len(frame_for_stream(bytes(serial.part_mtu(baud, interval_ms))))
    leaving_ms = size * 10_000 / baud
    assert leaving_ms <= 2 * interval_ms
    if baud * interval_ms >= 4_000_000:
        assert leaving_ms <= interval_ms


# -- the other end ----------------------------------------------------------------------


class Lines:
    """Modem lines, which no pty has: plays the ioctl that asks for them."""

    def __init__(self, monkeypatch):
        self.up = 0
        real = fcntl.ioctl

        def ioctl(fd, request, argument):
            return struct.pack("i", self.up) if request == termios.TIOCMGET else real(fd, request, argument)

        monkeypatch.setattr(serial.fcntl, "ioctl", ioctl)


def test_a_tty_without_modem_lines_tells_nothing_of_the_other_end(link):
    """A pty answers ENOTTY."""
    assert link.carrier() is Carrier.UNKNOWN


@pytest.mark.parametrize("line_up", [termios.TIOCM_DSR, termios.TIOCM_CAR])
def test_the_peers_power_shows_on_dsr_and_carrier_detect(link, monkeypatch, line_up):
    """Down counts only after up: a cable of three wires never has them up."""
    lines = Lines(monkeypatch)
    assert link.carrier() is Carrier.UNKNOWN
    lines.up = line_up
    assert link.carrier() is Carrier.UP
    lines.up = 0
    assert link.carrier() is Carrier.DOWN


# -- check --------------------------------------------------------------------------------


def test_check_names_what_is_wrong(line, tmp_path):
    """A missing tty, a file that is none, and silence about a good one."""
    (tmp_path / "file").touch()
    assert serial.check_link(settings(line.device)) == []
    (missing,) = serial.check_link(settings(tmp_path / "none"))
    assert "none: No such file or directory; name a tty" in missing
    (no_tty,) = serial.check_link(settings(tmp_path / "file"))
    assert "is no tty" in no_tty


def test_what_is_no_tty_is_not_used(tmp_path):
    """Named by mistake: it is not opened, and not harmed."""
    (tmp_path / "file").write_bytes(b"precious")
    link = serial.open_link(settings(tmp_path / "file"))
    assert not link.usable and not link.send(b"x")
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_links_of_other_types_are_left_to_others():
    """None is pluggy's word for: not mine."""
    other = LinkSettings("x", "udp", "a", "b", "test", 100, {})
    assert serial.open_link(other) is None and serial.check_link(other) is None
