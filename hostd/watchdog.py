"""The watchdog: a device that resets this machine if hostd stands still.

Decides when it is fed: by a fresh word of a brain whose loop turns, that a
fresh beat of the heart backs, read by a host whose loop turns.  If any of the
three hangs, feeding ends, and the device does the rest.  Unplugged cables
starve nobody: a heart keeps time without them.

And when it is let go: at the end of a daemon that went in good order (leave,
and detach, since services go on with nobody to feed for them), by the magic
character.  After a crash, a failed leave or an end by force the device runs
on: a new host must open and feed it within its time.  Where nothing was
promised yet (it did not run when it was opened, so this is the first start
since the boot) the host feeds it alone until all turn for the first time, and
lets it go if that does not come: a machine whose hostd cannot start must not
reset itself again and again.  Refuses to know what a reset means to the
cluster: that is only published.
"""

import array
import errno
import fcntl
import logging
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from hostd import config
from hostd.clock import now_ms
from hostd.messages import Alive, WatchdogIs

log = logging.getLogger("hostd.watchdog")

WORD_MAX_MS: Final = 1_500
"""A brain speaks every 500 ms."""
BEAT_MAX_MS: Final = 3_000
"""A heart tells of its beats once a second, and a brain passes that on within half a second."""
FEED_MS: Final = 400
"""Not more often: each word of the brain feeds, however many come."""
START_MAX_MS: Final = 60_000
"""How long a first start may take to have all turn; a second is usual."""
START_FEED_MS: Final = 500
RETRY_MS: Final = 10_000
"""At a boot the driver may come later than hostd; a device that is busy may be let go."""

# linux/watchdog.h
_GETSUPPORT: Final = 0x80285700
_KEEPALIVE: Final = 0x80045705
_SETTIMEOUT: Final = 0xC0045706
_GETTIMEOUT: Final = 0x80045707
_SUPPORT: Final = struct.Struct("=II32s")
CAN_MAGIC_CLOSE: Final = 0x0100
_MISC: Final = (10, 130)
"""/dev/watchdog: the same device as /dev/watchdog0."""
SOFTDOG: Final = "Software Watchdog"
"""A timer of the kernel itself: a kernel that hangs does not reset itself by it."""


class Device(Protocol):
    """An open watchdog: from the opening on it counts down.  Every method raises OSError."""

    identity: str
    can_be_closed: bool
    """The magic character lets it go (unless its driver has ``nowayout``)."""

    def set_timeout(self, seconds: int) -> int:
        """What it is set to now, in seconds: a driver may round."""

    def feed(self) -> None: ...
    def let_go(self) -> None:
        """Write the magic character; to be closed next."""

    def close(self) -> None: ...
    def fileno(self) -> int: ...


class KernelDevice:
    """Any device with the ioctls of the kernel's watchdog API."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: not there, busy (EBUSY), or no watchdog (ENOTTY)."""
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        support = bytearray(_SUPPORT.size)
        try:
            fcntl.ioctl(self._file, _GETSUPPORT, support)
        except OSError:
            os.close(self._file)
            raise
        options, _firmware, identity = _SUPPORT.unpack(support)
        self.identity = identity.partition(b"\0")[0].decode(errors="replace")
        self.can_be_closed = bool(options & CAN_MAGIC_CLOSE)

    def set_timeout(self, seconds: int) -> int:
        value = array.array("i", [seconds])
        try:
            fcntl.ioctl(self._file, _SETTIMEOUT, value)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                raise
            log.warning("%s cannot be set to %d s: %s", self.identity, seconds, error.strerror)
        fcntl.ioctl(self._file, _GETTIMEOUT, value)
        return value[0]

    def feed(self) -> None:
        fcntl.ioctl(self._file, _KEEPALIVE, 0)

    def let_go(self) -> None:
        os.write(self._file, b"V")

    def close(self) -> None:
        os.close(self._file)

    def fileno(self) -> int:
        return self._file


