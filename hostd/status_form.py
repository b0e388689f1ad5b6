"""How things stand, typed: what ``hostd status --json`` says, schema 1.

Decides the form alone (INTERFACES.md section 5; extend, never rename).  Refuses
to know how it is shown (``hostd.commands``) and how it comes about
(``hostd.status``, ``hostd.ledger``).
"""

from typing import Final, Literal

import msgspec

SCHEMA: Final = 1


class LinkStatus(msgspec.Struct, frozen=True):
    """One link to the peer, each direction."""

    send: Literal["up", "down"]
    receive: Literal["up", "down"]
    late_max_ms: int | None = None
    """The longest time by which a frame of the peer was late in the last minute."""
    last_heard_ms: int | None = None
    """How long ago; None: never."""
    usable: bool = True
    carrier: str = "unknown"
    detail: str = ""
    rejected: int = 0
    """Frames refused: garbage, forged, replayed."""


class NodeStatus(msgspec.Struct, frozen=True):
    state: str
    """online, offline, pending, standby, maintenance, leaving, unclean or fenced."""
    incarnation: str = ""
    version: str = ""
    links: dict[str, LinkStatus] = {}
    """Empty for the local node."""
    phase: str = ""
    """As the node itself said last."""
    heard: bool = True
    realtime: bool | None = None
    """Local node only: the heart has real-time scheduling."""
    reached: bool | None = None
    """Its LAN is alive and it reaches the tiebreaker, as far as there are any."""
    watchdog_ms: int = 0
    """As the node published: its watchdog is armed and resets it at the latest so long after its last beat."""


class ResourceStatus(msgspec.Struct, frozen=True):
    id: str
    agent: str
    state: str
    verified: bool | None = None
    """Addresses only: a neighbour was seen to resolve it to this node."""


class InstanceStatus(msgspec.Struct, frozen=True):
    """A service as one node has it."""

    state: str
    banned: bool = False
    failures: int = 0
    degraded: bool = False
    since: str = ""
    resources: tuple[ResourceStatus, ...] = ()


class ServiceStatus(msgspec.Struct, frozen=True):
    state: str
    """running, stopped, starting, stopping, recovering, failed, blocked or unknown."""
    node: str | None
    nodes: tuple[str, ...]
    """Where it runs or may run."""
    primary: str
    since: str | None = None
    failures: int = 0
    resources: tuple[ResourceStatus, ...] = ()
    owners: tuple[str, ...] = ()
    """Where it is to run, as the coordinator says."""
    why: str = ""
    addresses: tuple[str, ...] = ()
    everywhere: bool = False
    moved: str = ""
    """The node on which the operator put it, if that still holds."""
    operator_stopped: bool = False
    maintenance: bool = False
    degraded: bool = False
    instances: dict[str, InstanceStatus] = {}
    set_aside: str = ""
    """Why the answering node does not run it at all (its agent cannot be used); empty if it does."""


class DeviceStatus(msgspec.Struct, frozen=True):
    """One fencing device that could power ``node`` off, as its last drill found it."""

    agent: str
    node: str
    level: int
    last: str | None = None
    """When it was tried; None: not yet."""
    ok: bool | None = None
    """It answered, and what it said can be; None: not tried yet."""
    power: str = ""
    """The node's, as the device said: on or off."""
    reason: str = ""
    cure: str = ""
    took_ms: int | None = None


class FencingStatus(msgspec.Struct, frozen=True):
    mode: Literal["required", "storage", "none"]
    ready: bool
    clearance: str = "none"
    devices: tuple[DeviceStatus, ...] = ()
    """Those for the other node."""


class WatchdogStatus(msgspec.Struct, frozen=True):
    """The device that resets the answering node if hostd hangs."""

    device: str
    armed: bool
    timeout_ms: int = 0
    identity: str = ""
    detail: str = ""


class Problem(msgspec.Struct, frozen=True):
    """Something that somebody should look at.

    The brain gives severity, code and what it is about; text and cure are
    filled in by ``commands/sentences.py``.
    """

    severity: Literal["error", "warning", "info"]
    code: str
    about: dict[str, str] = {}
    text: str = ""
    cure: str = ""


class HeartStatus(msgspec.Struct, frozen=True):
    """The process that beats on this node."""

    realtime: bool
    locked: bool
    """Its memory cannot be paged out."""
    late_max_ms: int
    """The worst lateness of a beat of ours in the last minute."""


class PhaseOfRecovery(msgspec.Struct, frozen=True):
    """A part of a recovery: ``detect``, ``clear``, ``decide``, ``stop``, ``start``, ``address`` or ``verify``."""

    name: str
    took_ms: int
    budget_ms: int | None = None
    """What it should take at most; None: nothing tells."""
    basis: Literal["configuration", "history", ""] = ""
    """Where the budget comes from: a time limit of conf.d, or twice the median of earlier recoveries."""


class Recovery(msgspec.Struct, frozen=True):
    """One service that was brought back, on the node that did it."""

    service: str
    node: str
    kind: Literal["takeover", "failover", "restart", "move"]
    """The other node was lost; it failed there for good; it was restarted here; somebody or a rule wanted it."""
    why: str
    began_at: float
    """Of the first sign; wall clock, seconds since 1970."""
    ended_at: float
    """When it ran."""
    took_ms: int
    phases: tuple[PhaseOfRecovery, ...]
    budget_ms: int | None = None
    """Of the whole, without ``verify``; None if that of a phase is not known."""


class RecoveryTotal(msgspec.Struct, frozen=True):
    count: int = 0
    total_ms: int = 0


class WishStatus(msgspec.Struct, frozen=True):
    kind: str
    subject: str
    value: str
    serial: int
    node: str
    held_by: tuple[str, ...]


class Status(msgspec.Struct, frozen=True):
    cluster: str
    node: str
    coordinator: str
    view: int
    phase: str
    nodes: dict[str, NodeStatus]
    services: dict[str, ServiceStatus]
    fencing: FencingStatus
    problems: tuple[Problem, ...] = ()
    schema: int = SCHEMA
    confirmed: bool = False
    wishes: tuple[WishStatus, ...] = ()
    figures: dict[str, int] = {}
    """Counters of this brain since it started."""
    heart: HeartStatus | None = None
    recoveries: tuple[Recovery, ...] = ()
    """The newest of this node, oldest first."""
    recovered: dict[str, dict[str, RecoveryTotal]] = {}
    """By service and kind, since this brain started."""
    watchdog: WatchdogStatus | None = None
    """None: conf.d has none."""
