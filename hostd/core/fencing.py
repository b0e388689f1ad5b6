"""May we act for it?  Decides how clearance for a silent peer is sought, and
when it is obtained (PROTOCOL.md section 5).

From: whether clearance is wanted, how long the peer has been silent, and the
outcomes of fencing devices, probes and the operator's word.  Refuses to know
phases and services: it is told which addresses to ask for.

With fencing: devices, asked again after a failure; at a start the addresses
are asked first, since a peer that serves must not be shot because *we* are
cut off.  Without fencing: the guard, from ``warntime`` on, again and again.
With fencing of the storage (section 5.2): the guard, and while it is silent
the devices, which clear the data only; a peer whose addresses answer keeps
its disks.  Only the open request's outcome counts.
"""

from typing import Final

import msgspec

from hostd.core.effects import (
    AnyEffect,
    CancelFence,
    CancelProbe,
    ClearanceTurned,
    FencePeer,
    ProbeAddresses,
    Tell,
)
from hostd.core.events import FenceFinished, ProbeFinished
from hostd.core.terms import NEVER_BORN, Clearance, Ids, Incarnation

PROBES: Final = 5
PROBE_OVER_MS: Final = 500
"""PROTOCOL.md section 5.4: at least 5 probes over at least 500 ms."""
ASK_AGAIN_MS: Final = 250
"""After an answer: an address lease may run out at any moment."""
FRESH_MS: Final = 1_000
"""A silent guard proves nothing about an address that came up since."""
FENCE_AGAIN_MS: Final = 5_000
FENCE_AGAIN_MAX_MS: Final = 60_000


class Need(msgspec.Struct, frozen=True):
    """What is sought now."""

    seeking: bool
    """PEER_LOST or STARTUP_FENCING."""
    startup: bool
    early: bool
    """Not yet lost, but quiet enough for the guard to begin asking."""
    devices: bool
    """Fencing is required (here or at the peer: the stricter wins)."""
    peer: str
    incarnation: Incarnation
    addresses: tuple[str, ...]
    """What the guard has to find silent."""
    delay_ms: int
    said_goodbye: bool
    cut_off: bool = False
    """We have no way to our clients: if one of the two is to act, it is not this one."""
    storage: bool = False
    """Without ``devices``: the peer has to lose its disks, besides."""


