"""Where does a process listen?

Decides by a look at the process's own sockets (``pidfd_getfd``, Linux 5.6).
The other way, through ``/proc/net/tcp`` as psutil takes it, walks the kernel's
whole table and costs many times as much; it is for a process that may not be
looked into.  Knows no server.
"""

import contextlib
import ctypes
import errno
import os
import socket
from typing import Final

import psutil

PIDFD_GETFD: Final = 438  # the same number on every architecture

_libc: Final = ctypes.CDLL(None, use_errno=True)


def doors(pid: int) -> list[tuple[str, int]]:
    """(address, port) of each TCP socket on which this process listens; none if it is gone."""
    try:
        return _own(pid)
    except PermissionError:
        return _listed(pid)
    except OSError:
        return []


def _own(pid: int) -> list[tuple[str, int]]:
    found = []
    process = os.pidfd_open(pid)
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed while we looked
                if not os.readlink(entry.path).startswith("socket:"):  # noqa: PTH115 - of many files
                    continue
                with _copied(process, int(entry.name)) as one:
                    is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
                    if is_tcp and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.append((str(one.getsockname()[0]), int(one.getsockname()[1])))
    finally:
        os.close(process)
    return found


def _copied(process: int, number: int) -> socket.socket:
    copy = _libc.syscall(PIDFD_GETFD, process, number, 0)
    if copy >= 0:
        return socket.socket(fileno=copy)
    code = ctypes.get_errno()
    if code == errno.EBADF:
        raise FileNotFoundError
    raise PermissionError(code, os.strerror(code))  # not allowed, or not known to this kernel


def _listed(pid: int) -> list[tuple[str, int]]:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return []
    return [(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN]
