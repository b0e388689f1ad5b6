"""What can go wrong, as data: drawn from a seed, printed, read back, replayed.

Decides which faults exist; ``draws.py`` draws schedules of them.  Knows
nothing of what they do to the world (``world.py``).  The text of a fault is
its class name in words and its fields in order: ``power-off b``,
``cut serial a``, ``pause b FREEZE 3000``.  ``-`` stands for an empty text,
which means "both" where a node may be named, and defaults at the end may
be left out.
"""

import difflib
import enum
import re
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec

from hostd.core.events import (
    AnyCommand,
    CleanUp,
    ConfirmDown,
    Detach,
    FenceNode,
    Leave,
    MoveService,
    SetMaintenance,
    SetStandby,
    StartService,
    StopService,
)


class Fault(msgspec.Struct, frozen=True):
    """The root of everything that a schedule may contain."""


class Stop(enum.Enum):
    """How much of a node stands still, and whether its clock shows it."""

    BRAIN = 1  # only the daemon: the heart falls silent after warntime
    USERLAND = 2  # every process; the kernel answers ARP, leases run on
    SUSPEND = 3  # the whole machine; the clock goes on, so the gap shows
    FREEZE = 4  # a virtual machine stopped with its clock: nothing shows


class Conduct(enum.Enum):
    """How an agent action or a fencing device behaves."""

    WELL = 1
    FAIL = 2
    HANG = 3
    SLOW = 4
    LEAVE = 5  # a stop that succeeds and leaves processes behind (and they are seen)
    LIE = 6  # a stop that says "stopped" and is not believed by the judge
    LATE = 7  # a device that acts at once and says so much later


# -- machines ----------------------------------------------------------------


class PowerOff(Fault, frozen=True):
    node: str


class PowerOn(Fault, frozen=True):
    node: str


class KillBrain(Fault, frozen=True):
    node: str
    back_ms: int = 200


class KillHeart(Fault, frozen=True):
    node: str
    back_ms: int = 200


class KillHost(Fault, frozen=True):
    """SIGKILL of all of hostd: services and their actions go on, leases run out."""

    node: str


class StartHost(Fault, frozen=True):
    node: str


class Pause(Fault, frozen=True):
    node: str
    stop: Stop
    for_ms: int


class Disk(Fault, frozen=True):
    """Can the wishes be saved?"""

    node: str
    well: bool


# -- links and the client LAN --------------------------------------------------


class Cut(Fault, frozen=True):
    link: str
    sender: str = ""
    """Only this direction; empty: both."""


class Mend(Fault, frozen=True):
    """The link as it was on the first day; empty: all of them."""

    link: str = ""


class Weather(Fault, frozen=True):
    link: str
    loss: float = 0.0
    copies: float = 0.0
    delay_ms: int = 1
    jitter_ms: int = 0


class Hold(Fault, frozen=True):
    """Frames of this sender wait in a buffer until ``Release``."""

    link: str
    sender: str


class Release(Fault, frozen=True):
    link: str
    sender: str


class Replay(Fault, frozen=True):
    link: str
    sender: str
    back: int


class LanCut(Fault, frozen=True):
    """The client LAN is dead at this node, carrier and all."""

    node: str


class LanMend(Fault, frozen=True):
    node: str


class LanDeaf(Fault, frozen=True):
    """Nothing passes between this node and the client LAN, and its carrier does not show it."""

    node: str


class PingLost(Fault, frozen=True):
    """The tiebreaker does not answer this node; the port is well."""

    node: str


class PingBack(Fault, frozen=True):
    node: str


class ArpBlock(Fault, frozen=True):
    """Not even ARP passes between the nodes, and both see other stations."""


class ArpPass(Fault, frozen=True):
    pass


class Stranger(Fault, frozen=True):
    """Another machine on the LAN takes one of our addresses, or lets go."""

    address: str
    holds: bool


class Unaddress(Fault, frozen=True):
    """Somebody removes the address by hand."""

    node: str
    address: str


# -- services and devices -------------------------------------------------------


class Starts(Fault, frozen=True):
    """How starts of this service behave on this node from now on."""

    service: str
    node: str
    conduct: Conduct


class Stops(Fault, frozen=True):
    service: str
    node: str
    conduct: Conduct


class Dies(Fault, frozen=True):
    """A running service ends by itself; ``noticed``: its main process is watched.
    ``orphans``: the main process only, its workers stay."""

    service: str
    node: str
    noticed: bool = True
    orphans: bool = False


