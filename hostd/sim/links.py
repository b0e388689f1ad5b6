"""The media between the two nodes, and what they do to a frame.

Decides what becomes of each frame on its way: lost, late, doubled, held in a
buffer and let go much later, or replayed from an earlier life.  Knows
nothing of what frames mean.
"""

import random
from collections import deque
from typing import Final, NamedTuple, Protocol

from hostd.core.snapshot import Snapshot
from hostd.core.terms import Incarnation
from hostd.sim.queue import Queue

HELD_MAX: Final = 40
"""Frames that a serial buffer holds (4 kB of about 100 bytes each); later ones are lost."""

REMEMBERED_MAX: Final = 64
"""Frames per direction that the world keeps in order to replay one."""


class Beat(NamedTuple):
    """The number that one heart gave to one frame; ``life`` stands for its salt."""

    incarnation: Incarnation
    life: int
    sequence: int


class Frame(NamedTuple):
    """A heartbeat on the wire, with the snapshot if the peer lacks it."""

    sender: str
    beat: Beat
    echo: Beat | None
    version: int
    hears: int
    brain_gone: bool
    has: tuple[Incarnation, int] | None
    """The newest snapshot of the receiver that the sender holds."""
    snapshot: Snapshot | None


class Receiver(Protocol):
    """The far end of a link."""

    def arrive(self, link: int, frame: Frame) -> None: ...


class Way:
    """One direction of one link."""

    __slots__ = ("cut", "held", "lan_cut", "recent", "to")

    def __init__(self, to: Receiver) -> None:
        self.to = to
        self.cut = False
        self.lan_cut = False
        """The LAN that this link runs over is dead."""
        self.held: list[Frame] | None = None
        self.recent: deque[Frame] = deque(maxlen=REMEMBERED_MAX)


class Medium:
    """One link: both ways of it, and its weather."""

    __slots__ = (
        "copies", "delay_ms", "direct", "index", "jitter_ms", "loss", "name", "on_lan", "queue", "rng", "ways"
    )  # fmt: skip

    def __init__(self, index: int, name: str, direct: bool, queue: Queue, rng: random.Random) -> None:
        self.index = index
        self.name = name
        self.direct = direct
        self.on_lan = name.startswith("lan")
        """Shares the fate of the client LAN."""
        self.queue = queue
        self.rng = rng
        self.ways: dict[str, Way] = {}
        """By sender."""
        self.mend()

    def mend(self) -> None:
        """The weather of a good day; both directions whole, buffers let go."""
        serial = self.name.startswith("serial")
        self.delay_ms = 12 if serial else 1
        self.jitter_ms = 4 if serial else 2
        self.loss = 0.0
        self.copies = 0.0
        for way in self.ways.values():
            way.cut = False
            self.release(way)

    def carry(self, sender: str, frame: Frame) -> None:
        """Put a frame on the line."""
        way = self.ways[sender]
        way.recent.append(frame)
        if way.cut or way.lan_cut or (self.loss and self.rng.random() < self.loss):
            return
        self._deliver(way, frame)
        if self.copies and self.rng.random() < self.copies:
            self._deliver(way, frame)

    def _deliver(self, way: Way, frame: Frame) -> None:
        if way.held is not None:
            if len(way.held) < HELD_MAX:
                way.held.append(frame)
            return
        late_ms = self.delay_ms + int(self.rng.random() * (self.jitter_ms + 1))
        if frame.snapshot is not None:
            late_ms += self.delay_ms  # a snapshot is several frames long
        self.queue.after(late_ms, self._arrived, way, frame)

    def _arrived(self, way: Way, frame: Frame) -> None:
        if not way.cut and not way.lan_cut:
            way.to.arrive(self.index, frame)

    def hold(self, way: Way) -> None:
        """From now on frames of this direction wait in a buffer."""
        if way.held is None:
            way.held = []

    def release(self, way: Way) -> None:
        """The buffer lets go of everything at once."""
        held, way.held = way.held, None
        for frame in held or ():
            self.queue.after(1, self._arrived, way, frame)

    def replay(self, sender: str, back: int) -> None:
        """Deliver a copy of the frame that was sent ``back`` frames ago (at most what is remembered)."""
        way = self.ways[sender]
        if way.recent:
            self.queue.after(1, self._arrived, way, way.recent[-min(back + 1, len(way.recent))])
