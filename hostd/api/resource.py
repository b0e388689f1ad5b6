"""What an agent is handed: the one resource it acts for, and the means to act.

Decides that nothing an agent does through it outlives the deadline.  Knows
no cluster, no other resource and no daemon: it lives in the child that runs
one action.
"""

import contextlib
import fcntl
import functools
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hostd.api.command import Completed, run_command
from hostd.api.errors import AgentError


class Resource:
    """What an agent is handed: the one resource it acts for, and the means to act.

    ``params``: read-only, typed, defaults filled in.  ``reference``: the text
    after ``agent =`` (``ocf:heartbeat:apache``).  ``service``: whose resource
    it is.  ``depth``: 0, 10 or 20, as OCF_CHECK_LEVEL.  ``interval_ms``: of a
    recurring monitor, else 0 (a probe, in OCF's words).  ``run_dir``: private to this resource, mode 0700, kept
    between actions, emptied at boot.  ``deadline``: of this action, on
    ``time.monotonic()``.  Lives in the child that runs one action.
    """

    def __init__(
        self,
        *,
        name: str,
        node: str,
        params: Mapping[str, Any],
        run_dir: Path,
        deadline: float,
        depth: int = 0,
        reference: str = "",
        service: str = "",
        interval_ms: int = 0,
        log: logging.Logger | None = None,
    ) -> None:
        self.name, self.node, self.params, self.depth = name, node, params, depth
        self.run_dir, self.deadline = run_dir, deadline
        self.reference, self.service, self.interval_ms = reference, service, interval_ms
        self.main_pid: int | None = None
        """A start or monitor that has just found the main process may leave its number here:
        then ``main_process`` is not asked for it."""
        if log is not None:
            self.log = log

    @functools.cached_property
    def log(self) -> logging.Logger:
        """What it is told is kept with the action's output.  Made when it is first used: few monitors say anything."""
        return logging.getLogger(f"hostd.agent.{self.name}")

    @property
    def remaining(self) -> float:
        """Seconds left until the deadline; never below 0."""
        return max(0.0, self.deadline - time.monotonic())

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        input: str | None = None,  # noqa: A002 - the word the contract uses
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command to its end and return how it ended.

        Never waits longer than ``timeout`` seconds or the deadline; then the
        command is killed and AgentError raised, as also if it cannot be run.
        Waits for the process, not for the end of its output: a daemon that
        keeps its caller's output open does not hang the action.
        """
        limit = self.remaining if timeout is None else min(timeout, self.remaining)
        return run_command(argv, limit, input, env)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
    ) -> int:
        """Start a daemon that outlives the action; its process id.

        It gets a session of its own, its output goes to ``output`` in
        ``run_dir``, and it stays in the service's cgroup.  ``keep``: open
        files that it is to inherit.
        """
        with open(self.run_dir / "output", "ab") as output:
            try:
                process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    user=user,
                    env=None if env is None else {**os.environ, **env},
                    pass_fds=keep,
                )
            except (OSError, KeyError) as error:
                raise AgentError(f"{argv[0]} cannot be run: {error}", cure=f"install {argv[0]}") from error
        process.returncode = 0  # it outlives us on purpose: no warning, no reaping at exit
        return process.pid

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other action that holds this goes on meanwhile: two starts at once would lose a process.

        The host runs one change at a time; an operator's ``hostd-agent run`` beside it may not.
        """
        folder = os.open(self.run_dir, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def wait(self, ready: Callable[[], bool], what: str, *, pause: float = 0.02) -> None:
        """Ask ``ready`` again and again; AgentError with ``what`` if the deadline comes first."""
        while not ready():
            if self.remaining <= pause:
                raise AgentError(f"{what} within the time limit")
            time.sleep(pause)

    def signal(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal; False if there is no such process."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True
