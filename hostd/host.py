"""The first process: holds the lock, forks heart and brain, runs every action and every shot.

Decides what a death in the family means: a dead heart or brain is forked
again, the survivor is told, and what a dead brain had started or stopped
half-way is killed and named to the next one as unfinished.  It knows nothing
of the cluster: no peer, no assignment, no state that could be lost.

Single-threaded, ordinary priority, one loop that polls: two sockets, two
pidfds of the family, one pidfd per action and per watched process, signals.
"""

import gc
import logging
import os
import selectors
import signal
import socket
from collections import deque
from pathlib import Path
from typing import Final

from hostd import cgroups, changes, lock, messages, processes
from hostd.actions import Actions
from hostd.api import ConfigError
from hostd.cgroups import Groups
from hostd.changes import Change
from hostd.clock import now_ms
from hostd.config import Configuration, Directories
from hostd.drills import Drills
from hostd.errands import Errands
from hostd.family import Family, Life
from hostd.messages import AnyMessage
from hostd.notifying import Notifying
from hostd.origins import Origins
from hostd.registry import Registry
from hostd.reloading import Read, Reloading, Setup
from hostd.removed import Removed
from hostd.shots import Shots
from hostd.systemd import Notifier
from hostd.watchdog import Watchdog
from hostd.watches import Watches

log = logging.getLogger("hostd.host")

