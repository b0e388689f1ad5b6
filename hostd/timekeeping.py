"""What the heart remembers of time: when beats are due, when frames were sent,
what the worst was.

Decides when the next beat is due.  Reads no clock: time is an argument, in
milliseconds of ``hostd.clock``.
"""

from array import array
from collections import deque
from typing import Final

SENT_KEPT: Final = 4_096
"""80 s of beats of 20 ms: an echo is looked at while it is younger than a deadtime."""


class Schedule:
    """Beats at absolute times: a late one does not shift the next, and those
    that were missed are not made up for."""

    def __init__(self, first_at_ms: int, period_ms: int) -> None:
        assert period_ms > 0, period_ms
        self.due_at_ms = first_at_ms
        self.turn = 0
        """Counts periods, missed ones too."""
        self._period_ms = period_ms

    def advance(self, now_ms: int) -> int:
        """To the first turn after now; how late this one is."""
        late_ms = now_ms - self.due_at_ms
        assert late_ms >= 0, late_ms
        turns = 1 + late_ms // self._period_ms
        self.due_at_ms += turns * self._period_ms
        self.turn += turns
        return late_ms

    def turns_in(self, duration_ms: int) -> int:
        """How many turns a slower link sits out and takes part again: rounded up."""
        return -(-duration_ms // self._period_ms)


class SentTimes:
    """When our newest frames were sent, to be found by the peer's echo."""

    def __init__(self) -> None:
        self._at_ms = array("q", bytes(8 * SENT_KEPT))
        self._newest = 0

    def note(self, sequence: int, at_ms: int) -> None:
        """Sequences come one by one."""
        assert sequence == self._newest + 1, (sequence, self._newest)
        self._newest = sequence
        self._at_ms[sequence % SENT_KEPT] = at_ms

    def of(self, sequence: int) -> int | None:
        """None if there was no such frame, or too long ago."""
        if not max(0, self._newest - SENT_KEPT) < sequence <= self._newest:
            return None
        return self._at_ms[sequence % SENT_KEPT]


class Worst:
    """The largest value of the last minute, in steps of a second."""

    def __init__(self) -> None:
        self._seconds: deque[int] = deque([0], maxlen=60)

    def note(self, value: int) -> None:
        self._seconds[-1] = max(self._seconds[-1], value)

    def end_second(self) -> int:
        """The largest; to be called once a second."""
        worst = max(self._seconds)
        self._seconds.append(0)
        return worst
