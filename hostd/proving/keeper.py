"""The keeper: a process that outlives the test and leaves nothing behind.

The test itself runs in a child.  Whatever that child, its actions or the
services started by them do (daemons in sessions of their own, a crash, a
kill -9), every process of theirs ends up as a child of the keeper, which the
kernel makes sure of (PR_SET_CHILD_SUBREAPER).  When the test has ended, the
keeper kills what is left, collects it and has the throw-away place removed.

It is also what init is on a real machine: it collects dead daemons at once;
but it can be told to hold, and then a dead service stays a zombie.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from hostd import processes

_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)

DEATH_MAX_S: Final = 10.0
"""What was killed is gone in milliseconds, unless it waits in the kernel for a device."""


class Keeper:
    """The test's end of the talk with its keeper."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def hold(self) -> None:
        """From now on the dead are not collected."""
        self._say(b"h")

    def release(self) -> None:
        """The dead are collected again."""
        self._say(b"r")

    def _say(self, word: bytes) -> None:
        self._line.sendall(word)
        self._line.recv(1)  # done, and not only heard


def keep(work: Callable[[Keeper], int], clean_up: Callable[[], None]) -> int:
    """Run ``work`` in a child and return its exit status; nothing that it started is left then.

    ``clean_up`` is called in this process when all of it is dead.
    """
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    mine, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        mine.close()
        _in_child(parent, theirs, work)
    theirs.close()
    earlier = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    earlier[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test hears it itself, and ends
    try:
        return _watch(child, mine)
    finally:
        _bury_all()
        clean_up()
        mine.close()
        for number, usual in earlier.items():
            signal.signal(number, usual)


def _end(number: int, frame: object) -> NoReturn:
    """Told to end: the test is killed on the way out."""
    sys.exit(128 + number)


def _in_child(parent: int, line: socket.socket, work: Callable[[Keeper], int]) -> NoReturn:
    status = 70  # EX_SOFTWARE
    try:
        processes.die_with_parent(parent)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = work(Keeper(line))
    except BaseException:  # noqa: BLE001 - the edge: the stack above is the keeper's and not ours to unwind
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _watch(child: int, line: socket.socket) -> int:
    """Collect the dead until ``child`` is one of them; its exit status."""
    is_holding = False
    for _ in _wakings(line):
        with contextlib.suppress(BlockingIOError, ConnectionError):
            line.setblocking(False)
            word = line.recv(1)
            if word:
                is_holding = word == b"h"
                line.sendall(b".")
        while pid := child if is_holding else _dead():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found == child:
                return os.waitstatus_to_exitcode(status)
            if found == 0:
                break
    raise AssertionError("the wakings never end")


def _wakings(line: socket.socket) -> Iterator[None]:
    """Once now, and then whenever a child died or the test said something."""
    bell, ringer = socket.socketpair()
    with bell, ringer, selectors.DefaultSelector() as selector:
        for end in (bell, ringer):
            end.setblocking(False)
        usual = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        earlier = signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
        selector.register(bell, selectors.EVENT_READ)
        selector.register(line, selectors.EVENT_READ)
        try:
            while True:
                yield
                for key, _ in selector.select():
                    if key.fileobj is bell:
                        bell.recv(4_096)
                    elif _is_closed(line):
                        selector.unregister(line)  # the test is ending
        finally:
            signal.set_wakeup_fd(earlier)
            signal.signal(signal.SIGCHLD, usual)


def _is_closed(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except ConnectionError:
        return True


def _dead() -> int:
    """One of our children that is dead and not collected; 0 if there is none."""
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found.si_pid if found else 0


def _bury_all() -> None:
    """Kill and collect all that is left; what cannot be killed is left to init."""
    until = time.monotonic() + DEATH_MAX_S
    while time.monotonic() < until:
        own = os.getpid()
        for process in processes.everyone():
            if process.parent == own and process.is_alive:
                processes.kill(process)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return