def open_device(path: Path) -> Device:
    """The seam for tests."""
    return KernelDevice(path)


class Watchdog:
    """The host's; does nothing without ``[watchdog]``.  ``tell`` hears how it is whenever that changes."""

    def __init__(self, tell: Callable[[WatchdogIs], None]) -> None:
        self._tell = tell
        self._wanted: config.Watchdog | None = None
        self._device: Device | None = None
        self._timeout_ms = 0
        self._detail = ""
        self._retry_at_ms: int | None = None
        self._fed_at_ms = 0
        self._is_starved = False
        self._start_until_ms: int | None = None
        """So long the host feeds alone; None: only a brain that is well does."""
        self._is_given_up = False
        """Until all turn at last."""

    def want(self, wanted: config.Watchdog | None) -> None:
        """As conf.d says now: open, set, or let go."""
        before, self._wanted = self._wanted, wanted
        if before is not None and (wanted is None or wanted.device != before.device):
            self.let_go()
        if wanted is None:
            self._retry_at_ms = None
        elif self._device is None:
            self._open(wanted)
        elif before is not None and wanted.timeout_ms != before.timeout_ms:
            self._set(self._device, wanted)

    def word(self) -> WatchdogIs | None:
        """How it is; None: conf.d has none."""
        if self._wanted is None:
            return None
        bound_ms = self._timeout_ms + BEAT_MAX_MS if self._device is not None else 0
        identity = self._device.identity if self._device is not None else ""
        return WatchdogIs(self._timeout_ms if self._device else 0, bound_ms, identity, self._detail)

    def hear(self, word: Alive) -> None:
        """The brain is well, says the brain: feed, if its word is fresh and a beat stands behind it."""
        now = now_ms()
        is_fresh = now - word.at_ms <= WORD_MAX_MS and now - word.beat_at_ms <= BEAT_MAX_MS
        if is_fresh and self._is_given_up and self._wanted is not None:
            self._open(self._wanted)
        if self._device is None or now - self._fed_at_ms < FEED_MS:
            return
        if not is_fresh:
            if not self._is_starved:
                log.error("the watchdog is not fed: last beat %d ms ago", now - word.beat_at_ms)
            self._is_starved = True
            return
        self._is_starved, self._start_until_ms = False, None
        self._feed(self._device)

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do."""
        return self._retry_at_ms if self._start_until_ms is None else self._fed_at_ms + START_FEED_MS

    def tick(self) -> None:
        """Try again to open a device that was not there; feed it in a first start, and give that up."""
        now = now_ms()
        if self._device is not None and self._start_until_ms is not None:
            if now >= self._start_until_ms:
                self._is_given_up = True
                self._detail = f"heart and brain did not come to turn within {START_MAX_MS // 1_000} s of the start"
                log.error("the watchdog is given up: %s", self._detail)
                self.let_go()
                self._say()
            elif now >= self._fed_at_ms + START_FEED_MS:
                self._feed(self._device)
        if self._retry_at_ms is not None and now_ms() >= self._retry_at_ms and self._wanted is not None:
            self._open(self._wanted)

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep: it would be busy for the next host."""
        return [self._device.fileno()] if self._device is not None else []

    def let_go(self) -> None:
        """Disarm: the end in good order."""
        device, self._device, self._start_until_ms = self._device, None, None
        if device is None:
            return
        try:
            device.let_go()
            device.close()
        except OSError as error:
            log.error("the watchdog cannot be let go: %s", error.strerror)
        else:
            log.info("the watchdog is let go")

    def abandon(self) -> None:
        """The end, and not in good order: it runs on."""
        device, self._device = self._device, None
        if device is not None:
            log.error("the watchdog runs on: unless hostd is back in %d ms, this machine resets", self._timeout_ms)
            device.close()

    # -- inside ----------------------------------------------------------------------

    def _feed(self, device: Device) -> None:
        self._fed_at_ms = now_ms()
        try:
            device.feed()
        except OSError as error:  # the driver is broken: nothing that we could do
            log.error("the watchdog cannot be fed: %s", error.strerror)

    def _open(self, wanted: config.Watchdog) -> None:
        self._retry_at_ms, self._is_given_up = None, False
        is_first = _runs_not(wanted.device)
        try:
            device = open_device(wanted.device)
        except OSError as error:
            detail = _why_not(error)
            self._retry_at_ms = now_ms() + RETRY_MS
            if detail != self._detail:
                log.error("the watchdog %s is not armed: %s", wanted.device, detail)
                self._detail = detail
                self._say()
            return
        self._device, self._detail = device, ""
        self._start_until_ms = now_ms() + START_MAX_MS if is_first else None
        self._set(device, wanted)
        log.info("the watchdog is armed: %s, %d ms", device.identity or wanted.device, self._timeout_ms)
        if not device.can_be_closed or nowayout(wanted.device):
            log.warning("the watchdog cannot be let go again: whenever hostd ends, this machine resets")

    def _set(self, device: Device, wanted: config.Watchdog) -> None:
        seconds = -(-wanted.timeout_ms // 1_000)
        try:
            self._timeout_ms = device.set_timeout(seconds) * 1_000
        except OSError as error:
            log.error("the watchdog does not take its time limit: %s", error.strerror)
            self._timeout_ms = wanted.timeout_ms
        self._feed(device)
        if self._timeout_ms != seconds * 1_000:
            log.warning("the watchdog took %d ms for %d ms", self._timeout_ms, seconds * 1_000)
        self._say()

    def _say(self) -> None:
        word = self.word()
        if word is not None:
            self._tell(word)


def _runs_not(path: Path) -> bool:
    """The kernel knows that nobody has armed it, or that it was let go."""
    try:
        return facts(path).get("state") == "inactive"
    except OSError:
        return False


def _why_not(error: OSError) -> str:
    match error.errno:
        case errno.EBUSY:
            return "another program holds it"
        case errno.ENOTTY:
            return "it is no watchdog"
        case _:
            return error.strerror or str(error)


# -- without opening it: that would arm it ------------------------------------------------


def facts(path: Path, sysfs: Path = Path("/sys")) -> dict[str, str]:
    """What the kernel tells of it (identity, nowayout, state, timeout); empty if nothing.  Raises OSError."""
    status = path.stat()
    if not stat.S_ISCHR(status.st_mode):
        raise OSError(errno.ENOTTY, "it is no device", str(path))
    number = os.major(status.st_rdev), os.minor(status.st_rdev)
    if number == _MISC:
        folder = sysfs / "class" / "watchdog" / "watchdog0"
    else:
        folder = sysfs / "dev" / "char" / f"{number[0]}:{number[1]}"
        if (folder / "subsystem").resolve().name != "watchdog":
            raise OSError(errno.ENOTTY, "it is no watchdog", str(path))
    found = {}
    for name in ("identity", "nowayout", "state", "timeout", "max_timeout"):
        try:
            found[name] = (folder / name).read_text().strip()
        except OSError:  # an older kernel tells less
            continue
    return found


def nowayout(path: Path) -> bool:
    """Its driver keeps it armed whatever is written."""
    try:
        return facts(path).get("nowayout") == "1"
    except OSError:
        return False


def holder(path: Path, proc: Path = Path("/proc")) -> tuple[str, int] | None:
    """Name and id of a process that has this device open."""
    number = path.stat().st_rdev
    for link in proc.glob("[0-9]*/fd/*"):
        try:
            target = link.readlink()
            if not str(target).startswith("/dev/watchdog") or target.stat().st_rdev != number:
                continue
            process = link.parent.parent
            return (process / "comm").read_text().strip(), int(process.name)
        except OSError:  # it ended meanwhile
            continue
    return None
