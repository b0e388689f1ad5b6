"""One agent action in a child of the host: its limit, its evidence, its one outcome.

Decides when an action has ended, and how: by its answer, by its death, by
the time limit.  Every action that was taken yields exactly one
:class:`Outcome` unless it was aborted.  It neither knows why an action was
asked for nor what follows from the outcome; it never waits, so it lives in
any loop that polls a selector and calls :meth:`Actions.tick`.

The stages of an action::

    RUNNING ──answer──→ (stop: LINGERING until nothing is left, or the grace is over) ──→ outcome
       │ limit
       └──→ COLLECTING evidence ──→ DYING (everything it started is killed) ──→ outcome
                                      └─ not dead in time: outcome all the same, the rest is waited for
"""

import enum
import logging
import os
import secrets
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from hostd import action_child, evidence, leftovers, processes
from hostd.action_child import Answer, Task
from hostd.api import ConfigError
from hostd.cgroups import Groups, Place
from hostd.clock import now_ms
from hostd.jobs import Job, Outcome, Verb
from hostd.records import Record, Records, file_name
from hostd.registry import Agent, Registry

log = logging.getLogger("hostd.actions")

COLLECT_MAX_MS: Final = 2_000
"""Evidence takes some 30 ms; a look at a hung process may never return."""
DEATH_MAX_MS: Final = 2_000
"""A process killed with SIGKILL is gone in milliseconds, or waits in the kernel for a device."""
GRACE_MS: Final = 500
"""How long what a stopped service leaves behind may take to go by itself."""
LINGER_MS: Final = 20
OUTPUT_MAX: Final = 1_000_000
"""Bytes of output kept per resource and action; beyond, it starts over."""
OUTPUT_SHOWN: Final = 2_000


Done = Callable[[Outcome], None]


class _Stage(enum.Enum):
    RUNNING = 1
    COLLECTING = 2
    DYING = 3
    LINGERING = 4  # a stop said yes; its processes are given a moment
    STUCK = 5  # outcome given; a process that cannot be killed is still there


class _Running:
    """One action under way."""

    def __init__(self, job: Job, done: Done | None, place: Place, record: Record, output: Path) -> None:
        self.job, self.done, self.place, self.record, self.output = job, done, place, record, output
        self.stage = _Stage.RUNNING
        self.began_at_ms = now_ms()
        self.until_ms = self.began_at_ms + job.timeout_ms
        """When the present stage is over, or is to be looked at again."""
        self.grace_until_ms = 0
        self.pid = self.pidfd = self.pipe = -1
        self.collector = self.collector_fd = -1
        self.evidence = ""
        self.output_end: int | None = None
        """Where its own output ends and the stack begins that it was made to print."""
        self.answer: Answer | None = None
        self.reaped = False


