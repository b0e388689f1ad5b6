"""The tiebreaker: stations on the client LAN that answer whoever is there.

Decides when they count as reached, and as lost: by their ICMP echo replies
(RFC 792, RFC 4443) alone, with ha.cf's ``ping`` and ``deadping`` as models.
Refuses to know what follows.  A pause of our own is no loss: what should have
been read meanwhile is read first, and the wait begins anew.
"""

import asyncio
import errno
import ipaddress
import logging
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from hostd.clock import now_ms
from hostd.core.events import TiebreakerTurned
from hostd.interfaces import IP

log = logging.getLogger("hostd.pings")

PER_DEADTIME: Final = 5
"""How many questions may go unanswered before the loss counts."""
INTERVAL_MAX_MS: Final = 1_000
_ECHO: Final = {4: (8, 0), 6: (128, 129)}
"""ICMP types of a question and of its answer."""
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_ICMP6_FILTER: Final = 1
_HEADER: Final = struct.Struct("!BBHHH")


class Pings:
    """Asks every target again and again; tells when the verdict turns.

    ``needs_all``: reached means that each target answers, not any.
    ``deadtime_ms``: silence for so long is a loss.  ``on_event`` is called in
    the loop, first as soon as there is a verdict.
    """

    def __init__(
        self,
        targets: Sequence[str],
        deadtime_ms: int,
        *,
        needs_all: bool,
        on_event: Callable[[TiebreakerTurned], None],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._heard_at_ms: dict[IP, int | None] = {ipaddress.ip_address(text): None for text in targets}
        self._deadtime_ms, self._needs_all = deadtime_ms, needs_all
        self._on_event, self._clock = on_event, clock
        self._interval_ms = min(INTERVAL_MAX_MS, max(1, deadtime_ms // PER_DEADTIME))
        self._sockets: dict[int, socket.socket] = {}
        self._name = secrets.randbits(16)
        self._cookie = secrets.token_bytes(8)  # an answer without it was not to us
        self._number = 0
        self._since_ms = 0
        self._asked_at_ms = 0
        self._timer: asyncio.TimerHandle | None = None
        self._complaints: set[str] = set()
        self.reached: bool | None = None

    async def open(self) -> None:
        """Begins to ask.  Raises ``OSError`` if the kernel grants no raw socket."""
        if not self._heard_at_ms:
            return  # nobody to ask has no verdict: "none answered" would mean that we are cut off
        loop = asyncio.get_running_loop()
        for version in sorted({target.version for target in self._heard_at_ms}):
            end = self._sockets[version] = _raw_socket(version)
            loop.add_reader(end, self._hear, version)
        self._since_ms = self._asked_at_ms = self._clock()
        self._turn()

    async def close(self) -> None:
        """Ends asking."""
        if self._timer is not None:
            self._timer.cancel()
        for end in self._sockets.values():
            asyncio.get_running_loop().remove_reader(end)
            end.close()
        self._sockets.clear()

    def _turn(self) -> None:
        now = self._clock()
        if now - self._asked_at_ms > 2 * self._interval_ms:  # we were away: nobody is judged by that
            self._since_ms = now
        for version in self._sockets:
            self._hear(version)
        self._judge(now)
        self._ask()
        self._asked_at_ms = now
        self._timer = asyncio.get_running_loop().call_later(self._interval_ms / 1_000, self._turn)

    def _ask(self) -> None:
        self._number = (self._number + 1) % 65_536
        for target in self._heard_at_ms:
            question = _echo(target.version, self._name, self._number, self._cookie)
            try:
                self._sockets[target.version].sendto(question, (str(target), 0))
            except OSError as error:  # no route, buffers full, nft: as silent as no answer
                self._complain(f"{target}: {error.strerror or error}", error.errno)

    def _complain(self, text: str, number: int | None) -> None:
        if text not in self._complaints and number != errno.ENOBUFS:
            self._complaints.add(text)
            log.info("the tiebreaker cannot be asked: %s", text)

    def _hear(self, version: int) -> None:
        while True:
            try:
                packet, (source, *_) = self._sockets[version].recvfrom(2_048)
            except BlockingIOError:
                return
            except OSError:  # an error that the LAN sent for a question of before
                continue
            asked = ipaddress.ip_address(source.partition("%")[0])
            body = packet[(packet[0] & 15) * 4 :] if version == 4 and packet else packet
            if asked in self._heard_at_ms and self._is_answer(version, body):
                self._heard_at_ms[asked] = self._clock()
                self._complaints.clear()
                self._judge(self._clock())

    def _is_answer(self, version: int, body: bytes) -> bool:
        if len(body) < _HEADER.size:
            return False
        kind, _code, _sum, name, _number = _HEADER.unpack_from(body)
        return (kind, name) == (_ECHO[version][1], self._name) and body[_HEADER.size :] == self._cookie

    def _judge(self, now: int) -> None:
        answers = [heard is not None and now - heard < self._deadtime_ms for heard in self._heard_at_ms.values()]
        reached = all(answers) if self._needs_all else any(answers)
        if reached is self.reached or (not reached and now - self._since_ms < self._deadtime_ms):
            return
        self.reached = reached
        silent = [str(target) for target, answer in zip(self._heard_at_ms, answers, strict=True) if not answer]
        detail = "" if reached else f"no answer from {', '.join(silent)} for {self._deadtime_ms} ms"
        self._on_event(TiebreakerTurned(reached, detail))


def _raw_socket(version: int) -> socket.socket:
    """One that gets answers to our questions only, as far as the kernel can tell."""
    if version == 4:
        end = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        end.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("@I", ~(1 << _ECHO[4][1]) & 0xFFFFFFFF))
        return end
    end = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    words = [0xFFFFFFFF] * 8
    words[_ECHO[6][1] >> 5] &= ~(1 << (_ECHO[6][1] & 31))
    end.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("@8I", *words))
    return end


def _echo(version: int, name: int, number: int, cookie: bytes) -> bytes:
    packet = _HEADER.pack(_ECHO[version][0], 0, 0, name, number) + cookie
    if version == 6:
        return packet  # the kernel fills in its checksum
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return _HEADER.pack(_ECHO[4][0], 0, ~(total + (total >> 16)) & 0xFFFF, name, number) + cookie
