"""Caches turned, proofs of it, and foreign claims, on a LAN of namespaces."""

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from hostd.address import Addresses
from hostd.config import Announcements
from hostd.core.events import AddressOutcome
from hostd.neighbours import Neighbours
from tests.edge.address_node import node
from tests.edge.namespaces import Lan, Machine, inside

V4, V6 = "10.9.0.100/24", "fd09::100/64"
SHORT = Announcements(burst_ms=(0, 50), refresh_ms=(600, 1_200))
OFTEN = Announcements(burst_ms=(0,), refresh_ms=tuple(range(500, 10_000, 500)))


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan("neigh")
    yield made
    made.close()


@pytest.fixture
def machines(lan: Lan) -> tuple[Machine, Machine, Machine]:
    """Two nodes and a client."""
    return (
        lan.machine("a", "10.9.0.1/24", "fd09::1/64"),
        lan.machine("b", "10.9.0.2/24", "fd09::2/64"),
        lan.machine("c", "10.9.0.9/24", "fd09::9/64"),
    )


Machines = tuple[Machine, Machine, Machine]


@pytest.mark.parametrize("text", [V4, V6])
def test_a_warm_cache_turns_within_milliseconds_of_the_move(machines: Machines, text: str) -> None:
    """The client's entry is some milliseconds old, so that a cache with a lock time would keep it.

    The peer goes on answering, as a node does whose daemon is dead: the cache
    turns because it is told to, not because the old owner fell silent.
    """
    a_machine, b_machine, client = machines
    ip = text.partition("/")[0]

    async def story() -> None:
        async with node(a_machine, text) as a, node(b_machine, text) as b:
            await a.addresses.add(text)
            assert client.ping(ip)
            assert client.neighbour(ip) == a_machine.station
            began = time.monotonic()
            await b.addresses.add(text)
            announcing = asyncio.create_task(b.neighbours.announce(text))
            await b.until(lambda: client.neighbour(ip) == b_machine.station, within_s=1.0)
            assert time.monotonic() - began < 0.5  # most of it is this test looking
            await announcing
            assert client.ping(ip)

    asyncio.run(story())


@pytest.mark.parametrize("text", [V4, V6])
def test_a_neighbour_that_sends_to_us_verifies_the_address(machines: Machines, text: str) -> None:
    """Within a moment, and the detail names the neighbour."""
    machine, _, client = machines
    own = "10.9.0.1" if text == V4 else "fd09::1"
    assert client.ping(own)

    async def story() -> None:
        async with node(machine, text) as a:
            await a.addresses.add(text)
            began = time.monotonic()
            verified, detail = await a.neighbours.announce(text)
            assert verified and "9 on eth0 sends to us" in detail
            assert time.monotonic() - began < 0.3

    asyncio.run(story())


def test_without_any_neighbour_an_address_is_not_verified(lan: Lan) -> None:
    """Nobody there: said after less than half a second, and no claim is made."""
    machine = lan.machine("a", "10.9.0.1/24", "fd09::1/64")

    async def story() -> None:
        async with node(machine, V4, V6) as a:
            for text in (V4, V6):
                await a.addresses.add(text)
                began = time.monotonic()
                assert await a.neighbours.announce(text) == (False, "no neighbour on eth0 answered")
                assert time.monotonic() - began < 1.5

    asyncio.run(story())


def test_a_neighbour_that_answers_no_ping_has_at_least_learned_it(machines: Machines) -> None:
    """The weaker proof: its ARP answer, after which RFC 826 has it know us."""
    machine, _, client = machines
    assert client.ping("10.9.0.1")
    with inside(client.name):
        Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text("1")

    async def story() -> None:
        async with node(machine, V4) as a:
            await a.addresses.add(V4)
            verified, detail = await a.neighbours.announce(V4)
            assert verified and "10.9.0.9 on eth0 has learned it" in detail

    asyncio.run(story())


@pytest.mark.parametrize("text", [V4, V6])
def test_a_neighbour_with_a_permanent_entry_is_seen_to_send_elsewhere(machines: Machines, text: str) -> None:
    """It answers ARP like any other, and its packets still go to the old place: not verified."""
    machine, other, client = machines
    ip, own = ("10.9.0.100", "10.9.0.1") if text == V4 else ("fd09::100", "fd09::1")
    assert client.ping(own)
    client.ip("neigh", "replace", ip, "lladdr", other.station, "dev", "eth0", "nud", "permanent")

    async def story() -> None:
        async with node(machine, text) as a:
            await a.addresses.add(text)
            verified, detail = await a.neighbours.announce(text)
            assert not verified
            assert detail == ("10.9.0.9 on eth0 sends elsewhere" if text == V4 else "no neighbour on eth0 answered")

    asyncio.run(story())


def test_every_later_change_of_the_verdict_is_reported(machines: Machines) -> None:
    """A neighbour that comes back is noticed at the next refresh; its loss likewise; no repeats."""
    machine, _, client = machines
    assert client.ping("10.9.0.1")
    client.unplug()

    async def story() -> None:
        async with node(machine, V4, times=OFTEN) as a:
            await a.addresses.add(V4)
            assert not (await a.neighbours.announce(V4))[0]
            client.plug()
            await a.until(lambda: bool(a.verdicts))
            assert [verdict[:2] for verdict in a.verdicts] == [(V4, True)]
            client.unplug()
            await a.until(lambda: len(a.verdicts) == 2)
            assert a.verdicts[1][:2] == (V4, False)

    asyncio.run(story())


