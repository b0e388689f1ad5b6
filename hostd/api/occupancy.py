"""One server per directory, for as long as any of its processes lives.

A server's own guard is often a lock on a pid file that may lie anywhere, and
ends with its parent while the workers live on.  Here the lock is on the data
directory itself, through an open file that all processes of the server
inherit (``Resource.spawn(…, keep=…)``): it ends with the last of them, holds
in every namespace of this machine, on a cluster filesystem on the other node
too, and leaves no file behind.  Decides who occupies a directory and who else
is at work below it; knows no server and ends nobody.
"""

import contextlib
import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

LOWEST_FD: Final = 64
"""Servers use the low numbers as they please (Cyrus' master closes 3 and 4)."""


def occupy(directory: Path) -> int | None:
    """Lock the directory for this process and those that inherit the open file that is returned.

    None if it is occupied, here or in another namespace.  OSError if it
    cannot be opened or locked at all.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
    except BlockingIOError:
        return None
    finally:
        os.close(handle)


def occupants(directory: Path) -> list[int]:
    """Every visible process that holds the lock, whatever it runs, lowest number first; but not an
    action of hostd that is about to hand it on: what runs our own interpreter is left out."""
    try:
        status = directory.stat()
    except OSError:
        return []
    identity = {(status.st_dev, status.st_ino)}  # not the path: another mount namespace has another one
    own = _program(os.getpid())
    return [
        pid
        for pid in _others()
        # inherited files keep their number, so the low ones of thousands of processes need no look
        if any(
            int(number) >= LOWEST_FD and _is_one_of(pid, number, identity) and _has_lock(pid, number)
            for number in _numbers(pid)
        )
        and _program(pid) != own
    ]


def at_work(directory: Path, programs: Collection[str]) -> list[int]:
    """Every other visible process that runs one of ``programs`` (file names) and has
    something open at or below the directory; lowest number first."""
    below, known = f"{directory.resolve()}/", _known(directory)
    return [
        pid
        for pid in _others()
        if Path(_program(pid)).name in programs
        and any(
            f"{_target(pid, number)}/".startswith(below) or _is_one_of(pid, number, known) for number in _numbers(pid)
        )
    ]


def _program(pid: int) -> str:
    """Its path; "" if there is none to be seen."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - upgraded meanwhile
    except OSError:
        return ""


def _others() -> list[int]:
    own = os.getpid()
    return sorted(int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit() and int(entry.name) != own)


def _numbers(pid: int) -> list[str]:
    """Of its open files; none for a process that is gone or not ours to see."""
    try:
        return os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - of all processes of the machine
    except OSError:
        return []


def _target(pid: int, number: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/{number}").readlink())
    except OSError:
        return ""


def _known(directory: Path) -> set[tuple[int, int]]:
    """Identities of the directory and of the files right in it."""
    found: set[tuple[int, int]] = set()
    with contextlib.suppress(OSError):
        for path in (directory, *directory.iterdir()):
            status = path.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def _is_one_of(pid: int, number: str, identities: Collection[tuple[int, int]]) -> bool:
    try:
        status = os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116 - of many files
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in identities


def _has_lock(pid: int, number: str) -> bool:
    """The kernel lists the lock with every process that shares the open file."""
    try:
        lines = Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("lock:") and "FLOCK" in line for line in lines)
