"""What the brain knows beside the core, for people only.

Decides what of the facts that pass by a later status needs.  Refuses to know
how it is shown: ``status`` and ``problems`` read it.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Self

from hostd.config import Configuration, SetAside
from hostd.core.effects import AddressDisputed, AnyFact, CarrierTurned, ClearanceTurned, PhaseChanged
from hostd.core.snapshot import Report
from hostd.core.terms import Carrier, Clearance, Incarnation, ServiceState
from hostd.drill_book import DrillBook
from hostd.messages import Drilled, HeartFigures, LinkState, WatchdogIs
from hostd.status_form import Recovery, RecoveryTotal


@dataclasses.dataclass
class Figures:
    """Gathered by the brain; every field is as new as the last message about it."""

    drills: DrillBook = dataclasses.field(default_factory=DrillBook)
    watchdog_device: str = ""
    """As conf.d names it; empty: it has none."""
    watchdog: WatchdogIs | None = None
    counters: Counter[str] = dataclasses.field(default_factory=Counter)
    heart: HeartFigures | None = None
    heart_lost: str = ""
    """Why there is no heart now; empty if there is one."""
    published_at_ms: int = 0
    peer_snapshot_at_ms: int = 0
    verified: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Newer than what was published, per address."""
    disputes: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    """Address → the other station that claimed it last, and when (ms)."""
    clearing_detail: str = ""
    """Why the newest attempt to clear the silent peer (by fencing or guard) came to nothing."""
    fences_peer: bool = True
    """conf.d names a fencing device that could power the peer off."""
    fencing_failure: str = ""
    """Why the newest shot came to nothing; empty if it hit, or if there was none."""
    is_shooting: bool = False
    unsaved: str = ""
    """Why the operator's wishes are not on the disk."""
    carriers: dict[str, Carrier] = dataclasses.field(default_factory=dict)
    """Per link, as the heart said last."""
    set_aside: tuple[SetAside, ...] = ()
    """Services of conf.d that this node does not run, and the core does not know."""

    left_behind: frozenset[str] = frozenset()
    """Those of them that an earlier daemon may have left running here."""

    recoveries: tuple[Recovery, ...] = ()
    recoveries_of: Callable[[int, str], tuple[Recovery, ...]] = lambda _limit, _service: ()
    """The newest of a service, or of all, from whoever keeps the ledger."""
    recovered: dict[str, dict[str, RecoveryTotal]] = dataclasses.field(default_factory=dict)
    metrics_failure: str = ""
    """Why the metrics were not written the last time."""
    notify_failures: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of a ``[[notify]]`` → why its newest delivery failed, or that events were dropped."""

    unstopped: dict[str, str] = dataclasses.field(default_factory=dict)
    """Services that conf.d no longer has and that could not be stopped here, and why."""

    @classmethod
    def of(cls, configuration: Configuration) -> Self:
        """As they begin: what conf.d says already."""
        peer = configuration.plan.peer_of(configuration.node)
        watchdog = configuration.watchdog
        return cls(
            drills=DrillBook(configuration.node, peer, configuration.fencing_devices),
            watchdog_device=str(watchdog.device) if watchdog is not None else "",
            fences_peer=any(peer in device.nodes for device in configuration.fencing_devices),
            set_aside=configuration.set_aside,
        )

    def hear(self, message: Drilled | WatchdogIs, life: Incarnation | None) -> None:
        """What the host found of devices.  ``life``: of the peer if it is heard now."""
        if isinstance(message, WatchdogIs):
            self.watchdog = message
        else:
            self.drills.take(message, life)

    @property
    def beat_at_ms(self) -> int:
        """When the heart last kept time with a brain that was well; 0: there is no heart that said so."""
        return self.heart.beat_at_ms if self.heart is not None else 0

    def aside_report(self, service: str) -> Report:
        """Of a service that is set aside here: it may run if an earlier daemon left it."""
        return Report(ServiceState.UNKNOWN if service in self.left_behind else ServiceState.FAILED)

    def carrier_turned(self, link: LinkState) -> CarrierTurned | None:
        """What to tell of a carrier that fell or came back; the core tells only of
        the medium as a whole."""
        before, self.carriers[link.link] = self.carriers.get(link.link), link.carrier
        if (before, link.carrier) in ((Carrier.UP, Carrier.DOWN), (Carrier.DOWN, Carrier.UP)):
            return CarrierTurned(link.link, link.carrier is Carrier.UP)
        return None

    def note(self, fact: AnyFact, now_ms: int) -> None:
        """Keep what a later status needs of a fact."""
        if isinstance(fact, AddressDisputed):
            self.disputes[fact.address] = (fact.station, now_ms)
        elif isinstance(fact, PhaseChanged):
            self.clearing_detail, self.is_shooting = "", False  # whatever was asked is called off
        elif isinstance(fact, ClearanceTurned) and fact.asked:
            self.is_shooting = True  # what was last found stands until this comes to something
        elif isinstance(fact, ClearanceTurned):
            self.clearing_detail = fact.detail if fact.clearance is Clearance.NONE else ""
            if self.is_shooting:  # else it is the guard that found something
                self.fencing_failure = self.clearing_detail
            self.is_shooting = False
