"""The form, the lease and the removal of an address, in real namespaces."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from hostd.address import Addresses
from hostd.clock import now_ms
from hostd.core.events import AddressCause, AddressFound, AddressLost, AddressOutcome
from hostd.interfaces import Placement
from hostd.rtnetlink import RTM_GETADDR
from tests.edge.address_node import node
from tests.edge.namespaces import Lan, Machine, inside

DONE, FAILED = AddressOutcome.DONE, AddressOutcome.FAILED
V4, V6 = "10.9.0.100/24", "fd09::100/64"


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan("addr")
    yield made
    made.close()


@pytest.fixture
def machine(lan: Lan) -> Machine:
    return lan.machine("a", "10.9.0.1/24", "fd09::1/64")


@pytest.fixture
def client(lan: Lan) -> Machine:
    return lan.machine("c", "10.9.0.9/24", "10.8.0.9/24", "fd09::9/64")


def line_of(machine: Machine, address: str) -> str:
    """The line of ``ip addr`` about an address, or empty."""
    return machine.ip("-o", "addr", "show", "to", address)


def test_an_address_is_added_as_a_host_address_with_lease_and_tag_and_is_reached(
    machine: Machine, client: Machine
) -> None:
    """Whatever prefix is given: /32 and /128, five seconds, hostd's tag, answering the LAN."""

    async def story() -> None:
        async with node(machine, V4, V6) as a:
            assert (await a.addresses.add(V4))[0] is DONE
            assert (await a.addresses.add(V6))[0] is DONE
            four = machine.ip("-d", "-o", "addr", "show", "to", "10.9.0.100")
            six = machine.ip("-d", "-o", "addr", "show", "to", "fd09::100")
            assert "10.9.0.100/32" in four and "valid_lft 5sec preferred_lft 5sec" in four
            assert "fd09::100/128" in six and "valid_lft 5sec preferred_lft 0sec" in six
            assert "tentative" not in six
            tags = [
                entry.get_attr("IFA_PROTO")
                for entry in a.addresses.interfaces.kernel.dump(RTM_GETADDR, ifaddrmsg())
                if entry.get_attr("IFA_ADDRESS") in ("10.9.0.100", "fd09::100")
            ]
            assert tags == [66, 66]
            assert client.ping("10.9.0.100") and client.ping("fd09::100")
            assert a.addresses.held() == (V4, V6)
            assert a.events == []  # asked for: neither found nor lost

    asyncio.run(story())


def test_an_ipv6_service_address_is_not_the_source_of_this_nodes_own_connections(
    machine: Machine, client: Machine
) -> None:
    """Else they would break when the service moves."""

    async def story() -> None:
        async with node(machine, "fd09::8/64") as a:  # nearer to the client's ::9 than our own ::1
            await a.addresses.add("fd09::8/64")
            assert "src fd09::1 " in machine.ip("route", "get", "fd09::9")

    asyncio.run(story())


def test_an_address_without_lease_stays_for_ever(machine: Machine) -> None:
    """``address_lease = false``."""

    async def story() -> None:
        async with node(machine, V4, V6, lease_ms=0) as a:
            await a.addresses.add(V4)
            await a.addresses.add(V6)
            assert "valid_lft forever" in line_of(machine, "10.9.0.100")
            assert "valid_lft forever" in line_of(machine, "fd09::100")

    asyncio.run(story())


def test_the_kernel_drops_an_address_that_is_not_renewed_and_its_loss_is_noticed(machine: Machine) -> None:
    """A lease of one second, renewed for two and then no more."""

    async def story() -> None:
        async with node(machine, V4, V6, lease_ms=1_000) as a:
            await a.addresses.add(V4)
            await a.addresses.add(V6)
            for _ in range(8):
                await asyncio.sleep(0.25)
                for text in (V4, V6):
                    assert await a.addresses.renew(text, now_ms() + 500) == (DONE, "")
            assert a.events == []
            stopped_at = time.monotonic()
            await a.until(lambda: len(a.events) == 2)
            assert 0.5 < time.monotonic() - stopped_at < 2.5
            assert not machine.has("10.9.0.100") and not machine.has("fd09::100")
            assert set(a.events) == {AddressLost(text, AddressCause.REMOVED) for text in (V4, V6)}
            assert a.addresses.held() == ()

    asyncio.run(story())


