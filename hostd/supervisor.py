"""The loop of the first process: keeps a heart and a brain alive, and ends them.

Decides what a death in the family means: a dead heart or brain is forked
again, the survivor is told, and what a dead brain had started or stopped
half-way is killed before the next one is born, to which it is named as
unfinished.  Decides likewise what a signal means, and how heart and brain
come to live by a new conf.d.  What is done for the brain is the business of
``hands``.  It knows nothing of the cluster: no peer, no assignment, no state
that could be lost.

Single-threaded, ordinary priority, one loop that polls: two sockets, two
pidfds of the family, one pidfd per action and per watched process, signals.
"""

import gc
import logging
import os
import selectors
import signal
from collections import deque
from pathlib import Path
from typing import Final

from hostd import changes, messages
from hostd.cgroups import Groups
from hostd.changes import Change
from hostd.clock import now_ms
from hostd.family import Family, Life
from hostd.hands import Hands
from hostd.messages import AnyMessage
from hostd.reloading import Read, Reloading, Setup
from hostd.signals import Signals
from hostd.systemd import Notifier

log = logging.getLogger("hostd.host")

ROUND_MS: Final = 1_000
"""The longest the loop sleeps."""
RETRY_MS: Final = 20
"""When a message that the brain's full socket did not take is offered again."""
FAREWELL_MS: Final = 500
"""How long heart and brain may take to end by themselves."""


