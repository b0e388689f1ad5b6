"""The brain: wait → record → step → perform.

One asyncio loop in a child of the host.  Decides the order of things: after
each wake all input that is ready is drained before any effect is performed
(PROTOCOL.md section 5, "Pauses"), the core is stepped at least once per
keepalive, and the heart is renewed only by a loop that turns.  Refuses to
decide anything about services or peers: that is ``core/node.py``.
"""

import asyncio
import gc
import logging
import pickle
import signal
import socket
import time
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

import hostd
from hostd import former_addresses, state
from hostd.address import Addresses
from hostd.address_tasks import AddressTasks
from hostd.answering import Desk
from hostd.bulletin import Bulletin
from hostd.changes import Description
from hostd.clock import now_ms
from hostd.config import Configuration, Directories
from hostd.control import Control
from hostd.core import snapshot as snapshots
from hostd.core.effects import AnswerOperator, AnyEffect, AnyFact, Exit, ExitKind
from hostd.core.events import (
    AddressFound,
    AddressLost,
    AnyEvent,
    HeartLost,
    HeartReturned,
    LanTurned,
    Leave,
    SnapshotReceived,
    Started,
    TimerFired,
)
from hostd.core.node import Node
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Incarnation
from hostd.ends import End, adopt
from hostd.figures import Figures
from hostd.hearing import event_of, snapshot_of
from hostd.left_behind import LeftBehind
from hostd.logging_thread import log_from_a_thread
from hostd.messages import (
    Alive,
    AnyMessage,
    Carry,
    Done,
    Drilled,
    Goodbye,
    HeartFigures,
    HeartForked,
    HeartGone,
    Identify,
    LinkState,
    Notified,
    Relieved,
    Reloaded,
    Renew,
    Signalled,
    SnapshotHeard,
    Unfinished,
    Unstopped,
    WatchdogIs,
)
from hostd.metrics import Format
from hostd.neighbours import Neighbours
from hostd.observed import differences
from hostd.perform import Performer
from hostd.pings import Pings
from hostd.recorder import FORMAT, Header, line_of
from hostd.registry import Registry
from hostd.requests import SOCKET_NAME
from hostd.status import life_of_peer, one_line

log = logging.getLogger("hostd")

ALIVE_MS: Final = 500
FLUSH_MS: Final = 1_000
DRAIN_ROUNDS: Final = 2
"""Turns of the loop after a wake, so that tasks that were ready could put their outcomes."""
EXIT_CODES: Final = {ExitKind.LEFT: 0, ExitKind.DETACHED: 0, ExitKind.STOP_FAILED: 1}