def test_a_renewal_that_comes_too_late_removes_the_address(machine: Machine) -> None:
    """A renewal would re-create it, and the peer may hold it by now."""

    async def story() -> None:
        async with node(machine, V4, V6) as a:
            for text, ip in ((V4, "10.9.0.100"), (V6, "fd09::100")):
                await a.addresses.add(text)
                outcome, detail = await a.addresses.renew(text, now_ms() - 1)
                assert outcome is FAILED and "too late; removed" in detail
                assert not machine.has(ip)
            await asyncio.sleep(0.05)
            assert a.events == []  # the outcome says it; it is no loss besides

    asyncio.run(story())


def test_a_renewal_that_was_held_up_in_the_kernel_removes_the_address(machine: Machine) -> None:
    """The clock is read after the renewal too: here it has moved on meanwhile."""
    times = iter([1_000, 1_001])

    async def story() -> None:
        addresses = Addresses([V4], 5_000, lambda _event: None, clock=lambda: next(times))
        with inside(machine.name):
            await addresses.open()
        await addresses.add(V4)
        assert await addresses.renew(V4, 1_000) == (FAILED, "renewal 1 ms too late; removed")
        assert not machine.has("10.9.0.100")
        await addresses.close()

    asyncio.run(story())


def test_an_address_removed_by_hand_is_never_renewed(machine: Machine) -> None:
    """Not even if the renewal comes before the loop has read the kernel's event."""

    async def story() -> None:
        async with node(machine, V4) as a:
            await a.addresses.add(V4)
            machine.ip("addr", "del", "10.9.0.100/32", "dev", "eth0")
            outcome, _ = await a.addresses.renew(V4, now_ms() + 1_000)
            assert outcome is FAILED
            assert not machine.has("10.9.0.100")
            assert a.events == [AddressLost(V4, AddressCause.REMOVED)]

    asyncio.run(story())


def test_a_longer_lease_bridges_the_absence_of_the_daemon(machine: Machine) -> None:
    """What a detaching daemon asks for; watching ends, the address stays."""

    async def story() -> None:
        async with node(machine, V4) as a:
            await a.addresses.add(V4)
            assert (await a.addresses.renew(V4, now_ms() + 1_000, 60_000))[0] is DONE
        assert "valid_lft 60sec" in line_of(machine, "10.9.0.100")

    asyncio.run(story())


def test_removing_the_first_address_of_a_subnet_leaves_its_siblings(machine: Machine, client: Machine) -> None:
    """Story 18, on an interface with an address of its own and on one without."""
    pairs = [("10.9.0.100/24", "10.9.0.101/24"), ("10.8.0.100/24@eth0", "10.8.0.101/24@eth0")]

    async def story() -> None:
        async with node(machine, *pairs[0], *pairs[1]) as a:
            for first, second in pairs:
                with inside(machine.name):  # /proc/sys of the node
                    assert (await a.addresses.add(first))[0] is DONE
                    assert (await a.addresses.add(second))[0] is DONE
                    assert (await a.addresses.remove(first)) == (DONE, "")
                ip = second.partition("/")[0]
                assert machine.has(ip) and client.ping(ip)
            assert a.events == []

    asyncio.run(story())


def test_an_interface_without_own_address_needs_a_prefix(machine: Machine) -> None:
    """For without one there would be no route back to the clients; the cure is named."""

    async def story() -> None:
        async with node(machine, "10.8.0.100@eth0") as a:
            outcome, detail = await a.addresses.add("10.8.0.100@eth0")
            assert outcome is FAILED and "10.8.0.100/24" in detail

    asyncio.run(story())


