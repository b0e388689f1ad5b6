"""What an operator's command and the brain say to each other, typed.

One JSON request a line over the control socket, one JSON answer a line back.
Decides the form of status, log and why; refuses to know how they are shown
(``hostd.commands``) and how they come about (``hostd.status``).  Words that
people and tools see (states, codes) are lower-case names of enumerations.
"""

from typing import Any, Final, Literal

import msgspec

from hostd.changes import Change, Description
from hostd.core.effects import AnyFact, Refusal
from hostd.core.events import AnyCommand
from hostd.messages import ReloadOutcome

REQUEST_SIZE_MAX: Final = 65_536
"""Bytes of one line; the longest sane request has a few hundred."""
ANSWER_SIZE_MAX: Final = 8_000_000
"""Bytes of one line; a full timeline of 5,000 entries has about one million."""
SCHEMA: Final = 1
SOCKET_NAME: Final = "hostd.sock"

# -- status (INTERFACES.md section 5; extend, never rename) -----------------------


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
    mode: Literal["required", "none"]
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


# -- the timeline --------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True):
    """One line of the timeline."""

    at: float
    """Wall clock, seconds since 1970, of the node that wrote it down."""
    node: str
    """The node that it is about."""
    fact: AnyFact
    observed: bool = False
    """Read from the peer's snapshots and not told by the node itself."""
    silent_ms: int | None = None
    """With the loss of the peer: for how long it had been silent."""


# -- requests ------------------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, tag=True):
    """The root of what may be asked."""


class AskStatus(Request, frozen=True):
    pass


class AskWhy(Request, frozen=True):
    service: str


class AskLog(Request, frozen=True):
    """``service`` empty: all.  The newest ``limit`` entries after ``since``."""

    since: float = 0.0
    service: str = ""
    limit: int = 1_000


class AskLedger(Request, frozen=True):
    """The newest ``limit`` recoveries on this node; ``service`` empty: of all."""

    service: str = ""
    limit: int = 20


class Order(Request, frozen=True):
    command: AnyCommand


class AskDrill(Request, frozen=True):
    """Try every fencing device for ``node``, harmlessly.  ``drill_id`` 0: begin;
    else: how far is the one that was begun?"""

    node: str
    drill_id: int = 0


class AskRunning(Request, frozen=True):
    """What hostd runs by, for ``hostd plan``."""


class AskReload(Request, frozen=True):
    """Read conf.d again."""


AnyRequest = AskStatus | AskLedger | AskWhy | AskLog | AskRunning | AskReload | AskDrill | Order

# -- answers -------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True, tag=True):
    """The root of what may be answered."""


class StatusIs(Answer, frozen=True):
    status: Status


class LogIs(Answer, frozen=True):
    entries: tuple[Entry, ...]


class LedgerIs(Answer, frozen=True):
    recoveries: tuple[Recovery, ...]
    """Oldest first."""


class WhyIs(Answer, frozen=True):
    """The facts that led here, oldest first, and how it stands now."""

    service: str
    entries: tuple[Entry, ...]
    status: Status


class Taken(Answer, frozen=True):
    """The order is taken.  ``stamp``: serial of the wish it became, or 0;
    ``node``: of a move, where to."""

    stamp: int = 0
    node: str = ""


class Refused(Answer, frozen=True):
    """The core does not take the order."""

    refusal: Refusal


class RunningIs(Answer, frozen=True):
    """``description`` None: this brain was not told.  ``peer_digests``: of each service that the peer knows;
    None if it is not heard.  ``config``, ``agents`` and ``plugins``: the folders that a reload would read."""

    config: str
    agents: tuple[str, ...]
    plugins: tuple[str, ...]
    description: Description | None
    peer: str
    peer_digests: dict[str, str] | None
    status: Status


class DrillIs(Answer, frozen=True):
    """The devices that are done with; ``detail``: why it ended before its time."""

    drill_id: int
    is_over: bool
    devices: tuple[DeviceStatus, ...] = ()
    detail: str = ""


class ReloadIs(Answer, frozen=True):
    """What came of it.  After DONE another brain takes over."""

    outcome: ReloadOutcome
    changes: tuple[Change, ...]
    text: str


class Rejected(Answer, frozen=True):
    """The request was not understood or not allowed, or there is no time for it."""

    reason: Literal["not-allowed", "bad-request", "busy", "too-slow", "unknown-service"]
    detail: str = ""


AnyAnswer = StatusIs | LedgerIs | LogIs | WhyIs | RunningIs | ReloadIs | DrillIs | Taken | Refused | Rejected

_request_decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_answer_decoder: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)


def encode(message: AnyRequest | AnyAnswer) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> AnyRequest:
    """Raises ``msgspec.DecodeError`` on anything that is no request."""
    return _request_decoder.decode(line)


def decode_answer(line: bytes) -> AnyAnswer:
    """Raises ``msgspec.DecodeError`` on anything that is no answer."""
    return _answer_decoder.decode(line)


def plain(value: Any) -> Any:
    """The form for ``--json``: dictionaries, lists, numbers and strings only."""
    return msgspec.to_builtins(value)
