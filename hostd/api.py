"""All that an extension may import.

An agent is one module in ``agents/`` that implements the hooks of
``hostd.hookspecs.AgentSpec`` with ``@hookimpl``; a heartbeat medium or a
fencing device is one module in ``plugins/``.  Neither imports anything else
of hostd, so that an agent that works today works with the next release.

Errors::

    HostdError
    ├── ConfigError     the operator's mistake: says thing, value, rule, cure
    └── AgentError      the world's failure, as an agent met it
"""

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import pluggy

from hostd.core.stream import StreamDecoder, frame_for_stream
from hostd.core.terms import Carrier, Health

__all__ = [
    "REQUIRED", "AgentError", "Carrier", "Completed", "ConfigError", "FenceOrder", "Field", "Health", "HostdError",
    "Link", "LinkSettings", "Note", "Parameters", "Resource", "StreamDecoder", "frame_for_stream", "hookimpl",
]  # fmt: skip

hookimpl = pluggy.HookimplMarker("hostd")
"""Marks a function of an extension as the answer to the hook of its name."""


class HostdError(Exception):
    """The root of hostd's own exceptions."""


class ConfigError(HostdError):
    """The operator's mistake.  The message says thing, value, rule and cure."""


class AgentError(HostdError):
    """An action failed: the reason in one sentence, and what cures it if that is known."""

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


class Field:
    """One parameter: its name, type (str, int, float, bool or list), default
    and one sentence of help.  ``secret``: never shown, never in an argument list.
    ``choices``: the only values allowed, if not empty.
    """

    def __init__(
        self,
        name: str,
        type: Callable[..., Any] = str,  # noqa: A002 - the word the contract uses
        *,
        default: Any = REQUIRED,
        help: str = "",  # noqa: A002 - the word the contract uses
        secret: bool = False,
        choices: Sequence[Any] = (),
    ) -> None:
        self.name, self.type, self.default, self.help = name, type, default, help
        self.secret, self.choices = secret, tuple(choices)

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


class Parameters:
    """What an extension lets the operator set.

    ``timeouts``: default time limits per action, as durations with a unit;
    ``monitor_interval`` likewise, and ``monitor_depth`` of the recurring monitor
    (0, 10 or 20).  ``exclusive_storage``: writes data that two nodes must never
    write at once.  ``any_others``: parameters beyond
    the fields are allowed (an agent that passes them on).  ``cable``: a link
    type that always joins the two nodes directly, so that its carrier, where
    the medium has one (a serial line's DSR), tells of the peer's power.
    """

    def __init__(
        self,
        *fields: Field,
        summary: str = "",
        timeouts: Mapping[str, str] | None = None,
        monitor_interval: str = "10s",
        monitor_depth: int = 0,
        exclusive_storage: bool = False,
        any_others: bool = False,
        cable: bool = False,
    ) -> None:
        self.fields = fields
        self.summary = summary
        self.timeouts = {"start": "20s", "stop": "20s", "monitor": "20s", **(timeouts or {})}
        self.monitor_interval = monitor_interval
        self.monitor_depth = monitor_depth
        self.exclusive_storage = exclusive_storage
        self.any_others = any_others
        self.cable = cable


class Completed(msgspec.Struct, frozen=True):
    """How a command ended: exit status (negative: the signal that killed it) and output."""

    returncode: int
    stdout: str
    stderr: str


