"""A station on the client LAN: answers ARP and pings as the gateway does, and asks who holds an address.

Decides what a client would see of the services' addresses: who answers for
each, asked several times a second.  Speaks raw Ethernet frames at a port of
the hub, so it needs no network device of this machine.
"""

import contextlib
import ipaddress
import itertools
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.names import GATEWAY, NODE_OF_MAC, OBSERVER
from tests.machines.hub import Hub

ASK_EVERY_S = 0.2
BROADCAST = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
REQUEST, REPLY = 1, 2
ARP_FORMAT = "!6s6sHHHBBH6s4s6s4s"
ARP_SIZE = struct.calcsize(ARP_FORMAT)
FRAME_MIN = 60
ETHERNET_FORMAT = "!6s6sH"
IPV4_FORMAT = "!BBHHHBBH4s4s"
ECHO_REPLY, ECHO_REQUEST = 0, 8
ICMP = 1


@dataclass(frozen=True)
class Answer:
    """Somebody answered for an address, by this machine's monotonic clock."""

    at_s: float
    address: str
    owner: str


class Station:
    """Closed with the pair.  Everything seen is kept."""

    def __init__(self, hub: Hub) -> None:
        port = hub.port("station")
        self._hub_end = str(port.ours)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(port.theirs))
        self._socket.settimeout(ASK_EVERY_S / 4)
        self._watched: tuple[str, ...] = ()
        self.answers: list[Answer] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="station", daemon=True)
        self._thread.start()

    def watch(self, addresses: Sequence[str]) -> None:
        """Ask for these IPv4 addresses from now on; what was seen before is forgotten."""
        self._watched = tuple(addresses)
        self.answers = []

    def owners_since(self, began_s: float) -> dict[str, list[str]]:
        """Who answered for each address since then (``time.monotonic``), in order, without repetition."""
        found: dict[str, list[str]] = {address: [] for address in self._watched}
        for answer in list(self.answers):
            if answer.at_s >= began_s and answer.address in found:
                owners = found[answer.address]
                if not owners or owners[-1] != answer.owner:
                    owners.append(answer.owner)
        return found

    def longest_silence_s(self, address: str, began_s: float) -> float:
        """The longest time without an answer for this address from then until now."""
        times = [a.at_s for a in list(self.answers) if a.address == address and a.at_s >= began_s]
        edges = [began_s, *times, time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(edges))

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        ask_at_s = 0.0
        while not self._ended.is_set():
            if (now := time.monotonic()) >= ask_at_s:
                ask_at_s = now + ASK_EVERY_S
                for address in self._watched:
                    self._send(_arp(REQUEST, _mac(OBSERVER.mac), OBSERVER.address, BROADCAST, address))
            with contextlib.suppress(TimeoutError):
                self._hear(self._socket.recv(4096))

    def _hear(self, frame: bytes) -> None:
        if len(frame) < ARP_SIZE:
            return
        _, _, kind, _, _, _, _, operation, sender, sender_ip, _, target_ip = struct.unpack(ARP_FORMAT, frame[:ARP_SIZE])
        if kind == IPV4:
            self._echo(frame)
        if kind != ARP:
            return
        asked, asker = str(ipaddress.IPv4Address(target_ip)), str(ipaddress.IPv4Address(sender_ip))
        if operation == REQUEST and asked == GATEWAY.address:
            self._send(_arp(REPLY, _mac(GATEWAY.mac), GATEWAY.address, sender, asker))
        elif operation == REPLY and asked == OBSERVER.address:
            name = sender.hex(":")
            self.answers.append(Answer(time.monotonic(), asker, NODE_OF_MAC.get(name, name)))

    def _echo(self, frame: bytes) -> None:
        """Answer a ping of the gateway (RFC 792): the same, back, with another type."""
        to, asker, _ = struct.unpack_from(ETHERNET_FORMAT, frame)
        head, rest = frame[14:34], frame[34:]
        first, _, length, _, fragment, _, protocol, _, source, target = struct.unpack(IPV4_FORMAT, head)
        is_plain = (first, fragment & 0x1FFF, protocol) == (0x45, 0, ICMP)
        if not is_plain or rest[0] != ECHO_REQUEST or target != ipaddress.IPv4Address(GATEWAY.address).packed:
            return
        asked = rest[4 : length - len(head)]
        answer = struct.pack("!BBH", ECHO_REPLY, 0, 0) + asked
        answer = struct.pack("!BBH", ECHO_REPLY, 0, _checksum(answer)) + asked
        back = [0x45, 0, length, 0, 0, 64, ICMP, 0, target, source]
        back[7] = _checksum(struct.pack(IPV4_FORMAT, *back))
        packed = struct.pack(ETHERNET_FORMAT, asker, to, IPV4) + struct.pack(IPV4_FORMAT, *back) + answer
        self._send(packed.ljust(FRAME_MIN, b"\0"))

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(frame, self._hub_end)


def _checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    even = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _arp(operation: int, mac: bytes, address: str, to: bytes, about: str) -> bytes:
    target = bytes(6) if operation == REQUEST else to
    packed = [ipaddress.IPv4Address(text).packed for text in (address, about)]
    frame = struct.pack(ARP_FORMAT, to, mac, ARP, 1, 0x0800, 6, 4, operation, mac, packed[0], target, packed[1])
    return frame.ljust(FRAME_MIN, b"\0")
