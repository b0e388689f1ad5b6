"""When the next thing happens: a heap of (time, order of arrival, act).

Decides only the order.  Equal times keep the order in which they were asked
for, so that a run depends on its seed and on nothing else.
"""

import heapq
from collections.abc import Callable
from typing import Any

Act = Callable[..., None]


class Queue:
    """The virtual clock, in integer milliseconds, and what is still to come."""

    __slots__ = ("_asked", "_heap", "now_ms")

    def __init__(self) -> None:
        self.now_ms = 0
        self._heap: list[tuple[int, int, Act, tuple[Any, ...]]] = []
        self._asked = 0

    def at(self, at_ms: int, act: Act, *args: Any) -> None:
        """Call ``act(*args)`` at ``at_ms``, which is not in the past."""
        assert at_ms >= self.now_ms, (at_ms, self.now_ms)
        self._asked += 1
        heapq.heappush(self._heap, (at_ms, self._asked, act, args))

    def after(self, delay_ms: int, act: Act, *args: Any) -> None:
        self.at(self.now_ms + delay_ms, act, *args)

    def run_until(self, at_ms: int, stop: Callable[[], bool]) -> None:
        """Everything due up to ``at_ms``; ends early when ``stop()`` says so."""
        heap = self._heap
        while heap and heap[0][0] <= at_ms:
            due_at_ms, _, act, args = heapq.heappop(heap)
            self.now_ms = due_at_ms
            act(*args)
            if stop():
                return
        self.now_ms = at_ms
