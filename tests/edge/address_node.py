"""One node's addresses and ears in a namespace, for the tests of this folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from hostd.address import Addresses
from hostd.config import Announcements
from hostd.core.events import AddressFound, AddressLost, ForeignClaim, LanTurned
from hostd.neighbours import Neighbours
from tests.edge.namespaces import Machine, inside


class Node:
    """What is tested, with everything that it reported."""

    def __init__(self, machine: Machine, texts: Sequence[str], lease_ms: int, times: Announcements) -> None:
        self.machine = machine
        self.events: list[AddressLost | AddressFound] = []
        self.dead: list[tuple[str, ...]] = []
        """What each report of the LAN named, in order."""
        self.claims: list[ForeignClaim] = []
        self.verdicts: list[tuple[str, bool, str]] = []
        self.addresses = Addresses(texts, lease_ms, self._reported)
        self.neighbours = Neighbours(
            self.addresses, times, self.claims.append, lambda *verdict: self.verdicts.append(verdict)
        )

    def _reported(self, event: AddressLost | AddressFound | LanTurned) -> None:
        if isinstance(event, LanTurned):
            self.dead.append(event.dead)
        else:
            self.events.append(event)

    async def until(self, claim: Callable[[], bool], within_s: float = 3.0) -> None:
        """Fails if ``claim`` does not come true; looks every few milliseconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not claim():
                    await asyncio.sleep(0.005)
        assert claim(), (self.events, self.claims, self.verdicts)


@contextlib.asynccontextmanager
async def node(
    machine: Machine,
    *texts: str,
    lease_ms: int = 5_000,
    times: Announcements = Announcements(),  # noqa: B008 - frozen
) -> AsyncIterator[Node]:
    made = Node(machine, texts, lease_ms, times)
    with inside(machine.name):
        await made.addresses.open()
        try:
            await made.neighbours.open()
        except BaseException:
            await made.addresses.close()
            raise
    try:
        yield made
    finally:
        await made.neighbours.close()
        await made.addresses.close()
