"""The beating process of one simulated node.

Decides what the real heart decides: when to beat, what to echo, which frame
is too old to be believed, when the snapshot has to follow.  It turns frames
into ``FrameReceived`` and ``SnapshotReceived`` to the letter of
``events.py`` and knows nothing of what a snapshot says.
"""

from collections.abc import Callable
from typing import Protocol

from hostd.core.events import AnyEvent, FrameReceived, SnapshotReceived
from hostd.core.plan import Plan
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Incarnation
from hostd.sim.links import Beat, Frame, Medium


class Body(Protocol):
    """What a heart needs of the machine that it beats in."""

    name: str

    def clock_ms(self) -> int: ...
    def brain_renews_until_ms(self) -> int: ...
    def to_brain(self, event: AnyEvent) -> None: ...


class Heart:
    """One life of the process; a heart that returns is a new object."""

    __slots__ = (
        "_body", "_carried", "_echo", "_gone_until_ms", "_heard_at_ms", "_incarnation",
        "_life", "_media", "_next_life", "_peer_has", "_per_link", "_plan", "_received", "_sent_at_ms",
        "_sequence",
    )  # fmt: skip

    def __init__(self, body: Body, plan: Plan, media: list[Medium], next_life: Callable[[], int]) -> None:
        self._body = body
        self._plan = plan
        self._media = media
        self._next_life = next_life
        self._life = 0
        self._incarnation: Incarnation | None = None
        self._sequence = 0
        self._sent_at_ms: list[int] = []
        self._carried: Snapshot | None = None
        self._gone_until_ms: int | None = None
        self._echo: Beat | None = None
        self._per_link: list[Beat | None] = [None] * len(media)
        self._heard_at_ms: list[int | None] = [None] * len(media)
        self._received: Snapshot | None = None
        self._peer_has: tuple[Incarnation, int] | None = None

    # -- what the brain and the host tell it --------------------------------

    def identify(self, incarnation: Incarnation) -> None:
        """Speak for a new life: new salt, sequence from 1, old snapshot forgotten."""
        if incarnation == self._incarnation:
            return
        self._incarnation = incarnation
        self._life = self._next_life()
        self._sequence = 0
        self._sent_at_ms = []
        self._carried = None
        self._gone_until_ms = None

    def brain_gone(self) -> None:
        self._gone_until_ms = self._body.clock_ms() + self._plan.timers.warntime_ms

    def carry(self, snapshot: Snapshot) -> None:
        """A new snapshot goes out at once: a planned move waits for several of them."""
        self._carried = snapshot
        self.beat()

    def last_snapshot(self) -> Snapshot | None:
        """What a heart that outlived its brain hands to the new one."""
        return self._received

    # -- beating -------------------------------------------------------------

    def beat(self) -> None:
        """Send one frame on every link, unless the brain has not renewed us."""
        if self._incarnation is None:
            return
        now_ms = self._body.clock_ms()
        gone = self._gone_until_ms is not None
        if now_ms > (self._gone_until_ms if self._gone_until_ms is not None else self._body.brain_renews_until_ms()):
            return
        self._sequence += 1
        self._sent_at_ms.append(now_ms)
        carried = self._carried
        version = carried.version if carried else 0
        lacking = carried if carried and self._peer_has != (self._incarnation, version) else None
        received = self._received
        hears = 0
        for i, heard_at_ms in enumerate(self._heard_at_ms):
            if heard_at_ms is not None and now_ms - heard_at_ms < self._plan.timers.deadtime_ms:
                hears |= 1 << i
        frame = Frame(
            self._body.name,
            Beat(self._incarnation, self._life, self._sequence),
            self._echo,
            version,
            hears,
            gone,
            (received.incarnation, received.version) if received else None,
            lacking,
        )
        for medium in self._media:
            medium.carry(self._body.name, frame)

    # -- hearing -------------------------------------------------------------

    def hear(self, link: int, frame: Frame) -> None:
        """Judge one frame: never an older life than any before, nor an older frame on the same link."""
        newest, last = self._echo, self._per_link[link]
        beat = frame.beat
        if newest is not None and beat[:2] < newest[:2]:
            return
        if last is not None and beat <= last:
            return
        self._per_link[link] = beat
        if newest is None or beat > newest:
            self._echo = beat
            self._peer_has = frame.has
        now_ms = self._body.clock_ms()
        self._heard_at_ms[link] = now_ms
        echo_sent_at_ms = None
        echo = frame.echo
        if echo is not None and echo.life == self._life and echo.incarnation == self._incarnation:
            echo_sent_at_ms = self._sent_at_ms[echo.sequence - 1]
        self._body.to_brain(
            FrameReceived(
                self._media[link].name,
                now_ms,
                frame.sender,
                beat.incarnation,
                echo_sent_at_ms,
                frame.version,
                frame.hears,
                frame.brain_gone,
            )
        )
        self._take(frame.snapshot)

    def _take(self, snapshot: Snapshot | None) -> None:
        held = self._received
        if snapshot is None:
            return
        if held and (snapshot.incarnation, snapshot.version) <= (held.incarnation, held.version):
            return
        self._received = snapshot
        self._body.to_brain(SnapshotReceived(snapshot))
