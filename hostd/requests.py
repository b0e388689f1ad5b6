"""What an operator's command and the brain say to each other, typed.

One JSON request a line over the control socket, one JSON answer a line back.
Decides the form of log and why, and what may be asked; refuses to know how they are shown
(``hostd.commands``) and how they come about (``hostd.status``).  Words that
people and tools see (states, codes) are lower-case names of enumerations.
"""

from typing import Any, Final, Literal

import msgspec

from hostd.changes import Change, Description
from hostd.core.effects import AnyFact, Refusal
from hostd.core.events import AnyCommand
from hostd.messages import ReloadOutcome
from hostd.status_form import DeviceStatus, Recovery, Status

REQUEST_SIZE_MAX: Final = 65_536
"""Bytes of one line; the longest sane request has a few hundred."""
ANSWER_SIZE_MAX: Final = 8_000_000
"""Bytes of one line; a full timeline of 5,000 entries has about one million."""
SOCKET_NAME: Final = "hostd.sock"
READERS_SOCKET_NAME: Final = "status.sock"
"""There if conf.d lets everyone ask how things stand."""

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
    """Raises one of ``UNDECODABLE`` on anything that is no request."""
    return _request_decoder.decode(line)


def decode_answer(line: bytes) -> AnyAnswer:
    """Raises one of ``UNDECODABLE`` on anything that is no answer."""
    return _answer_decoder.decode(line)


def plain(value: Any) -> Any:
    """The form for ``--json``: dictionaries, lists, numbers and strings only."""
    return msgspec.to_builtins(value)
