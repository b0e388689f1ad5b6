"""ARP and neighbour discovery: frames ↔ bytes.

Decides what a frame says and nothing about what it means for anybody.  Knows
no sockets.  Formats: RFC 826 (ARP), RFC 5227 (probes), RFC 4861 (neighbour
solicitation and advertisement, which travel in ICMPv6).
"""

import dataclasses
import ipaddress
import struct
from typing import Final

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
IP = IPv4 | IPv6

ETH_P_ARP: Final = 0x0806
ETH_P_IPV6: Final = 0x86DD

_BROADCAST: Final = b"\xff" * 6
_NOBODY: Final = bytes(6)
_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ARP_IPV4: Final = (1, 0x0800, 6, 4)  # Ethernet, IPv4, and the lengths of their addresses
_ARP_REQUEST: Final = 1
_ARP_REPLY: Final = 2

_IPV6: Final = struct.Struct("!IHBB16s16s")
_ICMPV6: Final = 58
_SOLICITATION: Final = 135
_ADVERTISEMENT: Final = 136
_ND: Final = struct.Struct("!BBHI16s")  # type, code, checksum, flags, target
_HOP_LIMIT: Final = 255  # a router would have lowered it: proof that the frame is from this LAN
_SOURCE_STATION: Final = 1  # option types
_TARGET_STATION: Final = 2
_FLAG_ROUTER: Final = 0x8000_0000
_FLAG_OVERRIDE: Final = 0x2000_0000
_ALL_NODES: Final = IPv6("ff02::1")
_UNSPECIFIED: Final = IPv6("::")


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What one ARP or neighbour discovery frame says.

    ``station`` says that it has ``claims`` (None: it claims nothing), asks
    whether it may have ``probes`` (None: it does not ask), and if it answers
    somebody's question, ``answers`` is the address that had asked (None
    otherwise, and for an answer to a probe, which has no address:
    unspecified).
    """

    station: str
    claims: IP | None = None
    probes: IP | None = None
    answers: IP | None = None


def station_bytes(station: str) -> bytes:
    return bytes.fromhex(station.replace(":", ""))


def station_text(station: bytes) -> str:
    return station.hex(":")


# -- ARP -------------------------------------------------------------------------


def arp_probe(own: str, target: IPv4) -> bytes:
    """Does anybody have ``target``?  Puts nothing into anybody's cache."""
    return arp_question(own, IPv4(0), target)


def arp_question(own: str, sender: IPv4, target: IPv4, to: str = "") -> bytes:
    """Who has ``target``?  Tell ``sender``, who is at ``own``: whoever answers has learned that.

    ``to``: only that station hears it; else all.
    """
    receiver = station_bytes(to) if to else _BROADCAST
    return _arp(receiver, own, _ARP_REQUEST, sender, _NOBODY, target)


def arp_announcements(own: str, address: IPv4) -> tuple[bytes, bytes]:
    """A gratuitous request and a gratuitous reply.

    Both, since some caches take only one of them.  The reply names *our* station
    as its target: Linux ignores one to ff:ff:ff:ff:ff:ff within a second of
    the last change (locktime).
    """
    request = _arp(_BROADCAST, own, _ARP_REQUEST, address, _NOBODY, address)
    reply = _arp(_BROADCAST, own, _ARP_REPLY, address, station_bytes(own), address)
    return request, reply


def _arp(receiver: bytes, own: str, operation: int, sender: IPv4, target_station: bytes, target: IPv4) -> bytes:
    source = station_bytes(own)
    body = _ARP.pack(*_ARP_IPV4, operation, source, sender.packed, target_station, target.packed)
    return _ETHERNET.pack(receiver, source, ETH_P_ARP) + body


def parse_arp(frame: bytes) -> Heard | None:
    """None for anything that is not ARP for IPv4 on Ethernet."""
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    *form, operation, source, sender, _, target = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(form) != _ARP_IPV4:
        return None
    station, asking, asked = station_text(source), IPv4(sender), IPv4(target)
    if operation == _ARP_REQUEST and asking == IPv4(0):
        return Heard(station, probes=asked)
    if operation == _ARP_REPLY:
        # A gratuitous reply answers nobody.
        return Heard(station, claims=asking, answers=None if asked == asking else asked)
    return Heard(station, claims=asking)


# -- neighbour discovery -----------------------------------------------------------


def nd_probe(own: str, target: IPv6) -> bytes:
    """Does anybody have ``target``?  From nobody, so that it enters no cache."""
    return _nd(own, _multicast_station(solicited_node(target)), _UNSPECIFIED, solicited_node(target),
               _SOLICITATION, 0, target, None)  # fmt: skip


