"""Asks the LAN who has an address: the guard before an add, the guard before a takeover.

Decides what the LAN's answers say about an address: who answers for it, who
else is after it, whether silence means anything.  Refuses to know services,
membership and leases; what follows from an answer is the core's business.

**When silence counts.**  A probe that nobody answers proves that an address is
free only if an answer could have been heard.  So :meth:`Neighbours.probe` asks
other stations at the same time: silence counts on an interface that had
carrier all the time, on which a station answered that is not the peer's (the
peer's own answer would show its kernel alive, not our way to the LAN), while
this process was not paused.  A frame sent in the name of an address counts
as an answer for it, asked or not.

**Two guards at once.**  Both nodes may probe for an address before either has
it, so no kernel answers.  Then the first in configured order goes on and the
second sees the first's probe and yields.  Whoever comes later than the other's
whole guard meets its kernel.  That leaves no gap because everything that has
arrived is read right before the verdict, because the caller adds the address
without waiting in between, and because a guard asks three times, 10 ms apart.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Final

from hostd.address import Addresses, Outcome
from hostd.announce import Announcer, Verification, rotated
from hostd.clock import now_ms
from hostd.config import Announcements
from hostd.core.events import AddressOutcome, ForeignClaim
from hostd.interfaces import IP, Interface, Neighbour, NoInterface
from hostd.lan import Lan
from hostd.packets import Heard

_GUARD_PROBES: Final = 3  # frames get lost; an owner answers the first in 0.1 ms
_GUARD_APART_MS: Final = 10
_GUARD_LAST_WAIT_MS: Final = 15  # more than 100 times what an answer takes on a LAN
_ANSWER_WAIT_MS: Final = 30  # an answer takes 0.1 ms on a LAN; the earlier probes had up to half a second
_PAUSE_MS: Final = 250  # PROTOCOL.md: a loop that wakes this much too late was paused
_WITNESSES_MAX: Final = 8  # stations asked per interface and round: any one answer will do
_CLAIM_EVERY_MS: Final = 100  # a storm of claims is one fact


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a takeover's guard found out; the fields are those of ``ProbeFinished``."""

    listened: bool
    answered: tuple[str, ...]
    strangers: tuple[str, ...]
    detail: str