def test_an_announcement_ends_when_it_is_stopped_or_the_address_is_gone(machines: Machines) -> None:
    """After that no frame claims the address: the new owner would be fought."""
    machine, other, client = machines
    assert client.ping("10.9.0.1")

    async def story() -> None:
        async with node(machine, V4, times=SHORT) as a, node(other, V4) as b:
            await a.addresses.add(V4)
            await a.neighbours.announce(V4)
            a.neighbours.stop_announcing(V4)
            await a.addresses.remove(V4)
            await b.addresses.add(V4)
            await asyncio.sleep(0.8)  # over A's refresh at 600 ms
            assert b.claims == []
            await b.addresses.remove(V4)
            await a.addresses.add(V4)
            announcing = asyncio.create_task(a.neighbours.announce(V4))
            await asyncio.sleep(0.02)
            await a.addresses.remove(V4)  # nobody stopped the announcing
            await b.addresses.add(V4)
            await announcing
            await asyncio.sleep(0.8)
            assert b.claims == []

    asyncio.run(story())


@pytest.mark.parametrize("text", [V4, V6])
def test_a_foreign_claim_to_a_held_address_is_noticed_and_rate_limited(machines: Machines, text: str) -> None:
    """With the station that claims it, at most once in 100 ms."""
    machine, other, _ = machines

    async def story() -> None:
        burst = Announcements(burst_ms=tuple(range(0, 300, 10)), refresh_ms=())
        async with node(machine, text) as a, node(other, text, times=burst) as b:
            await a.addresses.add(text)
            await b.addresses.add(text)
            await b.neighbours.announce(text)
            await asyncio.sleep(0.35)
            assert a.claims
            assert {(claim.address, claim.station) for claim in a.claims} == {(text, other.station)}
            times = [claim.at_ms for claim in a.claims]
            assert all(later - earlier >= 100 for earlier, later in pairwise(times))

    asyncio.run(story())


def test_claims_to_addresses_that_we_do_not_hold_are_none_of_our_business(machines: Machines) -> None:
    """The peer announces what it holds; that is no conflict."""
    machine, other, _ = machines

    async def story() -> None:
        async with node(machine, V4, V6) as a, node(other, V4, V6) as b:
            for text in (V4, V6):
                await b.addresses.add(text)
                await b.neighbours.announce(text)
            assert a.claims == [] and b.claims == []

    asyncio.run(story())


def test_ordinary_traffic_does_not_wake_the_watch(machines: Machines) -> None:
    """The filter in the kernel lets pass only what concerns the plan."""
    machine, other, client = machines
    seen: list[object] = []

    async def story() -> None:
        async with node(machine, V4, V6) as a:
            with a.neighbours.lan.heard_by(lambda _interface, heard: seen.append(heard)):
                for round_number in range(3):
                    other.ip("neigh", "flush", "dev", "eth0")
                    assert other.ping("10.9.0.9") and client.ping("fd09::2")
                    assert other.ping("10.9.0.1"), round_number  # even a question to this very node
                await asyncio.sleep(0.05)
            assert [heard for heard in seen if heard.claims is not None and heard.answers is None] == []  # type: ignore[attr-defined]

    asyncio.run(story())


def test_without_the_privilege_the_ears_cannot_be_opened(machines: Machines) -> None:
    """EPERM as an OSError at open, when the operator is there to read it; nothing is left open."""
    machine = machines[0]

    async def story() -> None:
        addresses = Addresses([V4], 5_000, lambda _event: None)
        neighbours = Neighbours(addresses, SHORT, lambda _claim: None, lambda *_verdict: None)
        with inside(machine.name):
            await addresses.open()
            os.seteuid(65534)
            try:
                with pytest.raises(PermissionError):
                    await neighbours.open()
            finally:
                os.seteuid(0)
            await neighbours.open()  # with the privilege it opens, so nothing was left in the way
        await neighbours.close()
        await addresses.close()

    asyncio.run(story())


def test_a_guarded_add_and_the_announcement_fit_into_a_planned_move(machines: Machines) -> None:
    """From the removal there to the proof here: far below the 100 ms of a planned move, in the best of three."""
    a_machine, b_machine, client = machines
    assert client.ping("10.9.0.2")

    async def story() -> None:
        best_s = 9.0
        async with node(a_machine, V4) as a, node(b_machine, V4) as b:
            for _ in range(3):
                await a.addresses.add(V4)
                await a.neighbours.announce(V4)
                assert client.ping("10.9.0.100")
                began = time.monotonic()
                a.neighbours.stop_announcing(V4)
                await a.addresses.remove(V4)
                guarded = await b.neighbours.guard(V4, is_first=False, peer_stations=())
                assert guarded[0] is AddressOutcome.DONE
                await b.addresses.add(V4)
                assert (await b.neighbours.announce(V4))[0]
                best_s = min(best_s, time.monotonic() - began)
                b.neighbours.stop_announcing(V4)
                await b.addresses.remove(V4)
        assert best_s < 0.1, best_s

    asyncio.run(story())
