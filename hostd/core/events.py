"""Everything that can happen to a node.  Past tense; the core's only input.

Decides nothing.  Events are recorded and replayed, so each is a frozen,
tagged structure.  An outcome event names the request it answers; every
effect that acts is answered by exactly one (table in ``effects.py``).
"""

import enum

import msgspec

from hostd.core.snapshot import Snapshot, Wish
from hostd.core.terms import Carrier, Health, Incarnation


class Event(msgspec.Struct, frozen=True, tag=True):
    """The root of the closed union :data:`AnyEvent`."""


# -- the daemon's own life ---------------------------------------------------


class Started(Event, frozen=True):
    """The first event of every brain.

    ``unfinished`` names services whose record says that an action of an
    earlier life did not finish: they are stopped and verified, not trusted.
    """

    incarnation: Incarnation
    wishes: tuple[Wish, ...] = ()
    unfinished: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    """MAC addresses of this node's interfaces."""
    release: str = ""
    present: tuple[str, ...] = ()
    """Addresses of the plan that were found on this node, left by an earlier life."""
    outdated: tuple[str, ...] = ()
    """Services of which something was started here under another definition."""
    watchdog_ms: int = 0
    """To be published with the snapshot, to the letter."""
    probation_ms: dict[str, int] = {}
    """New services, and for how long they still are."""


class TimerFired(Event, frozen=True):
    """Time has passed.  The daemon steps at least once per keepalive."""


class IncarnationRenewed(Event, frozen=True):
    """Outcome of ``RenewIncarnation``: a higher incarnation is on the disk."""

    incarnation: Incarnation


class HeartLost(Event, frozen=True):
    """The beating process died: nothing can be heard until ``HeartReturned``."""


class HeartReturned(Event, frozen=True):
    """A heart beats (first start included)."""


# -- links -------------------------------------------------------------------


class FrameReceived(Event, frozen=True):
    """An authentic frame of the peer, never an older one than any before.

    ``at_ms``: when the heart received it.  ``echo_sent_at_ms``: when *we* sent
    the newest frame of ours that it echoes to our present incarnation, or
    None if it echoes none.  ``version``: of the sender's newest snapshot.
    ``hears``: bit i is set if the sender hears us on link i of the plan.
    """

    link: str
    at_ms: int
    sender: str
    incarnation: Incarnation
    echo_sent_at_ms: int | None
    version: int
    hears: int = 0
    brain_gone: bool = False


class SnapshotReceived(Event, frozen=True):
    """A whole snapshot of the peer arrived, over whatever link."""

    snapshot: Snapshot


class LinkChanged(Event, frozen=True):
    """The heart opened or lost a medium, or its carrier changed."""

    link: str
    at_ms: int
    usable: bool
    carrier: Carrier = Carrier.UNKNOWN
    detail: str = ""


# -- outcomes of what was asked ----------------------------------------------


class ActionFinished(Event, frozen=True):
    """Outcome of ``RunAction``.

    ``ok`` False with ``timed_out`` True: the time limit struck and the whole
    group was killed.  ``health`` is set for a successful monitor only.
    ``leftovers``: processes still in the service's group after a stop.
    """

    action_id: int
    ok: bool
    health: Health | None = None
    timed_out: bool = False
    leftovers: int = 0
    reason: str = ""
    cure: str = ""


class AddressOutcome(enum.Enum):
    DONE = 1
    CONFLICT = 2  # somebody else answers for it: it was not added
    FAILED = 3


class AddressFinished(Event, frozen=True):
    """Outcome of ``AddAddress``, ``RemoveAddress`` or ``RenewAddress``.

    FAILED after a renewal means that the address is gone from this node: it
    came too late, so the edge removed it, or it was missing.
    """

    request_id: int
    outcome: AddressOutcome
    detail: str = ""


class AddressVerified(Event, frozen=True):
    """Outcome of ``AnnounceAddress``: did a neighbour turn to us?"""

    request_id: int
    verified: bool
    detail: str = ""


class ProbeFinished(Event, frozen=True):
    """Outcome of ``ProbeAddresses``.

    ``listened``: some other station answered in the same window on every
    interface asked, carriers were up and our loop was not paused; without
    it silence proves nothing.  ``answered`` names the addresses that
    somebody answers for; ``strangers`` those answered by a MAC that is not
    the peer's.
    """

    request_id: int
    listened: bool
    answered: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    detail: str = ""


class FenceFinished(Event, frozen=True):
    """Outcome of ``FencePeer``: only ``confirmed`` (seen to be off, or to have no disk) counts."""

    request_id: int
    confirmed: bool
    detail: str = ""


class WishesSaved(Event, frozen=True):
    """Outcome of ``SaveWishes``."""

    ok: bool
    detail: str = ""


# -- the world, unasked ------------------------------------------------------


class AddressCause(enum.Enum):
    REMOVED = 1  # by hand, or its lease ran out
    INTERFACE_DOWN = 2  # no carrier, or set down


class AddressLost(Event, frozen=True):
    """An address that this node held is gone or unusable."""

    address: str
    cause: AddressCause


class AddressFound(Event, frozen=True):
    """An address of the plan is present on this node without having been asked for
    (found at start: it was left by an earlier life)."""

    address: str


class ForeignClaim(Event, frozen=True):
    """Another station claims an address that we hold (ARP or neighbour discovery)."""

    address: str
    station: str
    at_ms: int


class LanTurned(Event, frozen=True):
    """The interfaces of the plan's addresses, as far as this node has them:
    all addresses whose interface cannot be used now.  At the start and at
    every change."""

    dead: tuple[str, ...]


class TiebreakerTurned(Event, frozen=True):
    """The tiebreaker was found, or not reached for its deadtime."""

    reached: bool
    detail: str = ""


class ProcessExited(Event, frozen=True):
    """The watched main process of a resource is gone."""

    service: str
    resource: str


# -- the operator ------------------------------------------------------------


class Command(msgspec.Struct, frozen=True, tag=True):
    """The root of what an operator may ask."""


class MoveService(Command, frozen=True):
    service: str
    node: str = ""
    """Empty: to its primary, or if it is there, to the next candidate."""


class StopService(Command, frozen=True):
    service: str


class StartService(Command, frozen=True):
    service: str


class SetStandby(Command, frozen=True):
    node: str
    standby: bool


class SetMaintenance(Command, frozen=True):
    """``service`` empty: everything."""

    on: bool
    service: str = ""


class CleanUp(Command, frozen=True):
    service: str


class ConfirmDown(Command, frozen=True):
    node: str


class FenceNode(Command, frozen=True):
    """Shoot the peer, heard or not; given up if the devices fail."""

    node: str


class Leave(Command, frozen=True):
    pass


class Detach(Command, frozen=True):
    for_ms: int = 0
    """0: the plan's limit."""


AnyCommand = (
    MoveService | StopService | StartService | SetStandby | SetMaintenance
    | CleanUp | ConfirmDown | FenceNode | Leave | Detach
)  # fmt: skip


class OperatorAsked(Event, frozen=True):
    """A command arrived; answered by exactly one ``AnswerOperator``."""

    command_id: int
    command: AnyCommand


AnyEvent = (
    Started | TimerFired | IncarnationRenewed | HeartLost | HeartReturned
    | FrameReceived | SnapshotReceived | LinkChanged
    | ActionFinished | AddressFinished | AddressVerified | ProbeFinished
    | FenceFinished | WishesSaved
    | AddressLost | AddressFound | ForeignClaim | LanTurned | TiebreakerTurned | ProcessExited | OperatorAsked
)  # fmt: skip
