"""What is done to one action, from inside its child, before the agent's code runs.

Decides how a circumstance (no program in the PATH, another user, a private
view of the disks, a hang) comes about, and what the action leaves as a trace:
each command and file that the agent's own code asked for, and the CPU time.
An :class:`Afflicted` agent is handed to hostd's own actions in the place of
the real one, so all else is exactly as the daemon does it.
"""

import contextlib
import ctypes
import json
import os
import resource as rusage
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from hostd.api import Health, Resource
from hostd.registry import Agent

CLONE_NEWNS: Final = 0x00020000
LIBC: Final = ctypes.CDLL(None, use_errno=True)
A_LONG_TIME_S: Final = 1_000_000

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_SHORT_LIST: Final = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "socket.connect", "socket.bind")
_FILES: Final = ("os.mkdir", "os.symlink", "os.link", "os.rename")

T = TypeVar("T")


class Circumstances(msgspec.Struct, frozen=True):
    """Under which one action runs; the defaults are the daemon's own."""

    hang: Literal["", "before", "after"] = ""
    """The action never ends: before it has done anything, or when all is done."""
    path: str | None = None
    """Another PATH."""
    directory: Path | None = None
    """Another working directory."""
    namespace: str = ""
    """The mount namespace to act in, as a file of /proc."""
    user: int = 0


class Trace(msgspec.Struct, frozen=True):
    """What the agent's own Python code did in one action."""

    commands: tuple[str, ...] = ()
    """Each command with its arguments, as they stood in the process list."""
    written: tuple[str, ...] = ()
    """Files and folders made or opened for writing."""
    network: tuple[str, ...] = ()
    cpu_ms: int = -1
    """User and system time of the action and the commands it waited for; -1: it did not end."""


class Afflicted(Agent):
    """The agent, under circumstances that are set before each fork."""

    def __init__(self, agent: Agent) -> None:
        vars(self).update(vars(agent))
        self.circumstances = Circumstances()
        self.trace: Path | None = None

    def start(self, resource: Resource) -> None:
        self._under(lambda: Agent.start(self, resource))

    def stop(self, resource: Resource) -> None:
        self._under(lambda: Agent.stop(self, resource))

    def monitor(self, resource: Resource) -> Health:
        return self._under(lambda: Agent.monitor(self, resource))

    def validate(self, resource: Resource) -> None:
        self._under(lambda: Agent.validate(self, resource))

    def _under(self, act: Callable[[], T]) -> T:
        if self.trace is not None:
            record(self.trace)
        enter(self.circumstances)
        if self.circumstances.hang == "before":
            time.sleep(A_LONG_TIME_S)
        began = _cpu_ms()
        try:
            return act()
        finally:
            _say({"cpu_ms": _cpu_ms() - began})
            if self.circumstances.hang == "after":
                time.sleep(A_LONG_TIME_S)


def enter(circumstances: Circumstances) -> None:
    """Bring the circumstances about, in this process, for good."""
    if circumstances.namespace:
        file = os.open(circumstances.namespace, os.O_RDONLY | os.O_CLOEXEC)
        if LIBC.setns(file, CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(file)
    if circumstances.directory is not None:
        os.chdir(circumstances.directory)
    if circumstances.path is not None:
        os.environ["PATH"] = circumstances.path
    if circumstances.user:
        if os.geteuid() != 0:
            return  # then we are nobody in particular already
        os.setgroups(())
        os.setgid(circumstances.user)
        os.setuid(circumstances.user)


# -- the trace ------------------------------------------------------------------------

_file = -1
"""Where this process writes its trace; -1: nowhere."""


def record(path: Path) -> None:
    """From now on, write down what this process asks of the system; for the rest of its life."""
    global _file
    _file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sys.addaudithook(_heard)


def read(path: Path) -> Trace:
    """What was written down."""
    commands: list[str] = []
    written: list[str] = []
    network: list[str] = []
    cpu_ms = -1
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(errors="replace").splitlines():
            entry: dict[str, Any] = json.loads(line)
            cpu_ms = entry.get("cpu_ms", cpu_ms)
            commands += [entry["command"]] if "command" in entry else []
            written += [entry["written"]] if "written" in entry else []
            network += [entry["network"]] if "network" in entry else []
    return Trace(tuple(commands), tuple(dict.fromkeys(written)), tuple(network), cpu_ms)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITES:
            _say({"written": _text(path)})
    elif event in _FILES:
        _say({"written": _text(arguments[1 if event != "os.mkdir" else 0])})
    elif event in _SHORT_LIST:
        key = "network" if event.startswith("socket.") else "command"
        _say({key: _text(arguments[0] if event == "os.system" else arguments[1])})


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, list | tuple):
        return " ".join(_text(item) for item in value)
    return str(value)


def _say(entry: dict[str, Any]) -> None:
    if _file >= 0:
        with contextlib.suppress(OSError):  # the disk is full, as asked for
            os.write(_file, json.dumps(entry).encode() + b"\n")


def _cpu_ms() -> int:
    used = [rusage.getrusage(who) for who in (rusage.RUSAGE_SELF, rusage.RUSAGE_CHILDREN)]
    return round(sum(each.ru_utime + each.ru_stime for each in used) * 1000)
