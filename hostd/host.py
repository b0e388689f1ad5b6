"""The first process: holds the lock, forks heart and brain, runs every action and every shot.

Decides what a death in the family means: a dead heart or brain is forked
again, the survivor is told, and what a dead brain had started or stopped
half-way is killed and named to the next one as unfinished.  It knows nothing
of the cluster: no peer, no assignment, no state that could be lost.

Single-threaded, ordinary priority, one loop that polls: two sockets, two
pidfds of the family, one pidfd per action and per watched process, signals.
"""

import functools
import gc
import logging
import os
import selectors
import signal
import socket
from collections import deque
from pathlib import Path
from typing import Final

from hostd import cgroups, lock, messages
from hostd.actions import Actions
from hostd.api import ConfigError
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.config import Configuration, Directories
from hostd.family import Family, Life, Main
from hostd.jobs import Job, Outcome, Verb
from hostd.messages import AnyMessage
from hostd.registry import Registry
from hostd.shots import Shots
from hostd.systemd import Notifier
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
    from hostd import daemon, heart, keys

    settings = heart.HeartSettings(
        cluster=configuration.plan.cluster,
        node=configuration.node,
        nodes=configuration.plan.nodes,
        keys=keys.read(configuration.key),
        timers=configuration.plan.timers,
        links=configuration.links,
        host_pid=os.getpid(),
    )

    def beat(host_end: socket.socket, brain_end: socket.socket) -> int:
        return heart.run(settings, registry.open_link, host_end, brain_end)

    def decide(host_end: socket.socket, heart_end: socket.socket) -> int:
        return daemon.run(configuration, directories, registry, host_end, heart_end)

    return serve(configuration, registry, directories, heart=beat, brain=decide)


def serve(
    configuration: Configuration, registry: Registry, directories: Directories, *, heart: Main, brain: Main
) -> int:
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
    host = Host(configuration, registry, cgroups.choose(configuration.node, runtime), runtime, state, heart, brain)
    gc.collect()
    gc.freeze()  # what is loaded by now is shared with every child for good, and never walked again
    try:
        return host.loop()
    finally:
        os.close(held)


