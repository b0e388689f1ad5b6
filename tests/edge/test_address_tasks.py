"""Address effects as tasks: order, supersession, exactly one outcome each."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from hostd.address import Outcome
from hostd.address_tasks import AddressTasks
from hostd.announce import Verification
from hostd.core.effects import AddAddress, AnnounceAddress, ProbeAddresses, RemoveAddress, RenewAddress
from hostd.core.events import AddressFinished, AddressOutcome, AddressVerified, AnyEvent, ProbeFinished
from hostd.neighbours import ProbeResult

VIP = "192.0.2.1/24"
OTHER = "192.0.2.2/24"
DONE = (AddressOutcome.DONE, "")


class World:
    """Addresses and neighbours that write down what is done; every question waits for ``gate``."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.outcomes: list[AnyEvent] = []
        self.gate = asyncio.Event()
        self.guard_says: Outcome = DONE
        self.error: Exception | None = None
        self.tasks = AddressTasks(
            self, self, self.outcomes.append, is_first=True, peer_stations=lambda: ("02:00:00:00:00:01",)
        )

    async def _act(self, what: str) -> Outcome:
        self.acts.append(what)
        if self.error is not None:
            raise self.error
        return DONE

    async def add(self, text: str) -> Outcome:
        return await self._act(f"add {text}")

    async def remove(self, text: str) -> Outcome:
        return await self._act(f"remove {text}")

    async def renew(self, text: str, not_after_ms: int, lease_ms: int = 0) -> Outcome:
        return await self._act(f"renew {text} {not_after_ms} {lease_ms}")

    async def guard(self, text: str, *, is_first: bool, peer_stations: Collection[str]) -> Outcome:
        await self.gate.wait()
        self.acts.append(f"guard {text} {is_first} {len(peer_stations)}")
        return self.guard_says

    async def announce(self, text: str) -> Verification:
        await self.gate.wait()
        return Verification(True, "seen")

    def stop_announcing(self, text: str) -> None:
        self.acts.append(f"hush {text}")

    async def probe(
        self, texts: Sequence[str], count: int, over_ms: int, peer_stations: Collection[str]
    ) -> ProbeResult:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return ProbeResult(True, tuple(texts), (), "")


def run(story: Callable[[World], Awaitable[None]]) -> World:
    async def whole() -> World:
        world = World()
        await story(world)
        world.gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return world

    return asyncio.run(whole())


async def moment() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_acts_on_one_address_keep_their_order_and_others_do_not_wait() -> None:
    """A guarded add holds up the renewal behind it, and nothing of another address."""

    async def story(world: World) -> None:
        world.tasks.add(AddAddress(1, "s", VIP, True))
        world.tasks.renew(RenewAddress(2, VIP, 500, 7))
        world.tasks.add(AddAddress(3, "s", OTHER, False))
        await moment()
        assert world.acts == [f"add {OTHER}"]

    world = run(story)
    assert world.acts == [f"add {OTHER}", f"guard {VIP} True 1", f"add {VIP}", f"renew {VIP} 500 7"]
    ids = [event.request_id for event in world.outcomes if isinstance(event, AddressFinished)]
    assert ids == [3, 1, 2]


def test_a_removal_supersedes_an_addition_which_still_yields_its_outcome() -> None:
    """Cancelled while it asks the LAN or before it began: FAILED, once, and the address is never added."""

    async def story(world: World) -> None:
        world.tasks.add(AddAddress(1, "s", VIP, True))
        await moment()
        world.tasks.add(AddAddress(2, "s", VIP, True))
        world.tasks.remove(RemoveAddress(3, "s", VIP))

    world = run(story)
    assert f"add {VIP}" not in world.acts
    failed = AddressOutcome.FAILED
    assert sorted(world.outcomes, key=str) == [
        AddressFinished(1, failed, "superseded"),
        AddressFinished(2, failed, "superseded"),
        AddressFinished(3, AddressOutcome.DONE, ""),
    ]
    assert world.outcomes[-1] == AddressFinished(3, AddressOutcome.DONE, "")


def test_an_address_that_somebody_answers_for_is_not_added() -> None:
    """The guard's conflict is the outcome of the addition."""

    async def story(world: World) -> None:
        world.guard_says = (AddressOutcome.CONFLICT, "02:.. answers")
        world.tasks.add(AddAddress(1, "s", VIP, True))

    world = run(story)
    assert world.outcomes == [AddressFinished(1, AddressOutcome.CONFLICT, "02:.. answers")]
    assert f"add {VIP}" not in world.acts


def test_whatever_an_act_raises_becomes_its_one_outcome() -> None:
    """The world's failures and our own defects end as FAILED, and the next act goes on."""
    for error in (OSError(1, "no"), ValueError("a defect")):

        async def story(world: World, error: Exception = error) -> None:
            world.error = error
            world.tasks.renew(RenewAddress(1, VIP, 0))
            world.tasks.probe(ProbeAddresses(2, (VIP,), 5, 500))
            world.gate.set()
            await moment()
            world.error = None
            world.tasks.remove(RemoveAddress(3, "s", VIP))

        outcomes = run(story).outcomes
        assert [type(event) for event in outcomes] == [AddressFinished, ProbeFinished, AddressFinished]
        assert outcomes[0].outcome is AddressOutcome.FAILED  # type: ignore[union-attr]
        assert outcomes[1].listened is False  # type: ignore[union-attr]
        assert outcomes[2] == AddressFinished(3, AddressOutcome.DONE, "")


def test_a_cancelled_probe_yields_nothing_and_another_its_result() -> None:
    """The core hears of a probe once, and never of one that it cancelled."""

    async def story(world: World) -> None:
        world.tasks.probe(ProbeAddresses(1, (VIP,), 5, 500))
        world.tasks.probe(ProbeAddresses(2, (VIP, OTHER), 5, 500))
        await moment()
        world.tasks.cancel_probe(1)
        world.tasks.cancel_probe(77)

    assert run(story).outcomes == [ProbeFinished(2, True, (VIP, OTHER))]


def test_announcing_ends_with_the_removal_and_its_outcome_is_told_all_the_same() -> None:
    """An announcement cut short by a removal yields "not verified"; a later one is verified."""

    async def story(world: World) -> None:
        world.tasks.announce(AnnounceAddress(1, VIP))
        await moment()
        world.tasks.remove(RemoveAddress(2, "s", VIP))
        await moment()
        world.gate.set()
        world.tasks.announce(AnnounceAddress(3, VIP))

    world = run(story)
    assert AddressVerified(1, False, "superseded") in world.outcomes
    assert world.outcomes[-1] == AddressVerified(3, True, "seen")
    assert world.tasks.verified == {VIP: True}
