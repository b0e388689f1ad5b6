"""What a node says of itself: state, never orders (PROTOCOL.md section 1).

Decides nothing.  A snapshot is the whole of a node's published state under a
version; a receiver keeps the newest and forgets the rest, so that loss,
duplication and reordering are harmless.  Fields are encoded by position:
append only, with a default, and never change the meaning of one.
"""

import enum

import msgspec

from hostd.core.terms import (
    NO_EPOCH,
    Epoch,
    Incarnation,
    Mode,
    Phase,
    ResourceState,
    ServiceState,
    Why,
)


class Invitation(msgspec.Struct, frozen=True, array_like=True):
    """An offer of membership in ``view`` to one incarnation of the peer."""

    view: int
    to: Incarnation


class Report(msgspec.Struct, frozen=True, array_like=True):
    """One service as this node has it.

    ``obeyed`` is the epoch of the newest assignment taken into account: a
    "stopped" proves something only together with it.
    """

    state: ServiceState
    obeyed: Epoch = NO_EPOCH
    banned: bool = False
    """Failed here for good: not eligible until ``cleanup`` or a restart of the daemon."""
    failures: int = 0
    resources: tuple[ResourceState, ...] = ()
    verified: tuple[bool, ...] = ()
    """Per resource: an address that neighbours were seen to resolve to us."""
    degraded: bool = False
    since_ms: int = 0
    """How long ago the state was entered, rounded to seconds at publication."""


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """Who may run a service now: no node, one, or for ``on = "all"`` several."""

    owners: tuple[str, ...]
    epoch: Epoch
    why: Why = Why.ORDERED
    """The coordinator's reason, so that both nodes can tell it."""


class WishKind(enum.Enum):
    STOPPED = 1  # subject: service; value "yes" or ""
    STANDBY = 2  # subject: node; value "yes" or ""
    MAINTENANCE = 3  # subject: service, or "" for all; value "yes" or ""
    MOVED = 4  # subject: service; value: the node it is to stay on, or ""
    CLEANUP = 5  # subject: service; each newer stamp forgets failures once


class Wish(msgspec.Struct, frozen=True, array_like=True):
    """What the operator asked for, stamped so that the newest wins everywhere."""

    kind: WishKind
    subject: str
    value: str
    serial: int
    node: str

    @property
    def stamp(self) -> tuple[int, str]:
        return (self.serial, self.node)


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """Everything that one node says of itself."""

    node: str
    incarnation: Incarnation
    version: int
    phase: Phase
    confirmed: bool = False
    view: int = 0
    coordinator: str = ""
    mode: Mode = Mode.ACTIVE
    away_ms: int = 0
    """With mode RESTARTING: how long the daemon may be away."""
    invitation: Invitation | None = None
    services: dict[str, Report] = {}
    assignments: dict[str, Assignment] = {}
    """Only from a coordinator of a confirmed view, or a node that is ALONE."""
    heard: Incarnation | None = None
    """The newest incarnation of the peer that this node knows."""
    dead: Incarnation | None = None
    """The newest incarnation of the peer that this node knows to be dead for ever."""
    wishes: tuple[Wish, ...] = ()
    digest: str = ""
    digests: dict[str, str] = {}
    """Per service, of its definition."""
    fencing: bool = False
    stations: tuple[str, ...] = ()
    """MAC addresses of this node's interfaces, to tell its ARP answers from a stranger's."""
    release: str = ""
    """The version of hostd."""
    view_max: int = 0
    """The highest view number this node has ever seen, so that a new one is higher.
    ``view`` is the highest that it has held or accepted in this incarnation."""
    nodes: tuple[str, ...] = ()
    """The node names in this node's configured order."""
    reached: bool | None = None
    """Can this node serve anybody (``core/reach.py``)?  None: nothing tells."""
    watchdog_ms: int = 0
    """A watchdog is armed: at the latest so long after its last beat this machine
    has reset itself.  0: none.  Published and shown; it clears nobody yet."""


def encode(snapshot: Snapshot) -> bytes:
    """msgpack, by position."""
    return msgspec.msgpack.encode(snapshot)


_decoder = msgspec.msgpack.Decoder(Snapshot)


def decode(body: bytes) -> Snapshot:
    """The inverse of :func:`encode`; on anything else msgspec raises one of ``decoding.UNDECODABLE``."""
    return _decoder.decode(body)
