"""Asks services, again and again, as a client on the LAN does.

Run as a script by ``client.py`` (standard library only, but for the protocols
of ``conversations.py``).  Three ways of asking: ``echo`` sends ICMP echo
requests (IPv4 or IPv6) by the kernel's ordinary path, so that an outage lasts
as long as the client's own neighbour cache is wrong; ``http`` opens a new
connection for each request and notes which node's page came back; the
protocols of ``conversations.py`` write a number at each request, and ``kept``
tells whether all that were acknowledged can be read back.  Every request is
noted with the time it was sent; a request that fails, or has no answer within
the time limit, is lost.
"""

import contextlib
import ctypes
import ipaddress
import json
import os
import re
import selectors
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.conversations import Conversation

CLONE_NEWNET = 0x40000000
ECHO_REQUEST, ECHO_REPLY = 8, 0
ECHO6_REQUEST, ECHO6_REPLY = 128, 129
ECHO_LOST_AFTER_MS = 250
CONNECT_MAX_MS = 900
"""On a LAN.  After one second the kernel asks again, and a question from the middle of an outage would be
answered by the next server."""
HTTP_LOST_AFTER_MS = 5_000
READS = 10
"""A busy server, or one that is just coming up, lets its clients wait."""
NODE = re.compile(rb"clustnode\d+")


def now_ms() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


class Asked:
    """One request."""

    __slots__ = ("answered_at_ms", "has_failed", "sent_at_ms", "who")

    def __init__(self, sent_at_ms: float) -> None:
        self.sent_at_ms = sent_at_ms
        self.answered_at_ms = 0.0
        self.has_failed = False
        self.who = ""


class Target:
    """One service, and every request that was made of it."""

    lost_after_ms = ECHO_LOST_AFTER_MS

    def __init__(self, name: str, address: str, interval_ms: float) -> None:
        self.name, self.address, self.interval_ms = name, address, interval_ms
        self.version = ipaddress.ip_address(address).version
        self.asked: list[Asked] = []
        self.next_at_ms = now_ms()

    def ask(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        """Give up what is too old."""

    def over_at_ms(self, asked: Asked) -> float:
        """When an outage was over, if this was the first request after it that was answered.

        When the answer came: a server that is just coming up may let its first clients wait.
        """
        return asked.answered_at_ms

    def report(self, since_ms: float) -> dict[str, Any]:
        """Gaps: from the last answered request before a loss to the first after it.

        A request that is still under way says nothing yet.
        """
        now = now_ms()
        gaps: list[dict[str, Any]] = []
        servers: list[list[Any]] = []
        last_good: Asked | None = None
        undecided_since_ms: float | None = None
        lost = sent = answered = 0
        for asked in self.asked:
            if asked.sent_at_ms < since_ms:
                continue
            sent += 1
            if asked.answered_at_ms:
                answered += 1
                over_at_ms = self.over_at_ms(asked)
                if lost:
                    begin = last_good.sent_at_ms if last_good else since_ms
                    if gaps and begin < gaps[-1]["to_ms"]:  # one answer between them that came late
                        begin, lost = gaps[-1]["from_ms"], lost + gaps.pop()["lost"]
                    gaps.append({"from_ms": begin, "to_ms": over_at_ms, "lost": lost, "open": False})
                lost, last_good = 0, asked
                if servers and servers[-1][0] == asked.who:
                    servers[-1][2] = over_at_ms
                else:
                    servers.append([asked.who, asked.sent_at_ms, over_at_ms])
            elif asked.has_failed or asked.sent_at_ms < now - self.lost_after_ms:
                lost += 1
            else:
                undecided_since_ms = undecided_since_ms or asked.sent_at_ms
        if lost:
            begin = last_good.sent_at_ms if last_good else since_ms
            gaps.append({"from_ms": begin, "to_ms": now, "lost": lost, "open": True})
        last = last_good.answered_at_ms if last_good else 0.0
        return {
            "sent": sent, "answered": answered, "gaps": gaps, "servers": servers, "last_answer_at_ms": last,
            "undecided_since_ms": undecided_since_ms, "interval_ms": self.interval_ms,
        }  # fmt: skip


class Echoer:
    """The raw socket of one IP version: sends for all targets, hands answers to them."""

    def __init__(self, version: int, selector: selectors.BaseSelector) -> None:
        if version == 4:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        else:
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self.socket.setblocking(False)
        self.version = version
        self.identifier = os.getpid() & 0xFFFF
        self.sequence = 0
        self.under_way: dict[tuple[str, int], Asked] = {}
        selector.register(self.socket, selectors.EVENT_READ, self.receive)

    def send(self, address: str) -> Asked:
        self.sequence = (self.sequence + 1) & 0xFFFF
        kind = ECHO_REQUEST if self.version == 4 else ECHO6_REQUEST
        packet = struct.pack("!BBHHH", kind, 0, 0, self.identifier, self.sequence)
        if self.version == 4:  # the kernel fills in ICMPv6's
            total = sum(struct.unpack("!4H", packet))
            total = (total & 0xFFFF) + (total >> 16)
            packet = packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:]
        asked = Asked(now_ms())
        self.under_way[(address, self.sequence)] = asked
        with contextlib.suppress(OSError):  # no neighbour answers: lost, which is what is being measured
            self.socket.sendto(packet, (address, 0))
        return asked

    def receive(self) -> None:
        while True:
            try:
                packet, origin = self.socket.recvfrom(256)
            except (BlockingIOError, OSError):
                return
            body = packet[(packet[0] & 15) * 4 :] if self.version == 4 else packet
            kind, _, _, identifier, sequence = struct.unpack("!BBHHH", body[:8])
            if kind in (ECHO_REPLY, ECHO6_REPLY) and identifier == self.identifier:
                asked = self.under_way.pop((origin[0], sequence), None)
                if asked and now_ms() - asked.sent_at_ms < ECHO_LOST_AFTER_MS:
                    asked.answered_at_ms = now_ms()


