"""The beating process: says on every link, on time, that this node lives, and
hears the peer say the same.

Decides when to speak and when to fall silent:

    silent ──Identify──▶ beating ──brain ends──▶ says "brain gone" ──warntime──▶ silent
      ▲                   │   ▲ Renew                   └──Identify──▶ beating
      └─no Renew: warntime┘   └──────────── silent

Refuses to know what a snapshot says, who is alive, and what follows from it;
what a beat says is put together in ``mouth``, what is heard is opened in
``ear``.  It stamps what arrives and hands it to the brain; it keeps the peer's
last snapshot for the next brain.  One thread, one poll loop, no log, no file: what
it has to say goes to the brain as messages, which may be dropped but never
waited for.
"""

import enum
import gc
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import Final, Self

from hostd import messages, realtime
from hostd.api import LinkSettings
from hostd.channel import Channel, OpenLink
from hostd.clock import now_ms
from hostd.config import Configuration
from hostd.core import wire
from hostd.core.plan import Timers
from hostd.ear import Ear
from hostd.mouth import Mouth
from hostd.timekeeping import Schedule, Worst

MESSAGES_MAX: Final = 64
"""Read from one process per wake-up."""
FLOOD: Final = 512
"""Frames in one wake-up: with so many the heart pauses a moment, so that a
flooded network cannot make it keep a core for itself."""
FIGURES_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class HeartSettings:
    """All that a heart has to know; the same for every heart of one host.

    ``nodes``: both names, in any order.  ``keys``: the cluster's, newest
    first.  ``links`` in the order of the plan.  ``host_pid``: the process
    that forks the heart; the heart dies with it.
    """

    cluster: str
    node: str
    nodes: tuple[str, ...]
    keys: tuple[bytes, ...]
    timers: Timers
    links: tuple[LinkSettings, ...]
    host_pid: int

    @classmethod
    def of(cls, configuration: Configuration, keys: tuple[bytes, ...]) -> Self:
        """As conf.d says.  To be called by the host, in its own process."""
        plan = configuration.plan
        return cls(
            plan.cluster,
            configuration.node,
            plan.nodes,
            keys,
            plan.timers,
            configuration.links,
            os.getpid(),
        )


