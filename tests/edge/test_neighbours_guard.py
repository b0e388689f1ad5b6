"""The two guards: before an add, and before a takeover."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostd.core.events import AddressOutcome
from tests.edge.address_node import Node, node
from tests.edge.namespaces import Lan, Machine, inside

DONE, CONFLICT, FAILED = AddressOutcome.DONE, AddressOutcome.CONFLICT, AddressOutcome.FAILED
V4, V6 = "10.9.0.100/24", "fd09::100/64"
Machines = tuple[Machine, Machine, Machine]


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan("guard")
    yield made
    made.close()


@pytest.fixture
def machines(lan: Lan) -> Machines:
    """Two nodes and a neighbour that both have spoken with."""
    made = (
        lan.machine("a", "10.9.0.1/24", "fd09::1/64"),
        lan.machine("b", "10.9.0.2/24", "fd09::2/64"),
        lan.machine("c", "10.9.0.9/24", "fd09::9/64"),
    )
    for own in ("10.9.0.1", "fd09::1", "10.9.0.2", "fd09::2"):
        assert made[2].ping(own, timeout_s=20)
    return made


# -- before an add ---------------------------------------------------------------------


@pytest.mark.parametrize("text", [V4, V6])
def test_an_owner_anywhere_stops_the_add(machines: Machines, text: str) -> None:
    """Here a stranger has it: a conflict that names its station.  Once it is gone, the way is free."""
    machine, _, stranger = machines
    bare = text.partition("/")[0]
    stranger.ip("addr", "add", text, "dev", "eth0", *(["nodad"] if text == V6 else []))

    async def story() -> None:
        async with node(machine, text) as a:
            outcome, detail = await a.neighbours.guard(text, is_first=True, peer_stations=())
            assert outcome is CONFLICT and stranger.station in detail
            stranger.ip("addr", "del", text, "dev", "eth0")
            began = time.monotonic()
            assert await a.neighbours.guard(text, is_first=True, peer_stations=()) == (DONE, "")
            assert time.monotonic() - began < 0.5
            assert not machine.has(bare)  # asking is all it does

    asyncio.run(story())


@pytest.mark.parametrize("text", [V4, V6])
@pytest.mark.parametrize("head_start_ms", [0, 5, 20])
@pytest.mark.parametrize("early_is_first", [True, False])
def test_of_two_nodes_that_want_an_address_at_once_exactly_one_gets_it(
    machines: Machines, text: str, head_start_ms: int, early_is_first: bool
) -> None:
    """The first in configured order, whoever began, as long as both are still asking."""
    both: dict[bool, AddressOutcome] = {}

    async def take(one: Node, *, is_first: bool, after_ms: int) -> None:
        await asyncio.sleep(after_ms / 1000)
        outcome, _ = await one.neighbours.guard(text, is_first=is_first, peer_stations=())
        if outcome is DONE:
            await one.addresses.add(text)
        both[is_first] = outcome

    async def story() -> None:
        async with node(machines[0], text) as a, node(machines[1], text) as b:
            await asyncio.gather(
                take(a, is_first=early_is_first, after_ms=0),
                take(b, is_first=not early_is_first, after_ms=head_start_ms),
            )
            assert sorted(outcome.name for outcome in both.values()) == ["CONFLICT", "DONE"]
            assert len(a.addresses.held() + b.addresses.held()) == 1
            if head_start_ms == 0:
                assert both[True] is DONE

    asyncio.run(story())


def test_a_stranger_that_probes_goes_first(machines: Machines) -> None:
    """Even before the first node: it is about to take the address, and nothing will stop it."""
    machine, _, stranger = machines

    async def story() -> None:
        async with node(machine, V4) as a, node(stranger, V4) as s:
            ours = a.neighbours.guard(V4, is_first=True, peer_stations=("02:00:00:00:00:01",))
            theirs = s.neighbours.guard(V4, is_first=True, peer_stations=())
            outcomes = await asyncio.gather(ours, theirs)
            assert outcomes[0][0] is CONFLICT and stranger.station in outcomes[0][1]

    asyncio.run(story())


def test_a_dead_interface_cannot_be_asked(machines: Machines) -> None:
    """FAILED, not "free": nobody could have answered."""
    machine = machines[0]

    async def story() -> None:
        async with node(machine, V4, "10.9.0.5@eth7") as a:
            machine.unplug()
            await a.until(lambda: not a.addresses.interface_of(V4).is_usable)
            outcome, detail = await a.neighbours.guard(V4, is_first=True, peer_stations=())
            assert outcome is FAILED and "no carrier" in detail
            outcome, detail = await a.neighbours.guard("10.9.0.5@eth7", is_first=True, peer_stations=())
            assert outcome is FAILED and "eth7" in detail

    asyncio.run(story())


# -- before a takeover ---------------------------------------------------------------------


def test_an_owner_answers_and_silence_of_a_free_address_counts(machines: Machines) -> None:
    """An answer ends the window, silence takes the time it was given; the peer is no stranger."""
    machine, peer, _ = machines

    async def story() -> None:
        async with node(machine, V4, V6, "10.9.0.101/24") as a, node(peer, V4, V6) as b:
            await b.addresses.add(V4)
            await b.addresses.add(V6)
            peers = await b.addresses.stations()
            for held in (V4, V6):
                found = await a.neighbours.probe([held, "10.9.0.101/24"], 50, 100_000, peers)  # beyond the test's limit
                assert found.answered == (held,) and found.strangers == ()
                assert peer.station in found.detail
            await b.addresses.remove(V4)
            await b.addresses.remove(V6)
            began = time.monotonic()
            found = await a.neighbours.probe([V4, V6], 5, 500, peers)
            assert time.monotonic() - began >= 0.5
            assert found.listened and found.answered == () and found.detail == ""

    asyncio.run(story())


def test_a_stranger_that_answers_is_named(machines: Machines) -> None:
    """A station that the peer did not publish."""
    machine, peer, stranger = machines
    stranger.ip("addr", "add", V4, "dev", "eth0")

    async def story() -> None:
        async with node(machine, V4) as a:
            found = await a.neighbours.probe([V4], 2, 100, (peer.station,))
            assert found.answered == (V4,) and found.strangers == (V4,)
            assert stranger.station in found.detail

    asyncio.run(story())


def test_the_peer_alone_is_no_proof_that_we_hear(machines: Machines) -> None:
    """Its kernel answers, so its silence about the address says nothing of our way to the LAN."""
    machine, peer, client = machines
    assert peer.ping("10.9.0.1")
    client.unplug()

    async def story() -> None:
        async with node(machine, V4) as a:
            found = await a.neighbours.probe([V4], 3, 200, (peer.station,))
            assert not found.listened and "no other station answered on eth0" in found.detail
            client.plug()
            assert (await a.neighbours.probe([V4], 3, 200, (peer.station,))).listened

    asyncio.run(story())


def test_a_station_first_seen_in_the_window_is_asked_and_counts(lan: Lan) -> None:
    """A node that has spoken with nobody yet: somebody's broadcast shows whom to ask."""
    machine = lan.machine("a", "10.9.0.1/24")
    other, third = lan.machine("b", "10.9.0.2/24"), lan.machine("c", "10.9.0.3/24")

    async def story() -> None:
        async with node(machine, V4) as a:
            assert not (await a.neighbours.probe([V4], 3, 150, ())).listened
            probing = asyncio.create_task(a.neighbours.probe([V4], 3, 300, ()))
            await asyncio.sleep(0.02)
            assert other.ping("10.9.0.3"), third
            assert (await probing).listened

    asyncio.run(story())


