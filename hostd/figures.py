"""What the brain knows beside the core, for people only.

Decides what of the facts that pass by a later status needs.  Refuses to know
how it is shown: ``status`` and ``problems`` read it.
"""

import dataclasses
from collections import Counter

from hostd.config import SetAside
from hostd.core.effects import AddressDisputed, AnyFact, ClearanceTurned
from hostd.core.terms import Clearance
from hostd.messages import HeartFigures


@dataclasses.dataclass
class Figures:
    """Gathered by the brain; every field is as new as the last message about it."""

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
    unsaved: str = ""
    """Why the operator's wishes are not on the disk."""
    set_aside: tuple[SetAside, ...] = ()
    """Services of conf.d that this node does not run, and the core does not know."""

    def note(self, fact: AnyFact, now_ms: int) -> None:
        """Keep what a later status needs of a fact."""
        if isinstance(fact, AddressDisputed):
            self.disputes[fact.address] = (fact.station, now_ms)
        elif isinstance(fact, ClearanceTurned):
            is_failure = not fact.asked and fact.clearance is Clearance.NONE
            self.clearing_detail = fact.detail if is_failure else ""
