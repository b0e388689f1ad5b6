"""What a person sees of the demo: 80 columns, colours on a terminal only.

Decides the look: headings, verdicts, tables, a timeline, and a block that is
redrawn in place while something is awaited.  Knows nothing of what it shows.
"""

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

WIDTH = 80
GREEN, RED, YELLOW, BOLD, DIM = "32", "31", "33", "1", "2"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Show:
    """One telling.  ``pause_s``: how long a reader gets after each part; 0 for machines."""

    def __init__(self, *, pause_s: float = 0) -> None:
        self.is_live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.pause_s = pause_s
        self.failures: list[str] = []
        self._part = 0
        self._drawn = 0

    def paint(self, text: str, *codes: str) -> str:
        """The text in colour, or as it is."""
        use = self.is_live and "NO_COLOR" not in os.environ
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if use else text

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def part(self, title: str) -> None:
        """A new part of the story."""
        self._part += 1
        self.line()
        head = f"── {self._part}  {title} "
        self.line(self.paint(head.ljust(WIDTH, "─"), BOLD))

    def text(self, text: str) -> None:
        """Some lines, a little indented."""
        for line in text.splitlines():
            self.line(f"  {line}".rstrip())

    def verdict(self, ok: bool, claim: str, figure: str = "") -> bool:
        """A claim that was looked at: ✓ or ✗, with a figure at the right."""
        mark = self.paint("✓", GREEN, BOLD) if ok else self.paint("✗", RED, BOLD)
        if not ok:
            self.failures.append(claim)
            claim = self.paint(claim, RED)
        room = max(1, WIDTH - 4 - _visible(claim) - len(figure))
        self.line(f"  {mark} {claim}{' ' * room if figure else ''}{self.paint(figure, BOLD)}")
        return ok

    def pause(self) -> None:
        """Let the reader read."""
        if self.pause_s:
            time.sleep(self.pause_s)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Say what is being done, and at the end how long it took."""
        began = time.monotonic()
        if self.is_live:
            self._redraw(f"  {self.paint('…', YELLOW)} {what}")
        try:
            yield
        finally:
            self._erase()
        self.verdict(True, what, f"{time.monotonic() - began:.1f} s")

    # -- live ------------------------------------------------------------------

    def watch(
        self, what: str, claim: Callable[[], bool], *, within_s: float, picture: Callable[[], str] | None = None
    ) -> float | None:
        """Wait for a claim; the seconds it took, None if it did not come true.

        On a terminal ``picture`` is drawn again and again below a spinner.
        """
        began, turn = time.monotonic(), 0
        try:
            while True:
                taken = time.monotonic() - began
                if claim():
                    return taken
                if taken > within_s:
                    return None
                if self.is_live:
                    spin = self.paint(SPINNER[turn % len(SPINNER)], YELLOW)
                    self._redraw(f"  {spin} {what} … {taken:.0f} s\n" + (picture() if picture else ""))
                    turn += 1
                time.sleep(0.1)
        finally:
            self._erase()

    def look(self, picture: Callable[[], str], *, for_s: float) -> None:
        """Show a changing picture for a while and leave the last one standing."""
        end = time.monotonic() + (for_s if self.is_live else 0)
        while time.monotonic() < end:
            self._redraw(picture())
            time.sleep(0.3)
        self._erase()
        self.line(picture().rstrip("\n"))

    def _redraw(self, block: str) -> None:
        self._erase()
        lines = block.rstrip("\n").split("\n")
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}F\x1b[J")
            sys.stdout.flush()
            self._drawn = 0

    # -- tables ------------------------------------------------------------------

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as they need to be; the last one to the right if it holds figures."""
        widths = [max(_visible(row[i]) for row in [head, *rows]) for i in range(len(head))]
        for number, row in enumerate([head, *rows]):
            cells = [cell + " " * (widths[i] - _visible(cell)) for i, cell in enumerate(row)]
            text = "    " + "   ".join(cells)
            self.line(self.paint(text.rstrip(), DIM) if number == 0 else text.rstrip())

    def timeline(self, moments: Sequence[tuple[float, str, str]]) -> None:
        """(milliseconds, who, what), oldest first."""
        room = max((len(who) for _, who, _ in moments), default=0)
        indent = 2 + len("1234567 ms") + 2 + room + 2
        for at_ms, who, what in moments:
            first, *rest = textwrap.wrap(what, WIDTH - indent) or [""]
            when = self.paint(f"{at_ms:7.0f} ms", BOLD)
            self.line(f"  {when}  {who.ljust(room)}  {first}")
            for more in rest:
                self.line(" " * indent + more)

    def __enter__(self) -> "Show":
        if self.is_live:
            sys.stdout.write("\x1b[?25l")  # a blinking cursor in a picture is ugly
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_live:
            sys.stdout.write("\x1b[?25h")
            sys.stdout.flush()


def _visible(text: str) -> int:
    """How many columns it takes: colour codes take none."""
    length, skipping = 0, False
    for char in text:
        if char == "\x1b":
            skipping = True
        elif not skipping:
            length += 1
        elif char == "m":
            skipping = False
    return length