def run(settings: HeartSettings, open_link: OpenLink, host_end: socket.socket, brain_end: socket.socket | None) -> int:
    """Be the heart until the host ends; the exit code.

    To be called in a child freshly forked by the host, with nothing else in
    it.  ``open_link``: the registry's.  ``brain_end``: None if no brain lives
    yet; the end to one comes with ``BrainForked``.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # They go to everybody in a terminal or a unit; the host answers them,
        # and the heart must beat until the node has left in good order.
        signal.signal(number, signal.SIG_IGN)
    if not realtime.die_with(settings.host_pid):
        return 0
    heart = Heart(settings, open_link, host_end, brain_end)
    gc.collect()
    gc.freeze()
    heart.locked = realtime.lock_memory()
    heart.realtime = realtime.schedule()
    return heart.beat_until_the_host_ends()


class Voice(enum.Enum):
    """What a beat would say now."""

    SILENT = 1  # no incarnation to speak for, a brain that hangs, or gone for too long
    BEATING = 2  # the brain is well
    BRAIN_GONE = 3  # it ended less than a warntime ago, and may be back in time


class Heart:
    """The state of one beating process."""

    def __init__(
        self,
        settings: HeartSettings,
        open_link: OpenLink,
        host_end: socket.socket,
        brain_end: socket.socket | None,
    ) -> None:
        now = now_ms()
        self.realtime = False
        self.locked = False
        self._settings = settings
        self._timers = settings.timers
        self._host = host_end
        self._host_lives = True
        self._brain: socket.socket | None = None
        self._channels = [Channel(index, link, open_link, now) for index, link in enumerate(settings.links)]
        self._poll: tuple[tuple[int, ...], select.poll] = ((), select.poll())

        self._schedule = Schedule(now, settings.timers.keepalive_ms)
        self._figures_at_ms = now + FIGURES_MS
        self._late = Worst()
        self._beat_at_ms = 0

        self._renewed_at_ms: int | None = None
        self._gone_until_ms = 0
        cluster = wire.Cluster(settings.cluster, settings.nodes, settings.keys)
        (peer,) = (node for node in settings.nodes if node != settings.node)
        self._ear = Ear(cluster, peer, lambda echo: self._mouth.sent_at(echo))
        self._mouth = Mouth(cluster, settings.node, settings.timers, self._ear, self._channels)
        self._snapshot_told = True
        if brain_end is not None:
            self._meet_brain(brain_end)

    # -- the loop -----------------------------------------------------------------

    def beat_until_the_host_ends(self) -> int:
        while self._host_lives:
            self._turn()
        return 0

    def _turn(self) -> None:
        """Wait, read all that came, then beat if it is time: so the beat tells the newest."""
        ready = self._wait()
        frames = sum(self._listen(channel) for channel in self._channels if channel.fileno() in ready)
        if self._host.fileno() in ready:
            self._hear_host()
        if self._brain is not None and self._brain.fileno() in ready:
            self._hear_brain(self._brain)
        now = now_ms()
        if now >= self._schedule.due_at_ms:
            self._keep_time(now)
        if self._mouth.owes_snapshot(now) and self._voice(now) is Voice.BEATING:
            self._mouth.carry_wide(now)
        if frames >= FLOOD:
            time.sleep(0.001)

    def _wait(self) -> set[int]:
        """File descriptors on which something happened, until the next beat is due."""
        ends = [self._host.fileno()] + ([self._brain.fileno()] if self._brain is not None else [])
        fds = (*ends, *(channel.fileno() for channel in self._channels))
        known, poll = self._poll
        if fds != known:
            poll = select.poll()
            for fd in fds:
                if fd >= 0:
                    poll.register(fd, select.POLLIN)
            self._poll = (fds, poll)
        return {fd for fd, _ in poll.poll(max(0, self._schedule.due_at_ms - now_ms()))}

    # -- beating --------------------------------------------------------------------

    def _keep_time(self, now: int) -> None:
        """One turn of the schedule: the beat first, then what can wait."""
        self._late.note(self._schedule.advance(now))
        voice = self._voice(now)
        if voice is not Voice.SILENT:
            self._beat(now, voice)
        if voice is Voice.BEATING:
            self._beat_at_ms = now
        for channel in self._channels:
            channel.tick(now)
        self._tell_links(now)
        self._tell_snapshot()
        if now >= self._figures_at_ms:
            self._figures_at_ms = now + FIGURES_MS
            self._host_lives = os.getppid() == self._settings.host_pid
            self._tell_figures()

    def _voice(self, now: int) -> Voice:
        if not self._mouth.is_identified:
            return Voice.SILENT
        if self._brain is None or self._renewed_at_ms is None:  # ended, and the next has not identified itself
            return Voice.BRAIN_GONE if now < self._gone_until_ms else Voice.SILENT
        is_well = now - self._renewed_at_ms <= self._timers.warntime_ms
        return Voice.BEATING if is_well else Voice.SILENT

    def _beat(self, now: int, voice: Voice) -> None:
        """On the links that are due; a slower one sits out some turns."""
        due = [channel for channel in self._channels if channel.next_turn <= self._schedule.turn]
        for channel in due:
            channel.next_turn = self._schedule.turn + self._schedule.turns_in(channel.keepalive_ms)
        if due:
            self._mouth.beat(due, now, brain_gone=voice is Voice.BRAIN_GONE)

    # -- hearing the peer ---------------------------------------------------------------

    def _listen(self, channel: Channel) -> int:
        """Read, open and hand on all that a link brought; how many frames there were."""
        frames = channel.received()
        at = now_ms()
        for frame in frames:
            said = self._ear.hear(frame, channel.name, at)
            if isinstance(said, wire.Refusal):
                channel.refused += said is not wire.Refusal.OWN
                continue
            channel.heard(at, self._ear.newest[:2], self._timers.deadtime_ms)
            if isinstance(said, messages.FrameHeard):
                self._tell(said)
            elif said is not None:
                self._snapshot_told = False
                self._tell_snapshot()
        return len(frames)

    # -- the brain ----------------------------------------------------------------------

    def _meet_brain(self, end: socket.socket) -> None:
        """A brain came: it knows nothing yet."""
        end.setblocking(False)
        self._brain = end
        self._renewed_at_ms = None
        self._snapshot_told = False
        for channel in self._channels:
            channel.told = None
        self._tell_links(now_ms())
        self._tell_snapshot()

    def _lose_brain(self) -> None:
        """The brain is gone: say so for a warntime, unless we were silent already."""
        if self._brain is None:
            return
        now = now_ms()
        if self._voice(now) is Voice.BEATING:
            self._gone_until_ms = now + self._timers.warntime_ms
        self._brain.close()
        self._brain = None

    def _hear_brain(self, end: socket.socket) -> None:
        for _ in range(MESSAGES_MAX):
            try:
                received = messages.receive(end)
            except BlockingIOError:
                return
            if received is None:
                self._lose_brain()
                return
            match received[0]:
                case messages.Identify(incarnation=incarnation):
                    self._renewed_at_ms = now_ms()
                    self._mouth.identify(incarnation, self._renewed_at_ms)
                case messages.Renew(hears=hears):
                    self._renewed_at_ms, self._mouth.hears = now_ms(), hears
                case messages.Carry(version=version, body=body):
                    self._mouth.carry(version, body)
                case other:
                    raise AssertionError(other)

    def _tell(self, message: messages.AnyMessage) -> bool:
        """To the brain; False if there is none or it does not read."""
        return self._brain is not None and messages.send(self._brain, message)

    def _tell_links(self, now: int) -> None:
        for channel in self._channels:
            state = channel.state()
            if state != channel.told and self._tell(messages.LinkState(channel.name, now, *state)):
                channel.told = state

    def _tell_snapshot(self) -> None:
        if self._ear.snapshot is not None and not self._snapshot_told:
            self._snapshot_told = self._tell(self._ear.snapshot)

    def _tell_figures(self) -> None:
        self._tell(
            messages.HeartFigures(
                realtime=self.realtime,
                locked=self.locked,
                late_max_ms=self._late.end_second(),
                rejected={channel.name: channel.rejected for channel in self._channels},
                gap_max_ms={channel.name: channel.gap_max.end_second() for channel in self._channels},
                beat_at_ms=self._beat_at_ms,
            )
        )

    # -- the host -----------------------------------------------------------------------

    def _hear_host(self) -> None:
        for _ in range(MESSAGES_MAX):
            try:
                received = messages.receive(self._host)
            except BlockingIOError:
                return
            if received is None:
                self._host_lives = False
                return
            message, fds = received
            match message:
                case messages.BrainForked():
                    self._lose_brain()
                    (fd,) = fds
                    self._meet_brain(socket.socket(fileno=fd))
                case messages.BrainGone():
                    self._lose_brain()
                case other:
                    raise AssertionError(other)
