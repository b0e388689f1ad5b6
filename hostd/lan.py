"""Speaks and hears ARP and neighbour discovery on every interface of this node.

Decides which frames are worth waking for: those that concern an address of
the plan, and answers to our own questions; a filter in the kernel drops the
rest.  Knows nothing of what is asked or why; it hands each frame, taken
apart, to whoever listens.

One socket per protocol serves all interfaces and stays open: to close a packet
socket costs 28 ms (SPIKES.md), and an interface that appears later is heard
without further ado.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from hostd import packets
from hostd.interfaces import IP, Interface
from hostd.packets import ETH_P_ARP, ETH_P_IPV6, Heard

Listener = Callable[[str, Heard], None]
"""Told of each frame heard: the name of the interface, and what it says."""

_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 2 << 20
_PACKET_HOST: Final = 0
_PACKET_OUTGOING: Final = 4
_FRAME_MAX: Final = 2048
_BURST_MAX: Final = 1_000
"""Frames read in one go.  A storm of ARP must not hold the loop for longer than a few milliseconds."""

# Classic BPF (linux/filter.h): operation codes and the pseudo offset of the packet type.
_LOAD_HALF, _LOAD_WORD, _LOAD_BYTE = 0x28, 0x20, 0x30
_EQUAL, _RETURN = 0x15, 0x06
_PACKET_TYPE: Final = 0xFFFFF000 + 4
_TAKE: Final = (_RETURN, 0, 0, 0xFFFF)
_DROP: Final = (_RETURN, 0, 0, 0)
_Code = tuple[int, int, int, int]


class Lan:
    """The ears and the mouth.  ``services``: the addresses of the plan."""

    def __init__(self, services: Collection[IP]) -> None:
        self._four = [int(ip) for ip in services if ip.version == 4]
        self._six = [int(ip) & 0xFFFF_FFFF for ip in services if ip.version == 6]
        self._has_six = bool(self._six)
        self._listeners: list[Listener] = []
        self._sockets: dict[int, socket.socket] = {}  # by EtherType
        self._groups: socket.socket | None = None
        self._curious = 0  # how many listeners want all ARP, not only what concerns the plan

    def open(self) -> None:
        """Needs a running loop.  Raises ``OSError`` (EPERM without CAP_NET_RAW)."""
        assert not self._sockets, "opened twice"
        for protocol in [ETH_P_ARP, ETH_P_IPV6] if self._has_six else [ETH_P_ARP]:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._sockets[protocol] = ear = socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
            enlarge(ear)
            self._filter(protocol)
            _discard(ear)
            asyncio.get_running_loop().add_reader(ear.fileno(), self._read, protocol)
        if self._has_six:
            self._groups = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        for ear in self._sockets.values():
            asyncio.get_running_loop().remove_reader(ear.fileno())
            ear.close()
        self._sockets.clear()
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    # -- hearing -----------------------------------------------------------------

    @contextlib.contextmanager
    def heard_by(self, listener: Listener, *, all_arp: bool = False) -> Iterator[None]:
        """While it lasts, ``listener`` is told of every frame, in the order of arrival."""
        self._listeners.append(listener)
        self._curious += all_arp
        if all_arp and self._curious == 1:
            self._filter(ETH_P_ARP)
        try:
            yield
        finally:
            self._listeners.remove(listener)
            self._curious -= all_arp
            if all_arp and self._curious == 0 and ETH_P_ARP in self._sockets:
                self._filter(ETH_P_ARP)

    def drain(self) -> None:
        """Hears everything that has arrived up to this moment."""
        for protocol in tuple(self._sockets):
            self._read(protocol)

    def _read(self, protocol: int) -> None:
        parse = packets.parse_arp if protocol == ETH_P_ARP else packets.parse_nd
        for _ in range(_BURST_MAX):
            try:
                frame, origin = self._sockets[protocol].recvfrom(_FRAME_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    continue  # an interface went down; the others go on
                raise
            heard = parse(frame)
            if heard is not None and origin[2] != _PACKET_OUTGOING:
                for listener in tuple(self._listeners):
                    listener(origin[0], heard)

    def join(self, interface: Interface, ip: IP) -> None:
        """Hear questions for an IPv6 address that we do not hold: they are asked in a group
        of their own, and switches send it only where somebody has joined."""
        if not isinstance(ip, packets.IPv6) or self._groups is None:
            return
        request = packets.solicited_node(ip).packed + struct.pack("=I", interface.index)
        # EADDRINUSE: joined already.  Anything else costs only questions of others.
        with contextlib.suppress(OSError):
            self._groups.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)

    # -- speaking -----------------------------------------------------------------

    def say(self, interface: Interface, *frames: bytes) -> str:
        """Sends frames as they are; empty, or why one could not be sent."""
        for frame in frames:
            protocol = int.from_bytes(frame[12:14], "big")
            try:
                self._sockets[protocol].sendto(frame, (interface.name, protocol))
            except OSError as error:
                return f"{interface.name}: {os.strerror(error.errno or 0)}"
        return ""

    def probe(self, interface: Interface, ip: IP) -> str:
        """Asks all stations whether one has ``ip``, without leaving a trace in their caches."""
        if isinstance(ip, packets.IPv4):
            return self.say(interface, packets.arp_probe(interface.station, ip))
        return self.say(interface, packets.nd_probe(interface.station, ip))

    def ask(self, interface: Interface, sender: IP, target: IP, to: str) -> str:
        """Asks one station for its address; what it learns from that is that ``sender`` is here."""
        if isinstance(sender, packets.IPv4) and isinstance(target, packets.IPv4):
            return self.say(interface, packets.arp_question(interface.station, sender, target, to))
        assert isinstance(sender, packets.IPv6) and isinstance(target, packets.IPv6), (sender, target)
        return self.say(interface, packets.nd_question(interface.station, sender, target, to))

    def announce(self, interface: Interface, ip: IP) -> str:
        """Tells all stations that ``ip`` is here."""
        if isinstance(ip, packets.IPv4):
            return self.say(interface, *packets.arp_announcements(interface.station, ip))
        frame = packets.nd_announcement(interface.station, ip, is_router=_forwards(interface.name))
        return self.say(interface, frame)

    # -- the filter ---------------------------------------------------------------

    def _filter(self, protocol: int) -> None:
        if protocol == ETH_P_ARP:
            code = [_TAKE] if self._curious else _arp_filter(self._four)
        else:
            code = _nd_filter(self._six)
        program = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
        buffer = ctypes.create_string_buffer(program)
        header = struct.pack("@HP", len(code), ctypes.addressof(buffer))
        self._sockets[protocol].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def enlarge(ear: socket.socket) -> None:
    """Room for the answers to questions about a few hundred addresses, asked in one breath
    (a small frame may occupy 4 KiB)."""
    with contextlib.suppress(PermissionError):  # CAP_NET_ADMIN; else the default has to do
        ear.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)


def _discard(ear: socket.socket) -> None:
    """What came in before the filter stood."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(_BURST_MAX):
            ear.recv(1)