def nd_question(own: str, sender: IPv6, target: IPv6, to: str = "") -> bytes:
    """Who has ``target``?  Tell ``sender``, who is at ``own``."""
    station = station_bytes(to) if to else _multicast_station(solicited_node(target))
    destination = target if to else solicited_node(target)
    return _nd(own, station, sender, destination, _SOLICITATION, 0, target, _SOURCE_STATION)


def nd_announcement(own: str, address: IPv6, *, is_router: bool) -> bytes:
    """An unasked advertisement to all nodes that overrides what they have cached.

    ``is_router``: this node forwards; a host that hears otherwise would take
    it off its list of routers.
    """
    flags = _FLAG_OVERRIDE | (_FLAG_ROUTER if is_router else 0)
    return _nd(own, _multicast_station(_ALL_NODES), address, _ALL_NODES,
               _ADVERTISEMENT, flags, address, _TARGET_STATION)  # fmt: skip


def solicited_node(address: IPv6) -> IPv6:
    """The multicast group in which questions for ``address`` are asked."""
    return IPv6(int(IPv6("ff02::1:ff00:0")) | (int(address) & 0xFF_FFFF))


def _multicast_station(group: IPv6) -> bytes:
    return b"\x33\x33" + group.packed[12:]


def _nd(
    own: str,
    station: bytes,
    sender: IPv6,
    receiver: IPv6,
    kind: int,
    flags: int,
    target: IPv6,
    option: int | None,
) -> bytes:
    source = station_bytes(own)
    tail = bytes([option, 1]) + source if option is not None else b""  # length in units of 8 bytes
    length = _ND.size + len(tail)
    pseudo = sender.packed + receiver.packed + struct.pack("!II", length, _ICMPV6)
    checksum = _checksum(pseudo + _ND.pack(kind, 0, 0, flags, target.packed) + tail)
    body = _ND.pack(kind, 0, checksum, flags, target.packed) + tail
    header = _IPV6.pack(6 << 28, length, _ICMPV6, _HOP_LIMIT, sender.packed, receiver.packed)
    return _ETHERNET.pack(station, source, ETH_P_IPV6) + header + body


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse_nd(frame: bytes) -> Heard | None:
    """None for anything but a solicitation or an advertisement from this very LAN."""
    start = _ETHERNET.size + _IPV6.size
    if len(frame) < start + _ND.size:
        return None
    _, source, _ = _ETHERNET.unpack_from(frame)
    _, length, protocol, hop_limit, sender, receiver = _IPV6.unpack_from(frame, _ETHERNET.size)
    kind, code, _, _, target = _ND.unpack_from(frame, start)
    if (protocol, hop_limit, code) != (_ICMPV6, _HOP_LIMIT, 0):
        return None
    options = frame[start + _ND.size : start + length]
    if kind == _SOLICITATION:
        if IPv6(sender) == _UNSPECIFIED:
            return Heard(station_text(source), probes=IPv6(target))
        return Heard(_option(options, _SOURCE_STATION, source), claims=IPv6(sender))
    if kind == _ADVERTISEMENT:
        is_asked = not IPv6(receiver).is_multicast
        station = _option(options, _TARGET_STATION, source)
        return Heard(station, claims=IPv6(target), answers=IPv6(receiver) if is_asked else None)
    return None


def _option(options: bytes, wanted: int, otherwise: bytes) -> str:
    """The station in an option, or the frame's own source if there is none."""
    while len(options) >= 8:
        kind, length = options[0], options[1] * 8
        if length == 0:
            break
        if kind == wanted:
            return station_text(options[2:8])
        options = options[length:]
    return station_text(otherwise)


# -- ICMP echo ---------------------------------------------------------------------


def echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request (RFC 792); the kernel puts the IP header before it."""
    blank = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", 8, 0, _checksum(blank), identifier, sequence)


def parse_echo_reply(packet: bytes, identifier: int) -> tuple[IPv4, IPv4] | None:
    """(who answers, to which of our addresses), or None for any other packet (IP header included)."""
    header_length = (packet[0] & 0x0F) * 4 if packet else 0
    if len(packet) < max(20, header_length) + 8:
        return None
    kind, code, _, found, _ = struct.unpack_from("!BBHHH", packet, header_length)
    if (kind, code, found) != (0, 0, identifier):
        return None
    return IPv4(packet[12:16]), IPv4(packet[16:20])
