"""Addresses that conf.d has no longer are taken off, and nobody else's, in a real namespace."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostd import former_addresses
from hostd.core.plan import Plan, Resource, Service
from hostd.core.snapshot import Wish, WishKind
from tests.edge.address_node import node
from tests.edge.namespaces import Lan, Machine, inside

OLD, KEPT, ASIDE = "10.9.0.100/24", "10.9.0.101/24", "10.9.0.102"
FOREVER = 0


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Lan("former")
    yield made.machine("a", "10.9.0.1/24")
    made.close()


def service(name: str, address: str) -> Service:
    return Service(name, ("a", "b"), (Resource(address, "address", address),))


def plan(*services: Service) -> Plan:
    return Plan("c", ("a", "b"), services)


def on(machine: Machine, text: str) -> bool:
    return text.partition("/")[0] + "/" in machine.ip("-o", "addr")


def begin_again(machine: Machine, runtime: Path, wanted: Plan, *wishes: Wish, aside: tuple[Service, ...] = ()) -> None:
    """As a brain begins: the addresses of the plan, and the note of the one before."""

    async def story() -> None:
        async with node(machine, *(a for s in wanted.services for a in s.addresses), lease_ms=FOREVER) as a:
            former_addresses.clear(a.addresses, runtime, wanted, aside, wishes)

    asyncio.run(story())


@pytest.fixture
def runtime(machine: Machine, tmp_path: Path) -> Path:
    """After a life of hostd with three addresses on this machine, without leases."""
    everything = plan(service("old", OLD), service("kept", KEPT), service("aside", ASIDE))

    async def story() -> None:
        async with node(machine, OLD, KEPT, ASIDE, lease_ms=FOREVER) as a:
            for text in (OLD, KEPT, ASIDE):
                await a.addresses.add(text)
            former_addresses.clear(a.addresses, tmp_path, everything, (), ())

    asyncio.run(story())
    assert all(on(machine, text) for text in (OLD, KEPT, ASIDE))
    return tmp_path


def test_an_address_that_conf_d_has_no_longer_is_taken_off(machine: Machine, runtime: Path) -> None:
    """One of the plan stays, and so does one of a service that is set aside and may run."""
    begin_again(machine, runtime, plan(service("kept", KEPT)), aside=(service("aside", ASIDE),))
    assert not on(machine, OLD)
    assert on(machine, KEPT) and on(machine, ASIDE)


def test_nothing_is_taken_off_while_the_operator_says_hands_off(machine: Machine, runtime: Path) -> None:
    """It is remembered, and done by the first brain after that."""
    hands_off = Wish(WishKind.MAINTENANCE, "", "on", 1, "a")
    begin_again(machine, runtime, plan(service("kept", KEPT)), hands_off)
    assert on(machine, OLD)
    begin_again(machine, runtime, plan(service("kept", KEPT)))
    assert not on(machine, OLD)


def test_an_address_that_hostd_did_not_put_there_stays(machine: Machine, runtime: Path) -> None:
    """The operator took over the address by hand, without hostd's mark."""
    with inside(machine.name):
        machine.ip("addr", "del", "10.9.0.100/32", "dev", machine.ip("-o", "addr", "show", "to", OLD).split()[1])
        machine.ip("addr", "add", OLD, "dev", "lo")
    begin_again(machine, runtime, plan(service("kept", KEPT)))
    assert on(machine, OLD)


def test_an_address_that_is_no_business_of_this_hostd_stays(machine: Machine, runtime: Path, tmp_path: Path) -> None:
    """A second cluster on the same machine has its own runtime directory, and the same mark."""
    other = tmp_path / "other"
    other.mkdir()
    begin_again(machine, other, plan(service("mine", "10.9.0.200/24")))
    assert on(machine, OLD) and on(machine, KEPT)
