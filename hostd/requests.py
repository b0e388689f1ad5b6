"""What an operator's command and the brain say to each other, typed.

One JSON request a line over the control socket, one JSON answer a line back.
Decides the form of status, log and why; refuses to know how they are shown
(``hostd.commands``) and how they come about (``hostd.status``).  Words that
people and tools see (states, codes) are lower-case names of enumerations.
"""

from typing import Any, Final, Literal

import msgspec

from hostd.core.effects import AnyFact, Refusal
from hostd.core.events import AnyCommand

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


class FencingStatus(msgspec.Struct, frozen=True):
    mode: Literal["required", "none"]
    ready: bool
    clearance: str = "none"


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


class Order(Request, frozen=True):
    command: AnyCommand


AnyRequest = AskStatus | AskWhy | AskLog | Order

# -- answers -------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True, tag=True):
    """The root of what may be answered."""


class StatusIs(Answer, frozen=True):
    status: Status


class LogIs(Answer, frozen=True):
    entries: tuple[Entry, ...]


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


class Rejected(Answer, frozen=True):
    """The request was not understood or not allowed, or there is no time for it."""

    reason: Literal["not-allowed", "bad-request", "busy", "too-slow", "unknown-service"]
    detail: str = ""


AnyAnswer = StatusIs | LogIs | WhyIs | Taken | Refused | Rejected

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
