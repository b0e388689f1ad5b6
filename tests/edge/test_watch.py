"""The live view: fits the screen, follows its size, quits on q, and leaves the terminal as it was."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostd.commands.exits import ExitCode
from hostd.commands.watch import View, clipped
from hostd.core.effects import PhaseChanged, ResourceTurned, ServiceTurned
from hostd.core.terms import Phase, ResourceState, ServiceState, Why
from hostd.requests import AnyAnswer, AnyRequest, AskLog, Entry, LogIs, StatusIs
from hostd.status_form import LinkStatus, NodeStatus, Problem
from tests.edge.test_commands import Daemon, a_status, daemon

_ = daemon  # a fixture: pytest finds it by this import
PROBLEM = Problem("warning", "one-link", {}, text="There is only one link. " * 3, cure="Add another. " * 6)
EVENTS = tuple(
    Entry(1_700_000_000.0 + i, "clustnode1", ServiceTurned(f"mysql{i}", ServiceState.RUNNING, Why.PRIMARY))
    for i in range(50)
)
DETAIL = Entry(1_700_000_100.0, "clustnode1", ResourceTurned("web", "httpd", ResourceState.RUNNING))


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)


@pytest.mark.parametrize(("columns", "height"), [(80, 24), (200, 60), (40, 10), (20, 5), (80, 2), (10, 1)])
@pytest.mark.parametrize("problems", [0, 3, 30])
@pytest.mark.parametrize("is_coloured", [True, False])
def test_whatever_is_wrong_and_however_small_the_screen_it_fits(
    columns: int, height: int, problems: int, is_coloured: bool
) -> None:
    """Never a line too many or too long, also while the daemon does not answer."""
    view = View(is_coloured)
    view.take(a_status(problems=(PROBLEM,) * problems), EVENTS)
    for _ in range(2):
        lines = view.lines(columns, height)
        assert len(lines) <= height
        assert all(len(plain(line)) <= columns for line in lines)
        assert is_coloured or not any("\x1b" in line for line in lines)
        view.lose("hostd is not running here, or not answering (/run/hostd/hostd.sock: No such file)\nsee: systemctl")


def test_on_24_lines_there_are_links_services_delays_and_the_newest_events() -> None:
    """All that is asked of a glance; steps that went well are no events."""
    view = View(False)
    view.take(a_status(), (*EVENTS, DETAIL))
    shown = "\n".join(view.lines(80, 24))
    for words in (
        "all is well",
        "LINK TO clustnode2",
        "serial:/dev/ttyS0",
        "mysql",
        "LAST EVENTS",
        "mysql49 runs",
        "q: quit",
    ):
        assert words in shown
    assert "httpd" not in shown
    assert "DELAYS up to 12 ms" in "\n".join(view.lines(80, 40))


def test_problems_push_events_and_cures_away_and_not_the_other_way_round() -> None:
    """First the cures go, then the events; what is cut is said."""
    view = View(False)
    view.take(a_status(problems=(PROBLEM,) * 2), EVENTS)
    assert "→" in "\n".join(view.lines(80, 40)) and "LAST EVENTS" in "\n".join(view.lines(80, 40))
    assert "→" not in "\n".join(view.lines(80, 22)) and "LAST EVENTS" in "\n".join(view.lines(80, 22))
    view.take(a_status(problems=(PROBLEM,) * 30), EVENTS)
    assert "lines more: hostd status" in view.lines(80, 24)[-2]


def test_delays_are_drawn_look_by_look_and_silence_is_a_gap() -> None:
    """The worst of all is the tallest; a link on which nothing is heard has no bar."""
    view = View(False)
    for late, way in ((0, "up"), (100, "up"), (50, "down")):
        link = LinkStatus("up", way, late_max_ms=late)  # type: ignore[arg-type]
        nodes = {"clustnode1": NodeStatus("online"), "clustnode2": NodeStatus("online", links={"wire": link})}
        view.take(a_status(nodes=nodes), ())
    assert "wire  ▁█ " in view._links()


def test_an_old_status_is_never_shown_as_if_it_were_new() -> None:
    """While nobody answers the last one stays, with since when in red below it."""
    view = View(True)
    view.take(a_status(), ())
    view.lose("hostd is not running here")
    lines = view.lines(80, 30)
    assert "all is well" in plain(lines[0])
    assert any("NOT ANSWERING since" in line and "\x1b[31m" in line for line in lines)


def test_colours_have_no_width() -> None:
    """A clipped line ends with an ellipsis and without colour."""
    assert clipped("\x1b[31mabcdef\x1b[0m", 6) == "\x1b[31mabcdef\x1b[0m"
    assert clipped("\x1b[31mabcdefg\x1b[0m", 6) == "\x1b[31mabcde\x1b[0m…"
    assert clipped("abcdefg", 3) == "ab…"


class Terminal:
    """A pty with the command in it."""

    def __init__(self, runtime: Path, columns: int = 80, lines: int = 24) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.slave)
        words = [sys.executable, "-m", "hostd.commands.main", "status", "--watch", "0.2", "--runtime-dir", str(runtime)]
        self.process = subprocess.Popen(
            words, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
        )  # fmt: skip
        self.said = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, text: str, limit_s: float = 20) -> str:
        """What it wrote until this text came; what comes after is for the next."""
        end = time.monotonic() + limit_s
        while text not in self.said:
            assert time.monotonic() < end, self.said[-3_000:]
            if select.select([self.master], [], [], 0.1)[0]:
                self.said += os.read(self.master, 65_536).decode(errors="replace")
        found, _, self.said = self.said.partition(text)
        return found + text

    def ended(self) -> int:
        end = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < end
            if select.select([self.master], [], [], 0.05)[0]:
                self.said += os.read(self.master, 65_536).decode(errors="replace")
        while select.select([self.master], [], [], 0)[0]:
            self.said += os.read(self.master, 65_536).decode(errors="replace")
        assert termios.tcgetattr(self.slave) == self.before
        assert self.said.endswith("\x1b[?25h\x1b[?1049l") or "\x1b[?1049l" in self.said
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def answers(request: AnyRequest) -> AnyAnswer:
    return LogIs(EVENTS) if isinstance(request, AskLog) else StatusIs(a_status())


@pytest.fixture
def terminal(daemon: Daemon) -> Iterator[Terminal]:
    daemon.answers = answers
    made = Terminal(daemon.runtime)
    yield made
    made.close()


def test_q_quits_and_the_terminal_is_as_before(terminal: Terminal) -> None:
    """Another screen, no cursor, and all of it given back; other keys do nothing."""
    assert terminal.until("\x1b[?1049h\x1b[?25l")
    terminal.until("q: quit")
    os.write(terminal.master, b"x ")
    terminal.until("q: quit")
    os.write(terminal.master, b"q")
    assert terminal.ended() == ExitCode.DONE


def test_it_follows_the_size_of_the_terminal(terminal: Terminal) -> None:
    """After a resize it is drawn anew at once, in the new size."""
    terminal.until("q: quit")
    terminal.resize(50, 12)
    terminal.process.send_signal(signal.SIGWINCH)
    for _ in range(3):
        drawn = terminal.until("q: quit")
    frame = drawn.rpartition("\x1b[H")[2]
    lines = [plain(line) for line in frame.split("\r\n")]
    assert len(lines) <= 12 and all(len(line) <= 50 for line in lines)
    os.write(terminal.master, b"q")
    assert terminal.ended() == ExitCode.DONE


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_any_end_gives_the_terminal_back(terminal: Terminal, how: str) -> None:
    """Ctrl-C, which arrives as a key, and a signal from outside."""
    terminal.until("q: quit")
    if how == "ctrl-c":
        os.write(terminal.master, b"\x03")
    else:
        terminal.process.terminate()
    assert terminal.ended() in (ExitCode.DONE, 130)


def test_a_daemon_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    """The view stays and says so; with q the exit code tells that nobody answered."""
    made = Terminal(tmp_path)
    try:
        made.until("NOT ANSWERING")
        os.write(made.master, b"q")
        assert made.ended() == ExitCode.UNREACHABLE
    finally:
        made.close()


def test_without_a_terminal_it_prints_as_before(daemon: Daemon) -> None:
    """In a pipe there are no keys and no other screen."""
    daemon.answers = lambda request: (
        LogIs((Entry(0.0, "a", PhaseChanged(Phase.ALONE, False, 1, Why.PEER_FENCED)),))
        if isinstance(request, AskLog)
        else StatusIs(a_status())
    )
    words = [sys.executable, "-m", "hostd.commands.main", "status", "--watch", "0.1"]
    process = subprocess.Popen(
        [*words, "--runtime-dir", str(daemon.runtime)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(8))
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert "all is well" in said and "\x1b[?1049h" not in said
