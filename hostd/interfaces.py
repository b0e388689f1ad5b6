"""Which interfaces has this node, what is on them, and which one serves an address?

Decides the interface of a service address: the one named with ``@``, else
the one whose own addresses have the longest matching prefix, else the one
that the kernel would reach it through without a router.  Keeps a mirror of
the kernel's links and addresses, fed by netlink events.  It refuses to know
which addresses ought to be here: that is ``hostd.address``'s business.
"""

import asyncio
import dataclasses
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection
from typing import Final

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from hostd import rtnetlink
from hostd.clock import now_ms
from hostd.rtnetlink import EventSocket, Message, RequestSocket

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EVENT_GROUPS: Final = (1, 5, 9)  # RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_NOARP: Final = 0x80
_IFF_LOWER_UP: Final = 0x10000
_ARPHRD_ETHER: Final = 1
_RTN_UNICAST: Final = 1
_RTM_F_LOOKUP_TABLE: Final = 0x1000
_NEIGHBOUR_RANKS: Final = {0x02: 0, 0x08: 0, 0x10: 0, 0x04: 1, 0x80: 2}
"""REACHABLE, DELAY, PROBE before STALE (it may have been switched off long ago) before
PERMANENT; in any other state the kernel knows no station."""
_NEIGHBOUR_STATE: Final = struct.Struct("=16xBxxxiH")  # of a message: family, interface, state
_NEIGHBOURS_MAX: Final = 16
"""More than are asked at a time; each costs 0.1 ms to decode."""
_NEIGHBOURS_FRESH_MS: Final = 1_000
"""Many addresses are announced in one moment; the table is read once for all."""

_OFF_LINK: Final[dict[int, IP]] = {
    4: ipaddress.IPv4Address("192.0.2.1"),
    6: ipaddress.IPv6Address("2001:db8::1"),
}
"""Documentation addresses: on no LAN, so their next hop is the default gateway."""


_NOBODY: Final = ipaddress.IPv4Address(0)


class NoInterface(Exception):
    """No interface can carry this address; the text names the cure."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceAddress:
    """The text of an address in conf.d, taken apart: ``ip[/prefix][@interface]``."""

    text: str
    ip: IP
    prefixlen: int | None
    interface: str

    @classmethod
    def parse(cls, text: str) -> "ServiceAddress":
        """Raises ``ValueError`` on anything that ``hostd.config`` would have refused."""
        bare, _, interface = text.partition("@")
        host, slash, _ = bare.partition("/")
        ip = ipaddress.ip_address(host)
        prefixlen = ipaddress.ip_interface(bare).network.prefixlen if slash else None
        return cls(text, ip, prefixlen, interface)


@dataclasses.dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as the kernel last described it."""

    index: int
    name: str
    station: str
    """Its MAC address, or empty."""
    is_up: bool
    has_carrier: bool
    is_loopback: bool
    is_ethernet: bool
    """It has stations and asks for them with ARP and neighbour discovery."""

    @property
    def is_usable(self) -> bool:
        return self.is_up and self.has_carrier


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """One address on one interface; the kernel tells places apart by all three."""

    index: int
    ip: IP
    prefixlen: int
    network: Network = dataclasses.field(compare=False)
    """What is reached through it: for a point-to-point address that of the other end."""

    @classmethod
    def at(cls, index: int, ip: IP, prefixlen: int) -> "Placement":
        return cls(index, ip, prefixlen, ipaddress.ip_network((ip, prefixlen), strict=False))


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """A station of the LAN, by address."""

    ip: IP
    station: str
    """Empty: a gateway that nobody has asked for yet."""