def run(
    configuration: Configuration,
    directories: Directories,
    registry: Registry,
    host_end: socket.socket,
    heart_end: socket.socket,
    description: Description | None = None,
) -> int:
    """Be the brain until the core says Exit or the host is gone; the exit code.

    Called by the host in a child of its own, which has asked to die with the
    host.  Signals are the host's to answer: it passes them on.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with log_from_a_thread():
        try:
            brain = Brain(configuration, directories, disk, loop, description, registry.metrics)
            return loop.run_until_complete(brain.live(host_end, heart_end))
        except Exception:
            # The edge of the process: whatever it is, it must be in the log before the host forks the next brain.
            log.exception("the brain ends by a defect of its own")
            return 70
        finally:
            disk.shutdown(wait=False, cancel_futures=True)  # a hung disk must not keep us


class Brain:
    """The loop and everything that it holds together; made before the loop runs."""

    def __init__(
        self,
        configuration: Configuration,
        directories: Directories,
        disk: Executor,
        loop: asyncio.AbstractEventLoop,
        description: Description | None = None,
        metrics: Format = lambda _status: "",
    ) -> None:
        self.plan, self.name = configuration.plan, configuration.node
        self.incarnation = state.next_incarnation(directories.state)  # blocks: nothing waits for the loop yet
        self.core = Node(self.plan, self.name)
        self._directories = directories
        self._inbox: deque[AnyEvent] = deque()
        self._wake = asyncio.Event()
        self._host: End
        self._heart: End | None = None
        self._carried: Carry | None = None
        self._peer: Snapshot | None = None
        self._figures = Figures.of(configuration)
        self._left_behind = LeftBehind(directories.runtime, tuple(s.service.name for s in configuration.set_aside))
        self._unfinished: asyncio.Future[Unfinished] = loop.create_future()
        self._renewed_at_ms = self._alive_at_ms = self._flushed_at_ms = 0
        self._stepped_at_ms = self._timer_at_ms = 0
        self._exit: ExitKind | None = None
        self._is_born = self._is_relieved = False
        places = (directories.state, disk, self._header)
        self._bulletin = Bulletin(self.core, configuration, self._figures, *places, metrics, self.tell_host)
        voice = (self.put, self.tell_host)
        self._desk = Desk(self.core, self._figures, self._bulletin.timeline, *voice, description, directories)
        texts = dict.fromkeys(text for service in self.plan.services for text in service.addresses)
        self._addresses = Addresses(tuple(texts), self.plan.address_lease_ms, self._address_changed)
        self._neighbours = Neighbours(
            self._addresses,
            configuration.announcements,
            self.put,
            lambda address, verified, detail: self._tasks.note_verified(address, verified, detail),
        )
        self._tasks = AddressTasks(
            self._addresses,
            self._neighbours,
            self.put,
            is_first=self.plan.is_first(self.name),
            peer_stations=lambda: self._peer.stations if self._peer is not None else (),
        )
        self._figures.verified = self._tasks.verified
        asked = configuration.tiebreaker
        self._pings = Pings(
            asked.ping if asked else (),
            asked.deadtime_ms if asked else 0,
            needs_all=asked is not None and asked.needs_all,
            on_event=self.put,
        )
        self._performer = Performer(self, self._tasks, disk, directories.state)

    # -- the life ----------------------------------------------------------------

    async def live(self, host_end: socket.socket, heart_end: socket.socket) -> int:
        """From the first word of the host to Goodbye; the exit code."""
        self._host = End(host_end, self._hear_host)
        self._connect(heart_end)
        self._renew(now_ms())  # the peer gets to know at once that a brain is back
        control = Control(self._directories.runtime / SOCKET_NAME, self._desk.ask)
        try:
            await self._addresses.open()
            await self._neighbours.open()
            started = await self._begin(await self._unfinished)
            self._inbox.appendleft(started)  # before all that was heard meanwhile
            self.put(LanTurned(self._addresses.dead()))
            await self._pings.open()
            self._is_born = True
            self._turn()  # a status can be given from here on
            await self._open(control)
            gc.collect()
            gc.freeze()  # a collection then never walks what was imported (0.4 s were seen)
            return await self._turn_until_the_end()
        finally:
            if self._is_relieved:
                await control.finish()
            await control.close()
            await self._pings.close()
            await self._neighbours.close()
            await self._addresses.close()
            await self._bulletin.close()

    async def _open(self, control: Control) -> None:
        try:
            await control.open()
        except OSError as error:  # the cluster goes on without an operator's socket
            log.error("no command can be given here: %s: %s", error.filename or "control socket", error.strerror)

    async def _begin(self, left: Unfinished) -> Started:
        wishes, complaint = state.load_wishes(self._directories.state)
        if complaint:
            log.error("the operator's wishes of before are lost unless the peer holds them: %s", complaint)
        set_aside = [aside.service for aside in self._figures.set_aside]
        former_addresses.clear(self._addresses, self._directories.runtime, self.plan, set_aside, wishes)
        return Started(
            incarnation=self.incarnation,
            wishes=wishes,
            unfinished=left.services,
            outdated=left.outdated,
            stations=await self._addresses.stations(),
            release=hostd.__version__,
            present=self._addresses.held(),
            watchdog_ms=self._figures.watchdog.bound_ms if self._figures.watchdog is not None else 0,
            probation_ms=self._probation_ms(),
        )

    def _probation_ms(self) -> dict[str, int]:
        now_s = time.time()
        seen = state.first_seen(self._directories.state, tuple(s.name for s in self.plan.services), now_s)
        left = {s.name: s.probation_ms - round((now_s - seen[s.name]) * 1_000) for s in self.plan.services}
        return {name: left_ms for name, left_ms in left.items() if left_ms > 0}

    async def _turn_until_the_end(self) -> int:
        while self._exit is None and not self._is_relieved:
            await self._wait()
            for _ in range(DRAIN_ROUNDS):
                await asyncio.sleep(0)
            self._turn()
            if not self._host.is_open:
                log.error("the host is gone")
                return 1
        if self._exit is None:
            return 0  # another brain takes over, and it is not the host's end
        code = EXIT_CODES[self._exit]
        self._host.send(Goodbye(code))
        return code

    def _turn(self) -> None:
        """Drain all input, step through it, and only then perform."""
        self._hear_heart()
        self._hear_host()
        for effect in self._step_all():
            self._performer.perform(effect)
        self._keep_up_appearances(now_ms())

    async def _wait(self) -> None:
        """Until something happens, or the next keepalive, renewal or deadline of the core."""
        now = now_ms()
        due_at_ms = min(
            self._timer_at_ms + self.plan.timers.keepalive_ms,
            self._renewed_at_ms + self.plan.timers.warntime_ms // 2,
            self.core.deadline() or now + ALIVE_MS,
        )
        timer = asyncio.get_running_loop().call_later(max(0, due_at_ms - now) / 1_000, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    def _step_all(self) -> list[AnyEffect]:
        """Step through all that has happened, and at least once a keepalive through time alone."""
        effects: list[AnyEffect] = []
        while self._inbox:
            effects += self._step(self._inbox.popleft())
        now = now_ms()
        deadline = self.core.deadline()
        is_due = deadline is not None and now >= deadline
        if is_due or now - self._timer_at_ms >= self.plan.timers.keepalive_ms:
            self._timer_at_ms = now
            effects += self._step(TimerFired())
        return effects

    def _step(self, event: AnyEvent) -> list[AnyEffect]:
        now = now_ms()
        self._bulletin.recorder.record(now, event)  # first, so that a step that fails is on record
        self._stepped_at_ms = now
        return self.core.step(now, event)

    def _keep_up_appearances(self, now: int) -> None:
        """Heart, host and disk, each as often as it needs."""
        if now - self._renewed_at_ms >= self.plan.timers.warntime_ms // 2:
            self._renew(now)
        if now - self._alive_at_ms >= ALIVE_MS:
            self._alive_at_ms = now
            line = one_line(self.core, self._figures, now)
            self._host.send(Alive(line, True, now, self._figures.beat_at_ms), latest=True)
        if now - self._flushed_at_ms >= FLUSH_MS:
            self._flushed_at_ms = now
            self._bulletin.turn(now)

    def _header(self) -> Header:
        checkpoint = pickle.dumps(self.core) if self._stepped_at_ms else b""
        return Header(FORMAT, hostd.__version__, self.name, self.plan, time.time(), self._stepped_at_ms, checkpoint)

    # -- hearing -----------------------------------------------------------------

    def put(self, event: AnyEvent) -> None:
        self._inbox.append(event)
        self._wake.set()

    def _address_changed(self, event: AddressLost | AddressFound | LanTurned) -> None:
        if self._is_born:  # what is found before is told with Started
            self.put(event)

    def _hear_host(self) -> None:
        for message, fds in self._host.received():
            end = adopt(fds)
            match message:
                case Unfinished():
                    self._figures.left_behind = self._left_behind.with_unfinished(message.services)
                    if not self._unfinished.done():
                        self._unfinished.set_result(message)
                case HeartForked() if end is not None:
                    self._connect(end)
                case HeartGone(detail):
                    log.error("the heart died: %s", detail)
                    self._figures.heart, self._figures.heart_lost = None, detail or "it died"
                    self.put(HeartLost())
                case Signalled():
                    self._desk.give(Leave())
                case Unstopped(services):
                    self._figures.unstopped = services
                case Notified():
                    self._bulletin.notified(message)
                case Reloaded():
                    self._desk.reloaded(message)
                case Drilled() | WatchdogIs():
                    self._figures.hear(message, life_of_peer(self.core, now_ms()))
                case Relieved():
                    log.info("another brain takes over")
                    self._is_relieved = True
                    self._wake.set()
                case _:
                    self._take(message)
        if not self._host.is_open:
            self._wake.set()

    def _hear_heart(self) -> None:
        if self._heart is None:
            return
        for message, _ in self._heart.received():
            match message:
                case SnapshotHeard():
                    self._take_snapshot(message)
                case HeartFigures():
                    self._figures.heart = message
                case _:
                    self._take(message)
        if not self._heart.is_open:
            self._heart = None  # the host notices, too, and forks another

    def _take(self, message: AnyMessage) -> None:
        if isinstance(message, Done) and message.evidence:
            log.warning("evidence of action %d: %s", message.action_id, message.evidence)
        if isinstance(message, LinkState) and (turned := self._figures.carrier_turned(message)):
            self.tell(turned)
        event = event_of(message)
        if event is None:
            self._figures.counters["messages_refused"] += 1
        else:
            self.put(event)

    def _take_snapshot(self, message: SnapshotHeard) -> None:
        snapshot = snapshot_of(self.plan, self.plan.peer_of(self.name), message)
        if snapshot is None:
            self._figures.counters["snapshots_refused"] += 1
            return
        for fact in differences(self._peer, snapshot):
            self._bulletin.add_observed(snapshot.node, fact)
        self._peer = snapshot
        self._figures.peer_snapshot_at_ms = now_ms()
        self.put(SnapshotReceived(snapshot))

    # -- speaking ----------------------------------------------------------------

    def _connect(self, end: socket.socket) -> None:
        """A heart is there: tell it who we are and what we last said."""
        if self._heart is not None:
            self._heart.close()
        self._heart = End(end, self._hear_heart)
        self._figures.heart_lost = ""
        self._heart.send(Identify(self.incarnation))
        if self._carried is not None:
            self._heart.send(self._carried, latest=True)
        self._renew(now_ms())
        self.put(HeartReturned())

    def _renew(self, now: int) -> None:
        self._renewed_at_ms = now
        if self._heart is not None:
            self._heart.send(Renew(self.core.peers.hears_mask()), latest=True)

    def identify(self, incarnation: Incarnation) -> None:
        self.incarnation = incarnation
        self._carried = None
        if self._heart is not None:
            self._heart.send(Identify(incarnation))

    def publish(self, snapshot: Snapshot) -> None:
        self._figures.published_at_ms = now_ms()
        told = self._left_behind.told(snapshot)
        self._carried = Carry(snapshot.version, snapshots.encode(told))
        if self._heart is not None:
            self._heart.send(self._carried, latest=True)

    def tell_host(self, message: AnyMessage) -> None:
        self._host.send(message)

    def tell(self, fact: AnyFact) -> None:
        self._bulletin.add(fact)
        log.info("%s", line_of(fact))
        self._figures.note(fact, now_ms())

    def note_unsaved(self, detail: str) -> None:
        self._figures.unsaved = detail

    def answer(self, effect: AnswerOperator) -> None:
        self._desk.answer(effect)

    def end(self, effect: Exit) -> None:
        if self._exit is None:
            self._exit = effect.kind
