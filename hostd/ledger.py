"""The recovery ledger: each service that was brought back, phase by phase, in ms.

Decides from the facts of one node's timeline what a recovery is, when it began
and how its time divides; and what each phase should have taken: by the limits
of conf.d, or once there are enough, by twice the median of earlier ones.
Refuses to know what was right: it adds up times.

    takeover   silence ─detect─→ PEER_LOST ─clear─→ ALONE ─decide─→ starts ─start, address─→ runs ─verify─→ seen
    failover   failed there ─stop─→ stopped there ─decide─→ starts ─start, address─→ runs ─verify─→ seen
    move       the same, on request
    restart    failed here ─decide, stop, start, address─→ runs ─verify─→ seen

NB: of a failure, the time until a monitor noticed it is in no fact, so a
restart and a failover begin when it was noticed.
"""

import ipaddress
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from hostd.core.effects import AddressChecked, PhaseChanged, ResourceTurned, ServiceTurned
from hostd.core.plan import Plan
from hostd.core.terms import Phase, ResourceState, ServiceState
from hostd.requests import Entry
from hostd.status_form import PhaseOfRecovery, Recovery, RecoveryTotal

RECOVERIES_MAX: Final = 500
HISTORY_MIN: Final = 3
"""So many earlier recoveries of a kind tell more than a time limit does."""
HISTORY_MAX: Final = 20
BUDGET_MIN_MS: Final = 100
"""What is over in a moment has no meaningful median."""
VERIFY_MAX_S: Final = 300.0
"""A neighbour seen later than this tells nothing of the recovery."""
ORDER: Final = ("detect", "clear", "decide", "stop", "start", "address", "verify")

Kind = Literal["takeover", "failover", "restart", "move"]


class _Open:
    """A recovery under way."""

    def __init__(self, kind: Kind, why: str, began_at: float) -> None:
        self.kind, self.why, self.began_at = kind, why, began_at
        self.spent: dict[str, float] = {}

    def add(self, phase: str, seconds: float) -> None:
        if seconds > 0:
            self.spent[phase] = self.spent.get(phase, 0.0) + seconds


class _Service:
    """What the timeline told of one service so far."""

    def __init__(self) -> None:
        self.open: _Open | None = None
        self.activity = "decide"
        self.since = 0.0
        """When the activity began; wall clock, as all times here."""
        self.peer = ServiceState.STOPPED
        self.peer_failed = False
        self.peer_left_at = 0.0
        """When the peer's instance last ceased to run."""
        self.peer_stopped_at = 0.0
        self.unverified: dict[str, float] = {}
        """Addresses of the newest recovery that no neighbour was seen to use, and since when."""


