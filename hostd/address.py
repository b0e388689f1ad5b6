"""Puts service addresses on this node, takes them off, and keeps their leases.

Decides the form in which an address stands on its interface, and whether a
renewal still may be carried out.  It refuses to know services, peers, and
whether an address ought to be here: whoever asks has settled that (with
``Neighbours.guard`` where it must be asked of the LAN first).

**The form.**  An address goes to its interface as /32 (/128), whatever prefix
was given: the kernel deletes all later addresses of a subnet with its first,
and a /32 has no such siblings.  It is reached and answers all the same: the
kernel answers ARP for every address it has, and replies leave by the connected
route of the node's own address in that subnet.  Only if the interface has no
address of its own there, that route is missing; then the address gets the
prefix that was given, the kernel makes the route with the first such address
and drops it with the last, leases included, and ``promote_secondaries`` is set
so that siblings survive.  (``arp_ignore`` up to 3 does no harm to either form;
with 8 the kernel answers for no address at all, and no neighbour is turned.)

**IPv6** addresses skip duplicate address detection, which costs 1 to 2 s (our
own guard asks the same question in 30 ms where it is to be asked), and are
deprecated from birth (preferred lifetime 0): otherwise the kernel would pick
them, being new, as the source of this node's own connections, which would
break when the service moves.

**Ownership.**  An address of the plan belongs to hostd, wherever it is found:
it is tagged (IFA_PROTO 66) on adding; a copy on another interface, or with
another prefix, is removed when it is added and when it is removed, since the
peer is about to hold it.
"""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from hostd import rtnetlink
from hostd.clock import now_ms
from hostd.core.events import AddressCause, AddressFound, AddressLost, AddressOutcome, LanTurned
from hostd.interfaces import IP, Interface, Interfaces, NoInterface, Placement, ServiceAddress
from hostd.rtnetlink import Message

Outcome = tuple[AddressOutcome, str]
"""What came of it, and a sentence for people (with the cure, if it failed)."""

_TAG: Final = 66
_FOREVER: Final = 0xFFFFFFFF
_IFA_F_NODAD: Final = 0x02
_PROMOTE: Final = "/proc/sys/net/ipv4/conf/{name}/promote_secondaries"

_CURES: Final = {
    errno.EPERM: "hostd needs CAP_NET_ADMIN",
    errno.EACCES: "IPv6 is disabled on the interface: set net.ipv6.conf.<interface>.disable_ipv6 = 0",
    errno.ENODEV: "the interface is gone",
    errno.EINVAL: "the kernel takes it for no address of a host",
}


