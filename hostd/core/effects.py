"""Everything a node can ask for.  Imperative; the core's only output.

Decides nothing.  Every effect that acts is answered by exactly one outcome
event, success, failure or deadline passed:

=====================  ========================================
RunAction              ActionFinished
AddAddress             AddressFinished
RemoveAddress          AddressFinished
RenewAddress           AddressFinished
AnnounceAddress        AddressVerified
ProbeAddresses         ProbeFinished (unless cancelled)
FencePeer              FenceFinished (unless cancelled)
SaveWishes             WishesSaved
RenewIncarnation       IncarnationRenewed
=====================  ========================================

The rest (Publish, Cancel..., AnswerOperator, Tell, Exit) cannot fail in a way
that the core could act upon.
"""

import enum

import msgspec

from hostd.core.snapshot import Snapshot, Wish
from hostd.core.terms import (
    Action,
    Clearance,
    Incarnation,
    Phase,
    ResourceState,
    ServiceState,
    Why,
)


class Effect(msgspec.Struct, frozen=True, tag=True):
    """The root of the closed union :data:`AnyEffect`."""


# -- being heard ---------------------------------------------------------------


class Publish(Effect, frozen=True):
    """Carry this snapshot to the peer instead of the one before."""

    snapshot: Snapshot


class RenewIncarnation(Effect, frozen=True):
    """Draw a higher incarnation, put it on the disk, say so."""


# -- services -------------------------------------------------------------------


class RunAction(Effect, frozen=True):
    """One agent action in a child of the host, under a time limit."""

    action_id: int
    service: str
    resource: str
    action: Action
    timeout_ms: int
    depth: int = 0
    recurring: bool = False


class AddAddress(Effect, frozen=True):
    """Put the address on this node, with the plan's lease.

    ``guard``: ask for it first (ARP or neighbour discovery) and do not add
    it if anybody answers: there is no proof that its former owner is off.
    """

    request_id: int
    service: str
    address: str
    guard: bool


class RemoveAddress(Effect, frozen=True):
    """Take the address off this node; done also if it was not there."""

    request_id: int
    service: str
    address: str


class RenewAddress(Effect, frozen=True):
    """Renew the lease of an address that is here.  A renewal that would be
    carried out after ``not_after_ms`` removes the address instead."""

    request_id: int
    address: str
    not_after_ms: int
    lease_ms: int = 0
    """0: the plan's lease; a longer one before the daemon detaches."""


class AnnounceAddress(Effect, frozen=True):
    """Turn the neighbours' caches to us, again and again for a while, and
    find out whether one of them really did."""

    request_id: int
    address: str


# -- the silent peer --------------------------------------------------------------


class ProbeAddresses(Effect, frozen=True):
    """Ask for the addresses ``count`` times within ``over_ms``: does anybody answer?"""

    request_id: int
    addresses: tuple[str, ...]
    count: int
    over_ms: int


class CancelProbe(Effect, frozen=True):
    request_id: int


class FencePeer(Effect, frozen=True):
    """Power the peer off and see that it is off; never ``reboot``.  Where
    fencing is of the storage only: take its disks away and see that it has none."""

    request_id: int
    node: str
    incarnation: Incarnation | None
    """The newest one known when this was asked."""
    delay_ms: int


class CancelFence(Effect, frozen=True):
    request_id: int


# -- the operator -----------------------------------------------------------------


class SaveWishes(Effect, frozen=True):
    wishes: tuple[Wish, ...]


class Refusal(enum.Enum):
    """Why a command was not taken.  ``UNSAFE`` ones have an override."""

    UNKNOWN_SERVICE = 1
    UNKNOWN_NODE = 2
    NOT_A_CANDIDATE = 3  # the node is not among the service's candidates
    ALREADY_THERE = 4
    RUNS_EVERYWHERE = 5  # on = "all" cannot be moved
    NODE_NOT_ELIGIBLE = 6  # absent, in standby, leaving, or failed there
    SERVICE_STOPPED = 7  # by the operator: start it first
    PEER_IS_HEARD = 8  # confirm-down of a node that we hear
    CONFIRM_OWN_NODE = 9
    LEAVING = 10  # this node is leaving; nothing more is taken
    NO_OTHER_NODE = 11
    FENCE_OWN_NODE = 12
    NO_FENCING = 13  # no device is configured
    NOTHING_TO_FENCE = 14  # this node acts alone, or has left: the other one counts as off already


class AnswerOperator(Effect, frozen=True):
    """``refusal`` None: taken.  ``stamp``: of the wish it became, else 0."""

    command_id: int
    refusal: Refusal | None = None
    stamp: int = 0
    node: str = ""
    """For a move: where to."""


class ExitKind(enum.Enum):
    LEFT = 1
    DETACHED = 2
    STOP_FAILED = 3  # leaving, and a stop failed: the peer has to fence us


class Exit(Effect, frozen=True):
    """End the daemon."""

    kind: ExitKind


# -- what happened, for people ------------------------------------------------------


class Fact(msgspec.Struct, frozen=True, tag=True):
    """The root of what is worth telling: log, timeline, ``why``, notifications."""


class PhaseChanged(Fact, frozen=True):
    phase: Phase
    confirmed: bool
    view: int
    why: Why


class LinkDirection(enum.Enum):
    RECEIVE = 1  # we hear the peer
    SEND = 2  # the peer hears us


class LinkTurned(Fact, frozen=True):
    link: str
    direction: LinkDirection
    up: bool


class LinkOpened(Fact, frozen=True):
    """The medium itself became usable or not."""

    link: str
    usable: bool
    detail: str


class CarrierTurned(Fact, frozen=True):
    """The medium lost its carrier or has it back, whether or not the peer is heard on it."""

    link: str
    up: bool


class ServiceAssigned(Fact, frozen=True):
    service: str
    owners: tuple[str, ...]
    why: Why


class ServiceTurned(Fact, frozen=True):
    service: str
    state: ServiceState
    why: Why
    detail: str = ""


class ResourceTurned(Fact, frozen=True):
    service: str
    resource: str
    state: ResourceState
    detail: str = ""


class AddressChecked(Fact, frozen=True):
    """``verified``: a neighbour was seen to send to us."""

    address: str
    verified: bool
    detail: str = ""


class AddressDisputed(Fact, frozen=True):
    address: str
    station: str


class ClearanceTurned(Fact, frozen=True):
    """A step on the way to acting for the silent peer."""

    asked: bool
    clearance: Clearance
    detail: str = ""


class ReachTurned(Fact, frozen=True):
    """The tiebreaker was found again, or lost."""

    reached: bool
    detail: str = ""


class PauseNoticed(Fact, frozen=True):
    paused_ms: int


class WishTaken(Fact, frozen=True):
    wish: Wish


class PlansDiffer(Fact, frozen=True):
    """``service`` empty: node names, their order, fencing or lease."""

    service: str = ""


AnyFact = (
    PhaseChanged | LinkTurned | LinkOpened | CarrierTurned | ServiceAssigned | ServiceTurned
    | ResourceTurned | AddressChecked | AddressDisputed | ClearanceTurned | ReachTurned
    | PauseNoticed | WishTaken | PlansDiffer
)  # fmt: skip


class Tell(Effect, frozen=True):
    fact: AnyFact


AnyEffect = (
    Publish | RenewIncarnation | RunAction | AddAddress | RemoveAddress | RenewAddress
    | AnnounceAddress | ProbeAddresses | CancelProbe | FencePeer | CancelFence
    | SaveWishes | AnswerOperator | Exit | Tell
)  # fmt: skip
