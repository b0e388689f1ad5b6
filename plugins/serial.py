"""The heartbeat over a serial cable: ``[[heartbeat.link]] type = "serial"``.

Decides how bytes get onto a tty without ever waiting for it, and what the
modem lines say of the other end.  Refuses to know what a frame says.

pyserial opens and configures the tty and nothing else: its ``write`` spins
for ever on a full buffer.  A line never queues: a frame is dropped while
more than one beat is still leaving, so that what arrives is fresh.
"""

import contextlib
import errno
import fcntl
import math
import os
import stat
import struct
import termios
from pathlib import Path
from typing import Any, Final

import serial

from hostd.api import (
    REQUIRED,
    Carrier,
    Field,
    Link,
    LinkSettings,
    Note,
    Parameters,
    StreamDecoder,
    frame_for_stream,
    hookimpl,
)

BEAT_SIZE: Final = 100
"""No heartbeat is longer in a byte stream, delimiters and checksum included."""
DUTY: Final = 0.6
"""How much of the line beats may take; the rest is for snapshots and for clocks that differ."""
BITS_PER_BYTE: Final = 10
"""Eight, a start and a stop bit."""
STUFFING: Final = 16
"""What a frame grows by in the stream: CRC 4, delimiters 2, COBS 1 per 254 bytes."""
MTU_MIN: Final = 144
MTU_MAX: Final = 1_200
READ_MAX: Final = 4_096
READS_MAX: Final = 16
"""Per wake-up, so that a babbling line cannot hold up the beats: 64 kB is more than a tty holds."""
REOPEN_FIRST_MS: Final = 100
REOPEN_MAX_MS: Final = 1_000


@hookimpl
def link_types() -> dict[str, Parameters]:
    return {
        "serial": Parameters(
            Field("device", str, default=REQUIRED, help="the tty, for example /dev/ttyS0"),
            Field("baud", int, default=115_200, help="the line's speed, the same on both nodes",
                  choices=[baud for baud in serial.Serial.BAUDRATES if 1_200 <= baud <= 1_000_000]),
            summary="a null-modem cable between two serial ports",
            cable=True,
        )
    }  # fmt: skip


@hookimpl
def open_link(settings: LinkSettings) -> Link | None:
    if settings.type != "serial":
        return None
    return SerialLink(settings)


@hookimpl
def check_link(settings: LinkSettings) -> list[str] | None:
    if settings.type != "serial":
        return None
    device, baud = settings.settings["device"], settings.settings.get("baud", 115_200)
    complaints: list[str] = []
    slowest_ms = beat_interval_ms(baud, settings.keepalive_ms)
    if slowest_ms > settings.keepalive_ms:
        complaints.append(
            Note(
                f"{settings.name}: baud = {baud} carries a beat every {slowest_ms} ms, not every"
                f" {settings.keepalive_ms} ms: that is its rate here; set a higher baud on both nodes for more"
            )
        )
    try:
        mode = Path(device).stat().st_mode
    except OSError as error:
        return [*complaints, f"{settings.name}: device {device}: {error.strerror}; name a tty of this node"]
    if not stat.S_ISCHR(mode):
        complaints.append(f"{settings.name}: device {device} is no tty; name one, such as /dev/ttyS0")
    elif not os.access(device, os.R_OK | os.W_OK):
        complaints.append(f"{settings.name}: device {device} may not be read and written; run hostd as root")
    return complaints


def beat_interval_ms(baud: int, keepalive_ms: int) -> int:
    """How often a line of this speed can carry a beat: the wished rate, or a slower one."""
    return max(keepalive_ms, math.ceil(BEAT_SIZE * BITS_PER_BYTE * 1_000 / (baud * DUTY)))


def part_mtu(baud: int, keepalive_ms: int) -> int:
    """The longest frame that may follow a beat: on a fast line it is through
    before the next beat is due, on a slow one it delays it by one keepalive at most."""
    capacity = baud * keepalive_ms // (BITS_PER_BYTE * 1_000)
    behind_a_beat = capacity - BEAT_SIZE
    room = behind_a_beat if behind_a_beat >= 2 * MTU_MIN else capacity
    return max(MTU_MIN, min(MTU_MAX, room - STUFFING))


