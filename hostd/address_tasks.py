"""Address effects as tasks: side by side between addresses, in order for each one.

Decides that a removal never waits for an addition that is still asking the
LAN, and that every effect but a cancelled probe yields its one outcome,
whatever happens to its task.  Refuses to know netlink, ARP and services.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Protocol

from hostd.address import Outcome
from hostd.announce import Verification
from hostd.core.effects import AddAddress, AnnounceAddress, ProbeAddresses, RemoveAddress, RenewAddress
from hostd.core.events import (
    AddressFinished,
    AddressOutcome,
    AddressVerified,
    AnyEvent,
    ProbeFinished,
)
from hostd.neighbours import ProbeResult

log = logging.getLogger("hostd.addresses")


class Addresses(Protocol):
    """What this needs of :class:`hostd.address.Addresses`."""

    async def add(self, text: str) -> Outcome: ...
    async def remove(self, text: str) -> Outcome: ...
    async def renew(self, text: str, not_after_ms: int, lease_ms: int = 0) -> Outcome: ...


class Neighbours(Protocol):
    """What this needs of :class:`hostd.neighbours.Neighbours`."""

    async def guard(self, text: str, *, is_first: bool, peer_stations: Collection[str]) -> Outcome: ...
    async def announce(self, text: str) -> Verification: ...
    def stop_announcing(self, text: str) -> None: ...
    async def probe(
        self, texts: Sequence[str], count: int, over_ms: int, peer_stations: Collection[str]
    ) -> ProbeResult: ...


class AddressTasks:
    """Carries out the address effects of one brain.

    ``put`` takes the outcomes.  ``is_first``: this node is the first in
    configured order.  ``peer_stations``: MAC addresses that the peer published.
    """

    def __init__(
        self,
        addresses: Addresses,
        neighbours: Neighbours,
        put: Callable[[AnyEvent], None],
        *,
        is_first: bool,
        peer_stations: Callable[[], Collection[str]],
    ) -> None:
        self._addresses, self._neighbours, self._put = addresses, neighbours, put
        self._is_first, self._peer_stations = is_first, peer_stations
        self._last: dict[str, asyncio.Task[Outcome]] = {}
        """Per address the newest task: the next one begins when it has ended."""
        self._adding: dict[str, set[asyncio.Task[Outcome]]] = {}
        self._announcing: dict[str, asyncio.Task[Verification]] = {}
        self._probing: dict[int, asyncio.Task[ProbeResult]] = {}
        self.verified: dict[str, bool] = {}
        """The newest word on each address that is being announced."""

    def add(self, effect: AddAddress) -> None:
        task = self._in_order(effect.request_id, effect.address, self._add(effect))
        adding = self._adding.setdefault(effect.address, set())
        adding.add(task)
        task.add_done_callback(adding.discard)

    async def _add(self, effect: AddAddress) -> Outcome:
        if effect.guard:
            outcome, detail = await self._neighbours.guard(
                effect.address, is_first=self._is_first, peer_stations=self._peer_stations()
            )
            if outcome is not AddressOutcome.DONE:
                return outcome, detail
        return await self._addresses.add(effect.address)

    def remove(self, effect: RemoveAddress) -> None:
        """Supersedes an addition under way, which yields FAILED, and ends the announcing."""
        for task in self._adding.pop(effect.address, set()):
            task.cancel()
        self._stop_announcing(effect.address)
        self._in_order(effect.request_id, effect.address, self._addresses.remove(effect.address))

    def renew(self, effect: RenewAddress) -> None:
        act = self._addresses.renew(effect.address, effect.not_after_ms, effect.lease_ms)
        self._in_order(effect.request_id, effect.address, act)

    def _in_order(self, request_id: int, address: str, act: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        before = self._last.get(address)

        async def run() -> Outcome:
            if before is not None:
                await asyncio.wait({before})
            return await act

        def ended(task: asyncio.Task[Outcome]) -> None:
            act.close()  # it may have been cancelled before it began
            if self._last.get(address) is task:
                del self._last[address]
            self._put(AddressFinished(request_id, *_outcome_of(task)))

        task = asyncio.get_running_loop().create_task(run())
        self._last[address] = task
        task.add_done_callback(ended)
        return task

    def announce(self, effect: AnnounceAddress) -> None:
        """The first word on the verification is the outcome; later ones come through ``note_verified``."""
        self._stop_announcing(effect.address)

        def ended(task: asyncio.Task[Verification]) -> None:
            if self._announcing.get(effect.address) is task:
                del self._announcing[effect.address]
            if task.cancelled() or task.exception() is not None:
                self._put(AddressVerified(effect.request_id, False, _failure_of(task)))
            else:
                verified, detail = task.result()
                self.verified[effect.address] = verified
                self._put(AddressVerified(effect.request_id, verified, detail))

        task = asyncio.get_running_loop().create_task(self._neighbours.announce(effect.address))
        self._announcing[effect.address] = task
        task.add_done_callback(ended)

    def note_verified(self, address: str, verified: bool, detail: str) -> None:
        """A later word on an announced address: for the status, since the core has its outcome."""
        log.log(logging.INFO if verified else logging.WARNING, "%s verified=%s %s", address, verified, detail)
        self.verified[address] = verified

    def _stop_announcing(self, address: str) -> None:
        task = self._announcing.pop(address, None)
        if task is not None:
            task.cancel()
        self._neighbours.stop_announcing(address)
        self.verified.pop(address, None)

    def probe(self, effect: ProbeAddresses) -> None:
        def ended(task: asyncio.Task[ProbeResult]) -> None:
            if self._probing.pop(effect.request_id, None) is None:
                return  # cancelled by the core, which wants no outcome
            if task.cancelled() or task.exception() is not None:
                self._put(ProbeFinished(effect.request_id, False, detail=_failure_of(task)))
            else:
                found = task.result()
                self._put(
                    ProbeFinished(effect.request_id, found.listened, found.answered, found.strangers, found.detail)
                )

        asked = self._neighbours.probe(effect.addresses, effect.count, effect.over_ms, self._peer_stations())
        task = asyncio.get_running_loop().create_task(asked)
        self._probing[effect.request_id] = task
        task.add_done_callback(ended)

    def cancel_probe(self, request_id: int) -> None:
        task = self._probing.pop(request_id, None)
        if task is not None:
            task.cancel()


def _outcome_of(task: asyncio.Task[Outcome]) -> Outcome:
    if task.cancelled() or task.exception() is not None:
        return AddressOutcome.FAILED, _failure_of(task)
    return task.result()


def _failure_of(task: asyncio.Task[Any]) -> str:
    """Why a task brought no result.  What is not the world's failure is our bug:
    it goes to the log with its traceback, and the core gets its outcome all the same."""
    if task.cancelled():
        return "superseded"
    error = task.exception()
    if error is None:
        return "ended early"
    if not isinstance(error, OSError):
        log.error("a defect of hostd", exc_info=error)
    return f"{type(error).__name__}: {error}"
