"""The tiebreaker: found at once, lost after its deadtime, and never by our own pause."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator

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

    async def at_first(self, reached: bool) -> None:
        """The same at the beginning, where a busy machine may have been too late for the first answer."""
        await self.until(reached)
        del self[:-1]


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
            await told.at_first(True)
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
            await told.at_first(reached)
            await asyncio.sleep(2 * DEADTIME_MS / 1_000)
            assert [turned.reached for turned in told] == [reached]

    asyncio.run(story())


def test_nobody_is_lost_by_our_own_pause(machine: Machine, router: Machine) -> None:
    """A loop that stood still has questions to ask before it judges."""

    async def story() -> None:
        async with asking(machine, ROUTER) as told:
            await told.at_first(True)
            time.sleep(3 * DEADTIME_MS / 1_000)  # the whole loop stands
            await asyncio.sleep(DEADTIME_MS / 1_000)
            assert [turned.reached for turned in told] == [True]

    asyncio.run(story())


# -- stations that answer otherwise --------------------------------------------------------

NOBODY6, ELSEWHERE, ELSEWHERE6 = "fd08::99", "10.8.0.98", "fd08::98"
HEADER = struct.Struct("!BBHHH")


class Forger:
    """A station whose kernel answers no ping, and which answers by hand: nearly as it should.

    ``harm`` changes a right answer; ``sent`` counts those that were sent.
    """

    def __init__(self, machine: Machine, *, is_six: bool, source: str, harm: Callable[[bytes], bytes]) -> None:
        self.sent, self._harm, self._is_six = 0, harm, is_six
        for name in ("ipv4.icmp_echo_ignore_all", "ipv6.icmp.echo_ignore_all"):
            machine.run("sysctl", "-q", "-w", f"net.{name}=1")
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_six else (socket.AF_INET, socket.IPPROTO_ICMP)
        with inside(machine.name):
            self._ear = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            self._mouth = socket.socket(family, socket.SOCK_RAW, protocol)
        self._mouth.bind((source, 0))

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._ear, self._answer)
        try:
            yield
        finally:
            loop.remove_reader(self._ear)
            self._ear.close()
            self._mouth.close()

    def _answer(self) -> None:
        packet, (asker, *_) = self._ear.recvfrom(2_048)
        question = packet if self._is_six else packet[20:]
        request, reply = (128, 129) if self._is_six else (8, 0)
        if question[0] != request:
            return
        answer = self._harm(bytes((reply,)) + question[1:])
        if not self._is_six:  # of version 6 the kernel makes the checksum
            answer = answer[:2] + bytes(2) + answer[4:]
            total = sum(struct.unpack(f"!{len(answer) // 2}H", answer))
            total = (total >> 16) + (total & 0xFFFF)
            answer = answer[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + answer[4:]
        self._mouth.sendto(answer, (asker, 0))
        self.sent += 1


def with_another_name(answer: bytes) -> bytes:
    kind, code, check, name, number = HEADER.unpack_from(answer)
    return HEADER.pack(kind, code, check, name ^ 1, number) + answer[HEADER.size :]


def with_another_cookie(answer: bytes) -> bytes:
    return answer[:-1] + bytes((answer[-1] ^ 1,))


def without_a_cookie(answer: bytes) -> bytes:
    return answer[: HEADER.size]


def as_it_is(answer: bytes) -> bytes:
    return answer


@pytest.mark.parametrize("is_six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("harm", "is_elsewhere", "reached"),
    [
        (with_another_name, False, False),
        (with_another_cookie, False, False),
        (without_a_cookie, False, False),
        (as_it_is, True, False),
        (as_it_is, False, True),
    ],
    ids=["another name", "another cookie", "no cookie", "another source", "right"],
)
def test_only_the_answer_to_our_own_question_counts(
    machine: Machine, lan: Lan, harm: Callable[[bytes], bytes], is_elsewhere: bool, reached: bool, is_six: bool
) -> None:
    """A reply with another name or cookie, or from another station, is no sign of life; the right one is."""
    stranger = lan.machine("s", f"{NOBODY}/24", f"{ELSEWHERE}/24", f"{NOBODY6}/64", f"{ELSEWHERE6}/64")
    target, elsewhere = (NOBODY6, ELSEWHERE6) if is_six else (NOBODY, ELSEWHERE)

    async def story() -> None:
        forger = Forger(stranger, is_six=is_six, source=elsewhere if is_elsewhere else target, harm=harm)
        async with forger.at_work(), asking(machine, target) as told:
            if reached:
                await told.at_first(True)
            else:
                await told.until(False)
            sent = forger.sent
            await asyncio.sleep(2 * DEADTIME_MS / 1_000)
            assert forger.sent > sent + 3, "it has not been asked, or has not answered"
            assert [turned.reached for turned in told] == [reached]

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
