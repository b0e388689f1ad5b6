"""Who is a member?  Decides this node's phase and view from what it hears.

From: the peer's present word (or its silence), the clearance obtained, and
whether this node may form a view at all.  Refuses to know services, links
and how clearance is sought.

The table of PROTOCOL.md section 2; each row is one method, each cell one arm,
and what is not listed is a wait:

==================  =========  ============  =========  ==========  ======  ================
me, hears peer      JOINING /  MEMBER of     PEER_LOST  ALONE       LEFT    silent
                    STARTUP_F  my view
==================  =========  ============  =========  ==========  ======  ================
JOINING             invite /   -             wait       yield,      ALONE   initdead:
                    accept                              accept              STARTUP_FENCING
STARTUP_FENCING     JOINING    JOINING       JOINING    JOINING     ALONE   clearance: ALONE
MEMBER unconfirmed  invited:   CONFIRMED     JOINING    invited:    ALONE   deadtime:
                    wait, else or JOINING               wait, else          JOINING
                    JOINING                             JOINING
MEMBER confirmed    ALONE      stay          stay       yield       ALONE   deadtime:
                                                                            PEER_LOST
PEER_LOST           ALONE      CONFIRMED     CONFIRMED  yield       ALONE   clearance: ALONE
ALONE               invite     CONFIRMED if  wait       second in   -       see below
                               it accepted              order
                                                        yields
==================  =========  ============  =========  ==========  ======  ================

ALONE, and a new life of the peer falls silent again: PEER_LOST unless its
last word was that all is stopped.

View numbers: a node makes only numbers that leave its place in the sorted
node names when divided by two, so that no two coordinators ever use one
number, whatever each of them has heard.
"""

import msgspec

from hostd.core.plan import Plan
from hostd.core.snapshot import Invitation, Snapshot
from hostd.core.terms import NEVER_BORN, Clearance, Incarnation, Phase, Why


class Sight(msgspec.Struct, frozen=True):
    """What the pair decides from."""

    incarnation: Incarnation
    """Our own."""
    word: Snapshot | None
    """What the peer says now; None while it is silent or its word is not whole."""
    last_word: Snapshot | None
    peer_incarnation: Incarnation
    silence_ms: int
    silence_limit_ms: int
    clearance: Clearance
    cleared: Incarnation
    """The newest life of the peer that the clearance covers."""
    may_form: bool
    """Nothing is UNKNOWN here, we are not leaving, and both configurations name the same nodes."""
    peer_blocked: bool = False
    """With fencing: the peer failed to stop something and must be made to, and we could go on."""


class Turn(msgspec.Struct, frozen=True):
    """A decision: the phase to be in, and why.  ``yields``: another node acts
    for both, so drop what it runs and become a new incarnation."""

    phase: Phase
    why: Why
    confirmed: bool = False
    view: int = 0
    coordinator: str = ""
    yields: bool = False


CLEARED = {
    Clearance.FENCED: Why.PEER_FENCED,
    Clearance.CONFIRMED: Why.PEER_CONFIRMED_DOWN,
    Clearance.GUARD: Why.PEER_GUARDED,
    Clearance.LEFT: Why.PEER_LEFT,
    Clearance.DATA: Why.PEER_DISKS_CUT,
}

NEWCOMER = (Phase.JOINING, Phase.STARTUP_FENCING)


def has_nothing(last: Snapshot | None) -> bool:
    """The peer's last word was that nothing of any service is left there."""
    return last is not None and all(report.state.is_stopped for report in last.services.values())


