"""What survives a restart of the brain: the incarnation and the operator's wishes.

Decides how these two small files are written so that a power cut leaves the
old or the new content and never half of one.  Refuses to know what a wish
means.  Everything here blocks on the disk: the brain calls it before its loop
runs, or from its one disk thread, never from the loop.
"""

import contextlib
import errno
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Final

import msgspec

from hostd.clock import now_ms
from hostd.core.snapshot import Wish
from hostd.core.terms import NEVER_BORN, Incarnation
from hostd.core.wire import BOOT_MAX
from hostd.decoding import UNDECODABLE

_COUNTER: Final = "incarnation"
_WISHES: Final = "wishes.json"
_SEEN: Final = "services.json"
SERIAL_MAX: Final = 2**53
"""Of a wish: never reached, and there is room above it to count on (msgpack carries 64 bits)."""
_NONCE_RANDOM_BITS: Final = 24
"""Of the 64; the rest are the milliseconds since the boot, enough for 34 years."""
_SIZE_MAX: Final = 1_000_000
"""Bytes of a file: some thousands of wishes; of a longer one the rest is not read."""

_seen_decoder = msgspec.json.Decoder(dict[str, float])
_wishes_decoder = msgspec.json.Decoder(tuple[Wish, ...])


def next_incarnation(state: Path, above: Incarnation = NEVER_BORN) -> Incarnation:
    """Draw the incarnation of a new life, put it on the disk, return it.

    Higher than ``above`` and than every one drawn before on this node: one
    more than the stored counter, and never below the wall clock in seconds,
    which takes over when the counter is lost or cannot be stored.  Never
    raises: a node with a broken disk must be able to say that it is there.
    """
    incarnation = unstored_incarnation(max(above, Incarnation(_stored_counter(state), 0)))
    with contextlib.suppress(OSError):  # SaveWishes tells the operator of a broken disk
        replace(state / _COUNTER, b"%d\n" % incarnation.boot)
    return incarnation


def unstored_incarnation(above: Incarnation) -> Incarnation:
    """An incarnation higher than ``above``, numbered by the wall clock; touches no disk.

    If two lives of one boot get the same number (a disk that takes nothing, a
    clock that was set back), the later one is the higher by its nonce.
    """
    number = max(above.boot + 1, int(time.time()))
    return Incarnation(number, (now_ms() << _NONCE_RANDOM_BITS) | secrets.randbits(_NONCE_RANDOM_BITS))


def _stored_counter(state: Path) -> int:
    try:
        counter = int(read(state / _COUNTER)[:18])
    except (OSError, ValueError):
        return 0
    return counter if counter < BOOT_MAX else 0  # no frame can be sealed under such a life: damage


def save_wishes(state: Path, wishes: tuple[Wish, ...]) -> None:
    """Replace the stored wishes; they are on the disk on return.  Raises OSError."""
    replace(state / _WISHES, msgspec.json.encode(wishes) + b"\n")


def load_wishes(state: Path) -> tuple[tuple[Wish, ...], str]:
    """The stored wishes, and what was wrong with the file (empty if nothing was).

    A file that cannot be read counts as no wishes: the peer holds them too.
    """
    try:
        body = read(state / _WISHES)
    except FileNotFoundError:
        return (), ""
    except OSError as error:
        return (), f"{state / _WISHES} cannot be read: {error.strerror}"
    try:
        wishes = _wishes_decoder.decode(body)
        if not all(0 <= wish.serial <= SERIAL_MAX for wish in wishes):
            raise msgspec.ValidationError("a serial out of any measure")
        return wishes, ""
    except UNDECODABLE as error:
        return (), f"{state / _WISHES} is damaged: {error}"


def first_seen(state: Path, services: tuple[str, ...], now_s: float) -> dict[str, float]:
    """When each service was first in conf.d here, on the wall clock; new ones are noted, gone ones forgotten.

    Never raises: without its file all are new, which costs availability and never safety.
    """
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, *UNDECODABLE):
        known = _seen_decoder.decode(read(state / _SEEN))
    seen = {name: min(max(0.0, known.get(name, now_s)), now_s) for name in services}
    if seen != known:
        with contextlib.suppress(OSError):  # SaveWishes tells the operator of a broken disk
            replace(state / _SEEN, msgspec.json.encode(seen) + b"\n")
    return seen


def read(path: Path, size_max: int = _SIZE_MAX) -> bytes:
    """A regular file's first bytes.  Raises OSError, for a link and a pipe, too: ours are neither."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return file.read(size_max)


def opened_beside(path: Path, mode: int) -> tuple[int, Path]:
    """A new file in the folder of ``path``, to be renamed to it: open for writing, and its path.

    Never what somebody else has put there: in a folder that others may write to
    (a collector's), a link would have us write wherever it leads.  Raises OSError.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # of an earlier process of this number
    return os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), beside


def replace(path: Path, body: bytes) -> None:
    """Write, fsync, rename, fsync the folder: old or new after a power cut, never half.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = opened_beside(path, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