def _wait(process: "subprocess.Popen[bytes]", limit: float) -> None:
    """Wait for the process itself; at once when it ends (``Popen.wait`` with a
    limit looks only every 50 ms)."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, limit) * 1_000):
            raise subprocess.TimeoutExpired(process.args, limit)
    finally:
        os.close(pidfd)
    process.wait()


def _run(argv: Sequence[str], limit: float, text: str | None, env: Mapping[str, str] | None) -> Completed:
    """``Resource.run`` with the limit in seconds and the standard input as ``text``."""
    with (
        open(os.memfd_create("stdout"), "w+b") as out,
        open(os.memfd_create("stderr"), "w+b") as err,
    ):
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=None if env is None else {**os.environ, **env},
            )
        except OSError as error:
            raise AgentError(
                f"{argv[0]} cannot be run: {error.strerror}", cure=f"install {argv[0]} or set its path"
            ) from error
        try:
            if text is not None and process.stdin is not None:
                with process.stdin as pipe:
                    pipe.write(text.encode())
            _wait(process, limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AgentError(f"{argv[0]} did not end within {limit:.1f} s") from None
        except BrokenPipeError:
            _wait(process, limit)
        out.seek(0)
        err.seek(0)
        return Completed(
            process.returncode,
            out.read(1_000_000).decode(errors="replace"),
            err.read(1_000_000).decode(errors="replace"),
        )


class Resource:
    """What an agent is handed: the one resource it acts for, and the means to act.

    ``params``: read-only, typed, defaults filled in.  ``depth``: 0, 10 or 20,
    as OCF_CHECK_LEVEL.  ``run_dir``: private to this resource, mode 0700, kept
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
        log: logging.Logger | None = None,
    ) -> None:
        self.name, self.node, self.params, self.depth = name, node, params, depth
        self.run_dir, self.deadline = run_dir, deadline
        self.log = log or logging.getLogger(f"hostd.agent.{name}")

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
        return _run(argv, limit, input, env)

    def spawn(self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None) -> int:
        """Start a daemon that outlives the action; its process id.

        It gets a session of its own, its output goes to ``output`` in
        ``run_dir``, and it stays in the service's cgroup.
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
                )
            except (OSError, KeyError) as error:
                raise AgentError(f"{argv[0]} cannot be run: {error}", cure=f"install {argv[0]}") from error
        process.returncode = 0  # it outlives us on purpose: no warning, no reaping at exit
        return process.pid

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


class FenceOrder:
    """One ``[[fencing.device]]``, told to power one node off: what the hook ``fence`` is handed.

    ``agent``, ``params`` and ``secrets`` as conf.d has them for the node that
    is to be fenced; ``secrets`` are the files that hold the values.
    ``deadline``: on ``time.monotonic()``; everything that is still there then
    is killed from outside.  Lives in the child that works one device.
    """

    def __init__(
        self,
        *,
        agent: str,
        node: str,
        params: Mapping[str, Any],
        secrets: Mapping[str, Path],
        deadline: float,
    ) -> None:
        self.agent, self.node, self.params, self.secrets, self.deadline = agent, node, params, secrets, deadline

    @property
    def remaining(self) -> float:
        """Seconds left until the deadline; never below 0."""
        return max(0.0, self.deadline - time.monotonic())

    def run(self, argv: Sequence[str], *, input: str) -> Completed:  # noqa: A002 - the word the contract uses
        """As ``Resource.run``: to its end, never longer than the deadline, else AgentError."""
        return _run(argv, self.remaining, input, None)


class Note(str):
    """A sentence of ``check_link`` that is good to know and no mistake."""


class LinkSettings(msgspec.Struct, frozen=True):
    """One ``[[heartbeat.link]]`` as this node is to open it.

    ``settings``: its keys but for type, name and direct, with a table of node
    names already replaced: own value under the key, the peer's under
    ``peer_`` + key where both nodes have one.  ``keepalive_ms``: how often a
    beat is sent.
    """

    name: str
    type: str
    node: str
    peer: str
    cluster: str
    keepalive_ms: int
    settings: dict[str, Any] = {}


class Link(Protocol):
    """An open heartbeat medium.  Used by the heart only, which must never
    wait: every method returns at once, whatever the medium does."""

    mtu: int
    """The largest frame in bytes that ``send`` takes."""
    keepalive_ms: int
    """How often a beat may be sent here: the configured one, or a slower one
    that the medium can carry (a serial line at 9600 baud)."""
    burst: int
    """How many frames the medium takes at once: many for a network, 1 for a
    serial line, which gets one part of a snapshot after each beat."""

    def fileno(self) -> int:
        """What to poll for readability; -1 while the medium is away."""
        ...

    def send(self, frame: bytes) -> bool:
        """Send, or drop if the medium is busy or away: the latest wins, nothing queues.
        False if it was dropped here.  Never raises for what the medium does."""
        ...

    def received(self) -> list[bytes]:
        """All frames that have arrived, oldest first; never blocks.  What is
        no frame is counted in ``rejected`` and dropped.  A medium that hung
        up is closed here and opened again by ``tick``."""
        ...

    def tick(self, now_ms: int) -> None:
        """Called once per keepalive: reopen what is away (with backoff)."""
        ...

    def carrier(self) -> Carrier:
        """What the hardware says of the other end."""
        ...

    @property
    def usable(self) -> bool:
        """The medium is open."""
        ...

    @property
    def detail(self) -> str:
        """Why it is not usable, for people; empty if it is."""
        ...

    @property
    def rejected(self) -> int:
        """How many pieces of garbage arrived."""
        ...

    def close(self) -> None: ...