class Neighbours:
    """The LAN as seen by this node.

    ``on_claim``: another station claims an address that this node holds; at
    most once per address in 100 ms.  ``on_verified``: what is known of an
    announced address has changed since :meth:`announce` returned.  Both are
    called in the loop.
    """

    def __init__(
        self,
        addresses: Addresses,
        announcements: Announcements,
        on_claim: Callable[[ForeignClaim], None],
        on_verified: Callable[[str, bool, str], None],
    ) -> None:
        self._addresses = addresses
        self.lan = Lan(addresses.services)
        self._announcer = Announcer(addresses, self.lan, announcements, on_verified)
        self._on_claim = on_claim
        self._claimed_at_ms: dict[str, int] = {}
        self._watch = self.lan.heard_by(self._hear)

    async def open(self) -> None:
        """After ``Addresses.open``.  Raises ``OSError`` (EPERM without CAP_NET_RAW)."""
        self.lan.open()
        try:
            self._announcer.open()
        except OSError:
            self.lan.close()
            raise
        self._watch.__enter__()

    async def close(self) -> None:
        """Ends all announcing and watching."""
        await self._announcer.close()
        self._watch.__exit__(None, None, None)
        self.lan.close()

    # -- turning caches ------------------------------------------------------------

    async def announce(self, text: str) -> Verification:
        """Announces an address and goes on by itself; returns as soon as a neighbour is seen to
        have turned to us, or when none was within the time of ``Announcer``'s first verdict."""
        return await self._announcer.announce(text)

    def stop_announcing(self, text: str) -> None:
        """Before it is removed; an address that is gone is not announced in any case."""
        self._announcer.stop(text)

    # -- foreign claims --------------------------------------------------------------

    def _hear(self, _interface: str, heard: Heard) -> None:
        text = self._addresses.services.get(heard.claims) if heard.claims is not None else None
        if text is None or not self._addresses.is_held(text) or self._is_own(heard.station):
            return
        now = now_ms()
        if now - self._claimed_at_ms.get(text, now - _CLAIM_EVERY_MS) < _CLAIM_EVERY_MS:
            return
        self._claimed_at_ms[text] = now
        self._on_claim(ForeignClaim(text, heard.station, now))

    def _is_own(self, station: str) -> bool:
        """Of any interface of this node: a bond or a bridge may bring our own frames back."""
        return any(link.station == station for link in self._addresses.interfaces.links.values())

    # -- before an add -----------------------------------------------------------------

    async def guard(self, text: str, *, is_first: bool, peer_stations: Collection[str]) -> Outcome:
        """May this address be added?  Takes about 35 ms.

        DONE: nobody answers for it.  CONFLICT: somebody does, or another node
        is after it too and goes first (``is_first``: this node is the first in
        configured order; a station known not to be the peer's always goes
        first).  FAILED: it could not be asked.
        """
        ip = self._addresses.ip_of(text)
        try:
            interface = _asking(self._addresses.interface_of(text))
        except NoInterface as nowhere:
            return AddressOutcome.FAILED, str(nowhere)
        owners: list[str] = []
        rivals: list[str] = []

        def hear(_interface: str, heard: Heard) -> None:
            if self._is_own(heard.station):
                return
            if heard.claims == ip:
                owners.append(heard.station)
            elif heard.probes == ip:
                is_peer = not peer_stations or heard.station in peer_stations
                if not (is_first and is_peer):
                    rivals.append(heard.station)

        self.lan.join(interface, ip)
        self.lan.drain()  # what the former owner said before it let go is no answer
        with self.lan.heard_by(hear):
            for number in range(_GUARD_PROBES):
                trouble = self.lan.probe(interface, ip)
                if trouble:
                    return AddressOutcome.FAILED, trouble
                is_last = number == _GUARD_PROBES - 1
                await asyncio.sleep((_GUARD_LAST_WAIT_MS if is_last else _GUARD_APART_MS) / 1000)
                self.lan.drain()
                if owners:
                    return AddressOutcome.CONFLICT, f"{owners[0]} answers for {ip} on {interface.name}"
                if rivals:
                    return AddressOutcome.CONFLICT, f"{rivals[0]} is about to take {ip} on {interface.name}"
        return AddressOutcome.DONE, ""

    # -- before a takeover ---------------------------------------------------------------

    async def probe(
        self, texts: Sequence[str], count: int, over_ms: int, peer_stations: Collection[str]
    ) -> ProbeResult:
        """Asks for every address at least ``count`` times over at least ``over_ms``;
        an answer ends it at once, since nothing that follows could make it unsaid.

        May be cancelled at any time.  Needs nothing to be held; an address of
        this node's own is not answered by itself.
        """
        window = _Window(self._addresses, self.lan, texts, peer_stations, self._is_own)
        self.lan.drain()  # an answer from before this window is none
        with self.lan.heard_by(window.hear, all_arp=True):
            apart_ms = -(-over_ms // max(1, count - 1)) if count > 1 else over_ms
            for number in range(count):
                window.ask(number)
                is_last = number == count - 1
                await window.listen(_ANSWER_WAIT_MS if is_last and count > 1 else apart_ms)
                if window.is_answered:
                    break
            window.check_carriers()
        return window.result()


class _Window:
    """One takeover's guard: what was asked and what was heard meanwhile."""

    def __init__(
        self,
        addresses: Addresses,
        lan: Lan,
        texts: Sequence[str],
        peer_stations: Collection[str],
        is_own: Callable[[str], bool],
    ) -> None:
        self._addresses, self._lan, self._peer_stations = addresses, lan, peer_stations
        self._is_own = is_own
        self._asked: dict[IP, str] = {addresses.ip_of(text): text for text in texts}
        self._routes: dict[IP, Interface] = {}
        self._heard_on: dict[str, str | None] = {}  # interface → the station that answered us there
        self._met: dict[str, dict[IP, str]] = {}  # interface → stations seen in this window
        self._owners: dict[str, list[str]] = {text: [] for text in texts}
        self._troubles: dict[str, None] = {}
        self._drops_at_start: dict[int, int] = {}
        self._awake_at_ms = now_ms()
        for ip, text in self._asked.items():
            try:
                interface = _asking(addresses.interface_of(text))
            except NoInterface as nowhere:
                self._troubles[str(nowhere)] = None
                continue
            self._routes[ip] = interface
            self._heard_on[interface.name] = None
            self._drops_at_start[interface.index] = addresses.interfaces.drops(interface.index)
            lan.join(interface, ip)

    def ask(self, number: int) -> None:
        """One round: every address, and on every interface some stations that must answer."""
        for ip, interface in self._routes.items():
            trouble = self._lan.probe(interface, ip)
            if trouble:
                self._troubles[trouble] = None
        asked_on = {(interface.index, ip.version): interface for ip, interface in self._routes.items()}
        for (_, version), interface in asked_on.items():
            sender = self._addresses.interfaces.source(interface.index, version, self._addresses.services)
            for witness in self._witnesses(interface, version, number):
                if sender is not None:
                    self._lan.ask(interface, sender, witness.ip, witness.station)

    def _witnesses(self, interface: Interface, version: int, number: int) -> list[Neighbour]:
        known = self._addresses.interfaces.neighbours(interface.index, version)
        met = [Neighbour(ip, station) for ip, station in self._met.get(interface.name, {}).items()]
        fit = [
            neighbour
            for neighbour in [*known[:1], *met, *rotated(known[1:], number * _WITNESSES_MAX)]  # the gateway first
            if neighbour.ip.version == version
            and neighbour.station not in self._peer_stations
            and neighbour.ip not in self._addresses.services
        ]
        return fit[:_WITNESSES_MAX]

    async def listen(self, for_ms: int) -> None:
        """Waits in small steps, so that a pause of our own shows."""
        until_at_ms = now_ms() + for_ms
        while (left_ms := until_at_ms - now_ms()) > 0:
            step_ms = min(left_ms, 100)
            await asyncio.sleep(step_ms / 1000)
            late_ms = now_ms() - self._awake_at_ms - step_ms
            self._awake_at_ms = now_ms()
            if late_ms > _PAUSE_MS:
                self._troubles[f"this daemon was paused for {late_ms} ms"] = None
        self._lan.drain()

    def hear(self, interface: str, heard: Heard) -> None:
        if heard.claims is None or self._is_own(heard.station):
            return
        text = self._asked.get(heard.claims)
        if text is not None:
            if heard.station not in self._owners[text]:
                self._owners[text].append(heard.station)
        elif heard.claims not in self._addresses.services and heard.station not in self._peer_stations:
            self._met.setdefault(interface, {})[heard.claims] = heard.station
            if interface in self._heard_on and self._addresses.interfaces.is_asker(heard.answers):
                self._heard_on[interface] = heard.station

    @property
    def is_answered(self) -> bool:
        """Does somebody have one of the addresses?"""
        return any(self._owners.values())

    def check_carriers(self) -> None:
        self._addresses.interfaces.drain()
        for index, drops in self._drops_at_start.items():
            link = self._addresses.interfaces.links.get(index)
            if link is None or not link.is_usable or self._addresses.interfaces.drops(index) != drops:
                name = link.name if link is not None else f"interface {index}"
                self._troubles[f"{name} had no carrier"] = None

    def result(self) -> ProbeResult:
        for name, station in self._heard_on.items():
            if station is None and not self.is_answered:  # else it was not asked for long enough to be missed
                self._troubles[f"no other station answered on {name}"] = None
        answered = tuple(text for text, stations in self._owners.items() if stations)
        strangers = tuple(
            text
            for text, stations in self._owners.items()
            if self._peer_stations and any(station not in self._peer_stations for station in stations)
        )
        owners = [f"{', '.join(self._owners[text])} answers for {text}" for text in answered]
        detail = "; ".join([*owners, *self._troubles])
        return ProbeResult(not self._troubles, answered, strangers, detail)


def _asking(interface: Interface) -> Interface:
    """The interface, if a question may be asked on it.  Raises ``NoInterface``."""
    if not interface.is_ethernet:
        raise NoInterface(f"{interface.name} is no Ethernet: nobody can be asked there")
    if not interface.is_usable:
        raise NoInterface(f"{interface.name} has no carrier; check its cable and its switch")
    return interface
