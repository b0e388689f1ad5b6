"""What the kernel says of processes, as far as an action's fate depends on it.

Decides when two looks at a pid saw the same process: when the start time in
clock ticks since boot is the same too.  That is read from ``/proc/PID/stat``
and not from psutil, whose ``create_time`` moves with the wall clock.  Nothing
read here takes a lock that a hung process may hold for ever, which
``cmdline`` and ``environ`` do.
"""

import ctypes
import os
import signal
from pathlib import Path
from typing import Final, NamedTuple

_PR_SET_PDEATHSIG: Final = 1
_READ_MAX: Final = 4_096
"""Bytes; a line of ``stat`` has some 400."""
_prctl: Final = ctypes.CDLL(None, use_errno=True).prctl


class Process(NamedTuple):
    """One process, at the time of the look."""

    pid: int
    name: str
    state: str
    """One letter, as in ps: R, S, D (waits for hardware), Z (dead, not yet collected), T …"""
    parent: int
    session: int
    started: int
    """Clock ticks since boot."""

    @property
    def is_alive(self) -> bool:
        return self.state not in ("Z", "X")


def look(pid: int) -> Process | None:
    """The process of this number, or None if there is none."""
    try:
        text = get(f"/proc/{pid}/stat").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]  # a name may hold blanks and brackets
    fields = text[text.rindex(")") + 2 :].split()
    return Process(pid, name, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def is_same(pid: int, started: int) -> bool:
    """Does the process that had this number at ``started`` still live?"""
    process = look(pid)
    return process is not None and process.is_alive and process.started == started


def everyone() -> list[Process]:
    found = (look(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - many, often
    return [process for process in found if process is not None]


def kill(process: Process) -> None:
    """SIGKILL for exactly this process: through a pidfd, so that a number used again is never hit."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_same(process.pid, process.started):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def get(path: str) -> bytes:
    """The beginning of a file of the kernel's (in /proc, in a cgroup) by the shortest way.  Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, _READ_MAX)
    finally:
        os.close(file)


def put(path: str, data: bytes) -> None:
    """Write to such a file.  Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def boot_id() -> str:
    """One boot of this machine; another after every reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, and end at once if it is dead already."""
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