class Pair:
    """The phase, view and invitation of one node."""

    __slots__ = (
        "confirmed",
        "coordinator",
        "invitation",
        "me",
        "must_fence",
        "partner",
        "phase",
        "plan",
        "settled",
        "view",
        "view_max",
        "view_seen",
    )  # fmt: skip

    def __init__(self, plan: Plan, me: str) -> None:
        self.plan = plan
        self.me = me
        self.phase = Phase.JOINING
        self.confirmed = False
        self.view = 0
        self.view_max = 0  # the highest that this incarnation has held or accepted
        self.view_seen = 0  # the highest ever seen anywhere
        self.coordinator = ""
        self.partner: Incarnation = NEVER_BORN  # the peer's life that this view was formed with
        self.settled: Incarnation = NEVER_BORN  # no life of the peer up to this one counts any more
        self.invitation: Invitation | None = None
        self.must_fence = False  # PEER_LOST on purpose: no resume while it is blocked

    @property
    def is_coordinator(self) -> bool:
        """We assign services: confirmed as coordinator of a view, or ALONE."""
        return self.phase is Phase.ALONE or (self.is_confirmed and self.coordinator == self.me)

    @property
    def is_confirmed(self) -> bool:
        return self.phase is Phase.MEMBER and self.confirmed

    @property
    def seeks_clearance(self) -> bool:
        return self.phase in (Phase.PEER_LOST, Phase.STARTUP_FENCING)

    def begin_life(self) -> None:
        """A new incarnation: nothing held, nothing accepted."""
        self._enter(Turn(Phase.JOINING, Why.STARTED))
        self.view_max = 0
        self.invitation = None

    def decide(self, sight: Sight) -> Turn | None:
        """The next turn, or None to stay.  Also keeps the invitation up to date."""
        if sight.word is not None:
            seen = sight.word.invitation.view if sight.word.invitation else 0
            self.view_seen = max(self.view_seen, sight.word.view, sight.word.view_max, seen)
        rows = {
            Phase.JOINING: self._joining,
            Phase.STARTUP_FENCING: self._startup_fencing,
            Phase.MEMBER: self._confirmed if self.confirmed else self._unconfirmed,
            Phase.PEER_LOST: self._peer_lost,
            Phase.ALONE: self._alone,
        }
        row = rows.get(self.phase)
        turn = row(sight) if row else None  # LEFT is final
        if turn is not None:
            self._enter(turn)
            self.partner = sight.peer_incarnation
            if turn.phase is Phase.ALONE and turn.why is not Why.PEER_RESTARTED:
                self.settled = max(self.settled, sight.cleared)
        self._invite(sight)
        return turn

    def leave(self) -> Turn:
        """Everything is given away or stopped: the last phase of this life."""
        turn = Turn(Phase.LEFT, Why.NODE_LEAVING)
        self._enter(turn)
        return turn

    def fall_back(self, why: Why) -> Turn:
        """To JOINING for a reason that is not the peer's word (our own pause)."""
        turn = Turn(Phase.JOINING, why, yields=True)
        self._enter(turn)
        return turn

    # -- the rows -------------------------------------------------------------

    def _joining(self, sight: Sight) -> Turn | None:
        word = sight.word
        if word is None:
            if sight.clearance is Clearance.CONFIRMED:
                return self._cleared(sight)
            if sight.silence_ms >= self.plan.timers.initdead_ms:
                return Turn(Phase.STARTUP_FENCING, Why.PEER_SILENT_SINCE_START)
            return None
        if word.phase is Phase.LEFT:
            return self._go_alone(Why.PEER_LEFT)
        accepted = self._acceptance(sight, word)
        if accepted is not None:
            return accepted
        first = self.plan.is_first(self.me)
        if word.phase is Phase.ALONE or (word.phase in NEWCOMER and not first):
            offer = word.invitation
            if sight.may_form and offer is not None and offer.to == sight.incarnation and offer.view > self.view_max:
                return Turn(Phase.MEMBER, Why.PEER_INVITED, view=offer.view, coordinator=word.node)
        return None

    def _startup_fencing(self, sight: Sight) -> Turn | None:
        if sight.word is not None:
            if sight.word.phase is Phase.LEFT:
                return self._go_alone(Why.PEER_LEFT)
            return Turn(Phase.JOINING, Why.PEER_HEARD)
        return self._cleared(sight)

    def _unconfirmed(self, sight: Sight) -> Turn | None:
        word = sight.word
        if word is None:
            if sight.silence_ms >= sight.silence_limit_ms:
                return Turn(Phase.JOINING, Why.PEER_SILENT)
            return None
        match word.phase:
            case Phase.LEFT:
                return self._go_alone(Why.PEER_LEFT)
            case Phase.MEMBER if self._shares_view(word):
                return self._confirm(Why.PEER_CONFIRMED)
            case Phase.JOINING | Phase.STARTUP_FENCING | Phase.ALONE if word.invitation == Invitation(
                self.view, sight.incarnation
            ):
                return None
            case _:
                return Turn(Phase.JOINING, Why.INVITATION_LAPSED)

    def _confirmed(self, sight: Sight) -> Turn | None:
        word = sight.word
        if word is None:
            if sight.silence_ms >= sight.silence_limit_ms:
                return self._lose(Why.PEER_SILENT)
            return None
        match word.phase:
            case Phase.JOINING | Phase.STARTUP_FENCING:
                return self._go_alone(Why.PEER_RESTARTED)
            case Phase.LEFT:
                return self._go_alone(Why.PEER_LEFT)
            case Phase.ALONE:
                return Turn(Phase.JOINING, Why.PEER_ALONE, yields=True)
            case _:
                if sight.peer_blocked:
                    self.must_fence = True
                    return self._lose(Why.PEER_BLOCKED)
                return None

    def _peer_lost(self, sight: Sight) -> Turn | None:
        cleared = self._cleared(sight)
        if cleared is not None:
            return cleared
        word = sight.word
        if word is None:
            return None
        match word.phase:
            case Phase.JOINING | Phase.STARTUP_FENCING:
                return self._go_alone(Why.PEER_RESTARTED)
            case Phase.LEFT:
                return self._go_alone(Why.PEER_LEFT)
            case Phase.ALONE:
                return Turn(Phase.JOINING, Why.PEER_ALONE, yields=True)
            case Phase.MEMBER | Phase.PEER_LOST if self._shares_view(word) and not (
                self.must_fence and sight.peer_blocked
            ):
                return self._confirm(Why.PEER_HEARD)
            case _:
                return None

    def _alone(self, sight: Sight) -> Turn | None:
        word = sight.word
        if word is None:
            new_life = sight.peer_incarnation > self.settled
            if new_life and sight.silence_ms >= sight.silence_limit_ms and not self._said_goodbye(sight.last_word):
                return self._lose(Why.PEER_SILENT)
            return None
        accepted = self._acceptance(sight, word)
        if accepted is not None:
            return accepted
        if word.phase is Phase.ALONE and not self.plan.is_first(self.me):
            return Turn(Phase.JOINING, Why.PEER_ALONE, yields=True)
        return None

    # -- what several rows share ------------------------------------------------

    def _said_goodbye(self, last: Snapshot | None) -> bool:
        return has_nothing(last) and last is not None and last.phase in (*NEWCOMER, Phase.LEFT)

    def _shares_view(self, word: Snapshot) -> bool:
        """The same view, and still the life that it was formed with."""
        return word.view == self.view and word.incarnation == self.partner

    def _acceptance(self, sight: Sight, word: Snapshot) -> Turn | None:
        """The peer has accepted the invitation that still stands."""
        offer = self.invitation
        if (
            offer is not None
            and offer.view > self.view_max  # going ALONE since has made it void
            and sight.may_form
            and word.phase is Phase.MEMBER
            and (word.view, word.incarnation, word.coordinator) == (offer.view, offer.to, self.me)
        ):
            return Turn(Phase.MEMBER, Why.PEER_INVITED, confirmed=True, view=offer.view, coordinator=self.me)
        return None

    def _cleared(self, sight: Sight) -> Turn | None:
        why = CLEARED.get(sight.clearance)
        return self._go_alone(why) if why is not None else None

    def _go_alone(self, why: Why) -> Turn:
        """Going ALONE takes a new, higher view: older invitations are void."""
        return Turn(Phase.ALONE, why, view=self._next_view(), coordinator=self.me)

    def _lose(self, why: Why) -> Turn:
        return Turn(Phase.PEER_LOST, why, view=self.view, coordinator=self.coordinator)

    def _confirm(self, why: Why) -> Turn:
        return Turn(Phase.MEMBER, why, confirmed=True, view=self.view, coordinator=self.coordinator)

    def _next_view(self) -> int:
        parity = sorted(self.plan.nodes).index(self.me)
        view = max(self.view_seen, self.view_max) + 1
        return view if view % 2 == parity else view + 1

    def _invite(self, sight: Sight) -> None:
        """Offer a view to a newcomer; withdraw the offer when it makes no sense."""
        word = sight.word
        may = self.phase is Phase.ALONE or (self.phase is Phase.JOINING and self.plan.is_first(self.me))
        if not may:
            self.invitation = None
            return
        if word is None:
            return
        if word.phase in NEWCOMER and sight.may_form:
            stands = (
                self.invitation is not None
                and self.invitation.to == word.incarnation
                and self.invitation.view > max(word.view, self.view_max)
            )
            if not stands:
                self.invitation = Invitation(self._next_view(), word.incarnation)
                self.view_seen = max(self.view_seen, self.invitation.view)
        elif self.invitation is not None and (word.incarnation != self.invitation.to or not sight.may_form):
            self.invitation = None

    def _enter(self, turn: Turn) -> None:
        if turn.phase is Phase.MEMBER or turn.phase is Phase.ALONE:
            assert turn.view > 0 and turn.coordinator, turn
        self.phase = turn.phase
        self.confirmed = turn.confirmed
        if turn.view:
            self.view = turn.view
            self.view_max = max(self.view_max, turn.view)
            self.view_seen = max(self.view_seen, turn.view)
        self.coordinator = turn.coordinator
        if turn.phase is not Phase.PEER_LOST:
            self.must_fence = False
