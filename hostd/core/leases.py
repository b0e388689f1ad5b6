"""How long may an address stay?  Decides when each address that this node
holds is renewed (PROTOCOL.md section 5.4, address leases).

From: which addresses are up, and the outcomes of renewals.  Refuses to know
services.  The kernel drops an address whose lease runs out, so an address
that nobody healthy renews is gone by itself.  A renewal re-creates a missing
address, so each carries the time after which it must not be carried out.
"""

from collections.abc import Sequence
from typing import Final

from hostd.core.effects import RenewAddress
from hostd.core.events import AddressFinished, AddressOutcome
from hostd.core.terms import Ids

RENEWALS: Final = 5
"""Renewed five times a lease: every second by default."""
ENDLESS_MS: Final = 24 * 86_400_000
"""The lease under maintenance: longer than anybody works on a machine."""


class Lease:
    """One address that is up here."""

    __slots__ = ("asked_at_ms", "renewed_at_ms", "request_id")

    def __init__(self, now_ms: int) -> None:
        self.renewed_at_ms = now_ms
        self.asked_at_ms = now_ms
        self.request_id: int | None = None


class Leases:
    """All addresses that are up on this node, each with its lease."""

    __slots__ = ("held", "lease_ms")

    def __init__(self, lease_ms: int) -> None:
        self.lease_ms = lease_ms
        self.held: dict[str, Lease] = {}

    def adopt(self, now_ms: int, addresses: tuple[str, ...]) -> None:
        """Found at the start, left by an earlier life: their leases may be
        nearly over, so they are renewed at once."""
        for address in addresses:
            self.held[address] = Lease(now_ms - self.lease_ms // RENEWALS)

    def hold(self, now_ms: int, addresses: list[str], ids: Ids, endless: Sequence[str] = ()) -> list[RenewAddress]:
        """Hold exactly these; the renewals that are due (``endless`` ones with a
        lease that outlives a stopped daemon)."""
        for gone in [address for address in self.held if address not in addresses]:
            del self.held[gone]
        effects: list[RenewAddress] = []
        for address in addresses:
            lease = self.held.setdefault(address, Lease(now_ms))
            due = now_ms - lease.renewed_at_ms >= self.lease_ms // RENEWALS
            if self.lease_ms and due and lease.request_id is None:
                lease.request_id = ids.next()
                lease.asked_at_ms = now_ms
                lease_ms = ENDLESS_MS if address in endless else 0
                not_after_ms = lease.renewed_at_ms + self.lease_ms // 2
                effects.append(RenewAddress(lease.request_id, address, not_after_ms, lease_ms))
        return effects

    def extend(self, away_ms: int, ids: Ids) -> list[RenewAddress]:
        """One long lease for every address: the daemon goes away for a moment."""
        if not self.lease_ms:
            return []
        effects = []
        for address, lease in self.held.items():
            lease.request_id = ids.next()
            not_after_ms = lease.renewed_at_ms + self.lease_ms // 2
            effects.append(RenewAddress(lease.request_id, address, not_after_ms, away_ms))
        return effects

    def finished(self, outcome: AddressFinished) -> str | None:
        """Take the outcome of a renewal; the address, if it was lost by it."""
        for address, lease in self.held.items():
            if lease.request_id == outcome.request_id:
                lease.request_id = None
                if outcome.outcome is AddressOutcome.DONE:
                    lease.renewed_at_ms = lease.asked_at_ms
                    return None
                del self.held[address]
                return address
        return None

    def deadline_at_ms(self) -> int | None:
        if not self.lease_ms:
            return None
        waiting = [lease.renewed_at_ms for lease in self.held.values() if lease.request_id is None]
        return min(waiting) + self.lease_ms // RENEWALS if waiting else None
