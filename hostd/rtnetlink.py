"""Talks rtnetlink with the kernel: one request, its answer, at once.

Decides nothing and knows nothing of hostd.  The words are pyroute2's (its
message classes encode and decode every message); only the conversation is
held here, on a plain socket.  The reason is safety, not speed (a pair of add
and remove costs 0.3 to 0.7 ms here, 0.6 ms with pyroute2's AsyncIPRoute:
``benchmarks/address_change.py``): the kernel carries a request out while
``send`` runs, so its answer is there when ``send`` returns.  A caller can
bring its knowledge up to the moment, read the clock, act, and read the clock
again, with nothing of the loop's in between.  A renewed lease and an address
added under a guard need just that; behind an ``await`` anything may happen.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

Message = Any
"""A decoded or unencoded message of pyroute2, which has no types of its own."""

NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_REPLACE: Final = 0x100
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_GETNEIGH: Final = 30

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_SOL_NETLINK: Final = 270
_NETLINK_GET_STRICT_CHK: Final = 12  # without it a dump ignores the filter
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BYTES: Final = 1 << 18  # the kernel fills at most 32 KiB of it per read
_EVENT_BUFFER_BYTES: Final = 1 << 20  # some thousand events while the loop is busy


class RequestSocket:
    """Asks the kernel; every method returns with the kernel's answer.

    Raises ``OSError`` if the socket itself fails; what the kernel refuses is
    an errno, not an exception.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        # Answers are there when send() returns, so this limit is never met in a
        # healthy kernel; without any a defect would hang the whole brain.
        self._socket.settimeout(0.5)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._marshal = MarshalRtnl()
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, message: Message, flags: int = 0) -> int:
        """Has one change made; 0, or the errno with which the kernel refused it."""
        _, refusal = self._converse(kind, message, NLM_F_REQUEST | NLM_F_ACK | flags)
        return refusal

    def look_up(self, kind: int, message: Message) -> tuple[Message | None, int]:
        """Asks for one thing; the answer, or None and the errno."""
        answers, refusal = self._converse(kind, message, NLM_F_REQUEST | NLM_F_ACK)
        return next(iter(self._decoded(answers)), None), refusal

    def dump(self, kind: int, message: Message) -> list[Message]:
        """Asks for all of a table.  Raises ``OSError`` if the kernel refuses."""
        return self._decoded(self._dump(kind, message))

    def dump_best(self, kind: int, message: Message, rank: Callable[[bytes], int | None], limit: int) -> list[Message]:
        """Asks for the best entries of a table that may be long: of all but those of rank None,
        the ``limit`` of lowest rank.  ``rank`` sees the bytes: decoding costs, looking does not.

        Raises ``OSError`` if the kernel refuses.
        """
        ranked = [(place, entry) for entry in self._dump(kind, message) if (place := rank(entry)) is not None]
        ranked.sort(key=lambda pair: pair[0])
        return self._decoded([entry for _, entry in ranked[:limit]])

    def _dump(self, kind: int, message: Message) -> list[bytes]:
        entries, refusal = self._converse(kind, message, NLM_F_REQUEST | NLM_F_DUMP)
        if refusal:
            raise OSError(refusal, errno.errorcode.get(refusal, "?"))
        return entries

    def _decoded(self, entries: list[bytes]) -> list[Message]:
        return [message for entry in entries for message in self._marshal.parse(entry)]

    def _converse(self, kind: int, message: Message, flags: int) -> tuple[list[bytes], int]:
        self._sequence += 1
        message["header"].update(type=kind, flags=flags, sequence_number=self._sequence)
        message.encode()
        self._socket.send(bytes(message.data))
        answers: list[bytes] = []
        while True:
            for kind_of_part, sequence, part in _parts(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue  # left over from a conversation that timed out
                if kind_of_part in (NLMSG_ERROR, NLMSG_DONE):
                    (code,) = struct.unpack_from("=i", part, _HEADER.size)
                    return answers, -code
                answers.append(part)


class EventSocket:
    """Hears what changes in the kernel's tables, whoever changed it."""

    def __init__(self, groups: Sequence[int]) -> None:
        """``groups``: RTNLGRP numbers."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setblocking(False)
        # FORCE passes the system's limit for ordinary users; without CAP_NET_ADMIN the default has to do.
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENT_BUFFER_BYTES)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, 1, group)  # NETLINK_ADD_MEMBERSHIP
        self._marshal = MarshalRtnl()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def drain(self) -> tuple[list[Message], bool]:
        """All events waiting now, oldest first, and whether any got lost on the way
        (the buffer was full): then only a dump tells the truth."""
        events: list[Message] = []
        overrun = False
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return events, overrun
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = True
                continue
            events.extend(self._marshal.parse(data))


def _parts(data: bytes) -> Iterable[tuple[int, int, bytes]]:
    """(type, sequence, bytes) of each message of one read."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3
