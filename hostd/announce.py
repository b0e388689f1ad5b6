"""Tells the LAN where an address is now, and finds out whether the LAN believes it.

Decides when an address is announced and whether its neighbours have turned to
us.  Refuses to know why it is here.

**What proves a turned cache.**  Nobody can read a neighbour's cache, but it can
be made to use it.  After each announcement up to five neighbours (the gateway
first) are asked, and each is judged by what comes back:

- IPv4: an ARP question in the name of the service address, from our station;
  an ICMP echo request from the service address; and one from this node's own
  address for comparison.  An echo reply to the service address is an IP packet
  that the neighbour sent by its cache, and it came to *us*: ``TURNED``.  An
  echo reply to our own address only: it answers, but what it sends to the
  service address does not come here (a permanent entry, a filter): ``ASTRAY``.
  Only an ARP reply: it has heard the question, and RFC 826 has it update its
  entry from the question before it answers; but an ARP reply goes back by what
  the question said, not by the cache: ``LEARNED``, the weaker proof, and all
  there is where echo is filtered.
- IPv6: a neighbour solicitation from the service address.  Its advertisement
  is an IP packet to the service address, sent by the cache: ``TURNED``.

Limits: it speaks for the neighbours asked, at that moment.  A neighbour that
was not asked may still be wrong (a lost frame: hence the repetitions), and
clients behind the gateway are reached by the gateway's cache alone.
"""

import asyncio
import contextlib
import enum
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from hostd import packets
from hostd.address import Addresses
from hostd.clock import now_ms
from hostd.config import Announcements
from hostd.interfaces import IP, Interface, Neighbour, NoInterface
from hostd.lan import Lan, enlarge
from hostd.packets import Heard

_ASKED_MAX: Final = 5
_ANSWER_WAIT_MS: Final = 250
_FIRST_VERDICT_MS: Final = 400
"""Nobody has turned by then: said aloud, while the announcing goes on."""
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_ALL_BUT_ECHO_REPLY: Final = struct.pack("=I", ~1 & 0xFFFF_FFFF)
_REPLIES_MAX: Final = 100  # read in one go


class Grade(enum.IntEnum):
    """What a neighbour's answers prove; the higher wins over the lower."""

    SILENT = 0
    ASTRAY = 1  # it answers us, but not at the service address
    LEARNED = 2  # it heard where the address is
    TURNED = 3  # it sent a packet for the address, and it came to us


class Verification(NamedTuple):
    """``detail``: who turned, or what was tried."""

    verified: bool
    detail: str


class _Announcement:
    """One address being announced: whom we asked, and what came back since."""

    def __init__(self, text: str, ip: IP) -> None:
        self.text, self.ip = text, ip
        self.started_at_ms = now_ms()
        self.asked: dict[IP, str] = {}  # neighbour → station
        self.seen: dict[IP, set[str]] = {}  # neighbour → what came from it
        self.first: asyncio.Future[Verification] = asyncio.get_running_loop().create_future()
        self.last: Verification | None = None
        self.rounds = 0
        self.turned = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def ask_anew(self, neighbours: list[Neighbour]) -> None:
        self.asked = {neighbour.ip: neighbour.station for neighbour in neighbours}
        self.seen = {neighbour.ip: set() for neighbour in neighbours}
        self.turned.clear()

    def note(self, neighbour: IP, what: str) -> None:
        if neighbour in self.seen:
            self.seen[neighbour].add(what)
            if self.grade(neighbour) is Grade.TURNED:
                self.turned.set()

    def grade(self, neighbour: IP) -> Grade:
        seen = self.seen[neighbour]
        if "echo" in seen or "advertisement" in seen:
            return Grade.TURNED
        if "own echo" in seen:
            return Grade.ASTRAY
        return Grade.LEARNED if "arp" in seen else Grade.SILENT


