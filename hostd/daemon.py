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
from hostd import birth, state
from hostd.answering import Desk
from hostd.bulletin import Bulletin
from hostd.changes import Description
from hostd.clock import now_ms
from hostd.config import Configuration, Directories
from hostd.control import Control
from hostd.core.effects import AnswerOperator, AnyEffect, AnyFact, Exit, ExitKind
from hostd.core.events import AnyEvent, Leave, TimerFired
from hostd.core.node import Node
from hostd.core.snapshot import Snapshot
from hostd.core.terms import Incarnation
from hostd.ends import End, adopt
from hostd.figures import Figures
from hostd.hearing import event_of
from hostd.heart_line import HeartLine
from hostd.left_behind import LeftBehind
from hostd.logging_thread import log_from_a_thread
from hostd.messages import (
    Alive,
    AnyMessage,
    Done,
    Drilled,
    Goodbye,
    HeartForked,
    HeartGone,
    LinkState,
    Notified,
    Relieved,
    Reloaded,
    Signalled,
    Unfinished,
    Unstopped,
    WatchdogIs,
)
from hostd.metrics import Format
from hostd.network import Network
from hostd.perform import Performer
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
        incarnation = state.next_incarnation(directories.state)  # blocks: nothing waits for the loop yet
        self.core = Node(self.plan, self.name)
        self._directories = directories
        self._inbox: deque[AnyEvent] = deque()
        self._wake = asyncio.Event()
        self._host: End
        self._figures = Figures.of(configuration)
        self._left_behind = LeftBehind(directories.runtime, tuple(s.service.name for s in configuration.set_aside))
        self._unfinished: asyncio.Future[Unfinished] = loop.create_future()
        self._alive_at_ms = self._flushed_at_ms = 0
        self._stepped_at_ms = self._timer_at_ms = 0
        self._exit: ExitKind | None = None
        self._is_relieved = False
        places = (directories.state, disk, self._header)
        self._bulletin = Bulletin(self.core, configuration, self._figures, *places, metrics, self.tell_host)
        voice = (self.put, self.tell_host)
        self._heart = HeartLine(
            self.plan,
            self.name,
            incarnation,
            self._figures,
            hears=lambda: self.core.peers.hears_mask(),
            put=self.put,
            observed=self._bulletin.add_observed,
            take=self._take,
        )
        self._desk = Desk(self.core, self._figures, self._bulletin.timeline, *voice, description, directories)
        path, for_everyone = directories.runtime / SOCKET_NAME, configuration.status_for_everyone
        self._control = Control(path, self._desk.ask, status_for_everyone=for_everyone)
        self._network = Network(
            configuration, self.put, lambda: self._heart.peer.stations if self._heart.peer is not None else ()
        )
        self._figures.verified = self._network.tasks.verified
        self._performer = Performer(self, self._network.tasks, disk, directories.state)

    # -- the life ----------------------------------------------------------------

    async def live(self, host_end: socket.socket, heart_end: socket.socket) -> int:
        """From the first word of the host to Goodbye; the exit code."""
        self._host = End(host_end, self._hear_host)
        self._heart.connect(heart_end)
        control = self._control
        try:
            await self._network.open()
            left = await self._unfinished
            started = await birth.begin(
                self.plan, self.incarnation, self._directories, self._network.addresses, self._figures, left
            )
            self._inbox.appendleft(started)  # before all that was heard meanwhile
            await self._network.watch()
            self._turn()  # a status can be given from here on
            await self._open(control)
            gc.collect()
            gc.freeze()  # a collection then never walks what was imported (0.4 s were seen)
            return await self._turn_until_the_end()
        finally:
            if self._is_relieved:
                await control.finish()
            await control.close()
            await self._network.close()
            await self._bulletin.close()

    async def _open(self, control: Control) -> None:
        try:
            await control.open()
        except OSError as error:  # the cluster goes on without an operator's socket
            log.error("no command can be given here: %s: %s", error.filename or "control socket", error.strerror)

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
        self._heart.hear()
        self._hear_host()
        for effect in self._step_all():
            self._performer.perform(effect)
        self._keep_up_appearances(now_ms())

    async def _wait(self) -> None:
        """Until something happens, or the next keepalive, renewal or deadline of the core."""
        now = now_ms()
        due_at_ms = min(
            self._timer_at_ms + self.plan.timers.keepalive_ms,
            self._heart.renew_at_ms,
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
        if now >= self._heart.renew_at_ms:
            self._heart.renew(now)
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

    def _hear_host(self) -> None:
        for message, fds in self._host.received():
            end = adopt(fds)
            match message:
                case Unfinished():
                    self._figures.left_behind = self._left_behind.with_unfinished(message.services)
                    if not self._unfinished.done():
                        self._unfinished.set_result(message)
                case HeartForked() if end is not None:
                    self._heart.connect(end)
                case HeartGone(detail):
                    log.error("the heart died: %s", detail)
                    self._heart.lost(detail)
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

    # -- what performing needs (perform.Brain) --------------------------------------

    @property
    def incarnation(self) -> Incarnation:
        return self._heart.incarnation

    def identify(self, incarnation: Incarnation) -> None:
        self._heart.identify(incarnation)

    def publish(self, snapshot: Snapshot) -> None:
        self._figures.published_at_ms = now_ms()
        self._heart.carry(self._left_behind.told(snapshot))

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