class Addresses:
    """The service addresses of this node.

    ``texts``: every address of the plan.  ``lease_ms``: how long the kernel
    keeps one that is not renewed, cut to whole seconds (the kernel's unit), at
    least one; 0 for ever.  ``on_event``: told once of each address that
    appears or is lost without having been asked, and whenever other addresses
    than before have no usable interface; called in the loop, and already
    while :meth:`open` runs.

    Every change is carried out before the call returns; nothing here waits.
    """

    def __init__(
        self,
        texts: Sequence[str],
        lease_ms: int,
        on_event: Callable[[AddressLost | AddressFound | LanTurned], None],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._wanted = {text: ServiceAddress.parse(text) for text in texts}
        self.services: dict[IP, str] = {address.ip: text for text, address in self._wanted.items()}
        """Every address of the plan, with its text."""
        self.interfaces = Interfaces(self._compare)
        self._lease_ms = lease_ms
        self._on_event = on_event
        self._clock = clock
        self._held: dict[str, int] = {}  # with the interface it was last seen on
        self._unusable: set[str] = set()  # held, and reported as on a dead interface
        self._dead: tuple[str, ...] = ()

    async def open(self) -> None:
        """Begins to watch; addresses of the plan that are here already are reported found.

        Raises ``OSError`` if the kernel grants no netlink socket.
        """
        self.interfaces.open()
        self._compare()

    async def close(self) -> None:
        """Ends watching.  The addresses stay, for as long as their leases last."""
        self.interfaces.close()

    def held(self) -> tuple[str, ...]:
        """Addresses of the plan that are on this node now, usable or not."""
        self.interfaces.drain()
        return tuple(self._held)

    def is_held(self, text: str) -> bool:
        """The same for one, as of the last event read; costs nothing."""
        return text in self._held

    def dead(self) -> tuple[str, ...]:
        """Addresses of the plan, held or not, that no interface of this node could serve now."""
        return tuple(text for text in self._wanted if not self._could_serve(text))

    async def stations(self) -> tuple[str, ...]:
        """MAC addresses of this node's interfaces, without repeats."""
        links = self.interfaces.links.values()
        return tuple(dict.fromkeys(link.station for link in links if link.is_ethernet and link.station))

    def interface_of(self, text: str) -> Interface:
        """The interface that carries the address, or would.  Raises ``NoInterface``."""
        address = self._wanted[text]
        for placement in self.interfaces.placed(address.ip):
            if placement.index in self.interfaces.links:
                return self.interfaces.links[placement.index]
        return self.interfaces.serving(address, self.services)

    def ip_of(self, text: str) -> IP:
        return self._wanted[text].ip

    # -- the three acts ------------------------------------------------------------

    async def add(self, text: str) -> Outcome:
        """Puts it on its interface with the plan's lease; a present one gets a new lease.

        FAILED also for an interface without carrier: there it serves nobody,
        and the peer can hold it better.
        """
        self.interfaces.drain()
        address = self._wanted[text]
        try:
            interface = self.interfaces.serving(address, self.services)
            placement = self._form(address, interface)
        except NoInterface as nowhere:
            return AddressOutcome.FAILED, str(nowhere)
        if not interface.is_up:
            return AddressOutcome.FAILED, f"{interface.name} is down; ip link set {interface.name} up"
        if not interface.has_carrier:
            return AddressOutcome.FAILED, f"{interface.name} has no carrier; check its cable and its switch"
        refusal = self._place(placement, self._lease_ms)
        if refusal:
            return AddressOutcome.FAILED, f"{text} on {interface.name}: {_because(refusal)}"
        self._held[text] = interface.index  # before the kernel's event is read: asked for, not found
        detail = f"on {interface.name}"
        for other in self.interfaces.placed(address.ip):
            if other != placement and self._displace(other) == 0:
                name = self._name(other.index)
                detail += f", and no longer as {other.ip}/{other.prefixlen} on {name}"
        self.interfaces.drain()
        return AddressOutcome.DONE, detail

    async def remove(self, text: str) -> Outcome:
        """Takes it off every interface of this node; DONE also if it was on none."""
        self.interfaces.drain()
        ip = self._wanted[text].ip
        index = self._held.pop(text, 0)  # first, so that nobody takes it for a loss
        self._unusable.discard(text)
        for placement in self.interfaces.placed(ip):
            refusal = self._displace(placement)
            if refusal:
                self._held[text] = index
                detail = f"{text} on {self._name(placement.index)}: {_because(refusal)}"
                return AddressOutcome.FAILED, detail
        self.interfaces.drain()
        return AddressOutcome.DONE, ""

    def remove_former(self, ip: IP) -> tuple[bool, str]:
        """Takes an address that is none of the plan off, wherever hostd has put it; whether it was there,
        and what went wrong."""
        assert ip not in self.services, ip
        self.interfaces.drain()
        marked = [p for p in self.interfaces.placed(ip) if self.interfaces.protocols.get(p) == _TAG]
        for placement in marked:
            if refusal := self._displace(placement):
                return True, f"it cannot be removed from {self._name(placement.index)}: {_because(refusal)}"
        return bool(marked), ""

    async def renew(self, text: str, not_after_ms: int, lease_ms: int = 0) -> Outcome:
        """Renews the lease, if it is here and ``not_after_ms`` (``hostd.clock``) has not passed.

        ``lease_ms``: another lease than the plan's, for a daemon that goes
        away for a moment.  FAILED means that the address is off this node.

        The kernel knows no "renew only": it would bring back an address that
        is gone, and the peer may hold it by now.  So whether it is here is
        looked up in events up to this moment, and the clock is read right
        before and right after: this process may be stopped between any two
        instructions, for longer than the lease.
        """
        self.interfaces.drain()
        if text not in self._held:
            return AddressOutcome.FAILED, f"{text} is not on this node"
        late_before = self._clock() - not_after_ms
        refusal = 0
        if late_before <= 0:
            for placement in self.interfaces.placed(self._wanted[text].ip):
                refusal = refusal or self._place(placement, lease_ms or self._lease_ms)
        late_ms = self._clock() - not_after_ms
        if late_ms <= 0 and not refusal:
            self.interfaces.drain()
            return AddressOutcome.DONE, ""
        cause = f"renewal {late_ms} ms too late" if late_ms > 0 else f"renewal: {_because(refusal)}"
        outcome, why_not = await self.remove(text)
        if outcome is not AddressOutcome.DONE:
            return AddressOutcome.FAILED, f"{cause}; NOT REMOVED, its lease has to end it: {why_not}"
        return AddressOutcome.FAILED, f"{cause}; removed"

    # -- the kernel ------------------------------------------------------------------

    def _form(self, address: ServiceAddress, interface: Interface) -> Placement:
        """How the address is to stand there.  Raises ``NoInterface`` if it could not answer."""
        prefixlen: int = address.ip.max_prefixlen
        if self.interfaces.own_address(interface.index, address.ip, self.services) is None:
            # Without "@", a connected route that stands for no address of ours led here.
            if address.prefixlen is None and address.interface:
                raise NoInterface(
                    f"{address.text}: {interface.name} has no address of its own near it, and without a "
                    f"prefix no route back to the clients; write it with one, like {address.ip}/24"
                )
            if address.prefixlen is not None:
                prefixlen = address.prefixlen
        return Placement.at(interface.index, address.ip, prefixlen)

    def _place(self, placement: Placement, lease_ms: int) -> int:
        if placement.prefixlen < placement.ip.max_prefixlen:
            self._promote_siblings(placement)
        message = _message(placement)
        valid_s = min(_FOREVER, max(1, lease_ms // 1000)) if lease_ms else _FOREVER
        preferred_s = valid_s if placement.ip.version == 4 else 0
        message["attrs"] += [
            ("IFA_FLAGS", _IFA_F_NODAD if placement.ip.version == 6 else 0),
            ("IFA_PROTO", _TAG),
            (
                "IFA_CACHEINFO",
                {"ifa_preferred": preferred_s, "ifa_valid": valid_s, "cstamp": 0, "tstamp": 0},
            ),
        ]
        flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE
        refusal = self.interfaces.kernel.ask(rtnetlink.RTM_NEWADDR, message, flags)
        if refusal == 0:
            # The kernel's own event may come a moment later (IPv6); it is here now.
            self.interfaces.placements[placement] = None
        return refusal

    def _displace(self, placement: Placement) -> int:
        if placement.prefixlen < placement.ip.max_prefixlen:
            self._promote_siblings(placement)
        refusal = self.interfaces.kernel.ask(rtnetlink.RTM_DELADDR, _message(placement))
        return 0 if refusal in (errno.EADDRNOTAVAIL, errno.ENODEV) else refusal  # gone is gone

    def _promote_siblings(self, placement: Placement) -> None:
        """Without it the first IPv4 address of a subnet takes the others along."""
        if placement.ip.version == 6 or placement.index not in self.interfaces.links:
            return
        switch = Path(_PROMOTE.format(name=self._name(placement.index)))
        try:
            if switch.read_text().strip() != "1":
                switch.write_text("1")
        except OSError:
            # Read-only in a container.  A sibling that vanishes is noticed as lost
            # and recovered, so this is no reason to refuse the address.
            return

    def _name(self, index: int) -> str:
        interface = self.interfaces.links.get(index)
        return interface.name if interface is not None else f"interface {index}"

    # -- what happened unasked ----------------------------------------------------------

    def _compare(self) -> None:
        """What is on this node against what was: reports each difference once."""
        here: dict[IP, list[int]] = {}
        for placement in self.interfaces.placements:
            here.setdefault(placement.ip, []).append(placement.index)
        for text, address in self._wanted.items():
            indices = here.get(address.ip)
            if indices is not None:
                if text not in self._held:
                    self._on_event(AddressFound(text))
                self._held[text] = indices[0]
                self._judge_use(text, indices)
            elif text in self._held:
                index = self._held.pop(text)
                if text not in self._unusable:  # else its loss is known already
                    cause = AddressCause.REMOVED if self._is_usable(index) else AddressCause.INTERFACE_DOWN
                    self._on_event(AddressLost(text, cause))
                self._unusable.discard(text)
        self._judge_lan()

    def _judge_lan(self) -> None:
        dead = self.dead()
        if dead != self._dead:
            self._dead = dead
            self._on_event(LanTurned(dead))

    def _could_serve(self, text: str) -> bool:
        try:
            return self.interface_of(text).is_usable
        except NoInterface:
            return False  # its route went with its interface

    def _judge_use(self, text: str, indices: Sequence[int]) -> None:
        if any(self._is_usable(index) for index in indices):
            self._unusable.discard(text)
        elif text not in self._unusable:
            self._unusable.add(text)
            self._on_event(AddressLost(text, AddressCause.INTERFACE_DOWN))

    def _is_usable(self, index: int) -> bool:
        link = self.interfaces.links.get(index)
        return link is not None and link.is_usable


def _message(placement: Placement) -> Message:
    message = ifaddrmsg()
    message["family"] = 2 if placement.ip.version == 4 else 10
    message["prefixlen"] = placement.prefixlen
    message["index"] = placement.index
    message["attrs"] = [("IFA_LOCAL", str(placement.ip)), ("IFA_ADDRESS", str(placement.ip))]
    return message


def _because(refusal: int) -> str:
    cure = _CURES.get(refusal)
    return os.strerror(refusal) + (f"; {cure}" if cure else "")
