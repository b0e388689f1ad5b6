"""One agent action in a child of the host: its limit, its evidence, its one outcome.

Decides when an action has ended, and how: by its answer, by its death, by
the time limit.  Yields exactly one :class:`Outcome` unless it is aborted.  It
neither knows why it was asked for nor what follows from the outcome, and
nothing of other actions; it never waits, so it lives in any loop that polls a
selector and calls :meth:`Action.strike` when its time has come.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from hostd import action_child, evidence, processes
from hostd.action_child import Answer, Task
from hostd.cgroups import Groups
from hostd.child import Child, death
from hostd.clock import now_ms
from hostd.decoding import UNDECODABLE
from hostd.jobs import Job, Outcome, Verb
from hostd.records import Record, Records, file_name
from hostd.registry import Agent

log = logging.getLogger("hostd.actions")

COLLECT_MAX_MS: Final = 2_000
"""Evidence takes some 30 ms; a look at a hung process may never return."""
DEATH_MAX_MS: Final = 2_000
"""A process killed with SIGKILL is gone in milliseconds, or waits in the kernel for a device."""
GRACE_MS: Final = 500
"""How long what a stopped service leaves behind may take to go by itself."""
LINGER_MS: Final = 20
OUTPUT_SHOWN: Final = 2_000

Done = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where the actions of one host are run, and what they share there."""

    node: str
    boot: str
    """``processes.boot_id()``: a record of another boot counts for nothing."""
    groups: Groups
    selector: selectors.BaseSelector
    records: Records
    outputs: Path
    """What each action printed, by resource and verb."""
    run_dirs: Path
    """A private directory for each resource."""
    state: Path
    """Evidence is kept below it."""
    abandoned: list[int]
    """Processes that were killed and that nobody waits for; they are still to be reaped."""


class _Stage(enum.Enum):
    RUNNING = 1
    COLLECTING = 2
    DYING = 3
    LINGERING = 4  # a stop said yes; its processes are given a moment
    STUCK = 5  # outcome given; a process that cannot be killed is still there


