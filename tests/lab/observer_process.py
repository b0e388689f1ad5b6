"""Asks the LAN, again and again: who has these addresses?

Run as a script by ``observer.py`` (standard library only).  For each address
it sends an ARP request or a neighbour solicitation every few milliseconds by
raw frames, and notes which MACs answer.  Answers are put to the question that
they followed; two MACs on one question are two owners.  It watches what others
say as well: ``claims`` are gratuitous ARPs and unsolicited advertisements.
"""

import contextlib
import ctypes
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

CLONE_NEWNET = 0x40000000
ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
ARP_REQUEST, ARP_REPLY = 1, 2
SOLICITATION, ADVERTISEMENT = 135, 136


def now_ms() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def mac_text(raw: bytes) -> str:
    return raw.hex(":")


def arp_question(mac: bytes, own: str, target: str) -> bytes:
    """An ordinary request of an ordinary station, not a probe: nobody that
    guards an address may take it for a claim."""
    body = struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, ARP_REQUEST, mac, socket.inet_aton(own), bytes(6), socket.inet_aton(target)
    )
    return b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP) + body


def nd_question(mac: bytes, own: str, target: str) -> bytes:
    source, sought = (socket.inet_pton(socket.AF_INET6, text) for text in (own, target))
    group = bytes.fromhex("ff0200000000000000000001ff") + sought[13:]
    icmp = struct.pack("!BBHI16sBB6s", SOLICITATION, 0, 0, 0, sought, 1, 1, mac)
    icmp = icmp[:2] + struct.pack("!H", checksum6(source, group, icmp)) + icmp[4:]
    ip6 = struct.pack("!IHBB16s16s", 6 << 28, len(icmp), socket.IPPROTO_ICMPV6, 255, source, group)
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", ETH_P_IPV6) + ip6 + icmp


def checksum6(source: bytes, destination: bytes, icmp: bytes) -> int:
    data = source + destination + struct.pack("!II", len(icmp), socket.IPPROTO_ICMPV6) + icmp
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def answer_in(frame: bytes) -> tuple[str, str, bool] | None:
    """(address, MAC of who has it, was it unasked) if the frame tells."""
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == ETH_P_ARP and len(frame) >= 42:
        operation, sender_mac, sender, _, target = struct.unpack("!H6s4s6s4s", frame[20:42])
        address = socket.inet_ntoa(sender)
        if sender == target:
            return address, mac_text(sender_mac), True
        return (address, mac_text(sender_mac), False) if operation == ARP_REPLY else None
    if kind == ETH_P_IPV6 and len(frame) >= 78 and frame[20] == socket.IPPROTO_ICMPV6 and frame[54] == ADVERTISEMENT:
        solicited = bool(frame[58] & 0x40)
        address = socket.inet_ntop(socket.AF_INET6, frame[62:78])
        return address, mac_text(frame[6:12]), not solicited
    return None


class Sight:
    """What was seen of one address: runs of questions with the same answer."""

    def __init__(self, question: bytes) -> None:
        self.question = question
        self.runs: list[tuple[float, float, frozenset[str]]] = []
        """(first, last, who): consecutive questions that got the same answers."""
        self.asked_at_ms = 0.0
        self.answers: set[str] = set()
        self.claims: list[tuple[float, str]] = []

    def close_question(self) -> None:
        if not self.asked_at_ms:
            return
        who = frozenset(self.answers)
        if self.runs and self.runs[-1][2] == who:
            self.runs[-1] = (self.runs[-1][0], self.asked_at_ms, who)
        else:
            self.runs.append((self.asked_at_ms, self.asked_at_ms, who))
        self.answers.clear()

    def report(self, since_ms: float) -> dict[str, Any]:
        return {
            "runs": [(first, last, sorted(who)) for first, last, who in self.runs if last >= since_ms],
            "claims": [claim for claim in self.claims if claim[0] >= since_ms],
        }


class Observer:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.interval_ms = float(spec["interval_ms"])
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.wire.bind((spec["interface"], ETH_P_ALL))
        self.wire.setblocking(False)
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        mac = mac_bytes(spec["mac"])
        self.sights: dict[str, Sight] = {}
        for target in spec["targets"]:
            if ipaddress.ip_address(target).version == 4:
                question = arp_question(mac, spec["address"], target)
            else:
                question = nd_question(mac, spec["address6"], target)
            self.sights[str(ipaddress.ip_address(target))] = Sight(question)

    def look(self) -> None:
        """Take in all frames that have arrived."""
        while True:
            try:
                frame, origin = self.wire.recvfrom(2048)
            except (BlockingIOError, OSError):
                return
            if origin[2] == socket.PACKET_OUTGOING or not (answer := answer_in(frame)):
                continue
            address, mac, unasked = answer
            if sight := self.sights.get(address):
                if unasked:
                    sight.claims.append((now_ms(), mac))
                else:
                    sight.answers.add(mac)

    def ask(self) -> None:
        """One question per address; what came since the last one belonged to the last one."""
        self.look()
        for sight in self.sights.values():
            sight.close_question()
            sight.asked_at_ms = now_ms()
            try:
                self.wire.send(sight.question)
            except OSError:
                sight.asked_at_ms = 0.0  # not asked, so silence says nothing

    def run(self) -> None:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        next_at_ms = now_ms()
        while True:
            wait_ms = next_at_ms - now_ms()
            if wait_ms <= 0:
                self.ask()
                # a question missed for want of time is not made up for
                next_at_ms = max(next_at_ms + self.interval_ms, now_ms())
                continue
            if poll.poll(wait_ms):
                line = sys.stdin.readline()
                if not line:
                    return
                self.look()
                since_ms = float(line.split()[1])
                print(json.dumps({key: sight.report(since_ms) for key, sight in self.sights.items()}), flush=True)


def main() -> None:
    spec = json.loads(sys.argv[1])
    with open(spec["network"]) as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "setns")
    observer = Observer(spec)
    with contextlib.suppress(OSError):  # it only looks less often then
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    print("{}", flush=True)
    observer.run()


if __name__ == "__main__":
    main()
