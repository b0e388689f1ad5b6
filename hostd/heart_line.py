"""The brain's line to its heart, one heart after another: what it is told, and what it tells.

Decides what a heart that has just come must know (for whom it speaks, what it
carries, that a brain is there), and what of the peer's snapshot is fit for the
core, and news beside it.  Refuses to know when the brain is well, and what
follows from anything that is heard.
"""

import socket
from collections.abc import Callable

from hostd.clock import now_ms
from hostd.core import snapshot as snapshots
from hostd.core.effects import AnyFact
from hostd.core.events import AnyEvent, HeartLost, HeartReturned, SnapshotReceived
from hostd.core.plan import Plan
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Incarnation
from hostd.ends import End
from hostd.figures import Figures
from hostd.hearing import snapshot_of
from hostd.messages import AnyMessage, Carry, HeartFigures, Identify, Renew, SnapshotHeard
from hostd.observed import differences


class HeartLine:
    """Of one brain.

    ``hears()``: bit i set if the peer is heard on link i of the plan.  ``put``
    gets what happened; ``observed`` what the peer was seen to do, under its
    name; ``take`` every message that is not about the heart itself or a snapshot.
    """

    def __init__(
        self,
        plan: Plan,
        node: str,
        incarnation: Incarnation,
        figures: Figures,
        *,
        hears: Callable[[], int],
        put: Callable[[AnyEvent], None],
        observed: Callable[[str, AnyFact], None],
        take: Callable[[AnyMessage], None],
    ) -> None:
        self.incarnation = incarnation
        """For whom the heart speaks."""
        self.peer: Snapshot | None = None
        """What the peer said last."""
        self._plan, self._node, self._figures = plan, node, figures
        self._hears, self._put, self._observed, self._take = hears, put, observed, take
        self._end: End | None = None
        self._carried: Carry | None = None
        self._renewed_at_ms = 0

    # -- speaking ----------------------------------------------------------------

    def connect(self, end: socket.socket) -> None:
        """A heart is there: tell it who we are, what we last said, and that a brain is back."""
        if self._end is not None:
            self._end.close()
        self._end = End(end, self.hear)
        self._figures.heart_lost = ""
        self._end.send(Identify(self.incarnation))
        if self._carried is not None:
            self._end.send(self._carried, latest=True)
        self.renew(now_ms())
        self._put(HeartReturned())

    def lost(self, detail: str) -> None:
        """The host says that the heart died; another one comes."""
        self._figures.heart, self._figures.heart_lost = None, detail or "it died"
        self._put(HeartLost())

    @property
    def renew_at_ms(self) -> int:
        """When the heart is to hear again that the brain is well."""
        return self._renewed_at_ms + self._plan.timers.warntime_ms // 2

    def renew(self, now: int) -> None:
        """The brain is well: let it beat on."""
        self._renewed_at_ms = now
        if self._end is not None:
            self._end.send(Renew(self._hears()), latest=True)

    def identify(self, incarnation: Incarnation) -> None:
        """Speak for another one from now on; it has said nothing yet."""
        self.incarnation = incarnation
        self._carried = None
        if self._end is not None:
            self._end.send(Identify(incarnation))

    def carry(self, snapshot: Snapshot) -> None:
        """Bring this to the peer from now on."""
        self._carried = Carry(snapshot.version, snapshots.encode(snapshot))
        if self._end is not None:
            self._end.send(self._carried, latest=True)

    # -- hearing -----------------------------------------------------------------

    def hear(self) -> None:
        """All that the heart has said by now."""
        if self._end is None:
            return
        for message, _ in self._end.received():
            match message:
                case SnapshotHeard():
                    self._take_snapshot(message)
                case HeartFigures():
                    self._figures.heart = message
                case _:
                    self._take(message)
        if not self._end.is_open:
            self._end = None  # the host notices, too, and forks another

    def _take_snapshot(self, message: SnapshotHeard) -> None:
        snapshot = snapshot_of(self._plan, self._plan.peer_of(self._node), message)
        if snapshot is None:
            self._figures.counters["snapshots_refused"] += 1
            return
        for fact in differences(self.peer, snapshot):
            self._observed(snapshot.node, fact)
        self.peer = snapshot
        self._figures.peer_snapshot_at_ms = now_ms()
        self._put(SnapshotReceived(snapshot))
