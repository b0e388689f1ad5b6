"""The processes of one server: which are they, and are they gone?

Decides that a server is known by what the kernel says of it (program,
arguments, user) and never by a pid file: on shared storage that may come
from the other node, and after a crash its number may be anybody's.  Only
processes in our own pid and network namespaces count: a container's are
somebody else's.  Knows no particular server.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from hostd.api.errors import NotInstalled
from hostd.api.resource import Resource

NOTE = "main-process"
"""File in ``run_dir``: never believed, only a hint where to look first."""
_AT_ONCE = 4_096
"""Bytes; of the files of /proc only a command line may be longer."""
SBIN = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where servers are that an ordinary PATH does not name."""


class ServerProcess(NamedTuple):
    """One living process, at the time of the look."""

    pid: int
    parent: int
    argv: tuple[str, ...]
    leads: bool
    """It leads its session, as a server that was spawned does; its workers do not."""

    def option(self, name: str) -> str | None:
        """The word after ``name`` in its arguments, or what follows ``name=`` for a long one."""
        for here, word in enumerate(self.argv[:-1]):
            if word == name:
                return self.argv[here + 1]
        prefix = f"{name}="
        return next((word.removeprefix(prefix) for word in self.argv if word.startswith(prefix)), None)


def find(
    programs: Collection[str], is_ours: Callable[[ServerProcess], bool], among: Collection[int] | None = None
) -> list[ServerProcess]:
    """Every living process that runs one of ``programs`` (file names, without folder) and for which
    ``is_ours`` holds; lowest number first.  ``among``: look at these alone, at a twentieth of the cost."""
    here = _namespaces(os.getpid())
    found = []
    for pid in _everybody() if among is None else among:
        try:
            program = _readlink(f"/proc/{pid}/exe").rpartition("/")[2].removesuffix(" (deleted)")
            if program not in programs:
                continue
            fields = _stat(pid)
            argv = tuple(_text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0"))
            process = ServerProcess(pid, int(fields[1]), argv, leads=int(fields[3]) == pid)
            if fields[0] not in ("Z", "X") and is_ours(process) and _namespaces(pid) == here:
                found.append(process)
        except OSError:
            continue  # it ended while we looked
    return sorted(found)


def known(resource: Resource, programs: Collection[str], is_ours: Callable[[ServerProcess], bool]) -> int | None:
    """The process that :func:`note` kept, if it lives and is ours by the same rule as for :func:`find`.

    A look at one process costs a fiftieth of a look at all; None says
    nothing: then all have to be looked at.
    """
    try:
        pid = int(_text(f"{resource.run_dir}/{NOTE}"))
    except (OSError, ValueError):
        return None
    return pid if find(programs, is_ours, among=[pid]) else None


def note(resource: Resource, pid: int) -> None:
    """Keep the server's main process for the next :func:`known`; a note that cannot be written costs speed only."""
    path = f"{resource.run_dir}/{NOTE}"
    with contextlib.suppress(OSError):
        if _text(path) == str(pid):  # nearly always; to write it costs twice that, on a disk thirty times
            return
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        file.write(b"%d" % pid)


def is_alive(pid: int) -> bool:
    """Is there a process of this number that is not just waiting to be collected?"""
    try:
        return _stat(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def is_here(pid: int) -> bool:
    """Is it in our own pid and network namespaces?"""
    try:
        return _namespaces(pid) == _namespaces(os.getpid())
    except OSError:
        return False


def kill(resource: Resource, pids: Callable[[], Sequence[int]], what: str) -> None:
    """SIGKILL for all that ``pids`` finds, until it finds none: those forked meanwhile included.

    AgentError, naming ``what``, if they do not die before the deadline.
    """
    while found := pids():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        resource.wait(functools.partial(_are_gone, found), f"{what} did not die")


def gone_within(resource: Resource, pids: Callable[[], Sequence[int]], seconds: float) -> bool:
    """Wait until ``pids`` finds nothing, but no longer than this; whether it does."""
    until = resource.remaining - seconds
    resource.wait(lambda: resource.remaining <= until or not pids(), "the wait did not end")
    return not pids()


def program(names: Sequence[str], cure: str) -> str:
    """The first of these programs that is installed, with its folder.  AgentError with ``cure`` if none is."""
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    found = next((found for name in names if (found := shutil.which(name, path=path))), None)
    if found is None:
        raise NotInstalled(f"{' or '.join(names)} is not installed", cure=cure)
    return found


def last_words(resource: Resource, lines: int = 3) -> str:
    """The end of what spawned processes printed into ``run_dir``; "" if they said nothing."""
    try:
        said = (resource.run_dir / "output").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " ".join(said[-lines:])


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now: for an agent's ``sandbox``."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - many, often


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on: state, parent, group, session, …"""
    return _text(f"/proc/{pid}/stat").rpartition(")")[2].split(maxsplit=4)


def _namespaces(pid: int) -> tuple[str, str]:
    return _readlink(f"/proc/{pid}/ns/pid"), _readlink(f"/proc/{pid}/ns/net")


# Each look at a process takes several of these, each monitor several looks, in a child that pays
# for every page of Python that it is the first to touch: a Path costs it more than the kernel's answer.


def _text(path: str) -> str:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = more = os.read(file, _AT_ONCE)
        while len(more) == _AT_ONCE:
            more = os.read(file, _AT_ONCE)
            data += more
    finally:
        os.close(file)
    return data.decode(errors="replace")


def _readlink(path: str) -> str:
    return os.readlink(path)  # noqa: PTH115 - see above


def _are_gone(pids: Sequence[int]) -> bool:
    return not any(map(is_alive, pids))
