"""Everything that one node knows: the machines, and the few facts between them.

Decides nothing.  The rooms that act on it (``membership``, ``duties``,
``orders``, ``speech``, ``node``) are handed the whole of it.
"""

from typing import Final

from hostd.core.assignments import Assignments
from hostd.core.effects import ExitKind
from hostd.core.fencing import Clearing
from hostd.core.leases import Leases
from hostd.core.pair import Pair
from hostd.core.peers import Peers
from hostd.core.placement import Decision
from hostd.core.plan import Plan
from hostd.core.reach import Reach
from hostd.core.services import Ladder
from hostd.core.situation import report_of
from hostd.core.snapshot import Assignment, Report, Snapshot
from hostd.core.terms import NEVER_BORN, Clearance, Ids, Incarnation, Mode, ResourceState, ServiceState
from hostd.core.wants import Want
from hostd.core.wishes import Wishes

LAST_WORDS: Final = 5
"""LEFT and RESTARTING are repeated for this many keepalives before the daemon ends."""


class State:
    """One node's state; plain data, so that it can be copied and compared."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan = plan
        self.me = name
        self.peer = plan.peer_of(name)
        self.ids = Ids()
        self.incarnation: Incarnation = NEVER_BORN
        self.renewing = False
        self.release = ""
        self.watchdog_ms = 0
        self.stations: tuple[str, ...] = ()
        self.mode = Mode.ACTIVE
        self.away_ms = 0
        self.exit_at_ms: int | None = None
        self.exit_kind = ExitKind.LEFT
        self.ended = False  # Exit was said, once
        self.stepped_at_ms: int | None = None
        self.settled_until_ms: int | None = None
        self.heard_so_far: tuple[object, ...] = ()
        self.peers = Peers(plan, self.peer, 0)
        self.pair = Pair(plan, name)
        self.clearing = Clearing()
        self.clearance = Clearance.NONE
        self.confirmed_down = False
        self.fence_asked = False  # by the operator, and not yet tried
        self.address_fell_silent = False
        self.assignments = Assignments(plan)
        self.orders: dict[str, Assignment] = {}
        self.decisions: dict[str, Decision] = {}
        self.wishes = Wishes()
        self.wishes_dirty = False
        self.cleaned: dict[str, tuple[int, str]] = {}
        self.failback_since: dict[str, int] = {}
        self.probation_until_ms: dict[str, int] = {}
        self.reach = Reach()
        self.cut_off: tuple[str, ...] = ()
        self.cut_off_since: dict[str, int] = {}
        self.ladders: dict[str, Ladder] = {}
        self.wants: dict[str, Want] = {}
        self.yielding: dict[str, bool] = {}
        self.leases = Leases(plan.address_lease_ms)
        self.disputed_at_ms: dict[str, int] = {}
        self.differing: tuple[str, ...] = ()
        self.differing_told: tuple[str, ...] = ()
        self.snapshot: Snapshot | None = None
        self.said: Snapshot | None = None
        self.told: dict[tuple[str, str], ServiceState | ResourceState] = {}

    @property
    def peer_snapshot(self) -> Snapshot | None:
        """The newest word of the peer's newest life, however old."""
        return self.peers.last_word

    @property
    def fencing(self) -> bool:
        """Fencing is required here or at the peer: the stricter wins."""
        last = self.peers.last_word
        return self.plan.fencing or (last is not None and last.fencing)

    def reports(self) -> dict[str, Report]:
        """What this node says of each service on itself."""
        return {name: report_of(ladder) for name, ladder in self.ladders.items()}
