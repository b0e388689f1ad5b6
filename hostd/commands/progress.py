"""How far a command is that takes a while: one line on standard error, written over, on a terminal only.

Decides wording and the guess of how long it will take: as fast as until now.
Standard output stays clean for what the command was asked for.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

from hostd.commands import sentences

GUESS_AFTER_S: Final = 2.0
"""Before, a guess from a few quick steps only misleads."""


def say(what: str) -> None:
    """Show it; empty: the line is free again."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what + ' …' if what else ''}")
        sys.stderr.flush()


class Progress:
    """``3 of 44 failures, about 40 s more``, from the first moment on; as a context manager it cleans up."""

    def __init__(self, noun: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._noun, self._total, self._clock = noun, total, clock
        self._done, self._began_s = 0, clock()

    def __enter__(self) -> "Progress":
        say(self.text())
        return self

    def __exit__(self, *_: object) -> None:
        say("")

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        say(self.text())

    def text(self) -> str:
        text = f"{self._done} of {self._total} {self._noun}"
        took_s = self._clock() - self._began_s
        if took_s < GUESS_AFTER_S or not self._done:
            return text
        return f"{text}, about {sentences.span(took_s / self._done * (self._total - self._done))} more"
