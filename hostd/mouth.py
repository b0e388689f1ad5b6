"""What this heart says to the peer: sealed beats, and our snapshot behind them.

Decides what a beat tells, and how the snapshot is brought to a peer that
lacks it: all parts at once on every link that takes many frames, one part
after a beat on a narrow one.  Refuses to know when a beat is due and whether
we may speak at all, which the heart does, and what the snapshot says.
"""

import os
from collections.abc import Sequence

from hostd.channel import Channel
from hostd.core import wire
from hostd.core.plan import Timers
from hostd.core.terms import Incarnation
from hostd.ear import Ear
from hostd.timekeeping import SentTimes


class Mouth:
    """Of one heart, for one incarnation after another; before the first it has nothing to say.

    ``ear``: what the peer has last been heard to say.  ``channels``: the
    links of the plan.
    """

    def __init__(self, cluster: wire.Cluster, node: str, timers: Timers, ear: Ear, channels: Sequence[Channel]) -> None:
        self.hears = 0
        """Bit i set if the peer is heard on link i of the plan."""
        self._cluster, self._node, self._timers = cluster, node, timers
        self._ear, self._channels = ear, channels
        self._sealer: wire.Sealer | None = None
        self._sent = SentTimes()
        self._version = 0
        self._body = b""
        self._wide_at_ms = 0
        """When the snapshot may next go out on all wide links."""
        self._wide_to = wire.NOTHING_HEARD[:2]

    # -- in whose name, and what ------------------------------------------------------

    @property
    def is_identified(self) -> bool:
        """There is an incarnation to speak for."""
        return self._sealer is not None

    def identify(self, incarnation: Incarnation, now: int) -> None:
        """Speak for this incarnation from now on, under a new salt.

        The generation is the time since boot: higher than that of any heart
        before, since an incarnation does not outlive a boot.
        """
        before = self._sealer.generation if self._sealer is not None else 0
        salt = wire.Salt(max(now, before + 1), os.urandom(wire.RANDOM_SIZE))
        self._sealer = wire.Sealer(self._cluster, self._node, incarnation, salt)
        self._sent = SentTimes()
        self._version, self._body, self.hears = 0, b"", 0
        for channel in self._channels:
            channel.forget_parts()

    def carry(self, version: int, body: bytes) -> None:
        """The snapshot to bring to the peer from now on."""
        self._version, self._body = version, body
        self._wide_at_ms = 0

    def sent_at(self, echo: wire.Stamp) -> int | None:
        """When we sent the frame that the peer echoes; None if that was not this
        heart in its present incarnation, or too long ago."""
        sealer = self._sealer
        if sealer is None or echo[:2] != (sealer.incarnation, sealer.generation):
            return None
        return self._sent.of(echo.sequence)

    # -- beats ------------------------------------------------------------------------

    def beat(self, due: Sequence[Channel], now: int, *, brain_gone: bool) -> None:
        """One sealed beat for all links that are due; a narrow one brings a part behind it if the brain is well."""
        beat = wire.Heartbeat(
            version=self._version,
            echo=self._ear.newest,
            holds=self._ear.held,
            hears=self.hears,
            brain_gone=brain_gone,
        )
        frame = self._seal(beat, now)
        for channel in due:
            channel.send(frame)
        if not brain_gone and self._peer_lacks_snapshot(now):
            for channel in due:
                if channel.is_narrow:
                    self._carry_narrow(channel, now)

    def _seal(self, payload: wire.Heartbeat | wire.Part, now: int) -> bytes:
        assert self._sealer is not None
        frame = self._sealer.seal(payload, self._ear.peer_speaks)
        self._sent.note(self._sealer.sequence, now)
        return frame

    # -- the snapshot -----------------------------------------------------------------

    def owes_snapshot(self, now: int) -> bool:
        """The peer lacks it, and has had the time to answer since it last went out on the wide links."""
        if self._wide_to != self._ear.life:
            self._wide_to, self._wide_at_ms = self._ear.life, 0
        return now >= self._wide_at_ms and self._peer_lacks_snapshot(now)

    def carry_wide(self, now: int) -> None:
        """All parts at once on every link that takes many frames."""
        wide = [channel for channel in self._channels if channel.is_open and not channel.is_narrow]
        if not wide:
            return
        self._wide_at_ms = now + self._timers.keepalive_ms * 3 // 2
        for part in wire.split(self._version, self._body, min(channel.mtu for channel in wide)):
            frame = self._seal(part, now)
            for channel in wide:
                channel.send(frame)

    def _carry_narrow(self, channel: Channel, now: int) -> None:
        """One part after a beat, where the peer hears none of our wide links or one
        part is enough."""
        hears = self._ear.beat.hears if self._ear.beat is not None else 0
        is_heard_wide = any(
            hears >> other.index & 1 for other in self._channels if not other.is_narrow and other.is_usable
        )
        if is_heard_wide and len(self._body) > wire.part_room(channel.mtu):
            return
        part = channel.next_part(self._version, self._body, self._held_by_peer())
        if part is not None and channel.send(self._seal(part, now)):
            channel.part_was_sent()

    def _peer_lacks_snapshot(self, now: int) -> bool:
        """The peer is there, and its newest beat does not show that it has our version."""
        is_there = self._ear.beat is not None and now - self._ear.beat_at_ms <= self._timers.deadtime_ms
        return is_there and self._held_by_peer() < self._version

    def _held_by_peer(self) -> int:
        """The version of ours that the peer holds, 0 if none of this incarnation."""
        beat = self._ear.beat
        if beat is None or self._sealer is None or beat.echo.incarnation != self._sealer.incarnation:
            return 0
        return beat.holds
