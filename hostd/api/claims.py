"""Who has this file locked, who answers at this socket?

Decides that the kernel is asked and no pid file, so that what it says holds
for processes of other namespaces (a container on this machine) and, where
the filesystem passes locks on, of other nodes.  Only asks: it takes no lock
and ends nobody.
"""

import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

_FLOCK: Final = struct.Struct("@hhlli4x")
"""``struct flock``: type, whence, start, length, process id."""
_TIMEVAL: Final = struct.Struct("@ll")
_UCRED: Final = struct.Struct("@iII")
"""``struct ucred``: process, user and group id."""
_LISTENING: Final = 1 << 16  # __SO_ACCEPTCON, as /proc/net/unix shows it


def lock_holder(path: Path) -> int | None:
    """The process with a POSIX lock on this file; None if there is no lock, or no file.

    0: one that cannot be seen from here (another pid namespace).  Below 0:
    one of another node, as cluster filesystems say it.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    finally:
        os.close(file)
    return None if kind == fcntl.F_UNLCK else int(pid)


def connect(path: Path, limit: float) -> tuple[socket.socket, int]:
    """A connection to the Unix socket, and the process that listens there (0: not visible from here).

    Raises OSError if it does not come about within ``limit`` seconds.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        # not settimeout: to a server with a full queue that would be a failure at once, and no wait
        wait = _TIMEVAL.pack(int(limit), int(limit % 1 * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        connection.connect(str(path))
        pid, _, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except BaseException:  # whatever happens, the socket is not left open
        connection.close()
        raise
    return connection, int(pid)


def listener(path: Path) -> int | None:
    """The process that listens at this Unix socket; None if nobody does: the file is missing or stale."""
    try:
        connection, pid = connect(path, 1.0)
    except OSError:
        return None
    connection.close()
    return pid


def listens(pid: int, path: Path) -> bool:
    """Does this process listen at this Unix socket?  Looks without connecting, so that the server counts nothing."""
    doors = set()
    with open("/proc/net/unix", errors="replace") as table:
        next(table)
        for line in table:
            fields = line.rstrip("\n").split(None, 7)  # address, references, protocol, flags, type, state, inode, path
            if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & _LISTENING:
                doors.add(f"socket:[{fields[6]}]")
    if not doors:
        return False
    folder = f"/proc/{pid}/fd"
    try:
        for number in sorted(map(int, os.listdir(folder))):  # noqa: PTH208 - lowest first: what listens was opened early
            try:
                if os.readlink(f"{folder}/{number}") in doors:  # noqa: PTH115 - of many files
                    return True
            except FileNotFoundError:
                continue  # closed while we looked
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    return False


def described(pid: int) -> str:
    """Words for a process as :func:`lock_holder` or :func:`connect` name it: number, program, systemd unit."""
    if pid < 0:
        return f"process {-pid} of another node"
    if pid == 0:
        return "a process that cannot be seen from here (a container's, or another node's)"
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        unit = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("/")[2]
        elsewhere = Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except OSError:
        return f"process {pid}"
    words = [name] + ([f"of {unit}"] if unit.endswith(".service") else [])
    words += ["in another network namespace"] if elsewhere else []
    return f"process {pid} ({' '.join(words)})"