ROUND_MS: Final = 1_000
"""The longest the loop sleeps."""
HOUSEKEEPING_MS: Final = 10_000
RETRY_MS: Final = 20
"""When a message that the brain's full socket did not take is offered again."""
FAREWELL_MS: Final = 500
"""How long heart and brain may take to end by themselves."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(configuration: Configuration, registry: Registry, directories: Directories) -> int:
    """Be hostd until told to end; the exit code.  Raises ConfigError if this machine does not let us."""
    # Imported here, before any fork: the loop below is tested with small lives and needs neither.
    from hostd import config, daemon, description, heart, keys

    salt, node = description.fresh_salt(), configuration.node

    def setup(configuration: Configuration, registry: Registry) -> Setup:
        secrets = keys.read(configuration.key)
        settings = heart.HeartSettings.of(configuration, secrets)
        described = description.describe(configuration, registry, secrets, salt)

        def beat(host_end: socket.socket, brain_end: socket.socket) -> int:
            return heart.run(settings, registry.open_link, host_end, brain_end)

        def decide(host_end: socket.socket, heart_end: socket.socket) -> int:
            return daemon.run(configuration, directories, registry, host_end, heart_end, described)

        return Setup(configuration, registry, beat, decide, described)

    def read_again() -> Setup:
        fresh = Registry.load(directories)
        return setup(
            config.load(directories.config, node, fresh.parameters, fresh.link_types(), fresh.notify_types()), fresh
        )

    return serve(setup(configuration, registry), directories, read_again)


def serve(setup: Setup, directories: Directories, read_again: Read) -> int:
    """The same with any two lives: the tests bring small ones."""
    runtime, state = directories.runtime, directories.state
    try:
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = lock.acquire(runtime / "lock")
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}; hostd needs its runtime and state directories, as root"
        ) from error
    host = Host(setup, cgroups.choose(setup.configuration.node, runtime), runtime, state, read_again)
    gc.collect()
    gc.freeze()  # what is loaded by now is shared with every child for good, and never walked again
    try:
        return host.loop()
    finally:
        os.close(held)


class Host:
    """The loop and all that hangs on it."""

    def __init__(self, setup: Setup, groups: Groups, runtime: Path, state: Path, read_again: Read) -> None:
        configuration, registry = setup.configuration, setup.registry
        self._setup, self._groups = setup, groups
        self._selector = selectors.DefaultSelector()
        self._notifier = Notifier()
        self._actions = Actions(
            registry, groups, node=configuration.node, runtime=runtime, state=state, selector=self._selector
        )
        self._shots = Shots(registry, groups, configuration.fencing_devices, self._selector, self._tell_brain)
        self._drills = Drills(registry, groups, configuration.fencing_devices, self._selector, self._tell_brain)
        self._notifying = Notifying(registry, groups, configuration, self._selector, self._tell_brain)
        self._watchdog = Watchdog(self._tell_brain)
        self._origins = Origins(runtime / "origins", processes.boot_id())
        self._origins.adopt(configuration, registry.parameters)
        self._watches = Watches(self._selector, lambda *exited: self._errands.exited(*exited))
        self._errands = Errands(configuration, self._origins, self._actions, self._watches, self._tell_brain)
        self._removed = Removed(self._origins, self._errands, state, self._tell_unstopped)
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
            is_quiet=lambda: not (self._errands.is_changing or self._removed.is_busy or self._shots.busy),
            hold=self._errands.hold,
            release=self._errands.release,
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
        self._housekeeping_at_ms = 0
        self._is_ready = False
        self._status = ""
        self._wakeup, self._wakeup_write = socket.socketpair()

    def loop(self) -> int:
        """Until Goodbye, or a signal that nobody else can answer; the exit code."""
        log.info("host of %s: %s", self._setup.configuration.node, self._groups.description)
        self._listen_to_signals()
        unfinished = self._actions.recover()
        if unfinished:
            log.warning("unfinished by an earlier hostd: %s", ", ".join(unfinished))
        self._shots.recover()
        self._drills.recover()
        self._use_devices(self._setup.configuration)
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
        self._actions.tick()
        self._shots.tick()
        self._notifying.tick()
        self._drills.tick(shooting=self._shots.under_way)
        self._watchdog.tick()
        self._family.tick()
        self._reloading.tick()
        self._flush()
        if now_ms() >= self._housekeeping_at_ms:
            self._housekeeping_at_ms = now_ms() + HOUSEKEEPING_MS
            self._actions.bound_output()

    def _wait_ms(self) -> int:
        parts = (self._actions, self._shots, self._drills, self._watchdog, self._reloading, self._notifying)
        times = [self._heart.due_at_ms, *(part.wake_at_ms() for part in parts)]
        if not self._actions.busy:
            times.append(self._brain.due_at_ms)
        if self._outbox:
            times.append(now_ms() + RETRY_MS)
        return max(0, min([ROUND_MS, *(at - now_ms() for at in times if at is not None)]))

    # -- heart and brain ----------------------------------------------------------

    def _fork_what_is_due(self) -> None:
        for life in (self._heart, self._brain):
            if life.due_at_ms is None or now_ms() < life.due_at_ms:
                continue
            if life is self._brain and (self._actions.busy or self._heart.is_relieved):
                continue  # what the dead one had begun is still dying, or its heart is
            try:
                pid = self._family.fork(life)
            except OSError as error:  # no more processes or memory: that may pass
                log.error("the %s cannot be forked: %s", life.name, error)
                life.due_at_ms = now_ms() + ROUND_MS
                continue
            log.info("%s is process %d", life.name, pid)
            if life is self._brain:
                self._tell_brain(self._watchdog.word())
                self._tell_brain(messages.Unfinished(self._actions.unfinished(), self._origins.outdated()))
                self._tell_brain(self._drills.remembered())
                self._removed.stop()
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
        self._actions.abort()
        self._errands.drop()
        self._removed.abort()
        if self._reloading.is_waiting:
            self._errands.hold()
        self._reloading.forget_asker()
        self._shots.abort()
        self._drills.abort()
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
        self._wakeup.close()
        self._wakeup_write.close()
        others = [life.pidfd for life in (self._heart, self._brain) if life.is_alive]
        parts = (self._watches, self._actions, self._shots, self._drills, self._watchdog, self._reloading)
        return others + [file for part in (*parts, self._notifying) for file in part.files()]

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
            case messages.Do():
                self._errands.do(message)
            case messages.Shoot(request_id=request_id, node=node, delay_ms=delay_ms):
                self._shots.shoot(request_id, node, delay_ms)
            case messages.HoldFire(request_id=request_id):
                self._shots.hold(request_id)
            case messages.News():
                self._notifying.take(message)
            case messages.Alive(status=status, ready=ready):
                self._alive(status, ready)
                self._watchdog.hear(message)
            case messages.Drill(drill_id=drill_id, node=node):
                self._drills.begin(drill_id, node)
            case messages.Reload(request_id=request_id):
                self._reloading.ask(request_id)
            case messages.Goodbye(exit_code=exit_code):
                self._exit_code = exit_code
            case _:
                raise AssertionError(f"not for the host: {message!r}")

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

    def _tell_unstopped(self) -> None:
        self._tell_brain(messages.Unstopped(self._removed.failures))

    def _flush(self) -> None:
        """In order, and never lost to a full socket: an outcome must arrive exactly once."""
        while self._outbox and self._brain.end is not None:
            if not messages.send(self._brain.end, self._outbox[0]):
                return
            self._outbox.popleft()

    # -- a new configuration ----------------------------------------------------------

    def _renew(self, setup: Setup, found: tuple[Change, ...]) -> None:
        """Live by this from now on; no start or stop is under way.  The services are adopted by the next brain."""
        configuration = setup.configuration
        self._setup, self._is_ready, self._is_between = setup, False, True
        self._actions.abort()  # monitors: the next brain asks again
        self._actions.registry = setup.registry
        self._shots.renew(setup.registry, configuration.fencing_devices)
        self._drills.renew(setup.registry, configuration.fencing_devices)
        self._notifying.renew(setup.registry, configuration)
        self._use_devices(configuration)
        self._errands.configuration = configuration
        self._origins.adopt(configuration, setup.registry.parameters)
        self._watches.keep({(settings.service, settings.resource) for settings in configuration.resources})
        self._heart.main, self._brain.main = setup.heart, setup.brain
        logging.getLogger().setLevel(configuration.log_level.upper())
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
        self._removed.stop()

    def _use_devices(self, configuration: Configuration) -> None:
        """Those that work by themselves: the watchdog, and the peer's fencing devices in their drills."""
        self._watchdog.want(configuration.watchdog)
        plan, node = configuration.plan, configuration.node
        self._drills.repeat(plan.peer_of(node), configuration.fencing_drill_ms, is_first=plan.is_first(node))

    def _renew_heart(self) -> None:
        """After the brain: a heart says for a while that its brain is gone, and nobody misses a beat."""
        if self._renews_heart and self._heart.is_alive:
            self._family.relieve(self._heart, limit_ms=0)
        self._renews_heart = False

    # -- signals and the end ----------------------------------------------------------

    def _listen_to_signals(self) -> None:
        self._wakeup.setblocking(False)
        self._wakeup_write.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_write.fileno())
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # the byte in the wakeup socket is what counts
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._signalled)

    def _signalled(self) -> None:
        for number in self._wakeup.recv(64):
            if number == signal.SIGHUP:
                self._reloading.ask(None)
            elif number in _SIGNALS:
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
        self._actions.abort()
        self._shots.abort()
        self._drills.abort()
        for life in (self._heart, self._brain):
            if life.end is not None:
                self._selector.unregister(life.end)
                life.end.close()
                life.end = None
        until = now_ms() + FAREWELL_MS
        lives = (self._heart, self._brain)
        works = (self._actions, self._shots, self._drills, self._notifying)
        while (any(life.is_alive for life in lives) or any(work.busy for work in works)) and now_ms() < until:
            self._turn(RETRY_MS)
        for life in (self._heart, self._brain):
            if life.is_alive:
                signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)
        while (self._heart.is_alive or self._brain.is_alive) and now_ms() < until + FAREWELL_MS:
            self._turn(RETRY_MS)
        self._groups.tidy()
        if self._exit_code == 0:  # Goodbye, in good order
            self._watchdog.let_go()
        else:
            self._watchdog.abandon()