class Clearing:
    """One search for clearance, from the first doubt to its end."""

    __slots__ = (
        "answered", "ask_at_ms", "attempts", "cleared", "cut", "detail", "failed", "fence_id", "fenced",
        "guard_silent_at_ms", "hoped", "obtained", "probe_id", "probed", "strangers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.obtained = Clearance.NONE
        self.cleared: Incarnation = NEVER_BORN  # the newest life that the clearance covers
        self.fenced: Incarnation = NEVER_BORN  # the newest life known when the open request was made
        self.cut: Incarnation | None = None  # the newest life known when the peer lost its disks
        self.fence_id: int | None = None
        self.hoped = Clearance.NONE  # what the open request would give
        self.probe_id: int | None = None
        self.probed: tuple[str, ...] = ()
        self.ask_at_ms = 0
        self.attempts = 0
        self.guard_silent_at_ms: int | None = None
        self.answered: tuple[str, ...] = ()
        self.strangers: tuple[str, ...] = ()
        self.detail = ""
        self.failed = False

    def seek(self, now_ms: int, need: Need, ids: Ids) -> list[AnyEffect]:
        """Ask for what is missing; at most one new request."""
        if not need.seeking and not need.early:
            return self.reset()
        if self.obtained is not Clearance.NONE:
            return []
        if need.seeking and need.said_goodbye:
            return self._obtain(Clearance.LEFT, "", need.incarnation)
        if need.cut_off:
            return self.reset()
        if need.devices:
            return self._seek_fence(now_ms, need, ids) if need.seeking else []
        if not need.seeking or not self._guard_holds(now_ms, need):
            return self._seek_guard(now_ms, need, ids)
        if not need.storage:
            return self._obtain(Clearance.GUARD, self.detail, need.incarnation)
        if self.cut is not None and need.incarnation <= self.cut:
            return self._obtain(Clearance.DATA, self.detail, self.cut)
        return self._seek_cut(now_ms, need, ids)

    def reset(self) -> list[AnyEffect]:
        """The peer is heard, or was cleared: whatever is open is called off."""
        effects: list[AnyEffect] = []
        if self.fence_id is not None:
            effects.append(CancelFence(self.fence_id))
        if self.probe_id is not None:
            effects.append(CancelProbe(self.probe_id))
        self.__init__()  # type: ignore[misc]
        return effects

    def fence_finished(self, now_ms: int, outcome: FenceFinished) -> list[AnyEffect]:
        if outcome.request_id != self.fence_id:
            return []
        self.fence_id = None
        if outcome.confirmed and self.hoped is Clearance.DATA:
            self.cut, self.detail = self.fenced, outcome.detail
            return []  # the guard may have grown old meanwhile
        if outcome.confirmed:
            return self._obtain(Clearance.FENCED, outcome.detail, self.fenced)
        self.failed = True
        self.detail = outcome.detail
        self.ask_at_ms = now_ms + min(FENCE_AGAIN_MS * self.attempts, FENCE_AGAIN_MAX_MS)
        return [Tell(ClearanceTurned(False, Clearance.NONE, outcome.detail))]

    def probe_finished(self, now_ms: int, outcome: ProbeFinished) -> list[AnyEffect]:
        if outcome.request_id != self.probe_id:
            return []
        self.probe_id = None
        before = (self.answered, self.detail)
        self.answered, self.strangers, self.detail = outcome.answered, outcome.strangers, outcome.detail
        silent = outcome.listened and not outcome.answered
        self.guard_silent_at_ms = now_ms if silent else None
        self.ask_at_ms = now_ms if silent else now_ms + ASK_AGAIN_MS
        if silent or before == (self.answered, self.detail):
            return []
        return [Tell(ClearanceTurned(False, Clearance.NONE, self.detail))]

    def deadline_at_ms(self, now_ms: int) -> int | None:
        """When to ask again, if nothing is open."""
        if self.obtained is Clearance.NONE and self.fence_id is None and self.probe_id is None:
            return self.ask_at_ms if self.ask_at_ms > now_ms else None
        return None

    # -- inside ------------------------------------------------------------------

    def _guard_holds(self, now_ms: int, need: Need) -> bool:
        """The newest probe was silent, is fresh, and asked for all that counts now."""
        return not need.addresses or (
            self.guard_silent_at_ms is not None
            and now_ms - self.guard_silent_at_ms < FRESH_MS
            and set(need.addresses) <= set(self.probed)
        )

    def _seek_guard(self, now_ms: int, need: Need, ids: Ids) -> list[AnyEffect]:
        """Ask, and go on asking after a silent answer: it has to be fresh at deadtime."""
        if self.probe_id is not None or now_ms < self.ask_at_ms or not need.addresses:
            return []
        self.probe_id = ids.next()
        self.probed = need.addresses
        return [ProbeAddresses(self.probe_id, need.addresses, PROBES, PROBE_OVER_MS)]

    def _seek_fence(self, now_ms: int, need: Need, ids: Ids) -> list[AnyEffect]:
        if self.fence_id is not None or self.probe_id is not None or now_ms < self.ask_at_ms:
            return []
        if need.startup and need.addresses:
            # No fencing ping-pong: while the peer serves, it is we who are cut off.
            silent = self.guard_silent_at_ms is not None and now_ms - self.guard_silent_at_ms < FRESH_MS
            if not silent:
                return self._seek_guard(now_ms, need, ids)
        delay_ms = 0 if self.attempts else need.delay_ms
        return self._ask_devices(need, ids, delay_ms=delay_ms, hoped=Clearance.FENCED)

    def _seek_cut(self, now_ms: int, need: Need, ids: Ids) -> list[AnyEffect]:
        """Who loses his disks is decided by them: of two nodes that ask at once, one is refused."""
        if self.fence_id is not None or now_ms < self.ask_at_ms:
            return []
        return self._ask_devices(need, ids, delay_ms=0, hoped=Clearance.DATA)

    def _ask_devices(self, need: Need, ids: Ids, *, delay_ms: int, hoped: Clearance) -> list[AnyEffect]:
        self.fence_id = ids.next()
        self.fenced = need.incarnation
        self.hoped = hoped
        self.attempts += 1
        return [FencePeer(self.fence_id, need.peer, need.incarnation, delay_ms), Tell(ClearanceTurned(True, hoped))]

    def _obtain(self, clearance: Clearance, detail: str, cleared: Incarnation) -> list[AnyEffect]:
        effects = self.reset()
        self.obtained, self.cleared = clearance, cleared
        return [*effects, Tell(ClearanceTurned(False, clearance, detail))]
