"""What an address change costs, and what a client notices of a move.

    python benchmarks/address_change.py        (root; makes and deletes its own namespaces)

Part one compares a change by ``hostd.address`` (pyroute2's messages on a plain
socket; the events that it causes are read and judged too) with the same by
pyroute2's AsyncIPRoute (events not looked at).
Part two pings an address every 2 ms from a client
with a warm cache while it moves: by plan (removed there, asked for, added and
announced here), and after the old node fell off the LAN (added and announced
here without asking).
"""

import asyncio
import contextlib
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyroute2 import AsyncIPRoute

from hostd.clock import now_ms
from tests.edge.address_node import Node, node
from tests.edge.namespaces import Lan, Machine, inside

TEXT, IP = "10.9.0.100/24", "10.9.0.100"
Act = Callable[[], Coroutine[None, None, object]]


async def measured(name: str, act: Act, times: int = 200) -> None:
    walls, cpu = [], time.process_time()
    for _ in range(times):
        began = time.perf_counter()
        await act()
        walls.append((time.perf_counter() - began) * 1000)
    cpu_ms = (time.process_time() - cpu) * 1000 / times
    walls.sort()
    p50, p99 = statistics.median(walls), walls[int(times * 0.99)]
    print(f"{name:34} p50 {p50:6.2f} ms   p99 {p99:7.2f} ms   cpu {cpu_ms:5.2f} ms")


async def compare(machine: Machine) -> None:
    async with node(machine, TEXT) as one:

        async def pair() -> None:
            await one.addresses.add(TEXT)
            await one.addresses.remove(TEXT)

        async def renewal() -> None:
            await one.addresses.renew(TEXT, now_ms() + 1_000)

        await measured("hostd: add and remove", pair)
        await one.addresses.add(TEXT)
        await measured("hostd: renew", renewal)
        await one.addresses.remove(TEXT)
    with inside(machine.name):
        async with AsyncIPRoute() as ip:
            (index,) = await ip.link_lookup(ifname="eth0")
            words = {"index": index, "address": IP, "prefixlen": 32, "valid_lft": 5, "preferred_lft": 5}

            async def pair_of_pyroute2() -> None:
                await ip.addr("add", **words)
                await ip.addr("del", index=index, address=IP, prefixlen=32)

            await measured("pyroute2: add and remove", pair_of_pyroute2)


class Client:
    """Pings every 2 ms; remembers when each answer came."""

    def __init__(self, machine: Machine) -> None:
        with inside(machine.name):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setblocking(False)
        self.answers: list[float] = []
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._read)

    def _read(self) -> None:
        if self.socket.recv(2048)[20] == 0:
            self.answers.append(time.perf_counter())

    async def ping(self) -> None:
        sequence = 0
        while True:
            sequence = (sequence + 1) % 60_000
            checksum = (~((8 << 8) + sequence + 9)) & 0xFFFF
            with contextlib.suppress(OSError):  # no route to it for a moment: no answer either
                self.socket.sendto(struct.pack("!BBHHH", 8, 0, checksum, 9, sequence), (IP, 0))
            await asyncio.sleep(0.002)

    def longest_gap_ms(self) -> float:
        return max(later - earlier for earlier, later in pairwise(self.answers)) * 1000


async def outage(machines: tuple[Machine, Machine, Machine], *, planned: bool) -> float:
    a_machine, b_machine, client_machine = machines

    async def take(one: Node) -> None:
        await one.addresses.add(TEXT)
        await one.neighbours.announce(TEXT)

    async with node(a_machine, TEXT) as a, node(b_machine, TEXT) as b:
        await take(a)
        client = Client(client_machine)
        pinging = asyncio.create_task(client.ping())
        await asyncio.sleep(0.3)
        if planned:
            a.neighbours.stop_announcing(TEXT)
            await a.addresses.remove(TEXT)
            await b.neighbours.guard(TEXT, is_first=False, peer_stations=())
        else:
            a.neighbours.stop_announcing(TEXT)
            a_machine.unplug()
        await take(b)
        await asyncio.sleep(0.3)
        pinging.cancel()
        asyncio.get_running_loop().remove_reader(client.socket.fileno())
        client.socket.close()
        for one in (a, b):
            one.neighbours.stop_announcing(TEXT)
            await one.addresses.remove(TEXT)
    a_machine.plug()
    await asyncio.sleep(0.3)
    return client.longest_gap_ms()


async def main() -> None:
    lan = Lan("bench")
    try:
        machines = (
            lan.machine("a", "10.9.0.1/24"),
            lan.machine("b", "10.9.0.2/24"),
            lan.machine("c", "10.9.0.9/24"),
        )
        for own in ("10.9.0.1", "10.9.0.2"):
            assert machines[2].ping(own)
        await compare(machines[0])
        for name, planned in (("planned move", True), ("takeover from a node that is gone", False)):
            gaps = sorted([await outage(machines, planned=planned) for _ in range(7)])
            print(f"{name:34} longest gap a client sees: p50 {gaps[3]:5.1f} ms   worst of 7 {gaps[-1]:5.1f} ms")
    finally:
        lan.close()


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("needs root: it makes network namespaces")
    asyncio.run(main())