class Announcer:
    """Announces addresses, each by its own schedule."""

    def __init__(
        self,
        addresses: Addresses,
        lan: Lan,
        times: Announcements,
        on_verified: Callable[[str, bool, str], None],
    ) -> None:
        self._addresses, self._lan = addresses, lan
        self._times_ms = sorted({*times.burst_ms, *times.refresh_ms}) or [0]
        self._refresh_ms = set(times.refresh_ms)
        self._on_verified = on_verified
        self._current: dict[IP, _Announcement] = {}
        self._echo: socket.socket | None = None
        self._echo_id = os.getpid() & 0xFFFF
        self._hearing = lan.heard_by(self._hear)

    def open(self) -> None:
        """Raises ``OSError`` (EPERM without CAP_NET_RAW)."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._echo = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        enlarge(self._echo)
        self._echo.setsockopt(_SOL_RAW, _ICMP_FILTER, _ALL_BUT_ECHO_REPLY)
        asyncio.get_running_loop().add_reader(self._echo.fileno(), self._read_echo)
        self._hearing.__enter__()

    async def close(self) -> None:
        tasks = [entry.task for entry in self._current.values() if entry.task is not None]
        for entry in tuple(self._current.values()):
            self.stop(entry.text)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._hearing.__exit__(None, None, None)
        if self._echo is not None:
            asyncio.get_running_loop().remove_reader(self._echo.fileno())
            self._echo.close()
            self._echo = None

    async def announce(self, text: str) -> Verification:
        """Begins the schedule (anew) and returns with the first verdict."""
        self.stop(text)
        entry = _Announcement(text, self._addresses.ip_of(text))
        self._current[entry.ip] = entry
        entry.task = asyncio.get_running_loop().create_task(self._run(entry))
        return await asyncio.shield(entry.first)

    def stop(self, text: str) -> None:
        entry = self._current.pop(self._addresses.ip_of(text), None)
        if entry is None:
            return
        if entry.task is not None:
            entry.task.cancel()
        if not entry.first.done():
            entry.first.set_result(Verification(False, "no longer announced"))

    # -- one address ------------------------------------------------------------------

    async def _run(self, entry: _Announcement) -> None:
        for number, at_ms in enumerate(self._times_ms):
            await _sleep_until(entry.started_at_ms + at_ms)
            if entry.text not in self._addresses.held():  # up to this moment: after a pause its lease may be over
                break
            later = self._times_ms[number + 1 :]
            until_ms = min([at_ms + _ANSWER_WAIT_MS, *later[:1]])
            if entry.last is not None and entry.last.verified and at_ms not in self._refresh_ms:
                self._tell(entry)  # a burst makes up for lost frames; it need not be proven twice
                continue
            verification = await self._once(entry, entry.started_at_ms + until_ms)
            self._conclude(entry, verification, is_last=not later)
        if not entry.first.done():
            entry.first.set_result(Verification(False, f"{entry.text} is not on this node"))

    def _tell(self, entry: _Announcement) -> tuple[Interface | None, str]:
        """One announcement: on which interface, or why there was none."""
        try:
            interface = self._addresses.interface_of(entry.text)
        except NoInterface as nowhere:
            return None, str(nowhere)
        if not interface.is_ethernet:
            return None, f"{interface.name} is no Ethernet: nobody to be told there"
        trouble = self._lan.announce(interface, entry.ip)
        return (None, trouble) if trouble else (interface, "")

    async def _once(self, entry: _Announcement, until_at_ms: int) -> Verification:
        """One announcement, and what the neighbours make of it."""
        interface, trouble = self._tell(entry)
        if interface is None:
            return Verification(False, trouble)
        entry.ask_anew(self._whom_to_ask(interface, entry))
        self._ask(interface, entry)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(1, until_at_ms - now_ms()) / 1000):
                await entry.turned.wait()
        return _verdict(entry, interface)

    def _whom_to_ask(self, interface: Interface, entry: _Announcement) -> list[Neighbour]:
        """Whoever answered last time, the gateway, and each time others of the rest, any of
        which may have been switched off long ago."""
        table = self._addresses.interfaces.neighbours(interface.index, entry.ip.version)
        known = [neighbour for neighbour in table if neighbour.ip not in self._addresses.services]
        answered = [neighbour for neighbour in known if entry.seen.get(neighbour.ip)]
        others = [neighbour for neighbour in known if neighbour not in answered]
        entry.rounds += 1
        return [*answered, *others[:1], *rotated(others[1:], entry.rounds * _ASKED_MAX)][:_ASKED_MAX]

    def _ask(self, interface: Interface, entry: _Announcement) -> None:
        own = self._addresses.interfaces.own_address(interface.index, entry.ip, self._addresses.services)
        for neighbour, station in entry.asked.items():
            self._lan.ask(interface, entry.ip, neighbour, station)
            if entry.ip.version == 4:
                self._send_echo(interface, entry.ip, neighbour)
                if own is not None:
                    self._send_echo(interface, own.ip, neighbour)

    def _conclude(self, entry: _Announcement, verification: Verification, *, is_last: bool) -> None:
        if not entry.first.done():
            is_time = now_ms() - entry.started_at_ms >= _FIRST_VERDICT_MS
            if verification.verified or is_time or is_last:
                entry.last = verification
                entry.first.set_result(verification)
        elif entry.last is None or entry.last.verified != verification.verified:
            entry.last = verification
            self._on_verified(entry.text, verification.verified, verification.detail)

    # -- what comes back -----------------------------------------------------------------

    def _hear(self, _interface: str, heard: Heard) -> None:
        if heard.answers is None or heard.claims is None:
            return
        entry = self._current.get(heard.answers)
        if entry is not None:
            entry.note(heard.claims, "arp" if heard.claims.version == 4 else "advertisement")

    def _read_echo(self) -> None:
        assert self._echo is not None
        for _ in range(_REPLIES_MAX):
            try:
                packet = self._echo.recv(2048)
            except BlockingIOError:
                return
            reply = packets.parse_echo_reply(packet, self._echo_id)
            if reply is None:
                continue
            neighbour, ours = reply
            entry = self._current.get(ours)
            if entry is not None:
                entry.note(neighbour, "echo")
                continue
            for other in self._current.values():  # to this node's own address, for comparison
                other.note(neighbour, "own echo")

    def _send_echo(self, interface: Interface, source: IP, neighbour: IP) -> None:
        assert self._echo is not None
        # struct in_pktinfo: by this interface, in the name of this address.
        packet_info = struct.pack("=i4s4s", interface.index, source.packed, bytes(4))
        ancillary = [(socket.IPPROTO_IP, 8, packet_info)]  # IP_PKTINFO
        # Refused by a firewall, or no route: then it proves nothing, and the ARP reply stands alone.
        with contextlib.suppress(OSError):
            self._echo.sendmsg([packets.echo_request(self._echo_id, 1)], ancillary, 0, (str(neighbour), 0))


def rotated(neighbours: list[Neighbour], by: int) -> list[Neighbour]:
    """The same ring of neighbours, begun at another place."""
    start = by % len(neighbours) if neighbours else 0
    return neighbours[start:] + neighbours[:start]


def _verdict(entry: _Announcement, interface: Interface) -> Verification:
    by_grade: dict[Grade, list[str]] = {grade: [] for grade in Grade}
    for neighbour in entry.asked:
        by_grade[entry.grade(neighbour)].append(str(neighbour))
    parts = []
    if by_grade[Grade.TURNED]:
        parts.append(f"{', '.join(by_grade[Grade.TURNED])} on {interface.name} sends to us")
    if by_grade[Grade.LEARNED]:
        parts.append(f"{', '.join(by_grade[Grade.LEARNED])} on {interface.name} has learned it")
    if by_grade[Grade.ASTRAY]:
        parts.append(f"{', '.join(by_grade[Grade.ASTRAY])} on {interface.name} sends elsewhere")
    if not parts:
        parts.append(f"no neighbour on {interface.name} answered")
    return Verification(bool(by_grade[Grade.TURNED] or by_grade[Grade.LEARNED]), "; ".join(parts))


async def _sleep_until(at_ms: int) -> None:
    await asyncio.sleep(max(0, at_ms - now_ms()) / 1000)
