"""All agent actions of one host: which may begin, and what must outlive their host.

Decides that one action that changes a resource and one that looks at it may
be under way at a time, that each taken one yields one :class:`Outcome` unless
all are aborted, and how much of their output is kept.  Refuses to know how
one action comes to its end, which ``action`` does, and why it was asked for.
It never waits, so it lives in any loop that polls a selector and calls
:meth:`Actions.tick`.
"""

import os
import selectors
from pathlib import Path
from typing import Final

import msgspec

from hostd import leftovers, processes
from hostd.action import Action, Done, Workplace, private
from hostd.api import ConfigError
from hostd.cgroups import Groups
from hostd.clock import now_ms
from hostd.jobs import Job, Outcome
from hostd.records import Records
from hostd.registry import Registry

OUTPUT_MAX: Final = 1_000_000
"""Bytes of output kept per resource and action; beyond, it starts over."""

_Kind = tuple[str, str, bool]
"""Service, resource, whether it changes it."""


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
        self.registry = registry
        self._at = Workplace(
            node=node,
            boot=processes.boot_id(),
            groups=groups,
            selector=selector,
            records=Records(runtime / "actions"),
            outputs=private(runtime / "output"),
            run_dirs=private(runtime / "resources"),
            state=state,
            abandoned=[],
        )
        self._running: dict[_Kind, Action] = {}

    def recover(self) -> tuple[str, ...]:
        """Kill what an earlier host left of its actions; the services not to be trusted.

        Only the actions' own processes: daemons that one of them had started
        stay, for their agent to stop in its own way.
        """
        records = self._at.records
        for record in records.all(self._at.boot):
            if record.ended:
                continue
            leftovers.kill(record, self._at.groups)
            if record.changes:
                records.write(msgspec.structs.replace(record, ended=True))
            else:
                records.clear(record)
        return self.unfinished()

    def unfinished(self) -> tuple[str, ...]:
        """Services with a start or stop that has not ended well, running ones included."""
        return self._at.records.unfinished(self._at.boot)

    def start(self, job: Job, done: Done) -> None:
        """Begin; ``done`` gets the one outcome, later or (if it cannot begin) at once."""
        earlier = self._running.get(_kind(job))
        if earlier is not None:
            done(Outcome(ok=False, reason=f"an earlier {earlier.job.verb.value} of {job.resource} is still there"))
            return
        try:
            agent = self.registry.agent(job.agent)
        except ConfigError as error:
            done(Outcome(ok=False, reason=str(error)))
            return
        try:
            self._running[_kind(job)] = Action(job, agent, self._at, done, self._gone)
        except OSError as error:  # no more processes, disk full, read-only …
            done(Outcome(ok=False, reason=f"the action could not be started: {error}"))

    def abort(self) -> None:
        """Kill every running action, without evidence and without outcome: nobody
        is left to hear of it.  Go on ticking until nothing is ``busy``; then
        ``unfinished`` says whose start or stop was cut off."""
        for action in list(self._running.values()):
            action.abort()

    @property
    def busy(self) -> bool:
        """Is an action under way that somebody waits for or that is still dying?"""
        return any(not action.is_stuck for action in self._running.values())

    def is_changing(self, service: str, resource: str) -> bool:
        """Is a start or stop of it under way?"""
        return (service, resource, True) in self._running

    def bound_output(self) -> None:
        """Empty what has grown too large: a chatty daemon must not fill the runtime
        directory, which is memory.  All is written in append mode, so it starts over."""
        for path in (*self._at.outputs.iterdir(), *self._at.run_dirs.glob("*/output")):
            if path.stat().st_size > OUTPUT_MAX:
                os.truncate(path, 0)

    def files(self) -> list[int]:
        """Open files that no other child of the host may keep."""
        return [file for action in self._running.values() for file in action.files()]

    def wake_at_ms(self) -> int | None:
        """When :meth:`tick` has something to do; None: not before a file is readable."""
        return min((action.until_ms for action in self._running.values() if not action.is_stuck), default=None)

    def tick(self) -> None:
        """Strike where a stage's time is over."""
        abandoned = self._at.abandoned
        abandoned[:] = [pid for pid in abandoned if os.waitpid(pid, os.WNOHANG)[0] == 0]
        for action in list(self._running.values()):
            if not action.is_stuck and now_ms() >= action.until_ms:
                action.strike()

    def _gone(self, action: Action) -> None:
        del self._running[_kind(action.job)]


def _kind(job: Job) -> _Kind:
    return job.service, job.resource, job.verb.changes