def _forwards(name: str) -> bool:
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{name}/forwarding").read_text().strip() == "1"
    except OSError:
        return False


def _any_of(numbers: Collection[int]) -> list[_Code]:
    """Take the frame if the number loaded last is one of these.  (Jumps reach 255
    instructions at most, so each comparison has its own way out.)"""
    return [code for number in numbers for code in ((_EQUAL, 0, 1, number), _TAKE)]


def _arp_filter(services: Collection[int]) -> list[_Code]:
    """Replies to this machine, frames sent in the name of a service address, probes for one."""
    return [
        (_LOAD_HALF, 0, 0, 20),  # operation: a reply,
        (_EQUAL, 0, 3, 2),
        (_LOAD_WORD, 0, 0, _PACKET_TYPE),  # to us alone
        (_EQUAL, 0, 1, _PACKET_HOST),
        _TAKE,
        (_LOAD_WORD, 0, 0, 28),  # the sender's address
        *_any_of(services),
        (_EQUAL, 1, 0, 0),  # none: a probe
        _DROP,
        (_LOAD_WORD, 0, 0, 38),  # the target's address
        *_any_of(services),
        _DROP,
    ]


def _nd_filter(services: Collection[int]) -> list[_Code]:
    """Advertisements to this machine, and what names a service address (by its last 32 bits)
    as target or sender."""
    return [
        (_LOAD_BYTE, 0, 0, 20),  # next header
        (_EQUAL, 1, 0, 58),
        _DROP,
        (_LOAD_BYTE, 0, 0, 54),  # ICMPv6 type
        (_EQUAL, 2, 0, 135),
        (_EQUAL, 1, 0, 136),
        _DROP,
        (_LOAD_WORD, 0, 0, 74),  # the end of the target
        *_any_of(services),
        (_LOAD_WORD, 0, 0, 34),  # the end of the sender
        *_any_of(services),
        (_LOAD_BYTE, 0, 0, 54),
        (_EQUAL, 1, 0, 136),
        _DROP,
        (_LOAD_WORD, 0, 0, _PACKET_TYPE),
        (_EQUAL, 1, 0, _PACKET_HOST),
        _DROP,
        _TAKE,
    ]
