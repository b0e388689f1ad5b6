"""The processes of one slapd: is it one, with which configuration, and has all of it ended?

Decides by arguments and by what the kernel says of threads.  Ends nobody.
"""

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from hostd.api import servers
from hostd.api.ldap import configuration


def serves(process: servers.ServerProcess, config: str) -> bool:
    """Is it a server with this configuration, by whichever of its paths, and no tool?"""
    if any(word.startswith("-T") for word in process.argv):
        return False  # slapd -Tcat and its like
    given = _option(process.argv, "-F") or _option(process.argv, "-f") or configuration.usual()
    return given == config or os.path.realpath(given) == os.path.realpath(config)


def _option(argv: tuple[str, ...], name: str) -> str:
    """What follows ``name``, as the next word or in the same."""
    for here, word in enumerate(argv):
        if word.startswith(name):
            return word.removeprefix(name) or next(iter(argv[here + 1 :]), "")
    return ""


def children(pid: int) -> list[int]:
    """All that it has started and that live; none of a process that is gone."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def still_living(pids: list[int]) -> Callable[[], list[int]]:
    """A question: which of these live?"""
    return lambda: [pid for pid in pids if _has_a_living_thread(pid)]


def _has_a_living_thread(pid: int) -> bool:
    """A process whose first thread has ended is a zombie to most tools, and may still write."""
    try:
        return any(servers.is_alive(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False
