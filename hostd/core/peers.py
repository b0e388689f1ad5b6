"""Who is heard?  Decides, from frames and their times, whether the peer lives
as far as the links can tell, and which of its words is the newest.

Refuses to know what silence means: that is ``pair``'s and ``fencing``'s.

*Heard* is bidirectional and fresh (PROTOCOL.md section 1): the time that
counts is when **we sent** the newest frame that the peer has echoed, so a
one-way link, a delayed frame, a backlog in a serial buffer or a replay of an
earlier life never counts as life.  Silence counts only while we listen.
"""

from typing import Final

from hostd.core.events import FrameReceived, LinkChanged
from hostd.core.plan import Plan
from hostd.core.snapshot import Snapshot
from hostd.core.terms import NEVER_BORN, Carrier, Incarnation, Mode

EVIDENCE_WINDOW_MS: Final = 100
"""Carriers that fall within this time of each other fall for one cause."""


class LinkHearing:
    """One link as this node hears it."""

    __slots__ = (
        "carrier",
        "carrier_fell_at_ms",
        "detail",
        "heard_at_ms",
        "name",
        "receive_up",
        "send_told",
        "send_up",
        "usable",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.usable = False
        self.detail = ""
        self.carrier = Carrier.UNKNOWN
        self.carrier_fell_at_ms: int | None = None
        self.heard_at_ms: int | None = None
        self.receive_up = False
        self.send_up = False
        self.send_told = False


class Peers:
    """What is known of the one peer, and on which links."""

    __slots__ = (
        "brain_gone_at_ms", "dead", "deaf_until_at_ms", "echo_at_ms", "echo_incarnation", "frame_at_ms", "hearing",
        "incarnation", "links", "listening_since_at_ms", "peer", "plan", "snapshot", "version",
    )  # fmt: skip

    def __init__(self, plan: Plan, peer: str, now_ms: int) -> None:
        self.plan = plan
        self.peer = peer
        self.links = [LinkHearing(link.name) for link in plan.links]
        self.hearing = False
        self.listening_since_at_ms = now_ms
        self.deaf_until_at_ms = 0
        self.incarnation: Incarnation = NEVER_BORN
        self.dead: Incarnation = NEVER_BORN
        self.version = 0
        self.snapshot: Snapshot | None = None
        self.echo_at_ms: int | None = None
        self.echo_incarnation: Incarnation = NEVER_BORN
        self.frame_at_ms: int | None = None
        self.brain_gone_at_ms: int | None = None

    # -- what happened ---------------------------------------------------------

    def take_frame(self, frame: FrameReceived) -> None:
        """Count a frame, unless it is of a dead or superseded life."""
        if frame.sender != self.peer or frame.incarnation <= self.dead or frame.incarnation < self.incarnation:
            return
        if frame.incarnation > self.incarnation:
            self._supersede(frame.incarnation, frame.at_ms)
        self.version = max(self.version, frame.version)
        self.frame_at_ms = max(frame.at_ms, self.frame_at_ms or frame.at_ms)
        for index, link in enumerate(self.links):
            link.send_up = bool(frame.hears >> index & 1)
            if link.name == frame.link:
                link.heard_at_ms = max(frame.at_ms, link.heard_at_ms or frame.at_ms)
        if not frame.brain_gone:
            self.brain_gone_at_ms = None
        elif self.brain_gone_at_ms is None:
            self.brain_gone_at_ms = frame.at_ms
        elif frame.at_ms - self.brain_gone_at_ms > self.plan.timers.warntime_ms:
            return  # a heart without a brain counts for one warntime and no longer
        if frame.echo_sent_at_ms is not None:
            self.echo_at_ms = max(frame.echo_sent_at_ms, self.echo_at_ms or frame.echo_sent_at_ms)
            self.echo_incarnation = frame.incarnation

    def take_snapshot(self, now_ms: int, snapshot: Snapshot) -> None:
        """Keep the newest word of the newest life."""
        if snapshot.node != self.peer or snapshot.incarnation <= self.dead or snapshot.incarnation < self.incarnation:
            return
        if snapshot.incarnation > self.incarnation:
            self._supersede(snapshot.incarnation, now_ms)
        if self.snapshot is None or self.snapshot.incarnation != snapshot.incarnation or (
            snapshot.version > self.snapshot.version
        ):  # fmt: skip
            self.snapshot = snapshot
            self.version = max(self.version, snapshot.version)

    def take_link(self, change: LinkChanged) -> bool:
        """Note it; True if the medium itself opened or went away (not only its carrier)."""
        turned = False
        for link in self.links:
            if link.name == change.link:
                if change.carrier is Carrier.DOWN and link.carrier is Carrier.UP:
                    link.carrier_fell_at_ms = change.at_ms
                elif change.carrier is not Carrier.DOWN:
                    link.carrier_fell_at_ms = None
                turned = link.usable != change.usable or link.detail != change.detail
                link.usable, link.carrier, link.detail = change.usable, change.carrier, change.detail
        return turned

    def listen_anew(self, now_ms: int, *, hearing: bool) -> None:
        """We could not hear until now (dead heart, own pause, new life): no
        silence from before counts."""
        self.hearing = hearing
        self.listening_since_at_ms = self.deaf_until_at_ms = now_ms

    def forget_echoes(self) -> None:
        """We are a new incarnation: what was echoed was another's."""
        self.echo_at_ms = None
        self.echo_incarnation = NEVER_BORN

    def declare_dead(self, incarnation: Incarnation) -> None:
        """That life and all before it are over for ever, whatever still arrives."""
        self.dead = max(self.dead, incarnation)
        if self.snapshot is not None and self.snapshot.incarnation <= self.dead:
            self.snapshot = None

    def _supersede(self, incarnation: Incarnation, at_ms: int) -> None:
        """A new life: the old one is over, and silence counts from here (its
        first frames cannot echo us yet)."""
        assert incarnation > self.incarnation
        self.listening_since_at_ms = max(self.listening_since_at_ms, at_ms)
        self.incarnation = incarnation
        self.version = 0
        self.brain_gone_at_ms = None

    # -- what follows ----------------------------------------------------------

    def silence_ms(self, now_ms: int) -> int:
        """For how long the peer has not been heard while we listened."""
        if not self.hearing:
            return 0
        return max(0, now_ms - max(self.echo_at_ms or 0, self.listening_since_at_ms))

    def silence_limit_ms(self) -> int:
        """The silence after which the peer is taken for lost: deadtime; longer
        if it said that it only restarts, warntime if its power was seen to go."""
        timers = self.plan.timers
        last = self.last_word
        if last is not None and last.mode is Mode.RESTARTING:
            return max(last.away_ms, timers.deadtime_ms)
        if self.power_seen_to_go:
            return timers.warntime_ms
        return timers.deadtime_ms

    def is_heard(self, now_ms: int) -> bool:
        """Both directions work, now, with the newest life of the peer, and that is not known to be dead."""
        return (
            self.hearing
            and self.incarnation > self.dead
            and self.echo_at_ms is not None
            and self.echo_incarnation == self.incarnation
            and now_ms - self.echo_at_ms < self.silence_limit_ms()
        )

    @property
    def is_answered(self) -> bool:
        """Nothing made us deaf since what was echoed last.  After an own pause,
        what waits in our buffers is from before it: the peer may have given us
        up meanwhile."""
        return (self.echo_at_ms or 0) >= self.deaf_until_at_ms

    @property
    def last_word(self) -> Snapshot | None:
        """The newest snapshot of the newest known life, however old."""
        if self.snapshot is not None and self.snapshot.incarnation == self.incarnation:
            return self.snapshot
        return None

    def word(self, now_ms: int) -> Snapshot | None:
        """What the peer says now: heard, its brain present, and nothing newer
        announced than what we have.  Only on this may anything be decided."""
        last = self.last_word
        if last is None or last.version < self.version or not self.is_answered:
            return None
        if self.brain_gone_at_ms is not None or not self.is_heard(now_ms):
            return None
        return last

    @property
    def power_seen_to_go(self) -> bool:
        """Every direct link (and serial line that can tell) lost its carrier
        within a moment, and nothing was heard after it (PROTOCOL.md section 5,
        quick evidence).  Needs two links, one of them not direct."""
        fell: list[int] = []
        for link, heard in zip(self.plan.links, self.links, strict=True):
            if not link.direct and not (link.modem_lines and heard.carrier is not Carrier.UNKNOWN):
                continue
            if heard.carrier is not Carrier.DOWN or heard.carrier_fell_at_ms is None:
                return False
            fell.append(heard.carrier_fell_at_ms)
        directs = sum(link.direct for link in self.plan.links)
        if not directs or directs == len(self.plan.links) or max(fell) - min(fell) > EVIDENCE_WINDOW_MS:
            return False
        return self.frame_at_ms is None or self.frame_at_ms <= max(fell) + EVIDENCE_WINDOW_MS

    def link_limit_ms(self) -> int:
        """A link that is quiet for this long is down: sooner than deadtime, so
        that its loss is reported within it."""
        timers = self.plan.timers
        return max(timers.deadtime_ms - timers.warntime_ms, 3 * timers.keepalive_ms)

    def refresh_links(self, now_ms: int) -> list[LinkHearing]:
        """Bring ``receive_up`` up to date; the links on which it changed."""
        changed = []
        limit = self.link_limit_ms()
        for link in self.links:
            up = link.heard_at_ms is not None and now_ms - link.heard_at_ms < limit
            if up != link.receive_up and (self.hearing or up):
                link.receive_up = up
                changed.append(link)
        return changed

    def hears_mask(self) -> int:
        """Bit i: the peer is heard on link i of the plan."""
        return sum(1 << index for index, link in enumerate(self.links) if link.receive_up)

    def summary(self, now_ms: int) -> tuple[object, ...]:
        """Everything here that others decide from; equal as long as nothing of it has moved."""
        word = self.word(now_ms)
        last = self.last_word
        silence_ms = self.silence_ms(now_ms)
        timers = self.plan.timers
        limit_ms = self.link_limit_ms()
        return (
            self.incarnation,
            last.version if last is not None else None,
            word is None,
            self.is_heard(now_ms),
            self.is_answered,
            silence_ms >= timers.warntime_ms,
            silence_ms >= self.silence_limit_ms(),
            silence_ms >= timers.initdead_ms,
            self.power_seen_to_go,
            *(link.heard_at_ms is not None and now_ms - link.heard_at_ms < limit_ms for link in self.links),
            *(link.send_up for link in self.links),
        )

    def deadline_at_ms(self, now_ms: int) -> int | None:
        """When the silence so far will matter next, if it goes on."""
        if not self.hearing:
            return None
        since = max(self.echo_at_ms or 0, self.listening_since_at_ms)
        timers = self.plan.timers
        marks = (timers.warntime_ms, self.silence_limit_ms(), timers.initdead_ms)
        return min((since + mark for mark in marks if since + mark > now_ms), default=None)
