"""Which process is at the other end of a connection on this machine?

Decides by what the kernel says of the connection itself: an answer proves
nothing while an orphan or a stranger may be the one who gives it.  One exact
question to sock_diag costs 0.02 ms; a look through /proc/net/tcp, as psutil
and ``ss`` without a kernel that answers would take it, was measured at 7 ms,
since it walks the kernel's whole table.  Knows no protocol and no server.
"""

import os
import socket
import struct
from typing import Final

import psutil

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST: Final = 1
NLMSG_ERROR: Final = 2
ANY: Final = 0xFFFFFFFF  # any state
ANY_SOCKET: Final = struct.pack("=III", 0, ANY, ANY)  # the rest of inet_diag_sockid: any interface, and no cookie known
HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr
QUESTION: Final = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to its inet_diag_sockid
SOCKET_ID: Final = struct.Struct("!HH16s16s")  # inet_diag_sockid up to the interface: ports and addresses
INODE_AT: Final = HEADER.size + 68  # idiag_inode within inet_diag_msg
SECONDS: Final = 1.0  # the kernel answers at once; this is for a kernel that does not

"localhost".encode("idna")  # as getaddrinfo does; else each child would import the codec anew, for 6 ms


def connected(host: str, port: int, patience: float) -> socket.socket:
    """A TCP connection, with this many seconds for each step.  OSError if there is none.

    An address goes straight to the kernel: Python's way through ``getaddrinfo`` touches 30 pages more.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError:  # a name
        return socket.create_connection((host, port), patience)
    connection = socket.socket(family)
    try:
        connection.settimeout(patience)
        connection.connect((host, port))
    except OSError:
        connection.close()
        raise
    return connection


def answers(connection: socket.socket, pid: int) -> bool:
    """Is the process ``pid`` the other end of this connection, TCP or Unix?

    To be asked once something was received from it: before, the connection
    may still wait to be accepted and then belongs to nobody.
    """
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return bool(struct.unpack("3i", credentials)[0] == pid)
    inode = _inode_of_the_other_end(connection)
    if inode is None:
        return _is_listed(connection, pid)
    return inode != 0 and _holds(pid, f"socket:[{inode}]")


def is_listener(pid: int, host: str, port: int) -> bool:
    """Is it this process that a connection to ``host`` (an IP address of this node) and TCP ``port`` comes to?

    False also if the kernel does not say: :func:`listens` looks further, at a hundred times the cost.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ends = (socket.inet_pton(family, host), bytes(4 if family == socket.AF_INET else 16))
    except OSError:
        return False  # a name
    inode = _inode(family, (port, 0), ends)
    return bool(inode) and _holds(pid, f"socket:[{inode}]")


def listens(pid: int) -> bool:
    """Does it listen at any TCP port?"""
    try:
        return any(end.status == psutil.CONN_LISTEN for end in psutil.Process(pid).net_connections("tcp"))
    except psutil.Error:
        return False


def _inode_of_the_other_end(connection: socket.socket) -> int | None:
    """0: it is nobody's file yet; None: the kernel does not say."""
    there, here = connection.getpeername(), connection.getsockname()
    family = connection.family
    ends = (socket.inet_pton(family, there[0]), socket.inet_pton(family, here[0]))
    return _inode(family, (there[1], here[1]), ends)


def _inode(family: int, ports: tuple[int, int], ends: tuple[bytes, bytes]) -> int | None:
    """Of the TCP socket that is on this node at the first end, of a connection to the second or listening."""
    which = SOCKET_ID.pack(*ports, *ends) + ANY_SOCKET
    question = QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, ANY) + which
    head = HEADER.pack(HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(SECONDS)
            kernel.sendto(head + question, (0, 0))
            answer = kernel.recv(4096)
    except OSError:
        return None  # a kernel without it
    if HEADER.unpack_from(answer)[1] == NLMSG_ERROR:
        return None  # without its module for TCP, or such a connection is not there
    return int(struct.unpack_from("=I", answer, INODE_AT)[0])


def _is_listed(connection: socket.socket, pid: int) -> bool:
    there, here = connection.getpeername()[:2], connection.getsockname()[:2]
    try:
        ends = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any((tuple(end.laddr), tuple(end.raddr)) == (there, here) for end in ends)


def _holds(pid: int, file: str) -> bool:
    """Is this file open in the process?  By the shortest way: a child that asks pays for each page that it touches."""
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False  # it has just ended
    for number in reversed(numbers):  # the newest first
        try:
            if os.readlink(f"{folder}/{number}") == file:  # noqa: PTH115
                return True
        except OSError:
            continue  # closed while we looked
    return False