class Supervisor:
    """Of one host.  ``runtime`` and ``state`` are there and ours; ``read_again`` reads conf.d for a reload."""

    def __init__(self, setup: Setup, groups: Groups, runtime: Path, state: Path, read_again: Read) -> None:
        self._setup, self._groups = setup, groups
        self._selector = selectors.DefaultSelector()
        self._notifier = Notifier()
        self._signals = Signals(self._selector, self._signalled)
        self._hands = Hands(
            setup.configuration,
            setup.registry,
            groups,
            self._selector,
            runtime=runtime,
            state=state,
            tell=self._tell_brain,
        )
        self._heart, self._brain = Life("heart", setup.heart), Life("brain", setup.brain)
        self._family = Family(
            self._heart,
            self._brain,
            self._selector,
            died=self._died,
            heard=self._heard,
            private=self._private_files,
        )
        self._reloading = Reloading(
            read_again,
            self._selector,
            running=lambda: self._setup,
            is_quiet=lambda: self._hands.is_quiet,
            hold=self._hands.hold,
            release=self._hands.release,
            take=self._renew,
            answer=self._tell_brain,
            begun=self._notifier.reloading,
            ended=self._stay,
        )
        self._renews_heart = False
        self._is_between = False
        """A brain is making room for the next."""
        self._outbox: deque[AnyMessage] = deque()
        self._exit_code: int | None = None
        self._asked_to_end = False
        self._is_ready = False
        self._status = ""

    def loop(self) -> int:
        """Until Goodbye, or a signal that nobody else can answer; the exit code."""
        log.info("host of %s: %s", self._setup.configuration.node, self._groups.description)
        self._signals.listen()
        self._hands.recover()
        self._heart.due_at_ms = self._brain.due_at_ms = now_ms()
        while self._exit_code is None:
            self._fork_what_is_due()
            self._turn(self._wait_ms())
        self._notifier.tell("STOPPING=1")
        self._end_all()
        return self._exit_code

    def _turn(self, wait_ms: int) -> None:
        for key, _ in self._selector.select(wait_ms / 1000):
            if self._selector.get_map().get(key.fd) is key:  # else an earlier one of this round closed it
                key.data()
        self._hands.tick()
        self._family.tick()
        self._reloading.tick()
        self._flush()

    def _wait_ms(self) -> int:
        times = [self._heart.due_at_ms, self._hands.wake_at_ms(), self._reloading.wake_at_ms()]
        if not self._hands.acting:
            times.append(self._brain.due_at_ms)
        if self._outbox:
            times.append(now_ms() + RETRY_MS)
        return max(0, min([ROUND_MS, *(at - now_ms() for at in times if at is not None)]))

    # -- heart and brain ----------------------------------------------------------

    def _fork_what_is_due(self) -> None:
        for life in (self._heart, self._brain):
            if life.due_at_ms is None or now_ms() < life.due_at_ms:
                continue
            if life is self._brain and (self._hands.acting or self._heart.is_relieved):
                continue  # what the dead one had begun is still dying, or its heart is
            try:
                pid = self._family.fork(life)
            except OSError as error:  # no more processes or memory: that may pass
                log.error("the %s cannot be forked: %s", life.name, error)
                life.due_at_ms = now_ms() + ROUND_MS
                continue
            log.info("%s is process %d", life.name, pid)
            if life is self._brain:
                self._hands.greet()
                self._is_between = False
                if self._asked_to_end:  # while there was no brain to hear it
                    self._tell_brain(messages.Signalled(signal.SIGTERM))
            self._join(life, pid)

    def _join(self, life: Life, pid: int) -> None:
        """Hand the survivor its end of the new pair."""
        partner = self._brain if life is self._heart else self._heart
        if not partner.is_alive or partner.end is None:
            return
        fresh = self._family.take_fresh_end(life)
        if fresh is None:
            return  # both ends were handed over at birth
        told: AnyMessage = messages.HeartForked(pid) if life is self._heart else messages.BrainForked(pid)
        if not messages.send(partner.end, told, [fresh.fileno()]):
            log.error("the %s does not listen: killed", partner.name)
            signal.pidfd_send_signal(partner.pidfd, signal.SIGKILL)
        fresh.close()

    def _died(self, life: Life, detail: str) -> None:
        if self._exit_code is not None:
            return
        was_relieved, life.relieved_until_ms = life.is_relieved, None
        if was_relieved:
            log.info("the %s has made room for the next", life.name)
        else:
            log.error("the %s is gone: %s", life.name, detail)
        if life is self._heart:
            self._tell_brain(messages.HeartGone(detail))
            return
        self._outbox.clear()
        self._hands.drop()
        if self._reloading.is_waiting:
            self._hands.hold()
        self._reloading.forget_asker()
        if self._heart.end is not None:
            messages.send(self._heart.end, messages.BrainGone())
        self._renew_heart()
        if self._asked_to_end and not was_relieved:
            log.warning("asked to end, and no brain to do it in order: ending, services stay")
            self._exit_code = 1

    def _private_files(self) -> list[int]:
        """What of ours no heart or brain may keep; the lock they must."""
        self._selector.close()
        self._notifier.close()
        self._signals.close()
        others = [life.pidfd for life in (self._heart, self._brain) if life.is_alive]
        return others + self._hands.files() + self._reloading.files()

    # -- what the brain says --------------------------------------------------------

    def _heard(self, life: Life) -> None:
        """Everything that has arrived from it."""
        while life.end is not None and self._exit_code is None:
            try:
                received = messages.receive(life.end)
            except BlockingIOError:
                return
            if received is None:
                self._selector.unregister(life.end)  # it ends; its pidfd tells when it has
                life.end.close()
                life.end = None
                return
            message, files = received
            for file in files:
                os.close(file)
            self._obey(message)

    def _obey(self, message: AnyMessage) -> None:
        match message:
            case messages.Alive(status=status, ready=ready):
                self._alive(status, ready)
                self._hands.obey(message)
            case messages.Reload(request_id=request_id):
                self._reloading.ask(request_id)
            case messages.Goodbye(exit_code=exit_code):
                self._exit_code = exit_code
            case _:
                self._hands.obey(message)

    def _alive(self, status: str, ready: bool) -> None:
        lines = ["WATCHDOG=1"]
        if ready and not self._is_ready:
            self._is_ready = True
            lines.append("READY=1")
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        self._notifier.tell(*lines)

    def _tell_brain(self, message: AnyMessage | None) -> None:
        """Nothing is kept for the next brain: it is told what it needs at its birth, and asks for the rest."""
        if message is not None and self._brain.is_alive:
            self._outbox.append(message)
            self._flush()

    def _flush(self) -> None:
        """In order, and never lost to a full socket: an outcome must arrive exactly once."""
        while self._outbox and self._brain.end is not None:
            if not messages.send(self._brain.end, self._outbox[0]):
                return
            self._outbox.popleft()

    # -- a new configuration ----------------------------------------------------------

    def _renew(self, setup: Setup, found: tuple[Change, ...]) -> None:
        """Live by this from now on; no start or stop is under way.  The services are adopted by the next brain."""
        self._setup, self._is_ready, self._is_between = setup, False, True
        self._hands.renew(setup.configuration, setup.registry)
        self._heart.main, self._brain.main = setup.heart, setup.brain
        logging.getLogger().setLevel(setup.configuration.log_level.upper())
        gc.unfreeze()
        gc.collect()  # of the earlier configuration nothing is needed
        gc.freeze()
        self._renews_heart = changes.renews_heart(found)
        if self._brain.is_alive:
            self._family.relieve(self._brain)
        else:
            self._renew_heart()

    def _stay(self) -> None:
        """conf.d was read again and not taken: all is as before; what could not be stopped is tried again."""
        if self._is_ready:
            self._notifier.tell("READY=1")
        self._hands.stop_removed()

    def _renew_heart(self) -> None:
        """After the brain: a heart says for a while that its brain is gone, and nobody misses a beat."""
        if self._renews_heart and self._heart.is_alive:
            self._family.relieve(self._heart, limit_ms=0)
        self._renews_heart = False

    # -- signals and the end ----------------------------------------------------------

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reloading.ask(None)
        else:
            self._asked(number)

    def _asked(self, number: int) -> None:
        """Asked to end: the brain leaves in order.  Asked twice, or without a brain: services stay."""
        name = signal.Signals(number).name
        if self._asked_to_end or not (self._brain.is_alive or self._is_between):
            log.warning("%s: ending at once, services stay", name)
            self._exit_code = 128 + number
            return
        log.info("%s: leaving", name)
        self._asked_to_end = True
        if not self._is_between:  # else the next brain is told
            self._tell_brain(messages.Signalled(number))

    def _end_all(self) -> None:
        """End heart and brain, kill what still runs of actions and shots; touch no service."""
        self._hands.end()
        for life in (self._heart, self._brain):
            if life.end is not None:
                self._selector.unregister(life.end)
                life.end.close()
                life.end = None
        until = now_ms() + FAREWELL_MS
        lives = (self._heart, self._brain)
        while (any(life.is_alive for life in lives) or self._hands.busy) and now_ms() < until:
            self._turn(RETRY_MS)
        for life in (self._heart, self._brain):
            if life.is_alive:
                signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)
        while (self._heart.is_alive or self._brain.is_alive) and now_ms() < until + FAREWELL_MS:
            self._turn(RETRY_MS)
        self._groups.tidy()
        self._hands.let_go(in_order=self._exit_code == 0)  # 0: Goodbye
