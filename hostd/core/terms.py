"""The nouns that all of hostd shares: who, what state, which epoch.

Decides nothing.  Naming rules that hold everywhere: an absolute time is an
integer of milliseconds and ends in ``_at_ms``, a duration ends in ``_ms``;
both come from one clock that also counts suspended time (CLOCK_BOOTTIME).
Enumerations travel by value, so a member keeps its number for ever.
"""

import enum
from typing import Final, NamedTuple


class Incarnation(NamedTuple):
    """One life of one brain.  Ordered: a higher one replaces a lower for ever.

    ``boot`` is the start counter kept in the state directory (or the wall
    clock in seconds if that cannot be read), ``nonce`` is random.
    """

    boot: int
    nonce: int


NEVER_BORN: Final = Incarnation(0, 0)
"""Lower than every real incarnation."""


class Epoch(NamedTuple):
    """The number of one assignment: the view it was made in, and a counter."""

    view: int
    counter: int


NO_EPOCH: Final = Epoch(0, 0)
"""Lower than every epoch that a coordinator gives out."""


class Ids:
    """Numbers for requests, each given once in the life of a node's core."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


class Phase(enum.Enum):
    """Where a node stands in the pair (PROTOCOL.md section 2)."""

    JOINING = 1  # just started or fell back; waits for an invitation
    STARTUP_FENCING = 2  # JOINING, the peer unheard for initdead; seeks clearance
    MEMBER = 3  # accepted an invitation; confirmed once both show the same view
    PEER_LOST = 4  # was confirmed, the peer silent for deadtime; seeks clearance
    ALONE = 5  # the peer is cleared, has left or is joining; own coordinator
    LEFT = 6  # left in good order; final for this incarnation


class Mode(enum.Enum):
    """What a node is about to do with itself."""

    ACTIVE = 1  # an ordinary member
    LEAVING = 2  # gives everything away, then LEFT; irrevocable
    RESTARTING = 3  # the daemon goes away for a moment, the services stay


class ServiceState(enum.Enum):
    """What a node says of one service on itself."""

    STOPPED = 1  # verified: nothing of it is left here
    STARTING = 2
    RUNNING = 3
    STOPPING = 4
    RECOVERING = 5  # failed here, is being restarted here
    FAILED = 6  # verified stopped, and given up here until cleanup
    BLOCKED = 7  # a stop failed: it may run, and nobody may start it elsewhere
    UNKNOWN = 8  # not yet probed, or unfinished by an earlier life: it may run

    @property
    def is_stopped(self) -> bool:
        """True only when nothing of the service can be running here."""
        return self is ServiceState.STOPPED or self is ServiceState.FAILED


class ResourceState(enum.Enum):
    """One rung of a service's ladder on this node."""

    STOPPED = 1
    STARTING = 2
    RUNNING = 3
    STOPPING = 4
    FAILED = 5  # noticed to have failed; has to be stopped before anything else
    BLOCKED = 6  # its stop failed
    UNKNOWN = 7  # may be running


class Action(enum.Enum):
    """What may be asked of an agent."""

    START = 1
    STOP = 2
    MONITOR = 3


class Health(enum.Enum):
    """The three answers of a monitor (the fourth is an error)."""

    RUNNING = 1
    DEGRADED = 2  # serves, and somebody should look
    STOPPED = 3  # cleanly


class Carrier(enum.Enum):
    """What the hardware says of the other end of a link."""

    UP = 1
    DOWN = 2
    UNKNOWN = 3  # the medium cannot tell (a pty, a virtual serial port)


class Clearance(enum.Enum):
    """Why it is safe to act for a silent peer (PROTOCOL.md section 5)."""

    NONE = 1
    FENCED = 2  # a device confirmed that the peer is off
    CONFIRMED = 3  # the operator typed that the peer is off
    GUARD = 4  # no fencing: its addresses fell silent; says nothing of its processes
    LEFT = 5  # it said goodbye, or died while leaving with nothing left
    DATA = 6  # as GUARD, and it has lost its disks: what of it may still run there writes nothing


class Why(enum.Enum):
    """The cause of a change; sentences are made of it in ``hostd/commands``."""

    STARTED = 1  # this brain has just started
    PEER_SILENT = 2
    PEER_SILENT_SINCE_START = 3
    PEER_HEARD = 4
    PEER_INVITED = 5  # it invited us, or accepted our invitation
    PEER_CONFIRMED = 6  # both show the same view
    PEER_RESTARTED = 7  # it is JOINING: it runs nothing new
    PEER_LEFT = 8
    PEER_ALONE = 9  # it acts for both: we yield
    PEER_FENCED = 10
    PEER_CONFIRMED_DOWN = 11
    PEER_GUARDED = 12  # its addresses answer no more
    INVITATION_LAPSED = 13
    PRIMARY = 14  # its primary can run it
    BACKUP = 15  # the primary cannot, this is the next in order
    STAYS = 16  # runs here and nothing calls for a move
    MOVED = 17  # the operator moved it
    FAILBACK = 18
    EVERYWHERE = 19  # on = "all"
    OPERATOR_STOPPED = 20
    NODE_STANDBY = 21
    NODE_LEAVING = 22
    NO_NODE = 23  # no node is eligible
    FAILED_HERE = 24  # restarts used up, or a start failed
    BLOCKED = 25
    REQUIREMENT_MISSING = 26
    CONFIGURATION_DIFFERS = 27
    WAITS_FOR_STOP = 28  # its former owner has not reported it stopped
    WAITS_FOR_FAILBACK = 29  # the primary has to be stable for longer
    MONITOR_FAILED = 30
    PROCESS_EXITED = 31
    ADDRESS_LOST = 32
    ADDRESS_CONFLICT = 33
    START_FAILED = 34
    STOP_FAILED = 35
    PAUSED = 36  # this node was itself frozen
    ADOPTED = 37  # found running
    MAINTENANCE = 38
    NOT_CLEARED = 39  # without fencing, a service without an address needs more proof
    ORDERED = 40  # the assignment says so
    NODE_CUT_OFF = 42  # it has no way to its clients
    DEFINITION_CHANGED = 43  # it runs under an older definition
    PEER_BLOCKED = 41  # a stop failed there: it is fenced on purpose
    PEER_DISKS_CUT = 44  # it has lost its disks, and its addresses answer no more
