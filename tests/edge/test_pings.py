"""The tiebreaker: found at once, lost after its deadtime, and never by our own pause."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from hostd.core.events import TiebreakerTurned
from hostd.pings import Pings
from tests.edge.namespaces import Lan, Machine, inside

ROUTER, ROUTER6, NOBODY = "10.8.0.254", "fd08::fe", "10.8.0.99"
DEADTIME_MS = 400


@pytest.fixture
def lan() -> Iterator[Lan]:
    made = Lan("pings")
    yield made
    made.close()


@pytest.fixture
def machine(lan: Lan) -> Machine:
    return lan.machine("a", "10.8.0.1/24", "fd08::1/64")


@pytest.fixture
def router(lan: Lan) -> Machine:
    return lan.machine("r", f"{ROUTER}/24", f"{ROUTER6}/64")


class Told(list[TiebreakerTurned]):
    """Every verdict, in order."""

    async def until(self, reached: bool, within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not self or self[-1].reached is not reached:
            assert time.monotonic() < deadline, self
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def asking(
    machine: Machine, *targets: str, needs_all: bool = False, deadtime_ms: int = DEADTIME_MS
) -> AsyncIterator[Told]:
    told = Told()
    pings = Pings(targets, deadtime_ms, needs_all=needs_all, on_event=told.append)
    with inside(machine.name):
        await pings.open()
    try:
        yield told
    finally:
        await pings.close()


@pytest.mark.parametrize("target", [ROUTER, ROUTER6])
def test_a_station_is_found_lost_and_found_again(machine: Machine, router: Machine, target: str) -> None:
    """One verdict per turn; the loss names who is silent."""

    async def story() -> None:
        async with asking(machine, target) as told:
            await told.until(True)
            router.unplug()
            await told.until(False)
            assert target in told[-1].detail
            router.plug()
            await told.until(True)
            assert [turned.reached for turned in told] == [True, False, True]

    asyncio.run(story())


@pytest.mark.parametrize(("needs_all", "reached"), [(False, True), (True, False)])
def test_any_of_them_or_all(machine: Machine, router: Machine, needs_all: bool, reached: bool) -> None:
    """``mode``: with "all" one that is silent is a loss, with "any" it is none."""

    async def story() -> None:
        async with asking(machine, ROUTER, NOBODY, needs_all=needs_all) as told:
            await told.until(reached)
            await asyncio.sleep(2 * DEADTIME_MS / 1_000)
            assert [turned.reached for turned in told] == [reached]

    asyncio.run(story())


def test_nobody_is_lost_by_our_own_pause(machine: Machine, router: Machine) -> None:
    """A loop that stood still has questions to ask before it judges."""

    async def story() -> None:
        async with asking(machine, ROUTER) as told:
            await told.until(True)
            time.sleep(3 * DEADTIME_MS / 1_000)  # the whole loop stands
            await asyncio.sleep(DEADTIME_MS / 1_000)
            assert [turned.reached for turned in told] == [True]

    asyncio.run(story())


def test_answers_to_others_do_not_count(machine: Machine, lan: Lan) -> None:
    """A reply with another name or cookie, even from the right station, is no sign of life."""
    stranger = lan.machine("s", f"{NOBODY}/24")
    stranger.run("sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=1")

    async def story() -> None:
        async with asking(machine, NOBODY) as told:
            for _ in range(10):
                machine.ping(NOBODY, timeout_s=0.02)
                await asyncio.sleep(0.05)
            await told.until(False)
            assert [turned.reached for turned in told] == [False]

    asyncio.run(story())


def test_a_node_without_a_route_waits_for_its_deadtime_like_any_other(machine: Machine) -> None:
    """An error of the kernel is as silent as no answer."""

    async def story() -> None:
        async with asking(machine, "192.0.2.1") as told:
            assert not told
            await told.until(False)

    asyncio.run(story())


def test_without_a_tiebreaker_there_is_no_verdict(machine: Machine) -> None:
    """A cluster that names nobody to ask is not cut off: it would neither fence nor take over."""

    async def scene() -> None:
        async with asking(machine, deadtime_ms=0) as told:
            await asyncio.sleep(0.1)
            assert told == []

    asyncio.run(scene())