class Action:
    """Under way as soon as it is made.  Raises OSError if it cannot begin.

    ``gone(action)`` is called once, when another of its kind may begin;
    after it, ``done`` gets the outcome.  An action that is stuck gives its
    outcome first.
    """

    def __init__(self, job: Job, agent: Agent, at: Workplace, done: Done, gone: Callable[["Action"], None]) -> None:
        self.job = job
        self._at, self._gone = at, gone
        self._done: Done | None = done
        token = secrets.token_hex(6)
        self._place = at.groups.open(job.service, job.resource, token)
        self._record = Record(
            service=job.service,
            resource=job.resource,
            action=job.verb.value,
            changes=job.verb.changes,
            boot=at.boot,
            token=token,
            cgroup=self._place.cgroup,
        )
        at.records.write(self._record)
        name = file_name(job.service, job.resource)
        self._output = at.outputs / f"{name}+{job.verb.value}"
        self._output_end: int | None = None
        """Where its own output ends and the stack begins that it was made to print."""
        self._stage = _Stage.RUNNING
        self._began_at_ms = now_ms()
        self.until_ms = self._began_at_ms + job.timeout_ms
        """When the present stage is over, or is to be looked at again."""
        self._grace_until_ms = 0
        self._collector: Child | None = None
        self._evidence = ""
        self._answer: Answer | None = None
        task = _task(job, at.node, private(at.run_dirs / name))
        try:
            self._child = self._fork(agent, task)
        except OSError:
            at.groups.close(self._place)
            at.records.clear(self._record)
            raise

    # -- asked by who runs it ------------------------------------------------------

    @property
    def is_stuck(self) -> bool:
        """It has given its outcome, and a process that cannot be killed is still there."""
        return self._stage is _Stage.STUCK

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return self._child.files() + (self._collector.files() if self._collector is not None else [])

    def strike(self) -> None:
        """The time of its stage is over."""
        if self._stage is _Stage.RUNNING:
            self._collect()
        elif self._stage is _Stage.LINGERING:
            self._linger()
        elif self._stage is _Stage.COLLECTING:
            self._kill_all()
        else:
            assert self._stage is _Stage.DYING, self._stage
            self._await_death()

    def abort(self) -> None:
        """Kill it, without evidence and without outcome: nobody is left to hear of it."""
        self._done = None
        self._drop_collector()
        if not self._child.is_held:
            self._close(ok=False)
        elif not self.is_stuck:
            self._kill(daemons=False)
            self._grace_until_ms = 0  # daemons may stay: only the child itself is waited for
            self._enter(_Stage.DYING, DEATH_MAX_MS)

    # -- the child -------------------------------------------------------------------

    def _fork(self, agent: Agent, task: Task) -> Child:
        output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            return Child(self._at.selector, lambda: self._in_child(agent, task), output=output, ended=self._child_ended)
        finally:
            os.close(output)

    def _in_child(self, agent: Agent, task: Task) -> NoReturn:
        try:
            self._at.groups.enter(self._place)
            if self._record.needs_pid:
                own = processes.look(os.getpid())
                assert own is not None
                self._at.records.write(msgspec.structs.replace(self._record, pid=own.pid, started=own.started))
        except BaseException:  # passed on: only what was being done is said here
            os.write(2, b"the action could not begin: ")
            raise
        action_child.run(agent, task)

    def _child_ended(self) -> None:
        said, status = self._child.reap()
        if self._stage is _Stage.STUCK:
            self._close(ok=False)
        elif self._stage is _Stage.DYING:
            self._await_death()
        elif self._stage is _Stage.RUNNING:
            verb = self.job.verb
            self._answer = _read(said) or Answer(ok=False, reason=f"{verb.value} {death(status)} before it answered")
            if verb is Verb.STOP and self._answer.ok:
                self._grace_until_ms = now_ms() + GRACE_MS
                self._linger()
            else:
                self._finish(self._answer)

    # -- the time limit --------------------------------------------------------------

    def _collect(self) -> None:
        """Fork the collector of evidence; what hangs is killed when it has ended."""
        job, groups = self.job, self._at.groups
        limit_s = job.timeout_ms / 1000
        headline = f"{job.verb.value} of {job.resource} ({job.agent}) in {job.service}: no end in {limit_s:g} s"
        self._output_end = self._output.stat().st_size
        os.kill(self._child.pid, action_child.STACK_SIGNAL)
        self._enter(_Stage.COLLECTING, COLLECT_MAX_MS)

        def look() -> bytes:
            evidence.write(path, headline, groups.in_action(self._place, self._child.pid), self._output)
            return b""

        try:
            path = evidence.new_path(self._at.state, job.service, job.resource, job.verb.value)
            with open("/dev/null", "r+b", buffering=0) as nothing:
                self._collector = Child(self._at.selector, look, output=nothing.fileno(), ended=self._kill_all)
        except OSError as error:  # state directory full or read-only, no more processes: evidence is a luxury
            log.warning("no evidence of the %s: %s", headline, error)
            self._kill_all()
            return
        self._evidence = str(path)

    def _drop_collector(self) -> None:
        if self._collector is not None:
            self._collector.abandon()  # it may hang in the kernel: never waited for
            self._at.abandoned.append(self._collector.pid)
            self._collector = None

    def _kill_all(self) -> None:
        self._drop_collector()
        self._kill(daemons=True)
        self._grace_until_ms = now_ms() + DEATH_MAX_MS
        self._enter(_Stage.DYING, DEATH_MAX_MS)
        if not self._child.is_held:
            self._await_death()

    def _await_death(self) -> None:
        """SIGKILL takes a moment: no outcome while something that was killed may still act."""
        late = now_ms() >= self._grace_until_ms
        if self._child.is_held or late or not self._at.groups.in_action(self._place, self._child.pid):
            self._finish_killed()
        else:
            self._enter(_Stage.DYING, LINGER_MS)

    def _kill(self, *, daemons: bool) -> None:
        if self._child.is_held:  # first: a newborn child has not entered its group yet
            self._child.kill()
        self._at.groups.kill(self._place, self._child.pid, daemons=daemons)

    # -- the outcome -----------------------------------------------------------------

    def _linger(self) -> None:
        left = self._at.groups.in_resource(self.job.service, self.job.resource)
        assert self._answer is not None
        if not left:
            self._finish(self._answer)
        elif now_ms() >= self._grace_until_ms:
            names = ", ".join(f"{p.name} ({p.pid})" for p in left[:5])
            self._finish(self._answer, leftovers=len(left), reason=f"still there: {names}")
        else:
            self._enter(_Stage.LINGERING, LINGER_MS)

    def _finish(self, answer: Answer, leftovers: int = 0, reason: str = "") -> None:
        self._close(ok=answer.ok and leftovers == 0)
        self._give(
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

    def _finish_killed(self) -> None:
        """The limit struck, all is killed; or it cannot be killed, and nobody waits for it."""
        reason = f"{self.job.verb.value} did not end within {self.job.timeout_ms / 1000:g} s"
        if self._child.is_held:
            process = processes.look(self._child.pid)
            state = f", state {process.state}" if process else ""
            reason += f" and cannot be killed (process {self._child.pid}{state})"
            self._stage = _Stage.STUCK
        else:
            self._close(ok=False)
        self._give(Outcome(ok=False, timed_out=True, reason=reason, evidence=self._evidence))

    def _give(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        done(
            msgspec.structs.replace(
                outcome,
                took_ms=now_ms() - self._began_at_ms,
                output=evidence.tail(self._output, OUTPUT_SHOWN, self._output_end),
            )
        )

    def _close(self, *, ok: bool) -> None:
        self._at.groups.close(self._place)
        if ok or not self.job.verb.changes:
            self._at.records.clear(self._record)
        else:
            self._at.records.write(msgspec.structs.replace(self._record, ended=True))
        self._gone(self)

    def _enter(self, stage: _Stage, for_ms: int) -> None:
        self._stage = stage
        self.until_ms = now_ms() + for_ms


def private(folder: Path) -> Path:
    """The folder, made for root alone if it is not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _task(job: Job, node: str, run_dir: Path) -> Task:
    return Task(
        name=job.resource,
        node=node,
        verb=job.verb.value,
        params=job.params,
        run_dir=run_dir,
        timeout_ms=job.timeout_ms,
        depth=job.depth,
        reference=job.agent,
        service=job.service,
        interval_ms=job.interval_ms,
    )


def _read(said: bytes) -> Answer | None:
    try:
        return msgspec.msgpack.decode(said, type=Answer)
    except UNDECODABLE:
        return None  # it died before it wrote, or in the middle