class EchoTarget(Target):
    def over_at_ms(self, asked: Asked) -> float:
        return asked.sent_at_ms  # it was answered by a kernel, and at once

    def __init__(self, name: str, address: str, interval_ms: float, echoer: Echoer) -> None:
        super().__init__(name, str(ipaddress.ip_address(address)), interval_ms)
        self.echoer = echoer

    def ask(self) -> None:
        self.asked.append(self.echoer.send(self.address))


class HttpTarget(Target):
    """A new connection for each request, many at once, none waited for."""

    lost_after_ms = HTTP_LOST_AFTER_MS

    def __init__(
        self, name: str, address: str, interval_ms: float, port: int, selector: selectors.BaseSelector
    ) -> None:
        super().__init__(name, address, interval_ms)
        self.port, self.selector = port, selector
        self.open: dict[socket.socket, Asked] = {}
        self.unconnected: set[socket.socket] = set()

    def ask(self) -> None:
        asked = Asked(now_ms())
        self.asked.append(asked)
        connection = socket.socket(socket.AF_INET if self.version == 4 else socket.AF_INET6)
        connection.setblocking(False)
        try:
            connection.connect((self.address, self.port))
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            asked.has_failed = True
            return
        self.open[connection] = asked
        self.unconnected.add(connection)
        self.selector.register(connection, selectors.EVENT_WRITE, lambda: self.connected(connection))

    def connected(self, connection: socket.socket) -> None:
        self.unconnected.discard(connection)
        try:
            connection.send(b"GET / HTTP/1.0\r\n\r\n")
            self.selector.modify(connection, selectors.EVENT_READ, lambda: self.answered(connection))
        except OSError:
            self.end(connection)

    def answered(self, connection: socket.socket) -> None:
        try:
            page = connection.recv(4096)
        except OSError:
            page = b""
        asked = self.open[connection]
        if page.startswith(b"HTTP/1.") and b" 200 " in page[:16] and (found := NODE.search(page)):
            asked.who = found[0].decode()
            asked.answered_at_ms = now_ms()
        self.end(connection)

    def tick(self) -> None:
        now = now_ms()
        for connection, asked in list(self.open.items()):
            limit_ms = CONNECT_MAX_MS if connection in self.unconnected else HTTP_LOST_AFTER_MS
            if asked.sent_at_ms < now - limit_ms:
                self.end(connection)

    def end(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        self.unconnected.discard(connection)
        asked = self.open.pop(connection)
        asked.has_failed = not asked.answered_at_ms
        connection.close()


class TalkTarget(Target):
    """A conversation in a thread of its own for each request, many at once, none waited for."""

    def __init__(self, name: str, address: str, interval_ms: float, conversation: "Conversation") -> None:
        from tests.lab import conversations

        super().__init__(name, address, interval_ms)
        self.lost_after_ms = conversations.CONVERSATION_MAX_S * 1000
        self.failures = conversations.FAILURES
        self.conversation = conversation
        self.acknowledged: dict[int, float] = {}
        """Numbers, and when we were told that they are written."""

    def ask(self) -> None:
        asked = Asked(now_ms())
        self.asked.append(asked)
        threading.Thread(target=self.talk, args=(len(self.asked), asked), daemon=True).start()

    def talk(self, number: int, asked: Asked) -> None:
        try:
            self.conversation.write(number)
        except self.failures:
            asked.has_failed = True
            return
        who, at_ms = neighbour(self.address), now_ms()
        self.acknowledged[number] = at_ms
        if at_ms - asked.sent_at_ms < self.lost_after_ms:
            asked.who, asked.answered_at_ms = who, at_ms

    def kept(self, until_ms: float) -> dict[str, int]:
        """How many were acknowledged until then, and how many of these can be read now; -1 if nothing can."""
        acknowledged = {number for number, at_ms in list(self.acknowledged.items()) if at_ms < until_ms}
        found = -1
        for _ in range(READS):  # what is asked is whether it is there, not whether the server is quick to be back
            try:
                found = len(acknowledged & self.conversation.read())
                break
            except self.failures:
                time.sleep(0.5)
        return {"acknowledged": len(acknowledged), "found": found}


def neighbour(address: str) -> str:
    """The MAC to which packets for this address go."""
    lines = Path("/proc/net/arp").read_text().splitlines()
    return next((line.split()[3] for line in lines if line.startswith(f"{address} ")), "")


def make_targets(spec: dict[str, Any], selector: selectors.BaseSelector) -> list[Target]:
    targets: list[Target] = []
    echoers: dict[int, Echoer] = {}
    for wanted in spec["targets"]:
        name, address, interval_ms = wanted["name"], wanted["address"], wanted["interval_ms"]
        if wanted["kind"] == "http":
            targets.append(HttpTarget(name, address, interval_ms, wanted["port"], selector))
        elif wanted["kind"] != "echo":
            from tests.lab.conversations import PROTOCOLS

            talk = PROTOCOLS[wanted["kind"]](address, wanted["port"], wanted["user"], wanted["password"])
            targets.append(TalkTarget(name, address, interval_ms, talk))
        else:
            version = ipaddress.ip_address(address).version
            if version not in echoers:
                echoers[version] = Echoer(version, selector)
            targets.append(EchoTarget(name, address, interval_ms, echoers[version]))
    return targets


def answer(targets: list[Target], question: str, when_ms: str) -> dict[str, Any]:
    """``report``: since then.  ``kept``: of what was written until then."""
    if question == "kept":
        return {target.name: target.kept(float(when_ms)) for target in targets if isinstance(target, TalkTarget)}
    return {target.name: target.report(float(when_ms)) for target in targets}


def run(targets: list[Target], selector: selectors.BaseSelector) -> None:
    selector.register(0, selectors.EVENT_READ, None)
    while True:
        wait_ms = min(target.next_at_ms for target in targets) - now_ms()
        for key, _ in selector.select(max(0.0, wait_ms / 1000)):
            if key.fd != 0:
                key.data()
                continue
            line = sys.stdin.readline()
            if not line:
                return
            print(json.dumps(answer(targets, *line.split())), flush=True)
        for target in targets:
            if target.next_at_ms <= now_ms():
                target.tick()
                target.ask()
                target.next_at_ms = max(target.next_at_ms + target.interval_ms, now_ms())


def main() -> None:
    spec = json.loads(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).parents[2]))
    with open(spec["network"]) as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "setns")
    selector = selectors.DefaultSelector()
    targets = make_targets(spec, selector)
    # not with threads: one that holds the interpreter's lock and does not get the processor would stop us as well
    if not any(isinstance(target, TalkTarget) for target in targets):
        with contextlib.suppress(OSError):  # it only measures more coarsely then
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    print("{}", flush=True)
    run(targets, selector)


if __name__ == "__main__":
    main()