class Actions:
    """All actions of one host (or of one ``hostd-agent run``)."""

    def __init__(
        self,
        registry: Registry,
        groups: Groups,
        *,
        node: str,
        runtime: Path,
        state: Path,
        selector: selectors.BaseSelector,
    ) -> None:
        self.registry, self._groups, self._node, self._state = registry, groups, node, state
        self._selector = selector
        self._boot = processes.boot_id()
        self._records = Records(runtime / "actions")
        self._outputs = _private(runtime / "output")
        self._run_dirs = _private(runtime / "resources")
        self._running: dict[tuple[str, str, bool], _Running] = {}
        self._collectors: list[int] = []

    # -- asked by the host ------------------------------------------------------

    def recover(self) -> tuple[str, ...]:
        """Kill what an earlier host left of its actions; the services not to be trusted.

        Only the actions' own processes: daemons that one of them had started
        stay, for their agent to stop in its own way.
        """
        for record in self._records.all(self._boot):
            if record.ended:
                continue
            leftovers.kill(record, self._groups)
            if record.changes:
                self._records.write(msgspec.structs.replace(record, ended=True))
            else:
                self._records.clear(record)
        return self.unfinished()

    def unfinished(self) -> tuple[str, ...]:
        """Services with a start or stop that has not ended well, running ones included."""
        return self._records.unfinished(self._boot)

    def start(self, job: Job, done: Done) -> None:
        """Begin; ``done`` gets the one outcome, later or (if it cannot begin) at once."""
        key = (job.service, job.resource, job.verb.changes)
        if key in self._running:
            earlier = self._running[key].job.verb.value
            done(Outcome(ok=False, reason=f"an earlier {earlier} of {job.resource} is still there"))
            return
        try:
            agent = self.registry.agent(job.agent)
        except ConfigError as error:
            done(Outcome(ok=False, reason=str(error)))
            return
        try:
            self._running[key] = self._begin(job, agent, done)
        except OSError as error:  # no more processes, disk full, read-only …
            done(Outcome(ok=False, reason=f"the action could not be started: {error}"))

    def abort(self) -> None:
        """Kill every running action, without evidence and without outcome: nobody
        is left to hear of it.  Go on ticking until nothing is ``busy``; then
        ``unfinished`` says whose start or stop was cut off."""
        for running in list(self._running.values()):
            running.done = None
            self._drop_collector(running)
            if running.reaped:
                self._close(running, ok=False)
            elif running.stage is not _Stage.STUCK:
                self._kill(running, daemons=False)
                running.grace_until_ms = 0  # daemons may stay: only the child itself is waited for
                self._enter(running, _Stage.DYING, DEATH_MAX_MS)

    @property
    def busy(self) -> bool:
        """Is an action under way that somebody waits for or that is still dying?"""
        return any(r.stage is not _Stage.STUCK for r in self._running.values())

    def is_changing(self, service: str, resource: str) -> bool:
        return (service, resource, True) in self._running

    def bound_output(self) -> None:
        """Empty what has grown too large: a chatty daemon must not fill the runtime
        directory, which is memory.  All is written in append mode, so it starts over."""
        for path in (*self._outputs.iterdir(), *self._run_dirs.glob("*/output")):
            if path.stat().st_size > OUTPUT_MAX:
                os.truncate(path, 0)

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        found = []
        for running in self._running.values():
            found += [] if running.reaped else [running.pidfd, running.pipe]
            found += [running.collector_fd] if running.collector_fd >= 0 else []
        return found

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do; None: not before a file is readable."""
        times = [r.until_ms for r in self._running.values() if r.stage is not _Stage.STUCK]
        return min(times, default=None)

    def tick(self) -> None:
        """Strike where a stage's time is over."""
        self._collectors = [pid for pid in self._collectors if os.waitpid(pid, os.WNOHANG)[0] == 0]
        for running in list(self._running.values()):
            if running.stage is not _Stage.STUCK and now_ms() >= running.until_ms:
                self._strike(running)

    # -- the child --------------------------------------------------------------

    def _begin(self, job: Job, agent: Agent, done: Done) -> _Running:
        token = secrets.token_hex(6)
        place = self._groups.open(job.service, job.resource, token)
        record = Record(
            service=job.service,
            resource=job.resource,
            action=job.verb.value,
            changes=job.verb.changes,
            boot=self._boot,
            token=token,
            cgroup=place.cgroup,
        )
        self._records.write(record)
        name = file_name(job.service, job.resource)
        running = _Running(job, done, place, record, self._outputs / f"{name}+{job.verb.value}")
        task = Task(
            name=job.resource,
            node=self._node,
            verb=job.verb.value,
            params=job.params,
            run_dir=_private(self._run_dirs / name),
            timeout_ms=job.timeout_ms,
            depth=job.depth,
            reference=job.agent,
            service=job.service,
            interval_ms=job.interval_ms,
        )
        try:
            self._fork(running, agent, task)
        except OSError:
            self._groups.close(place)
            self._records.clear(record)
            raise
        return running

    def _fork(self, running: _Running, agent: Agent, task: Task) -> None:
        output = os.open(running.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        running.pipe, answer_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            running.pid = os.fork()
            if running.pid == 0:
                self._in_child(parent, output, answer_end, agent, task, running)
        finally:
            os.close(output)
            os.close(answer_end)
        running.pidfd = os.pidfd_open(running.pid)
        self._selector.register(running.pidfd, selectors.EVENT_READ, lambda: self._child_ended(running))

    def _in_child(
        self, parent: int, output: int, answer_end: int, agent: Agent, task: Task, running: _Running
    ) -> NoReturn:
        try:
            action_child.detach(parent, output, answer_end)
            self._groups.enter(running.place)
            own = processes.look(os.getpid())
            assert own is not None
            self._records.write(msgspec.structs.replace(running.record, pid=own.pid, started=own.started))
            action_child.run(agent, task)
        except BaseException:  # noqa: BLE001 - the edge: the host's stack must not be unwound in a child
            os.write(2, f"the action could not begin: {traceback.format_exc()}\n".encode())
        os._exit(70)  # EX_SOFTWARE: no answer was written, and the host says so

    def _child_ended(self, running: _Running) -> None:
        self._selector.unregister(running.pidfd)
        os.close(running.pidfd)
        _, status = os.waitpid(running.pid, 0)
        running.reaped = True
        answer = _read_answer(running.pipe)
        os.close(running.pipe)
        if running.stage is _Stage.STUCK:
            self._close(running, ok=False)
        elif running.stage is _Stage.DYING:
            self._await_death(running)
        elif running.stage is _Stage.RUNNING:
            running.answer = answer or Answer(ok=False, reason=_died(running.job.verb, status))
            if running.job.verb is Verb.STOP and running.answer.ok:
                running.grace_until_ms = now_ms() + GRACE_MS
                self._linger(running)
            else:
                self._finish(running, running.answer)

    # -- the time limit ---------------------------------------------------------

    def _strike(self, running: _Running) -> None:
        if running.stage is _Stage.RUNNING:
            self._collect(running)
        elif running.stage is _Stage.LINGERING:
            self._linger(running)
        elif running.stage is _Stage.COLLECTING:
            self._kill_all(running)
        else:
            assert running.stage is _Stage.DYING, running.stage
            self._await_death(running)

    def _collect(self, running: _Running) -> None:
        """Fork the collector of evidence; what hangs is killed when it has ended."""
        job = running.job
        limit_s = job.timeout_ms / 1000
        headline = f"{job.verb.value} of {job.resource} ({job.agent}) in {job.service}: no end in {limit_s:g} s"
        running.output_end = running.output.stat().st_size
        os.kill(running.pid, action_child.STACK_SIGNAL)
        self._enter(running, _Stage.COLLECTING, COLLECT_MAX_MS)
        try:
            path = evidence.new_path(self._state, job.service, job.resource, job.verb.value)
            nothing = os.open("/dev/null", os.O_RDWR)
            parent = os.getpid()
            running.collector = os.fork()
            if running.collector == 0:
                self._in_collector(parent, nothing, path, headline, running)
            os.close(nothing)
        except OSError as error:  # state directory full or read-only, no more processes: evidence is a luxury
            log.warning("no evidence of the %s: %s", headline, error)
            self._kill_all(running)
            return
        running.evidence = str(path)
        running.collector_fd = os.pidfd_open(running.collector)
        self._selector.register(running.collector_fd, selectors.EVENT_READ, lambda: self._kill_all(running))

    def _in_collector(self, parent: int, nothing: int, path: Path, headline: str, running: _Running) -> NoReturn:
        try:
            action_child.detach(parent, nothing, nothing)
            found = self._groups.in_action(running.place, running.pid)
            evidence.write(path, headline, found, running.output)
        finally:
            os._exit(0)

    def _drop_collector(self, running: _Running) -> None:
        if running.collector_fd < 0:
            return
        signal.pidfd_send_signal(running.collector_fd, signal.SIGKILL)
        self._selector.unregister(running.collector_fd)
        os.close(running.collector_fd)
        running.collector_fd = -1
        self._collectors.append(running.collector)  # it may hang in the kernel: never waited for

    def _kill_all(self, running: _Running) -> None:
        self._drop_collector(running)
        self._kill(running, daemons=True)
        running.grace_until_ms = now_ms() + DEATH_MAX_MS
        self._enter(running, _Stage.DYING, DEATH_MAX_MS)
        if running.reaped:
            self._await_death(running)

    def _await_death(self, running: _Running) -> None:
        """SIGKILL takes a moment: no outcome while something that was killed may still act."""
        late = now_ms() >= running.grace_until_ms
        if not running.reaped or late or not self._groups.in_action(running.place, running.pid):
            self._finish_killed(running)
        else:
            self._enter(running, _Stage.DYING, LINGER_MS)

    def _kill(self, running: _Running, *, daemons: bool) -> None:
        if not running.reaped:  # first: a newborn child has not entered its group yet
            signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        self._groups.kill(running.place, running.pid, daemons=daemons)

    # -- the outcome ------------------------------------------------------------

    def _linger(self, running: _Running) -> None:
        left = self._groups.in_resource(running.job.service, running.job.resource)
        assert running.answer is not None
        if not left:
            self._finish(running, running.answer)
        elif now_ms() >= running.grace_until_ms:
            names = ", ".join(f"{p.name} ({p.pid})" for p in left[:5])
            self._finish(running, running.answer, leftovers=len(left), reason=f"still there: {names}")
        else:
            self._enter(running, _Stage.LINGERING, LINGER_MS)

    def _finish(self, running: _Running, answer: Answer, leftovers: int = 0, reason: str = "") -> None:
        self._close(running, ok=answer.ok and leftovers == 0)
        self._give(
            running,
            Outcome(
                ok=answer.ok,
                health=answer.health,
                leftovers=leftovers,
                reason=reason or answer.reason,
                cure=answer.cure,
                main_pid=answer.main_pid,
                main_started=answer.main_started,
            ),
        )

    def _finish_killed(self, running: _Running) -> None:
        """The limit struck, all is killed; or it cannot be killed, and nobody waits for it."""
        job = running.job
        reason = f"{job.verb.value} did not end within {job.timeout_ms / 1000:g} s"
        if not running.reaped:
            process = processes.look(running.pid)
            state = f", state {process.state}" if process else ""
            reason += f" and cannot be killed (process {running.pid}{state})"
        if running.reaped:
            self._close(running, ok=False)
        else:
            running.stage = _Stage.STUCK
        self._give(running, Outcome(ok=False, timed_out=True, reason=reason, evidence=running.evidence))

    def _give(self, running: _Running, outcome: Outcome) -> None:
        done, running.done = running.done, None
        if done is None:
            return
        done(
            msgspec.structs.replace(
                outcome,
                took_ms=now_ms() - running.began_at_ms,
                output=evidence.tail(running.output, OUTPUT_SHOWN, running.output_end),
            )
        )

    def _close(self, running: _Running, *, ok: bool) -> None:
        self._groups.close(running.place)
        if ok or not running.job.verb.changes:
            self._records.clear(running.record)
        else:
            self._records.write(msgspec.structs.replace(running.record, ended=True))
        del self._running[(running.job.service, running.job.resource, running.job.verb.changes)]

    def _enter(self, running: _Running, stage: _Stage, for_ms: int) -> None:
        running.stage = stage
        running.until_ms = now_ms() + for_ms


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _read_answer(pipe: int) -> Answer | None:
    try:
        return msgspec.msgpack.decode(os.read(pipe, 65_536), type=Answer)
    except (BlockingIOError, msgspec.DecodeError):
        return None  # it died before it wrote, or in the middle


def _died(verb: Verb, status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"{verb.value} was killed by {signal.Signals(os.WTERMSIG(status)).name} before it answered"
    return f"{verb.value} ended with exit status {os.WEXITSTATUS(status)} before it answered"