class Fencing(Fault, frozen=True):
    """How the device that shoots this node behaves."""

    node: str
    conduct: Conduct


class Ask(Fault, frozen=True):
    """The operator types a command on this node."""

    node: str
    command: str
    subject: str = ""
    value: str = ""


AnyFault = (
    PowerOff | PowerOn | KillBrain | KillHeart | KillHost | StartHost | Pause | Disk
    | Cut | Mend | Weather | Hold | Release | Replay
    | LanCut | LanDeaf | LanMend | PingLost | PingBack | ArpBlock | ArpPass
    | Stranger | Unaddress | Starts | Stops | Dies | Fencing | Ask
)  # fmt: skip


class Timed(NamedTuple):
    at_ms: int
    fault: AnyFault


Schedule = tuple[Timed, ...]


COMMANDS: Final = (
    "move", "stop", "start", "standby", "online", "maintenance", "cleanup", "confirm-down", "fence", "leave", "detach",
)  # fmt: skip
"""What an operator of a schedule may type; :func:`command` has an arm for each."""


def command(ask: Ask) -> AnyCommand:
    """The command in the core's terms; raises ValueError on one that does not exist."""
    match ask.command:
        case "move":
            return MoveService(ask.subject, ask.value)
        case "stop":
            return StopService(ask.subject)
        case "start":
            return StartService(ask.subject)
        case "standby" | "online":
            return SetStandby(ask.subject or ask.node, ask.command == "standby")
        case "maintenance":
            return SetMaintenance(ask.subject == "on", ask.value)
        case "cleanup":
            return CleanUp(ask.subject)
        case "confirm-down":
            return ConfirmDown(ask.subject)
        case "fence":
            return FenceNode(ask.subject)
        case "leave":
            return Leave()
        case "detach":
            if ask.subject and not ask.subject.isdecimal():
                raise ValueError(f"{ask.subject} is no number of milliseconds")
            return Detach(int(ask.subject or 0))
        case other:
            raise ValueError(f"no such command: {other}; {_meant(other, COMMANDS)}")


# -- text ------------------------------------------------------------------------


def _verb(kind: type[Fault]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


KINDS: Final[dict[str, type[Any]]] = {_verb(kind): kind for kind in Fault.__subclasses__()}


def words(fault: Fault) -> str:
    """One line that :func:`parse` reads back."""
    told = [_verb(type(fault))]
    for value in msgspec.structs.astuple(fault):
        match value:
            case enum.Enum():
                told.append(value.name)
            case bool():
                told.append("yes" if value else "no")
            case str():
                told.append(value or "-")
            case _:
                told.append(str(value))
    while told[-1] == "-":
        told.pop()
    return " ".join(told)


def parse(text: str) -> AnyFault:
    """The inverse of :func:`words`; raises ValueError with what is wrong."""
    verb, *rest = text.split()
    kind = KINDS.get(verb)
    if kind is None:
        raise ValueError(f"no such fault: {verb}; {_meant(verb, sorted(KINDS))}")
    fields = msgspec.structs.fields(kind)
    if len(rest) > len(fields):
        raise ValueError(f'{verb} takes {" ".join(field.name for field in fields) or "nothing"}; remove "{rest[-1]}"')
    values = [_value(field, word) for field, word in zip(fields, rest, strict=False)]
    try:
        fault: AnyFault = kind(*values)
    except TypeError as error:
        missing = [field.name for field in fields[len(rest) :] if field.required]
        raise ValueError(f"{verb} takes {' '.join(field.name for field in fields)}; add {missing[0]}") from error
    if isinstance(fault, Ask):
        command(fault)
    return fault


def _value(field: Any, word: str) -> Any:
    if isinstance(field.type, type) and issubclass(field.type, enum.Enum):
        return _choice(field, word, {member.name: member for member in field.type})
    if field.type is bool:
        return _choice(field, word, {"yes": True, "no": False})
    if field.type is str:
        return "" if word == "-" else word
    try:
        return field.type(word)
    except ValueError as error:
        raise ValueError(f"{word} is no {field.name}; use a number") from error


def _choice(field: Any, word: str, known: dict[str, Any]) -> Any:
    if word not in known:
        raise ValueError(f"{word} is no {field.name}; {_meant(word, known)}")
    return known[word]


def _meant(word: str, known: Collection[str]) -> str:
    """The cure for a word that is not known."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