class SerialLink:
    """One tty.  It is open, or away and tried again by ``tick``."""

    burst = 1

    def __init__(self, settings: LinkSettings) -> None:
        self._device: str = settings.settings["device"]
        self._baud: int = settings.settings.get("baud", 115_200)
        self.keepalive_ms = beat_interval_ms(self._baud, settings.keepalive_ms)
        self.mtu = part_mtu(self._baud, self.keepalive_ms)
        self._port: serial.Serial | None = None
        self._fd = -1
        self._tail = b""
        """What the tty did not take of a frame; without it the frame would be torn."""
        self._decoder = StreamDecoder()
        self._rejected_before = 0
        self._detail = "not yet opened"
        self._lines_were_up = False
        self._reopen_at_ms = 0
        self._backoff_ms = REOPEN_FIRST_MS
        self._open()

    # -- open and away -----------------------------------------------------------

    def _open(self) -> None:
        try:
            port = serial.Serial(
                self._device, self._baud, timeout=0, exclusive=True, rtscts=False, dsrdtr=False, xonxoff=False
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            number = getattr(error, "errno", None)
            self._detail = f"{self._device}: {os.strerror(number) if number else error}"
            return
        try:
            _make_raw(port.fileno())
        except (OSError, termios.error) as error:
            self._detail = f"{self._device}: {error.args[-1]}"
            port.close()
            return
        self._port, self._fd, self._detail = port, port.fileno(), ""
        self._tail = b""

    def _hang_up(self, detail: str) -> None:
        """Close what does not work any more; ``tick`` opens it again."""
        if self._port is None:
            return
        # A tty that is gone has nothing to flush, and counts as closed whatever
        # its driver says.
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self._fd, termios.TCOFLUSH)  # else a close may wait 30 s for it to leave
        with contextlib.suppress(OSError, termios.error):
            self._port.close()
        self._rejected_before += self._decoder.rejected
        self._decoder = StreamDecoder()
        self._port, self._fd, self._tail = None, -1, b""
        self._detail = f"{self._device}: {detail}"

    def tick(self, now_ms: int) -> None:
        if self._port is None and now_ms >= self._reopen_at_ms:
            self._open()
            self._reopen_at_ms = now_ms + self._backoff_ms
            self._backoff_ms = min(2 * self._backoff_ms, REOPEN_MAX_MS)
        elif self._tail:
            self._write(b"")

    def close(self) -> None:
        self._hang_up("closed")

    # -- frames ------------------------------------------------------------------

    def fileno(self) -> int:
        return self._fd

    def send(self, frame: bytes) -> bool:
        assert len(frame) <= self.mtu, (len(frame), self.mtu)
        if self._tail:
            self._write(b"")
        if self._port is None or self._tail or self._leaving() > BEAT_SIZE:
            return False
        return self._write(frame_for_stream(frame))

    def _write(self, data: bytes) -> bool:
        """Write the tail and then ``data``; what the tty does not take is the new
        tail.  False if nothing of it was taken or the tty is gone."""
        data = self._tail + data
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            return False  # the old tail, if any, still stands
        except OSError as error:
            self._hang_up(os.strerror(error.errno or errno.EIO))
            return False
        self._tail = data[written:]
        return True

    def _leaving(self) -> int:
        """Bytes that the tty has taken but not yet sent (0 where it cannot tell: a pty)."""
        try:
            return _get_int(self._fd, termios.TIOCOUTQ)
        except OSError:
            return 0

    def received(self) -> list[bytes]:
        frames: list[bytes] = []
        for _ in range(READS_MAX):
            if self._port is None:
                break
            try:
                data = os.read(self._fd, READ_MAX)
            except BlockingIOError:
                break
            except OSError as error:
                self._hang_up(os.strerror(error.errno or errno.EIO))
                break
            if not data:
                self._hang_up("hung up")
                break
            frames += self._decoder.feed(data)
            self._backoff_ms = REOPEN_FIRST_MS
            if len(data) < READ_MAX:
                break  # drained; what comes now wakes us again
        return frames

    # -- what it says of itself --------------------------------------------------

    def carrier(self) -> Carrier:
        """DSR or carrier detect of a null-modem cable: the other end has power and
        holds its port open.  UNKNOWN until they were up once: a cable of three
        wires does not have them."""
        try:
            lines = _get_int(self._fd, termios.TIOCMGET) if self._port is not None else 0
        except OSError:
            return Carrier.UNKNOWN
        if lines & (termios.TIOCM_DSR | termios.TIOCM_CAR):
            self._lines_were_up = True
            return Carrier.UP
        if self._port is None:
            return Carrier.UNKNOWN
        return Carrier.DOWN if self._lines_were_up else Carrier.UNKNOWN

    @property
    def usable(self) -> bool:
        return self._port is not None

    @property
    def detail(self) -> str:
        return self._detail

    @property
    def rejected(self) -> int:
        return self._rejected_before + self._decoder.rejected


def _get_int(fd: int, request: int) -> int:
    answer: int = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0]
    return answer


def _make_raw(fd: int) -> None:
    """What pyserial leaves undone: an empty line must be told from a hangup
    (VMIN 1: EAGAIN, not end of file), a break is no input, and DTR stays up
    over a restart of the daemon (HUPCL off)."""
    settings: list[Any] = termios.tcgetattr(fd)
    settings[0] = termios.IGNBRK | termios.IGNPAR
    settings[2] = (settings[2] | termios.CLOCAL | termios.CREAD) & ~termios.HUPCL
    settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    os.set_blocking(fd, False)
    try:
        fcntl.ioctl(fd, termios.TIOCMBIS, struct.pack("i", termios.TIOCM_DTR | termios.TIOCM_RTS))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