class Host:
    """The loop and all that hangs on it."""

    def __init__(
        self,
        configuration: Configuration,
        registry: Registry,
        groups: Groups,
        runtime: Path,
        state: Path,
        heart: Main,
        brain: Main,
    ) -> None:
        self._configuration, self._groups = configuration, groups
        self._selector = selectors.DefaultSelector()
        self._actions = Actions(
            registry,
            groups,
            node=configuration.node,
            runtime=runtime,
            state=state,
            selector=self._selector,
        )
        self._shots = Shots(registry, groups, configuration.fencing_devices, self._selector, self._tell_brain)
        self._watches = Watches(self._selector, self._exited)
        self._heart, self._brain = Life("heart", heart), Life("brain", brain)
        self._family = Family(
            self._heart,
            self._brain,
            self._selector,
            died=self._died,
            heard=self._heard,
            private=self._private_files,
        )
        self._notifier = Notifier()
        self._outbox: deque[AnyMessage] = deque()
        self._exit_code: int | None = None
        self._asked_to_end = False
        self._housekeeping_at_ms = 0
        self._is_ready = False
        self._status = ""
        self._wakeup, self._wakeup_write = socket.socketpair()

    def loop(self) -> int:
        """Until Goodbye, or a signal that nobody else can answer; the exit code."""
        log.info("host of %s: %s", self._configuration.node, self._groups.description)
        self._listen_to_signals()
        unfinished = self._actions.recover()
        if unfinished:
            log.warning("unfinished by an earlier hostd: %s", ", ".join(unfinished))
        self._shots.recover()
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
        self._flush()
        if now_ms() >= self._housekeeping_at_ms:
            self._housekeeping_at_ms = now_ms() + HOUSEKEEPING_MS
            self._actions.bound_output()

    def _wait_ms(self) -> int:
        times = [self._actions.wake_at_ms(), self._shots.wake_at_ms(), self._heart.due_at_ms]
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
            if life is self._brain and self._actions.busy:
                continue  # what the dead one had begun is still dying
            try:
                pid = self._family.fork(life)
            except OSError as error:  # no more processes or memory: that may pass
                log.error("the %s cannot be forked: %s", life.name, error)
                life.due_at_ms = now_ms() + ROUND_MS
                continue
            log.info("%s is process %d", life.name, pid)
            if life is self._brain:
                self._tell_brain(messages.Unfinished(self._actions.unfinished()))
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
        log.error("the %s is gone: %s", life.name, detail)
        if life is self._heart:
            self._tell_brain(messages.HeartGone(detail))
            return
        self._outbox.clear()
        self._actions.abort()
        self._shots.abort()
        if self._heart.end is not None:
            messages.send(self._heart.end, messages.BrainGone())
        if self._asked_to_end:
            log.warning("asked to end, and no brain to do it in order: ending, services stay")
            self._exit_code = 1

    def _private_files(self) -> list[int]:
        """What of ours no heart or brain may keep; the lock they must."""
        self._selector.close()
        self._notifier.close()
        self._wakeup.close()
        self._wakeup_write.close()
        others = [life.pidfd for life in (self._heart, self._brain) if life.is_alive]
        return others + self._watches.files() + self._actions.files() + self._shots.files()

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
                self._do(message)
            case messages.Shoot(request_id=request_id, node=node, delay_ms=delay_ms):
                self._shots.shoot(request_id, node, delay_ms)
            case messages.HoldFire(request_id=request_id):
                self._shots.hold(request_id)
            case messages.Alive(status=status, ready=ready):
                self._alive(status, ready)
            case messages.Goodbye(exit_code=exit_code):
                self._exit_code = exit_code
            case _:
                raise AssertionError(f"not for the host: {message!r}")

    def _do(self, do: messages.Do) -> None:
        verb = Verb[do.action.name]
        settings = self._configuration.resource(do.service, do.resource)
        if verb.changes:
            self._watches.forget(do.service, do.resource)  # its end is now somebody's wish
        job = Job(
            service=do.service,
            resource=do.resource,
            agent=settings.agent,
            verb=verb,
            params=settings.params,
            timeout_ms=do.timeout_ms,
            depth=do.depth,
            interval_ms=self._interval_ms(do) if do.recurring else 0,
        )
        log.log(
            logging.DEBUG if do.recurring else logging.INFO,
            "%s %s of %s",
            verb.value,
            do.resource,
            do.service,
        )
        self._actions.start(job, functools.partial(self._done, do, verb))

    def _interval_ms(self, do: messages.Do) -> int:
        resources = self._configuration.plan.service(do.service).resources
        return next(r.monitor_interval_ms for r in resources if r.id == do.resource)

    def _done(self, do: messages.Do, verb: Verb, outcome: Outcome) -> None:
        watched, vanished = self._watch(do, verb, outcome)
        if not outcome.ok:
            log.warning(
                "%s of %s (%s) failed after %d ms: %s%s",
                verb.value,
                do.resource,
                do.service,
                outcome.took_ms,
                outcome.reason,
                f"\nit printed: {outcome.output}" if outcome.output else "",
            )
        self._tell_brain(
            messages.Done(
                action_id=do.action_id,
                ok=outcome.ok,
                health=outcome.health,
                timed_out=outcome.timed_out,
                leftovers=outcome.leftovers,
                reason=outcome.reason,
                cure=outcome.cure,
                took_ms=outcome.took_ms,
                evidence=outcome.evidence,
                pid=watched,
            )
        )
        if vanished:
            self._exited(do.service, do.resource, outcome.main_pid)

    def _watch(self, do: messages.Do, verb: Verb, outcome: Outcome) -> tuple[int | None, bool]:
        """The process that is watched from now on, and whether it was gone before we could."""
        if not outcome.ok or (verb is Verb.MONITOR and self._actions.is_changing(do.service, do.resource)):
            return None, False  # a stop may have begun since the monitor looked
        if not outcome.main_pid:
            self._watches.forget(do.service, do.resource)
            return None, False
        there = self._watches.watch(do.service, do.resource, outcome.main_pid, outcome.main_started)
        return (outcome.main_pid if there else None), not there

    def _exited(self, service: str, resource: str, pid: int) -> None:
        log.warning("process %d of %s (%s) has exited", pid, resource, service)
        self._tell_brain(messages.Exited(service, resource, pid))

    def _alive(self, status: str, ready: bool) -> None:
        lines = ["WATCHDOG=1"]
        if ready and not self._is_ready:
            self._is_ready = True
            lines.append("READY=1")
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        self._notifier.tell(*lines)

    def _tell_brain(self, message: AnyMessage) -> None:
        """Nothing is kept for the next brain: its first message is Unfinished, and it asks for the rest."""
        if self._brain.is_alive:
            self._outbox.append(message)
            self._flush()

    def _flush(self) -> None:
        """In order, and never lost to a full socket: an outcome must arrive exactly once."""
        while self._outbox and self._brain.end is not None:
            if not messages.send(self._brain.end, self._outbox[0]):
                return
            self._outbox.popleft()

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
                self._tell_brain(messages.Signalled(number))
            elif number in _SIGNALS:
                self._asked(number)

    def _asked(self, number: int) -> None:
        """Asked to end: the brain leaves in order.  Asked twice, or without a brain: services stay."""
        name = signal.Signals(number).name
        if self._asked_to_end or not self._brain.is_alive:
            log.warning("%s: ending at once, services stay", name)
            self._exit_code = 128 + number
            return
        log.info("%s: leaving", name)
        self._asked_to_end = True
        self._tell_brain(messages.Signalled(number))

    def _end_all(self) -> None:
        """End heart and brain, kill what still runs of actions and shots; touch no service."""
        self._actions.abort()
        self._shots.abort()
        for life in (self._heart, self._brain):
            if life.end is not None:
                self._selector.unregister(life.end)
                life.end.close()
                life.end = None
        until = now_ms() + FAREWELL_MS
        lives = (self._heart, self._brain)
        while (any(life.is_alive for life in lives) or self._actions.busy or self._shots.busy) and now_ms() < until:
            self._turn(RETRY_MS)
        for life in (self._heart, self._brain):
            if life.is_alive:
                signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)
        while (self._heart.is_alive or self._brain.is_alive) and now_ms() < until + FAREWELL_MS:
            self._turn(RETRY_MS)
        self._groups.tidy()
