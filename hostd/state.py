"""What survives a restart of the brain: the incarnation and the operator's wishes.

Decides how these two small files are written so that a power cut leaves the
old or the new content and never half of one.  Refuses to know what a wish
means.  Everything here blocks on the disk: the brain calls it before its loop
runs, or from its one disk thread, never from the loop.
"""

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from hostd.core.snapshot import Wish
from hostd.core.terms import NEVER_BORN, Incarnation

_COUNTER: Final = "incarnation"
_WISHES: Final = "wishes.json"
_SEEN: Final = "services.json"
_WISHES_SIZE_MAX: Final = 1_000_000
"""Some thousands of wishes; a longer file is not ours."""

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
    """An incarnation higher than ``above``, numbered by the wall clock; touches no disk."""
    return Incarnation(max(above.boot + 1, int(time.time())), secrets.randbits(32))


def _stored_counter(state: Path) -> int:
    try:
        return int((state / _COUNTER).read_text().strip()[:18])
    except (OSError, ValueError):
        return 0


def save_wishes(state: Path, wishes: tuple[Wish, ...]) -> None:
    """Replace the stored wishes; they are on the disk on return.  Raises OSError."""
    replace(state / _WISHES, msgspec.json.encode(wishes) + b"\n")


def load_wishes(state: Path) -> tuple[tuple[Wish, ...], str]:
    """The stored wishes, and what was wrong with the file (empty if nothing was).

    A file that cannot be read counts as no wishes: the peer holds them too.
    """
    try:
        body = (state / _WISHES).read_bytes()
    except FileNotFoundError:
        return (), ""
    except OSError as error:
        return (), f"{state / _WISHES} cannot be read: {error.strerror}"
    try:
        if len(body) > _WISHES_SIZE_MAX:
            raise msgspec.ValidationError(f"{len(body)} bytes")
        return _wishes_decoder.decode(body), ""
    except msgspec.DecodeError as error:
        return (), f"{state / _WISHES} is damaged: {error}"


def first_seen(state: Path, services: tuple[str, ...], now_s: float) -> dict[str, float]:
    """When each service was first in conf.d here, on the wall clock; new ones are noted, gone ones forgotten.

    Never raises: without its file all are new, which costs availability and never safety.
    """
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, msgspec.DecodeError):
        known = _seen_decoder.decode((state / _SEEN).read_bytes())
    seen = {name: min(known.get(name, now_s), now_s) for name in services}
    if seen != known:
        with contextlib.suppress(OSError):  # SaveWishes tells the operator of a broken disk
            replace(state / _SEEN, msgspec.json.encode(seen) + b"\n")
    return seen


def replace(path: Path, body: bytes) -> None:
    """Write, fsync, rename, fsync the folder: old or new after a power cut, never half.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
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