def test_a_gateway_never_spoken_to_is_asked(lan: Lan) -> None:
    """The route names it; that is enough."""
    machine = lan.machine("a", "10.9.0.1/24")
    lan.machine("gw", "10.9.0.254/24")
    machine.ip("route", "add", "default", "via", "10.9.0.254")

    async def story() -> None:
        async with node(machine, V4) as a:
            assert (await a.neighbours.probe([V4], 2, 100, ())).listened

    asyncio.run(story())


def test_silence_on_a_dead_interface_does_not_count(lan: Lan, machines: Machines) -> None:
    """No carrier at the start, or lost for a moment in the middle, on one of two interfaces."""
    machine, _, client = machines
    lan.cable(machine, "eth1", "second")
    machine.ip("addr", "add", "10.8.0.1/24", "dev", "eth1")
    client.ip("addr", "add", "10.8.0.9/24", "dev", "eth0")
    assert client.ping("10.8.0.1")

    async def story() -> None:
        async with node(machine, V4, "10.8.0.100/24") as a:
            assert (await a.neighbours.probe([V4, "10.8.0.100/24"], 3, 200, ())).listened
            probing = asyncio.create_task(a.neighbours.probe([V4, "10.8.0.100/24"], 5, 500, ()))
            await asyncio.sleep(0.1)
            machine.unplug()
            machine.plug()
            found = await probing
            assert not found.listened and "eth0 had no carrier" in found.detail
            machine.unplug()
            await a.until(lambda: not a.addresses.interface_of(V4).is_usable)
            found = await a.neighbours.probe([V4, "10.8.0.100/24"], 3, 200, ())
            assert not found.listened and "eth0 has no carrier" in found.detail

    asyncio.run(story())


def test_silence_while_we_were_paused_does_not_count(machines: Machines) -> None:
    """The whole process stands still for longer than 250 ms in the middle of the window."""
    machine = machines[0]

    async def story() -> None:
        async with node(machine, V4) as a:
            probing = asyncio.create_task(a.neighbours.probe([V4], 3, 300, ()))
            await asyncio.sleep(0.05)
            time.sleep(0.45)  # the pause is what is tested
            found = await probing
            assert not found.listened and "was paused for" in found.detail

    asyncio.run(story())


def test_a_window_may_be_cancelled_and_leaves_nothing_behind(machines: Machines) -> None:
    """As happens whenever the peer is heard again."""
    machine = machines[0]

    async def story() -> None:
        async with node(machine, V4) as a:
            listeners = len(a.neighbours.lan._listeners)
            probing = asyncio.create_task(a.neighbours.probe([V4], 5, 500, ()))
            await asyncio.sleep(0.05)
            probing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probing
            assert len(a.neighbours.lan._listeners) == listeners
            assert a.neighbours.lan._curious == 0

    asyncio.run(story())


def test_frames_in_the_name_of_an_address_count_as_an_answer(machines: Machines) -> None:
    """An owner that answers no probe (its kernel is told not to) but announces itself is an owner."""
    machine, peer, _ = machines
    with inside(peer.name):
        Path("/proc/sys/net/ipv4/conf/all/arp_ignore").write_text("8")

    async def story() -> None:
        async with node(machine, V4) as a, node(peer, V4) as b:
            await b.addresses.add(V4)
            assert (await a.neighbours.probe([V4], 2, 100, ())).answered == ()
            probing = asyncio.create_task(a.neighbours.probe([V4], 3, 300, ()))
            await asyncio.sleep(0.05)
            await b.neighbours.announce(V4)
            assert (await probing).answered == (V4,)

    asyncio.run(story())