class Ledger:
    """Fed with a node's timeline, oldest first; may go on while it grows.

    ``node``: whose recoveries; ``plan`` None: budgets by history alone.
    """

    def __init__(self, node: str, plan: Plan | None) -> None:
        self._node, self._plan = node, plan
        self._services: dict[str, _Service] = {}
        self._lost_at: float | None = None
        self._silent_since = 0.0
        self._cleared_at: float | None = None
        self._recoveries: deque[Recovery] = deque(maxlen=RECOVERIES_MAX)
        self.totals: dict[str, dict[str, RecoveryTotal]] = {}

    def take(self, entry: Entry) -> bool:
        """One more entry; True if it ended a recovery or verified one."""
        fact = entry.fact
        if entry.node != self._node:
            if isinstance(fact, ServiceTurned):
                self._peer_turned(entry.at, fact)
            return False
        match fact:
            case PhaseChanged():
                self._phase(entry, fact)
            case ResourceTurned():
                self._resource(entry.at, fact)
            case ServiceTurned():
                return self._service(entry.at, fact)
            case AddressChecked() if fact.verified:
                return self._verified(entry.at, fact.address)
            case _:
                pass
        return False

    def take_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.take(entry)

    def forget_totals(self) -> None:
        """What was before counts as history, and not as done by this brain."""
        self.totals = {}

    def newest(self, limit: int, service: str = "") -> tuple[Recovery, ...]:
        """The newest recoveries, oldest first."""
        chosen = [r for r in self._recoveries if service in ("", r.service)]
        return tuple(chosen[-limit:]) if limit > 0 else ()

    # -- facts ---------------------------------------------------------------------

    def _of(self, service: str) -> _Service:
        return self._services.setdefault(service, _Service())

    def _phase(self, entry: Entry, fact: PhaseChanged) -> None:
        if fact.phase is Phase.PEER_LOST:
            self._lost_at, self._cleared_at = entry.at, None
            self._silent_since = entry.at - (entry.silent_ms or 0) / 1_000
        elif fact.phase is Phase.ALONE:
            self._cleared_at = entry.at
        else:
            self._lost_at = self._cleared_at = None

    def _peer_turned(self, at: float, fact: ServiceTurned) -> None:
        service = self._of(fact.service)
        if service.peer is ServiceState.RUNNING and fact.state is not ServiceState.RUNNING:
            service.peer_left_at, service.peer_failed = at, False
        if fact.state in (ServiceState.FAILED, ServiceState.RECOVERING):
            service.peer_failed = True
        if fact.state.is_stopped:
            service.peer_stopped_at = at
        service.peer = fact.state

    def _resource(self, at: float, fact: ResourceTurned) -> None:
        service = self._of(fact.service)
        self._spend(service, at)
        if fact.state is ResourceState.STARTING:
            service.activity = "address" if is_address(fact.resource) else "start"
        elif fact.state is ResourceState.STOPPING:
            service.activity = "stop"
        elif fact.state is ResourceState.STOPPED:
            service.activity = "decide"
        if fact.state is ResourceState.RUNNING and is_address(fact.resource):
            service.unverified.setdefault(fact.resource, at)

    def _service(self, at: float, fact: ServiceTurned) -> bool:
        service = self._of(fact.service)
        self._spend(service, at)
        match fact.state:
            case ServiceState.RECOVERING:
                service.open = service.open or _Open("restart", fact.why.name.lower(), at)
                service.unverified.clear()
            case ServiceState.STARTING:
                service.open = service.open or self._begun(service, at, fact)
                service.unverified.clear()
            case ServiceState.RUNNING:
                return self._ran(at, fact.service, service)
            case ServiceState.FAILED | ServiceState.BLOCKED | ServiceState.UNKNOWN:
                service.open = None
            case ServiceState.STOPPED | ServiceState.STOPPING:
                if service.open is not None and service.open.kind != "restart":
                    service.open = None
        return False

    def _spend(self, service: _Service, at: float) -> None:
        """The time since the last fact of the service belongs to what it was doing."""
        if service.open is not None:
            service.open.add(service.activity, at - max(service.since, service.open.began_at))
        service.since = at

    def _begun(self, service: _Service, at: float, fact: ServiceTurned) -> _Open | None:
        """A start that brings the service here from the other node; None for one that does not."""
        if self._lost_at is not None and self._cleared_at is not None and not service.peer.is_stopped:
            service.peer = ServiceState.STOPPED  # taken over: a later start is another matter
            opened = _Open("takeover", fact.why.name.lower(), self._silent_since)
            opened.add("detect", self._lost_at - self._silent_since)
            opened.add("clear", self._cleared_at - self._lost_at)
            opened.add("decide", at - self._cleared_at)
            return opened
        if service.peer.is_stopped and service.peer_left_at:
            kind: Kind = "failover" if service.peer_failed else "move"
            opened = _Open(kind, fact.why.name.lower(), service.peer_left_at)
            opened.add("stop", service.peer_stopped_at - service.peer_left_at)
            opened.add("decide", at - service.peer_stopped_at)
            service.peer_left_at = 0.0
            return opened
        return None

    def _ran(self, at: float, name: str, service: _Service) -> bool:
        opened, service.open = service.open, None
        if opened is None:
            return False
        spent = {phase: round(seconds * 1_000) for phase, seconds in opened.spent.items()}
        budgets = self._budgets(name, opened.kind)
        phases = tuple(PhaseOfRecovery(p, spent[p], *budgets.get(p, (None, ""))) for p in ORDER if p in spent)
        known = [phase.budget_ms for phase in phases if phase.budget_ms is not None]
        took_ms = max(0, round((at - opened.began_at) * 1_000))
        whole = sum(known) if known and len(known) == len(phases) else None
        self._recoveries.append(
            Recovery(name, self._node, opened.kind, opened.why, opened.began_at, at, took_ms, phases, whole)
        )
        total = self.totals.setdefault(name, {}).get(opened.kind, RecoveryTotal())
        self.totals[name][opened.kind] = RecoveryTotal(total.count + 1, total.total_ms + took_ms)
        return True

    def _verified(self, at: float, address: str) -> bool:
        """The last address of the newest recovery to be seen in use ends its ``verify``."""
        for name, service in self._services.items():
            if service.unverified.pop(address, None) is None or service.unverified:
                continue
            if service.open is not None:  # seen before the rest of it ran
                service.open.spent["verify"] = 0.0
                return False
            index = next((i for i in reversed(range(len(self._recoveries))) if self._recoveries[i].service == name), -1)
            if index < 0 or not 0 <= at - self._recoveries[index].ended_at < VERIFY_MAX_S:
                return False
            done = self._recoveries[index]
            if any(phase.name == "verify" for phase in done.phases):
                return False
            budget = self._budgets(name, done.kind).get("verify", (None, ""))
            phase = PhaseOfRecovery("verify", round((at - done.ended_at) * 1_000), *budget)
            self._recoveries[index] = msgspec.structs.replace(done, phases=(*done.phases, phase))
            return True
        return False

    # -- budgets ---------------------------------------------------------------------

    def _budgets(self, name: str, kind: Kind) -> dict[str, tuple[int, Literal["configuration", "history"]]]:
        """What each phase should take at most, as far as anything tells."""
        found: dict[str, tuple[int, Literal["configuration", "history"]]] = {}
        for phase, limit_ms in self._limits(name).items():
            found[phase] = (limit_ms, "configuration")
        earlier = [r for r in self._recoveries if (r.service, r.kind) == (name, kind)][-HISTORY_MAX:]
        for phase in ORDER:
            took = [p.took_ms for recovery in earlier for p in recovery.phases if p.name == phase]
            if len(took) >= HISTORY_MIN:
                usual_ms = max(BUDGET_MIN_MS, round(2 * statistics.median(took)))
                limit = found.get(phase, (usual_ms, ""))[0]
                found[phase] = (min(usual_ms, limit), "history")
        return found

    def _limits(self, name: str) -> dict[str, int]:
        """The time limits of conf.d.  Fencing devices and the guard have none that the plan would know."""
        if self._plan is None:
            return {}
        timers = self._plan.timers
        limits = {"detect": timers.deadtime_ms + 2 * timers.keepalive_ms, "decide": 2 * timers.keepalive_ms}
        for service in self._plan.services:
            if service.name == name:
                agents = [resource for resource in service.resources if not resource.address]
                limits["start"] = sum(resource.start_timeout_ms for resource in agents)
                limits["stop"] = sum(resource.stop_timeout_ms for resource in agents)
        return limits


def is_address(resource: str) -> bool:
    """Is it an address by its id (``172.23.2.13/24@eth0``), and no agent's resource?"""
    try:
        ipaddress.ip_address(resource.partition("@")[0].partition("/")[0])
    except ValueError:
        return False
    return True