def test_the_interface_is_found_by_the_longest_prefix_and_by_connected_routes(lan: Lan, machine: Machine) -> None:
    """Own addresses first, then a route without a router; a sibling's route does not count."""
    lan.cable(machine, "eth1", "second")
    machine.ip("addr", "add", "10.9.0.65/26", "dev", "eth1")
    machine.ip("route", "add", "10.7.0.0/24", "dev", "eth1")
    machine.ip("route", "add", "default", "via", "10.9.0.254")
    texts = ["10.9.0.100", "10.9.0.200", "10.7.0.5", "10.6.0.5", "10.8.0.5/24@eth0", "10.8.0.6", "10.9.0.9@eth9"]

    async def story() -> None:
        async with node(machine, *texts) as a:
            assert a.addresses.interface_of("10.9.0.100").name == "eth1"
            assert a.addresses.interface_of("10.9.0.200").name == "eth0"
            assert a.addresses.interface_of("10.7.0.5").name == "eth1"
            assert (await a.addresses.add("10.8.0.5/24@eth0"))[0] is DONE
            for text, cure in (("10.6.0.5", "10.6.0.5/24@eth0"), ("10.8.0.6", "10.8.0.6/24@eth0")):
                outcome, detail = await a.addresses.add(text)
                assert outcome is FAILED and cure in detail
            outcome, detail = await a.addresses.add("10.9.0.9@eth9")
            assert outcome is FAILED and "eth0, eth1" in detail

    asyncio.run(story())


def test_a_copy_on_another_interface_leaves_when_the_address_is_added_or_removed(lan: Lan, machine: Machine) -> None:
    """An address of the plan belongs to hostd wherever it is found."""
    lan.cable(machine, "eth1", "second")

    async def story() -> None:
        async with node(machine, V4) as a:
            machine.ip("addr", "add", "10.9.0.100/24", "dev", "eth1")
            outcome, detail = await a.addresses.add(V4)
            assert outcome is DONE and "eth1" in detail
            line = line_of(machine, "10.9.0.100")
            assert line.count("10.9.0.100") == 1 and "eth0" in line
            machine.ip("addr", "add", "10.9.0.100/24", "dev", "eth1")
            assert await a.addresses.remove(V4) == (DONE, "")
            assert not machine.has("10.9.0.100")

    asyncio.run(story())


def test_an_address_left_by_an_earlier_life_is_found_and_can_be_renewed(machine: Machine) -> None:
    """Found at open, held, and kept alive in the form in which it stands."""
    machine.ip("addr", "add", "10.9.0.100/32", "dev", "eth0", "valid_lft", "5", "preferred_lft", "5")

    async def story() -> None:
        async with node(machine, V4) as a:
            assert a.events == [AddressFound(V4)]
            assert a.addresses.held() == (V4,)
            assert await a.addresses.renew(V4, now_ms() + 500, 9_000) == (DONE, "")
            assert "valid_lft 9sec" in line_of(machine, "10.9.0.100")

    asyncio.run(story())


def test_removal_is_done_if_the_address_is_gone_already(machine: Machine) -> None:
    """Never there, or gone behind the mirror's back (the kernel says EADDRNOTAVAIL or ENODEV)."""

    async def story() -> None:
        async with node(machine, V4) as a:
            assert await a.addresses.remove(V4) == (DONE, "")
            ip = a.addresses.ip_of(V4)
            for index in (a.addresses.interface_of(V4).index, 4_000):
                a.addresses.interfaces.placements[Placement.at(index, ip, 32)] = None
                assert await a.addresses.remove(V4) == (DONE, "")
                a.addresses.interfaces.placements.clear()

    asyncio.run(story())


def test_without_the_privilege_each_act_fails_with_its_cure_and_nothing_changes(machine: Machine) -> None:
    """EPERM: add and remove fail and name CAP_NET_ADMIN; the address stays known as held."""

    async def story() -> None:
        async with node(machine, V4, V6) as a:
            await a.addresses.add(V4)
            os.seteuid(65534)
            try:
                added = await a.addresses.add(V6)
                removed = await a.addresses.remove(V4)
                renewed = await a.addresses.renew(V4, now_ms() + 500)
            finally:
                os.seteuid(0)
            for outcome, detail in (added, removed, renewed):
                assert outcome is FAILED and "CAP_NET_ADMIN" in detail
            assert "NOT REMOVED" in renewed[1]
            assert a.addresses.held() == (V4,) and machine.has("10.9.0.100")
            assert a.events == []

    asyncio.run(story())


def test_ipv6_switched_off_is_said_with_its_cure(machine: Machine) -> None:
    """The kernel refuses with EACCES."""
    with inside(machine.name):
        Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("1")

    async def story() -> None:
        async with node(machine, "fd09::100/64@eth0") as a:
            outcome, detail = await a.addresses.add("fd09::100/64@eth0")
            assert outcome is FAILED and "disable_ipv6 = 0" in detail

    asyncio.run(story())
