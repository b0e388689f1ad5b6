"""``hostd status --watch`` on a terminal: a live view of the whole screen.

Decides what has room: the status first, with cures if they fit, then how late
each link was, then the newest events.  Takes the terminal as it finds it and
leaves it so, whatever ends it.  What is shown of a status is ``status``'s.
"""

import contextlib
import datetime
import io
import os
import re
import select
import shutil
import signal
import sys
import termios
import textwrap
import time
import tty
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostd.commands import ask, log, sentences
from hostd.commands.exits import ExitCode
from hostd.commands.paper import Paper
from hostd.commands.status import exit_code, show
from hostd.confd.values import counted
from hostd.requests import AskLog, Entry, LogIs
from hostd.status_form import Status

EVENTS_MIN: Final = 3
"""Fewer are not worth a heading."""
EVENTS_MAX: Final = 100
HISTORY: Final = 40
"""Looks at each link that are kept."""
QUIT: Final = b"qQ\x03\x04"
"""Also Ctrl-C and Ctrl-D: the terminal hands them over as characters while it is read key by key."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


def run(runtime: Path, every_s: float) -> int:
    """Until q; the exit code is of what was shown last."""
    view = View(Paper().is_coloured)
    code: ExitCode = ExitCode.DONE
    with _taken_terminal() as wakeup:
        while True:
            try:
                status = ask.status(runtime, retry_s=0.0)
                answer = ask.ask(runtime, AskLog(limit=EVENTS_MAX), retry_s=0.0)
                assert isinstance(answer, LogIs), answer
                code = exit_code(status)
                view.take(status, answer.entries)
            except ask.Unanswered as error:
                code = error.code
                view.lose(str(error))
            if _draw_until(view, time.monotonic() + every_s, wakeup):
                return code


def _draw_until(view: "View", until: float, wakeup: int) -> bool:
    """Draw, and again after a resize; True if somebody wants to quit."""
    while True:
        size = shutil.get_terminal_size()
        lines = view.lines(size.columns, size.lines)
        # Each line is cleared behind its end and what is below at the end: no flicker, as nothing is blank between
        sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J")
        sys.stdout.flush()
        ready, _, _ = select.select([sys.stdin.fileno(), wakeup], [], [], max(0.0, until - time.monotonic()))
        if sys.stdin.fileno() in ready:
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed or any(key in QUIT for key in typed):
                return True
        elif wakeup in ready:
            os.read(wakeup, 64)
        if not ready or time.monotonic() >= until:
            return False


@contextlib.contextmanager
def _taken_terminal() -> Iterator[int]:
    """The other screen, keys as they are typed, no cursor; a file that is readable after a resize."""
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    old_wakeup = signal.set_wakeup_fd(writable)
    old_handlers = {number: signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)}

    def end(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)  # so that the terminal is given back

    try:
        signal.signal(signal.SIGWINCH, lambda *_: None)  # what counts is the byte in the pipe
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGHUP, end)
        tty.setraw(file)
        sys.stdout.write(_ENTER)
        yield readable
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
        with contextlib.suppress(OSError):  # it hung up
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        os.close(readable)
        os.close(writable)


class View:
    """What is on the screen, made of the newest answers."""

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured
        self._status: Status | None = None
        self._entries: tuple[Entry, ...] = ()
        self._lateness: dict[str, deque[int | None]] = {}
        self._lost = ""
        self._at = datetime.datetime.now()

    def take(self, status: Status, entries: tuple[Entry, ...]) -> None:
        self._status, self._lost, self._at = status, "", datetime.datetime.now()
        self._entries = tuple(entry for entry in entries if not log.is_detail(entry))
        for node in status.nodes.values():
            for name, link in node.links.items():
                late = link.late_max_ms if link.receive == "up" else None
                self._lateness.setdefault(name, deque(maxlen=HISTORY)).append(late)

    def lose(self, reason: str) -> None:
        """The daemon does not answer: the last status stays on the screen, and that it is old is said."""
        self._lost = reason

    def lines(self, columns: int, height: int) -> list[str]:
        """At most so many lines of at most so many columns."""
        foot = self._foot(columns)
        room = max(1, height - len(foot))
        body = self._body(room) if self._status is not None else []
        return [clipped(line, columns) for line in [*body[:room], *foot]][:height]

    def _body(self, room: int) -> list[str]:
        assert self._status is not None
        for with_cures in (True, False):
            paper = self._paper()
            show(self._status, paper, with_cures=with_cures)
            top = paper.text().splitlines()
            if len(top) + EVENTS_MIN + 2 <= room:
                break
        if len(top) > room:
            return [*top[: room - 1], f"… {counted(len(top) - room + 1, 'line')} more: hostd status"]
        links = ["", *self._links()]
        if len(top) + len(links) + EVENTS_MIN + 2 <= room:
            top += links
        left = room - len(top) - 2
        if left >= EVENTS_MIN and self._entries:
            top += ["", self._paper().colour("LAST EVENTS", "bold"), *self._events(left)]
        return top

    def _paper(self) -> Paper:
        return Paper(io.StringIO(), is_coloured=self._is_coloured)

    def _links(self) -> list[str]:
        """How late each link was at each look, as bars up to the worst of all; a gap: nothing was heard."""
        worst = max((late for looks in self._lateness.values() for late in looks if late is not None), default=0)
        scale = max(worst, 10)  # milliseconds: noise is not drawn as if it were trouble
        lines = [self._paper().colour(f"DELAYS up to {scale} ms", "bold")]
        width = max((len(name) for name in self._lateness), default=0)
        for name, looks in self._lateness.items():
            bars = "".join(" " if late is None else _BARS[min(7, late * 8 // (scale + 1))] for late in looks)
            lines.append(f"{name.ljust(width)}  {bars}")
        return lines

    def _events(self, room: int) -> list[str]:
        chosen = self._entries[-room:]
        paper = self._paper()
        return [
            f"{paper.colour(datetime.datetime.fromtimestamp(entry.at).strftime('%H:%M:%S.%f')[:-3], 'dim')}"
            f"  {entry.node}  {sentences.entry(entry)}"
            for entry in chosen
        ]

    def _foot(self, columns: int) -> list[str]:
        paper = self._paper()
        at = self._at.strftime("%H:%M:%S")
        if not self._lost:
            return [paper.colour(f"{at}  q: quit", "dim")]
        since = f"NOT ANSWERING since {at}" if self._status is not None else "NOT ANSWERING"
        said = [line for text in self._lost.splitlines() for line in textwrap.wrap(text, max(20, columns))]
        return [paper.colour(f"{since}; asked again and again, q: quit", "red"), *said]


def clipped(line: str, columns: int) -> str:
    """At most so many characters on the screen; colours have no width, and end with the line."""
    if len(_COLOUR.sub("", line)) <= columns:
        return line
    shown, width, at = [], 0, 0
    while at < len(line) and width < columns - 1:
        colour = _COLOUR.match(line, at)
        piece = colour[0] if colour else line[at]
        shown.append(piece)
        width += 0 if colour else 1
        at += len(piece)
    return "".join(shown) + ("\x1b[0m" if "\x1b" in line else "") + "…"