class Interfaces:
    """A mirror of the kernel's links and addresses.

    ``on_change`` is called after the mirror has changed in any way; it may
    read the mirror, and it may ask the kernel for changes.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.links: dict[int, Interface] = {}
        self.placements: dict[Placement, None] = {}  # in the order in which they came
        self.protocols: dict[Placement, int] = {}
        """Who put each address there, as IFA_PROTO says; 0: nobody said."""
        self._drops: dict[int, int] = {}
        self._neighbours: dict[tuple[int, int], tuple[int, list[Neighbour]]] = {}
        self._on_change = on_change
        self._kernel: RequestSocket | None = None
        self._events: EventSocket | None = None

    def open(self) -> None:
        """Needs a running loop.  Subscribes first, then reads: nothing falls between."""
        assert self._events is None, "opened twice"
        self._events = EventSocket(_EVENT_GROUPS)
        self._kernel = RequestSocket()
        self._read_all()
        asyncio.get_running_loop().add_reader(self._events.fileno(), self.drain)

    def close(self) -> None:
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            self._events = None
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    @property
    def kernel(self) -> RequestSocket:
        assert self._kernel is not None, "used before open() or after close()"
        return self._kernel

    # -- the mirror ------------------------------------------------------------

    def drain(self) -> None:
        """Brings the mirror up to this moment; the kernel queues an event before
        the change that caused it is acknowledged."""
        assert self._events is not None, "used before open() or after close()"
        events, overrun = self._events.drain()
        changed = overrun
        for event in events:
            changed |= self._apply(event)
        if overrun:
            self._read_all()
            for index in self.links:  # what got lost may have been a carrier drop
                self._drops[index] = self.drops(index) + 1
        if changed:
            self._on_change()

    def _read_all(self) -> None:
        self.links.clear()
        self.placements.clear()
        self.protocols.clear()
        for entry in self.kernel.dump(rtnetlink.RTM_GETLINK, ifinfmsg()):
            self._apply(entry)
        for entry in self.kernel.dump(rtnetlink.RTM_GETADDR, ifaddrmsg()):
            self._apply(entry)

    def _apply(self, event: Message) -> bool:
        """One event into the mirror; was it news?  A renewed lease is not."""
        kind = event["header"]["type"]
        if kind in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK):
            if event["family"] != socket.AF_UNSPEC:
                return False  # a bridge speaking of its port: "deleted" means "left the bridge"
            if kind == rtnetlink.RTM_DELLINK:
                return self.links.pop(event["index"], None) is not None
            interface = _interface_of(event)
            known = self.links.get(interface.index)
            self.links[interface.index] = interface
            if known is not None and known.is_usable and not interface.is_usable:
                self._drops[interface.index] = self.drops(interface.index) + 1
            return known != interface
        if kind in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR):
            placement = _placement_of(event)
            is_known = placement in self.placements
            if kind == rtnetlink.RTM_NEWADDR:
                self.placements[placement] = None
                self.protocols[placement] = event.get_attr("IFA_PROTO") or 0
                return not is_known
            self.placements.pop(placement, None)
            self.protocols.pop(placement, None)
            return is_known
        return False

    def placed(self, ip: IP) -> list[Placement]:
        """Everywhere on this node where ``ip`` is."""
        return [placement for placement in self.placements if placement.ip == ip]

    def own_address(self, index: int, near: IP, services: Collection[IP]) -> Placement | None:
        """This node's own address on an interface whose subnet holds ``near``: one that
        is not a service's and stays when the services leave."""
        matching = [
            placement
            for placement in self.placements
            if placement.index == index
            and placement.ip not in services
            and placement.ip.version == near.version
            and near in placement.network
            and placement.prefixlen < near.max_prefixlen
        ]
        return max(matching, key=lambda placement: placement.network.prefixlen, default=None)

    def drops(self, index: int) -> int:
        """How often an interface has become unusable so far."""
        return self._drops.get(index, 0)

    def is_asker(self, ip: IP | None) -> bool:
        """Would an answer to ``ip`` be one to a question of this node's?"""
        if ip is None:
            return False
        return ip == _NOBODY or any(placement.ip == ip for placement in self.placements)

    def source(self, index: int, version: int, services: Collection[IP]) -> IP | None:
        """In whose name this node asks on an interface: in that of an address of its own (of
        the link's, where there is one), in nobody's name (IPv4), or not at all."""
        own = [
            placement.ip
            for placement in self.placements
            if placement.index == index and placement.ip.version == version and placement.ip not in services
        ]
        own.sort(key=lambda ip: not ip.is_link_local)  # stable: else the first comes first
        return own[0] if own else (_NOBODY if version == 4 else None)

    # -- which interface? --------------------------------------------------------

    def serving(self, address: ServiceAddress, services: Collection[IP]) -> Interface:
        """The interface that is to carry ``address``.

        ``services``: every service address, none of which may decide where
        another goes, for they come and go.  Raises :class:`NoInterface`.
        """
        if address.interface:
            for interface in self.links.values():
                if interface.name == address.interface:
                    return interface
            raise NoInterface(f"{address.text}: this node has no interface {address.interface}; "
                              f"name one of {', '.join(self._names()) or 'none is there'}")  # fmt: skip
        candidates: list[tuple[bool, int, int, Interface]] = []
        for index, interface in self.links.items():
            own = self.own_address(index, address.ip, services)
            if own is not None and not interface.is_loopback:
                candidates.append((interface.is_usable, own.network.prefixlen, -index, interface))
        if candidates:
            return max(candidates, key=lambda candidate: candidate[:3])[3]
        reached = self._reached_without_router(address.ip, services)
        if reached is not None:
            return reached
        raise NoInterface(f"{address.text}: no interface of this node is connected to its subnet; "
                          f"give one an address there, or name it: {address.ip}/24@eth0")  # fmt: skip

    def _names(self) -> list[str]:
        return [interface.name for interface in self.links.values() if not interface.is_loopback]

    def _reached_without_router(self, ip: IP, services: Collection[IP]) -> Interface | None:
        """By a connected route that no address of ours stands for, nor a service's."""
        answer = self._route_to(ip, None)
        if answer is None or answer["type"] != _RTN_UNICAST or answer.get_attr("RTA_GATEWAY"):
            return None
        source = answer.get_attr("RTA_PREFSRC")
        if source and ipaddress.ip_address(source) in services:
            return None  # that address made the route, and the route leaves with it
        interface = self.links.get(answer.get_attr("RTA_OIF"))
        return None if interface is None or interface.is_loopback else interface

    def _route_to(self, ip: IP, index: int | None) -> Message | None:
        question = rtmsg()
        question["family"] = _family(ip)
        question["dst_len"] = ip.max_prefixlen
        question["flags"] = _RTM_F_LOOKUP_TABLE
        question["attrs"] = [("RTA_DST", str(ip))]
        if index is not None:
            question["attrs"].append(("RTA_OIF", index))
        answer, _refusal = self.kernel.look_up(rtnetlink.RTM_GETROUTE, question)
        return answer

    # -- who else is there? --------------------------------------------------------

    def gateway(self, index: int, version: int) -> IP | None:
        """The default gateway through an interface, if there is one."""
        answer = self._route_to(_OFF_LINK[version], index)
        text = answer.get_attr("RTA_GATEWAY") if answer is not None else None
        return ipaddress.ip_address(text) if text else None

    def neighbours(self, index: int, version: int) -> list[Neighbour]:
        """Stations in the kernel's table for an interface (as of a second ago): the
        gateway, then those of which it heard last, at most some sixteen."""
        read_at_ms, found = self._neighbours.get((index, version), (0, []))
        if now_ms() - read_at_ms >= _NEIGHBOURS_FRESH_MS:
            found = self._read_neighbours(index, version)
            self._neighbours[index, version] = (now_ms(), found)
        return found

    def _read_neighbours(self, index: int, version: int) -> list[Neighbour]:
        def rank(entry: bytes) -> int | None:
            _family, interface, state = _NEIGHBOUR_STATE.unpack_from(entry)
            return _NEIGHBOUR_RANKS.get(state) if interface == index else None

        question = ndmsg()
        question["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
        question["attrs"] = [("NDA_IFINDEX", index)]
        found: dict[IP, Neighbour] = {}
        for entry in self.kernel.dump_best(rtnetlink.RTM_GETNEIGH, question, rank, _NEIGHBOURS_MAX):
            ip = ipaddress.ip_address(entry.get_attr("NDA_DST"))
            station = entry.get_attr("NDA_LLADDR")
            if station and not ip.is_multicast:
                found[ip] = Neighbour(ip, station)
        gateway = self.gateway(index, version)
        if gateway is None:
            return list(found.values())
        return [found.pop(gateway, Neighbour(gateway, "")), *found.values()]


def _interface_of(event: Message) -> Interface:
    flags = event["flags"]
    return Interface(
        index=event["index"],
        name=event.get_attr("IFLA_IFNAME") or "",
        station=event.get_attr("IFLA_ADDRESS") or "",
        is_up=bool(flags & _IFF_UP),
        has_carrier=bool(flags & _IFF_LOWER_UP),
        is_loopback=bool(flags & _IFF_LOOPBACK),
        is_ethernet=event["ifi_type"] == _ARPHRD_ETHER and not flags & _IFF_NOARP,
    )


def _placement_of(event: Message) -> Placement:
    remote = event.get_attr("IFA_ADDRESS")
    local = event.get_attr("IFA_LOCAL") or remote
    prefixlen = event["prefixlen"]
    network = ipaddress.ip_network(f"{remote}/{prefixlen}", strict=False)
    return Placement(event["index"], ipaddress.ip_address(local), prefixlen, network)


def _family(ip: IP) -> int:
    return socket.AF_INET if ip.version == 4 else socket.AF_INET6
