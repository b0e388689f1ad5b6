"""One hostd at a time in a runtime directory.

Decides that the lock is free when no process of an earlier hostd lives: heart
and brain inherit the open file and share the lock with their host.  Children
that run actions do not: a hanging agent never keeps a new hostd waiting.
"""

import fcntl
import logging
import os
from pathlib import Path

log = logging.getLogger("hostd.host")


def acquire(path: Path) -> int:
    """Hold the one lock of this runtime directory, waiting for it as long as it takes.

    Heart and brain inherit it: while any process of an earlier hostd lives,
    a new one waits.  The open file is the lock.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        log.warning("another hostd (%s) holds %s; waiting until it has ended", holder or "?", path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.warning("%s is free", path)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def is_held(path: Path) -> bool:
    """Does a hostd run in this runtime directory?  Asks and takes nothing; raises PermissionError."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
