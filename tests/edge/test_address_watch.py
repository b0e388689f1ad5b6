"""What happens to an address unasked is noticed at once."""

import asyncio
import subprocess
import time
from collections.abc import Iterator

import pytest

from hostd.core.events import AddressCause, AddressFound, AddressLost, AddressOutcome
from hostd.rtnetlink import RTM_DELLINK, EventSocket
from tests.edge.address_node import node
from tests.edge.namespaces import Lan, Machine, inside

V4, V6 = "10.9.0.100/24", "fd09::100/64"
REMOVED, DOWN = AddressCause.REMOVED, AddressCause.INTERFACE_DOWN


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan("watch")
    yield made
    made.close()


@pytest.fixture
def machine(lan: Lan) -> Machine:
    return lan.machine("a", "10.9.0.1/24", "fd09::1/64")


def test_removal_by_hand_is_noticed_within_a_moment(machine: Machine) -> None:
    """``ip addr del`` is a loss; our own removal is none."""

    async def story() -> None:
        async with node(machine, V4, V6) as a:
            await a.addresses.add(V4)
            await a.addresses.add(V6)
            machine.ip("addr", "del", "10.9.0.100/32", "dev", "eth0")
            began = time.monotonic()
            await a.until(lambda: bool(a.events))
            assert time.monotonic() - began < 0.5
            await a.addresses.remove(V6)
            await asyncio.sleep(0.05)
            assert a.events == [AddressLost(V4, REMOVED)]

    asyncio.run(story())


def test_a_pulled_cable_is_a_lost_address_once_per_time(machine: Machine) -> None:
    """Reported at each pull and never twice; with the cable back the address serves again."""

    async def story() -> None:
        async with node(machine, V4) as a:
            await a.addresses.add(V4)
            for pulls in (1, 2):
                machine.unplug()
                await a.until(lambda pulls=pulls: len(a.events) == pulls)
                assert a.addresses.held() == (V4,)  # still there: it must be removed in good order
                machine.plug()
                await a.until(lambda: a.addresses.interface_of(V4).is_usable)
            assert a.events == [AddressLost(V4, DOWN)] * 2

    asyncio.run(story())


def test_a_dead_interface_is_told_held_or_not(machine: Machine) -> None:
    """Each address that no interface could serve, at every change and not oftener."""

    async def story() -> None:
        async with node(machine, V4, V6, "10.7.0.1") as a:
            nowhere = ("10.7.0.1",)
            assert a.dead == [nowhere]
            machine.unplug()
            await a.until(lambda: a.dead[-1] == (V4, V6, *nowhere))
            machine.plug()
            await a.until(lambda: a.dead[-1] == nowhere)
            machine.ip("link", "set", "eth0", "down")
            await a.until(lambda: V4 in a.dead[-1])
            assert a.addresses.dead() == a.dead[-1]
            assert all(one != other for one, other in zip(a.dead, a.dead[1:], strict=False))

    asyncio.run(story())


@pytest.mark.parametrize("text", [V4, V6])
def test_an_interface_set_down_is_a_lost_address(machine: Machine, text: str) -> None:
    """For IPv4 the kernel keeps the address, for IPv6 it deletes it; one report either way."""

    async def story() -> None:
        async with node(machine, text) as a:
            await a.addresses.add(text)
            machine.ip("link", "set", "eth0", "down")
            await a.until(lambda: bool(a.events))
            await asyncio.sleep(0.05)
            assert a.events == [AddressLost(text, DOWN)]
            assert (await a.addresses.add(text))[0] is AddressOutcome.FAILED
            assert (await a.addresses.remove(text))[0] is AddressOutcome.DONE

    asyncio.run(story())


def test_an_interface_that_vanishes_is_a_lost_address(lan: Lan, machine: Machine) -> None:
    """A card taken out: no crash, one report, and an add that says what is missing."""
    lan.cable(machine, "eth1", "second")

    async def story() -> None:
        async with node(machine, "10.5.0.1/24@eth1") as a:
            await a.addresses.add("10.5.0.1/24@eth1")
            machine.ip("link", "del", "eth1")
            await a.until(lambda: bool(a.events))
            await asyncio.sleep(0.05)
            assert [event.address for event in a.events] == ["10.5.0.1/24@eth1"]
            outcome, detail = await a.addresses.add("10.5.0.1/24@eth1")
            assert outcome is AddressOutcome.FAILED and "no interface eth1" in detail

    asyncio.run(story())


def test_an_address_without_carrier_is_not_added(machine: Machine) -> None:
    """It would serve nobody, and the peer could hold it."""

    async def story() -> None:
        async with node(machine, V4) as a:
            machine.unplug()
            await a.until(lambda: not a.addresses.interface_of(V4).is_usable)
            outcome, detail = await a.addresses.add(V4)
            assert outcome is AddressOutcome.FAILED and "no carrier" in detail
            assert not machine.has("10.9.0.100")

    asyncio.run(story())


def test_an_address_added_by_hand_is_found(machine: Machine) -> None:
    """At any time, with any prefix."""

    async def story() -> None:
        async with node(machine, V4) as a:
            machine.ip("addr", "add", "10.9.0.100/24", "dev", "eth0")
            await a.until(lambda: a.events == [AddressFound(V4)])
            assert a.addresses.held() == (V4,)

    asyncio.run(story())


def test_a_bridge_that_speaks_of_its_port_does_not_confuse_the_mirror(machine: Machine) -> None:
    """A port that leaves a bridge is "deleted" in the bridge's own words; the card is still there."""

    async def story() -> None:
        machine.ip("link", "add", "br9", "type", "bridge")
        async with node(machine, "10.5.0.1/24@eth0") as a:
            with inside(machine.name):
                words = EventSocket((1,))  # RTNLGRP_LINK
            machine.ip("link", "set", "eth0", "master", "br9")
            machine.ip("link", "set", "eth0", "nomaster")
            messages, _ = words.drain()
            words.close()
            deletions = [message for message in messages if message["header"]["type"] == RTM_DELLINK]
            assert deletions, "this kernel says nothing of the kind: the test proves nothing"
            for message in deletions:
                assert not a.addresses.interfaces._apply(message)
            assert a.addresses.interface_of("10.5.0.1/24@eth0").name == "eth0"

    asyncio.run(story())


def test_a_flood_of_events_that_overruns_the_buffer_loses_no_loss(machine: Machine) -> None:
    """The kernel drops events; the mirror is read anew, and what is gone is reported."""

    async def story() -> None:
        async with node(machine, V4) as a:
            await a.addresses.add(V4)
            flood = [f"addr {verb} 127.{i >> 8}.{i & 255}.9/32 dev lo" for i in range(6_000) for verb in ("add", "del")]
            text = "\n".join([*flood, "addr del 10.9.0.100/32 dev eth0", ""])
            batch = ["ip", "-n", machine.name, "-batch", "-"]
            subprocess.run(batch, input=text, text=True, check=True)  # our loop stands still meanwhile
            assert a.addresses.held() == ()
            assert AddressLost(V4, REMOVED) in a.events
            assert a.addresses.interfaces.drops(a.addresses.interface_of(V4).index) == 1  # it was an overrun

    asyncio.run(story())
