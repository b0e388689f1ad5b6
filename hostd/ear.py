"""What this heart has heard of the peer.

Decides what is told to the brain of a frame that came in, and what our own
beats echo of it.  Refuses to know links beyond their names, and what the
brain makes of it.
"""

from collections.abc import Callable

from hostd.core import wire
from hostd.core.terms import Incarnation
from hostd.messages import FrameHeard, SnapshotHeard

SentAt = Callable[[wire.Stamp], int | None]
"""When we sent the frame that the peer echoes; None if that was in another life of ours."""


class Ear:
    """The newest beat and the newest complete snapshot of the peer."""

    def __init__(self, cluster: wire.Cluster, peer: str, sent_at: SentAt) -> None:
        self.beat: wire.Heartbeat | None = None
        """The newest by its stamp, whatever link brought it."""
        self.beat_at_ms = 0
        """When it came."""
        self.peer_speaks: int | None = None
        self.snapshot: SnapshotHeard | None = None
        self._peer = peer
        self._sent_at = sent_at
        self._stamp = wire.NOTHING_HEARD
        self._echo_sent_at_ms: int | None = None
        self._opener = wire.Opener(cluster, peer)
        self._assembler = wire.Assembler()

    @property
    def newest(self) -> wire.Stamp:
        """Of all frames that were opened: what our beats echo."""
        return self._opener.newest

    @property
    def held(self) -> int:
        """The version of the newest complete snapshot of the peer's present life, or 0."""
        incarnation, version = self._assembler.complete
        return version if incarnation == self.newest.incarnation else 0

    @property
    def life(self) -> tuple[Incarnation, int]:
        """Incarnation and generation of the newest beat: a new one starts with nothing."""
        return self._stamp[:2]

    def hear(self, raw: bytes, link: str, at_ms: int) -> FrameHeard | SnapshotHeard | wire.Refusal | None:
        """What to tell the brain of a frame: every beat, and a snapshot that its
        last part completes.  None: a part of more to come."""
        frame = self._opener.open(raw, link)
        if isinstance(frame, wire.Refusal):
            return frame
        if isinstance(frame.payload, wire.Part):
            return self._hear_part(frame.stamp.incarnation, frame.payload)
        if frame.stamp > self._stamp:
            self.beat, self.beat_at_ms, self.peer_speaks = frame.payload, at_ms, frame.speaks
            self._stamp = frame.stamp
            self._echo_sent_at_ms = self._sent_at(frame.payload.echo)
        return self._tell_beat(link, at_ms)

    def _tell_beat(self, link: str, at_ms: int) -> FrameHeard:
        """A beat that came behind a newer one of a faster link proves that its own
        link works; what the peer says is always told from the newest."""
        assert self.beat is not None
        return FrameHeard(
            link=link,
            at_ms=at_ms,
            sender=self._peer,
            incarnation=self._stamp.incarnation,
            echo_sent_at_ms=self._echo_sent_at_ms,
            version=self.beat.version,
            hears=self.beat.hears,
            brain_gone=self.beat.brain_gone,
        )

    def _hear_part(self, incarnation: Incarnation, part: wire.Part) -> SnapshotHeard | None:
        body = self._assembler.add(incarnation, part)
        if body is None:
            return None
        self.snapshot = SnapshotHeard(self._peer, incarnation, part.version, body)
        return self.snapshot
